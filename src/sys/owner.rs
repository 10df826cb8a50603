//! [`Owner`]: which process's drop of a value is noticed outside that process.
//!
//! A fork has a copy of every value, and of every descriptor in it. Therefore a value whose drop has an effect outside its
//! process (a channel's link with the payloads of its ring, a listener's file, a registration with a runtime, a child that
//! was started) has an owner: the process that made it, until a fork *uses* its copy: sends, lends, receives, accepts. From
//! then on that copy is the fork's. A copy that anybody else drops is closed and unmapped, and nothing else.
//!
//! A program that goes into the background (`daemon(3)`) keeps what it has, and its drops are noticed. A helper that drops
//! what it has inherited, or exits with it, is not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys::generation::{generation, generation_or_zero};

/// Owned by no process yet.
const UNUSED: u64 = 0;
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

    /// No process, until one uses the value: its maker has no claim to it.
    pub(crate) fn unused() -> Self {
        Self(AtomicU64::new(UNUSED))
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

    /// Says the same as [`is_here`](Self::is_here), in two loads, or no: in a process whose number is not known at a
    /// glance.
    #[inline]
    pub(crate) fn is_here_at_a_glance(&self) -> bool {
        // No number is 0, so an unknown one equals none.
        self.0.load(Relaxed) == generation_or_zero()
    }

    /// The value has come to its end, for good: nobody owns this copy from now on.
    pub(crate) fn give_up(&self) {
        self.0.store(NOBODY, Relaxed);
    }
}
