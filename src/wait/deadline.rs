//! [`Deadline`] and [`Budget`]: when a call gives up, and how much a peer can make it do.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Packets that a call reads without a look at the clock: a peer that floods us with packets cannot keep it.
const MOST_PACKETS: u32 = 64;
/// Packets that a call reads which does not wait. They are more than an honest peer's socket holds (278 of the smallest, by
/// default: `net.core.wmem_default`), so that what is left comes later, and makes the descriptor readable anew even to who
/// looks for edges.
const MOST_AT_ONCE: u32 = 512;

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

/// What one call may do of the work that a peer gives it: reading packets, dropping replies that nobody waits for, looking at
/// what has come. Every loop that a peer can feed spends a step each time round.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u32,
    /// When the steps are spent, the clock is looked at, and there are as many again; `None`: no more.
    deadline: Option<Deadline>,
}

impl Budget {
    /// For a call that waits until `deadline`.
    pub(crate) fn until(deadline: Deadline) -> Self {
        Self { steps: MOST_PACKETS, deadline: Some(deadline) }
    }

    /// For a call, or a part of one, that does not wait.
    pub(crate) fn once() -> Self {
        Self { steps: MOST_AT_ONCE, deadline: None }
    }

    /// Spends a step. False if there is none: the call has done enough.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the call's deadline has passed.
    #[inline]
    pub(crate) fn spend(&mut self) -> Result<bool> {
        if self.steps == 0 {
            match self.deadline {
                None => return Ok(false),
                Some(deadline) if deadline.passed() => return Err(Error::Timeout),
                Some(_) => self.steps = MOST_PACKETS,
            }
        }
        self.steps = self.steps.saturating_sub(1);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_or_looks_at_the_clock() {
        let spend = |mut budget: Budget| (0..1000).map(|_| budget.spend()).collect::<Vec<_>>();
        let steps = |spent: Vec<Result<bool>>| spent.iter().filter(|step| matches!(step, Ok(true))).count();
        assert_eq!(steps(spend(Budget::once())), 512);
        assert!(matches!(spend(Budget::once()).pop(), Some(Ok(false))));
        assert_eq!(steps(spend(Budget::until(Deadline::Never))), 1000);
        assert_eq!(steps(spend(Budget::until(Deadline::after(Duration::from_hours(1))))), 1000);
        let passed = spend(Budget::until(Deadline::after(Duration::ZERO)));
        assert!(matches!(passed.last(), Some(Err(Error::Timeout))));
        assert_eq!(steps(passed), 64);
    }

    #[test]
    fn endless_timeouts_are_no_limit() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::Never);
        assert!(Deadline::after(Duration::ZERO).passed());
    }
}
