//! [`Ticks`]: looks that are worth their time only now and then.

use rustix::time::Timespec;

use crate::channel::ages::coarse_now;

/// Messages between two looks at the clock, which takes some nanoseconds.
pub(super) const MESSAGES: u64 = 16;
/// Bytes of a message from which on each one looks at the clock.
pub(super) const LARGE: u64 = 32 << 10;

/// The last tick of the coarse clock (1 to 10 ms, `clock_gettime(2)`) that was noticed.
#[derive(Debug, Default)]
pub(super) struct Ticks(Option<Timespec>);

impl Ticks {
    /// Whether the clock has ticked since the last call.
    pub(super) fn has_ticked(&mut self) -> bool {
        let now = Some(coarse_now());
        let has_ticked = now != self.0;
        self.0 = now;
        has_ticked
    }
}
