//! [`Wake`]: wakes a thread that waits for descriptors, from any other.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io,
};

use crate::error::{Error, Result};

/// An eventfd (`eventfd(2)`): readable from [`wake`](Self::wake) until [`clear`](Self::clear).
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        fd.map(Self).map_err(|errno| Error::io("making an eventfd")(errno.into()))
    }

    pub(crate) fn wake(&self) {
        // It fails only if it is at its most, which is readable too.
        let _ = io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is readable, or until `deadline`. A signal, or a kernel without memory, ends it early: whoever
/// calls it looks again anyway.
pub(crate) fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], deadline: Option<Instant>) {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = left.map(|left: Duration| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let _ = poll(&mut polled, timeout.as_ref());
}
