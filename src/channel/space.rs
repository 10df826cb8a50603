//! [`SpaceWaiter`]: how a sender waits for space in the ring, or in the socket, and arms its descriptor for it.
//!
//! Owns the sender's sleep word and what the descriptor has to signal. Reads the space socket, on which the peer sends
//! nothing but doorbells. Does not flush a batch's notification: its caller does, before it asks to wait.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use rustix::event::PollFlags;

use crate::{
    channel::{
        control::Control,
        stats::{Stats, count},
    },
    error::{Error, ProtocolError, Result},
    protocol::{
        layout::{RecordSize, Word, to_u64},
        packet::{Kind, PACKET_HEADER, PacketHeader},
    },
    ring::{producer::Producer, release::Intake},
    socket::{
        death::Watch,
        doorbell::Epoch,
        link::Link,
        seqpacket::{Arrival, SendFailure},
    },
    sys::own_region::OwnWords,
    wait::{Budget, Deadline, Spinner, Spun},
};

/// First and longest pause between two attempts while too many descriptors are in flight, or memory is short: the kernel
/// gives no sign when that is over.
const SHORTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How long a call may wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Not at all; but the descriptor is armed.
    No,
    Until(Deadline),
}

/// Where there is room, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Ring,
    Socket,
}

/// Which room a `try_` call has said no for, and is to be announced.
#[derive(Debug, Default)]
struct Interest {
    /// For a record of so many bytes.
    ring: Option<RecordSize>,
    socket: bool,
}

/// What a sender knows of its channel and waits with.
pub(crate) struct SpaceWaiter {
    pub(crate) link: Arc<Link>,
    intake: Arc<Intake>,
    epoch: Epoch,
    interest: Interest,
    spinner: Spinner,
    /// The peer reads no more.
    pub(crate) peer_closed: bool,
    watch: Watch,
    pub(crate) stats: Stats,
}

impl SpaceWaiter {
    pub(crate) fn new(intake: Arc<Intake>, words: OwnWords, spinner: Spinner, watch: Watch) -> Self {
        Self {
            link: Arc::clone(&intake.link),
            intake,
            epoch: Epoch::new(words, Word::SenderEpoch),
            interest: Interest::default(),
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

    #[cold]
    pub(crate) fn wait_or_arm(
        &mut self,
        producer: &mut Producer,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        count(&mut self.stats.waits_for_space, 1);
        match block {
            Block::No => {
                self.interest.ring = Some(size);
                self.arm(producer, Space::Ring, |space, producer| {
                    Ok(space.has_space(producer, size)?.then_some(()))
                })
            }
            Block::Until(deadline) => {
                let result = self.wait_for_ring(producer, size, deadline);
                if self.spinner.done() {
                    count(&mut self.stats.spins_paid, 1);
                }
                result
            }
        }
    }

    fn wait_for_ring(&mut self, producer: &mut Producer, size: RecordSize, deadline: Deadline) -> Result<()> {
        let mut budget = Budget::until(deadline);
        loop {
            self.check()?;
            if self.has_space(producer, size)? {
                return self.disarm(Space::Ring);
            }
            // The peer may release bit by bit, or ring, for ever.
            budget.spend()?;
            match self.spinner.spin(deadline, || producer.tail_moved()) {
                Spun::Ready => {
                    producer.let_more_be_released(size);
                    continue;
                }
                Spun::LookAtSocket => {
                    if !self.read_credit(Epoch::heard)? && self.watch.look().is_err() {
                        self.peer_closed = true;
                    }
                    continue;
                }
                Spun::Enough => {}
            }
            // Say that we are about to sleep, then look again: whoever releases later will ring.
            self.epoch.arm();
            if self.has_space(producer, size)? {
                continue;
            }
            if self.read_credit(Epoch::heard)? {
                continue;
            }
            self.sleep(PollFlags::empty(), deadline, None)?;
            self.read_credit(Epoch::heard)?;
        }
    }

    /// Tries once more, armed; what comes later is announced. [`Error::Full`] if it did not help.
    ///
    /// One descriptor tells of both kinds of room. So the epoch is made new first, both kinds are looked at, and only then
    /// are the doorbells of the *earlier* epochs read: what comes later has one of its own, which stays. If there is room of
    /// the other kind by now they are left too: then it is they that announce it.
    #[cold]
    fn arm<T>(
        &mut self,
        producer: &mut Producer,
        room: Space,
        mut attempt: impl FnMut(&mut Self, &mut Producer) -> Result<Option<T>>,
    ) -> Result<T> {
        if self.link.credit_in.is_abandoned()? {
            self.peer_closed = true;
            return Err(self.link.ended());
        }
        let mut earlier = self.link.credit_in.doorbells()?;
        if earlier == 0 {
            self.epoch.drained();
        }
        // One that is left announces as much as many, which could fill the socket: then the new epoch's would find no room. What
        // the peer rings from here on is not among the `earlier`, so it cannot keep us.
        while earlier > 1 && self.read_credit(Epoch::overheard)? {
            earlier = earlier.saturating_sub(1);
        }
        self.epoch.renew();
        if let Some(done) = attempt(self, producer)? {
            // It is done: if the credit socket has anything to tell, the next call tells it.
            let _ = self.disarm(room);
            return Ok(done);
        }
        if self.other_has_space(producer, room)? {
            return Err(Error::Full);
        }
        for _ in 0..earlier {
            if !self.read_credit(Epoch::overheard)? {
                break;
            }
        }
        Err(Error::Full)
    }

    /// Whether there is room of the kind that `room` is not, and that a call has said no for. It is told once.
    fn other_has_space(&mut self, producer: &mut Producer, room: Space) -> Result<bool> {
        let has_space = match room {
            Space::Ring => self.interest.socket && self.link.socket.has_room()?,
            Space::Socket => match self.interest.ring {
                Some(size) => self.has_space(producer, size)?,
                None => false,
            },
        };
        if has_space {
            match room {
                Space::Ring => self.interest.socket = false,
                Space::Socket => self.interest.ring = None,
            }
        }
        Ok(has_space)
    }

    /// After a success: this room is not to be announced any more. If no other is either, what was announced is read, so
    /// that the descriptor is not readable for nothing.
    #[inline]
    pub(crate) fn disarm(&mut self, room: Space) -> Result<()> {
        if self.epoch.is_armed() { self.disarm_armed(room) } else { Ok(()) }
    }

    #[cold]
    fn disarm_armed(&mut self, room: Space) -> Result<()> {
        match room {
            Space::Ring => self.interest.ring = None,
            Space::Socket => self.interest.socket = false,
        }
        if self.interest.ring.is_some() || self.interest.socket {
            return Ok(());
        }
        self.epoch.disarm();
        self.read_bells()
    }

    /// Reads the doorbells that are left over, as many as one call may.
    fn read_bells(&mut self) -> Result<()> {
        let mut budget = Budget::once();
        while budget.spend()? && self.read_credit(Epoch::heard)? {}
        Ok(())
    }

    /// Reads the credit socket once, without blocking. True if there was a doorbell; `heard` says what that means.
    ///
    /// UNTRUSTED: all that may come there is doorbells, one for each epoch.
    fn read_credit(&mut self, heard: fn(&mut Epoch) -> Result<(), ProtocolError>) -> Result<bool> {
        let packet = match self.link.credit_in.receive(0)? {
            Arrival::Packet(packet) => packet,
            Arrival::Nothing => {
                self.epoch.drained();
                return Ok(false);
            }
            Arrival::End => {
                self.peer_closed = true;
                return Err(self.link.ended());
            }
        };
        let bell = packet.and_then(|incoming| match (incoming.packet.kind, incoming.packet.fd_count) {
            (Kind::Doorbell, 0) => {
                count(&mut self.stats.doorbells_received, 1);
                heard(&mut self.epoch)
            }
            (Kind::Doorbell, found) => Err(ProtocolError::FdLimit { max: 0, found }),
            (other, _) => {
                Err(ProtocolError::PacketKind { expected: Kind::Doorbell.code(), found: other.code() })
            }
        });
        bell.map_err(|violation| self.violated(violation))?;
        self.epoch.passed(to_u64(PACKET_HEADER), || self.link.credit_in.unread().ok());
        Ok(true)
    }

    /// Sleeps until the peer announces room, the socket is ready for `flags`, or the peer is gone.
    fn sleep(&mut self, flags: PollFlags, deadline: Deadline, at_most: Option<Duration>) -> Result<()> {
        if deadline.passed() {
            return Err(Error::Timeout);
        }
        count(&mut self.stats.sleeps, 1);
        let fds = [(self.link.credit_in.as_fd(), PollFlags::IN), (self.link.socket.as_fd(), flags)];
        let [_, socket] = match self.watch.sleep(fds, deadline, at_most) {
            // The peer was killed: nobody will make room.
            Err(Error::Disconnected) => {
                self.peer_closed = true;
                return Err(self.link.ended());
            }
            ready => ready?,
        };
        // Nobody reads at the other end, though somebody may hold on to the credit socket's.
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

    /// Sends a packet for which the socket had no space, or descriptors or memory were short.
    #[cold]
    pub(crate) fn wait_to_send(
        &mut self,
        producer: &mut Producer,
        header: PacketHeader,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        count(&mut self.stats.waits_for_space, 1);
        match block {
            Block::No => self.send_armed(producer, header, control),
            Block::Until(deadline) => self.send_blocking(header, control, deadline),
        }
    }

    /// Tries once more to send a packet, armed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`] if it does not go now.
    fn send_armed(
        &mut self,
        producer: &mut Producer,
        header: PacketHeader,
        control: &Control<'_>,
    ) -> Result<()> {
        let mut in_flight = false;
        self.interest.socket = true;
        let result = self.arm(producer, Space::Socket, |space, _| {
            match space.link.socket.send(header, control.bytes, &control.fds) {
                Ok(()) => Ok(Some(())),
                Err(failure @ (SendFailure::Full | SendFailure::FdsInFlight)) => {
                    in_flight = matches!(failure, SendFailure::FdsInFlight);
                    Ok(None)
                }
                Err(failure) => Err(space.map_send_error(failure)),
            }
        });
        match result {
            Err(Error::Full) if in_flight => Err(Error::FdsInFlight),
            result => result,
        }
    }

    fn send_blocking(
        &mut self,
        header: PacketHeader,
        control: &Control<'_>,
        deadline: Deadline,
    ) -> Result<()> {
        let (mut pause, longest) = SHORTAGE_PAUSE;
        loop {
            self.check()?;
            match self.link.socket.send(header, control.bytes, &control.fds) {
                Ok(()) => return Ok(()),
                Err(SendFailure::Full) => self.sleep(PollFlags::OUT, deadline, None)?,
                Err(SendFailure::FdsInFlight | SendFailure::NoMemory(_)) => {
                    self.sleep(PollFlags::empty(), deadline, Some(pause))?;
                    pause = pause.saturating_mul(2).min(longest);
                }
                Err(failure) => return Err(self.map_send_error(failure)),
            }
            // Doorbells that were left over, or the peer's end.
            self.read_bells()?;
        }
    }
}
