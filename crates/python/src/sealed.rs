//! `SealedBuffer`: bytes that no process can change, viewed where they lie.

#![expect(unsafe_code, reason = "the buffer protocol is given by an unsafe method")]

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use pyo3::{ffi, prelude::*};
use sealane::SealedBufferMut;

use crate::{
    errors::{no_pickle, raise},
    message::Fd,
    raw::{self, Buffer},
    sending::duplicate,
};

/// Bytes of the largest buffer that ``open`` accepts by default.
const LIMIT: u64 = 64 << 20;

/// An immutable buffer in memory of its own, which any number of processes share: ``numpy.frombuffer(sealed, "u2")``.
#[pyclass(frozen, module = "sealane", weakref)]
pub(crate) struct SealedBuffer(sealane::SealedBuffer);

#[pymethods]
impl SealedBuffer {
    /// Copies ``data`` (anything with a buffer) to a new buffer, and seals it.
    #[new]
    fn new(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let data = Buffer::of(data)?;
        let sealed = py.detach(|| {
            let mut draft = SealedBufferMut::new(data.len())?;
            data.copy_to(&mut draft);
            draft.seal()
        });
        Ok(Self(sealed.map_err(|error| raise(py, error))?))
    }

    /// Verifies and maps a received descriptor, of at most ``max_size`` bytes. An ``Fd`` is taken; others are duplicated.
    #[staticmethod]
    #[pyo3(signature = (fd, *, max_size=LIMIT))]
    fn open(py: Python<'_>, fd: &Bound<'_, PyAny>, max_size: u64) -> PyResult<Self> {
        let fd: OwnedFd = match fd.cast::<Fd>() {
            Ok(received) => received.get().take()?,
            Err(_) => duplicate(fd)?,
        };
        let sealed = py.detach(|| sealane::SealedBuffer::with_limit(fd, max_size));
        Ok(Self(sealed.map_err(|error| raise(py, error))?))
    }

    /// The descriptor, for the ``fds`` of a message.
    fn fileno(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __reduce__(slf: Bound<'_, Self>) -> PyResult<()> {
        Err(no_pickle(slf.as_any(), "send it by fds=, and open it there"))
    }

    fn __repr__(&self) -> String {
        format!("<sealane.SealedBuffer of {} bytes>", self.0.len())
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: 1. `view` comes from Python. 2. The mapping is sealed, and lives as long as the object, which is the keeper.
        unsafe { raw::describe_constant(&slf.get().0, slf.as_any(), view, flags) }
    }
}
