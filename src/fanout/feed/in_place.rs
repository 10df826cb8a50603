//! Messages that are read where they lie, and judged afterwards.

use super::{Feed, Wanted};
use crate::{
    channel::{Message, Payload},
    error::{Error, Result},
    fanout::Published,
    wait::Deadline,
};

impl Feed {
    /// Waits for the next published message, and reads it where it lies. `None` if it was overwritten meanwhile.
    #[inline]
    pub(in crate::fanout) fn receive_with<R>(
        &mut self,
        deadline: Deadline,
        read: impl FnOnce(&Published<'_>) -> R,
    ) -> Result<Option<R>> {
        let message = self.receive(Wanted::InPlace, deadline)?;
        self.read_in_place(&message, read)
    }

    /// Reads a message where it lies. `None` if it was overwritten meanwhile.
    pub(in crate::fanout) fn read_in_place<R>(
        &mut self,
        message: &Message,
        read: impl FnOnce(&Published<'_>) -> R,
    ) -> Result<Option<R>> {
        let result = read(&Published::of(message));
        if message.payload().is_none_or(Payload::is_whole) {
            return Ok(Some(result));
        }
        if self.follower.is_waited_for() {
            return Err(Error::TooSlow);
        }
        // Messages missed before it are counted with the next one.
        self.missed_since = self.missed_since.saturating_add(message.missed());
        self.stats.messages_received = self.stats.messages_received.saturating_sub(1);
        self.miss(1);
        Ok(None)
    }
}
