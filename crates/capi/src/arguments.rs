//! Arguments from C, checked: the only place where a bare pointer is used.

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    slice,
    time::{Duration, Instant},
};

use sealane::Control;

use crate::status::{Failure, Result};

/// The most descriptors that one message can have (unix(7), SCM_MAX_FD).
pub(crate) const MAX_FDS: usize = 253;

/// How long a function waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Timeout {
    /// -1.
    Forever,
    /// 0: look once.
    Try,
    /// Milliseconds.
    Within(Duration),
}

impl Timeout {
    pub(crate) fn of(milliseconds: c_int) -> Result<Self> {
        match u64::try_from(milliseconds) {
            Ok(0) => Ok(Self::Try),
            Ok(milliseconds) => Ok(Self::Within(Duration::from_millis(milliseconds))),
            Err(_) if milliseconds == -1 => Ok(Self::Forever),
            Err(_) => Err(Failure::invalid(
                "a timeout of -1 (for ever), 0 (look once) or some milliseconds expected, another negative number found",
            )),
        }
    }

    /// The rest of it, after the time since `begun`.
    pub(crate) fn after(self, begun: Instant) -> Self {
        match self {
            Self::Forever | Self::Try => self,
            Self::Within(time) => Self::Within(time.saturating_sub(begun.elapsed())),
        }
    }

    /// The time for a wait that begins now; without a limit, None.
    pub(crate) fn left(self) -> Result<Option<Duration>> {
        match self {
            Self::Forever => Ok(None),
            Self::Try => Err(Failure::again("it could not be done at once")),
            Self::Within(Duration::ZERO) => Err(sealane::Error::Timeout.into()),
            Self::Within(time) => Ok(Some(time)),
        }
    }

    /// For verbs whose only form has a time.
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Forever => Duration::MAX,
            Self::Try => Duration::ZERO,
            Self::Within(time) => time,
        }
    }
}

/// A handle that has to be there.
pub(crate) fn handle<T>(handle: Option<&T>) -> Result<&T> {
    handle.ok_or_else(|| Failure::null("a handle expected, a null pointer found"))
}

/// The variable of a handle.
pub(crate) fn variable<T>(variable: Option<&mut Option<Box<T>>>) -> Result<&mut Option<Box<T>>> {
    variable.ok_or_else(|| Failure::null("the address of a handle expected, a null pointer found"))
}

/// The handle that is to be taken: its variable is null afterwards.
pub(crate) fn take<T>(variable: Option<&mut Option<Box<T>>>) -> Result<Box<T>> {
    self::variable(variable)?.take().ok_or_else(|| {
        Failure::null("a handle expected, a null pointer found: it was freed or used up before")
    })
}

/// The place for a result.
pub(crate) fn place<T>(place: Option<&mut MaybeUninit<T>>) -> Result<&mut MaybeUninit<T>> {
    place.ok_or_else(|| Failure::null("the address for a result expected, a null pointer found"))
}

/// The place for a handle, with null in it until there is one.
pub(crate) fn empty<T>(variable: Option<&mut MaybeUninit<Option<Box<T>>>>) -> Result<&mut Option<Box<T>>> {
    Ok(place(variable)?.write(None))
}

/// Bytes to read.
///
/// # Safety
/// `data` is readable for `len` bytes during `'a`, unless it is null.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    // SAFETY: contract of this function.
    unsafe { elements(data.cast(), len) }
}

/// # Safety
/// `data` is aligned, and readable for `count` values of `T` during `'a`, unless it is null.
#[expect(clippy::disallowed_methods, reason = "memory of the C program, not a mapping")]
unsafe fn elements<'a, T: Copy>(data: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check::<T>(data.is_null(), count)?;
    // SAFETY: not null; aligned and readable by the contract; no longer than a slice may be.
    Ok(unsafe { slice::from_raw_parts(data, count) })
}

/// That `count` values of `T` can be somewhere.
fn check<T>(is_null: bool, count: usize) -> Result<()> {
    if is_null {
        return Err(Failure::null(
            "a pointer to as many bytes or numbers as its length says expected, null found",
        ));
    }
    if count > isize::MAX.unsigned_abs() / size_of::<T>() {
        return Err(Failure::invalid("a length that memory can have expected, a larger number found"));
    }
    Ok(())
}

/// Bytes to write.
///
/// # Safety
/// `data` is writable for `len` bytes during `'a`, unless it is null, and nothing else uses them.
#[expect(clippy::disallowed_methods, reason = "memory of the C program, not a mapping")]
pub(crate) unsafe fn room<'a, T>(data: *mut T, count: usize) -> Result<&'a mut [MaybeUninit<T>]> {
    if count == 0 {
        return Ok(&mut []);
    }
    check::<T>(data.is_null(), count)?;
    // SAFETY: not null; writable and unshared by the contract; uninitialised bytes are allowed.
    Ok(unsafe { slice::from_raw_parts_mut(data.cast(), count) })
}

/// Bytes and descriptors for a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: &'a [BorrowedFd<'a>],
}

impl<'a> Given<'a> {
    /// # Safety
    /// Those of [`bytes`], with `fd_count` numbers at `fds`; the descriptors stay open during `'a`.
    pub(crate) unsafe fn new(
        data: *const c_void,
        len: usize,
        fds: *const c_int,
        fd_count: usize,
    ) -> Result<Self> {
        // SAFETY: contract of this function.
        let bytes = unsafe { bytes(data, len) }?;
        // SAFETY: contract of this function.
        let numbers = unsafe { elements(fds, fd_count) }?;
        if numbers.iter().any(|fd| *fd < 0) {
            return Err(closed());
        }
        // SAFETY: no -1, so that each number is a valid `BorrowedFd`, which is one number. They are open by the contract. Were
        // one closed, the kernel would refuse the message (`EBADF`).
        let fds = unsafe { elements(fds.cast(), fd_count) }?;
        Ok(Self { bytes, fds })
    }

    pub(crate) fn control(self) -> Control<'a> {
        Control::new(self.bytes).fds(self.fds.iter().copied())
    }
}

/// The caller's descriptor, for as long as the function runs.
fn borrow<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(closed());
    }
    // SAFETY: no -1. It is used for system calls only, which refuse a number that is not open.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

fn closed() -> Failure {
    Failure::Usage { errno: libc::EBADF, text: "an open descriptor expected, another number found" }
}

/// A copy of the caller's descriptor, close-on-exec.
pub(crate) fn duplicate(fd: c_int) -> Result<OwnedFd> {
    duplicate_of(borrow(fd)?)
}

pub(crate) fn duplicate_of(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| match error.raw_os_error() {
        Some(libc::EBADF) | None => closed(),
        Some(errno) => Failure::Usage {
            errno,
            text: "the descriptor could not be duplicated (fcntl(2), F_DUPFD_CLOEXEC)",
        },
    })
}

/// A string that ends with a zero.
///
/// # Safety
/// `text` is readable up to a zero during `'a`, unless it is null.
pub(crate) unsafe fn string<'a>(text: *const c_char) -> Result<&'a CStr> {
    if text.is_null() {
        return Err(Failure::null("a string expected, a null pointer found"));
    }
    // SAFETY: not null, and a string by the contract.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// A path, or the name of an abstract socket behind `@`.
///
/// # Safety
/// As for [`string`].
pub(crate) unsafe fn path<'a>(text: *const c_char) -> Result<&'a Path> {
    // SAFETY: contract of this function.
    let text = unsafe { string(text) }?;
    Ok(Path::new(OsStr::from_bytes(text.to_bytes())))
}
