//! Exceptions: each error of the library as a class of `sealane.errors`, or as an `OSError`.

use std::{io, path::PathBuf};

use pyo3::{
    exceptions::{PyOSError, PyTypeError},
    import_exception,
    prelude::*,
};
use rustix::io::Errno;
use sealane::{Error, HandshakeError as Cause, SealError};

import_exception!(sealane.errors, BusyError);
import_exception!(sealane.errors, Disconnected);
import_exception!(sealane.errors, FdsInFlight);
import_exception!(sealane.errors, FdsLost);
import_exception!(sealane.errors, Full);
import_exception!(sealane.errors, HandshakeError);
import_exception!(sealane.errors, HoldingTimeout);
import_exception!(sealane.errors, LimitError);
import_exception!(sealane.errors, NotSealed);
import_exception!(sealane.errors, Overrun);
import_exception!(sealane.errors, ProtocolError);
import_exception!(sealane.errors, SealaneError);
import_exception!(sealane.errors, Timeout);
import_exception!(sealane.errors, TooLarge);
import_exception!(sealane.errors, TooSlow);
import_exception!(sealane.errors, UnknownRequest);

/// Names in the library's texts, each with the name in Python. Longer names come before their parts.
const WORDS: [(&str, &str); 7] = [
    ("Builder::", "setting "),
    ("Channel::spawn or Prepared", "sealane.spawn"),
    ("Channel::spawn", "sealane.spawn"),
    ("Channel::inherited", "sealane.inherited"),
    ("Channel::connect", "sealane.connect"),
    ("Subscriber::connect", "sealane.subscribe"),
    ("SealedBuffer::with_limit's", "max_size"),
];

/// A text of the library in the words of Python.
pub(crate) fn in_words(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Does the same for the test that goes through all texts.
#[pyfunction(name = "_in_words")]
pub(crate) fn in_words_of_python(text: &str) -> String {
    in_words(text)
}

/// The exception for an error.
pub(crate) fn raise(py: Python<'_>, error: Error) -> PyErr {
    let mut text = in_words(&error.to_string());
    if matches!(error, Error::ControlTooLarge { .. }) {
        text.push_str(": payload= or a loan carries more");
    }
    raise_as(py, error, text)
}

/// The exception for an error, with a text that says more than the error knows.
pub(crate) fn raise_as(py: Python<'_>, error: Error, text: String) -> PyErr {
    match error {
        // A call on an object that was closed here has another text: see `of_closed`.
        Error::Disconnected => Disconnected::new_err("the peer is gone, or has closed the channel"),
        Error::TooSlow => TooSlow::new_err(text),
        Error::Timeout => Timeout::new_err(text),
        Error::TimeoutHolding { count, bytes } => {
            let raised = HoldingTimeout::new_err(text);
            // The attributes are for programs, and the text has the same numbers.
            let value = raised.value(py);
            drop(value.setattr("count", count).and_then(|()| value.setattr("bytes", bytes)));
            raised
        }
        Error::Full => Full::new_err(text),
        Error::FdsInFlight => FdsInFlight::new_err(text),
        Error::PayloadTooLarge { .. }
        | Error::ControlTooLarge { .. }
        | Error::TooManyFds { .. }
        | Error::RingTooLarge { .. } => TooLarge::new_err(text),
        Error::FdsLost { .. } => FdsLost::new_err(text),
        Error::Backlog | Error::TooManyRequests { .. } => LimitError::new_err(text),
        Error::UnknownRequest => UnknownRequest::new_err(text),
        Error::Overrun => Overrun::new_err(text),
        Error::Handshake(Cause::Closed { awaited }) => {
            let raised = HandshakeError::new_err(text);
            // For `spawn`, which knows whether the child has ended.
            drop(raised.value(py).setattr("awaited", awaited));
            raised
        }
        Error::Handshake(_) => HandshakeError::new_err(text),
        Error::Protocol(_) => ProtocolError::new_err(text),
        Error::Sealed(SealError::Seals { expected, found }) => {
            let text = format!("a memfd with the seals {} expected, {} found", seals(expected), seals(found));
            NotSealed::new_err(text)
        }
        Error::Sealed(_) => NotSealed::new_err(text),
        Error::Io { operation, path, source } => failed(operation, path, &source),
        // Kinds that a later version adds, and casts, which this package does not ask for.
        _ => SealaneError::new_err(text),
    }
}

/// The names of seals, as `fcntl(2)` has them.
fn seals(mask: u32) -> String {
    let names =
        ["F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_FUTURE_WRITE", "F_SEAL_EXEC"];
    let set = names.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| *name);
    let set = set.collect::<Vec<_>>();
    if set.is_empty() { "none".to_owned() } else { set.join(" | ") }
}

/// The exception for a failed system call. With its number `OSError` becomes the class that fits: `FileNotFoundError` and so on.
pub(crate) fn failed(operation: &str, path: Option<PathBuf>, error: &io::Error) -> PyErr {
    let number = error.raw_os_error().or_else(|| number_of(error.kind()));
    let cause = error.to_string();
    // Python shows the number by itself, and the path.
    let cause = cause.split_once(" (os error ").map_or(cause.as_str(), |(cause, _number)| cause);
    let text = format!("{operation} failed: {cause}");
    match (number, path) {
        (Some(number), Some(path)) => PyOSError::new_err((number, text, path.into_os_string())),
        (Some(number), None) => PyOSError::new_err((number, text)),
        (None, _) => PyErr::from(io::Error::new(error.kind(), text)),
    }
}

/// The number for the kinds of failures that the library finds by itself.
fn number_of(kind: io::ErrorKind) -> Option<i32> {
    let number = match kind {
        io::ErrorKind::AddrInUse => Errno::ADDRINUSE,
        io::ErrorKind::InvalidInput => Errno::INVAL,
        io::ErrorKind::FileTooLarge => Errno::FBIG,
        io::ErrorKind::OutOfMemory => Errno::NOMEM,
        io::ErrorKind::PermissionDenied => Errno::PERM,
        io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        _ => return None,
    };
    Some(number.raw_os_error())
}

/// The exception for pickling an object that is tied to this process.
pub(crate) fn no_pickle(object: &Bound<'_, PyAny>, instead: &str) -> PyErr {
    PyTypeError::new_err(format!("cannot pickle {}: {instead}", object.get_type()))
}

/// The exception for a value that is in use: another thread's call has it, or a loan of it is open.
pub(crate) fn busy(what: &str) -> PyErr {
    BusyError::new_err(format!("{what}: one call at a time expected"))
}

/// The exception of an object that was closed here.
pub(crate) fn closed() -> PyErr {
    Disconnected::new_err("it was closed here, by close() or the end of with")
}

/// The exception of a call, which says so if the object was closed here meanwhile.
pub(crate) fn of_closed(error: PyErr, is_closed: bool) -> PyErr {
    let is_end = |py: Python<'_>| error.get_type(py).is(py.get_type::<Disconnected>());
    if is_closed && Python::attach(is_end) { closed() } else { error }
}

/// The next message for a loop, which ends where the peer is gone, and nowhere else.
pub(crate) fn until_end<T>(py: Python<'_>, received: PyResult<T>) -> PyResult<Option<T>> {
    match received {
        Err(error) if error.get_type(py).is(py.get_type::<Disconnected>()) => Ok(None),
        received => received.map(Some),
    }
}
