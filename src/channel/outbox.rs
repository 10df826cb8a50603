//! Sending, apart from the ring's memory: numbers messages, puts them into ring and socket, wakes the peer, waits for
//! room.
//!
//! A [`Loan`](crate::channel::loan::Loan) borrows this beside the memory that it lends.

use std::{
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::event::PollFlags;

use crate::{
    channel::{
        control::Control,
        message::{ReplyToken, RequestId},
        stats::{Limits, Stats, count},
    },
    error::{Error, ProtocolError, Result},
    protocol::{
        layout::{LINE, Word, padded, record_size, to_u64, to_usize},
        packet::{Heading, Kind, PACKET_HEADER, PacketHeader, Record, RecordHeader},
    },
    ring::{producer::Producer, release::Intake},
    socket::{
        death::Watch,
        doorbell::{Bell, Epoch, Rung},
        link::Link,
        seqpacket::{Arrival, SendFailure},
    },
    sys::mapping::{OwnWords, PeerRegion, RingWriter},
    wait::{Budget, Deadline, Spinner, Spun},
};

/// First and longest pause between two attempts while too many descriptors are in flight, or memory is short: the kernel
/// gives no sign when that is over.
const SHORTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Within a batch the peer is woken for so many bytes: to write that many takes about as long as to wake it.
const MOST_OWED: u64 = 256 << 10;

/// How long a call may wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all; but the descriptor is armed.
    Try,
    Until(Deadline),
}

/// Where there is room, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Ring,
    Socket,
}

/// Which room a `try_` call has said no for, and is to be announced.
#[derive(Debug, Default)]
struct Wanted {
    /// For a record of so many bytes.
    ring: Option<u64>,
    socket: bool,
}

/// All of a sender but the ring's memory, which a loan borrows beside it.
pub(crate) struct Outgoing {
    pub(crate) link: Arc<Link>,
    intake: Arc<Intake>,
    pub(crate) producer: Producer,
    region: PeerRegion,
    words: OwnWords,
    bell: Bell,
    /// Several loans are sent one after the other, and the peer is woken when they are.
    batching: bool,
    /// Bytes that were published last, for which the peer has not been woken.
    owed: u64,
    epoch: Epoch,
    wanted: Wanted,
    spinner: Spinner,
    /// Of the next message.
    pub(crate) sequence: u64,
    /// Sequenced packets sent.
    packets: u64,
    /// The peer reads no more.
    pub(crate) gone: bool,
    watch: Watch,
    pub(crate) limits: Limits,
    pub(crate) stats: Stats,
}

impl Outgoing {
    pub(crate) fn new(
        intake: Arc<Intake>,
        capacity: usize,
        words: OwnWords,
        limits: Limits,
        spinner: Spinner,
        watch: Watch,
    ) -> Self {
        let (link, region) = (Arc::clone(&intake.link), intake.peer.clone());
        Self {
            link,
            intake,
            producer: Producer::new(words.clone(), region.clone(), capacity),
            region,
            bell: Bell::new(Word::ReceiverEpoch),
            batching: false,
            owed: 0,
            epoch: Epoch::new(words.clone(), Word::SenderEpoch),
            wanted: Wanted::default(),
            words,
            spinner,
            sequence: 0,
            packets: 0,
            gone: false,
            watch,
            limits,
            stats: Stats::default(),
        }
    }

    /// Bytes that a record with a payload of `len` takes; an error if no ring of this size ever has them.
    #[inline]
    pub(crate) fn size_of_record(&self, len: usize) -> Result<u64> {
        let max = self.limits.max_payload;
        match record_size(to_u64(len), 0) {
            Some(size) if size <= self.producer.capacity() => Ok(size),
            _ => Err(Error::PayloadTooLarge { len, max }),
        }
    }

    fn violated(&self, violation: ProtocolError) -> Error {
        self.link.violated(violation)
    }

    /// Every way to send passes here before it has any effect.
    #[inline]
    fn check(&mut self) -> Result<()> {
        if !self.link.is_ours_at_a_glance() {
            self.intake.take_over()?;
        }
        if self.gone { Err(Error::Disconnected) } else { Ok(()) }
    }

    #[inline]
    fn has_room(&mut self, size: u64) -> Result<bool> {
        self.producer.has_room(size).map_err(|violation| self.link.violated(violation))
    }

    /// Where a record of `size` bytes, for which there is room, begins.
    #[inline]
    pub(crate) fn place(&mut self, size: u64) -> Result<u64> {
        self.producer.place(size).map_err(|violation| self.link.violated(violation))?;
        Ok(self.producer.head())
    }

    /// Waits until a record of `size` bytes has room. [`Error::Full`] if there is no patience for that.
    #[inline]
    pub(crate) fn make_room(&mut self, size: u64, patience: Patience) -> Result<()> {
        // For the bell, which has to wait for all that is stored until then.
        self.region.expect_word(Word::ReceiverEpoch);
        self.check()?;
        if self.has_room(size)? {
            return self.stand_down(Room::Ring);
        }
        self.wait_or_arm(size, patience)
    }

    /// From now on the peer is not woken, until [`end_batch`](Self::end_batch) or something has to wait. Says how it was.
    pub(crate) fn begin_batch(&mut self) -> bool {
        std::mem::replace(&mut self.batching, true)
    }

    /// Goes back to what [`begin_batch`](Self::begin_batch) said.
    pub(crate) fn end_batch(&mut self, before: bool) {
        self.batching = before;
        // A fork that has not used its copy rings no bell.
        if !before && self.link.is_ours() {
            self.settle_bell();
        }
    }

    /// Wakes the peer for what it has not been woken for.
    #[inline]
    fn settle_bell(&mut self) {
        if std::mem::take(&mut self.owed) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wait_or_arm(&mut self, size: u64, patience: Patience) -> Result<()> {
        self.settle_bell();
        count(&mut self.stats.waits_for_space, 1);
        match patience {
            Patience::Try => {
                self.wanted.ring = Some(size);
                self.arm_for(Room::Ring, |out| Ok(out.has_room(size)?.then_some(())))
            }
            Patience::Until(deadline) => {
                let result = self.wait_for_room(size, deadline);
                if self.spinner.done() {
                    count(&mut self.stats.spins_paid, 1);
                }
                result
            }
        }
    }

    fn wait_for_room(&mut self, size: u64, deadline: Deadline) -> Result<()> {
        let mut budget = Budget::until(deadline);
        loop {
            self.check()?;
            if self.has_room(size)? {
                return self.stand_down(Room::Ring);
            }
            // The peer may release bit by bit, or ring, for ever.
            budget.spend()?;
            match self.spinner.spin(deadline, || self.producer.tail_moved()) {
                Spun::Ready => {
                    self.producer.let_more_be_released(size);
                    continue;
                }
                Spun::LookAtSocket => {
                    if !self.read_credit(Epoch::heard)? && self.watch.look().is_err() {
                        self.gone = true;
                    }
                    continue;
                }
                Spun::Enough => {}
            }
            // Say that we are about to sleep, then look again: whoever releases later will ring.
            self.epoch.arm();
            if self.has_room(size)? {
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
    fn arm_for<T>(
        &mut self,
        room: Room,
        mut attempt: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        if self.link.credit_in.is_abandoned()? {
            self.gone = true;
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
        if let Some(done) = attempt(self)? {
            // It is done: if the credit socket has anything to tell, the next call tells it.
            let _ = self.stand_down(room);
            return Ok(done);
        }
        if self.other_has_room(room)? {
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
    fn other_has_room(&mut self, room: Room) -> Result<bool> {
        let has_room = match room {
            Room::Ring => self.wanted.socket && self.link.socket.has_room()?,
            Room::Socket => match self.wanted.ring {
                Some(size) => self.has_room(size)?,
                None => false,
            },
        };
        if has_room {
            match room {
                Room::Ring => self.wanted.socket = false,
                Room::Socket => self.wanted.ring = None,
            }
        }
        Ok(has_room)
    }

    /// After a success: this room is not to be announced any more. If no other is either, what was announced is read, so
    /// that the descriptor is not readable for nothing.
    #[inline]
    fn stand_down(&mut self, room: Room) -> Result<()> {
        if self.epoch.is_armed() { self.stand_down_armed(room) } else { Ok(()) }
    }

    #[cold]
    fn stand_down_armed(&mut self, room: Room) -> Result<()> {
        match room {
            Room::Ring => self.wanted.ring = None,
            Room::Socket => self.wanted.socket = false,
        }
        if self.wanted.ring.is_some() || self.wanted.socket {
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
                self.gone = true;
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
                self.gone = true;
                return Err(self.link.ended());
            }
            ready => ready?,
        };
        // Nobody reads at the other end, though somebody may hold on to the credit socket's.
        if socket.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.gone = true;
        }
        Ok(())
    }

    /// Sends a message that is only a packet.
    pub(crate) fn send_control(
        &mut self,
        control: &Control<'_>,
        wants_reply: bool,
        patience: Patience,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        self.numbered(heading, |out| out.post(heading, control, patience))?;
        count(&mut self.stats.bytes_sent, control.bytes.len());
        Ok(RequestId { channel: self.link.id, sequence: heading.sequence })
    }

    /// The heading of the next message, if what goes along is within the peer's limits.
    #[inline]
    fn heading(&self, control: &Control<'_>, wants_reply: bool) -> Result<Heading> {
        let Limits { max_control, max_fds, .. } = self.limits;
        let (len, fds) = (control.bytes.len(), control.fds.len());
        if len > max_control {
            return Err(Error::ControlTooLarge { len, max: max_control });
        }
        if fds > max_fds {
            return Err(Error::TooManyFds { count: fds, max: max_fds });
        }
        let in_reply_to = match control.in_reply_to {
            Some(ReplyToken { channel, sequence }) => {
                if channel != self.link.id || !self.link.unanswered.contains(sequence) {
                    return Err(Error::UnknownRequest);
                }
                Some(sequence)
            }
            None => None,
        };
        Ok(Heading::new(self.sequence, wants_reply, in_reply_to))
    }

    /// Gives the message its number if `send` succeeds. A request, or what a reply answers, is noted first: the peer may be
    /// quick.
    #[inline]
    fn numbered(&mut self, heading: Heading, send: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (request, max) = (heading.wants_reply(), self.limits.max_requests);
        if request && !self.link.requests.ask(heading.sequence, max) {
            return Err(Error::TooManyRequests { max });
        }
        // Before it is sent: as soon as the peer has the reply, its next request may come, even while we are here.
        let answered = heading.in_reply_to().inspect(|sequence| self.link.unanswered.remove(*sequence));
        if let Err(error) = send(self) {
            if request {
                self.link.requests.withdraw(heading.sequence);
            }
            if let Some(sequence) = answered {
                self.link.unanswered.restore(sequence);
            }
            return Err(error);
        }
        self.sequence = self.sequence.wrapping_add(1);
        count(&mut self.stats.messages_sent, 1);
        Ok(())
    }

    /// Sends a sequenced packet, or nothing.
    fn post(&mut self, heading: Heading, control: &Control<'_>, patience: Patience) -> Result<()> {
        // At most 253, by the limit.
        let fd_count = u32::try_from(control.fds.len()).unwrap_or(u32::MAX);
        let header = PacketHeader::control(heading, fd_count);
        self.check()?;
        // Only a hint for a receiver that spins, given a moment early: it finds the packet as soon as it is there. One that
        // sleeps is woken by the packet.
        self.words.word(Word::Packets).store(self.packets.wrapping_add(1), Relaxed);
        match self.link.socket.send(header, control.bytes, &control.fds) {
            Ok(()) => drop(self.stand_down(Room::Socket)),
            Err(SendFailure::Full | SendFailure::FdsInFlight | SendFailure::NoMemory(_)) => {
                self.settle_bell();
                count(&mut self.stats.waits_for_space, 1);
                match patience {
                    Patience::Try => self.post_armed(header, control)?,
                    Patience::Until(deadline) => self.post_patiently(header, control, deadline)?,
                }
            }
            Err(failure) => return Err(self.failed(failure)),
        }
        self.packets = self.packets.wrapping_add(1);
        count(&mut self.stats.packets_sent, 1);
        count(&mut self.stats.fds_sent, control.fds.len());
        Ok(())
    }

    fn failed(&mut self, failure: SendFailure) -> Error {
        if matches!(failure, SendFailure::Gone) {
            self.gone = true;
            return self.link.ended();
        }
        failure.into()
    }

    #[cold]
    fn post_armed(&mut self, header: PacketHeader, control: &Control<'_>) -> Result<()> {
        let mut in_flight = false;
        self.wanted.socket = true;
        let result = self.arm_for(Room::Socket, |out| {
            match out.link.socket.send(header, control.bytes, &control.fds) {
                Ok(()) => Ok(Some(())),
                Err(failure @ (SendFailure::Full | SendFailure::FdsInFlight)) => {
                    in_flight = matches!(failure, SendFailure::FdsInFlight);
                    Ok(None)
                }
                Err(failure) => Err(out.failed(failure)),
            }
        });
        match result {
            Err(Error::Full) if in_flight => Err(Error::FdsInFlight),
            result => result,
        }
    }

    #[cold]
    fn post_patiently(
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
                Err(failure) => return Err(self.failed(failure)),
            }
            // Doorbells that were left over, or the peer's end.
            self.read_bells()?;
        }
    }

    /// Sends what a loan has filled: `payload_len` bytes behind the header's place at the producer's head.
    ///
    /// The control bytes ride behind the payload if they have room there now and no descriptors go along; else they go
    /// first, as a packet. Only then is the record published: if the packet fails, nothing was sent.
    #[inline]
    pub(crate) fn commit(
        &mut self,
        ring: &mut RingWriter,
        payload_len: usize,
        control: &Control<'_>,
        wants_reply: bool,
        patience: Patience,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        let payload_len = to_u64(payload_len);
        if self.rides(payload_len, control)? {
            self.numbered(heading, Self::check)?;
            self.put(ring, heading, payload_len, control.bytes);
        } else {
            let heading = heading.halved();
            self.numbered(heading, |out| out.post(heading, control, patience))?;
            self.put(ring, heading, payload_len, &[]);
        }
        count(&mut self.stats.bytes_sent, to_usize(payload_len).wrapping_add(control.bytes.len()));
        Ok(RequestId { channel: self.link.id, sequence: heading.sequence })
    }

    /// Whether what goes along can be in the record.
    #[inline]
    fn rides(&mut self, payload_len: u64, control: &Control<'_>) -> Result<bool> {
        if !control.fds.is_empty() {
            return Ok(false);
        }
        if control.bytes.is_empty() {
            return Ok(true);
        }
        match record_size(payload_len, to_u64(control.bytes.len())) {
            Some(size) => self.has_room(size.saturating_add(self.producer.padding())),
            None => Ok(false),
        }
    }

    /// Writes and publishes a record, for which there is room, and wakes the peer.
    #[inline]
    fn put(&mut self, ring: &mut RingWriter, heading: Heading, payload_len: u64, control: &[u8]) {
        let start = self.producer.head();
        // Within `max_control`, a `u32`.
        let control_len = u32::try_from(control.len()).unwrap_or(0);
        let behind = start.wrapping_add(LINE).wrapping_add(padded(payload_len).unwrap_or(0));
        let size = record_size(payload_len, control_len.into()).unwrap_or(0);
        if self.producer.padding() > 0 {
            self.pad(ring);
        }
        let written = (control.is_empty() || ring.write(behind, control))
            && ring.put(start, RecordHeader::new(Record { heading, payload_len, control_len }));
        debug_assert!(written && size > 0, "room for the record was made before it was lent");
        self.producer.publish(size);
        self.owed = self.owed.wrapping_add(size);
        if !self.batching || self.owed >= MOST_OWED {
            self.settle_bell();
        }
        if self.producer.used() > self.stats.ring_high_water {
            self.stats.ring_high_water = self.producer.high_water(self.stats.ring_high_water);
        }
    }

    /// Writes the padding before the next record.
    #[cold]
    fn pad(&mut self, ring: &mut RingWriter) {
        let (end, padding) = (self.producer.head(), self.producer.padding());
        let written = ring.put(end.wrapping_sub(padding), RecordHeader::padding(padding.wrapping_sub(LINE)));
        debug_assert!(written, "padding is a multiple of 64");
    }

    /// Wakes the peer, if it sleeps, after a publication.
    #[inline]
    fn wake(&mut self) {
        match self.bell.ring(&self.region, &self.link.socket) {
            Rung::NoNeed => {}
            Rung::Sent => count(&mut self.stats.doorbells_sent, 1),
            // What was published is sent, whatever comes of it: the next call tells.
            Rung::Gone => self.gone = true,
        }
    }
}
