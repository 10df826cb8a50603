//! [`Inbox`]: the receive engine. It takes messages out of ring and socket, in their one order, and waits for them.
//!
//! Owns the reader of the peer's ring, the order of messages, the receiver's sleep word and its counts. Refuses halves that
//! do not fit, and whatever is beyond our limits.

use std::{os::fd::AsFd, sync::Arc};

use rustix::{event::PollFlags, time::Timespec};

use crate::{
    channel::{
        ages::{Receipts, now},
        message::{Extras, Message},
        payload::Payload,
        stats::{Held, Limits, Stats, count},
    },
    error::{Error, ProtocolError, Result},
    memory::aligned_bytes::PrivateBytes,
    protocol::{
        layout::Word,
        order::{Order, Turn},
        packet::Kind,
        record::{Heading, Record},
        requests::Answer,
    },
    ring::{consumer::Consumer, release::Intake},
    socket::{
        death::Watch,
        doorbell::Epoch,
        link::Link,
        seqpacket::{Arrival, Incoming, ReceivedFds},
    },
    sys::own_region::OwnWords,
    wait::{Budget, Deadline, Spinner, Spun},
};

/// Reads in vain of a packet that is announced, some 0.2 µs each: longer than it takes to send one.
const ANNOUNCED_READS: u32 = 16;

/// All of a receiver but what was kept while a reply was awaited.
pub(crate) struct Inbox {
    pub(crate) link: Arc<Link>,
    pub(crate) consumer: Consumer,
    order: Order<BufferedPacket>,
    epoch: Epoch,
    spinner: Spinner,
    /// Sequenced packets read.
    packets: u64,
    /// A value of the peer's `packets` word that turned out to announce nothing.
    stale_packet_count: u64,
    /// End of file was read: what is not in the ring now will never come.
    pub(crate) eof: bool,
    pub(crate) receipts: Receipts,
    pub(crate) limits: Limits,
    watch: Watch,
    pub(crate) stats: Stats,
}

/// The half of a message that came as a packet.
#[derive(Debug)]
struct BufferedPacket {
    extras: Box<Extras>,
    /// Descriptors that were announced, if some of them were lost to our own limit.
    lost: Option<usize>,
}

/// The message whose turn it is: its halves are here, and only have to be put together.
struct NextMessage {
    heading: Heading,
    packet: Option<BufferedPacket>,
    /// The ring's next record, if that is part of it.
    record: Option<Record>,
}

/// What a call that waits carries from look to look.
struct Waiting {
    budget: Budget,
    /// When the last spin began that found something: some microseconds ago, while there was time to look at the clock.
    since: Option<Timespec>,
}

/// What one look that does not wait came to.
#[derive(Debug)]
pub(crate) enum Poll {
    Message(Message),
    /// Nothing; armed, and the socket is empty: what comes from now on makes the descriptor readable anew.
    Empty,
    /// Nothing among as many packets as one look reads; armed, but there may be more packets.
    Budget,
}

#[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
impl Inbox {
    pub(crate) fn new(
        intake: Arc<Intake>,
        words: OwnWords,
        limits: Limits,
        watch: Watch,
        spinner: Spinner,
    ) -> Self {
        Self {
            link: Arc::clone(&intake.link),
            consumer: Consumer::new(intake),
            order: Order::new(),
            epoch: Epoch::new(words, Word::ReceiverEpoch),
            spinner,
            packets: 0,
            stale_packet_count: 0,
            eof: false,
            receipts: Receipts::default(),
            limits,
            watch,
            stats: Stats::default(),
        }
    }

    /// The next message from ring and socket, whatever is kept.
    #[inline(always)]
    pub(crate) fn receive(&mut self, deadline: Deadline) -> Result<Message> {
        let mut waiting = Waiting { budget: Budget::until(deadline), since: None };
        loop {
            if self.should_rest() {
                self.consumer.let_more_be_published(deadline);
            }
            if let Some(record) = self.try_inline() {
                if waiting.since.is_some() {
                    self.end_wait();
                }
                return self.finish_inline(record, waiting.since);
            }
            if self.consumer.passes_padding() {
                continue;
            }
            if let Some(due) = self.wait_for_message(deadline, &mut waiting)? {
                return self.assemble(due);
            }
        }
    }

    /// Whether it is time to let a peer that goes on get a lead. Who never spins does not rest either.
    #[inline(always)]
    pub(crate) fn should_rest(&self) -> bool {
        self.consumer.is_close() && self.spinner.may_spin()
    }

    /// The ring's next record, if it is all of the message whose turn it is, as nearly all are: [take](Self::finish_inline) it.
    #[inline(always)]
    pub(crate) fn try_inline(&mut self) -> Option<Record> {
        // A fork takes the channel over first, with a look that is not as fast.
        if !self.link.is_ours_at_a_glance() {
            return None;
        }
        let record = self.consumer.ready()?;
        let whole = record.heading.in_reply_to().is_none() && self.order.is_alone(record.heading);
        whole.then_some(record)
    }

    #[inline(always)]
    fn finish_inline(&mut self, record: Record, since: Option<Timespec>) -> Result<Message> {
        let extras = self.begin_inline(record)?;
        let payload = self.payload_of(record, since);
        Ok(Message::new(record.heading, self.link.id, extras, Some(payload)))
    }

    /// Counts a [whole](Self::try_inline) record as a message that is given out. What it has beside its payload.
    #[inline(always)]
    pub(crate) fn begin_inline(&mut self, record: Record) -> Result<Option<Box<Extras>>> {
        self.order.passed();
        self.epoch.disarm();
        if record.heading.wants_reply() {
            self.note_request(record.heading.sequence)?;
        }
        let extras = self.extras_of(record)?;
        self.record_stats(record.bytes(), 0);
        Ok(extras)
    }

    #[inline]
    pub(crate) fn find(&mut self) -> Result<Poll> {
        match self.try_inline() {
            Some(record) => self.finish_inline(record, None).map(Poll::Message),
            None => self.try_slow(),
        }
    }

    #[cold]
    fn try_slow(&mut self) -> Result<Poll> {
        self.consumer.intake().take_over()?;
        let mut budget = Budget::once();
        loop {
            self.link.check()?;
            if let Some(due) = self.poll(&mut budget)? {
                return self.assemble(due).map(Poll::Message);
            }
            if self.eof {
                return Err(self.end());
            }
            let was_armed = self.epoch.is_armed();
            self.epoch.arm();
            if !was_armed && self.consumer.head_moved() {
                continue;
            }
            // Only here: whatever the last packet was, we have armed since, and looked.
            if !budget.spend()? {
                return Ok(Poll::Budget);
            }
            if !self.read_packet()? {
                return Ok(Poll::Empty);
            }
        }
    }

    /// The error for who has received all that there was. If the peer has not only closed this direction, but is gone, the
    /// sending half has come to its end too.
    fn end(&mut self) -> Error {
        self.order.abandon();
        if self.link.socket.is_dead() || self.watch.was_killed() {
            self.link.close();
        }
        self.link.ended()
    }

    /// A timeout, with what we have to do with it.
    fn explain(&self, error: Error) -> Error {
        match (error, self.consumer.held()) {
            (Error::Timeout, (count, bytes)) if count > 0 && self.consumer.intake().is_wanted() => {
                Error::TimeoutHolding { count, bytes }
            }
            (error, _) => error,
        }
    }

    /// Waits for the next message. `None` if it seems to be in the ring: look there, and come again if it is not.
    #[cold]
    fn wait_for_message(&mut self, deadline: Deadline, waiting: &mut Waiting) -> Result<Option<NextMessage>> {
        self.consumer.intake().take_over()?;
        let result = self.spin_and_sleep(deadline, waiting).map_err(|error| self.explain(error));
        if !matches!(result, Ok(None)) {
            self.end_wait();
        }
        result
    }

    /// A wait is over, if there was one. What only seemed to be there does not end it: else a peer that shows it again and
    /// again would keep us awake.
    fn end_wait(&mut self) {
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
    }

    fn spin_and_sleep(
        &mut self,
        deadline: Deadline,
        Waiting { budget, since }: &mut Waiting,
    ) -> Result<Option<NextMessage>> {
        loop {
            self.link.check()?;
            budget.spend()?;
            if let Some(due) = self.poll(budget)? {
                return Ok(Some(due));
            }
            if self.eof {
                return Err(self.end());
            }
            // The peer's count of packets is a hint that spares a spin, no more: it may lie, or come never.
            let hint = self.consumer.packets();
            if hint != self.packets && hint != self.stale_packet_count {
                if self.read_expected_packet()? {
                    continue;
                }
                self.stale_packet_count = hint;
                if deadline.passed() {
                    return Err(Error::Timeout);
                }
            }
            let (consumer, vain) = (&self.consumer, self.stale_packet_count);
            let packets = self.packets;
            let news = || {
                let hint = consumer.packets();
                consumer.head_moved() || (hint != packets && hint != vain)
            };
            let began = now();
            match self.spinner.spin(deadline, news) {
                Spun::Ready => {
                    *since = Some(began);
                    // It may be gone when it is looked at.
                    return Ok(None);
                }
                Spun::LookAtSocket => {
                    if !self.read_packet()? && self.watch.look().is_err() {
                        self.eof = true;
                    }
                    continue;
                }
                Spun::Enough => {}
            }
            // Say that we are about to sleep, then look again: whoever publishes later will ring.
            self.epoch.arm();
            if self.consumer.head_moved() {
                continue;
            }
            if self.read_packet()? {
                continue;
            }
            if deadline.passed() {
                return Err(Error::Timeout);
            }
            count(&mut self.stats.sleeps, 1);
            let in_one_call = deadline == Deadline::Never && !self.watch.is_on();
            if !in_one_call || !self.wait_for_packet()? {
                match self.watch.sleep([(self.link.socket.as_fd(), PollFlags::IN)], deadline, None) {
                    Ok(_) => {
                        self.read_packet()?;
                    }
                    // The peer was killed, and what it left has been looked at.
                    Err(Error::Disconnected) => self.eof = true,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whether there is a message whose turn it is. `None` too if the budget does not reach to it, and then there is something
    /// to be read in the socket.
    fn poll(&mut self, budget: &mut Budget) -> Result<Option<NextMessage>> {
        loop {
            let record = match self.consumer.peek() {
                Ok(record) => record,
                Err(violation) => return Err(self.link.violated(violation)),
            };
            let heading = record.map(|record| record.heading);
            let due = match self.order.turn(heading).map_err(|violation| self.link.violated(violation))? {
                Turn::Nothing => return Ok(None),
                Turn::MustRead => {
                    if !budget.spend()? {
                        return Ok(None);
                    }
                    let there = !self.eof && self.read_packet()?;
                    if !there || self.eof {
                        return Err(self.link.violated(self.order.missing(heading)));
                    }
                    continue;
                }
                Turn::Packet(heading, packet) => NextMessage { heading, packet: Some(packet), record: None },
                Turn::Record(packet) => NextMessage { heading: heading.unwrap_or_default(), packet, record },
            };
            self.epoch.disarm();
            match due.heading.in_reply_to() {
                Some(sequence) if !self.is_wanted(sequence)? => {
                    // What came as a packet has been paid for. What is in the ring is dropped even by a call whose budget is
                    // spent, as no descriptor tells of it; there is no more of it than `max_requests`.
                    let in_ring = due.record.is_some();
                    drop(self.join(due));
                    if in_ring {
                        budget.spend()?;
                    }
                }
                _ => return Ok(Some(due)),
            }
        }
    }

    /// Whether somebody waits for the reply to this request of ours.
    fn is_wanted(&mut self, sequence: u64) -> Result<bool> {
        match self.link.requests.answer(sequence) {
            Answer::InTime => Ok(true),
            Answer::Late => {
                count(&mut self.stats.late_replies, 1);
                Ok(false)
            }
            Answer::Unasked => Err(self.link.violated(ProtocolError::UnaskedReply { sequence })),
        }
    }

    #[inline(always)]
    fn assemble(&mut self, due: NextMessage) -> Result<Message> {
        let heading = due.heading;
        let (extras, payload) = self.join(due)?;
        if heading.wants_reply() {
            self.note_request(heading.sequence)?;
        }
        let message = Message::new(heading, self.link.id, extras, payload);
        self.record_stats(message.len(), message.fds().len());
        Ok(message)
    }

    /// Puts the halves of a message together.
    fn join(&mut self, due: NextMessage) -> Result<(Option<Box<Extras>>, Option<Payload>)> {
        let NextMessage { heading, packet, record } = due;
        let (mut extras, mut payload) = (None, None);
        if let Some(record) = record {
            if packet.is_some() && record.control_len() > 0 {
                return Err(self.link.violated(ProtocolError::Halves { sequence: heading.sequence }));
            }
            extras = self.extras_of(record)?;
            payload = Some(self.payload_of(record, None));
        }
        if let Some(packet) = packet {
            if let Some(expected) = packet.lost {
                return Err(Error::FdsLost { expected, received: packet.extras.fds.len() });
            }
            extras = Some(packet.extras);
        }
        Ok((extras, payload))
    }

    /// The payload of the consumer's next record; moves past it. If it was waited for, `since` then, there is no need for
    /// another look at the clock.
    #[inline(always)]
    fn payload_of(&mut self, record: Record, since: Option<Timespec>) -> Payload {
        let span = self.consumer.take(record);
        let intake = self.consumer.intake();
        self.receipts.note(span, since.unwrap_or_else(now), || intake.tail());
        Payload::new(Arc::clone(intake), span, record.payload_len())
    }

    /// What a record has beside its payload.
    #[inline(always)]
    fn extras_of(&mut self, record: Record) -> Result<Option<Box<Extras>>> {
        if record.control_len() == 0 { Ok(None) } else { self.control_of(record).map(Some) }
    }

    /// UNTRUSTED: the length was checked against the ring; here, against our limit.
    fn control_of(&self, record: Record) -> Result<Box<Extras>> {
        let found = record.control_len();
        let max = self.limits.max_control;
        if found > max {
            return Err(self.link.violated(ProtocolError::ControlLength { max, found }));
        }
        let control = PrivateBytes::copy(self.consumer.control(record));
        Ok(Box::new(Extras { control, fds: ReceivedFds::default() }))
    }

    /// Takes note of a message that is given out now: of its bytes, and its descriptors.
    #[inline(always)]
    fn record_stats(&mut self, bytes: usize, fds: usize) {
        count(&mut self.stats.messages_received, 1);
        count(&mut self.stats.bytes_received, bytes);
        count(&mut self.stats.fds_received, fds);
    }

    /// UNTRUSTED: a request must be one of `max_requests` that are unanswered here. The peer counts it from before it is sent
    /// until our reply is read there; we, from now until just before our reply is sent: never longer.
    #[inline(never)]
    fn note_request(&self, sequence: u64) -> Result<()> {
        let max = self.limits.max_requests;
        if self.link.unanswered.note(sequence, max) {
            Ok(())
        } else {
            Err(self.link.violated(ProtocolError::Requests { max }))
        }
    }

    /// Reads one packet, if there is one, and files it. End of file is true too: look at the ring again.
    ///
    /// UNTRUSTED: what was read has been checked by itself (`Socket::receive`); here, against our limits.
    fn read_packet(&mut self) -> Result<bool> {
        let arrival = self.link.socket.receive(self.limits.max_control)?;
        self.on_arrival(arrival)
    }

    /// As [`read_packet`](Self::read_packet), a few times if need be: the peer's count of packets says that it is sending one.
    fn read_expected_packet(&mut self) -> Result<bool> {
        for _ in 0..ANNOUNCED_READS {
            if self.read_packet()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`read_packet`](Self::read_packet), but sleeps until there is one, if the socket lets us.
    fn wait_for_packet(&mut self) -> Result<bool> {
        let arrival = self.link.socket.wait(self.limits.max_control)?;
        self.on_arrival(arrival)
    }

    fn on_arrival(&mut self, arrival: Arrival) -> Result<bool> {
        match arrival {
            Arrival::Nothing => {
                self.epoch.drained();
                return Ok(false);
            }
            Arrival::End => self.eof = true,
            Arrival::Packet(packet) => {
                let filed = packet.and_then(|incoming| {
                    let bytes = incoming.bytes();
                    self.on_packet(incoming).map(|()| bytes)
                });
                let bytes = filed.map_err(|violation| self.link.violated(violation))?;
                self.epoch.passed(bytes, || self.link.socket.unread().ok());
            }
        }
        Ok(true)
    }

    fn on_packet(&mut self, incoming: Incoming) -> Result<(), ProtocolError> {
        let fd_count = incoming.packet.fd_count;
        match incoming.packet.kind {
            Kind::Doorbell if fd_count == 0 => {
                count(&mut self.stats.doorbells_received, 1);
                return self.epoch.heard();
            }
            Kind::Doorbell => return Err(ProtocolError::FdLimit { max: 0, found: fd_count }),
            Kind::Control => {}
            other => {
                return Err(ProtocolError::PacketKind {
                    expected: Kind::Control.code(),
                    found: other.code(),
                });
            }
        }
        if fd_count > self.limits.max_fds {
            return Err(ProtocolError::FdLimit { max: self.limits.max_fds, found: fd_count });
        }
        self.packets = self.packets.wrapping_add(1);
        count(&mut self.stats.packets_received, 1);
        let lost = incoming.fds_cut.then_some(fd_count);
        let extras = Box::new(Extras { control: incoming.body, fds: incoming.fds });
        self.order.hold(incoming.packet.heading, BufferedPacket { extras, lost })?;
        // A sender may be waiting for the room that this packet took.
        self.consumer.intake().announce_room();
        Ok(())
    }

    /// The payloads of this channel that have not been dropped, and so keep the peer from reusing their space.
    pub(crate) fn held(&self) -> Held {
        let (count, bytes) = self.consumer.held();
        let oldest = (count > 0).then(|| self.receipts.age(self.consumer.intake().tail()));
        Held { count, bytes, oldest }
    }

    /// The sequence number of the next message.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.order.next()
    }
}
