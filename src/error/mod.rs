//! Everything that can go wrong, as variants that a caller can act on.
//!
//! Owns the public error types: [`enum@Error`], and one file for each group of causes. No type of a dependency appears here.
//! Every message says what was expected and what was found.
//!
//! May import: nothing of this crate.

mod handshake;
mod memory;
mod protocol;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

pub use handshake::{HandshakeError, Reason, Refusal};
pub use memory::{CastError, SealError};
pub use protocol::ProtocolError;
use thiserror::Error;

/// The result of every function of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason for which an operation on a channel failed.
///
/// The channel works as before after an error for which [`is_fatal`](Self::is_fatal) is false.
///
/// ```
/// use sealane::{Channel, Error};
///
/// let (mut a, _b) = Channel::pair()?;
/// match a.loan(usize::MAX) {
///     Err(Error::PayloadTooLarge { len, max }) => assert!(len > max),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer is gone, or has closed this direction, or [`Closer::close`](crate::Closer::close) was called.
    ///
    /// A receiver reports it only after everything that was committed has been delivered.
    #[error("the peer is gone, or the channel was closed here")]
    Disconnected,
    /// The deadline passed first. Nothing was sent or lost. [`is_timeout`](Self::is_timeout) covers both variants.
    #[error("the deadline passed")]
    Timeout,
    /// The deadline passed while payloads that are held here kept the peer waiting for room in its ring. Nothing was lost.
    /// Release the payloads, or give the peer a larger ring: see [`Held`](crate::Held).
    #[error(
        "the deadline passed, while the peer waits for room in its ring: {count} payloads of {bytes} bytes are held here"
    )]
    TimeoutHolding {
        /// Payloads, see [`Held::count`](crate::Held::count).
        count: u64,
        /// Bytes of the payloads in the ring, see [`Held::bytes`](crate::Held::bytes).
        bytes: u64,
    },
    /// The socket holds all the packets that the kernel lets it hold. Nothing was sent.
    #[error("the socket is full")]
    Full,
    /// The payload is longer than this ring can ever hold.
    #[error(
        "a payload of {len} bytes does not fit into the ring (Builder::ring_capacity): at most {max} expected"
    )]
    PayloadTooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Bytes that fit, see [`Limits::max_payload`](crate::Limits::max_payload).
        max: usize,
    },
    /// The control bytes are more than the peer or our socket accepts, or a builder's limit is above what a packet can
    /// hold.
    #[error(
        "{len} control bytes are too many: at most {max} expected (Builder::max_control, or what a packet can hold)"
    )]
    ControlTooLarge {
        /// Bytes given, or [`Builder::max_control`](crate::Builder::max_control).
        len: usize,
        /// Bytes that the peer accepts, see [`Limits::max_control`](crate::Limits::max_control), or that a packet can hold.
        max: usize,
    },
    /// The message has more descriptors than the peer accepts.
    #[error("{count} descriptors are too many: at most {max} expected (the peer's Builder::max_fds)")]
    TooManyFds {
        /// Descriptors given.
        count: usize,
        /// Descriptors that the peer accepts, see [`Limits::max_fds`](crate::Limits::max_fds).
        max: usize,
    },
    /// The kernel dropped descriptors of a received message (`MSG_CTRUNC`, `recvmsg(2)`), because this process is at its own
    /// limit of open files (`RLIMIT_NOFILE`). The message is lost as a whole. The channel works as before.
    #[error(
        "a message is lost: {expected} descriptors expected, {received} received before this process's limit of open files"
    )]
    FdsLost {
        /// Descriptors that were sent.
        expected: usize,
        /// Descriptors that arrived, all closed again.
        received: usize,
    },
    /// This user has too many descriptors in flight (`ETOOMANYREFS`, `unix(7)`), since some peer does not read. Nothing was
    /// sent. The kernel does not announce the end of this state: try again after some milliseconds.
    #[error("too many descriptors of this user are in flight")]
    FdsInFlight,
    /// More messages came while a reply was awaited than the channel keeps. Receive them, then try again.
    #[error("too many messages are kept: receive them first")]
    Backlog,
    /// The limit of requests without a reply is reached. Nothing was sent. Receive replies, then try again. A request that
    /// was cancelled counts until its reply comes: where the peer never answers, only a new channel helps.
    #[error(
        "{max} requests are without a reply: no more are accepted (Builder::max_requests, of either side)"
    )]
    TooManyRequests {
        /// Requests that may be open at once, see [`Limits::max_requests`](crate::Limits::max_requests).
        max: usize,
    },
    /// The request belongs to another channel, or has been answered or cancelled.
    #[error("no such open request on this channel")]
    UnknownRequest,
    /// The builder asks for a larger ring than any ring can be.
    #[error("a ring of {capacity} bytes (Builder::ring_capacity) is too large: at most {max} expected")]
    RingTooLarge {
        /// Bytes of the ring, see [`Builder::ring_capacity`](crate::Builder::ring_capacity).
        capacity: usize,
        /// Bytes that a ring can have at most.
        max: usize,
    },
    /// The payload was overwritten while it was copied, as its subscription was ended for slowness, or is one that may be
    /// overrun. The copy is dropped.
    #[error("the payload was overwritten by its publisher meanwhile")]
    Overrun,
    /// The publisher ended this subscription, since it used up the time for which it was waited for
    /// ([`Slow::Wait`](crate::Slow::Wait)). Payloads that are still held may have been overwritten.
    #[error("this subscriber was too slow: its publisher has ended the subscription (Builder::slow)")]
    TooSlow,
    /// The channel could not be established.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer broke the protocol. The channel is closed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The descriptor is not a sealed buffer.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The received bytes are no value of the type, or have another length than was asked for.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// A system call failed.
    ///
    /// The text shows the cause. Therefore [`source`](std::error::Error::source) does not return it again: a report that
    /// prints a chain of errors would show it twice.
    #[error("{operation}{} failed: {}", At(path.as_deref()), r#source)]
    Io {
        /// Short name of the system call.
        operation: &'static str,
        /// The file or socket name that the call was about, if it has one.
        path: Option<PathBuf>,
        /// The kernel's error. A raw name, by which `thiserror` does not take the field for the error's source.
        r#source: io::Error,
    },
}

impl Error {
    /// True if this half of the channel has come to its end. A handshake ends with every error but [`Full`](Self::Full) and
    /// [`FdsInFlight`](Self::FdsInFlight), whatever this says.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disconnected | Self::TooSlow | Self::Handshake(_) | Self::Protocol(_))
    }

    /// True if a deadline passed: [`Timeout`](Self::Timeout) or [`TimeoutHolding`](Self::TimeoutHolding). Trying again makes
    /// sense.
    ///
    /// ```
    /// use sealane::Channel;
    /// use std::time::Duration;
    ///
    /// let (mut a, _b) = Channel::pair()?;
    /// assert!(a.recv_timeout(Duration::ZERO).unwrap_err().is_timeout());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout | Self::TimeoutHolding { .. })
    }

    /// Names the payloads that are held here (their number, and bytes), if a call timed out while the peer needs their space.
    pub(crate) fn naming_held(
        self,
        (count, bytes): (u64, u64),
        holds_up_peer: impl FnOnce() -> bool,
    ) -> Self {
        match self {
            Self::Timeout if count > 0 && holds_up_peer() => Self::TimeoutHolding { count, bytes },
            error => error,
        }
    }

    /// Makes the argument of a `map_err`: an error of the system call `operation`.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, path: None, source: source.into() }
    }

    /// Makes the argument of a `map_err`: an error of the system call `operation` on `path`.
    pub(crate) fn io_at<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, path: Some(path.to_owned()), source: source.into() }
    }
}

/// The path in the text of [`Error::Io`], behind a space; nothing without a path.
struct At<'a>(Option<&'a Path>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(path) if path.as_os_str().is_empty() => f.write_str(" \"\""),
            Some(path) => write!(f, " {}", path.display()),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Disconnected | Error::TooSlow => io::ErrorKind::BrokenPipe,
            Error::Timeout | Error::TimeoutHolding { .. } => io::ErrorKind::TimedOut,
            Error::Full | Error::FdsInFlight => io::ErrorKind::WouldBlock,
            Error::PayloadTooLarge { .. }
            | Error::ControlTooLarge { .. }
            | Error::TooManyFds { .. }
            | Error::RingTooLarge { .. }
            | Error::UnknownRequest => io::ErrorKind::InvalidInput,
            Error::FdsLost { .. } | Error::Backlog | Error::TooManyRequests { .. } => {
                io::ErrorKind::QuotaExceeded
            }
            Error::Handshake(_) => io::ErrorKind::ConnectionRefused,
            Error::Overrun | Error::Protocol(_) | Error::Sealed(_) | Error::Cast(_) => {
                io::ErrorKind::InvalidData
            }
            Error::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_error_keeps_the_error_inside() {
        let error = io::Error::from(Error::Protocol(ProtocolError::RecordReserved));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let inner = error.into_inner().unwrap();
        assert!(matches!(
            inner.downcast_ref::<Error>(),
            Some(Error::Protocol(ProtocolError::RecordReserved))
        ));
    }

    #[test]
    fn io_error_shows_operation_path_and_cause_once() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Error::io("socket")(refused()).to_string(), "socket failed: connection refused");
        let error = Error::io_at("connect", Path::new("/run/service"))(refused());
        assert_eq!(error.to_string(), "connect /run/service failed: connection refused");
        let source = std::error::Error::source(&error);
        assert!(source.is_none(), "a chain of errors would show it again: {source:?}");
        let error = Error::io_at("bind", Path::new(""))(refused());
        assert_eq!(error.to_string(), "bind \"\" failed: connection refused");
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
