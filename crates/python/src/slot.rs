//! [`Slot`]: a value that one call at a time may use, and that `close()` ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use crate::{
    errors::{busy, closed, of_closed},
    generation::generation,
};

/// A value for one call at a time. The lock is held for some instructions only: a call takes the value out.
pub(crate) struct Slot<T> {
    inner: Mutex<Inner<T>>,
    /// The value's name in the text of an exception.
    what: &'static str,
}

struct Inner<T> {
    value: Option<Box<T>>,
    closed: bool,
    /// The process that has used it last: see [`generation`].
    generation: u64,
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T, what: &'static str) -> Self {
        Self {
            inner: Mutex::new(Inner {
                value: Some(Box::new(value)),
                closed: false,
                generation: generation(),
            }),
            what,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` with the value, which comes back whatever happens.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut T) -> PyResult<R>) -> PyResult<R> {
        let mut taken = Taken { slot: self, value: Some(self.take()?) };
        let acted = match &mut taken.value {
            Some(value) => act(value),
            None => Err(busy(self.what)),
        };
        acted.map_err(|error| of_closed(error, self.is_closed()))
    }

    /// Takes the value for good.
    pub(crate) fn take(&self) -> PyResult<Box<T>> {
        let mut inner = self.lock();
        match inner.value.take() {
            Some(value) => {
                inner.generation = generation();
                Ok(value)
            }
            None if inner.closed => Err(closed()),
            None => Err(busy(self.what)),
        }
    }

    /// Drops the value, or has the call that uses it drop it.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let value = inner.value.take();
        drop(inner);
        drop(value);
    }

    /// Whether this process has made or used the value.
    pub(crate) fn is_ours(&self) -> bool {
        self.lock().generation == generation()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

struct Taken<'s, T> {
    slot: &'s Slot<T>,
    value: Option<Box<T>>,
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut inner = self.slot.lock();
        let value = self.value.take();
        if inner.closed {
            drop(inner);
            drop(value);
        } else {
            inner.value = value;
        }
    }
}
