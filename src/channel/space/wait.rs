//! The wait for space: what a sender tries, looks at, arms, reads and sleeps in, for [`run`].

use std::time::Duration;

use rustix::event::PollFlags;

use super::{Block, SpaceWaiter};
use crate::{
    channel::{control::Control, interest::Space, stats::count},
    error::{Error, Result},
    protocol::{layout::RecordSize, packet::PacketHeader},
    ring::producer::Producer,
    socket::seqpacket::SendFailure,
    wait::{Budget, Deadline, News, Outcome, OwnWord, SleepWord, SpinResult, WaitState, Waiter, run},
};

/// First and longest pause between two attempts while too many descriptors are in flight, or memory is short. The kernel
/// gives no sign when that ends.
const SHORTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

impl SpaceWaiter {
    /// Waits for space for a record of `size` bytes, for which there was none.
    ///
    /// # Errors
    /// [`Error::Full`] if the call must not block; the descriptor is armed.
    #[cold]
    pub(crate) fn wait_for_ring(
        &mut self,
        producer: &mut Producer,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        let result = self.wait_for(producer, Wanted::Record(size), News::Space, block);
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
        result
    }

    /// Sends a packet for which the socket had no space, or for which descriptors or memory were short.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`] if the call must not block; the descriptor is armed.
    #[cold]
    pub(crate) fn wait_to_send(
        &mut self,
        producer: &mut Producer,
        header: PacketHeader,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        let packet = Wanted::Packet { header, control, failure: None, pause: SHORTAGE_PAUSE.0 };
        self.wait_for(producer, packet, News::Kernel, block)
    }

    /// Waits until there is what is `wanted`. `blocking` is the news that a call waits for that may block.
    fn wait_for(
        &mut self,
        producer: &mut Producer,
        wanted: Wanted<'_>,
        blocking: News,
        block: Block,
    ) -> Result<()> {
        count(&mut self.stats.waits_for_space, 1);
        self.shown_waits.store(self.stats.waits_for_space);
        let space = wanted.space();
        let (mut state, mut budget) = match block {
            Block::No => {
                self.interest.add(space);
                (WaitState::trying(News::Space), Budget::once())
            }
            Block::Until(deadline) => (WaitState::blocking(blocking), Budget::until(deadline)),
        };
        let mut wait = SpaceWait { waiter: self, producer, wanted };
        loop {
            match run(&mut wait, &mut state, &mut budget)? {
                Outcome::Done(()) => {
                    // If the space socket has anything to tell, the next call tells it.
                    let _ = wait.waiter.disarm(space);
                    return Ok(());
                }
                Outcome::Changed => wait.back_off(),
                Outcome::Empty | Outcome::Spent => return Err(wait.wanted.refusal()),
            }
        }
    }
}

/// The thing that a call waits for, or sends as soon as it can.
enum Wanted<'c> {
    /// Space for a record of this many bytes.
    Record(RecordSize),
    Packet {
        header: PacketHeader,
        control: &'c Control<'c>,
        /// Why it was not sent, after an attempt.
        failure: Option<SendFailure>,
        /// The next pause while something is short.
        pause: Duration,
    },
}

impl Wanted<'_> {
    fn space(&self) -> Space<RecordSize> {
        match self {
            Self::Record(size) => Space::Ring(*size),
            Self::Packet { .. } => Space::Socket,
        }
    }

    /// The error of a call that must not block.
    fn refusal(self) -> Error {
        match self {
            Self::Packet { failure: Some(failure), .. } => failure.into(),
            _ => Error::Full,
        }
    }
}

/// One wait for space.
struct SpaceWait<'w, 'c> {
    waiter: &'w mut SpaceWaiter,
    producer: &'w mut Producer,
    wanted: Wanted<'c>,
}

impl SpaceWait<'_, '_> {
    /// Lets the peer release more than one record, so that looks at its `tail` do not slow it down.
    fn back_off(&self) {
        if let Wanted::Record(size) = self.wanted {
            self.producer.back_off(size);
        }
    }

    /// The peer's `tail` at which it rings: from there on the least record fits that is waited for. 0 if none is.
    fn needs(&self) -> u64 {
        let size = self.waiter.interest.with(self.wanted.space());
        size.map_or(0, |size| self.producer.needed_tail(size))
    }
}

impl Waiter for SpaceWait<'_, '_> {
    type Item = ();

    fn attempt(&mut self, _: &mut Budget) -> Result<Option<()>> {
        self.waiter.check()?;
        match &mut self.wanted {
            Wanted::Record(size) => Ok(self.waiter.has_space(self.producer, *size)?.then_some(())),
            Wanted::Packet { header, control, failure, .. } => {
                match self.waiter.link.socket.send(*header, control.bytes, &control.fds) {
                    Ok(()) => Ok(Some(())),
                    Err(
                        later @ (SendFailure::Full | SendFailure::FdsInFlight | SendFailure::NoMemory(_)),
                    ) => {
                        *failure = Some(later);
                        Ok(None)
                    }
                    Err(failure) => Err(self.waiter.map_send_error(failure)),
                }
            }
        }
    }

    fn spin(&mut self, deadline: Deadline) -> SpinResult {
        self.waiter.spinner.spin(deadline, || self.producer.tail_moved())
    }

    fn poll_socket(&mut self) -> Result<()> {
        if !self.read()? && self.waiter.watch.look().is_err() {
            self.waiter.peer_closed = true;
        }
        Ok(())
    }

    fn arm(&mut self) -> bool {
        self.waiter.word.arm(self.needs())
    }

    fn has_news(&mut self) -> Result<bool> {
        match self.wanted {
            Wanted::Record(size) => self.waiter.has_space(self.producer, size),
            Wanted::Packet { .. } => Ok(false),
        }
    }

    fn read(&mut self) -> Result<bool> {
        self.waiter.read(SleepWord::on_doorbell)
    }

    fn sleep(&mut self, deadline: Deadline) -> Result<bool> {
        let (flags, at_most) = match &mut self.wanted {
            Wanted::Record(_) => (PollFlags::empty(), None),
            Wanted::Packet { failure: None | Some(SendFailure::Full), .. } => (PollFlags::OUT, None),
            Wanted::Packet { pause, .. } => {
                let at_most = *pause;
                *pause = pause.saturating_mul(2).min(SHORTAGE_PAUSE.1);
                (PollFlags::empty(), Some(at_most))
            }
        };
        self.waiter.sleep(flags, deadline, at_most)?;
        Ok(false)
    }

    fn stale_doorbells(&mut self) -> Result<u64> {
        if self.waiter.link.space_rx.is_abandoned()? {
            self.waiter.peer_closed = true;
            return Err(self.waiter.link.ended());
        }
        let stale = self.waiter.link.space_rx.doorbells()?;
        if stale == 0 {
            self.waiter.word.drained();
        }
        Ok(stale)
    }

    fn rearm(&mut self) {
        self.waiter.word.rearm(self.needs());
    }

    fn read_stale(&mut self) -> Result<bool> {
        self.waiter.read(SleepWord::on_stale_doorbell)
    }

    fn has_other_news(&mut self) -> Result<bool> {
        let Some(other) = self.waiter.interest.other(self.wanted.space()) else { return Ok(false) };
        let is_there = match other {
            Space::Ring(size) => self.waiter.has_space(self.producer, size)?,
            Space::Socket => self.waiter.link.socket.has_room()?,
        };
        // The descriptor signals it once.
        if is_there {
            self.waiter.interest.remove(other);
        }
        Ok(is_there)
    }
}
