//! The end of a subscription, and the error that tells it.

use super::{Feed, Wanted};
use crate::{error::Error, protocol::CACHE_LINE};

impl Feed {
    /// Notes the end of file: what the ring has now is the rest.
    pub(super) fn set_ended(&mut self) {
        self.eof = true;
        self.follower.end_here();
    }

    /// Looks whether the publisher has ended this subscription, once a tick of the clock. The publisher continues with others, so nothing
    /// else shows the end while the ring has news. No packet is read: packets belong to records that are still to come.
    #[cold]
    pub(super) fn look_for_end(&mut self) {
        if !self.follower.has_end() && self.ticks.has_ticked() && self.link.socket.is_dead() {
            self.follower.end_here();
        }
    }

    /// The error after the last message that is wanted.
    pub(super) fn end(&mut self, wanted: Wanted) -> Error {
        if self.is_too_slow || (self.follower.is_waited_for() && !self.follower.is_whole()) {
            return Error::TooSlow;
        }
        // Other calls still receive the rest.
        if wanted != Wanted::Next && !(self.follower.is_at_head() && self.replies.is_empty()) {
            return Error::Disconnected;
        }
        self.attempts.abandon();
        // The publisher says how many there were: the last may have been overrun.
        let missed = self.follower.messages().saturating_sub(self.sequence);
        if missed <= self.follower.skipped() / CACHE_LINE {
            self.sequence = self.sequence.saturating_add(missed);
            self.miss(missed);
        }
        if self.link.socket.is_dead() || self.watch.was_killed() {
            self.link.close();
        }
        self.link.ended()
    }
}
