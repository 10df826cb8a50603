//! Locking in a process that may be a fork.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    thread::yield_now,
};

/// Yields after which a lock that no thread releases counts as lost: some milliseconds at most.
const TURNS: u32 = 1000;

/// Locks for a short critical section. A panic of another thread leaves no state half-changed, since no critical section
/// here panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Like [`lock`]. `None` if the lock is never released: a fork has a copy of a lock that another thread held, and no copy of
/// that thread.
pub(crate) fn lock_unless_lost<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    (0..TURNS).find_map(|_| match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => {
            yield_now();
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_that_is_not_given_back_is_given_up() {
        let mutex = Mutex::new(1);
        let guard = lock_unless_lost(&mutex).unwrap();
        assert!(lock_unless_lost(&mutex).is_none());
        drop(guard);
        assert_eq!(lock_unless_lost(&mutex).map(|value| *value), Some(1));
    }
}
