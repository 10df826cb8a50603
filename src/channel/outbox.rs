//! Sending, apart from the ring's memory: numbers messages, puts them into ring and socket, wakes the peer.
//!
//! A [`Loan`](crate::channel::loan::Loan) borrows this beside the memory that it lends.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    channel::{
        control::Control,
        interest::Space,
        message::{ReplyToken, RequestId},
        space::{Block, SpaceWaiter},
        stats::{Limits, count},
    },
    error::{Error, Result},
    protocol::{
        layout::{LINE, Word, padded, record_size, to_u64, to_usize},
        packet::{Heading, PacketHeader, Record, RecordHeader},
    },
    ring::{consumer::Intake, producer::Producer},
    socket::{death::Watch, doorbell::PeerHalf, seqpacket::SendFailure},
    sys::mapping::{OwnWords, PeerRegion, RingWriter},
    wait::{Notified, Notifier, Spinner},
};

/// Within a batch the peer is woken for so many bytes: to write that many takes about as long as to wake it.
const NOTIFY_EVERY_BYTES: u64 = 256 << 10;

/// All of a sender but the ring's memory, which a loan borrows beside it.
pub(crate) struct Outbox {
    pub(crate) space: SpaceWaiter,
    pub(crate) producer: Producer,
    region: PeerRegion,
    words: OwnWords,
    notifier: Notifier,
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

impl Outbox {
    pub(crate) fn new(
        intake: Arc<Intake>,
        capacity: usize,
        words: OwnWords,
        limits: Limits,
        spinner: Spinner,
        watch: Watch,
    ) -> Self {
        let region = intake.peer.clone();
        Self {
            space: SpaceWaiter::new(intake, words.clone(), spinner, watch),
            producer: Producer::new(words.clone(), region.clone(), capacity),
            region,
            notifier: Notifier::default(),
            batching: false,
            unnotified: 0,
            words,
            sequence: 0,
            packets: 0,
            limits,
        }
    }

    /// Bytes that a record with a payload of `len` takes; an error if no ring of this size ever has them.
    #[inline]
    pub(crate) fn record_size(&self, len: usize) -> Result<u64> {
        let max = self.limits.max_payload;
        match record_size(to_u64(len), 0) {
            Some(size) if size <= self.producer.capacity() => Ok(size),
            _ => Err(Error::PayloadTooLarge { len, max }),
        }
    }

    /// Where a record of `size` bytes, for which there is room, begins.
    #[inline]
    pub(crate) fn place(&mut self, size: u64) -> Result<u64> {
        self.producer.place(size).map_err(|violation| self.space.violated(violation))?;
        Ok(self.producer.head())
    }

    /// Waits until a record of `size` bytes has room. [`Error::Full`] if the call must not block.
    #[inline]
    pub(crate) fn wait_for_space(&mut self, size: u64, block: Block) -> Result<()> {
        // For the bell, which has to wait for all that is stored until then.
        self.region.expect_word(Word::ReceiverEpoch);
        self.space.check()?;
        if self.space.has_space(&mut self.producer, size)? {
            return self.space.disarm(Space::Ring(size));
        }
        self.flush_notification();
        self.space.wait_for_ring(&mut self.producer, size, block)
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
        control: &Control<'_>,
        wants_reply: bool,
        block: Block,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        self.with_sequence(heading, |out| out.send_packet(heading, control, block))?;
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
    fn send_packet(&mut self, heading: Heading, control: &Control<'_>, block: Block) -> Result<()> {
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
                self.space.wait_to_send(&mut self.producer, header, control, block)?;
            }
            Err(failure) => return Err(self.space.map_send_error(failure)),
        }
        self.packets = self.packets.wrapping_add(1);
        count(&mut self.space.stats.packets_sent, 1);
        count(&mut self.space.stats.fds_sent, control.fds.len());
        Ok(())
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
        block: Block,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        let payload_len = to_u64(payload_len);
        if self.rides(payload_len, control)? {
            self.with_sequence(heading, |out| out.space.check())?;
            self.put(ring, heading, payload_len, control.bytes);
        } else {
            let heading = heading.halved();
            self.with_sequence(heading, |out| out.send_packet(heading, control, block))?;
            self.put(ring, heading, payload_len, &[]);
        }
        count(&mut self.space.stats.bytes_sent, to_usize(payload_len).wrapping_add(control.bytes.len()));
        Ok(RequestId { channel: self.space.link.id, sequence: heading.sequence })
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
            Some(size) => {
                let size = size.saturating_add(self.producer.padding());
                self.space.has_space(&mut self.producer, size)
            }
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
        self.unnotified = self.unnotified.wrapping_add(size);
        if !self.batching || self.unnotified >= NOTIFY_EVERY_BYTES {
            self.flush_notification();
        }
        if self.producer.used() > self.space.stats.ring_high_water {
            self.space.stats.ring_high_water = self.producer.high_water(self.space.stats.ring_high_water);
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
    fn notify(&mut self) {
        let receiver =
            PeerHalf { region: &self.region, word: Word::ReceiverEpoch, socket: &self.space.link.socket };
        match self.notifier.notify(&receiver) {
            Notified::NoNeed => {}
            Notified::Sent => count(&mut self.space.stats.doorbells_sent, 1),
            // What was published is sent, whatever comes of it: the next call tells.
            Notified::Gone => self.space.peer_closed = true,
        }
    }
}
