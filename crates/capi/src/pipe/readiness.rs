//! The one descriptor of a pipe: readable while `sealane_pipe_dispatch` has something to do, or to say.
//!
//! It is an epoll(7) set of four others: the channel's descriptor for receiving, which is the handshake's before; an eventfd for
//! what no descriptor says; a timer, for the handshake's end and for pauses; and the channel's descriptor for sending, while the
//! caller waits for room.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, epoll, eventfd, poll},
    io::{self, Errno},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};

use crate::{
    readable::{is_readable, timespec},
    status::{Failure, Result},
};

/// How long to wait where nothing says when to go on.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Readiness {
    epoll: OwnedFd,
    again: OwnedFd,
    is_again: bool,
    timer: OwnedFd,
    is_paused: bool,
    waits_for_room: bool,
}

/// Nobody asks which of the descriptors is readable.
const ANY: epoll::EventData = epoll::EventData::new_u64(0);

impl Readiness {
    pub(super) fn new(receiving: BorrowedFd<'_>) -> Result<Self> {
        (|| {
            let epoll = above_stdio(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
            let again = above_stdio(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let timer = above_stdio(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
            for fd in [receiving, again.as_fd(), timer.as_fd()] {
                epoll::add(&epoll, fd, ANY, epoll::EventFlags::IN)?;
            }
            Ok(Self { epoll, again, is_again: false, timer, is_paused: false, waits_for_room: false })
        })()
        .map_err(failure)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Makes the descriptor readable, until this is called with false.
    pub(super) fn set_again(&mut self, on: bool) {
        if self.is_again == on {
            return;
        }
        let mut count = [0; 8];
        // It fails only where a fork has used its copy, and then it is as it should be.
        let _ =
            if on { io::write(&self.again, &1_u64.to_ne_bytes()) } else { io::read(&self.again, &mut count) };
        self.is_again = on;
    }

    /// Makes the descriptor readable after `time`, or, without one, not any more.
    pub(super) fn set_timer(&mut self, time: Option<Duration>) -> Result<()> {
        // A time of 0 would stop it.
        let it_value = timespec(time.map_or(Duration::ZERO, |time| time.max(Duration::from_nanos(1))));
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop).map_err(failure)
    }

    /// Makes the descriptor readable after a pause, and not before: what is to be received waits too.
    pub(super) fn pause(&mut self, receiving: BorrowedFd<'_>) -> Result<()> {
        self.is_paused = true;
        epoll::modify(&self.epoll, receiving, ANY, epoll::EventFlags::empty()).map_err(failure)?;
        self.set_timer(Some(PAUSE))
    }

    /// Ends a pause and its timer, if there was one.
    pub(super) fn go_on(&mut self, receiving: BorrowedFd<'_>) -> Result<()> {
        if self.is_paused {
            epoll::modify(&self.epoll, receiving, ANY, epoll::EventFlags::IN).map_err(failure)?;
            self.set_timer(None)?;
            self.is_paused = false;
        }
        Ok(())
    }

    pub(super) fn is_waiting_for_room(&self) -> bool {
        self.waits_for_room
    }

    /// Makes the descriptor readable while `sending` is.
    pub(super) fn wait_for_room(&mut self, sending: BorrowedFd<'_>) -> Result<()> {
        if !self.waits_for_room {
            epoll::add(&self.epoll, sending, ANY, epoll::EventFlags::IN).map_err(failure)?;
            self.waits_for_room = true;
        }
        Ok(())
    }

    /// The contrary of [`wait_for_room`](Self::wait_for_room).
    pub(super) fn room_found(&mut self, sending: BorrowedFd<'_>) -> Result<()> {
        if self.waits_for_room {
            epoll::delete(&self.epoll, sending).map_err(failure)?;
            self.waits_for_room = false;
        }
        Ok(())
    }

    /// Waits until the descriptor is readable; without a time for ever. It may also return early.
    pub(super) fn wait(&self, time: Option<Duration>) -> Result<()> {
        is_readable(self.fd(), time).map(drop)
    }

    /// Waits until sending makes sense again, not for what is to be received.
    pub(super) fn wait_to_send(&self, sending: BorrowedFd<'_>, time: Option<Duration>) -> Result<()> {
        if !self.is_paused {
            return is_readable(sending, time).map(drop);
        }
        match poll(&mut [], Some(&timespec(time.unwrap_or(PAUSE).min(PAUSE)))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(failure(errno)),
        }
    }
}

/// The same from 3 up: what a program without standard streams prints must not get into it.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() < 3 { io::fcntl_dupfd_cloexec(&fd, 3) } else { Ok(fd) }
}

fn failure(errno: Errno) -> Failure {
    Failure::Usage {
        errno: errno.raw_os_error(),
        text: "the descriptor of a pipe could not be made or set (epoll(7), eventfd(2), timerfd_create(2))",
    }
}
