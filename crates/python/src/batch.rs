//! `Batch`: many messages, after which a sleeping reader is woken once.
//!
//! The state of a batch is its own: the channel or publisher beside it wakes at once. What was not announced at its end, since another
//! thread had the sending side, is announced by the next message.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use pyo3::{prelude::*, types::PyTuple};

use crate::{
    lender::Verb,
    loan::Loan,
    sending::{Given, Lease},
    wait::Timeout,
};

/// Whether a batch is open. Its loans share it.
#[derive(Clone)]
pub(crate) struct Open(Arc<AtomicBool>);

impl Open {
    /// How a message is sent: at once after the end of the batch, since nobody announces it later.
    pub(crate) fn verb(&self) -> Verb {
        if self.0.load(Relaxed) { Verb::Later } else { Verb::Send }
    }
}

/// Messages after which sleeping receivers are woken once.
///
/// Receivers are woken at the end of ``with``, by ``flush``, when a call waits for room, and after 256 KiB. Control bytes alone, descriptors, requests and replies wake at once. Before you wait for the peer, call ``flush``.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Batch {
    lease: Arc<dyn Lease>,
    open: Open,
}

impl Batch {
    pub(crate) fn new(lease: Arc<dyn Lease>) -> Self {
        Self { lease, open: Open(Arc::new(AtomicBool::new(true))) }
    }

    fn end(&self) -> PyResult<()> {
        self.open.0.store(false, Relaxed);
        self.lease.flush()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // An error means that another thread sends, and so announces what was sent before.
        let _ = self.end();
    }
}

#[pymethods]
impl Batch {
    /// Sends a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer).
    #[pyo3(signature = (control=None, *, payload=None, fds=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (given, timeout) = (Given::of(control, fds)?, Timeout::of(timeout)?);
        self.lease.send(py, self.open.verb(), &given, payload, timeout).map(drop)
    }

    /// Lends a part of the ring, to be filled in place: waits for room. Its ``send`` is one of the batch.
    #[pyo3(signature = (shape, dtype=None, *, timeout=None))]
    fn loan(
        &self,
        shape: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Loan> {
        Loan::lend(Arc::clone(&self.lease), Some(self.open.clone()), shape, dtype, timeout)
    }

    /// Wakes sleeping receivers for what was sent so far. The batch stays open.
    fn flush(&self) -> PyResult<()> {
        self.lease.flush()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.end()
    }
}
