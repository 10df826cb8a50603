//! This process: its descriptors, its mappings, its files.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::{fs, os::fd::AsFd, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tempfile::{TempDir, tempdir};

/// A path for a socket, in a directory that is removed on drop.
pub(crate) fn socket_path() -> (TempDir, PathBuf) {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("socket");
    (directory, path)
}

/// Open descriptors, and mappings of regions and sealed buffers. Only a test that is alone in its process can compare them.
pub(crate) fn left_over() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    (fs::read_dir("/proc/self/fd").unwrap().count(), maps.matches("memfd:").count())
}

/// True if all copies of a pipe's writing end are closed within 20 seconds.
///
/// A child that another test starts has copies of all descriptors of this process until it becomes another program
/// (`O_CLOEXEC` in `open(2)`), so the end of a pipe is waited for.
pub(crate) fn is_abandoned(reader: impl AsFd) -> bool {
    const SOON: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
    // `POLLHUP` is reported without being asked for (`poll(2)`).
    let mut reader = [PollFd::new(&reader, PollFlags::empty())];
    retry_on_intr(|| poll(&mut reader, Some(&SOON))).expect("a pipe can be polled");
    reader[0].revents().contains(PollFlags::HUP)
}

/// Raises the limit of open files to `count` for all tests of this process. If the hard limit is lower (`RLIMIT_NOFILE`,
/// `getrlimit(2)`), says so and returns false: the test is left out.
pub(crate) fn may_open(count: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < count) {
        println!("left out: {count} open files are needed, {limit:?}");
        return false;
    }
    // A concurrent test may ask for as much, but none for less.
    if limit.current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..limit }).expect("within the hard limit");
    }
    true
}
