//! [`Owner`]: which process answers for what is felt outside of it.
//!
//! A fork has a copy of every value, and of every descriptor behind it. So whatever has an effect beyond its own process
//! when it is dropped (the link of a channel, what was released of a ring, a listener's file, a child that was started) has
//! an owner: the process that made it, until a fork *uses* its copy: sends, lends, receives, accepts. From then on that copy
//! is the fork's. Dropped by anybody else it is closed and unmapped, and nothing else.
//!
//! So a program that goes into the background (`daemon(3)`) keeps what it has, and its drops are heard; and nobody notices
//! a helper that drops, or exits with, what it has inherited.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::raw::generation::{generation, generation_or_zero};

/// Owned by no process any more.
const NOBODY: u64 = u64::MAX;

/// The process that owns this copy of a value.
#[derive(Debug)]
pub(crate) struct Owner(AtomicU64);

impl Owner {
    /// The process that asks: it makes the value.
    pub(crate) fn here() -> Self {
        Self(AtomicU64::new(generation()))
    }

    /// This process uses the value: its copy belongs to it from now on. False if the value has been given up.
    pub(crate) fn claim(&self) -> bool {
        let here = generation();
        let claimed = |owner| (owner != NOBODY).then_some(here);
        self.0.fetch_update(Relaxed, Relaxed, claimed).is_ok()
    }

    /// Whether this process owns its copy of the value, and has not given it up.
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(Relaxed) == generation()
    }

    /// As [`is_here`](Self::is_here), in two loads. It may say no where that says yes: in a process whose number is not known
    /// at a glance.
    #[inline]
    pub(crate) fn is_here_at_a_glance(&self) -> bool {
        // No number is 0, so an unknown one is nobody's.
        self.0.load(Relaxed) == generation_or_zero()
    }

    /// The value has come to its end, for good: nobody owns this copy from now on.
    pub(crate) fn give_up(&self) {
        self.0.store(NOBODY, Relaxed);
    }
}
