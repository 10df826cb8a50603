//! Sleeping until a descriptor is ready, in `ppoll(2)`.

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::Deadline;
use crate::error::{Error, Result};

/// Sleeps until an event is ready on one of `fds` (each with the events of interest), the deadline passes, or `at_most`.
/// Returns the ready events.
pub(crate) fn sleep<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Deadline,
    at_most: Option<Duration>,
) -> Result<[PollFlags; N]> {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    sleep_on(&mut fds, deadline, at_most)?;
    Ok(fds.map(|fd| fd.revents()))
}

/// Like [`sleep`], of any number of descriptors. A signal ends it too, with nothing ready.
pub(crate) fn sleep_on(fds: &mut [PollFd<'_>], deadline: Deadline, at_most: Option<Duration>) -> Result<()> {
    let timeout = match (deadline.left(), at_most) {
        (Some(left), Some(at_most)) => Some(left.min(at_most)),
        (left, at_most) => left.or(at_most),
    };
    // A time beyond the range of the clock counts as no limit.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(error) => Err(Error::io("poll")(error)),
    }
}
