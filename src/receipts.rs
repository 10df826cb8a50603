//! When records were delivered, as far as one needs to know to tell how long the oldest payload has been held.

use std::{collections::VecDeque, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::ring::consumer::Span;

/// The records that were delivered within one tick of the kernel's coarse clock (1 to 10 ms, `clock_gettime(2)`), of which
/// only the first is noted: so there is an entry a tick, however many records there are.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Where the first record begins, and when it was delivered.
    ticks: VecDeque<(u64, Timespec)>,
    last: Option<Timespec>,
}

impl Receipts {
    /// Notes a record that is delivered now; `tail` says which are released, and so to be forgotten.
    #[inline]
    pub(crate) fn note(&mut self, span: Span, tail: impl FnOnce() -> u64) {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        if self.last != Some(now) {
            self.begin(span.start, now, tail());
        }
    }

    #[cold]
    fn begin(&mut self, start: u64, now: Timespec, tail: u64) {
        // The last entry that begins at or before the tail may still have records behind it.
        while self.ticks.get(1).is_some_and(|(start, _)| *start <= tail) {
            self.ticks.pop_front();
        }
        self.ticks.push_back((start, now));
        self.last = Some(now);
    }

    /// How long ago the record at `tail`, the oldest that is held, was delivered.
    pub(crate) fn age(&self, tail: u64) -> Duration {
        let then = self.ticks.iter().rev().find(|(start, _)| *start <= tail).map(|(_, then)| *then);
        let age = then.and_then(|then| clock_gettime(ClockId::MonotonicCoarse).checked_sub(then));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }
}
