//! Sending, apart from the ring's memory: numbers messages, puts them into ring and socket, wakes the peer.
//!
//! A [`Loan`](crate::channel::loan::Loan) borrows this beside the memory that it lends.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    channel::{
        control::Control,
        message::{ReplyToken, RequestId},
        space::{Block, Space, SpaceWaiter},
        stats::{Limits, count},
    },
    error::{Error, Result},
    protocol::{
        layout::{RecordSize, Word},
        packet::PacketHeader,
        record::{Heading, Record},
    },
    ring::{producer::Producer, release::Intake, writer::Frame},
    socket::{
        death::Watch,
        doorbell::{Bell, Rung},
        seqpacket::SendFailure,
    },
    sys::{own_region::OwnWords, peer_region::PeerRegion},
    wait::Spinner,
};

/// Within a batch the peer is woken for so many bytes: to write that many takes about as long as to wake it.
const NOTIFY_EVERY_BYTES: u64 = 256 << 10;

/// All of a sender but the writer of its ring, which a loan borrows beside it.
pub(crate) struct Outbox {
    pub(crate) space: SpaceWaiter,
    region: PeerRegion,
    words: OwnWords,
    bell: Bell,
    /// Several loans are sent one after the other, and the peer is woken when they are.
    batching: bool,
    /// Bytes that were published last, for which the peer has not been woken.
    unnotified: u64,
    /// Of the next message.
    pub(crate) sequence: u64,
    /// Sequenced packets sent.
    packets: u64,
    pub(crate) limits: Limits,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl Outbox {
    pub(crate) fn new(
        intake: Arc<Intake>,
        words: OwnWords,
        limits: Limits,
        spinner: Spinner,
        watch: Watch,
    ) -> Self {
        let region = intake.peer.clone();
        Self {
            space: SpaceWaiter::new(intake, words.clone(), spinner, watch),
            region,
            bell: Bell::new(Word::ReceiverEpoch),
            batching: false,
            unnotified: 0,
            words,
            sequence: 0,
            packets: 0,
            limits,
        }
    }

    #[cold]
    pub(crate) fn too_large(&self, len: usize) -> Error {
        Error::PayloadTooLarge { len, max: self.limits.max_payload }
    }

    /// Reserves the place of a record of `size` bytes, after waiting until it has room. [`Error::Full`] if the call must not
    /// block.
    #[inline]
    pub(crate) fn wait_for_space(
        &mut self,
        producer: &mut Producer,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        // For the bell, which has to wait for all that is stored until then.
        self.region.prefetch_word(Word::ReceiverEpoch);
        self.space.check()?;
        if producer.reserve_at_a_glance(size) {
            self.space.disarm(Space::Ring)
        } else {
            self.make_space(producer, size, block)
        }
    }

    #[cold]
    fn make_space(&mut self, producer: &mut Producer, size: RecordSize, block: Block) -> Result<()> {
        if self.space.has_space(producer, size)? {
            self.space.disarm(Space::Ring)?;
        } else {
            self.flush_notification();
            if producer.is_exhausted() {
                return Err(self.space.end());
            }
            self.space.wait_or_arm(producer, size, block)?;
        }
        producer.reserve(size).map_err(|violation| self.space.violated(violation))
    }

    /// From now on the peer is not woken, until [`end_batch`](Self::end_batch) or something has to wait. Says how it was.
    pub(crate) fn begin_batch(&mut self) -> bool {
        std::mem::replace(&mut self.batching, true)
    }

    /// Goes back to what [`begin_batch`](Self::begin_batch) said.
    pub(crate) fn end_batch(&mut self, before: bool) {
        self.batching = before;
        // A fork that has not used its copy rings no bell.
        if !before && self.space.link.is_ours() {
            self.flush_notification();
        }
    }

    /// Wakes the peer for what it has not been woken for.
    #[inline]
    fn flush_notification(&mut self) {
        if std::mem::take(&mut self.unnotified) > 0 {
            self.notify();
        }
    }

    /// Sends a message that is only a packet.
    pub(crate) fn send_control(
        &mut self,
        producer: &mut Producer,
        control: &Control<'_>,
        wants_reply: bool,
        block: Block,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        self.with_sequence(heading, |out| out.send_packet(producer, heading, control, block))?;
        count(&mut self.space.stats.bytes_sent, control.bytes.len());
        Ok(RequestId { channel: self.space.link.id, sequence: heading.sequence })
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
                if channel != self.space.link.id || !self.space.link.unanswered.contains(sequence) {
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
    fn with_sequence(&mut self, heading: Heading, send: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (request, max) = (heading.wants_reply(), self.limits.max_requests);
        if request && !self.space.link.requests.ask(heading.sequence, max) {
            return Err(Error::TooManyRequests { max });
        }
        // Before it is sent: as soon as the peer has the reply, its next request may come, even while we are here.
        let answered = heading.in_reply_to().inspect(|sequence| self.space.link.unanswered.remove(*sequence));
        if let Err(error) = send(self) {
            if request {
                self.space.link.requests.withdraw(heading.sequence);
            }
            if let Some(sequence) = answered {
                self.space.link.unanswered.restore(sequence);
            }
            return Err(error);
        }
        self.sequence = self.sequence.wrapping_add(1);
        count(&mut self.space.stats.messages_sent, 1);
        Ok(())
    }

    /// Sends a sequenced packet, or nothing.
    fn send_packet(
        &mut self,
        producer: &mut Producer,
        heading: Heading,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        // At most 253, by the limit.
        let fd_count = u32::try_from(control.fds.len()).unwrap_or(u32::MAX);
        let header = PacketHeader::control(heading, fd_count);
        self.space.check()?;
        // Only a hint for a receiver that spins, given a moment early: it finds the packet as soon as it is there. One that
        // sleeps is woken by the packet.
        self.words.word(Word::Packets).store(self.packets.wrapping_add(1), Relaxed);
        match self.space.link.socket.send(header, control.bytes, &control.fds) {
            Ok(()) => drop(self.space.disarm(Space::Socket)),
            Err(SendFailure::Full | SendFailure::FdsInFlight | SendFailure::NoMemory(_)) => {
                self.flush_notification();
                self.space.wait_to_send(producer, header, control, block)?;
            }
            Err(failure) => return Err(self.space.map_send_error(failure)),
        }
        self.packets = self.packets.wrapping_add(1);
        count(&mut self.space.stats.packets_sent, 1);
        count(&mut self.space.stats.fds_sent, control.fds.len());
        Ok(())
    }

    /// Sends a loan of which `len` bytes are filled, `frame` being what is to be written around them.
    ///
    /// The control bytes ride behind the payload if they fit there, as [`RESERVE`](crate::protocol::layout::RESERVE) of them
    /// always do, and no descriptors go along. Else they go first, as a packet. Only then is the record published: if the
    /// packet fails, nothing was sent.
    #[inline]
    pub(crate) fn commit(
        &mut self,
        mut frame: Frame<'_>,
        len: usize,
        control: &Control<'_>,
        wants_reply: bool,
        block: Block,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        match self.whole_record(&mut frame, Record::new(heading, len), control)? {
            Some(whole) => {
                self.with_sequence(heading, |out| out.space.check())?;
                self.publish(frame, whole, control.bytes);
            }
            None => self.commit_halved(frame, Record::new(heading.halved(), len), control, block)?,
        }
        count(&mut self.space.stats.bytes_sent, len.wrapping_add(control.bytes.len()));
        Ok(RequestId { channel: self.space.link.id, sequence: heading.sequence })
    }

    /// Sends the control bytes and descriptors as a packet, then publishes the payload's record.
    #[cold]
    fn commit_halved(
        &mut self,
        frame: Frame<'_>,
        record: Record,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        let heading = record.heading;
        self.with_sequence(heading, |out| out.send_packet(frame.producer, heading, control, block))?;
        self.publish(frame, record, &[]);
        Ok(())
    }

    /// The record that is all of the message, if what goes along can be in it.
    #[inline]
    fn whole_record(
        &mut self,
        frame: &mut Frame<'_>,
        record: Record,
        control: &Control<'_>,
    ) -> Result<Option<Record>> {
        if !control.fds.is_empty() {
            return Ok(None);
        }
        // The place was reserved for the payload in any case.
        if control.bytes.is_empty() {
            return Ok(Some(record));
        }
        let Some(record) = record.with_control(control.bytes.len()) else { return Ok(None) };
        let fits = frame.fits(record).map_err(|violation| self.space.violated(violation))?;
        Ok(fits.then_some(record))
    }

    /// Publishes a record, for which there is room, and wakes the peer.
    #[inline(always)]
    fn publish(&mut self, mut frame: Frame<'_>, record: Record, control: &[u8]) {
        frame.commit(record, control);
        self.unnotified = self.unnotified.wrapping_add(record.size().bytes());
        if !self.batching || self.unnotified >= NOTIFY_EVERY_BYTES {
            self.flush_notification();
        }
        if frame.producer.used() > self.space.stats.ring_high_water {
            self.space.stats.ring_high_water = frame.producer.high_water(self.space.stats.ring_high_water);
        }
    }

    /// Wakes the peer, if it sleeps, after a publication.
    #[inline]
    fn notify(&mut self) {
        match self.bell.ring(&self.region, &self.space.link.socket) {
            Rung::NoNeed => {}
            Rung::Sent => count(&mut self.space.stats.doorbells_sent, 1),
            // What was published is sent, whatever comes of it: the next call tells.
            Rung::Gone => self.space.peer_closed = true,
        }
    }
}
