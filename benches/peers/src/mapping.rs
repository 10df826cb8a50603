//! [`Mapping`]: memory that both processes map and both write. Only the transport `limit` is built on it.

use std::{
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
};

use crate::{cell::Side, link::Link};

/// Mapped until the process ends.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// The first process makes it, the second gets it.
    pub(crate) fn connect(side: Side, link: &Link, len: usize) -> Result<Self> {
        match side {
            Side::First => {
                let file = memfd_create("peers", MemfdFlags::CLOEXEC)?;
                ftruncate(&file, len as u64)?;
                link.send(b"memory", &[file.as_fd()])?;
                Self::new(file.as_fd(), len)
            }
            Side::Second => {
                let (_, fds) = link.receive()?;
                Self::new(fds.first().context("expected a descriptor, found none")?.as_fd(), len)
            }
        }
    }

    fn new(file: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping, wherever the kernel likes, of a file that nobody shrinks.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }?;
        let start = NonNull::new(start.cast()).context("expected a mapping, found null")?;
        Ok(Self { start, len })
    }

    /// The address of `len` bytes at `offset`.
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "expected a range within the mapping");
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.start.add(offset) }
    }
}
