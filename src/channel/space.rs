//! [`SpaceWaiter`]: how a sender waits for space in the ring or in the socket, and arms its descriptor for it.
//!
//! Owns the sender's sleep word, and what the descriptor has to signal. Reads the space socket, on which the peer sends
//! nothing but doorbells. Does not flush a batch's notification: its caller does that before it asks to wait.

mod wait;

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use rustix::event::PollFlags;

use crate::{
    channel::{
        interest::{Interest, Space},
        stats::{Stats, count},
    },
    error::{Error, ProtocolError, Result},
    protocol::{
        layout::{RecordSize, Word, to_u64},
        packet::{Kind, PACKET_HEADER},
    },
    ring::{producer::Producer, release::Releases},
    socket::{
        death::Watch,
        doorbell::{ControlWord, SenderWord, is_doorbell},
        link::Link,
        seqpacket::{PacketBuffer, Received, SendFailure},
    },
    sys::own_region::ControlPage,
    wait::{Budget, Deadline, SleepWord, Spinner},
};

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// It must not; it arms the descriptor.
    No,
    Until(Deadline),
}

impl Block {
    pub(crate) const FOREVER: Self = Self::Until(Deadline::Never);

    pub(crate) fn within(timeout: Duration) -> Self {
        Self::Until(Deadline::after(timeout))
    }
}

/// A doorbell's meaning for the sleep word.
type OnDoorbell = fn(&mut SleepWord<SenderWord>) -> Result<(), ProtocolError>;

/// The part of a sender that waits: its ends of the channel, its sleep word, and its spinner.
pub(crate) struct SpaceWaiter {
    pub(crate) link: Arc<Link>,
    intake: Arc<Releases>,
    word: SleepWord<SenderWord>,
    /// Shows `Stats::waits_for_space` to tools.
    shown_waits: ControlWord,
    interest: Interest<RecordSize>,
    spinner: Spinner,
    /// The peer reads no more.
    pub(crate) peer_closed: bool,
    watch: Watch,
    pub(crate) stats: Stats,
}

impl SpaceWaiter {
    pub(crate) fn new(intake: Arc<Releases>, words: ControlPage, spinner: Spinner, watch: Watch) -> Self {
        Self {
            link: Arc::clone(&intake.link),
            intake,
            shown_waits: ControlWord::new(words.clone(), Word::Waits),
            word: SleepWord::new(SenderWord::new(words)),
            interest: Interest::NONE,
            spinner,
            peer_closed: false,
            watch,
            stats: Stats::default(),
        }
    }

    pub(crate) fn violated(&self, violation: ProtocolError) -> Error {
        self.link.violated(violation)
    }

    /// Ends the channel by ourselves: the peer receives what was committed.
    #[cold]
    pub(crate) fn end(&self) -> Error {
        self.link.close();
        self.link.ended()
    }

    /// False for [`Wait::Block`](crate::Wait::Block), and where spinning is useless.
    pub(crate) fn may_spin(&self) -> bool {
        self.spinner.may_spin()
    }

    /// Every way to send passes here before it has any effect.
    #[inline]
    pub(crate) fn check(&mut self) -> Result<()> {
        if !self.link.is_ours_at_a_glance() {
            self.intake.take_over()?;
        }
        if self.peer_closed { Err(Error::Disconnected) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn has_space(&self, producer: &mut Producer, size: RecordSize) -> Result<bool> {
        producer.has_room(size).map_err(|violation| self.link.violated(violation))
    }

    /// Notes that this space is there: the descriptor need not signal it. If it has to signal nothing else, the doorbells are read,
    /// so that it is not readable for nothing.
    #[inline]
    pub(crate) fn disarm(&mut self, space: Space<RecordSize>) -> Result<()> {
        if self.word.is_armed() { self.disarm_armed(space) } else { Ok(()) }
    }

    #[cold]
    fn disarm_armed(&mut self, space: Space<RecordSize>) -> Result<()> {
        if !self.interest.remove(space) {
            return Ok(());
        }
        self.word.disarm();
        let mut budget = Budget::once();
        while budget.spend()? && self.read(SleepWord::on_doorbell)? {}
        Ok(())
    }

    /// Reads the space socket once, without blocking. True if there was a doorbell.
    ///
    /// UNTRUSTED: all that may come there is doorbells, at most one for each epoch.
    fn read(&mut self, on_doorbell: OnDoorbell) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let packet = match self.link.space_rx.receive(&mut buffer, 0)? {
            Received::Packet(packet) => packet,
            Received::Nothing => {
                self.word.drained();
                return Ok(false);
            }
            Received::End => {
                self.peer_closed = true;
                return Err(self.link.ended());
            }
        };
        packet
            .and_then(|incoming| is_doorbell(&incoming, Kind::Doorbell))
            .and_then(|_| on_doorbell(&mut self.word))
            .map_err(|violation| self.violated(violation))?;
        count(&mut self.stats.doorbells_received, 1);
        self.word.passed(to_u64(PACKET_HEADER), || self.link.space_rx.unread().ok());
        Ok(true)
    }

    /// Sleeps until the peer rings, the socket is ready for `flags`, the peer is gone, or `at_most`.
    fn sleep(&mut self, flags: PollFlags, deadline: Deadline, at_most: Option<Duration>) -> Result<()> {
        count(&mut self.stats.sleeps, 1);
        let fds = [(self.link.space_rx.as_fd(), PollFlags::IN), (self.link.socket.as_fd(), flags)];
        let [_, socket] = match self.watch.sleep(fds, deadline, at_most) {
            // The peer was killed: nobody makes space any more.
            Err(Error::Disconnected) => {
                self.peer_closed = true;
                return Err(self.link.ended());
            }
            ready => ready?,
        };
        // The other end has no reader, though another process may hold the space socket's.
        if socket.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.peer_closed = true;
        }
        Ok(())
    }

    pub(crate) fn map_send_error(&mut self, failure: SendFailure) -> Error {
        if matches!(failure, SendFailure::Gone) {
            self.peer_closed = true;
            return self.link.ended();
        }
        failure.into()
    }
}
