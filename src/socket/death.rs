//! [`Watch`]: the death of the peer's process, where a copy of its socket hides it.
//!
//! The kernel closes a socket with the last of its copies. A wrapper of the peer's, or a child that it has forked, may hold
//! another one. So a channel with a pidfd of the peer sleeps on that too.
//!
//! Invariant: a process that has ended is polled no more, as its pidfd stays readable. A killed process ends a wait only
//! after the caller has looked at everything that the process left.

use std::{
    array,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{WaitId, WaitIdOptions, waitid},
};

use crate::{
    error::{Error, Result},
    sys::descriptor::exit_status,
    wait::{Deadline, sleep, sleep_on},
};

/// Most descriptors of one wait: two sockets and the pidfd.
const MAX_POLLED: usize = 3;

/// The last known state of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Lives,
    /// The process has ended. Its status is known only after its parent has waited for it, if at all.
    Ended,
    /// The process has exited, as a daemon's first process does, or ended in an unknown way.
    Left,
    /// A signal has killed the process.
    Killed,
}

/// One half's view of the peer's process, if the channel has a pidfd.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pidfd: Option<Arc<OwnedFd>>,
    state: State,
}

impl Watch {
    pub(crate) fn new(pidfd: Option<Arc<OwnedFd>>) -> Self {
        Self { pidfd, state: State::Lives }
    }

    /// True if there is a process to watch. Otherwise [`sleep`](Self::sleep) has no advantage over other ways to wait.
    pub(crate) fn is_on(&self) -> bool {
        self.pidfd.is_some() && self.state != State::Left
    }

    /// True if the process is known to have been killed.
    pub(crate) fn was_killed(&self) -> bool {
        self.state == State::Killed
    }

    /// [Sleeps](sleep()) until one of `fds` is ready, the deadline or `at_most` passes, or the peer's process ends. Returns
    /// the ready events.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the previous call found that the process was killed. So a caller looks at everything once
    /// more in between.
    pub(crate) fn sleep<const N: usize>(
        &mut self,
        fds: [(BorrowedFd<'_>, PollFlags); N],
        deadline: Deadline,
        at_most: Option<Duration>,
    ) -> Result<[PollFlags; N]> {
        let Some(pidfd) = self.pidfd.clone().filter(|_| self.is_on()) else {
            return sleep(fds, deadline, at_most);
        };
        let awaited = match self.state {
            State::Killed => return Err(Error::Disconnected),
            // `POLLHUP`, which is always reported, says that the process has been waited for (Linux 6.9).
            State::Ended => PollFlags::empty(),
            _ => PollFlags::IN,
        };
        const { assert!(N < MAX_POLLED) };
        let mut polled: [PollFd<'_>; MAX_POLLED] =
            array::from_fn(|_| PollFd::from_borrowed_fd(pidfd.as_fd(), awaited));
        for (place, (fd, flags)) in polled.iter_mut().zip(fds) {
            *place = PollFd::from_borrowed_fd(fd, flags);
        }
        sleep_on(polled.get_mut(..=N).unwrap_or_default(), deadline, at_most)?;
        let ready = |at| polled.get(at).map_or(PollFlags::empty(), PollFd::revents);
        if !ready(N).is_empty() {
            self.state = how_it_ended(pidfd.as_fd(), ready(N));
            log::debug!("the peer's process: {:?}", self.state);
        }
        Ok(array::from_fn(ready))
    }

    /// The process's descriptor, to be polled among others: it is ready when there is news for [`look`](Self::look).
    pub(crate) fn awaited(&self) -> Option<PollFd<'_>> {
        let pidfd = self.pidfd.as_ref().filter(|_| self.is_on())?;
        let flags = if self.state == State::Lives { PollFlags::IN } else { PollFlags::empty() };
        Some(PollFd::from_borrowed_fd(pidfd.as_fd(), flags))
    }

    /// Looks at the process without sleeping.
    ///
    /// # Errors
    /// Those of [`sleep`](Self::sleep).
    pub(crate) fn look(&mut self) -> Result<()> {
        if self.is_on() {
            self.sleep([], Deadline::Never, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

/// The state of a process whose pidfd is `ready`.
fn how_it_ended(pidfd: BorrowedFd<'_>, ready: PollFlags) -> State {
    let by_signal = |killed| if killed { State::Killed } else { State::Left };
    // The status of our own child is known at once. `WNOWAIT` leaves it for the code that started the child.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    if let Ok(Some(status)) = waitid(WaitId::PidFd(pidfd), options) {
        return by_signal(status.killed() || status.dumped());
    }
    match exit_status(pidfd) {
        // The number of the signal, as `wait(2)` has it.
        Some(status) => by_signal(status & 0x7f != 0),
        // The process has been waited for, and this kernel does not keep its status.
        None if ready.contains(PollFlags::HUP) => State::Left,
        None => State::Ended,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::pipe,
        process::{Child, Command},
    };

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn watch(child: &Child) -> Watch {
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        Watch::new(Some(Arc::new(pidfd_open(pid, PidfdFlags::empty()).unwrap())))
    }

    /// Sleeps on a pipe without a writer, which stands for something that the process has left.
    fn left(watch: &mut Watch) -> Result<[PollFlags; 1]> {
        let (reader, _) = pipe().unwrap();
        watch.sleep([(reader.as_fd(), PollFlags::IN)], Deadline::after(LONG), None)
    }

    fn ended(watch: &mut Watch) -> State {
        while watch.state == State::Lives {
            watch.sleep([], Deadline::Never, None).unwrap();
        }
        watch.state
    }

    #[test]
    fn death_ends_a_wait_only_after_another_look() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut early, mut late) = (watch(&child), watch(&child));
        early.look().unwrap();
        assert_eq!(early.state, State::Lives);
        child.kill().unwrap();
        assert_eq!(ended(&mut early), State::Killed);
        for killed in [early.sleep([], Deadline::Never, None).map(drop), early.look()] {
            assert!(matches!(killed, Err(Error::Disconnected)));
        }
        // A watch that has not looked yet reports the pipe first, and the death in the next call.
        assert_eq!(left(&mut late).unwrap(), [PollFlags::HUP]);
        assert!(matches!(left(&mut late), Err(Error::Disconnected)));
        child.wait().unwrap();
    }

    #[test]
    fn process_that_exited_is_not_watched() {
        let mut child = Command::new("true").spawn().unwrap();
        let mut watch = watch(&child);
        assert!(watch.is_on());
        assert_eq!(ended(&mut watch), State::Left);
        assert!(!watch.is_on());
        child.wait().unwrap();
        let nothing = watch.sleep([], Deadline::Never, Some(Duration::from_millis(1)));
        assert!(nothing.is_ok());
    }
}
