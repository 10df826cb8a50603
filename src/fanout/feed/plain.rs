//! The quick way of most messages: a payload and nothing else, taken on the frame of the caller.

use std::sync::Arc;

use super::{Feed, Wanted};
use crate::{
    channel::{Message, Payload, stats::count},
    protocol::Record,
};

impl Feed {
    /// The next record, if it is the whole next message, left where it lies, with nothing to be told along with it: as nearly all
    /// payloads are. [`finish_plain`](Self::finish_plain) takes it. Any other message is left to [`poll`](Self::poll).
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
    pub(super) fn try_plain(&mut self, wanted: Wanted) -> Option<Record> {
        let in_place = match wanted {
            Wanted::Next => self.follower.is_waited_for() && self.replies.is_empty(),
            Wanted::InPlace => true,
            Wanted::Latest => false,
        };
        // A fork takes the subscription over first, on the slow path.
        let may = in_place && self.missed_since | self.source.epoch == 0 && self.link.is_ours_at_a_glance();
        if may { self.follower.try_plain(self.sequence, self.source.lost) } else { None }
    }

    /// Takes a record from [`try_plain`](Self::try_plain).
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
    pub(super) fn finish_plain(&mut self, record: Record) -> Message {
        self.word.disarm();
        let span = self.follower.advance(record);
        let payload = Payload::new(Arc::clone(self.follower.intake()), span, record.payload_len());
        self.sequence = self.sequence.wrapping_add(1);
        count(&mut self.stats.messages_received, 1);
        count(&mut self.stats.bytes_received, record.payload_len());
        Message::new(record.heading, self.link.id, None, Some(payload))
    }
}
