//! All unsafe code of the package: memory that Python lends or borrows, and descriptors that are bare numbers.
//!
//! Python's threads may write the same memory at any time, as `NumPy` computes without the interpreter's lock. So memory that
//! Python can reach is never a `&[u8]` or `&mut [u8]` here: it is copied through raw pointers, as C code copies it. The one
//! exception is an array that no other code has seen yet.

#![expect(unsafe_code, reason = "the buffer protocol of Python, and descriptors that are numbers, are raw")]

use std::{
    ffi::{CStr, c_int},
    io,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    ptr, slice,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
    time::Duration,
};

use pyo3::{
    exceptions::{PyBufferError, PyTypeError, PyValueError},
    ffi,
    prelude::*,
    types::PyAny,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use sealane::{Error, Payload, Result};

use crate::format::has_pointers;

/// Waits until a descriptor is readable, a signal comes, or the time has passed.
pub(crate) fn poll(fd: RawFd, time: Duration) {
    // SAFETY: contract of `borrow_raw`: the number is not -1, and `fd` stays open. Each caller has the channel or publisher that
    // owns the descriptor. If that were wrong, `poll(2)` would look at another descriptor, or report an invalid one, no more.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
    // An error is a signal, or a shortage of memory: the caller looks again in both cases.
    let _ =
        rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Timespec::try_from(time).ok().as_ref());
}

/// Duplicates a descriptor that Python names by its number.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error()));
    }
    // SAFETY: contract of `borrow_raw`: the number is not -1, and is used for this one call only, which reports a number that is
    // not open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // The number of the duplicate is no standard stream's, even if these are closed.
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Memory of a ring while it is lent: an address and a length, without any right to use them.
#[derive(Debug)]
pub(crate) struct Place {
    start: AtomicPtr<u8>,
    len: usize,
}

impl Place {
    /// The place of a loan. No reference is kept, so that views of Python are the only way to it.
    pub(crate) fn of(loan: &mut [u8]) -> Self {
        Self { start: AtomicPtr::new(loan.as_mut_ptr()), len: loan.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The same place.
    pub(crate) fn copy(&self) -> Self {
        Self { start: AtomicPtr::new(self.start.load(Relaxed)), len: self.len }
    }

    /// Describes the place to whoever asked for a buffer, on behalf of `keeper`, which keeps the memory mapped.
    ///
    /// # Safety
    /// 1. `view` is the structure that Python passed to `bf_getbuffer`.
    /// 2. The place stays mapped and lent for as long as `keeper` lives.
    pub(crate) unsafe fn describe(
        &self,
        keeper: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let (start, len) = (self.start.load(Relaxed), length(self.len)?);
        // SAFETY: 1. for `view`. The memory is readable and writable for `len` bytes, by 2. The call takes a reference to `keeper`,
        // which the consumer gives back when it releases the buffer.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, keeper.as_ptr(), start.cast(), len, 0, flags) };
        filled_or_error(keeper.py(), filled)
    }
}

/// Describes bytes that never change.
///
/// # Safety
/// 1. `view` is the structure that Python passed to `bf_getbuffer`.
/// 2. `bytes` stays mapped for as long as `keeper` lives, and never changes.
pub(crate) unsafe fn describe_constant(
    bytes: &[u8],
    keeper: &Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    let (start, len) = (bytes.as_ptr().cast_mut(), length(bytes.len())?);
    // SAFETY: 1. for `view`. The memory is readable for `len` bytes by 2., and described as read-only.
    let filled = unsafe { ffi::PyBuffer_FillInfo(view, keeper.as_ptr(), start.cast(), len, 1, flags) };
    filled_or_error(keeper.py(), filled)
}

fn length(len: usize) -> PyResult<isize> {
    isize::try_from(len).map_err(|_| PyBufferError::new_err("too long for a buffer"))
}

fn filled_or_error(py: Python<'_>, filled: c_int) -> PyResult<()> {
    if filled == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}

/// Whether an object has the buffer protocol.
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the pointer is an object's, as `object` keeps it.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// Memory of a Python object, held by the buffer protocol. The structure stays where it is, as it may point into itself.
pub(crate) struct Buffer(Box<ffi::Py_buffer>);

// SAFETY: no field changes between `get` and the release. The memory is reached by the copies below only, through raw pointers.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Without an interpreter its memory is gone as well.
        // SAFETY: contract of `PyBuffer_Release`: `get` has filled the structure, which is released here only.
        Python::try_attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

impl Buffer {
    /// Takes the buffer of `object`: plain values, contiguous in the order of C. A value without axes is one as well.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = Self::get(object)?;
        if has_pointers(buffer.format()) {
            return Err(PyTypeError::new_err("plain values expected, object found: it has pointers"));
        }
        if buffer.is_contiguous(b'C') {
            return Ok(buffer);
        }
        let found = if buffer.is_contiguous(b'F') { "in Fortran order" } else { "with gaps" };
        let text = format!(
            "a contiguous buffer in C order expected, one {found} found: numpy.ascontiguousarray(...) copies it"
        );
        Err(PyBufferError::new_err(text))
    }

    fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: contract of `PyObject_GetBuffer`: an object, and a structure to fill, which stays at its address.
        let filled = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, ffi::PyBUF_FULL_RO) };
        filled_or_error(object.py(), filled)?;
        Ok(Self(view))
    }

    /// The format of an element.
    fn format(&self) -> &[u8] {
        if self.0.format.is_null() {
            return b"B";
        }
        // SAFETY: contract of `PyObject_GetBuffer`: a text with a zero at its end, which lives as long as the buffer.
        unsafe { CStr::from_ptr(self.0.format) }.to_bytes()
    }

    /// Whether it has several elements of more than a byte, or several axes. A record without axes is none.
    pub(crate) fn is_array_of_no_bytes(&self) -> bool {
        self.0.ndim > 1 || (self.0.ndim == 1 && self.0.itemsize != 1)
    }

    /// The axes, the bytes of an element, and the bytes in all, in words.
    pub(crate) fn shown(&self) -> String {
        format!("{} axes, elements of {} bytes, {} bytes in all", self.0.ndim, self.0.itemsize, self.0.len)
    }

    fn is_contiguous(&self, order: u8) -> bool {
        // SAFETY: contract of `PyBuffer_IsContiguous`: a structure that `PyObject_GetBuffer` has filled.
        unsafe { ffi::PyBuffer_IsContiguous(&raw const *self.0, order.cast_signed()) != 0 }
    }

    /// Takes a buffer that can be written.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = Self::of(object)?;
        if buffer.0.readonly != 0 {
            return Err(PyBufferError::new_err("a writable buffer expected, a read-only one found"));
        }
        Ok(buffer)
    }

    pub(crate) fn len(&self) -> usize {
        // No object is longer than an `isize`, and none has less than nothing.
        self.0.len.unsigned_abs()
    }

    /// Copies all bytes to `target`, which must be as long.
    pub(crate) fn copy_to(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.len(), "the caller made the target");
        // SAFETY: contract of `ptr::copy`:
        // 1. The source is readable for `len` bytes: a contiguous buffer that Python keeps until `self` is dropped.
        // 2. The target is a slice as long. Python cannot reach it: it was not lent to Python.
        // Threads of Python that write the source meanwhile decide which bytes are copied.
        unsafe { ptr::copy(self.0.buf.cast::<u8>(), target.as_mut_ptr(), target.len()) };
    }

    /// Copies a payload to the bytes from `offset` on, by way of a small block that is ours.
    pub(crate) fn fill(&self, offset: usize, payload: &Payload) -> Result<()> {
        let room = self.len().checked_sub(offset).is_some_and(|room| payload.len() <= room);
        assert!(room, "the caller has compared the lengths");
        let mut at = offset;
        payload.bytes().for_each_block(|block| {
            // SAFETY: contract of `ptr::copy`:
            // 1. The source is a slice.
            // 2. The target is writable for the block: the blocks are `payload.len()` bytes together, for which there is room
            //    behind `offset`, in a contiguous and writable buffer that Python keeps until `self` is dropped.
            unsafe { ptr::copy(block.as_ptr(), self.0.buf.cast::<u8>().wrapping_add(at), block.len()) };
            at += block.len();
        });
        if payload.is_whole() { Ok(()) } else { Err(Error::Overrun) }
    }
}

/// Copies a payload to an array that was made for it, and returns the array.
///
/// # Errors
/// An exception if it is no contiguous, writable buffer of the payload's length.
pub(crate) fn fill_new_array<'py>(
    array: Bound<'py, PyAny>,
    payload: &Payload,
) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    // SAFETY: the pointer is an object's, as `array` keeps it.
    let references = unsafe { ffi::Py_REFCNT(array.as_ptr()) };
    let buffer = Buffer::writable(&array)?;
    let len = buffer.len();
    if len != payload.len() {
        let text = format!("an array of {} bytes expected, as the payload has, {len} found", payload.len());
        return Err(PyValueError::new_err(text));
    }
    let copied = if references == 1 && len > 0 {
        let start = buffer.0.buf.cast::<MaybeUninit<u8>>();
        #[expect(clippy::disallowed_methods, reason = "no mapping, but memory of an array")]
        // SAFETY: contract of `from_raw_parts_mut`:
        // 1. The memory is `len` writable bytes, which may be uninitialised, and which the buffer keeps.
        // 2. This reference is the only way to it: the array was made for this, and the caller's reference, which is here now, was
        //    the only one.
        let target = unsafe { slice::from_raw_parts_mut(start, len) };
        py.detach(|| {
            payload.bytes().copy_to_uninit(target)?;
            if payload.is_whole() { Ok(()) } else { Err(Error::Overrun) }
        })
    } else {
        // Somebody has replaced `numpy.empty`, and has the array as well.
        py.detach(|| buffer.fill(0, payload))
    };
    copied.map_err(|error| crate::errors::raise(py, error))?;
    drop(buffer);
    Ok(array)
}
