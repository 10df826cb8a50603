//! [`Receiver`]: takes messages out of ring and socket, in their one order, and waits for them.

mod batch;

use std::{
    collections::VecDeque,
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use rustix::{event::PollFlags, time::Timespec};

use crate::{
    channel::{
        ages::{Receipts, now},
        message::{Extras, Message, RequestId},
        payload::Payload,
        peer::Peer,
        stats::{Held, Limits, Stats, count},
    },
    error::{Error, ProtocolError, Result},
    memory::aligned_bytes::AlignedBytes,
    protocol::{
        layout::{Word, to_usize},
        order::{Order, Turn},
        packet::{Heading, Kind, Record},
        requests::Answer,
    },
    ring::consumer::{Consumer, Intake},
    socket::{
        death::Watch,
        doorbell::Epoch,
        link::{Closer, Link},
        seqpacket::{Arrival, ReceivedFds, ReceivedPacket},
    },
    sys::mapping::OwnWords,
    wait::{Budget, Deadline, Spinner, Spun},
};

pub use batch::Batch;

/// What [`Receiver::wait_reply`] keeps of other messages.
const KEPT_MESSAGES: usize = 64;
const KEPT_BYTES: usize = 4 << 20;
const KEPT_FDS: usize = 256;

/// Reads in vain of a packet that is announced, some 0.2 µs each: longer than it takes to send one.
const ANNOUNCED_READS: u32 = 16;

/// The receiving half of a [`Channel`](crate::Channel). Messages arrive whole, in the order in which they were sent.
///
/// Everything that the peer committed is delivered before [`Error::Disconnected`], even if it has died.
///
/// # In an event loop
/// The descriptor ([`AsFd`]) becomes readable, level-triggered, when there is something to receive, provided that the
/// receiver is armed: a new one is, and it is again after [`try_recv`](Self::try_recv) has returned `None`. So drain until
/// `None`; who stops earlier must not wait before going on. After `Disconnected` it stays readable: unregister it.
///
/// A receiver that is drained until `None` serves edge-triggered loops too. A loop that owns its source (calloop's `Generic`)
/// gets a duplicate (`as_fd().try_clone_to_owned()`), which is dropped with the registration.
///
/// ```
/// use sealane::Channel;
/// use std::time::Duration;
///
/// let (a, b) = Channel::pair()?;
/// let (mut sender, _) = a.split();
/// let (_, mut receiver) = b.split();
/// assert!(receiver.try_recv()?.is_none());
/// sender.send(b"hello")?;
/// assert_eq!(receiver.recv_timeout(Duration::from_secs(1))?.control(), b"hello");
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Receiver {
    link: Arc<Link>,
    consumer: Consumer,
    order: Order<HeldPacket>,
    epoch: Epoch,
    spinner: Spinner,
    /// Sequenced packets read.
    packets: u64,
    /// A value of the peer's `packets` word that turned out to announce nothing.
    vain_hint: u64,
    /// End of file was read: what is not in the ring now will never come.
    ended: bool,
    /// Came while a reply was awaited.
    kept: VecDeque<Message>,
    receipts: Receipts,
    limits: Limits,
    peer: Peer,
    watch: Watch,
    stats: Stats,
}

/// The half of a message that came as a packet.
#[derive(Debug)]
struct HeldPacket {
    extras: Box<Extras>,
    /// Descriptors that were announced, if some of them were lost to our own limit.
    lost: Option<usize>,
}

/// The message whose turn it is: its halves are here, and only have to be put together.
struct Due {
    heading: Heading,
    packet: Option<HeldPacket>,
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
pub(crate) enum Found {
    Message(Message),
    /// Nothing; armed, and the socket is empty: what comes from now on makes the descriptor readable anew.
    Nothing,
    /// Nothing among as many packets as one look reads; armed, but there may be more packets.
    More,
}

/// What one read of the socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Something,
    Nothing,
}

#[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
impl Receiver {
    pub(crate) fn new(
        intake: Arc<Intake>,
        words: OwnWords,
        limits: Limits,
        peer: Peer,
        spinner: Spinner,
    ) -> Self {
        let epoch = Epoch::new(words, Word::ReceiverEpoch);
        Self {
            link: Arc::clone(&intake.link),
            consumer: Consumer::new(intake),
            order: Order::new(),
            epoch,
            spinner,
            packets: 0,
            vain_hint: 0,
            ended: false,
            kept: VecDeque::new(),
            receipts: Receipts::default(),
            limits,
            watch: Watch::new(peer.shared_pidfd()),
            peer,
            stats: Stats::default(),
        }
    }

    /// Waits for the next message, as long as the peer lives.
    ///
    /// # Errors
    /// [`Error::Disconnected`] after everything has been delivered, [`Error::FdsLost`] in place of a message,
    /// [`Error::Protocol`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message> {
        self.receive(Deadline::Never)
    }

    /// Waits for the next message for at most `timeout`; with zero, looks once.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::TimeoutHolding`] if the peer could not send because of payloads that are held here;
    /// and those of [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message> {
        self.receive(Deadline::after(timeout))
    }

    #[inline(always)]
    fn receive(&mut self, deadline: Deadline) -> Result<Message> {
        if let Some(message) = self.take_kept() {
            return Ok(message);
        }
        self.receive_new(deadline)
    }

    /// The next message from ring and socket, whatever is kept.
    #[inline(always)]
    fn receive_new(&mut self, deadline: Deadline) -> Result<Message> {
        let mut waiting = Waiting { budget: Budget::until(deadline), since: None };
        loop {
            if self.should_rest() {
                self.consumer.let_more_be_published(deadline);
            }
            if let Some(record) = self.whole() {
                if waiting.since.is_some() {
                    self.waited();
                }
                return self.take_whole(record, waiting.since);
            }
            if let Some(due) = self.wait_for_message(deadline, &mut waiting)? {
                return self.assemble(due);
            }
        }
    }

    /// Whether it is time to let a peer that goes on get a lead. Who never spins does not rest either.
    #[inline(always)]
    fn should_rest(&self) -> bool {
        self.consumer.is_close() && self.spinner.may_spin()
    }

    /// The ring's next record, if it is all of the message whose turn it is, as nearly all are: [take](Self::take_whole) it.
    #[inline(always)]
    fn whole(&mut self) -> Option<Record> {
        // A fork takes the channel over first, with a look that is not as fast.
        if !self.link.is_ours_at_a_glance() {
            return None;
        }
        let record = self.consumer.ready()?;
        let whole = record.heading.in_reply_to().is_none() && self.order.is_alone(record.heading);
        whole.then_some(record)
    }

    #[inline(always)]
    fn take_whole(&mut self, record: Record, since: Option<Timespec>) -> Result<Message> {
        let extras = self.begin_whole(record)?;
        let payload = self.payload_of(record, since);
        Ok(Message::new(record.heading, self.link.id, extras, Some(payload)))
    }

    /// Counts a [whole](Self::whole) record as a message that is given out. What it has beside its payload.
    #[inline(always)]
    fn begin_whole(&mut self, record: Record) -> Result<Option<Box<Extras>>> {
        self.order.passed();
        self.epoch.disarm();
        if record.heading.wants_reply() {
            self.note_request(record.heading.sequence)?;
        }
        let extras = self.extras_of(record)?;
        self.account(record.bytes(), 0);
        Ok(extras)
    }

    #[inline]
    fn take_kept(&mut self) -> Option<Message> {
        if self.kept.is_empty() { None } else { self.kept.pop_front() }
    }

    /// Takes the next message if there is one; never blocks. `None` arms the descriptor. Finding nothing costs a system
    /// call; to spin, use [`recv`](Self::recv) with [`Wait::Spin`](crate::Wait::Spin).
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        match self.find()? {
            Found::Message(message) => Ok(Some(message)),
            Found::Nothing | Found::More => Ok(None),
        }
    }

    /// Waits for the next message, as [`recv`](Self::recv) does, and gives out those that are here, one by one: the leanest
    /// way to receive many small ones.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv). Where the next message would be an error the batch ends, and the next call tells.
    #[inline]
    pub fn recv_batch(&mut self) -> Result<Batch<'_>> {
        let first = self.recv()?;
        Ok(Batch::new(self, first, true))
    }

    /// As [`recv_batch`](Self::recv_batch) if there is a message; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv_batch(&mut self) -> Result<Option<Batch<'_>>> {
        Ok(self.try_recv()?.map(|first| Batch::new(self, first, false)))
    }

    /// The next message, if it is here.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Found> {
        match self.take_kept() {
            Some(message) => Ok(Found::Message(message)),
            None => self.find_new(),
        }
    }

    #[inline]
    fn find_new(&mut self) -> Result<Found> {
        match self.whole() {
            Some(record) => self.take_whole(record, None).map(Found::Message),
            None => self.search(),
        }
    }

    #[cold]
    fn search(&mut self) -> Result<Found> {
        self.consumer.intake().take_over()?;
        let mut budget = Budget::once();
        loop {
            self.link.check()?;
            if let Some(due) = self.look(&mut budget)? {
                return self.assemble(due).map(Found::Message);
            }
            if self.ended {
                return Err(self.end());
            }
            let was_armed = self.epoch.is_armed();
            self.epoch.arm();
            if !was_armed && self.consumer.head_moved() {
                continue;
            }
            // Only here: whatever the last packet was, we have armed since, and looked.
            if !budget.spend()? {
                return Ok(Found::More);
            }
            if self.read_packet()? == Read::Nothing {
                return Ok(Found::Nothing);
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
    fn wait_for_message(&mut self, deadline: Deadline, waiting: &mut Waiting) -> Result<Option<Due>> {
        self.consumer.intake().take_over()?;
        let result = self.spin_and_sleep(deadline, waiting).map_err(|error| self.explain(error));
        if !matches!(result, Ok(None)) {
            self.waited();
        }
        result
    }

    /// A wait is over, if there was one. What only seemed to be there does not end it: else a peer that shows it again and
    /// again would keep us awake.
    fn waited(&mut self) {
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
    }

    fn spin_and_sleep(
        &mut self,
        deadline: Deadline,
        Waiting { budget, since }: &mut Waiting,
    ) -> Result<Option<Due>> {
        loop {
            self.link.check()?;
            budget.spend()?;
            if let Some(due) = self.look(budget)? {
                return Ok(Some(due));
            }
            if self.ended {
                return Err(self.end());
            }
            // The peer's count of packets is a hint that spares a spin, no more: it may lie, or come never.
            let hint = self.consumer.packets();
            if hint != self.packets && hint != self.vain_hint {
                if self.read_announced()? == Read::Something {
                    continue;
                }
                self.vain_hint = hint;
                if deadline.passed() {
                    return Err(Error::Timeout);
                }
            }
            let (consumer, vain) = (&self.consumer, self.vain_hint);
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
                    if self.read_packet()? == Read::Nothing && self.watch.look().is_err() {
                        self.ended = true;
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
            if self.read_packet()? == Read::Something {
                continue;
            }
            if deadline.passed() {
                return Err(Error::Timeout);
            }
            count(&mut self.stats.sleeps, 1);
            let in_one_call = deadline == Deadline::Never && !self.watch.is_on();
            if !in_one_call || self.wait_for_packet()? == Read::Nothing {
                match self.watch.sleep([(self.link.socket.as_fd(), PollFlags::IN)], deadline, None) {
                    Ok(_) => {
                        self.read_packet()?;
                    }
                    // The peer was killed, and what it left has been looked at.
                    Err(Error::Disconnected) => self.ended = true,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whether there is a message whose turn it is. `None` too if the budget does not reach to it, and then there is something
    /// to be read in the socket.
    fn look(&mut self, budget: &mut Budget) -> Result<Option<Due>> {
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
                    let there = !self.ended && self.read_packet()? == Read::Something;
                    if !there || self.ended {
                        return Err(self.link.violated(self.order.missing(heading)));
                    }
                    continue;
                }
                Turn::Packet(heading, packet) => Due { heading, packet: Some(packet), record: None },
                Turn::Record(packet) => Due { heading: heading.unwrap_or_default(), packet, record },
            };
            self.epoch.disarm();
            match due.heading.in_reply_to() {
                Some(sequence) if !self.is_wanted(sequence)? => {
                    // What came as a packet has been paid for. What is in the ring is dropped even by a call whose budget is
                    // spent, as no descriptor tells of it; there is no more of it than `max_requests`.
                    let in_ring = due.record.is_some();
                    drop(self.put_together(due));
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
    fn assemble(&mut self, due: Due) -> Result<Message> {
        let heading = due.heading;
        let (extras, payload) = self.put_together(due)?;
        if heading.wants_reply() {
            self.note_request(heading.sequence)?;
        }
        let message = Message::new(heading, self.link.id, extras, payload);
        self.account(message.len(), message.fds().len());
        Ok(message)
    }

    /// Puts the halves of a message together.
    fn put_together(&mut self, due: Due) -> Result<(Option<Box<Extras>>, Option<Payload>)> {
        let Due { heading, packet, record } = due;
        let (mut extras, mut payload) = (None, None);
        if let Some(record) = record {
            if packet.is_some() && record.control_len > 0 {
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
        Payload::new(Arc::clone(intake), span, record.payload_len)
    }

    /// What a record has beside its payload.
    #[inline(always)]
    fn extras_of(&mut self, Record { payload_len, control_len, .. }: Record) -> Result<Option<Box<Extras>>> {
        if control_len == 0 { Ok(None) } else { self.control_of(payload_len, control_len).map(Some) }
    }

    /// UNTRUSTED: the length was checked against the ring; here, against our limit.
    fn control_of(&self, payload_len: u64, control_len: u32) -> Result<Box<Extras>> {
        let found = to_usize(control_len.into());
        let max = self.limits.max_control;
        if found > max {
            return Err(self.link.violated(ProtocolError::ControlLength { max, found }));
        }
        let control = AlignedBytes::copy(self.consumer.control(payload_len, control_len));
        Ok(Box::new(Extras { control, fds: ReceivedFds::default() }))
    }

    /// Takes note of a message that is given out now: of its bytes, and its descriptors.
    #[inline(always)]
    fn account(&mut self, bytes: usize, fds: usize) {
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

    /// Reads one packet, if there is one, and files it. End of file is `Something` too: look at the ring again.
    ///
    /// UNTRUSTED: what was read has been checked by itself (`Socket::receive`); here, against our limits.
    fn read_packet(&mut self) -> Result<Read> {
        let arrival = self.link.socket.receive(self.limits.max_control)?;
        self.file(arrival)
    }

    /// As [`read_packet`](Self::read_packet), a few times if need be: the peer's count of packets says that it is sending one.
    fn read_announced(&mut self) -> Result<Read> {
        for _ in 0..ANNOUNCED_READS {
            if self.read_packet()? == Read::Something {
                return Ok(Read::Something);
            }
        }
        Ok(Read::Nothing)
    }

    /// As [`read_packet`](Self::read_packet), but sleeps until there is one, if the socket lets us.
    fn wait_for_packet(&mut self) -> Result<Read> {
        let arrival = self.link.socket.wait(self.limits.max_control)?;
        self.file(arrival)
    }

    fn file(&mut self, arrival: Arrival) -> Result<Read> {
        match arrival {
            Arrival::Nothing => {
                self.epoch.drained();
                return Ok(Read::Nothing);
            }
            Arrival::End => self.ended = true,
            Arrival::Packet(packet) => {
                let filed = packet.and_then(|incoming| {
                    let bytes = incoming.bytes();
                    self.file_packet(incoming).map(|()| bytes)
                });
                let bytes = filed.map_err(|violation| self.link.violated(violation))?;
                self.epoch.passed(bytes, || self.link.socket.unread().ok());
            }
        }
        Ok(Read::Something)
    }

    fn file_packet(&mut self, incoming: ReceivedPacket) -> Result<(), ProtocolError> {
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
        let lost = incoming.fds_truncated.then_some(fd_count);
        let extras = Box::new(Extras { control: incoming.body, fds: incoming.fds });
        self.order.hold(incoming.packet.heading, HeldPacket { extras, lost })?;
        // A sender may be waiting for the room that this packet took.
        self.consumer.intake().announce_room();
        Ok(())
    }

    /// The payloads of this channel that have not been dropped, and so keep the peer from reusing their space.
    #[must_use]
    pub fn held(&self) -> Held {
        let (count, bytes) = self.consumer.held();
        let oldest = (count > 0).then(|| self.receipts.age(self.consumer.intake().tail()));
        Held { count, bytes, oldest }
    }

    /// Waits for the reply to `request`, and keeps what comes meanwhile.
    pub(crate) fn wait_reply(&mut self, request: RequestId, deadline: Deadline) -> Result<Message> {
        if let Some(reply) = self.kept_reply(request)? {
            return Ok(reply);
        }
        loop {
            if self.kept_too_much() {
                return Err(Error::Backlog);
            }
            match self.receive_new(deadline) {
                Ok(message) if message.in_reply_to() == Some(request) => return Ok(message),
                Ok(message) => self.keep(message),
                Err(error) => {
                    if error.is_timeout() {
                        self.give_up(request);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The reply to `request`, if it is here; keeps what came before.
    #[cfg(feature = "tokio")]
    pub(crate) fn find_reply(&mut self, request: RequestId) -> Result<Found> {
        if let Some(reply) = self.kept_reply(request)? {
            return Ok(Found::Message(reply));
        }
        loop {
            if self.kept_too_much() {
                return Err(Error::Backlog);
            }
            match self.find_new()? {
                Found::Message(message) if message.in_reply_to() != Some(request) => self.keep(message),
                found => return Ok(found),
            }
        }
    }

    /// The reply to `request` if it is kept; an error if it is neither kept nor still to come.
    fn kept_reply(&mut self, request: RequestId) -> Result<Option<Message>> {
        let at = self.kept.iter().position(|message| message.in_reply_to() == Some(request));
        if let Some(at) = at {
            return Ok(self.kept.remove(at));
        }
        let open = request.channel == self.link.id && self.link.requests.is_open(request.sequence);
        if open { Ok(None) } else { Err(Error::UnknownRequest) }
    }

    /// Says that nobody waits for the reply to `request` any more: if it comes it is dropped and counted. Does nothing if it
    /// was answered. The request counts against [`max_requests`](crate::Limits::max_requests) until its reply comes.
    pub fn give_up(&self, request: RequestId) {
        if request.channel == self.link.id {
            self.link.requests.give_up(request.sequence);
        }
    }

    fn kept_too_much(&self) -> bool {
        self.kept.len() >= KEPT_MESSAGES
            || self.kept.iter().map(|message| message.fds().len()).sum::<usize>() >= KEPT_FDS
            || self.kept.iter().map(Message::len).sum::<usize>() >= KEPT_BYTES
    }

    /// Keeps a message for `recv`. Its payload is copied out of the ring, as far as we keep bytes: the reply may need all
    /// of the ring.
    fn keep(&mut self, mut message: Message) {
        let kept: usize = self.kept.iter().map(Message::len).sum();
        if kept.saturating_add(message.len()) <= KEPT_BYTES {
            message.detach();
        }
        self.kept.push_back(message);
    }

    /// Who the peer is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What this half has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How large a message from the peer may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A handle to end the whole channel with, from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.link))
    }
}

/// Closes this direction only: the peer's sender learns of it, our sender goes on. A copy in a fork that has not used it
/// [closes nothing](crate#processes-as-they-are).
impl Drop for Receiver {
    fn drop(&mut self) {
        // A payload that lives on keeps the descriptors open, so closing would not tell the peer.
        self.link.close_receiving();
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.socket.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("next_sequence", &self.order.next())
            .field("ended", &self.ended)
            .field("kept", &self.kept.len())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
