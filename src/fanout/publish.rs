//! Publishing: a message becomes one record of the ring, for all subscribers; its descriptors go to each as a packet before.

use crate::{
    channel::{Block, Control, Wake, stats::count},
    error::{Error, Result},
    fanout::{
        gates::Gates,
        lanes::{Lanes, Newest},
    },
    protocol::{MessageHeader, PublishedRecord, Record, RecordSize, to_u64},
    ring::{Frame, Writer},
};

/// Bytes of a batch after which the subscribers are notified: writing that much takes about as long as a wake-up.
const NOTIFY_EVERY_BYTES: u64 = 256 << 10;

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl Lanes {
    /// Whether a message may be published at all.
    fn check(&self, control: &Control<'_>) -> Result<()> {
        self.limits.check(control)?;
        // Replies are for one subscriber: `Publisher::reply`.
        if control.in_reply_to.is_some() { Err(Error::UnknownRequest) } else { Ok(()) }
    }

    fn record(&self, payload_len: usize, control: &Control<'_>) -> Result<Record> {
        let heading = MessageHeader::new(self.sequence, false, None);
        let too_large = || Error::ControlTooLarge { len: control.bytes.len(), max: self.limits.max_control };
        Record::new(heading, payload_len).with_control(control.bytes.len()).ok_or_else(too_large)
    }

    /// Publishes a message without a payload.
    pub(super) fn send(
        &mut self,
        writer: &mut Writer<Gates>,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        self.check(control)?;
        let record = self.record(0, control)?;
        self.check_size(writer.capacity(), record, control)?;
        self.reserve(&mut writer.producer, record.size(), block)?;
        // No bytes are lent, so that this takes the place which was just reserved.
        let Some(mut reservation) = writer.lend::<u8>(0) else {
            return Err(Error::PayloadTooLarge { len: 0, max: 0 });
        };
        self.finish(reservation.frame(), record, false, control, block, Wake::AtOnce)
    }

    /// Publishes a loan of which `len` bytes are filled. `frame` writes the header and control bytes around them.
    #[inline(always)]
    pub(super) fn commit(
        &mut self,
        mut frame: Frame<'_, Gates>,
        len: usize,
        control: &Control<'_>,
        block: Block,
        wake: Wake,
    ) -> Result<()> {
        let mut record = Record::new(MessageHeader::new(self.sequence, false, None), len);
        if !control.bytes.is_empty() || !control.fds.is_empty() || control.in_reply_to.is_some() {
            self.check(control)?;
            record = self.record(len, control)?;
            self.make_room_for_control(&mut frame, record, len, control, block)?;
        }
        self.finish(frame, record, true, control, block, wake)
    }

    /// Makes room for control bytes that are more than was reserved with the loan.
    fn make_room_for_control(
        &mut self,
        frame: &mut Frame<'_, Gates>,
        record: Record,
        len: usize,
        control: &Control<'_>,
        block: Block,
    ) -> Result<()> {
        self.check_size(frame.capacity(), record, control)?;
        if !frame.fits(record)? {
            let before = frame.place();
            self.make_room(frame.producer, record.size(), block)?;
            frame.move_payload(before, len);
        }
        Ok(())
    }

    /// A record is at most half of the ring, as in a channel: then it always fits in the end, wherever it stands.
    fn check_size(&self, capacity: usize, record: Record, control: &Control<'_>) -> Result<()> {
        let half = to_u64(capacity) / 2;
        if record.size().bytes() <= half {
            return Ok(());
        }
        let rest = half.saturating_sub(RecordSize::of_payload(record.payload_len()).bytes());
        let max = self.limits.max_control.min(crate::protocol::to_usize(rest));
        Err(Error::ControlTooLarge { len: control.bytes.len(), max })
    }

    /// Sends the descriptors, then publishes the record.
    #[inline(always)]
    fn finish(
        &mut self,
        mut frame: Frame<'_, Gates>,
        record: Record,
        has_payload: bool,
        control: &Control<'_>,
        block: Block,
        wake: Wake,
    ) -> Result<()> {
        let attempt = if control.fds.is_empty() || self.list.is_empty() {
            0
        } else {
            self.send_fds(frame.producer, control, block)?
        };
        let start = frame.producer.next_start();
        let published = PublishedRecord { record, has_payload, attempt, source: self.source };
        frame.publish(published, control.bytes);
        if !control.fds.is_empty() {
            // A latecomer was not sent the descriptors, and begins behind them.
            self.newest = None;
        } else if has_payload {
            self.newest = Some(Newest { start, sequence: self.sequence, lost: self.source.lost });
        }
        self.sequence = self.sequence.wrapping_add(1);
        count(&mut self.stats.messages_sent, 1);
        count(&mut self.stats.bytes_sent, record.bytes());
        if frame.producer.used() > self.stats.ring_high_water {
            self.stats.ring_high_water = frame.producer.high_water(self.stats.ring_high_water);
        }
        self.unnotified = self.unnotified.wrapping_add(record.size().bytes());
        if wake == Wake::AtOnce || self.unnotified >= NOTIFY_EVERY_BYTES {
            self.flush();
        }
        Ok(())
    }
}
