//! [`Pacer`]: the distance that a receiver keeps behind its peer's writing.

use std::{
    hint::spin_loop,
    time::{Duration, Instant},
};

use crate::{
    protocol::layout::{Position, Word, to_u64},
    sys::peer_region::PeerRegion,
    wait::{Backoff, Deadline},
};

/// The peer's lead, in bytes, at which its writing and our reading do not meet, and the largest part of the ring for it. With
/// 64 KiB, payloads of 4 KiB are a fifth slower; with 1 MiB they are no faster.
const TARGET_DISTANCE: u64 = 256 << 10;
const PART: u64 = 4;
/// A streaming peer writes a byte a nanosecond. Its rate is computed after this time, in which a message of 4 KiB arrives even
/// at close distance.
const RATE_WINDOW: Duration = Duration::from_nanos(700);
/// A streaming peer publishes something within this time: a message of 64 KiB takes less.
const IDLE_AFTER: Duration = Duration::from_micros(2);
/// The longest rest. 256 KiB take some 8 µs.
const MAX_PAUSE: Duration = Duration::from_micros(10);
/// Pauses between two looks.
const PAUSES: u32 = 16;
/// Looks that find little, and are ignored after a rest that did not help, at least and at most.
const SKIPPED: (u32, u32) = (8, 1024);

/// The receiver's distance to its peer's writing, and what it has learned about resting.
///
/// A receiver close behind a streaming peer takes away the lines that the peer writes next: the processor prefetches beyond what
/// is read, and each look at `head` fetches its line. Lines that were written a moment ago come from the peer's own cache,
/// besides, not from the shared one. Both sides have a fraction of their speed then, and stay close because of it. So the
/// receiver rests now and then until the peer has a lead. Where that does not help, as with small messages that come one by
/// one, it rests more and more seldom.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The lead in bytes that ends a rest.
    lead: u64,
    /// The last look found little. A rest is due when that is read.
    pub(crate) close: bool,
    /// Attempts to rest. Each look that finds little is an occasion.
    pub(crate) attempts: Backoff,
}

impl Pacer {
    /// The pacer for a ring of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let lead = TARGET_DISTANCE.min(to_u64(capacity) / PART);
        Self { lead, close: false, attempts: Backoff::new(SKIPPED).delayed() }
    }

    /// Notes that a look has found `bytes`, at least some.
    #[inline]
    pub(crate) fn on_poll(&mut self, bytes: u64) {
        self.close = bytes < self.lead && self.attempts.should_try();
    }

    /// Notes a rest. It `paid` if the peer published more meanwhile.
    fn on_backoff(&mut self, paid: Option<bool>) {
        self.close = false;
        match paid {
            Some(true) => self.attempts.succeeded(),
            Some(false) => self.attempts.failed(),
            None => {}
        }
    }

    /// Waits until the peer has a lead on `seen`, the head as it was last seen, for at most 10 µs and only while it streams.
    pub(crate) fn rest(&mut self, peer: &PeerRegion, seen: Position, deadline: Deadline) {
        let paid = self.try_rest(peer, seen, deadline);
        self.on_backoff(paid);
    }

    /// Rests. Whether the peer published more meanwhile; `None` if there was no time.
    fn try_rest(&self, peer: &PeerRegion, seen: Position, deadline: Deadline) -> Option<bool> {
        let head_now = || Position::new(peer.load(Word::Head));
        let (start, began) = (head_now(), Instant::now());
        let (mut head, mut moved) = (start, Duration::ZERO);
        while head.since(seen) < self.lead {
            if deadline.passed() {
                return None;
            }
            for _ in 0..PAUSES {
                spin_loop();
            }
            let before = std::mem::replace(&mut head, head_now());
            let rested = began.elapsed();
            if head != before {
                moved = rested;
            }
            let is_slow = rested >= RATE_WINDOW && u128::from(head.since(start)) < rested.as_nanos();
            if is_slow || rested.saturating_sub(moved) >= IDLE_AFTER {
                return Some(false);
            }
            if rested >= MAX_PAUSE {
                break;
            }
        }
        (head != start).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiver_backs_off_when_too_close_and_stops_if_useless() {
        let mut pace = Pacer::new(1 << 20);
        let looks = |pace: &mut Pacer, found: &[u64]| {
            for bytes in found {
                pace.on_poll(*bytes);
            }
            pace.close
        };
        assert!(!looks(&mut pace, &[TARGET_DISTANCE; 100]), "what is much is not close");
        assert!(!looks(&mut Pacer::new(4096), &[1024; 100]), "a quarter of a small ring is much");
        assert!(!looks(&mut pace, &[128; 8]), "it may be a few only");
        assert!(looks(&mut pace, &[128]));
        pace.on_backoff(Some(true));
        assert!(!pace.close);
        assert!(looks(&mut pace, &[TARGET_DISTANCE - 64]), "it pays");
        // In vain: ever more looks go by.
        for skip in [8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            pace.on_backoff(Some(false));
            assert!(!looks(&mut pace, &vec![128; skip]));
            assert!(looks(&mut pace, &[128]), "{skip}");
        }
        pace.on_backoff(Some(true));
        pace.on_backoff(Some(false));
        assert!(!looks(&mut pace, &[128; 8]) && looks(&mut pace, &[128]), "it has paid meanwhile");
    }
}
