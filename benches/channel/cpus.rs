//! Which CPU a thread runs on.

use std::thread::{self, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread on the first CPU that it may use, until this is dropped.
///
/// Establish a pair before that: a channel whose peer shares its only CPU does not spin.
#[must_use]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn first() -> Self {
        let before = sched_getaffinity(None).unwrap();
        pin(&before, 0);
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.before).unwrap();
    }
}

/// A thread on the second CPU, if there are two.
pub(crate) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(move || {
        second();
        work()
    })
}

/// Keeps this thread, whose CPUs were not narrowed before, on the second CPU, if there are two.
pub(crate) fn second() {
    pin(&sched_getaffinity(None).unwrap(), 1);
}

fn pin(allowed: &CpuSet, index: usize) {
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    if let Some(cpu) = cpus.nth(index) {
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).unwrap();
    }
}
