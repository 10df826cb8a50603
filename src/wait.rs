//! Waiting: how long to spin, when to give up. What is waited for, and sleeping, is the caller's.

use std::{
    hint::spin_loop,
    time::{Duration, Instant},
};

use rustix::thread::sched_getaffinity;

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
    /// Spin first, for a time that grows while spinning pays and shrinks to nothing while it does not, then sleep. Does
    /// not spin where there is only one CPU.
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

/// How long a spinning wait may go without a look at the socket.
const SOCKET_LOOK: Duration = Duration::from_micros(10);
/// Looks at memory before the first look at the clock: the shortest waits cost no clock.
const FREE_LOOKS: u32 = 64;
/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 16;
/// A wait that would not have been worth spinning for is followed by this many without spinning, at most.
const MOST_SKIPPED: u32 = 64;

/// Packets that a call reads without a look at the clock, and that one which does not wait reads at all: a peer that floods
/// us with packets cannot keep it.
pub(crate) const MOST_PACKETS: u32 = 64;

/// When a call gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    Never,
    At(Instant),
}

impl Deadline {
    /// A time so long that the clock cannot tell it is no limit.
    pub(crate) fn after(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Never, Self::At)
    }

    /// What is left; `Some(ZERO)` when it has passed, `None` if there is no limit.
    pub(crate) fn left(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at.saturating_duration_since(Instant::now())),
        }
    }

    pub(crate) fn passed(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// How a spin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spun {
    /// What was looked for came.
    Ready,
    /// Time to look at the socket, then to spin on.
    LookAtSocket,
    /// Time to sleep, or the deadline passed.
    Enough,
}

/// One half's waiting, and what it has learned about it.
///
/// Spinning pays when waits are short. So each wait is measured; after one that was longer than `max_spin` the next are
/// not spun for: one, then two, four, up to 64 of them, so that a wait is tried again now and then.
#[derive(Debug)]
pub(crate) struct Spinner {
    /// Longest spin; `None` is for ever.
    max: Option<Duration>,
    /// Waits to come that sleep at once.
    skip: u32,
    /// How many the next disappointment adds.
    penalty: u32,
    started: Option<Instant>,
    looked: Option<Instant>,
    spinning: bool,
}

impl Spinner {
    pub(crate) fn new(wait: Wait) -> Self {
        let alone = sched_getaffinity(None).is_ok_and(|cpus| cpus.count() == 1);
        let max = match wait {
            Wait::Spin => None,
            Wait::Block => Some(Duration::ZERO),
            Wait::Adaptive { .. } if alone => Some(Duration::ZERO),
            Wait::Adaptive { max_spin } => Some(max_spin),
        };
        Self { max, skip: 0, penalty: 1, started: None, looked: None, spinning: false }
    }

    /// Spins until `ready`, or until something else is to be done. Call it again in the same wait after that.
    pub(crate) fn spin(&mut self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> Spun {
        if self.max == Some(Duration::ZERO) {
            return Spun::Enough;
        }
        let mut looks = LOOKS;
        if self.started.is_none() {
            self.spinning = self.skip == 0;
            looks = FREE_LOOKS;
        }
        if !self.spinning {
            self.started.get_or_insert_with(Instant::now);
            return Spun::Enough;
        }
        loop {
            for _ in 0..looks {
                if ready() {
                    return Spun::Ready;
                }
                spin_loop();
            }
            looks = LOOKS;
            let now = Instant::now();
            let started = *self.started.get_or_insert(now);
            let looked = *self.looked.get_or_insert(now);
            let spent = now.saturating_duration_since(started);
            if matches!(deadline, Deadline::At(at) if now >= at) || self.max.is_some_and(|max| spent >= max) {
                self.spinning = false;
                return Spun::Enough;
            }
            if now.saturating_duration_since(looked) >= SOCKET_LOOK {
                self.looked = Some(now);
                return Spun::LookAtSocket;
            }
        }
    }

    /// The wait is over. True if spinning got what was waited for.
    pub(crate) fn done(&mut self) -> bool {
        let paid = self.spinning;
        let (started, max) = (self.started.take(), self.max.unwrap_or(Duration::MAX));
        self.looked = None;
        self.spinning = false;
        match started {
            Some(started) if started.elapsed() > max => {
                if self.skip == 0 {
                    self.skip = self.penalty;
                    self.penalty = self.penalty.saturating_mul(2).min(MOST_SKIPPED);
                } else {
                    self.skip = self.skip.saturating_sub(1);
                }
            }
            _ => (self.skip, self.penalty) = (0, 1),
        }
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(max_spin: Duration) -> Spinner {
        Spinner { max: Some(max_spin), ..Spinner::new(Wait::Block) }
    }

    #[test]
    fn spinning_stops_where_it_does_not_pay_and_is_tried_again() {
        let mut spinner = adaptive(Duration::from_nanos(1));
        let mut spun = 0;
        for _ in 0..1000 {
            let mut looked = false;
            while spinner.spin(Deadline::Never, || {
                looked = true;
                false
            }) != Spun::Enough
            {}
            spun += u32::from(looked);
            spinner.done();
        }
        assert!((2..40).contains(&spun), "spun {spun} times in 1000 waits");
    }

    #[test]
    fn spinning_goes_on_where_it_pays() {
        let mut spinner = adaptive(Duration::from_hours(1));
        for _ in 0..1000 {
            assert_eq!(spinner.spin(Deadline::Never, || true), Spun::Ready);
            assert!(spinner.done());
        }
    }

    #[test]
    fn blocking_never_spins_and_spinning_looks_at_the_socket() {
        assert_eq!(Spinner::new(Wait::Block).spin(Deadline::Never, || true), Spun::Enough);
        let mut spinner = Spinner::new(Wait::Spin);
        assert_eq!(spinner.spin(Deadline::Never, || false), Spun::LookAtSocket);
        spinner.done();
        assert_eq!(spinner.spin(Deadline::Never, || false), Spun::LookAtSocket);
        assert_eq!(spinner.spin(Deadline::At(Instant::now()), || false), Spun::Enough);
    }

    #[test]
    fn endless_timeouts_are_no_limit() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::Never);
        assert!(Deadline::after(Duration::ZERO).passed());
    }
}
