//! Admission: a function of Python decides who may subscribe.
//!
//! The publisher calls it in the midst of its own calls, which have given the interpreter's lock up. Whatever goes wrong with it
//! refuses the newcomer, and is reported by `sys.unraisablehook`.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyKeyboardInterrupt, PyTypeError},
    prelude::*,
    types::PyBool,
};
use sealane::Slow;

use crate::{
    facts::Peer,
    publisher::SubscriberInfo,
    settings::{policy, slow},
};

/// A process that wishes to subscribe, before it has cost memory or seen anything.
#[pyclass(frozen, get_all, module = "sealane")]
pub(crate) struct Newcomer {
    /// Its process, as the kernel vouches.
    peer: Py<Peer>,
    /// The policy that it wishes for: ``"overrun"``, or seconds (``math.inf`` if it takes what it is granted).
    wish: Py<PyAny>,
    /// Those who are subscribers already, or are about to be.
    present: Vec<Py<SubscriberInfo>>,
}

/// The function that decides, if there is one. The publisher has it as well.
#[derive(Clone, Default)]
pub(crate) struct Admission(Arc<Mutex<Option<Py<PyAny>>>>);

impl Admission {
    /// Sets the function. Returns the one before, to be dropped without the lock.
    fn set(&self, decide: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), decide)
    }

    /// Has `decide` decide from now on.
    pub(crate) fn install(
        &self,
        publisher: &mut sealane::Publisher,
        decide: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !decide.is_callable() {
            let text = format!("admit: a function of a newcomer expected, {} found", decide.get_type());
            return Err(PyTypeError::new_err(text));
        }
        drop(self.set(Some(decide.unbind())));
        let admission = self.clone();
        publisher.admit(move |newcomer| {
            // Without an interpreter nobody is admitted any more.
            Python::try_attach(|py| admission.judge(py, newcomer)).flatten()
        });
        Ok(())
    }

    /// Asks the function. An exception refuses the newcomer.
    fn judge(&self, py: Python<'_>, newcomer: &sealane::Newcomer<'_>) -> Option<Slow> {
        let decide = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.clone_ref(py);
        let decide = decide.bind(py);
        ask(decide, newcomer).unwrap_or_else(|error| {
            let is_interrupt = error.is_instance_of::<PyKeyboardInterrupt>(py);
            error.write_unraisable(py, Some(decide));
            if is_interrupt {
                // The signal came while the function ran: it interrupts the publisher's call, after which it is handled again.
                let again = py.import("_thread").and_then(|module| module.call_method0("interrupt_main"));
                drop(again);
            }
            None
        })
    }

    /// Shows the function to the collector of cycles.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A lock that is held means that the function is in use.
        self.0.try_lock().map_or(Ok(()), |decide| visit.call(&*decide))
    }

    /// Forgets the function: nobody is admitted any more.
    pub(crate) fn clear(&self) {
        drop(self.set(None));
    }
}

fn ask(decide: &Bound<'_, PyAny>, newcomer: &sealane::Newcomer<'_>) -> PyResult<Option<Slow>> {
    let py = decide.py();
    let present = newcomer.present().iter().map(|info| SubscriberInfo::new(py, info));
    let asked = Newcomer {
        peer: Py::new(py, Peer::from(newcomer.credentials()))?,
        wish: policy(py, newcomer.wish()),
        present: present.collect::<PyResult<_>>()?,
    };
    let decision = decide.call1((asked,))?;
    if decision.is_none() {
        return Ok(None);
    }
    // True is a number for Python, but no number of seconds.
    if decision.is_instance_of::<PyBool>() {
        let text = format!("admit: 'overrun', seconds, or None to refuse expected, {decision} found");
        return Err(PyTypeError::new_err(text));
    }
    slow(&decision).map(Some)
}

#[pymethods]
impl Newcomer {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<sealane.Newcomer {} wishes {}>", self.peer.bind(py).repr()?, self.wish.bind(py).repr()?))
    }
}
