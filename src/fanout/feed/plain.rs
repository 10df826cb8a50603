//! The quick way of most messages: a payload with its control bytes, before which nothing was missed, taken on the frame of the
//! caller.

use std::sync::Arc;

use super::{Feed, Wanted};
use crate::{
    channel::{Attachments, Message, Payload, stats::count},
    error::{Error, Result},
    fanout::ticks,
    memory::aligned_bytes::AlignedBytes,
    protocol::{Record, to_usize},
};

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
impl Feed {
    /// The next record, if it is the whole next message, left where it lies, with nothing to be told along with it: as nearly all
    /// payloads are. [`finish_plain`](Self::finish_plain) takes it. Any other message is left to [`poll`](Self::poll).
    #[inline(always)]
    pub(super) fn try_plain(&mut self, wanted: Wanted) -> Option<Record> {
        let is_waited_for = self.follower.is_waited_for();
        let stays = match wanted {
            Wanted::Next => is_waited_for,
            Wanted::InPlace => true,
            Wanted::Latest => false,
        };
        let record = if stays { self.next_plain(wanted) } else { None }?;
        // Control bytes that may be overwritten are for the slow path.
        (record.control_len() == 0 || is_waited_for).then_some(record)
    }

    /// The next record, if it is the whole next message.
    #[inline(always)]
    fn next_plain(&mut self, wanted: Wanted) -> Option<Record> {
        // A fork takes the subscription over first, on the slow path.
        let may = (wanted == Wanted::InPlace || self.replies.is_empty())
            && self.missed_since | self.source.epoch | self.source.offset == 0
            && self.link.is_ours_at_a_glance();
        let record = if may { self.follower.try_plain(self.sequence, self.source.lost) } else { None }?;
        (record.control_len() <= self.limits.max_control).then_some(record)
    }

    /// Takes a record from [`try_plain`](Self::try_plain).
    #[inline(always)]
    pub(super) fn finish_plain(&mut self, record: Record) -> Result<Message> {
        let extras = if record.control_len() == 0 { None } else { Some(self.control_of(record)?) };
        self.note_plain(record);
        let span = self.follower.advance(record);
        let payload = Payload::new(Arc::clone(self.follower.intake()), span, record.payload_len());
        Ok(Message::new(record.heading, self.link.id, extras, Some(payload)))
    }

    /// The control bytes of a record, for a subscriber that is waited for.
    #[inline(never)]
    fn control_of(&self, record: Record) -> Result<Box<Attachments>> {
        self.copy_control(record).ok_or(Error::TooSlow)
    }

    /// The next message as a copy, for a subscriber that may be overrun. Any other message, and one that was overwritten meanwhile,
    /// is left to [`poll`](Self::poll).
    pub(super) fn try_copied(&mut self, wanted: Wanted) -> Option<Message> {
        if wanted != Wanted::Next || self.follower.is_waited_for() {
            return None;
        }
        let record = self.next_plain(wanted)?;
        let extras = if record.control_len() == 0 { None } else { Some(self.copy_control(record)?) };
        let payload = self.copy_payload(record)?;
        self.note_plain(record);
        Some(Message::new(record.heading, self.link.id, extras, Some(payload)))
    }

    /// Notes a message before which nothing was missed.
    #[inline(always)]
    fn note_plain(&mut self, record: Record) {
        self.word.disarm();
        self.sequence = self.sequence.wrapping_add(1);
        count(&mut self.stats.messages_received, 1);
        count(&mut self.stats.bytes_received, record.bytes());
        let is_large = record.bytes() >= to_usize(ticks::LARGE);
        if is_large || self.stats.messages_received.is_multiple_of(ticks::MESSAGES) {
            self.look_for_end();
        }
    }

    /// A copy of a record's control bytes, if they were not overwritten meanwhile.
    fn copy_control(&self, record: Record) -> Option<Box<Attachments>> {
        let control = AlignedBytes::copy(self.follower.control(record));
        self.follower.is_whole().then(|| Box::new(Attachments::control(control)))
    }

    /// A copy of a record's payload, if it was not overwritten meanwhile. Then the record is passed.
    pub(super) fn copy_payload(&mut self, record: Record) -> Option<Payload> {
        let copy = self.follower.payload(record).to_vec()?;
        if !self.follower.is_whole() {
            return None;
        }
        self.follower.pass(record);
        Some(Payload::private(copy))
    }
}
