//! Deadlines, and waiting in slices between which Python's signal handlers run.

use std::{
    os::fd::RawFd,
    thread,
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyValueError, prelude::*};
use sealane::{Error, Result};

use crate::{
    awaited::{Awaited, Party},
    errors::{failed, raise},
    raw,
};

/// The longest time, in milliseconds, for which a signal's handler has to wait.
const SLICE: Duration = Duration::from_millis(50);
/// Pause before another attempt where the kernel does not announce that it is worthwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// The `timeout=` of a call: `None` is for ever, 0 looks once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeout {
    deadline: Option<Instant>,
    seconds: f64,
    looks_once: bool,
}

impl Timeout {
    pub(crate) const FOREVER: Self = Self { deadline: None, seconds: f64::INFINITY, looks_once: false };

    /// Reads the seconds that Python gives.
    pub(crate) fn of(seconds: Option<f64>) -> PyResult<Self> {
        let Some(seconds) = seconds else { return Ok(Self::FOREVER) };
        if seconds.is_nan() || seconds < 0.0 {
            let text = format!("timeout: seconds from 0 on, or None for ever, expected; {seconds} found");
            return Err(PyValueError::new_err(text));
        }
        // A time beyond the clock's end is for ever.
        let deadline =
            Duration::try_from_secs_f64(seconds).ok().and_then(|time| Instant::now().checked_add(time));
        Ok(Self { deadline, seconds, looks_once: seconds == 0.0 })
    }

    /// The seconds, unless the call looks once.
    pub(crate) fn within(self) -> Option<f64> {
        (!self.looks_once).then_some(self.seconds)
    }

    /// The time of the next slice; `None` once the deadline has passed.
    fn slice(self) -> Option<Duration> {
        if self.looks_once {
            return None;
        }
        let Some(deadline) = self.deadline else { return Some(SLICE) };
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(SLICE))
    }
}

/// Whether trying again later makes sense.
pub(crate) fn passes(error: &Error) -> bool {
    error.is_timeout() || matches!(error, Error::Full | Error::FdsInFlight)
}

/// Repeats `attempt`, which waits for the time that it is given, until it succeeds, fails for good, or `timeout` has passed.
///
/// The first attempt waits for nothing. Signals are handled between two attempts, and an exception of a handler ends the wait.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    timeout: Timeout,
    awaited: Awaited,
    attempt: impl FnMut(Duration) -> Result<T> + Send,
) -> PyResult<T> {
    in_slices_or(py, timeout, |py, error| awaited.raise(py, error, timeout), attempt)
}

/// Does the same with the exception that `raise` makes of an error.
pub(crate) fn in_slices_or<T: Send>(
    py: Python<'_>,
    timeout: Timeout,
    raise: impl Fn(Python<'_>, Error) -> PyErr,
    mut attempt: impl FnMut(Duration) -> Result<T> + Send,
) -> PyResult<T> {
    let mut time = Duration::ZERO;
    loop {
        match py.detach(|| attempt(time)) {
            Err(error) if passes(&error) => match timeout.slice() {
                Some(slice) => time = slice,
                None => return Err(raise(py, error)),
            },
            result => return result.map_err(|error| raise(py, error)),
        }
        py.check_signals()?;
    }
}

/// Waits for the reply that `take` looks for, which never waits. `fd` is the receiver's.
pub(crate) fn for_reply<T: Send>(
    py: Python<'_>,
    timeout: Timeout,
    fd: RawFd,
    mut take: impl FnMut() -> Result<Option<T>> + Send,
) -> PyResult<T> {
    in_slices(py, timeout, Awaited::Reply, |time| {
        if let Some(reply) = take()? {
            return Ok(reply);
        }
        until_readable(Some(fd), time);
        take()?.ok_or(Error::Timeout)
    })
}

/// Runs `act`, which waits by itself and knows no slices, in a thread of its own. After an exception of a signal's handler it is
/// left alone, and its result is dropped.
pub(crate) fn in_thread<T: Send + 'static>(
    py: Python<'_>,
    party: &Party,
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = std::sync::mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("sealane".to_owned()).spawn(move || drop(sender.send(act())));
    spawned.map_err(|error| failed("starting a thread", None, &error))?;
    loop {
        let waiting = &mut receiver;
        match py.detach(move || waiting.recv_timeout(SLICE)) {
            Ok(result) => return result.map_err(|error| party.raise(py, error)),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                return Err(raise(py, Error::Disconnected));
            }
        }
    }
}

/// Waits until the descriptor is readable, a signal comes, or the time has passed. Without a descriptor it pauses.
pub(crate) fn until_readable(fd: Option<RawFd>, time: Duration) {
    if time.is_zero() {
        return;
    }
    match fd {
        Some(fd) => raw::poll(fd, time),
        None => thread::sleep(time.min(PAUSE)),
    }
}

/// Waits until another attempt may be worthwhile after `error`.
pub(crate) fn until_worthwhile(error: &Error, fd: Option<RawFd>, time: Duration) {
    let announced = if matches!(error, Error::FdsInFlight) { None } else { fd };
    until_readable(announced, time);
}
