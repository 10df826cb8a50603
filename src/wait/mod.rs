//! Waiting: how long, and when to give up. What is waited for is the caller's.
//!
//! Owns the order of the steps of a wait (`engine`), the eventcount that wakes a sleeper, deadlines, the budget of a loop that a
//! peer can feed, spinning with its back-off, sleeping in `ppoll(2)`, when to sleep on a futex instead, and locks that a fork may
//! find taken.
//!
//! Refuses to wait past a deadline, and to work without end for a peer.
//!
//! May import: `error`.

mod deadline;
mod doze;
mod engine;
mod eventcount;
mod lock;
mod poll;
mod spin;

// `ring/release.rs` takes these from here, so that its model can bring loom's.
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, fence},
};
use std::time::Duration;

pub(crate) use deadline::{Budget, Deadline};
pub(crate) use doze::{Doze, Woken};
pub(crate) use engine::{News, Outcome, SpinResult, WaitState, Waiter, run};
pub(crate) use eventcount::{Bells, Notified, Notifier, OwnWord, Sent, SleepWord, Sleeper};
pub(crate) use lock::{lock, lock_unless_lost};
pub(crate) use poll::{sleep, sleep_on};
pub(crate) use spin::{Backoff, Spinner, pinned_to_same_cpu};

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
    /// Spin for up to `max_spin`, then sleep. If spinning did not help, up to 64 following waits sleep immediately. Does not
    /// spin where both processes are pinned to the same single CPU.
    ///
    /// While it keeps up with a sender faster than 1 GB/s, a receiver occasionally pauses, for at most 10 µs, until the sender is
    /// 256 KiB or a quarter of the ring ahead; and a sender whose call may block pauses, for at most 150 µs, while more than
    /// 2 MiB or half of the ring is in flight and the receiver releases some 4 GB/s. That makes both faster. `Spin` does so too, `Block`
    /// never does, and no `try_` call.
    Adaptive {
        /// The longest time to spin.
        max_spin: Duration,
    },
    /// Sleep immediately.
    Block,
    /// Never sleep. This occupies a CPU. The socket is still read every 10 µs, so that a dead peer is noticed.
    Spin,
}

impl Default for Wait {
    fn default() -> Self {
        Self::Adaptive { max_spin: Duration::from_micros(50) }
    }
}
