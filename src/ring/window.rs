//! [`Window`]: how many bytes a sender has in flight before it lets its peer catch up.

use std::{
    hint::spin_loop,
    time::{Duration, Instant},
};

use crate::{
    protocol::layout::{CACHE_LINE, RESERVE, RecordSize},
    wait::{Backoff, Deadline},
};

/// Bytes of the window of a large ring: the second-level cache of an Intel Xeon, which a writer must not outrun. The L3 of an AMD
/// EPYC, whose L2 is 512 KiB, is as fast as the wait: a window of that size would cost a fifth there, and this one costs nothing.
const LARGEST: u64 = 2 << 20;
/// The window is no more than this part of the ring: the sender also keeps its distance from the lines that the peer reads.
const PART_OF_RING: u64 = 2;
/// Records of which the window has room for fewer are never waited for.
const MIN_RECORDS: u64 = 4;
/// The part of the window that the peer releases in one wait, so that the sender seldom has to look, but no more than this number
/// of records.
const PART_RELEASED: u64 = 4;
const RECORDS_RELEASED: u64 = 512;
/// The longest wait for bytes and for records: 4 GB/s, and 12 million a second. A slower peer is not held up by its cache.
const PICOS_PER_BYTE: u64 = 250;
const NANOS_PER_RECORD: u64 = 80;
/// The bounds of the longest wait.
const PAUSES_LAST: (Duration, Duration) = (Duration::from_micros(4), Duration::from_micros(150));
/// A peer that keeps up releases a record within two nanoseconds a byte, or if that is longer, a batch of small ones within this
/// time.
const STALLED_AFTER: Duration = Duration::from_micros(40);
const NANOS_PER_BYTE: u64 = 2;
/// Pauses between two looks.
const PAUSES: u32 = 64;
/// Occasions that go by after a wait that did not help, at least and at most.
const SKIPPED: (u32, u32) = (8, 1024);

/// The limit of a sender's bytes in flight, and what it has learned about waiting at it.
///
/// A reader that is a little slower than its writer lets the ring fill up. A full ring stays full, and is slow for both: each
/// line has left the writer's cache before it is read, and each line that the writer fills was read a moment ago. So a sender
/// that may block waits when more is in flight than the window, until the peer has released a part of that. If the peer does not
/// keep up, the sender uses all of the ring, and waits more seldom.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes.
    pub(super) len: u64,
    attempts: Backoff,
}

impl Window {
    /// The window of a ring of `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Self { len: LARGEST.min(capacity / PART_OF_RING), attempts: Backoff::new(SKIPPED) }
    }

    /// Whether to wait before a record of `size` bytes, with which `in_flight` bytes are in flight.
    pub(super) fn should_wait(&mut self, size: RecordSize, in_flight: u64) -> bool {
        in_flight > self.len && size.bytes() <= self.len / MIN_RECORDS && self.attempts.should_try()
    }

    /// Waits until enough of what is `in_flight` has been released. The new limit of bytes in flight; `None` if the peer does not
    /// keep up, or if there is no time.
    ///
    /// UNTRUSTED: the peer's `tail` is only compared here. It prolongs the wait to 150 µs at most.
    pub(super) fn wait(
        &mut self,
        in_flight: impl Fn() -> u64,
        size: RecordSize,
        deadline: Deadline,
    ) -> Option<u64> {
        let record = size.bytes().saturating_sub(RESERVE).max(CACHE_LINE);
        let part = (self.len / PART_RELEASED).min(record.saturating_mul(RECORDS_RELEASED));
        let nanos = (part.saturating_mul(PICOS_PER_BYTE) / 1000)
            .saturating_add(part.checked_div(record).unwrap_or(0).saturating_mul(NANOS_PER_RECORD));
        let longest = Duration::from_nanos(nanos).clamp(PAUSES_LAST.0, PAUSES_LAST.1);
        let stalled = Duration::from_nanos(size.bytes().saturating_mul(NANOS_PER_BYTE)).max(STALLED_AFTER);
        let (began, mut moved) = (Instant::now(), Duration::ZERO);
        let mut left = in_flight();
        // A ring that is fuller gets emptier step by step.
        let goal = left.max(self.len).saturating_sub(part);
        while left > goal {
            if deadline.passed() {
                return None;
            }
            // Each look takes the line of `tail` away from the peer.
            for _ in 0..PAUSES {
                spin_loop();
            }
            let before = std::mem::replace(&mut left, in_flight());
            let waited = began.elapsed();
            if left != before {
                moved = waited;
            }
            if waited.saturating_sub(moved) >= stalled || waited >= longest {
                self.attempts.failed();
                return None;
            }
        }
        self.attempts.succeeded();
        Some(self.len.max(left.saturating_add(part / 2)))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, sync::atomic::Ordering::Release};

    use super::*;
    use crate::{
        memory::region::{OwnRegion, map_peer},
        protocol::{
            layout::{Word, to_usize},
            record::{MessageHeader, Record},
        },
    };

    fn size(payload: u64) -> RecordSize {
        Record::new(MessageHeader::new(0, false, None), to_usize(payload)).size()
    }

    #[test]
    fn window_is_half_of_the_ring_and_two_mebibytes_at_most() {
        for (capacity, len) in [(0, 0), (4096, 2048), (4 << 20, 2 << 20), (1 << 30, 2 << 20)] {
            assert_eq!(Window::new(capacity).len, len, "{capacity}");
        }
    }

    #[test]
    fn only_small_records_beyond_the_window_are_waited_for() {
        let mut window = Window::new(64 << 10);
        let quarter = window.len / 4;
        assert!(!window.should_wait(size(64), window.len));
        assert!(window.should_wait(size(quarter - 64), window.len + 64));
        assert!(!window.should_wait(size(quarter), window.len + 64));
    }

    #[test]
    fn sender_waits_for_a_quarter_and_ever_more_seldom_for_a_peer_that_stalls() {
        let theirs = OwnRegion::create(0, true, false, Deadline::Never).unwrap();
        let peer = map_peer(theirs.memfd.as_fd(), theirs.geometry, true).unwrap();
        let mut window = Window::new(64 << 10);
        let (len, small) = (window.len, size(64));
        let chances = |window: &mut Window| (1..10_000).find(|_| window.should_wait(small, len + 1)).unwrap();
        let tail = |bytes| theirs.words.word(Word::Tail).store(bytes, Release);
        let in_flight = || len.wrapping_sub(peer.load(Word::Tail));
        let wait = |window: &mut Window, deadline| window.wait(in_flight, small, deadline);
        tail(len / 4);
        assert_eq!(wait(&mut window, Deadline::Never), Some(len));
        assert_eq!(chances(&mut window), 1, "it helped");
        tail(len / 4 - 64);
        assert_eq!(wait(&mut window, Deadline::Never), None, "nothing is released");
        assert_eq!(chances(&mut window), 9);
        assert_eq!(wait(&mut window, Deadline::Never), None);
        assert_eq!(chances(&mut window), 17);
        assert_eq!(wait(&mut window, Deadline::after(Duration::ZERO)), None);
        assert_eq!(chances(&mut window), 1, "a deadline says nothing about the peer");
        tail(2 * len);
        assert_eq!(wait(&mut window, Deadline::Never), None, "a tail beyond the head is no release");
    }
}
