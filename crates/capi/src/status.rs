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
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

/// Bytes of a sentence, its final zero included. What is longer is cut.
const CAPACITY: usize = 1024;

/// The sentence of a thread's last failure: text, then a zero, at the beginning of the structure. Without a destructor, so that it can be read for as long as the
/// thread runs: in destructors of other thread-local objects too.
#[repr(C)]
struct Sentence {
    bytes: [u8; CAPACITY],
    len: usize,
}

thread_local! {
    static LAST: RefCell<Sentence> = const { RefCell::new(Sentence { bytes: [0; CAPACITY], len: 0 }) };
}

impl Write for Sentence {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.len..CAPACITY - 1).unwrap_or_default();
        let cut = text.floor_char_boundary(free.len());
        free[..cut].copy_from_slice(&text.as_bytes()[..cut]);
        self.len += cut;
        Ok(())
    }
}

impl Sentence {
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
    LAST.with_borrow_mut(|last| {
        last.len = 0;
        // It does not fail: what does not fit is cut.
        let _ = write(last);
        let end = last.len;
        last.bytes[end] = 0;
    });
}

/// The status of a result: itself, or the negative `errno` of a failure, whose sentence is kept.
pub(crate) fn status(result: Result<c_int>) -> c_int {
    result.unwrap_or_else(|failure| match failure {
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
}

/// The status of a result without a number: 0, or the negative `errno` of a failure.
pub(crate) fn done(result: Result<()>) -> c_int {
    status(result.map(|()| 0))
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
