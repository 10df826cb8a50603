//! [`Poll`]: the one descriptor of a publisher, which is readable when there is something to do.
//!
//! It is an `epoll(7)` set of the listener, the sockets of all lanes and of those that join, and a timer, since an event loop has
//! no other clock. A fork shares the set: only the process that uses the publisher changes it.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::{Errno, read},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};

use crate::{
    error::{Error, Result},
    fanout::SubscriberId,
    sys::descriptor::above_stdio,
};

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Timer,
    /// The socket of one that joins.
    Joining(SubscriberId),
    /// The channel socket of a lane.
    Socket(SubscriberId),
    /// The space socket of a lane.
    Space(SubscriberId),
}

impl Token {
    const KINDS: u64 = 8;

    fn to_data(self) -> epoll::EventData {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Timer => (1, 0),
            Self::Joining(id) => (2, id.0),
            Self::Socket(id) => (3, id.0),
            Self::Space(id) => (4, id.0),
        };
        epoll::EventData::new_u64(id.wrapping_mul(Self::KINDS).wrapping_add(kind))
    }

    fn from_data(data: epoll::EventData) -> Self {
        let id = SubscriberId(data.u64() / Self::KINDS);
        match data.u64() % Self::KINDS {
            0 => Self::Listener,
            1 => Self::Timer,
            2 => Self::Joining(id),
            3 => Self::Socket(id),
            _ => Self::Space(id),
        }
    }
}

#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer expires.
    alarm: Option<Instant>,
}

impl Poll {
    pub(super) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::io("epoll_create1"))?;
        let flags = TimerfdFlags::CLOEXEC.union(TimerfdFlags::NONBLOCK);
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(Error::io("timerfd_create"))?;
        let poll = Self { epoll: above_stdio(epoll)?, timer: above_stdio(timer)?, alarm: None };
        poll.add(poll.timer.as_fd(), Token::Timer)?;
        Ok(poll)
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> Result<()> {
        epoll::add(&self.epoll, fd, token.to_data(), epoll::EventFlags::IN)
            .map_err(Error::io("epoll_ctl(EPOLL_CTL_ADD)"))
    }

    /// Removes a descriptor before it is closed: a copy in a fork would keep it in the set.
    pub(super) fn delete(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Makes the set readable at a time, or leaves that to the other descriptors.
    pub(super) fn set_alarm(&mut self, at: Option<Instant>) {
        if self.alarm == at {
            return;
        }
        let left = at.map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = left.map_or(none, |left| {
            Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
        });
        let spec = Itimerspec { it_interval: none, it_value: value };
        // Nothing but a wrong time fails, and then the next call looks again.
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec).is_ok() {
            self.alarm = at;
        }
    }

    /// Takes note that the timer has expired.
    pub(super) fn read_timer(&mut self) {
        self.alarm = None;
        let _ = read(&self.timer, &mut [0_u8; 8]);
    }

    /// All that is ready now, of `count` descriptors besides the timer.
    ///
    /// Messages of subscribers may be left unread, and stay ready. If one look did not report all descriptors, they would hide the
    /// others.
    pub(super) fn ready(&self, count: usize) -> Result<impl Iterator<Item = Token> + use<>> {
        let mut events = Vec::with_capacity(count.saturating_add(1));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("epoll_wait")(error)),
        }
        Ok(events.into_iter().map(|event: epoll::Event| Token::from_data(event.data)))
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let id = SubscriberId(u64::MAX / 8);
        for token in [
            Token::Listener,
            Token::Timer,
            Token::Joining(id),
            Token::Socket(SubscriberId(1)),
            Token::Space(id),
        ] {
            assert_eq!(Token::from_data(token.to_data()), token);
        }
    }

    #[test]
    fn alarm_makes_the_set_readable_until_it_is_read() {
        let mut poll = Poll::new().unwrap();
        let ready = |poll: &Poll| poll.ready(0).unwrap().collect::<Vec<_>>();
        assert_eq!(ready(&poll), []);
        poll.set_alarm(Some(Instant::now()));
        let soon = Instant::now() + Duration::from_secs(20);
        while ready(&poll).is_empty() {
            assert!(Instant::now() < soon, "the alarm does not come");
        }
        assert_eq!(ready(&poll), [Token::Timer]);
        poll.read_timer();
        assert_eq!(ready(&poll), []);
        poll.set_alarm(Some(Instant::now()));
        poll.set_alarm(None);
        assert_eq!(ready(&poll), []);
    }
}
