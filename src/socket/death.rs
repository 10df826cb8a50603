//! [`Watch`]: the death of the peer's process, where a copy of its socket hides that from us.
//!
//! The kernel closes a socket with the last of its copies, and a wrapper of the peer's, or a child that it has forked, may
//! hold another. So who asked for the peer's pidfd sleeps on that too. Invariant: a process that has ended is not polled
//! any more, as it would be readable for ever; and that it was killed ends a wait only after everything that it left
//! has been looked at.

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
    sys::cmsg::exit_status,
    wait::{Deadline, sleep, sleep_on},
};

/// More descriptors than anybody here sleeps on: two sockets, and the process.
const MOST: usize = 3;

/// What is known of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Lives,
    /// It has ended, and how is known only when its parent has waited for it, if at all.
    Ended,
    /// It has exited, which a daemon's first process does too; or it is not known how it ended.
    Left,
    /// By a signal.
    Killed,
}

/// One half's look at the peer's process, if there is one to look at.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pidfd: Option<Arc<OwnedFd>>,
    state: State,
}

impl Watch {
    pub(crate) fn new(pidfd: Option<Arc<OwnedFd>>) -> Self {
        Self { pidfd, state: State::Lives }
    }

    /// Whether there is a process to be watched. If not, [`sleep`](Self::sleep) is as good as any other way to wait.
    pub(crate) fn is_on(&self) -> bool {
        self.pidfd.is_some() && self.state != State::Left
    }

    /// Whether the process was killed, as far as has been noticed.
    pub(crate) fn was_killed(&self) -> bool {
        self.state == State::Killed
    }

    /// [Sleeps](sleep()) until something is ready on one of `fds`, the deadline passes, or `at_most`; or the peer's process
    /// ends. Says what is ready.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the process had been killed already when this was called the last time. So whoever calls it
    /// looks at everything once more in between.
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
            // `POLLHUP`, which comes unasked, says that it has been waited for (Linux 6.9).
            State::Ended => PollFlags::empty(),
            _ => PollFlags::IN,
        };
        const { assert!(N < MOST) };
        let mut polled: [PollFd<'_>; MOST] =
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

    /// As [`sleep`](Self::sleep), for who does not sleep: looks.
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

/// Of a process whose pidfd is `ready`.
fn how_it_ended(pidfd: BorrowedFd<'_>, ready: PollFlags) -> State {
    let by_signal = |killed| if killed { State::Killed } else { State::Left };
    // Of a child of ours the kernel says it at once, and leaves it for who started it.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    if let Ok(Some(status)) = waitid(WaitId::PidFd(pidfd), options) {
        return by_signal(status.killed() || status.dumped());
    }
    match exit_status(pidfd) {
        // The number of the signal, as `wait(2)` has it.
        Some(status) => by_signal(status & 0x7f != 0),
        // It has been waited for, and this kernel does not say more.
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

    /// What is ready of a pipe that nobody writes to any more: something that a process has left.
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
    fn a_death_ends_a_wait_only_after_another_look() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut early, mut late) = (watch(&child), watch(&child));
        early.look().unwrap();
        assert_eq!(early.state, State::Lives);
        child.kill().unwrap();
        assert_eq!(ended(&mut early), State::Killed);
        for killed in [early.sleep([], Deadline::Never, None).map(drop), early.look()] {
            assert!(matches!(killed, Err(Error::Disconnected)));
        }
        // Who has not looked yet learns of what is there first, and then of the death.
        assert_eq!(left(&mut late).unwrap(), [PollFlags::HUP]);
        assert!(matches!(left(&mut late), Err(Error::Disconnected)));
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_exits_is_not_watched_any_more() {
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
