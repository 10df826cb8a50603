//! Waiting for one descriptor.

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::status::{Failure, Result};

/// Waits until `fd` is readable, without a time for ever. It returns early for a signal.
pub(crate) fn is_readable(fd: BorrowedFd<'_>, time: Option<Duration>) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match poll(&mut fds, time.map(timespec).as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Failure::Usage {
            errno: errno.raw_os_error(),
            text: "the descriptor could not be waited for (poll(2))",
        }),
    }
}

pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
