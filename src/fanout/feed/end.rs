//! The end of a subscription, and the error that tells it.

use super::{Feed, Wanted};
use crate::{channel::ages::coarse_now, error::Error, protocol::CACHE_LINE};

impl Feed {
    /// Notes the end of file: what the ring has now is the rest.
    pub(super) fn set_ended(&mut self) {
        self.eof = true;
        self.set_over();
    }

    fn set_over(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.follower.end_here();
        }
    }

    /// Looks whether the publisher has ended us, once a tick of the coarse clock (1 to 10 ms). It goes on with others, so as long as
    /// the ring has news nothing else would say so. No packet is read: those belong to records that are still to come.
    #[cold]
    pub(super) fn look_for_end(&mut self) {
        let now = Some(coarse_now());
        if now != self.looked && !self.is_over {
            self.looked = now;
            if self.link.socket.is_dead() {
                self.set_over();
            }
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
