//! Waiting: how long, and when to give up. What is waited for is the caller's.
//!
//! Owns deadlines, the budget of a loop that a peer can feed, spinning with its back-off, sleeping in
//! `ppoll(2)`, and locks that a fork may find taken.
//!
//! Refuses to wait past a deadline, and to work without end for a peer.
//!
//! May import: `error`.

mod deadline;
mod lock;
mod poll;
mod spin;

use std::time::Duration;

pub(crate) use deadline::{Budget, Deadline};
pub(crate) use lock::lock_unless_lost;
pub(crate) use poll::{sleep, sleep_on};
pub(crate) use spin::{Attempts, Spinner, Spun, share_the_only_cpu};

/// How a blocking call waits.
///
/// ```
/// use std::time::Duration;
/// use sealane::{Channel, Wait};
///
/// // Never burn the CPU, at the price of some 30 µs for each wake-up.
/// let (_a, _b) = Channel::builder().wait(Wait::Block).pair()?;
/// assert_eq!(Wait::default(), Wait::Adaptive { max_spin: Duration::from_micros(50) });
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Spin first, while spinning pays, then sleep: after a spin that was in vain up to 64 waits sleep at once. Does not
    /// spin where both processes can only run on one and the same CPU.
    ///
    /// A receiver that keeps up with a sender of more than 1 GB/s rests now and then, for 10 µs at most, so that the sender gets
    /// a lead of 256 KiB or a quarter of the ring: at that distance both are some times as fast. So it does with `Spin`, but
    /// not with `Block`.
    Adaptive {
        /// The longest time to spin.
        max_spin: Duration,
    },
    /// Sleep at once.
    Block,
    /// Never sleep. Costs a CPU; the socket is still looked at every 10 µs, so that a dead peer is noticed.
    Spin,
}

impl Default for Wait {
    fn default() -> Self {
        Self::Adaptive { max_spin: Duration::from_micros(50) }
    }
}
