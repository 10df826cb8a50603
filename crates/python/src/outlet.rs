//! [`Outlet`]: the sending side of a channel or publisher, and the one loan that may be open.
//!
//! An array of Python cannot be revoked. So views of a loan are counted, and nothing is sent while there is one.
//!
//! ```text
//!          take            lend                 take_loan
//! Resting ──────► Busy ──────────► Lent ─────────────────────► Busy ──► Resting  (sent)
//!    ▲  ◄────────  │               │  ▲                          │
//!    │   put_back  ▼               │  └──────────────────────────┘           (not sent)
//!    │  closed: Gone               │ discard
//!    │                             ├─ without views ──► Resting
//!    └── the last view dies ── Ended ◄─ with views
//! ```
//!
//! Invariants:
//! - Views exist in `Lent` and `Ended` only, and these states are left only when there is none. So the memory of a view is
//!   mapped, and it is nobody else's.
//! - The state is `Busy` before the interpreter's lock is given up, and a loan that is `Busy` gives no view.
//! - The lock is held for some instructions, or for waking readers, which never waits; never while the interpreter's lock is awaited.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pyo3::{PyErr, PyResult, exceptions::PyBufferError};

use crate::{
    errors::{busy, closed, of_closed},
    generation::generation,
    lender::Lender,
};

/// The sending side: at rest, in use by a call, lent, or gone.
pub(crate) struct Outlet<L: Lender> {
    inner: Mutex<Inner<L>>,
}

struct Inner<L: Lender> {
    state: State<L>,
    /// Views of the loan that are alive.
    views: usize,
    /// The number of the last loan. Each loan has another one.
    loan: u64,
    closed: bool,
    /// The process that has used it last: see [`generation`].
    generation: u64,
}

enum State<L: Lender> {
    Resting(L),
    Busy,
    Lent(L::Loan),
    /// Discarded, but views are alive.
    Ended(L::Loan),
    Gone,
}

/// Why the sending side cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another thread's call has it.
    InUse,
    /// A loan is open.
    LoanIsOpen,
    /// A discarded loan has views.
    ViewsOfEnded(usize),
    /// This loan has views.
    Views(usize),
    /// This loan is being sent.
    BeingSent,
    /// This loan was sent or discarded.
    LoanHasEnded,
    /// It was closed.
    Closed,
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        let views = |count, rest| {
            let text = format!("{count} views of the loan's memory are alive (arrays, memoryviews): {rest}");
            PyBufferError::new_err(text)
        };
        match refusal {
            Refusal::InUse => busy("the sending side is in use by another thread"),
            Refusal::LoanIsOpen => busy("a loan is open: send or discard it first"),
            Refusal::ViewsOfEnded(count) => {
                views(count, "the loan was discarded, and its room is free when they are dropped")
            }
            Refusal::Views(count) => views(count, "drop them, then send"),
            Refusal::BeingSent => PyBufferError::new_err("the loan is being sent by another thread"),
            Refusal::LoanHasEnded => PyBufferError::new_err("the loan was sent or discarded: make a new one"),
            Refusal::Closed => closed(),
        }
    }
}

impl<L: Lender> Outlet<L> {
    pub(crate) fn new(lender: L) -> Self {
        let inner = Inner {
            state: State::Resting(lender),
            views: 0,
            loan: 0,
            closed: false,
            generation: generation(),
        };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<L>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lender for a call. The caller puts it back, or a loan of it.
    pub(crate) fn take(&self) -> Result<L, Refusal> {
        let mut inner = self.lock();
        match mem::replace(&mut inner.state, State::Busy) {
            State::Resting(lender) => {
                inner.generation = generation();
                Ok(lender)
            }
            other => {
                inner.state = other;
                Err(inner.refusal())
            }
        }
    }

    /// Puts the lender back after a call.
    pub(crate) fn put_back(&self, lender: L) {
        self.leave_busy(State::Resting(lender));
    }

    /// Opens a loan of the lender that was taken. Returns its number.
    pub(crate) fn lend(&self, loan: L::Loan) -> u64 {
        let number = {
            let mut inner = self.lock();
            inner.loan += 1;
            inner.loan
        };
        self.leave_busy(State::Lent(loan));
        number
    }

    /// Takes the open loan of this number to send it, if it has no views.
    pub(crate) fn take_loan(&self, number: u64) -> Result<L::Loan, Refusal> {
        let mut inner = self.lock();
        inner.check_open(number)?;
        if inner.views > 0 {
            return Err(Refusal::Views(inner.views));
        }
        match mem::replace(&mut inner.state, State::Busy) {
            State::Lent(loan) => {
                inner.generation = generation();
                Ok(loan)
            }
            other => {
                inner.state = other;
                Err(Refusal::LoanHasEnded)
            }
        }
    }

    /// Puts a loan back that was not sent: it is open as before.
    pub(crate) fn put_loan_back(&self, loan: L::Loan) {
        self.leave_busy(State::Lent(loan));
    }

    fn leave_busy(&self, state: State<L>) {
        let mut inner = self.lock();
        let state = if inner.closed { State::Gone } else { state };
        let before = mem::replace(&mut inner.state, state);
        drop(inner);
        debug_assert!(matches!(before, State::Busy), "whoever took it puts it back");
    }

    /// Counts a view, if the loan of this number is open.
    pub(crate) fn begin_view(&self, number: u64) -> Result<(), Refusal> {
        let mut inner = self.lock();
        inner.check_open(number).map_err(|refusal| match refusal {
            Refusal::InUse => Refusal::BeingSent,
            refusal => refusal,
        })?;
        inner.views += 1;
        Ok(())
    }

    /// A view is gone. The last view of a discarded loan gives its room back.
    pub(crate) fn end_view(&self) {
        let mut inner = self.lock();
        inner.views -= 1;
        let left = if inner.views == 0 && matches!(inner.state, State::Ended(_)) {
            Some(inner.end_loan())
        } else {
            None
        };
        drop(inner);
        drop(left);
    }

    /// Ends the open loan of this number without sending it. A loan that has ended stays as it is.
    pub(crate) fn discard(&self, number: u64) -> Result<(), Refusal> {
        let mut inner = self.lock();
        match inner.check_open(number) {
            Ok(()) => {}
            Err(Refusal::LoanHasEnded) => return Ok(()),
            Err(refusal) => return Err(refusal),
        }
        let left = inner.end_loan();
        drop(inner);
        drop(left);
        Ok(())
    }

    /// Wakes sleeping readers for what was sent later, also while a loan is open or has views.
    pub(crate) fn flush(&self) -> Result<(), Refusal> {
        match &mut self.lock().state {
            State::Resting(lender) => lender.flush(),
            State::Lent(loan) | State::Ended(loan) => L::flush_lent(loan),
            State::Busy => return Err(Refusal::InUse),
            State::Gone => {}
        }
        Ok(())
    }

    /// Whether the loan of this number is open.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.lock().check_open(number).is_ok()
    }

    /// Ends the sending side. A call that has it ends it when it returns, and the last view of a loan ends that.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let left = match mem::replace(&mut inner.state, State::Gone) {
            State::Resting(lender) => Some(State::Resting(lender)),
            State::Lent(loan) | State::Ended(loan) if inner.views > 0 => {
                inner.state = State::Ended(loan);
                None
            }
            State::Busy => {
                inner.state = State::Busy;
                None
            }
            left => Some(left),
        };
        drop(inner);
        drop(left);
    }

    /// Whether this process has made or used it.
    pub(crate) fn is_ours(&self) -> bool {
        self.lock().generation == generation()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl<L: Lender> Inner<L> {
    fn check_open(&self, number: u64) -> Result<(), Refusal> {
        match self.state {
            State::Busy if self.loan == number => Err(Refusal::InUse),
            State::Lent(_) if self.loan == number => Ok(()),
            _ => Err(Refusal::LoanHasEnded),
        }
    }

    fn refusal(&self) -> Refusal {
        match self.state {
            State::Resting(_) | State::Busy => Refusal::InUse,
            State::Lent(_) => Refusal::LoanIsOpen,
            State::Ended(_) => Refusal::ViewsOfEnded(self.views),
            State::Gone => Refusal::Closed,
        }
    }

    /// Ends the loan as far as its views allow. Returns what is left, to be dropped without the lock.
    fn end_loan(&mut self) -> Option<State<L>> {
        match mem::replace(&mut self.state, State::Gone) {
            State::Lent(loan) | State::Ended(loan) if self.views > 0 => {
                self.state = State::Ended(loan);
                None
            }
            State::Lent(loan) | State::Ended(loan) if !self.closed => {
                self.state = State::Resting(L::discard(loan));
                None
            }
            State::Lent(loan) | State::Ended(loan) => Some(State::Ended(loan)),
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// Runs `act` with the lender, which comes back whatever happens.
pub(crate) fn with<L: Lender, R>(outlet: &Outlet<L>, act: impl FnOnce(&mut L) -> PyResult<R>) -> PyResult<R> {
    let mut guard = Taken { outlet, lender: Some(outlet.take()?) };
    let lender = guard.lender.as_mut().ok_or(Refusal::InUse)?;
    act(lender).map_err(|error| of_closed(error, outlet.is_closed()))
}

struct Taken<'o, L: Lender> {
    outlet: &'o Outlet<L>,
    lender: Option<L>,
}

impl<L: Lender> Drop for Taken<'_, L> {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.take() {
            self.outlet.put_back(lender);
        }
    }
}
