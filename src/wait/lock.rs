//! Locking in a process that may be a fork.

use std::{
    sync::{Mutex, MutexGuard, TryLockError},
    thread::yield_now,
};

/// Turns of other threads after which a lock that none of them gives back is nobody's: some milliseconds at most.
const TURNS: u32 = 1000;

/// Locks for a moment's work. `None` if the lock is not given back: a fork has a copy of what another thread had locked, and
/// not that thread.
///
/// A panic of another thread leaves nothing half-changed: no critical section here panics.
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
