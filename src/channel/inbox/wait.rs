//! The wait for a message: the receiver's steps for [`run`].

use std::os::fd::AsFd;

use rustix::{event::PollFlags, time::Timespec};

use super::{Inbox, NextMessage};
use crate::{
    channel::{Message, ages::coarse_now, stats::count},
    error::{Error, Result},
    wait::{Budget, Deadline, News, Outcome, SpinResult, WaitState, Waiter, run},
};

/// One wait for a message.
struct MessageWait<'i> {
    inbox: &'i mut Inbox,
    /// When the last spin began that found something, some microseconds ago. Used as the delivery time, which saves a clock
    /// read.
    spin_start: Option<Timespec>,
    /// The count of packets that the peer announces.
    announced: u64,
    /// The message that the last attempt found. It stays here, so that the steps in between do not move it.
    next: Option<NextMessage>,
}

impl Inbox {
    #[cold]
    pub(super) fn try_slow(&mut self) -> Result<Outcome<Message>> {
        self.consumer.intake().take_over()?;
        let mut wait = MessageWait { inbox: self, spin_start: None, announced: 0, next: None };
        let outcome = run(&mut wait, &mut WaitState::trying(News::Message), &mut Budget::once())?;
        match (wait.next, outcome) {
            (Some(next), _) => self.assemble(next).map(Outcome::Done),
            (None, Outcome::Spent) => Ok(Outcome::Spent),
            (None, _) => Ok(Outcome::Empty),
        }
    }

    /// Waits for the next message. `None` if the peer published something: the caller tries inline, and comes again if that
    /// gets nothing.
    #[cold]
    pub(super) fn wait_for_message(
        &mut self,
        state: &mut WaitState,
        budget: &mut Budget,
        spin_start: &mut Option<Timespec>,
    ) -> Result<Option<NextMessage>> {
        self.consumer.intake().take_over()?;
        let mut wait = MessageWait { inbox: self, spin_start: *spin_start, announced: 0, next: None };
        let result = run(&mut wait, state, budget);
        *spin_start = wait.spin_start;
        let next = wait.next;
        // A false alarm does not end the wait: a peer could keep us spinning by moving `head` back and forth.
        if !matches!(result, Ok(Outcome::Changed)) {
            self.end_wait();
        }
        result.map_err(|error| self.explain(error))?;
        Ok(next)
    }

    /// The error after the last message. If the peer is gone, and has not only closed this direction, the whole channel is closed.
    pub(super) fn end(&mut self) -> Error {
        self.order.abandon();
        if self.link.socket.is_dead() || self.watch.was_killed() {
            self.link.close();
        }
        self.link.ended()
    }

    /// Names the payloads held here, if the call timed out because the peer needs their space.
    fn explain(&self, error: Error) -> Error {
        error.naming_held(self.consumer.held(), || self.consumer.holds_up_peer())
    }
}

impl Waiter for MessageWait<'_> {
    type Item = ();

    fn attempt(&mut self, budget: &mut Budget) -> Result<Option<()>> {
        self.inbox.link.check()?;
        self.next = self.inbox.poll(budget)?;
        // The ring was looked at after the end of file was read, so that a dying sender's messages are delivered.
        match self.next {
            Some(_) => Ok(Some(())),
            None if self.inbox.eof => Err(self.inbox.end()),
            None => Ok(None),
        }
    }

    /// UNTRUSTED: the peer's count of packets is a hint that saves a spin. It may lie, or never come.
    fn is_announced(&mut self) -> bool {
        self.announced = self.inbox.consumer.packets();
        self.announced != self.inbox.packets && self.announced != self.inbox.stale_packet_count
    }

    fn forget_announcement(&mut self) {
        self.inbox.stale_packet_count = self.announced;
    }

    fn spin(&mut self, deadline: Deadline) -> SpinResult {
        let began = coarse_now();
        let Inbox { consumer, packets, stale_packet_count: stale, spinner, .. } = &mut *self.inbox;
        let result = spinner.spin(deadline, || {
            consumer.head_moved() || {
                let announced = consumer.packets();
                announced != *packets && announced != *stale
            }
        });
        if result == SpinResult::Ready {
            self.spin_start = Some(began);
        }
        result
    }

    fn poll_socket(&mut self) -> Result<()> {
        if !self.inbox.read_packet()? && self.inbox.watch.look().is_err() {
            self.inbox.eof = true;
        }
        Ok(())
    }

    fn arm(&mut self) -> bool {
        self.inbox.word.arm(0)
    }

    fn has_news(&mut self) -> Result<bool> {
        Ok(self.inbox.consumer.head_moved())
    }

    fn read(&mut self) -> Result<bool> {
        self.inbox.read_packet()
    }

    /// One system call sleeps and reads where nothing else has to be watched.
    fn sleeps_in_a_read(&self, deadline: Deadline) -> bool {
        deadline == Deadline::Never && !self.inbox.watch.is_on()
    }

    fn sleep(&mut self, deadline: Deadline) -> Result<bool> {
        let sleeps_in_a_read = self.sleeps_in_a_read(deadline);
        let inbox = &mut *self.inbox;
        count(&mut inbox.stats.sleeps, 1);
        if sleeps_in_a_read && inbox.wait_for_packet()? {
            return Ok(true);
        }
        match inbox.watch.sleep([(inbox.link.socket.as_fd(), PollFlags::IN)], deadline, None) {
            Ok(_) => Ok(false),
            // The peer was killed, and its last messages have been looked at.
            Err(Error::Disconnected) => {
                inbox.eof = true;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
