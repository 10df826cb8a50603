//! The kernel's part of a channel's start: the same memory, allocated, mapped and populated for both sides, and nothing else.
#![expect(unsafe_code, clippy::disallowed_methods, reason = "mappings have no safe interface")]

use std::{ffi::c_void, ptr};

use rustix::{
    fd::OwnedFd,
    fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

/// A way to allocate and populate a region.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// `fallocate(2)`, then `MADV_POPULATE_WRITE`: the calls whose names say what is wanted. The kernel fills each page with
    /// zeros in a fault of its own.
    Write,
    /// `fallocate(2)` twice, then `MADV_POPULATE_READ`. The second call fills the pages with zeros, and each fault then enters
    /// sixteen pages into the page table. This was the fastest of the ways that were tried; `MAP_POPULATE` was no faster.
    Read,
}

/// A mapping of a whole file.
struct Mapping(*mut c_void, usize);

impl Mapping {
    fn new(file: &OwnedFd, len: usize, protection: ProtFlags) -> Self {
        // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
        Self(unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }.unwrap(), len)
    }

    fn populate(&self, advice: Advice) {
        // SAFETY: the range is this mapping, whose contents stay.
        unsafe { madvise(self.0, self.1, advice) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping.
        unsafe { munmap(self.0, self.1) }.unwrap();
    }
}

/// A region of `len` bytes as its owner and its reader have it.
pub(crate) struct Region {
    _file: OwnedFd,
    _own: Mapping,
    _peers: Mapping,
}

impl Region {
    pub(crate) fn new(len: usize, way: Way) -> Self {
        let file = memfd_create("floor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, len as u64).unwrap();
        let allocate = || fallocate(&file, FallocateFlags::empty(), 0, len as u64).unwrap();
        allocate();
        let own = Mapping::new(&file, len, ProtFlags::READ | ProtFlags::WRITE);
        match way {
            Way::Write => own.populate(Advice::LinuxPopulateWrite),
            Way::Read => {
                allocate();
                own.populate(Advice::LinuxPopulateRead);
            }
        }
        let peers = Mapping::new(&file, len, ProtFlags::READ);
        peers.populate(Advice::LinuxPopulateRead);
        Self { _file: file, _own: own, _peers: peers }
    }
}
