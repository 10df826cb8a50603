//! `Message` and `Fd`: what was received. A payload is copied out, never viewed: its sender may change it at any time.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use sealane::{Payload, ReplyToken};

use crate::{
    errors::{no_pickle, raise},
    numpy::{Elements, shape_within},
    raw::{self, Buffer},
};

/// A received message: control bytes, descriptors and a payload.
///
/// The payload stays in its sender's ring until the message is released: by ``with``, ``release()``, or the end of the object.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Message {
    /// The control bytes.
    #[pyo3(get)]
    control: Py<PyBytes>,
    /// The descriptors, each as an ``Fd``.
    #[pyo3(get)]
    fds: Py<PyTuple>,
    /// Bytes of the payload; ``None`` without one.
    #[pyo3(get)]
    size: Option<usize>,
    /// The number of this message among its sender's.
    #[pyo3(get)]
    sequence: u64,
    /// Messages that a subscriber missed just before this one.
    #[pyo3(get)]
    missed: u64,
    /// The run of the source, if a publisher passes it on.
    #[pyo3(get)]
    epoch: u64,
    /// The number of the request that this message answers.
    #[pyo3(get)]
    in_reply_to: Option<u64>,
    token: Option<ReplyToken>,
    /// Copies are made without the lock, of a payload that is shared meanwhile.
    payload: Mutex<Option<Arc<Payload>>>,
}

impl Message {
    pub(crate) fn new(py: Python<'_>, mut message: sealane::Message) -> PyResult<Self> {
        let fds = message.take_fds().into_iter().map(|fd| Fd(Mutex::new(Some(fd))));
        let payload = message.take_payload();
        Ok(Self {
            control: PyBytes::new(py, message.control()).unbind(),
            fds: PyTuple::new(py, fds.map(|fd| Bound::new(py, fd)).collect::<PyResult<Vec<_>>>()?)?.unbind(),
            size: payload.as_ref().map(Payload::len),
            sequence: message.sequence(),
            missed: message.missed(),
            epoch: message.epoch(),
            in_reply_to: message.in_reply_to().map(sealane::RequestId::number),
            token: message.reply_token(),
            payload: Mutex::new(payload.map(Arc::new)),
        })
    }

    pub(crate) fn token(&self) -> PyResult<ReplyToken> {
        self.token.ok_or_else(|| PyValueError::new_err("a request expected, a message without a reply found"))
    }

    fn payload(&self) -> PyResult<Arc<Payload>> {
        let payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        payload.ok_or_else(|| {
            PyValueError::new_err(match self.size {
                Some(_) => "the message was released: read its payload before",
                None => "the message has no payload",
            })
        })
    }

    pub(crate) fn has_payload(&self) -> bool {
        self.size.is_some()
    }

    /// Copies the payload to a writable buffer of Python.
    pub(crate) fn copy_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        offset: usize,
    ) -> PyResult<usize> {
        let payload = self.payload()?;
        let buffer = Buffer::writable(buffer)?;
        let (len, room) = (payload.len(), buffer.len().saturating_sub(offset));
        if len > room || offset > buffer.len() {
            let text = format!("buffer: room for {len} bytes expected, {room} bytes found");
            return Err(PyValueError::new_err(text));
        }
        py.detach(|| buffer.fill(offset, &payload)).map_err(|error| raise(py, error))?;
        Ok(len)
    }

    fn end(&self) {
        let payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(payload);
    }
}

#[pymethods]
impl Message {
    /// Whether the sender waits for a reply.
    #[getter]
    fn wants_reply(&self) -> bool {
        self.token.is_some()
    }

    /// Copies the payload to a new ``bytes``.
    fn bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let payload = self.payload()?;
        PyBytes::new_with(py, payload.len(), |target| {
            py.detach(|| payload.copy_to_slice(target)).map_err(|error| raise(py, error))
        })
    }

    /// Copies the payload to a new array. Without a shape it has one axis; one length of a shape may be -1.
    #[pyo3(signature = (dtype=None, shape=None))]
    fn array<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        shape: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let payload = self.payload()?;
        let bytes = pyo3::types::PyString::new(py, "u1").into_any();
        let elements = Elements::of(py, dtype.unwrap_or(&bytes))?;
        let shape = match shape {
            Some(shape) => shape_within(shape, &elements, payload.len())?,
            None if payload.len().is_multiple_of(elements.size) => {
                PyTuple::new(py, [payload.len() / elements.size])?
            }
            None => {
                let (len, size) = (payload.len(), elements.size);
                let text =
                    format!("dtype: elements that fill {len} bytes expected, some of {size} bytes found");
                return Err(PyValueError::new_err(text));
            }
        };
        // The shape has the payload's length before NumPy allocates: it might ask for more memory than there is.
        raw::fill_new_array(elements.empty(&shape)?, &payload)
    }

    /// Refuses ``numpy.asarray(message)``, whose array would have the message as its one object: the bytes have no type of their own.
    #[expect(clippy::unused_self, reason = "a method of Python")]
    #[pyo3(signature = (*_arguments, **_options))]
    fn __array__(
        &self,
        _arguments: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Err(PyTypeError::new_err("a message is no array: use message.array(dtype, shape)"))
    }

    /// Copies the payload to a writable buffer, from byte ``offset`` on. Returns the number of bytes.
    #[pyo3(signature = (buffer, offset=0))]
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        self.copy_into(py, buffer, offset)
    }

    /// Gives the payload's room back to its sender. What was read stays.
    fn release(&self) {
        self.end();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) {
        self.end();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (control, fds) = (self.control.bind(py).len()?, self.fds.bind(py).len());
        let payload =
            self.size.map_or_else(|| "no payload".to_owned(), |size| format!("a payload of {size} bytes"));
        Ok(format!(
            "<sealane.Message {}: {control} control bytes, {fds} descriptors, {payload}>",
            self.sequence
        ))
    }
}

/// A received descriptor, which closes with the object.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Fd(Mutex<Option<OwnedFd>>);

impl Fd {
    /// Takes the descriptor out.
    pub(crate) fn take(&self) -> PyResult<OwnedFd> {
        let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        fd.ok_or_else(|| PyValueError::new_err("the descriptor is closed, or was taken"))
    }
}

/// A descriptor that a peer has sent may take long to close, so other threads run meanwhile.
impl Drop for Fd {
    fn drop(&mut self) {
        if let Ok(fd) = self.take() {
            let mut fd = Some(fd);
            // Without an interpreter it is closed here.
            Python::try_attach(|py| py.detach(|| drop(fd.take())));
        }
    }
}

#[pymethods]
impl Fd {
    /// The number. It is valid until the descriptor is closed or detached.
    fn fileno(&self) -> PyResult<RawFd> {
        let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = fd.as_ref().map(AsRawFd::as_raw_fd);
        number.ok_or_else(|| PyValueError::new_err("the descriptor is closed, or was taken"))
    }

    /// Gives the descriptor up: the caller closes the number that is returned, or hands it to ``open()`` or ``socket``.
    fn detach(&self) -> PyResult<RawFd> {
        Ok(std::os::fd::IntoRawFd::into_raw_fd(self.take()?))
    }

    /// Closes the descriptor. The kernel may take long for one that a peer has sent.
    fn close(&self, py: Python<'_>) {
        if let Ok(fd) = self.take() {
            py.detach(|| drop(fd));
        }
    }

    /// Whether it was closed or detached.
    #[getter]
    fn closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, py: Python<'_>, _reason: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __reduce__(slf: Bound<'_, Self>) -> PyResult<()> {
        Err(no_pickle(slf.as_any(), "send it by fds="))
    }

    fn __repr__(&self) -> String {
        match self.fileno() {
            Ok(number) => format!("<sealane.Fd {number}>"),
            Err(_) => "<sealane.Fd, closed>".to_owned(),
        }
    }
}
