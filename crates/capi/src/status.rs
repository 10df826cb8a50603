//! What functions return: 0 or a count, or a negative `errno`, with a sentence kept for the thread.

use std::{
    cell::RefCell,
    error::Error as _,
    ffi::{CStr, c_char, c_int},
    fmt::{self, Write},
    io,
};

use sealane::{Error, HandshakeError};

/// Why a function failed: the library's error, or a fault in the arguments or in the order of calls.
#[derive(Debug)]
pub(crate) enum Failure {
    Library(Error),
    Usage {
        errno: c_int,
        text: &'static str,
    },
    /// Of an error that stays elsewhere. Its sentence is kept already.
    Noted {
        errno: c_int,
    },
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn null(text: &'static str) -> Self {
        Self::Usage { errno: libc::EFAULT, text }
    }

    pub(crate) fn invalid(text: &'static str) -> Self {
        Self::Usage { errno: libc::EINVAL, text }
    }

    pub(crate) fn busy(text: &'static str) -> Self {
        Self::Usage { errno: libc::EBUSY, text }
    }

    pub(crate) fn again(text: &'static str) -> Self {
        Self::Usage { errno: libc::EAGAIN, text }
    }

    /// Whether there was no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Library(Error::Full) | Self::Usage { errno: libc::EAGAIN, .. })
    }

    /// The failure of an error that cannot be moved.
    pub(crate) fn note(error: &Error) -> Self {
        keep(|sentence| sentence.explain(error));
        Self::Noted { errno: errno(error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

fn errno(error: &Error) -> c_int {
    match error {
        Error::Disconnected => libc::EPIPE,
        Error::Timeout | Error::TimeoutHolding { .. } => libc::ETIMEDOUT,
        Error::Full => libc::EAGAIN,
        Error::PayloadTooLarge { .. } | Error::ControlTooLarge { .. } | Error::TooManyFds { .. } => {
            libc::EMSGSIZE
        }
        Error::FdsLost { .. } => libc::EMFILE,
        Error::FdsInFlight => libc::ETOOMANYREFS,
        Error::Backlog => libc::ENOBUFS,
        Error::TooManyRequests { .. } => libc::EDQUOT,
        Error::UnknownRequest => libc::ENOENT,
        Error::RingTooLarge { .. } | Error::Cast(_) => libc::EINVAL,
        Error::Sealed(_) => libc::EBADMSG,
        Error::Protocol(_) => libc::EPROTO,
        Error::Handshake(error) => match error {
            HandshakeError::Closed { .. } | HandshakeError::ChildEnded { .. } => libc::ECONNRESET,
            HandshakeError::NotSeqpacket { .. } => libc::EPROTOTYPE,
            HandshakeError::NotListening { .. } => libc::EINVAL,
            HandshakeError::NotInherited { .. } => libc::ENOENT,
            HandshakeError::AlreadyInherited => libc::EALREADY,
            _ => libc::ECONNREFUSED,
        },
        Error::Io { source, .. } => source.raw_os_error().unwrap_or_else(|| kind(source.kind())),
        _ => libc::EIO,
    }
}

/// The number of an error that the library made itself, with a text instead of the kernel's number.
fn kind(kind: io::ErrorKind) -> c_int {
    match kind {
        io::ErrorKind::AddrInUse => libc::EADDRINUSE,
        io::ErrorKind::FileTooLarge => libc::EFBIG,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

/// Bytes of a sentence, its final zero included. What is longer is cut.
const CAPACITY: usize = 1024;

/// The sentence of a thread's last failure: text, then a zero, at the beginning of the structure. It has no destructor, so that
/// it can be read for as long as the thread runs: in destructors of other thread-local objects too.
#[repr(C)]
struct Sentence {
    bytes: [u8; CAPACITY],
    len: usize,
}

thread_local! {
    static LAST: RefCell<Sentence> = const { RefCell::new(Sentence { bytes: [0; CAPACITY], len: 0 }) };
}

impl Write for Sentence {
    /// Settings have other names in C.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.split("Builder::");
        self.push(parts.next().unwrap_or_default());
        for part in parts {
            self.push("options.");
            self.push(part);
        }
        Ok(())
    }
}

impl Sentence {
    fn push(&mut self, text: &str) {
        let free = self.bytes.get_mut(self.len..CAPACITY - 1).unwrap_or_default();
        let cut = text.floor_char_boundary(free.len());
        free[..cut].copy_from_slice(&text.as_bytes()[..cut]);
        self.len += cut;
    }

    fn explain(&mut self, error: &Error) -> fmt::Result {
        write!(self, "{error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(self, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Keeps what `write` writes as the thread's sentence.
fn keep(write: impl FnOnce(&mut Sentence) -> fmt::Result) {
    LAST.with(|last| {
        // A signal's handler that fails, while the thread that it interrupts is here, keeps no sentence.
        let Ok(mut last) = last.try_borrow_mut() else { return };
        last.len = 0;
        // It does not fail: what does not fit is cut.
        let _ = write(&mut last);
        let end = last.len;
        last.bytes[end] = 0;
    });
}

/// Runs the body of a function. A thread that is cancelled (pthread_cancel(3)) in the middle would take with it what it holds, so
/// that it is cancelled later.
pub(crate) fn run<R>(body: impl FnOnce() -> R) -> R {
    let (mut before, mut unused) = (0, 0);
    // SAFETY: the kernel is not involved, and the state is restored below, since nothing unwinds.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let result = body();
    // SAFETY: as above.
    unsafe { pthread_setcancelstate(before, &raw mut unused) };
    result
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    /// pthread_setcancelstate(3), which the crate libc does not have.
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Runs the body of a function. Its status is the result, or the negative `errno` of a failure, whose sentence is kept.
pub(crate) fn status(body: impl FnOnce() -> Result<c_int>) -> c_int {
    run(|| {
        body().unwrap_or_else(|failure| match failure {
            Failure::Library(error) => {
                keep(|sentence| sentence.explain(&error));
                -errno(&error)
            }
            Failure::Usage { errno, text } => {
                keep(|sentence| sentence.write_str(text));
                -errno
            }
            Failure::Noted { errno } => -errno,
        })
    })
}

/// [`status`] without a number: 0, or the negative `errno` of a failure.
pub(crate) fn done(body: impl FnOnce() -> Result<()>) -> c_int {
    status(|| body().map(|()| 0))
}

/// A sentence about this thread's last failure, with its causes: what happened, what was expected and found. Empty if
/// nothing has failed.
///
/// Valid until the next function of this header fails in the same thread, or the thread ends; never null. It can be called in
/// destructors of thread-local objects.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_last_error() -> *const c_char {
    LAST.with(|last| last.as_ptr().cast::<c_char>())
}

/// The version of the library, such as "0.1.0". Valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no zeros"),
        };
    VERSION.as_ptr()
}
