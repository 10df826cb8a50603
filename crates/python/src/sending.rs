//! Sending, in the steps that channels and publishers share: what is given, room, the copy, and the message itself.

use std::{
    os::fd::{AsFd, OwnedFd, RawFd},
    sync::Arc,
};

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyString,
};
use sealane::{Control, Error};

use crate::{
    awaited::Awaited,
    errors::{failed, of_closed},
    lender::{Lender, Verb},
    outlet::{self, Outlet},
    raw::{self, Buffer, Place},
    wait::{Timeout, in_slices, until_worthwhile},
};

/// The control bytes and descriptors of a message, copied from what Python gave.
pub(crate) struct Given {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Given {
    /// Copies the bytes, and duplicates the descriptors: Python may close its own while the call waits.
    pub(crate) fn of(control: Option<&Bound<'_, PyAny>>, fds: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let bytes = control.map(bytes_of).transpose()?.unwrap_or_default();
        let mut duplicates = Vec::new();
        if let Some(fds) = fds {
            for fd in fds.try_iter()? {
                duplicates.push(duplicate(&fd?)?);
            }
        }
        Ok(Self { bytes, fds: duplicates })
    }

    pub(crate) fn control(&self) -> Control<'_> {
        Control::new(&self.bytes).fds(self.fds.iter().map(AsFd::as_fd))
    }
}

fn bytes_of(control: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(text) = control.cast::<PyString>() {
        return Ok(text.to_cow()?.into_owned().into_bytes());
    }
    if !raw::has_buffer(control) {
        let text = format!("control: bytes or str expected, {} found", control.get_type());
        return Err(PyTypeError::new_err(text));
    }
    let buffer = Buffer::of(control)?;
    if buffer.is_array_of_no_bytes() {
        let text = format!(
            "control: bytes, str or one record expected, an array found ({}): payload= or a loan carries it",
            buffer.shown()
        );
        return Err(PyTypeError::new_err(text));
    }
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_to(&mut bytes);
    Ok(bytes)
}

/// Duplicates the descriptor of an object that has `fileno()`, or of a number.
pub(crate) fn duplicate(object: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let number: RawFd = match object.extract() {
        Ok(number) => number,
        Err(_) => object.call_method0("fileno").and_then(|number| number.extract()).map_err(|_| {
            let kind = object.get_type();
            PyTypeError::new_err(format!("a descriptor expected (a number, or fileno()), {kind} found"))
        })?,
    };
    raw::duplicate(number).map_err(|error| failed(&format!("duplicating descriptor {number}"), None, &error))
}

/// The sending side of a channel or publisher. A loan has it in an `Arc`, so that it does not need the object of Python.
pub(crate) struct Sending<L: Lender> {
    pub(crate) outlet: Outlet<L>,
    /// The descriptor that announces room.
    pub(crate) fd: RawFd,
}

impl<L: Lender> Sending<L> {
    pub(crate) fn new(lender: L, fd: RawFd) -> Self {
        Self { outlet: Outlet::new(lender), fd }
    }

    /// The same side without its kind.
    pub(crate) fn lease(self: &Arc<Self>) -> Arc<dyn Lease> {
        Arc::<Self>::clone(self)
    }

    /// Takes the lender, and makes a loan of it. It is back if that fails.
    fn reserve(&self, py: Python<'_>, len: usize, timeout: Timeout) -> PyResult<L::Loan> {
        let mut kept = Some(self.outlet.take()?);
        let lent = in_slices(py, timeout, Awaited::Room(len, L::KEEPER), |time| {
            let lender = if self.outlet.is_closed() { None } else { kept.take() };
            lender.ok_or(Error::Disconnected)?.lend(len, time).map_err(|(mut lender, error)| {
                // A sender that waits for room wakes the readers that make it.
                lender.flush();
                kept = Some(lender);
                error
            })
        });
        if let Some(lender) = kept {
            self.outlet.put_back(lender);
        }
        lent.map_err(|error| of_closed(error, self.outlet.is_closed()))
    }

    /// Sends a loan that was taken, and puts the lender back. If it was not sent it is the caller's again.
    fn commit(
        &self,
        py: Python<'_>,
        loan: L::Loan,
        verb: Verb,
        given: &Given,
        timeout: Timeout,
    ) -> Result<u64, (L::Loan, PyErr)> {
        let mut kept = Some(loan);
        let mut refused = Error::Full;
        let sent = in_slices(py, timeout, Awaited::Socket, |time| {
            until_worthwhile(&refused, L::room(self.fd), time);
            let loan = kept.take().ok_or(Error::Disconnected)?;
            L::commit(loan, verb, &given.control()).map_err(|(mut loan, error)| {
                L::flush_lent(&mut loan);
                kept = Some(loan);
                if matches!(error, Error::FdsInFlight) {
                    refused = Error::FdsInFlight;
                }
                error
            })
        });
        match (sent, kept) {
            (Ok((lender, number)), _) => {
                self.outlet.put_back(lender);
                Ok(number)
            }
            (Err(error), Some(loan)) => Err((loan, of_closed(error, self.outlet.is_closed()))),
            (Err(_), None) => unreachable!("a loan that was not sent is kept"),
        }
    }
}

/// The sending side of either kind, for what a loan and a batch do with it.
pub(crate) trait Lease: Send + Sync {
    /// Sends a message, with a copy of `payload` if there is one.
    fn send(
        &self,
        py: Python<'_>,
        verb: Verb,
        given: &Given,
        payload: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
    ) -> PyResult<u64>;
    /// Opens a loan. Returns its number and place.
    fn lend(&self, py: Python<'_>, len: usize, timeout: Timeout) -> PyResult<(u64, Place)>;
    /// Wakes sleeping readers for what was sent later.
    fn flush(&self) -> PyResult<()>;
    /// Counts a view of the open loan of this number.
    fn begin_view(&self, number: u64) -> PyResult<()>;
    /// A view is gone.
    fn end_view(&self);
    /// Sends the open loan of this number, or `size` bytes of it. It stays open if that fails.
    fn send_loan(
        &self,
        py: Python<'_>,
        number: u64,
        verb: Verb,
        given: &Given,
        size: Option<i64>,
        timeout: Timeout,
    ) -> PyResult<u64>;
    /// Ends a loan that is open.
    fn discard(&self, number: u64) -> PyResult<()>;
    /// Whether the loan can still be sent.
    fn is_open(&self, number: u64) -> bool;
}

impl<L: Lender> Lease for Sending<L> {
    fn send(
        &self,
        py: Python<'_>,
        verb: Verb,
        given: &Given,
        payload: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
    ) -> PyResult<u64> {
        let Some(payload) = payload else {
            return outlet::with(&self.outlet, |lender| {
                in_slices(py, timeout, Awaited::Socket, |time| {
                    if self.outlet.is_closed() {
                        return Err(Error::Disconnected);
                    }
                    let posted = lender.post(verb, &given.control(), time);
                    if posted.is_err() {
                        lender.flush();
                    }
                    posted
                })
            });
        };
        let buffer = Buffer::of(payload)?;
        let mut loan = self.reserve(py, buffer.len(), timeout)?;
        py.detach(|| buffer.copy_to(L::memory(&mut loan)));
        match self.commit(py, loan, verb, given, timeout) {
            Ok(number) => Ok(number),
            Err((loan, error)) => {
                self.outlet.put_back(L::discard(loan));
                Err(error)
            }
        }
    }

    fn lend(&self, py: Python<'_>, len: usize, timeout: Timeout) -> PyResult<(u64, Place)> {
        let mut loan = self.reserve(py, len, timeout)?;
        let place = Place::of(L::memory(&mut loan));
        Ok((self.outlet.lend(loan), place))
    }

    fn flush(&self) -> PyResult<()> {
        Ok(self.outlet.flush()?)
    }

    fn begin_view(&self, number: u64) -> PyResult<()> {
        Ok(self.outlet.begin_view(number)?)
    }

    fn end_view(&self) {
        self.outlet.end_view();
    }

    fn send_loan(
        &self,
        py: Python<'_>,
        number: u64,
        verb: Verb,
        given: &Given,
        size: Option<i64>,
        timeout: Timeout,
    ) -> PyResult<u64> {
        let mut loan = self.outlet.take_loan(number)?;
        if let Some(size) = size {
            let len = L::memory(&mut loan).len();
            match usize::try_from(size) {
                Ok(size) if size <= len => L::truncate(&mut loan, size),
                _ => {
                    self.outlet.put_loan_back(loan);
                    let text =
                        format!("size: from 0 to at most the loan's {len} bytes expected, {size} found");
                    return Err(PyValueError::new_err(text));
                }
            }
        }
        self.commit(py, loan, verb, given, timeout).map_err(|(loan, error)| {
            self.outlet.put_loan_back(loan);
            error
        })
    }

    fn discard(&self, number: u64) -> PyResult<()> {
        Ok(self.outlet.discard(number)?)
    }

    fn is_open(&self, number: u64) -> bool {
        self.outlet.is_open(number)
    }
}
