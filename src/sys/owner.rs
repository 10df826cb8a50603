//! [`Owner`]: the process whose drop of a value has an effect outside that process.
//!
//! A fork has a copy of every value, and of every descriptor in it. Therefore a value with such a drop has an owner. Such
//! values are a channel's link with the payloads of its ring, a listener's file, a registration with a runtime, and a child
//! that was started. The owner is the process that made the value, until a fork *uses* its copy: sends, lends, receives,
//! accepts. From then on the fork owns its copy. A drop by any other process closes and unmaps the copy, and nothing else.
//!
//! So a program that goes into the background (`daemon(3)`) keeps its values, and its drops are noticed elsewhere. The drops
//! of a helper that has merely inherited copies are not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys::generation::{generation, generation_or_zero};

/// The value has no owner yet. No process has this number, and no unknown number, 0, equals it.
const UNUSED: u64 = u64::MAX - 1;
/// The value will have no owner.
const NOBODY: u64 = u64::MAX;

/// The process that owns this copy of a value.
#[derive(Debug)]
pub(crate) struct Owner(AtomicU64);

impl Owner {
    /// The calling process, which makes the value.
    pub(crate) fn here() -> Self {
        Self(AtomicU64::new(generation()))
    }

    /// No process, until one uses the value. Its maker has no claim to it.
    pub(crate) fn unused() -> Self {
        Self(AtomicU64::new(UNUSED))
    }

    /// Makes this process the owner of its copy, because it uses the value. False if the value has been given up.
    pub(crate) fn claim(&self) -> bool {
        let here = generation();
        let claimed = |owner| (owner != NOBODY).then_some(here);
        self.0.fetch_update(Relaxed, Relaxed, claimed).is_ok()
    }

    /// True if this process owns its copy of the value, and has not given it up.
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(Relaxed) == generation()
    }

    /// Answers as [`is_here`](Self::is_here), in two loads, or false where two loads are not enough to know.
    #[inline]
    pub(crate) fn is_here_at_a_glance(&self) -> bool {
        // No owner is 0, so that an unknown number equals none.
        self.0.load(Relaxed) == generation_or_zero()
    }

    /// Leaves this copy without an owner, for ever: the value has come to its end.
    pub(crate) fn give_up(&self) {
        self.0.store(NOBODY, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_belongs_to_the_process_that_uses_it() {
        let owner = Owner::unused();
        // A process that has not taken a number yet must not take itself for the owner.
        assert!(!owner.is_here_at_a_glance() && !owner.is_here());
        assert!(owner.claim() && owner.is_here() && owner.is_here_at_a_glance());
        owner.give_up();
        assert!(!owner.claim() && !owner.is_here() && !owner.is_here_at_a_glance());
    }
}
