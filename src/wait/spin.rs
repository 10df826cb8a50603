//! [`Spinner`]: looking at memory for a while before sleeping, as long as that pays.

use std::{
    hint::spin_loop,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use rustix::{process::Pid, thread::sched_getaffinity};

use super::{Deadline, Wait};

/// How long a spinning wait may go without a look at the socket.
const SOCKET_LOOK: Duration = Duration::from_micros(10);
/// Looks at memory before the first look at the clock: the shortest waits cost no clock.
const FREE_LOOKS: u32 = 64;
/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 16;
/// A wait that would not have been worth spinning for is followed by this many without spinning, at least and at most.
const SKIPPED: (u32, u32) = (1, 64);

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

/// Whether this thread and the process `peer` may run on one and the same CPU only: while one spins the other cannot run. Of
/// a process that has no number here that is not known.
pub(crate) fn share_the_only_cpu(peer: Option<NonZeroU32>) -> bool {
    let peer = peer.and_then(|pid| i32::try_from(pid.get()).ok()).and_then(Pid::from_raw);
    match (sched_getaffinity(None), peer.map(|pid| sched_getaffinity(Some(pid)))) {
        (Ok(ours), Some(Ok(theirs))) => ours.count() == 1 && ours == theirs,
        _ => false,
    }
}

/// Something that does not always pay. After an attempt in vain some occasions go by: as few as possible the first time, then
/// twice as many each time, up to the most. One that pays forgets all that.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    /// Occasions to come that go by.
    pub(crate) skip: u32,
    /// How many the next attempt in vain adds.
    penalty: u32,
    least: u32,
    most: u32,
}

impl Attempts {
    pub(crate) const fn new((least, most): (u32, u32)) -> Self {
        Self { skip: 0, penalty: least, least, most }
    }

    /// As few as possible go by before the first attempt.
    pub(crate) const fn later(self) -> Self {
        Self { skip: self.least, ..self }
    }

    /// An occasion: whether to make an attempt.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }

    pub(crate) fn paid(&mut self) {
        (self.skip, self.penalty) = (0, self.least);
    }

    pub(crate) fn in_vain(&mut self) {
        self.skip = self.penalty;
        self.penalty = self.penalty.saturating_mul(2).min(self.most);
    }
}

/// One half's waiting, and what it has learned about it.
///
/// Spinning pays when waits are short. After a spin that was in vain the next waits are not spun for: one, then two, four,
/// up to 64 of them, so that it is tried again now and then; after one that paid, all are. So where messages are rare, or
/// the peer cannot run while we spin, a 64th of the waits costs a spin, and where they are not, no wait sleeps.
#[derive(Debug, Clone)]
pub(crate) struct Spinner {
    /// Longest spin; `None` is for ever.
    max: Option<Duration>,
    attempts: Attempts,
    state: Spinning,
}

/// How far the present wait has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spinning {
    /// It has not begun.
    Not,
    /// It has only looked at memory so far.
    Free,
    /// Since when, and when the socket was looked at last.
    Since(Instant, Instant),
    /// It is over: sleep.
    Over,
}

impl Spinner {
    /// `useless` says that the peer cannot run while we spin.
    pub(crate) fn new(wait: Wait, useless: bool) -> Self {
        let max = match wait {
            Wait::Spin => None,
            Wait::Block => Some(Duration::ZERO),
            Wait::Adaptive { .. } if useless => Some(Duration::ZERO),
            Wait::Adaptive { max_spin } => Some(max_spin),
        };
        Self { max, attempts: Attempts::new(SKIPPED), state: Spinning::Not }
    }

    /// Whether it ever spins.
    pub(crate) fn may_spin(&self) -> bool {
        self.max != Some(Duration::ZERO)
    }

    /// Spins until `ready`, or until something else is to be done. Call it again in the same wait after that.
    pub(crate) fn spin(&mut self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> Spun {
        let looks = match self.state {
            Spinning::Not if !self.may_spin() => return Spun::Enough,
            Spinning::Not if !self.attempts.is_due() => {
                self.state = Spinning::Over;
                return Spun::Enough;
            }
            Spinning::Not => FREE_LOOKS,
            Spinning::Free | Spinning::Since(..) => LOOKS,
            Spinning::Over => return Spun::Enough,
        };
        if self.state == Spinning::Not {
            self.state = Spinning::Free;
        }
        let mut looks = looks;
        loop {
            for _ in 0..looks {
                if ready() {
                    return Spun::Ready;
                }
                spin_loop();
            }
            looks = LOOKS;
            let now = Instant::now();
            let (started, looked) = match self.state {
                Spinning::Since(started, looked) => (started, looked),
                _ => (now, now),
            };
            self.state = Spinning::Since(started, looked);
            let vain = self.max.is_some_and(|max| now.saturating_duration_since(started) >= max);
            if vain || matches!(deadline, Deadline::At(at) if now >= at) {
                self.state = Spinning::Over;
                if vain {
                    self.attempts.in_vain();
                }
                return Spun::Enough;
            }
            if now.saturating_duration_since(looked) >= SOCKET_LOOK {
                self.state = Spinning::Since(started, now);
                return Spun::LookAtSocket;
            }
        }
    }

    /// The wait is over. True if spinning got what was waited for.
    pub(crate) fn done(&mut self) -> bool {
        let paid = matches!(self.state, Spinning::Free | Spinning::Since(..));
        self.state = Spinning::Not;
        if paid {
            self.attempts.paid();
        }
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(max_spin: Duration) -> Spinner {
        Spinner::new(Wait::Adaptive { max_spin }, false)
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
        assert_eq!(Spinner::new(Wait::Block, false).spin(Deadline::Never, || true), Spun::Enough);
        let mut spinner = Spinner::new(Wait::Spin, false);
        assert_eq!(spinner.spin(Deadline::Never, || false), Spun::LookAtSocket);
        spinner.done();
        assert_eq!(spinner.spin(Deadline::Never, || false), Spun::LookAtSocket);
        assert_eq!(spinner.spin(Deadline::At(Instant::now()), || false), Spun::Enough);
    }
}
