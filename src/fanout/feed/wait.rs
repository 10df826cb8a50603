//! The wait for a message: the subscriber's steps for [`run`].

use std::{os::fd::AsFd, time::Instant};

use rustix::event::PollFlags;

use super::{Feed, Wanted};
use crate::{
    channel::{Message, stats::count},
    error::{Error, Result},
    wait::{Budget, Deadline, News, Outcome, SpinResult, WaitState, Waiter, run},
};

/// One wait for a message.
struct FeedWait<'f> {
    feed: &'f mut Feed,
    wanted: Wanted,
    blocks: bool,
}

impl Feed {
    /// Waits for a message.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
    pub(in crate::fanout) fn receive(&mut self, wanted: Wanted, deadline: Deadline) -> Result<Message> {
        if !self.follower.is_close()
            && let Some(record) = self.try_plain(wanted)
        {
            return self.finish_plain(record);
        }
        self.fetch(wanted, deadline)?;
        self.fetched.take().ok_or(Error::Disconnected)
    }

    /// Waits for a message that [`receive`](Self::receive) could not take quickly, and leaves it in `fetched`. A message that came
    /// back by value would have a place in memory, which the quick ones would then go through too: 8 of 27 ns.
    #[inline(never)]
    fn fetch(&mut self, wanted: Wanted, deadline: Deadline) -> Result<()> {
        self.fetched = Some(self.receive_any(wanted, deadline)?);
        Ok(())
    }

    fn receive_any(&mut self, wanted: Wanted, deadline: Deadline) -> Result<Message> {
        let (mut state, mut budget) = (WaitState::blocking(News::Message), Budget::until(deadline));
        self.follower.intake().take_over()?;
        let mut has_spun = false;
        loop {
            if self.follower.is_close() && self.spinner.may_spin() {
                self.follower.back_off(deadline);
            }
            // The first looks are the quick ones.
            let quick = match self.try_plain(wanted) {
                Some(record) => Some(self.finish_plain(record)?),
                None => self.try_copied(wanted),
            };
            let message = match quick {
                None => self.poll(wanted, &mut budget)?,
                quick => quick,
            };
            if let Some(message) = message {
                // A spin that has paid ends here: else the next one would begin with its time used up.
                if has_spun {
                    self.end_wait();
                }
                return Ok(message);
            }
            let outcome = run(&mut FeedWait { feed: self, wanted, blocks: true }, &mut state, &mut budget);
            has_spun = matches!(outcome, Ok(Outcome::Changed));
            // A false alarm does not end the wait.
            if !has_spun {
                self.end_wait();
            }
            if let Outcome::Done(message) = outcome.map_err(|error| self.explain(error))? {
                return Ok(message);
            }
        }
    }

    /// Ends the current wait.
    fn end_wait(&mut self) {
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
    }

    /// Receives without blocking. Where there is no message the descriptor is armed.
    pub(in crate::fanout) fn find_message(&mut self, wanted: Wanted) -> Result<Outcome<Message>> {
        if let Some(record) = self.try_plain(wanted) {
            return self.finish_plain(record).map(Outcome::Done);
        }
        if let Some(message) = self.try_copied(wanted) {
            return Ok(Outcome::Done(message));
        }
        self.follower.intake().take_over()?;
        let mut wait = FeedWait { feed: self, wanted, blocks: false };
        run(&mut wait, &mut WaitState::trying(News::Message), &mut Budget::once())
    }

    /// Whether nothing is waited for but what the ring tells: no descriptors, no reply, and nobody's death at once.
    fn may_doze(&self) -> bool {
        self.limits.max_fds == 0
            && !self.eof
            && !self.follower.has_end()
            && !self.watch.is_on()
            && self.link.requests.is_empty()
    }

    /// Names the payloads held here, if the call timed out because the publisher needs their space.
    fn explain(&self, error: Error) -> Error {
        error.naming_held(self.follower.held(), || self.follower.holds_up_peer())
    }
}

impl Waiter for FeedWait<'_> {
    type Item = Message;

    fn attempt(&mut self, budget: &mut Budget) -> Result<Option<Message>> {
        self.feed.link.check()?;
        // The ring is looked at after the end of file was read, so that a dying publisher's messages are delivered.
        let eof = self.feed.eof;
        match self.feed.poll(self.wanted, budget)? {
            Some(message) => Ok(Some(message)),
            None if eof => Err(self.feed.end(self.wanted)),
            // There is nothing but the rest of the socket: the reason for which we were ended may be there.
            None if self.feed.follower.has_end() => {
                while !self.feed.eof && budget.spend()? && self.feed.read_packet()? {}
                self.feed.poll(self.wanted, budget)
            }
            None => Ok(None),
        }
    }

    fn spin(&mut self, deadline: Deadline) -> SpinResult {
        let Feed { follower, spinner, .. } = &mut *self.feed;
        spinner.spin(deadline, || follower.head_moved())
    }

    fn poll_socket(&mut self) -> Result<()> {
        if !self.feed.read_packet()? && self.feed.watch.look().is_err() {
            self.feed.set_ended();
        }
        Ok(())
    }

    fn arm(&mut self) -> bool {
        let feed = &mut *self.feed;
        feed.dozing = None;
        if self.blocks && feed.may_doze() {
            let at_most = feed.doze.plan(Instant::now(), feed.follower.known_end().get());
            feed.dozing = at_most.map(|at_most| (feed.follower.wakes(), at_most));
        }
        if feed.dozing.is_none() {
            return feed.word.arm(0);
        }
        feed.word.rearm_on_futex();
        true
    }

    fn has_news(&mut self) -> Result<bool> {
        Ok(self.feed.follower.head_moved())
    }

    fn read(&mut self) -> Result<bool> {
        self.feed.read_packet()
    }

    /// One system call sleeps and reads where nothing else has to be watched.
    fn sleeps_in_a_read(&self, deadline: Deadline) -> bool {
        deadline == Deadline::Never && !self.feed.watch.is_on() && self.feed.dozing.is_none()
    }

    fn sleep(&mut self, deadline: Deadline) -> Result<bool> {
        let sleeps_in_a_read = self.sleeps_in_a_read(deadline);
        let feed = &mut *self.feed;
        count(&mut feed.stats.sleeps, 1);
        if let Some((wakes, at_most)) = feed.dozing.take() {
            let at_most = deadline.left().map_or(at_most, |left| left.min(at_most));
            let woken = feed.follower.doze(wakes, at_most);
            feed.doze.judge(woken, feed.follower.head_moved());
            feed.word.disarm();
            return Ok(true);
        }
        if sleeps_in_a_read && feed.wait_for_packet()? {
            return Ok(true);
        }
        match feed.watch.sleep([(feed.link.socket.as_fd(), PollFlags::IN)], deadline, None) {
            Ok(_) => Ok(false),
            // The publisher was killed, and its last messages have been looked at.
            Err(Error::Disconnected) => {
                feed.set_ended();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
