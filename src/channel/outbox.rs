//! [`Outbox`]: the send path. It numbers messages, publishes records and packets, and wakes the peer.
//!
//! Refuses what exceeds the peer's limits before anything is sent. The ring's bytes and counters are the writer's, which a
//! [`Loan`](crate::channel::loan::Loan) borrows beside this.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    channel::{Block, Control, Limits, Numbering, RequestId, Space, SpaceWaiter, stats::count},
    error::{Error, Result},
    protocol::{MessageHeader, PacketHeader, Record, RecordSize, Word},
    ring::{Frame, Producer, Releases},
    socket::{death::Watch, doorbell::PeerHalf, seqpacket::SendFailure},
    sys::{own_region::ControlPage, peer_region::PeerRegion},
    wait::{Deadline, Notified, Notifier, Spinner},
};

/// Bytes of a batch after which the peer is notified: writing that much takes about as long as a wake-up.
const NOTIFY_EVERY_BYTES: u64 = 256 << 10;

/// The time at which the peer is notified of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    AtOnce,
    /// At the end of a batch. Requests and replies notify the peer at once even there, since somebody waits for them.
    Later,
}

/// The send path of a sender: everything but the writer of its ring.
pub(crate) struct Outbox {
    pub(crate) space: SpaceWaiter,
    region: PeerRegion,
    words: ControlPage,
    notifier: Notifier,
    /// The caller was told that there is space: its next loan does not pause.
    pub(crate) promised: bool,
    /// Bytes published since the peer was notified last.
    unnotified: u64,
    pub(crate) numbering: Numbering,
    /// The number of sequenced packets sent.
    packets: u64,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl Outbox {
    pub(crate) fn new(
        intake: Arc<Releases>,
        words: ControlPage,
        limits: Limits,
        spinner: Spinner,
        watch: Watch,
    ) -> Self {
        let region = intake.peer.clone();
        Self {
            space: SpaceWaiter::new(intake, words.clone(), spinner, watch),
            region,
            notifier: Notifier::default(),
            promised: false,
            unnotified: 0,
            words,
            numbering: Numbering::new(limits),
            packets: 0,
        }
    }

    #[cold]
    pub(crate) fn too_large(&self, len: usize) -> Error {
        Error::PayloadTooLarge { len, max: self.numbering.limits.max_payload }
    }

    /// Reserves the place of a record of `size` bytes, after waiting until there is space for it.
    ///
    /// # Errors
    /// [`Error::Full`] if the call must not block.
    #[inline]
    pub(crate) fn wait_for_space(
        &mut self,
        producer: &mut Producer,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        // The peer's epoch is read right after the fence in `Notifier::notify`.
        self.region.prefetch_word(Word::ReceiverEpoch);
        self.space.check()?;
        if producer.reserve_at_a_glance(size) {
            self.space.disarm(Space::Ring(size))
        } else {
            self.make_space(producer, size, block)
        }
    }

    #[cold]
    fn make_space(&mut self, producer: &mut Producer, size: RecordSize, block: Block) -> Result<()> {
        if self.space.has_space(producer, size)? {
            self.space.disarm(Space::Ring(size))?;
            let promised = std::mem::take(&mut self.promised);
            if let (Block::Until(deadline), false) = (block, promised) {
                self.pace(producer, size, deadline)?;
            }
        } else {
            self.flush_notification();
            if producer.is_exhausted() {
                return Err(self.space.end());
            }
            self.space.wait_for_ring(producer, size, block)?;
        }
        producer.reserve(size).map_err(|violation| self.space.violated(violation))
    }

    /// Lets a peer that is awake catch up, if more is in flight than caches hold.
    fn pace(&mut self, producer: &mut Producer, size: RecordSize, deadline: Deadline) -> Result<()> {
        let sleeps = self.region.load(Word::ReceiverEpoch) & 1 == 1;
        if sleeps || !self.space.may_spin() || !producer.should_pace(size) {
            return Ok(());
        }
        // The peer reads what it knows of.
        self.flush_notification();
        producer.pace(size, deadline).map_err(|violation| self.space.violated(violation))
    }

    /// Notifies the peer of everything published since the last time.
    #[inline]
    pub(crate) fn flush_notification(&mut self) {
        if std::mem::take(&mut self.unnotified) > 0 {
            self.notify();
        }
    }

    /// Sends a message without a payload, as a packet.
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

    #[inline]
    fn heading(&self, control: &Control<'_>, wants_reply: bool) -> Result<MessageHeader> {
        self.numbering.heading(&self.space.link, control, wants_reply)
    }

    /// Gives the message its number if `send` succeeds.
    #[inline(always)]
    fn with_sequence(
        &mut self,
        heading: MessageHeader,
        send: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.numbering.begin(&self.space.link, heading)?;
        let result = send(self);
        self.numbering.end(&self.space.link, heading, result.is_ok());
        if result.is_ok() {
            count(&mut self.space.stats.messages_sent, 1);
        }
        result
    }

    /// Sends a sequenced packet, whole or not at all.
    fn send_packet(
        &mut self,
        producer: &mut Producer,
        heading: MessageHeader,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        // At most 253, by the limit.
        let fd_count = u32::try_from(control.fds.len()).unwrap_or(u32::MAX);
        let header = PacketHeader::control(heading, fd_count);
        self.space.check()?;
        // A hint for a receiver that spins, stored early so that it finds the packet at once. A receiver that sleeps is woken by
        // the packet itself.
        self.words.word(Word::Packets).store(self.packets.wrapping_add(1), Relaxed);
        self.words.word(Word::Messages).store(heading.sequence.wrapping_add(1), Relaxed);
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

    /// Sends a loan of which `len` bytes are filled. `frame` writes the header and control bytes around them.
    ///
    /// The control bytes ride behind the payload if they fit there, as [`RESERVE`](crate::protocol::layout::RESERVE) of them
    /// always do, and no descriptors go along. Else they go first, as a packet. Only then is the record published: if the
    /// packet fails, nothing was sent.
    #[inline(always)]
    pub(crate) fn commit(
        &mut self,
        mut frame: Frame<'_>,
        len: usize,
        control: &Control<'_>,
        wants_reply: bool,
        block: Block,
        wake: Wake,
    ) -> Result<RequestId> {
        let heading = self.heading(control, wants_reply)?;
        match self.whole_record(&mut frame, Record::new(heading, len), control)? {
            Some(whole) => {
                self.with_sequence(heading, |out| out.space.check())?;
                self.publish(frame, whole, control.bytes);
            }
            None => self.commit_halved(frame, Record::new(heading.split(), len), control, block)?,
        }
        let later = wake == Wake::Later && !heading.wants_reply() && heading.in_reply_to().is_none();
        if !later || self.unnotified >= NOTIFY_EVERY_BYTES {
            self.flush_notification();
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

    /// The record that is the whole message, if the control bytes fit into it and there are no descriptors.
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

    /// Publishes a record, for which there is room.
    #[inline(always)]
    fn publish(&mut self, mut frame: Frame<'_>, record: Record, control: &[u8]) {
        frame.commit(record, control);
        self.unnotified = self.unnotified.wrapping_add(record.size().bytes());
        if frame.producer.used() > self.space.stats.ring_high_water {
            self.space.stats.ring_high_water = frame.producer.high_water(self.space.stats.ring_high_water);
        }
    }

    /// Wakes the peer's receiver, if it sleeps, after a publication.
    #[inline]
    fn notify(&mut self) {
        let receiver = PeerHalf {
            region: &self.region,
            word: Word::ReceiverEpoch,
            socket: &self.space.link.socket,
            released: None,
        };
        match self.notifier.notify(&receiver) {
            // Only subscribers of a publisher sleep on a futex: a peer that says so waits in vain.
            Notified::NoNeed | Notified::OnFutex => {}
            Notified::Sent => count(&mut self.space.stats.doorbells_sent, 1),
            // The message was published and counts as sent; the next call reports the end.
            Notified::Gone => self.space.peer_closed = true,
        }
    }
}
