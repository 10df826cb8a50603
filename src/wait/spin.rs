//! [`Spinner`]: looking at memory for a while before sleeping, as long as that pays; and [`Backoff`].

use std::{
    hint::spin_loop,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use rustix::{process::Pid, thread::sched_getaffinity};

use super::{Deadline, SpinResult, Wait};

/// Time between two reads of the socket while spinning.
const SOCKET_LOOK: Duration = Duration::from_micros(10);
/// Looks at memory before the first look at the clock: the shortest waits cost no clock.
const FREE_LOOKS: u32 = 64;
/// Looks at memory between two looks at the clock.
const LOOKS: u32 = 16;
/// Waits without spinning after a spin that found nothing, at least and at most.
const SKIPPED: (u32, u32) = (1, 64);

/// True if this thread and the process `peer` are pinned to the same single CPU; spinning would keep the peer from running.
/// False if the peer has no pid here.
pub(crate) fn pinned_to_same_cpu(peer: Option<NonZeroU32>) -> bool {
    let peer = peer.and_then(|pid| i32::try_from(pid.get()).ok()).and_then(Pid::from_raw);
    match (sched_getaffinity(None), peer.map(|pid| sched_getaffinity(Some(pid)))) {
        (Ok(ours), Some(Ok(theirs))) => ours.count() == 1 && ours == theirs,
        _ => false,
    }
}

/// Exponential back-off for an optimisation that may not help: each failure doubles the number of chances skipped, a success
/// resets it.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    /// Chances still to be skipped.
    pub(crate) skip: u32,
    /// Chances that the next failure skips.
    penalty: u32,
    least: u32,
    most: u32,
}

impl Backoff {
    pub(crate) const fn new((least, most): (u32, u32)) -> Self {
        Self { skip: 0, penalty: least, least, most }
    }

    /// The same, with the least number of chances skipped before the first attempt.
    pub(crate) const fn delayed(self) -> Self {
        Self { skip: self.least, ..self }
    }

    /// Whether to make an attempt at this chance.
    #[inline]
    pub(crate) fn should_try(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }

    pub(crate) fn succeeded(&mut self) {
        (self.skip, self.penalty) = (0, self.least);
    }

    pub(crate) fn failed(&mut self) {
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
    /// The longest spin; `None` has no limit.
    max: Option<Duration>,
    backoff: Backoff,
    state: Spinning,
}

/// How far the present wait has come in spinning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spinning {
    /// There is no wait.
    Idle,
    /// It has looked at memory, and not yet at the clock.
    Free,
    /// When the clock was first read, and when the socket was read last.
    Since(Instant, Instant),
    /// It has ended: sleep.
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
        Self { max, backoff: Backoff::new(SKIPPED), state: Spinning::Idle }
    }

    /// False for [`Wait::Block`], and where spinning is useless.
    pub(crate) fn may_spin(&self) -> bool {
        self.max != Some(Duration::ZERO)
    }

    /// Spins until `ready`, or until something else has to be done. The same wait may call it again after that.
    pub(crate) fn spin(&mut self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> SpinResult {
        let looks = match self.state {
            Spinning::Idle if !self.may_spin() => return SpinResult::GiveUp,
            Spinning::Idle if !self.backoff.should_try() => {
                self.state = Spinning::Over;
                return SpinResult::GiveUp;
            }
            Spinning::Idle => FREE_LOOKS,
            Spinning::Free | Spinning::Since(..) => LOOKS,
            Spinning::Over => return SpinResult::GiveUp,
        };
        if self.state == Spinning::Idle {
            self.state = Spinning::Free;
        }
        let mut looks = looks;
        loop {
            for _ in 0..looks {
                if ready() {
                    return SpinResult::Ready;
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
                    self.backoff.failed();
                }
                return SpinResult::GiveUp;
            }
            if now.saturating_duration_since(looked) >= SOCKET_LOOK {
                self.state = Spinning::Since(started, now);
                return SpinResult::PollSocket;
            }
        }
    }

    /// Ends the wait. True if it never went past spinning.
    pub(crate) fn done(&mut self) -> bool {
        let paid = matches!(self.state, Spinning::Free | Spinning::Since(..));
        self.state = Spinning::Idle;
        if paid {
            self.backoff.succeeded();
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
    fn spinning_stops_where_it_does_not_pay_and_is_retried() {
        let mut spinner = adaptive(Duration::from_nanos(1));
        let mut spun = 0;
        for _ in 0..1000 {
            let mut looked = false;
            while spinner.spin(Deadline::Never, || {
                looked = true;
                false
            }) != SpinResult::GiveUp
            {}
            spun += u32::from(looked);
            spinner.done();
        }
        assert!((2..40).contains(&spun), "spun {spun} times in 1000 waits");
    }

    #[test]
    fn spinning_continues_where_it_pays() {
        let mut spinner = adaptive(Duration::from_hours(1));
        for _ in 0..1000 {
            assert_eq!(spinner.spin(Deadline::Never, || true), SpinResult::Ready);
            assert!(spinner.done());
        }
    }

    #[test]
    fn blocking_never_spins_and_spinning_reads_the_socket() {
        assert_eq!(Spinner::new(Wait::Block, false).spin(Deadline::Never, || true), SpinResult::GiveUp);
        let mut spinner = Spinner::new(Wait::Spin, false);
        assert_eq!(spinner.spin(Deadline::Never, || false), SpinResult::PollSocket);
        spinner.done();
        assert_eq!(spinner.spin(Deadline::Never, || false), SpinResult::PollSocket);
        assert_eq!(spinner.spin(Deadline::At(Instant::now()), || false), SpinResult::GiveUp);
    }
}
