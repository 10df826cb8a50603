//! Other processes for the tests: this program again, in a role of its own, and what starting one means for a test beside;
//! and how thorough a test is to be.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::{
    os::fd::AsFd,
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// This program, to run nothing but the ignored test `name`. What that writes to standard error is seen with the output
/// of the test that starts it; its standard output is libtest's, and left out.
///
/// A role that waits should wait in its channel: so it ends with its parent.
pub(crate) fn role(name: &str) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--ignored", "--nocapture"]).stdout(Stdio::null());
    command
}

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
