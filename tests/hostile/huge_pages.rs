//! Huge pages are never reserved for a file that a peer sends.
//!
//! The kernel counts them for the whole machine, so this binary has one test only.

use std::{fs, os::fd::OwnedFd};

use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
};
use sealane::SealedBuffer;

const PAGE: u64 = 2 << 20;
const PAGES: u64 = 2;

/// A count of huge pages of the default size (`proc_meminfo(5)`).
fn count(key: &str) -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(key));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// A sealed file of huge pages, if there are enough.
fn sealed() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB | MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let memfd = memfd_create("huge", flags)?;
    ftruncate(&memfd, PAGES * PAGE)?;
    fallocate(&memfd, FallocateFlags::empty(), 0, PAGES * PAGE)?;
    fcntl_add_seals(&memfd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(memfd)
}

#[test]
fn a_received_buffer_reserves_none_of_ours() {
    let Ok(memfd) = sealed() else {
        return println!("left out: fewer than {PAGES} huge pages are free (vm.nr_hugepages)");
    };
    let before = [count("HugePages_Free:"), count("HugePages_Rsvd:")];
    let buffer = SealedBuffer::try_from(memfd).unwrap();
    assert_eq!(buffer.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 0);
    assert_eq!([count("HugePages_Free:"), count("HugePages_Rsvd:")], before, "free, reserved");
}
