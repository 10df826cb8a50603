//! Calls that may block, in threads of their own, and the limits of their time: no test hangs.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::{
    convert::Infallible,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The deadline of everything that must happen: generous, for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A call that was started.
pub(crate) struct Started<T> {
    /// Its directory under `/proc`.
    thread: PathBuf,
    result: mpsc::Receiver<T>,
}

/// Starts a call that may block.
pub(crate) fn start<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Started<T> {
    let (tell_thread, thread) = mpsc::channel();
    let (tell_result, result) = mpsc::channel();
    thread::spawn(move || {
        let here = fs::read_link("/proc/thread-self").expect("/proc is there");
        tell_thread.send(Path::new("/proc").join(here)).expect("somebody waits for it");
        // The receiver is gone if the test has failed meanwhile.
        let _ = tell_result.send(call());
    });
    Started { thread: thread.recv().expect("the thread has begun"), result }
}

impl<T> Started<T> {
    /// Waits until the kernel says that the thread sleeps.
    pub(crate) fn asleep(self) -> Self {
        let stat = self.thread.join("stat");
        let deadline = Instant::now() + SOON;
        // The state stands behind the name, which stands in parentheses (`proc_pid_stat(5)`).
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") S ")) {
            assert!(Instant::now() < deadline, "the call does not block");
            thread::yield_now();
        }
        self
    }

    /// The result of the call, which must come soon.
    pub(crate) fn result(self) -> T {
        self.result.recv_timeout(SOON).expect("the call has ended, without a panic")
    }
}

/// While this lives, the test must come to its end; else the whole binary fails, rather than hang.
#[must_use]
pub(crate) fn bounded() -> mpsc::Sender<Infallible> {
    bounded_by(2 * SOON)
}

/// Like [`bounded`], for a test that may take longer.
#[must_use]
pub(crate) fn bounded_by(time: Duration) -> mpsc::Sender<Infallible> {
    let (guard, end) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if end.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not by `eprintln`, which would be kept for the end of the test.
            let _ = writeln!(io::stderr(), "{name} hangs");
            process::abort();
        }
    });
    guard
}
