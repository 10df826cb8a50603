//! What the tests share: roles for other processes, raw peers, forks, event loops, scripts of messages.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    reason = "each test binary uses its part of this"
)]

pub(crate) mod forks;
pub(crate) mod hostile;
pub(crate) mod loops;
pub(crate) mod role;
pub(crate) mod script;
pub(crate) mod threads;

use std::os::fd::AsFd;

pub(crate) use role::role;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Whether, soon, nobody holds the writing end of a pipe.
///
/// Not whether at once: a child that another test of this process starts has all that is open here, until it becomes
/// another program (`O_CLOEXEC` in `open(2)`).
pub(crate) fn is_abandoned(reader: impl AsFd) -> bool {
    const SOON: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
    // Asked for or not, `POLLHUP` is told (`poll(2)`).
    let mut reader = [PollFd::new(&reader, PollFlags::empty())];
    retry_on_intr(|| poll(&mut reader, Some(&SOON))).expect("a pipe can be polled");
    reader[0].revents().contains(PollFlags::HUP)
}

/// Lets this process have `count` files open at once, in all of its tests together. False, and said so, where its hard limit
/// forbids that (`RLIMIT_NOFILE`, `getrlimit(2)`): the test is left out then.
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

/// The measure of a test that finds the more the longer it runs: `short` as a rule, `long` with `SEALANE_NIGHTLY` set.
pub(crate) fn short_or_long<T>(short: T, long: T) -> T {
    if std::env::var_os("SEALANE_NIGHTLY").is_some() { long } else { short }
}
