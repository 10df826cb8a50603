//! [`Waiting`]: what some threads hand over to one that may be blocked.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nobody waits for more.
    Stopped,
    /// Nothing is taken any more.
    Abandoned,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    phase: Phase,
}

/// See the module. The oldest is taken first.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), phase: Phase::Open };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Waiting<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; never blocks. False, and it is dropped, if `most` wait already, or all are abandoned.
    pub(crate) fn push(&self, value: T, most: usize) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Abandoned || state.waiting.len() >= most {
            return false;
        }
        state.waiting.push_back(value);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The next one, as soon as there is one. `None` if there is none and no more come.
    pub(crate) fn next(&self) -> Option<T> {
        let state = self.lock();
        let state =
            self.changed.wait_while(state, |state| state.waiting.is_empty() && state.phase == Phase::Open);
        state.unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// No more come. Those that wait are still taken.
    pub(crate) fn stop(&self) {
        self.lock().phase = Phase::Stopped;
        self.changed.notify_all();
    }

    /// No more come, and those that wait are dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.phase = Phase::Abandoned;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_first_and_what_does_not_fit_is_dropped() {
        let waiting = Waiting::default();
        assert_eq!([1, 2, 3].map(|value| waiting.push(value, 2)), [true, true, false]);
        waiting.stop();
        assert_eq!([(); 3].map(|()| waiting.next()), [Some(1), Some(2), None]);
        assert!(waiting.push(4, 2));
        waiting.abandon();
        assert_eq!(waiting.next(), None);
        assert!(!waiting.push(5, 2));
    }
}
