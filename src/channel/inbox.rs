//! [`Inbox`]: the receive path. It takes messages out of ring and socket, in their one order. Its submodules read packets
//! and wait.
//!
//! Owns the reader of the peer's ring, the order of messages, the receiver's sleep word and its counts. Refuses halves that
//! do not fit, and messages beyond our limits.

mod packets;
mod wait;

use std::sync::Arc;

use rustix::time::Timespec;

use crate::{
    channel::{
        Attachments, DeliveryTimes, Held, Limits, Message, Payload, Stats, ages::coarse_now, stats::count,
    },
    error::{Error, ProtocolError, Result},
    memory::aligned_bytes::AlignedBytes,
    protocol::{Asked, MessageHeader, Next, Record, Sequencer, Word},
    ring::{Consumer, Releases},
    socket::{death::Watch, doorbell::ControlWord, link::Link},
    sys::own_region::ControlPage,
    wait::{Budget, Deadline, News, Outcome, SleepWord, Spinner, WaitState},
};

/// The receive path of a receiver: everything but its backlog.
pub(crate) struct Inbox {
    pub(crate) link: Arc<Link>,
    pub(crate) consumer: Consumer,
    /// Packets wait here for their turn, and for their records.
    pub(super) order: Sequencer<Box<Attachments>>,
    word: SleepWord<ControlWord>,
    spinner: Spinner,
    /// The number of sequenced packets read.
    packets: u64,
    /// The last value of the peer's `packets` word for which no packet arrived. It announces nothing any more.
    stale_packet_count: u64,
    /// End of file was read: no message comes but those that are in the ring.
    pub(crate) eof: bool,
    pub(crate) receipts: DeliveryTimes,
    pub(crate) limits: Limits,
    watch: Watch,
    pub(crate) stats: Stats,
}

/// The next message, both halves of which are here.
struct NextMessage {
    heading: MessageHeader,
    packet: Option<Box<Attachments>>,
    /// The next record of the ring, if it is part of the message.
    record: Option<Record>,
}

#[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
impl Inbox {
    pub(crate) fn new(
        intake: Arc<Releases>,
        words: ControlPage,
        limits: Limits,
        watch: Watch,
        spinner: Spinner,
    ) -> Self {
        Self {
            link: Arc::clone(&intake.link),
            consumer: Consumer::new(intake),
            order: Sequencer::new(),
            word: SleepWord::new(ControlWord::new(words, Word::ReceiverEpoch)),
            spinner,
            packets: 0,
            stale_packet_count: 0,
            eof: false,
            receipts: DeliveryTimes::default(),
            limits,
            watch,
            stats: Stats::default(),
        }
    }

    /// Waits for the next message from ring and socket.
    #[inline(always)]
    pub(crate) fn receive(&mut self, deadline: Deadline) -> Result<Message> {
        let (mut state, mut budget) = (WaitState::blocking(News::Message), Budget::until(deadline));
        let mut spin_start = None;
        loop {
            if self.should_rest() {
                self.consumer.back_off(deadline);
            }
            if let Some(record) = self.try_inline() {
                if spin_start.is_some() {
                    self.end_wait();
                }
                return self.finish_inline(record, spin_start);
            }
            if self.consumer.passes_padding() {
                continue;
            }
            if let Some(next) = self.wait_for_message(&mut state, &mut budget, &mut spin_start)? {
                return self.assemble(next);
            }
        }
    }

    /// True if the receiver should pause so that the sender gets ahead. Never in `Wait::Block`.
    #[inline(always)]
    pub(crate) fn should_rest(&self) -> bool {
        self.consumer.is_close() && self.spinner.may_spin()
    }

    /// The next record, if it is the whole next message, as nearly all are. [`finish_inline`](Self::finish_inline) takes it.
    #[inline(always)]
    pub(crate) fn try_inline(&mut self) -> Option<Record> {
        // A fork takes the channel over first, on the slow path.
        if !self.link.is_ours_at_a_glance() {
            return None;
        }
        let record = self.consumer.try_next()?;
        let whole = record.heading.in_reply_to().is_none() && self.order.is_next_inline(record.heading);
        whole.then_some(record)
    }

    #[inline(always)]
    fn finish_inline(&mut self, record: Record, since: Option<Timespec>) -> Result<Message> {
        let extras = self.begin_inline(record)?;
        let payload = self.payload_of(record, since);
        Ok(Message::new(record.heading, self.link.id, extras, Some(payload)))
    }

    /// Counts a record from [`try_inline`](Self::try_inline) as a received message, and returns its control bytes.
    #[inline(always)]
    pub(crate) fn begin_inline(&mut self, record: Record) -> Result<Option<Box<Attachments>>> {
        self.order.advance();
        self.word.disarm();
        if record.heading.wants_reply() {
            self.note_request(record.heading.sequence)?;
        }
        let extras = self.extras_of(record)?;
        self.record_stats(record.bytes(), 0);
        Ok(extras)
    }

    /// Receives without blocking. Where there is no message the descriptor is armed.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Outcome<Message>> {
        match self.try_inline() {
            Some(record) => self.finish_inline(record, None).map(Outcome::Done),
            None => self.try_slow(),
        }
    }

    /// Receives at most one packet, and the message that it is, of a peer without a ring. Arms nothing: such a peer only sends
    /// packets, which make the descriptor readable by themselves.
    pub(crate) fn receive_packet(&mut self) -> Result<Outcome<Message>> {
        self.link.check()?;
        let was_there = !self.eof && self.read_packet()?;
        match self.poll(&mut Budget::once())? {
            Some(next) => self.assemble(next).map(Outcome::Done),
            None if self.eof => Err(self.end()),
            None => Ok(if was_there { Outcome::Spent } else { Outcome::Empty }),
        }
    }

    /// Ends the current wait.
    fn end_wait(&mut self) {
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
    }

    /// The next message, if it is here. `None` also if the budget is spent before; then the socket has more to read.
    fn poll(&mut self, budget: &mut Budget) -> Result<Option<NextMessage>> {
        loop {
            let record = match self.consumer.next() {
                Ok(record) => record,
                Err(violation) => return Err(self.link.violated(violation)),
            };
            let heading = record.map(|record| record.heading);
            let next = match self.order.next(heading).map_err(|violation| self.link.violated(violation))? {
                Next::Nothing => return Ok(None),
                Next::NeedPacket => {
                    if !budget.spend()? {
                        return Ok(None);
                    }
                    let there = !self.eof && self.read_packet()?;
                    if !there || self.eof {
                        return Err(self.link.violated(self.order.missing(heading)));
                    }
                    continue;
                }
                Next::Packet(heading, packet) => NextMessage { heading, packet: Some(packet), record: None },
                Next::Record(packet) => NextMessage { heading: heading.unwrap_or_default(), packet, record },
            };
            self.word.disarm();
            match next.heading.in_reply_to() {
                Some(sequence) if !self.is_wanted(sequence)? => {
                    // A packet was paid for when it was read. A record is dropped even if the budget is spent, as no descriptor
                    // signals it; there are at most `max_requests` of these.
                    let in_ring = next.record.is_some();
                    drop(self.join(next));
                    if in_ring {
                        budget.spend()?;
                    }
                }
                _ => return Ok(Some(next)),
            }
        }
    }

    /// Whether the reply to this request of ours is still expected.
    fn is_wanted(&mut self, sequence: u64) -> Result<bool> {
        match self.link.requests.answer(sequence) {
            Some(Asked::Open) => Ok(true),
            Some(Asked::Cancelled) => {
                count(&mut self.stats.late_replies, 1);
                Ok(false)
            }
            None => Err(self.link.violated(ProtocolError::UnaskedReply { sequence })),
        }
    }

    #[inline(always)]
    fn assemble(&mut self, next: NextMessage) -> Result<Message> {
        let heading = next.heading;
        let (extras, payload) = self.join(next)?;
        if heading.wants_reply() {
            self.note_request(heading.sequence)?;
        }
        let message = Message::new(heading, self.link.id, extras, payload);
        self.record_stats(message.len(), message.fds().len());
        Ok(message)
    }

    /// Joins the halves of a message.
    fn join(&mut self, next: NextMessage) -> Result<(Option<Box<Attachments>>, Option<Payload>)> {
        let NextMessage { heading, packet, record } = next;
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
                return Err(Error::FdsLost { expected, received: packet.fds.len() });
            }
            extras = Some(packet);
        }
        Ok((extras, payload))
    }

    /// Takes the next record, and gives its payload. `since` is its delivery time, if the clock was read while waiting for it.
    #[inline(always)]
    fn payload_of(&mut self, record: Record, since: Option<Timespec>) -> Payload {
        let span = self.consumer.advance(record);
        let intake = self.consumer.intake();
        self.receipts.note(span, since.unwrap_or_else(coarse_now), || intake.tail());
        Payload::new(Arc::clone(intake), span, record.payload_len())
    }

    /// The control bytes of a record, if it has some.
    #[inline(always)]
    fn extras_of(&mut self, record: Record) -> Result<Option<Box<Attachments>>> {
        if record.control_len() == 0 { Ok(None) } else { self.control_of(record).map(Some) }
    }

    /// UNTRUSTED: the ring's reader compared the length with the ring; this compares it with our limit.
    fn control_of(&self, record: Record) -> Result<Box<Attachments>> {
        let found = record.control_len();
        let max = self.limits.max_control;
        if found > max {
            return Err(self.link.violated(ProtocolError::ControlLength { max, found }));
        }
        let control = AlignedBytes::copy(self.consumer.control(record));
        Ok(Box::new(Attachments::control(control)))
    }

    /// Counts a message that is received, with its bytes and descriptors.
    #[inline(always)]
    fn record_stats(&mut self, bytes: usize, fds: usize) {
        count(&mut self.stats.messages_received, 1);
        count(&mut self.stats.bytes_received, bytes);
        count(&mut self.stats.fds_received, fds);
    }

    /// UNTRUSTED: at most `max_requests` requests may be unanswered. The peer counts a request from before it sends it until it
    /// has read our reply; we count it from here until just before we reply, which is never longer.
    #[inline(never)]
    fn note_request(&self, sequence: u64) -> Result<()> {
        let max = self.limits.max_requests;
        if self.link.unanswered.note(sequence, max) {
            Ok(())
        } else {
            Err(self.link.violated(ProtocolError::Requests { max }))
        }
    }

    /// The payloads of this channel that have not been dropped, and so keep the peer from reusing their space.
    pub(crate) fn held(&self) -> Held {
        let (count, bytes) = self.consumer.held();
        let oldest = (count > 0).then(|| self.receipts.age(self.consumer.intake().tail()));
        Held { count, bytes, oldest }
    }
}
