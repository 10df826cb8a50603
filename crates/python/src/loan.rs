//! `Loan` and its views: memory of the ring that Python fills in place.

#![expect(unsafe_code, reason = "the buffer protocol is given by a pair of unsafe methods")]

use std::{ffi::c_int, sync::Arc};

use pyo3::{exceptions::PyBufferError, ffi, prelude::*, types::PyTuple};

use crate::{
    batch::Open,
    lender::Verb,
    message::Message,
    numpy::{self, Elements, shape_of},
    raw::Place,
    sending::{Given, Lease},
    wait::Timeout,
};

/// Memory of the ring, to be filled in place and sent.
///
/// The documented form is ``loan.array[...] = frame; loan.send()``. Each access of ``array`` builds a new array, which must be
/// gone before the loan is sent: an array cannot be revoked.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Loan {
    lease: Arc<dyn Lease>,
    /// The batch that it was made by.
    batch: Option<Open>,
    number: u64,
    place: Place,
    /// The type of the elements, unless they are bytes.
    dtype: Option<Py<PyAny>>,
    shape: Py<PyTuple>,
}

/// A view of a loan: as long as it lives the loan is not sent, and its memory stays. It has no methods; arrays have it as `base`.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct View {
    lease: Arc<dyn Lease>,
    place: Place,
}

impl Drop for View {
    fn drop(&mut self) {
        self.lease.end_view();
    }
}

#[pymethods]
impl View {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let place = slf.get().place.copy();
        // SAFETY: 1. `view` comes from Python. 2. The loan is open or ended while there is a view, by the invariant of `Outlet`.
        unsafe { place.describe(slf.as_any(), view, flags) }
    }
}

impl Loan {
    /// Lends room for an array of this shape: waits for room.
    pub(crate) fn lend(
        lease: Arc<dyn Lease>,
        batch: Option<Open>,
        shape: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let py = shape.py();
        let (shape, count) = shape_of(shape)?;
        let elements = dtype.map(|dtype| Elements::of(py, dtype)).transpose()?;
        let size = elements.as_ref().map_or(1, |elements| elements.size);
        // A product that overflows is too long for any ring.
        let (number, place) = lease.lend(py, count.saturating_mul(size), Timeout::of(timeout)?)?;
        let dtype = elements.map(|elements| elements.dtype.unbind());
        Ok(Self { lease, batch, number, place, dtype, shape: shape.unbind() })
    }

    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, View>> {
        self.lease.begin_view(self.number)?;
        // From here on the value counts, also if no object can be made of it.
        Bound::new(py, View { lease: Arc::clone(&self.lease), place: self.place.copy() })
    }

    fn commit(
        &self,
        py: Python<'_>,
        verb: Verb,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        size: Option<i64>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let (given, timeout) = (Given::of(control, fds)?, Timeout::of(timeout)?);
        self.lease.send_loan(py, self.number, verb, &given, size, timeout)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // An error means that it was sent, or that its channel is closed.
        let _ = self.lease.discard(self.number);
    }
}

#[pymethods]
impl Loan {
    /// A new array over the memory of the loan.
    #[getter]
    fn array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let view = self.view(py)?;
        let dtype = self
            .dtype
            .as_ref()
            .map_or_else(|| pyo3::types::PyString::new(py, "u1").into_any(), |dtype| dtype.bind(py).clone());
        Elements::of(py, &dtype)?.over(view.as_any(), self.shape.bind(py))
    }

    /// Raises ``BufferError`` if the loan was sent or discarded: ``numpy.asarray(loan)`` calls this when it gets no buffer.
    ///
    /// Without it ``numpy`` drops the error of the buffer, and makes an array of one object, where writes vanish.
    #[pyo3(signature = (dtype=None, *, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        numpy::converted(&self.array(py)?, dtype, copy)
    }

    /// Bytes of the loan.
    #[getter]
    fn nbytes(&self) -> usize {
        self.place.len()
    }

    /// Whether the loan can still be filled and sent.
    #[getter]
    fn open(&self) -> bool {
        self.lease.is_open(self.number)
    }

    /// Sends the loan as a message, with control bytes and descriptors.
    #[pyo3(signature = (control=None, *, fds=None, size=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        size: Option<i64>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let verb = self.batch.as_ref().map_or(Verb::Send, Open::verb);
        self.commit(py, verb, control, fds, size, timeout).map(drop)
    }

    /// Sends the loan as a request. Returns its number, which the reply names.
    #[pyo3(signature = (control=None, *, fds=None, size=None, timeout=None))]
    fn request(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        size: Option<i64>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        self.commit(py, Verb::Request, control, fds, size, timeout)
    }

    /// Sends the loan as the reply to a request.
    #[pyo3(signature = (to, control=None, *, fds=None, size=None, timeout=None))]
    fn reply(
        &self,
        py: Python<'_>,
        to: &Bound<'_, Message>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        size: Option<i64>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let verb = Verb::Reply(to.get().token()?);
        self.commit(py, verb, control, fds, size, timeout).map(drop)
    }

    /// Sends nothing. The room is free again when the last view is gone. Does nothing to a loan that was sent.
    fn discard(&self) -> PyResult<()> {
        self.lease.discard(self.number)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.lease.discard(self.number)
    }

    fn __repr__(&self) -> String {
        let state = if self.lease.is_open(self.number) { "open" } else { "sent or discarded" };
        format!("<sealane.Loan of {} bytes, {state}>", self.place.len())
    }

    /// Gives a view to consumers that hold it by a `memoryview`.
    ///
    /// Other consumers are refused. Some (`numpy.ndarray(buffer=loan)`) give the buffer back at once and keep only the object that
    /// they asked: the loan itself, which does not count as a view.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if flags & ffi::PyBUF_FULL_RO != ffi::PyBUF_FULL_RO {
            return Err(PyBufferError::new_err(
                "a loan lends its memory to memoryview(loan), loan.array and numpy.asarray(loan) only: pass one of these",
            ));
        }
        let keeper = slf.get().view(slf.py())?;
        // SAFETY: 1. `view` comes from Python. 2. The loan is open or ended while there is a view, by the invariant of `Outlet`.
        unsafe { keeper.get().place.describe(keeper.as_any(), view, flags) }
    }

    /// Does nothing: the view ends when its object does. Where this method is, `NumPy` takes a `memoryview` instead of the loan.
    #[expect(clippy::unused_self, reason = "the buffer protocol's signature")]
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}
