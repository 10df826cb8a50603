//! Delivery times of records, from which the age of the oldest held payload follows.

use std::{collections::VecDeque, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::{protocol::Position, ring::Span};

/// `CLOCK_MONOTONIC_COARSE`: a read takes some nanoseconds, and the resolution is 1 to 10 ms.
#[inline]
pub(crate) fn coarse_now() -> Timespec {
    clock_gettime(ClockId::MonotonicCoarse)
}

/// Entries beside the oldest.
const MAX_ENTRIES: usize = 64;

/// Delivery times of the records that are held. One entry stands for all records of one tick of the kernel's coarse
/// clock (1 to 10 ms, `clock_gettime(2)`), so there is one entry a tick, however many records there are. If the
/// oldest record is kept so long that the entries become many, every other one is dropped, and later ones are half as
/// dense: the age is exact to a sixteenth of the time since the first of them.
#[derive(Debug, Default)]
pub(crate) struct DeliveryTimes {
    /// Where the first record of the oldest tick begins, and when it was delivered. Apart from the others: mostly there are
    /// none.
    oldest: Option<(Position, Timespec)>,
    later: VecDeque<(Position, Timespec)>,
    last: Option<Timespec>,
    /// Entries are no closer than that.
    step: Duration,
}

impl DeliveryTimes {
    /// Notes a record that is delivered `now`; `tail` says which are released, and so to be forgotten.
    #[inline]
    pub(crate) fn note(&mut self, span: Span, now: Timespec, tail: impl FnOnce() -> Position) {
        if self.last != Some(now) {
            self.begin(span.start, now, tail());
        }
    }

    #[cold]
    fn begin(&mut self, start: Position, now: Timespec, tail: Position) {
        // The last entry that begins at or before the tail may still have records behind it.
        while let Some(next) = self.later.pop_front_if(|(start, _)| *start <= tail) {
            self.oldest = Some(next);
        }
        self.last = Some(now);
        if self.later.is_empty() {
            self.step = Duration::ZERO;
        }
        let is_oldest = self.oldest.is_none() || (self.later.is_empty() && start <= tail);
        let last = self.later.back().or(self.oldest.as_ref());
        if is_oldest {
            self.oldest = Some((start, now));
        } else if last.is_none_or(|(_, last)| between(*last, now) >= self.step) {
            self.later.push_back((start, now));
            if self.later.len() >= MAX_ENTRIES {
                self.thin_out();
            }
        }
    }

    fn thin_out(&mut self) {
        let mut every_other = true;
        self.later.retain(|_| {
            every_other = !every_other;
            every_other
        });
        let span = self.later.back().zip(self.oldest).map(|((_, last), (_, first))| between(first, *last));
        let entries = u32::try_from(self.later.len()).unwrap_or(u32::MAX);
        self.step = span.unwrap_or_default().checked_div(entries).unwrap_or_default();
    }

    /// How long ago the record at `tail`, the oldest that is held, was delivered.
    pub(crate) fn age(&self, tail: Position) -> Duration {
        let mut ticks = self.later.iter().rev().chain(&self.oldest);
        let then = ticks.find(|(start, _)| *start <= tail).map(|(_, then)| *then);
        then.map(|then| between(then, coarse_now())).unwrap_or_default()
    }
}

fn between(earlier: Timespec, later: Timespec) -> Duration {
    later.checked_sub(earlier).and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes: u64) -> Position {
        Position::new(bytes)
    }

    #[test]
    fn the_oldest_record_that_is_held_tells_the_age() {
        let now = coarse_now();
        let ago = |tv_sec| now.checked_sub(Timespec { tv_sec, tv_nsec: 0 }).unwrap();
        let mut receipts = DeliveryTimes::default();
        for (start, seconds) in [(0, 5000), (64, 3000), (192, 1000)] {
            receipts.begin(at(start), ago(seconds), at(0));
        }
        // However busy the machine is, this does not take a thousand seconds.
        let age = |receipts: &DeliveryTimes, tail| receipts.age(at(tail)).as_secs() / 1000;
        assert_eq!([0, 64, 128, 192, 256].map(|tail| age(&receipts, tail)), [5, 3, 3, 1, 1]);
        receipts.begin(at(320), now, at(192));
        assert_eq!(receipts.later.len(), 1, "what is released is forgotten");
        assert_eq!([192, 256, 320].map(|tail| age(&receipts, tail)), [1, 1, 0]);
        receipts.begin(at(384), now, at(384));
        assert_eq!(
            (receipts.oldest, receipts.later.len()),
            (Some((at(384), now)), 0),
            "all before it is released"
        );
        assert_eq!(DeliveryTimes::default().age(at(0)), Duration::ZERO);
    }

    #[test]
    fn payloads_kept_long_cost_no_more_and_their_age_is_nearly_exact() {
        let start = coarse_now().checked_sub(Timespec { tv_sec: 100_000, tv_nsec: 0 }).unwrap();
        let then = |seconds: i64| start.checked_add(Timespec { tv_sec: seconds, tv_nsec: 0 }).unwrap();
        let mut receipts = DeliveryTimes::default();
        for seconds in 0..100_000_i64 {
            receipts.begin(at(64 * u64::try_from(seconds).unwrap()), then(seconds), at(0));
            assert!(receipts.later.len() <= MAX_ENTRIES);
        }
        for seconds in [0, 1, 100, 5000, 50_000, 90_000, 99_999_u32] {
            let age = receipts.age(at(64 * u64::from(seconds))).as_secs();
            let right = u64::from(100_000 - seconds);
            assert!((right..=right + 100_000 / 16).contains(&age), "{seconds}: {age} found");
        }
        // When they are released, it is as fine again as it was.
        let end = 64 * 100_000;
        receipts.begin(at(end), then(100_000), at(end));
        receipts.begin(at(end + 64), then(100_001), at(end));
        receipts.begin(at(end + 128), then(100_002), at(end));
        assert_eq!((receipts.later.len(), receipts.step), (2, Duration::ZERO));
    }

    #[test]
    fn entries_are_made_once_a_tick_at_most() {
        let mut receipts = DeliveryTimes::default();
        for n in 0..10_000 {
            let span = Span { start: at(n * 64), end: at(n * 64 + 64), at: 0 };
            receipts.note(span, coarse_now(), || at(0));
        }
        assert_eq!(receipts.oldest.map(|(start, _)| start), Some(at(0)));
        let ticks = || receipts.oldest.iter().chain(&receipts.later);
        assert!(ticks().zip(ticks().skip(1)).all(|(a, b)| a.1 < b.1));
    }
}
