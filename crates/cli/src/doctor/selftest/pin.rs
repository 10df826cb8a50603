//! A CPU for each of the two processes while figures are taken, as in the benchmarks.
//!
//! The scheduler likes to put two processes that wake each other onto one CPU, where neither can spin for the other: round trips
//! then take several times as long.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two last CPUs that this thread may use, since interrupts come to the first by default; `None` if there is only one.
fn last_two(usable: &CpuSet) -> Option<(usize, usize)> {
    let mut last = (0..CpuSet::MAX_CPU).rev().filter(|cpu| usable.is_set(*cpu));
    Some((last.next()?, last.next()?))
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

/// Keeps the child on its CPU for ever. Where that is forbidden, figures are what they are.
pub(super) fn child() {
    if let Ok(usable) = sched_getaffinity(None)
        && let Some((last, _)) = last_two(&usable)
    {
        let _ = sched_setaffinity(None, &only(last));
    }
}

/// This thread, kept on its CPU until it is dropped.
#[derive(Debug)]
pub(super) struct Parent {
    before: Option<CpuSet>,
}

impl Parent {
    /// Keeps this thread on a CPU that is not the child's.
    pub(super) fn keep() -> Self {
        let usable = sched_getaffinity(None).ok();
        let before = usable.filter(|usable| {
            last_two(usable).is_some_and(|(_, before)| sched_setaffinity(None, &only(before)).is_ok())
        });
        Self { before }
    }

    /// True if each process has a CPU of its own.
    pub(super) fn is_alone(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(None, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_last_cpus_are_taken_if_there_are_two() {
        let mut set = only(5);
        assert_eq!(last_two(&set), None);
        set.set(0);
        set.set(3);
        assert_eq!(last_two(&set), Some((5, 3)));
    }

    #[test]
    fn thread_has_all_of_its_cpus_back() {
        let before = sched_getaffinity(None).unwrap();
        let kept = Parent::keep();
        let now = sched_getaffinity(None).unwrap();
        assert_eq!((now.count() == 1, kept.is_alone()), (true, before.count() > 1));
        drop(kept);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
