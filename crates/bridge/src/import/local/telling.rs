//! What a bridge tells the subscribers at its path in its own name: notices.

use std::time::Instant;

use super::{super::publishing::PATIENCE, Local};
use crate::wire::{
    Place, beat,
    notice::{Gone, Notice, Standing},
};

impl Local {
    /// Tells subscribers something in the bridge's own name. False if there was no room for it in time.
    pub(super) fn tell(&mut self, notice: Notice) -> sealane::Result<bool> {
        self.tell_text(&notice.to_string())
    }

    /// Tells subscribers which run is followed, and which of its messages is the next.
    pub(super) fn tell_place(&mut self) -> sealane::Result<()> {
        self.owes_place = false;
        let Some(run) = self.follow.run().filter(|_| self.notices) else { return Ok(()) };
        let mut earlier: Vec<_> = self.follow.earlier().collect();
        let next = Place { run, number: self.next, source: self.source };
        earlier.drain(..earlier.len().saturating_sub(beat::MAX_RUNS));
        self.owes_place = !self.tell_text(&Standing { next, earlier }.to_string())?;
        Ok(())
    }

    fn tell_text(&mut self, text: &str) -> sealane::Result<bool> {
        self.publisher.lost(std::mem::take(&mut self.untold));
        self.publisher.epoch(0);
        // A notice is no message of the source: the number behind it is what it was before.
        self.publisher.number(self.next.wrapping_sub(1));
        match self.publisher.send_timeout(text.as_bytes(), PATIENCE) {
            Err(why) if why.is_timeout() => Ok(false),
            Err(why @ sealane::Error::ControlTooLarge { .. }) => {
                self.counts.refuse(&self.counts.counters.refused, &why);
                Ok(true)
            }
            sent => sent.map(|()| true),
        }
    }

    /// Tells subscribers that the source is gone, or there again. Returns when to look again.
    pub(super) fn look_after_source(&mut self) -> sealane::Result<Option<Instant>> {
        let has_token = self.follow.run().is_some_and(|run| self.inbox.has_token(run));
        let now = Instant::now();
        let (how, look_again) = self.presence.look(now, has_token);
        let wish_again = self.renewal.look(now, self.presence.mute_since(), &self.counts);
        if let Some(how) = how
            && self.presence.told != Some(how)
        {
            // At first there is nothing to tell: whoever subscribes takes the source to be there.
            let is_news = self.presence.told.is_some() || how.is_err();
            self.counts.set_state(how.is_ok(), state_of(how));
            let notice = how.map_or_else(Notice::Gone, |()| Notice::Here);
            if !(is_news && self.notices) || self.tell(notice)? {
                self.presence.told = Some(how);
            }
        }
        Ok(look_again.into_iter().chain(wish_again).min())
    }
}

fn state_of(how: Result<(), Gone>) -> &'static str {
    match how {
        Ok(()) => "the source is there",
        Err(Gone::Ended) => "the publisher has ended",
        Err(Gone::Unreachable) => "the bridge that exports it, or the link, is gone",
        Err(Gone::Silent) => "nothing is heard of the source",
    }
}
