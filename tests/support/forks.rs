//! Forks of this process: a body that runs in one, and its outcome.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]
#![expect(unsafe_code, reason = "a fork is not to be had otherwise")]

use std::{
    fmt::Display,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A fork that is on its way.
#[must_use]
pub(crate) struct Fork(libc::pid_t);

/// Forks this process: `None` in the fork, which has to [`end`] before it comes back to the test's harness.
pub(crate) fn split() -> Option<Fork> {
    // SAFETY: the child has this thread only, and uses those parts of the library and of the C library that the fork of a
    // program with idle threads may use.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => None,
        child => Some(Fork(child)),
    }
}

/// Runs `body` in a fork of this process with its own copy of `value`, and in this one gives `value` back. When `body` has
/// returned the fork ends, without dropping anything.
pub(crate) fn fork<T>(value: T, body: impl FnOnce(T)) -> (T, Fork) {
    if let Some(fork) = split() {
        return (value, fork);
    }
    let result = catch_unwind(AssertUnwindSafe(|| body(value)));
    if let Err(panic) = &result {
        let word = panic.downcast_ref::<String>().map(String::as_str);
        say(word.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
    }
    end(i32::from(result.is_err()))
}

/// Like [`fork`], and waits until the fork has ended well.
pub(crate) fn in_fork<T>(value: T, body: impl FnOnce(T)) -> T {
    let (value, fork) = fork(value, body);
    fork.wait();
    value
}

impl Fork {
    /// Waits until it has ended, and fails if it has not done so well.
    pub(crate) fn wait(self) {
        let mut status = 0;
        // SAFETY: contract of `waitpid(2)`: a live integer.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!((waited, status), (self.0, 0), "process and wait status of the fork");
    }
}

/// Ends this process at once: no destructor runs.
pub(crate) fn end(status: i32) -> ! {
    // SAFETY: `_exit(2)` has no contract.
    unsafe { libc::_exit(status) }
}

/// Not by `eprintln`, which would be kept for the end of a test that is not here.
pub(crate) fn say(word: impl Display) {
    let _ = writeln!(std::io::stderr(), "in the fork: {word}");
}
