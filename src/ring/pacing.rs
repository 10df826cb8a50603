//! Pacing: how close a receiver reads behind what the peer writes.

use std::{
    hint::spin_loop,
    time::{Duration, Instant},
};

use crate::{
    protocol::layout::{Position, Word, to_u64},
    sys::peer_region::PeerRegion,
    wait::{Backoff, Deadline},
};

/// The peer's lead, in bytes, at which its writing and our reading do not meet; but no more than this part of the ring. With
/// 64 KiB, payloads of 4 KiB are a fifth slower; with 1 MiB they are no faster.
const TARGET_DISTANCE: u64 = 256 << 10;
const PART: u64 = 4;
/// A peer that goes on writes a byte a nanosecond. It is judged after so long, in which a message of 4 KiB comes even if the
/// two were close.
const RATE_WINDOW: Duration = Duration::from_nanos(700);
/// A peer that goes on is never still for so long: a message of 64 KiB takes less.
const IDLE_AFTER: Duration = Duration::from_micros(2);
/// The longest rest: what lead there is by then has to do. 256 KiB take some 8 µs.
const MAX_PAUSE: Duration = Duration::from_micros(10);
/// Pauses between two looks.
const PAUSES: u32 = 16;
/// Looks that find little after a rest in vain, at least and at most.
const SKIPPED: (u32, u32) = (8, 1024);

/// How close we read behind what the peer writes.
///
/// Who reads close behind a peer that goes on takes away the lines that it is about to write: the processor fetches some
/// ahead of what it is asked for, and each look fetches the line of `head`. What was written a moment ago comes from the
/// peer's own cache, besides, and not from the one that we share. Both sides have a fraction of the speed then that they have
/// at a distance, and stay close for that. So we rest now and then until the peer has a lead; and seldom if that turns out to
/// be in vain, as it is where all that is small comes one by one.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The lead that is enough, in bytes.
    lead: u64,
    /// It is time to rest, when all that the last look found is read: it was little.
    pub(crate) close: bool,
    /// To rest. Each look that finds little is an occasion.
    pub(crate) attempts: Backoff,
}

impl Pacer {
    /// For a ring of so many bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let lead = TARGET_DISTANCE.min(to_u64(capacity) / PART);
        Self { lead, close: false, attempts: Backoff::new(SKIPPED).delayed() }
    }

    /// A look has found so many bytes, and at least some.
    #[inline]
    pub(crate) fn on_poll(&mut self, bytes: u64) {
        self.close = bytes < self.lead && self.attempts.should_try();
    }

    /// We have rested; it `paid` if the peer went on.
    fn on_backoff(&mut self, paid: Option<bool>) {
        self.close = false;
        match paid {
            Some(true) => self.attempts.succeeded(),
            Some(false) => self.attempts.failed(),
            None => {}
        }
    }
    /// Waits a moment, 10 µs at most, for as long as the peer goes on, until it has a lead on `seen`, the head as it was last
    /// seen.
    pub(crate) fn rest(&mut self, peer: &PeerRegion, seen: Position, deadline: Deadline) {
        let paid = self.try_rest(peer, seen, deadline);
        self.on_backoff(paid);
    }

    /// Rests, and says whether the peer went on, if that can be told.
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
