//! [`Deadline`] and [`Budget`]: when a call gives up, and how much a peer can make it do.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Packets that a call reads between two looks at the clock, so that a peer that floods us moves no deadline.
const MAX_PACKETS_PER_CALL: u32 = 64;
/// Packets that a call reads that does not wait. An honest peer's socket holds fewer (278 of the smallest, by default:
/// `net.core.wmem_default`). So later ones make the descriptor readable anew, even for an edge-triggered loop.
const MAX_PACKETS_PER_TRY: u32 = 512;

/// When a call gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    Never,
    At(Instant),
}

impl Deadline {
    /// The deadline after `timeout`; none if it is beyond the range of `Instant`. The clock is not read for the longest one.
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout == Duration::MAX {
            return Self::Never;
        }
        Instant::now().checked_add(timeout).map_or(Self::Never, Self::At)
    }

    /// The time that is left; `Some(ZERO)` when it has passed, `None` if there is no limit.
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

/// The work that one call does for the peer: reading packets, dropping late replies, looking at the ring.
///
/// Every loop that a peer can feed spends a step in each turn.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: u32,
    /// The deadline; until it passes, spent steps are renewed. `None`: they are not.
    deadline: Option<Deadline>,
}

impl Budget {
    /// The budget of a call that waits until `deadline`.
    pub(crate) fn until(deadline: Deadline) -> Self {
        Self { steps: MAX_PACKETS_PER_CALL, deadline: Some(deadline) }
    }

    /// The budget of a call, or of a part of one, that does not wait.
    pub(crate) fn once() -> Self {
        Self { steps: MAX_PACKETS_PER_TRY, deadline: None }
    }

    /// When the call gives up. One that does not wait has no deadline.
    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline.unwrap_or(Deadline::Never)
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
                Some(_) => self.steps = MAX_PACKETS_PER_CALL,
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
    fn budgets_are_spent_or_look_at_the_clock() {
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
    fn timeouts_beyond_the_clock_are_no_limit() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::Never);
        assert!(Deadline::after(Duration::ZERO).passed());
    }
}
