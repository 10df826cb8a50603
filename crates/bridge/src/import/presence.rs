//! [`Presence`]: whether the source is there. Pure: the clock is given.

use std::time::{Duration, Instant};

use crate::wire::notice::Gone;

/// What is known of the source that is followed.
#[derive(Debug)]
pub(super) struct Presence {
    silence: Duration,
    /// When it was last heard.
    heard: Option<Instant>,
    has_ended: bool,
    /// Its token was there. One that was never seen says nothing by its absence: it may be on its way.
    had_token: bool,
    /// When it was first seen to be gone.
    token_gone: Option<Instant>,
    /// When it was first seen to be silent although its token is there.
    mute_since: Option<Instant>,
    /// What subscribers were told.
    pub(super) told: Option<Result<(), Gone>>,
}

impl Presence {
    pub(super) fn new(silence: Duration) -> Self {
        Self {
            silence,
            heard: None,
            has_ended: false,
            had_token: false,
            token_gone: None,
            mute_since: None,
            told: None,
        }
    }

    /// Another run is followed.
    pub(super) fn change(&mut self) {
        (self.has_ended, self.had_token, self.token_gone) = (false, false, None);
    }

    /// The run that is followed was heard.
    pub(super) fn hear(&mut self, now: Instant, has_ended: bool) {
        // A run that has ended is heard once: its end may be forged, and then its token is still there.
        if !(has_ended && self.has_ended) {
            self.heard = Some(now);
        }
        self.has_ended = has_ended;
    }

    /// How the source is, and when that is to be looked at again without being asked.
    pub(super) fn look(
        &mut self,
        now: Instant,
        has_token: bool,
    ) -> (Option<Result<(), Gone>>, Option<Instant>) {
        let Some(heard) = self.heard else { return (None, None) };
        self.had_token |= has_token;
        if has_token || !self.had_token {
            self.token_gone = None;
        } else {
            self.token_gone.get_or_insert(now);
        }
        // Zenoh takes a token away ahead of messages that were sent before. They have this time to say how the source ended.
        let unreachable_at = self.token_gone.and_then(|at| at.checked_add(self.silence / 4));
        let silent_at = heard.checked_add(self.silence);
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let gone = if self.has_ended && (!has_token || is_past(silent_at)) {
            Some(Gone::Ended)
        } else if is_past(unreachable_at) {
            Some(Gone::Unreachable)
        } else if is_past(silent_at) {
            Some(Gone::Silent)
        } else {
            None
        };
        // From the first look: the time for which this process did not run says nothing of the source.
        self.mute_since = match gone {
            Some(Gone::Silent) if has_token => self.mute_since.or(Some(now)),
            _ => None,
        };
        match gone {
            Some(gone) => (Some(Err(gone)), unreachable_at.filter(|at| *at > now)),
            None => (Some(Ok(())), unreachable_at.into_iter().chain(silent_at).min()),
        }
    }

    /// Since when it is known to be silent although its token is there, so that Zenoh takes it to be connected.
    pub(super) fn mute_since(&self) -> Option<Instant> {
        self.mute_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(2);

    #[test]
    fn a_source_is_gone_when_it_ends_or_its_token_or_it_is_silent() {
        let start = Instant::now();
        let mut presence = Presence::new(SILENCE);
        assert_eq!(presence.look(start, true), (None, None));
        presence.hear(start, false);
        assert_eq!(presence.look(start, false).0, Some(Ok(())), "a token that is on its way");
        assert_eq!(presence.look(start, true), (Some(Ok(())), Some(start + SILENCE)));
        assert_eq!(presence.mute_since(), None);
        assert_eq!(presence.look(start + SILENCE, true).0, Some(Err(Gone::Silent)));
        assert_eq!(presence.look(start + SILENCE * 2, true).0, Some(Err(Gone::Silent)));
        assert_eq!(presence.mute_since(), Some(start + SILENCE));
        assert_eq!(presence.look(start + SILENCE, false).0, Some(Err(Gone::Silent)));
        assert_eq!(presence.mute_since(), None, "without a token it is not connected");
        assert_eq!(presence.look(start, true).0, Some(Ok(())));
        assert_eq!(presence.look(start, false), (Some(Ok(())), Some(start + SILENCE / 4)));
        assert_eq!(presence.look(start + SILENCE / 4, false).0, Some(Err(Gone::Unreachable)));
        presence.hear(start, true);
        assert_eq!(presence.look(start, false).0, Some(Err(Gone::Ended)));
        assert_eq!(presence.look(start, true).0, Some(Ok(())), "an end that its exporter does not know of");
        presence.hear(start + SILENCE, true);
        assert_eq!(presence.look(start + SILENCE, true).0, Some(Err(Gone::Ended)));
        presence.hear(start, false);
        assert_eq!(presence.look(start, true).0, Some(Ok(())));
    }
}
