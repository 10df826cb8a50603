//! When records were delivered, as far as one needs to know to tell how long the oldest payload has been held.

use std::{collections::VecDeque, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::ring::consumer::Span;

/// The time, by a clock that is read in some nanoseconds and goes on tick by tick.
#[inline]
pub(crate) fn now() -> Timespec {
    clock_gettime(ClockId::MonotonicCoarse)
}

/// The records that were delivered within one tick of the kernel's coarse clock (1 to 10 ms, `clock_gettime(2)`), of which
/// only the first is noted: so there is an entry a tick, however many records there are.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Where the first record of the oldest tick begins, and when it was delivered. Apart from the others: mostly there are
    /// none.
    oldest: Option<(u64, Timespec)>,
    later: VecDeque<(u64, Timespec)>,
    last: Option<Timespec>,
}

impl Receipts {
    /// Notes a record that is delivered `now`; `tail` says which are released, and so to be forgotten.
    #[inline]
    pub(crate) fn note(&mut self, span: Span, now: Timespec, tail: impl FnOnce() -> u64) {
        if self.last != Some(now) {
            self.begin(span.start, now, tail());
        }
    }

    #[cold]
    fn begin(&mut self, start: u64, now: Timespec, tail: u64) {
        // The last entry that begins at or before the tail may still have records behind it.
        while let Some(next) = self.later.pop_front_if(|(start, _)| *start <= tail) {
            self.oldest = Some(next);
        }
        let is_oldest = self.oldest.is_none() || (self.later.is_empty() && start <= tail);
        if is_oldest {
            self.oldest = Some((start, now));
        } else {
            self.later.push_back((start, now));
        }
        self.last = Some(now);
    }

    /// How long ago the record at `tail`, the oldest that is held, was delivered.
    pub(crate) fn age(&self, tail: u64) -> Duration {
        let mut ticks = self.later.iter().rev().chain(&self.oldest);
        let then = ticks.find(|(start, _)| *start <= tail).map(|(_, then)| *then);
        let age = then.and_then(|then| now().checked_sub(then));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_record_that_is_held_tells_the_age() {
        let now = now();
        let ago = |tv_sec| now.checked_sub(Timespec { tv_sec, tv_nsec: 0 }).unwrap();
        let mut receipts = Receipts::default();
        for (start, seconds) in [(0, 5000), (64, 3000), (192, 1000)] {
            receipts.begin(start, ago(seconds), 0);
        }
        // However busy the machine is, this does not take a thousand seconds.
        let age = |receipts: &Receipts, tail| receipts.age(tail).as_secs() / 1000;
        assert_eq!([0, 64, 128, 192, 256].map(|tail| age(&receipts, tail)), [5, 3, 3, 1, 1]);
        receipts.begin(320, now, 192);
        assert_eq!(receipts.later.len(), 1, "what is released is forgotten");
        assert_eq!([192, 256, 320].map(|tail| age(&receipts, tail)), [1, 1, 0]);
        receipts.begin(384, now, 384);
        assert_eq!(
            (receipts.oldest, receipts.later.len()),
            (Some((384, now)), 0),
            "all before it is released"
        );
        assert_eq!(Receipts::default().age(0), Duration::ZERO);
    }

    #[test]
    fn there_is_an_entry_a_tick_and_no_more() {
        let mut receipts = Receipts::default();
        for n in 0..10_000 {
            receipts.note(Span { start: n * 64, end: n * 64 + 64 }, now(), || 0);
        }
        assert_eq!(receipts.oldest.map(|(start, _)| start), Some(0));
        let ticks = || receipts.oldest.iter().chain(&receipts.later);
        assert!(ticks().zip(ticks().skip(1)).all(|(a, b)| a.1 < b.1));
    }
}
