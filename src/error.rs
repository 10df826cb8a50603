//! What can go wrong, as variants that a caller can act on.
//!
//! No type of a dependency appears here. Every message says what was expected and what was found.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use thiserror::Error;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a channel failed.
///
/// After an error for which [`is_fatal`](Self::is_fatal) is false the channel goes on working.
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
    /// The deadline passed first, while the peer waits for room in its ring, which payloads that are held here take up. Nothing
    /// was lost. Release them, or give the peer a larger ring: see [`Held`](crate::Held).
    #[error(
        "the deadline passed, while the peer waits for room in its ring: {count} payloads of {bytes} bytes are held here"
    )]
    TimeoutHolding {
        /// Payloads, see [`Held::count`](crate::Held::count).
        count: u64,
        /// Their bytes in the ring, see [`Held::bytes`](crate::Held::bytes).
        bytes: u64,
    },
    /// The socket holds as many packets as the kernel lets it. Nothing was sent.
    #[error("the socket is full")]
    Full,
    /// The payload can never fit into this ring.
    #[error(
        "a payload of {len} bytes does not fit into the ring (Builder::ring_capacity): at most {max} expected"
    )]
    PayloadTooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes that fit, see [`Limits::max_payload`](crate::Limits::max_payload).
        max: usize,
    },
    /// The control bytes are more than the peer, or our socket, accepts; or a builder's limit is above what a packet can
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
    /// More descriptors than the peer accepts with one message.
    #[error("{count} descriptors are too many: at most {max} expected (the peer's Builder::max_fds)")]
    TooManyFds {
        /// Descriptors given.
        count: usize,
        /// Descriptors that the peer accepts, see [`Limits::max_fds`](crate::Limits::max_fds).
        max: usize,
    },
    /// This process is at its own limit of open files (`RLIMIT_NOFILE`), so the kernel dropped
    /// descriptors of a received message (`MSG_CTRUNC`, `recvmsg(2)`). That message is lost whole; the channel goes on.
    #[error(
        "a message is lost: {expected} descriptors expected, {received} received before this process's limit of open files"
    )]
    FdsLost {
        /// Descriptors that were sent.
        expected: usize,
        /// Descriptors that arrived, all closed again.
        received: usize,
    },
    /// Too many descriptors of this user are in flight (`ETOOMANYREFS`, `unix(7)`): some peer, perhaps another one, does
    /// not read. Nothing was sent. The kernel announces no end of it, so try again after some milliseconds.
    #[error("too many descriptors of this user are in flight")]
    FdsInFlight,
    /// What came while a reply was awaited is more than the channel keeps. Receive it, then go on.
    #[error("too many messages are kept: receive them first")]
    Backlog,
    /// As many requests have no reply as may be open at once. Nothing was sent. Receive replies, then go on. A request that
    /// was given up counts until its reply comes: where the peer never answers, only a new channel helps.
    #[error(
        "{max} requests are without a reply: no more are accepted (Builder::max_requests, of either side)"
    )]
    TooManyRequests {
        /// Requests that may be open at once, see [`Limits::max_requests`](crate::Limits::max_requests).
        max: usize,
    },
    /// The request belongs to another channel, or has been answered or given up.
    #[error("no such open request on this channel")]
    UnknownRequest,
    /// The ring that the builder asks for is larger than any ring can be.
    #[error("a ring of {capacity} bytes (Builder::ring_capacity) is too large: at most {max} expected")]
    RingTooLarge {
        /// Bytes asked for, see [`Builder::ring_capacity`](crate::Builder::ring_capacity).
        capacity: usize,
        /// Bytes that a ring can have at most.
        max: usize,
    },
    /// The channel could not be established.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer broke the protocol. The channel is closed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A descriptor is not a sealed buffer.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// Received bytes are not what they were asked to be.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// A system call failed.
    #[error("{operation}{} failed: {source}", At(path.as_deref()))]
    Io {
        /// The system call, or what was done with it.
        operation: &'static str,
        /// The file or socket name that it was done to, if it has one.
        path: Option<PathBuf>,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Whether this half of the channel has come to its end. A handshake ends with every error but [`Full`](Self::Full) and
    /// [`FdsInFlight`](Self::FdsInFlight), whatever this says.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disconnected | Self::Handshake(_) | Self::Protocol(_))
    }

    /// Whether a deadline passed: [`Timeout`](Self::Timeout) or [`TimeoutHolding`](Self::TimeoutHolding). Trying again makes
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

    /// For `map_err`: an error of the system call `operation`.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, path: None, source: source.into() }
    }

    /// For `map_err`: an error of the system call `operation` on `path`.
    pub(crate) fn io_at<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { operation, path: Some(path.to_owned()), source: source.into() }
    }
}

/// Where an operation failed, behind its name: ` PATH`, or nothing.
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
            Error::Disconnected => io::ErrorKind::BrokenPipe,
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
            Error::Protocol(_) | Error::Sealed(_) | Error::Cast(_) => io::ErrorKind::InvalidData,
            Error::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Why no channel came of a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// We refused what the peer offered, and told it so.
    #[error("we refused the peer: {0}")]
    Refused(Refusal),
    /// The peer refused what we offered.
    #[error("the peer refused us: {0}")]
    Rejected(Refusal),
    /// The peer went away in the middle.
    #[error("the peer closed the socket before its {awaited}")]
    Closed {
        /// The packet that should have come.
        awaited: &'static str,
    },
    /// The descriptor given is no connected `AF_UNIX` `SOCK_SEQPACKET` socket.
    #[error("expected a connected AF_UNIX SOCK_SEQPACKET socket, found {found}")]
    NotSeqpacket {
        /// What it is instead.
        found: &'static str,
    },
    /// The descriptor given is no listening `AF_UNIX` `SOCK_SEQPACKET` socket.
    #[error("expected a listening AF_UNIX SOCK_SEQPACKET socket, found {found}")]
    NotListening {
        /// What it is instead.
        found: &'static str,
    },
    /// The child process ended in the middle: it is no program that takes its channel
    /// ([`Channel::inherited`](crate::Channel::inherited)), or something kept it from that. Its status may tell.
    #[error(
        "the child ended with {status} before its {awaited}: it does not take its channel (Channel::inherited), or could not"
    )]
    ChildEnded {
        /// The packet that should have come.
        awaited: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// This process was not started by [`Channel::spawn`](crate::Channel::spawn), or its environment was cleared, or the
    /// descriptor that is named is no channel.
    #[error(
        "expected a descriptor and cookie in {place}, found {found}: a program that Channel::spawn or Prepared starts has one, unless a wrapper drops it"
    )]
    NotInherited {
        /// Where they should stand.
        place: &'static str,
        /// What stands there, or what is wrong with it.
        found: String,
    },
    /// The channel of this process's parent was adopted before: it can be had once.
    #[error("the inherited channel was taken before")]
    AlreadyInherited,
}

/// What one side of a handshake refuses in the other's `Hello`. Both sides report the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub reason: Reason,
    /// What was expected: a number, limit, or mask as [`Reason`] says.
    pub expected: u64,
    /// What was found instead.
    pub found: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, expected, found } = *self;
        match reason {
            Reason::Magic => write!(f, "not a sealane peer: magic {expected:#x} expected, {found:#x} found"),
            Reason::Version => write!(f, "no common version: {expected} expected, {found} found"),
            Reason::HelloLength => write!(f, "Hello of at least {expected} bytes expected, {found} found"),
            Reason::Features => {
                write!(f, "unknown required features: {expected:#x} known, {found:#x} required")
            }
            Reason::RingTooLarge => write!(
                f,
                "ring of at most {expected} bytes expected, {found} found: lower Builder::ring_capacity of the one side, or raise Builder::max_peer_ring_capacity of the other"
            ),
            Reason::Geometry => {
                write!(f, "ring capacity or offset that is a multiple of {expected} expected, {found} found")
            }
            Reason::Start => write!(f, "first sequence and position {expected} expected, {found} found"),
            Reason::Descriptors => write!(f, "{expected} descriptors expected, {found} found"),
            Reason::RegionKind => {
                write!(f, "region: a regular file (mode {expected:#o}) expected, mode {found:#o} found")
            }
            Reason::RegionSeals => write!(f, "region: seals {expected:#x} expected, {found:#x} found"),
            Reason::RegionSize => write!(f, "region: {expected} bytes expected, {found} found"),
            Reason::RegionHoles => write!(f, "region: {expected} allocated bytes expected, {found} found"),
            Reason::RegionAccess => write!(
                f,
                "region: a descriptor that was opened for reading (flags {expected:#o}) expected, flags {found:#o} found"
            ),
            Reason::CreditSocket => write!(f, "credit: a SOCK_SEQPACKET AF_UNIX socket expected"),
            Reason::Credentials => {
                write!(f, "credentials: a process or user that has a name here expected, none found")
            }
            Reason::Packet if found == 0 => {
                write!(f, "{} expected, a packet that is none of sealane's found", PacketName(expected))
            }
            Reason::Packet => write!(f, "{} expected, {} found", PacketName(expected), PacketName(found)),
            Reason::Application => write!(f, "refused by the application"),
            Reason::Reflected => {
                write!(f, "the other side's own region and credit socket expected, ours found")
            }
            Reason::OwnFailure => {
                let why =
                    i32::try_from(found).ok().filter(|errno| *errno > 0).map(io::Error::from_raw_os_error);
                let why =
                    why.map_or_else(|| format!("an errno expected, {found} found"), |why| why.to_string());
                write!(f, "who refuses failed by itself: {why}")
            }
            Reason::Unknown(code) => {
                write!(f, "reason {code}, unknown to this version: {expected} expected, {found} found")
            }
        }
    }
}

/// The name of a kind of packet, as docs/protocol.md has it.
struct PacketName(u64);

impl fmt::Display for PacketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("Hello"),
            2 => f.write_str("Ready"),
            3 => f.write_str("Reject"),
            4 => f.write_str("Control"),
            5 => f.write_str("Doorbell"),
            kind => write!(f, "packet of kind {kind}"),
        }
    }
}

/// What a [`Refusal`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The first bytes are not sealane's.
    Magic,
    /// The version ranges do not meet; expected our nearest bound, found the peer's.
    Version,
    /// The `Hello` is shorter than its version asks for, or than it says itself. Bytes.
    HelloLength,
    /// The peer requires features that are not known here. Bit masks.
    Features,
    /// The ring is larger than [`Builder::max_peer_ring_capacity`](crate::Builder::max_peer_ring_capacity). Bytes.
    RingTooLarge,
    /// Capacity or offset is not aligned as it must be. Bytes.
    Geometry,
    /// First sequence or position is not that of a new channel.
    Start,
    /// `Hello` came with another number of descriptors.
    Descriptors,
    /// The region's descriptor is not a regular file. `st_mode & S_IFMT`.
    RegionKind,
    /// The region lacks seals. Masks as in `fcntl(2)`, `F_GET_SEALS`; a file without seals shows 0.
    RegionSeals,
    /// The region's file is of another size than `Hello` says. Bytes.
    RegionSize,
    /// The region has holes, which would be filled at the reader's expense; found is what is allocated, or how much
    /// precedes a hole that pages beyond the end had hidden. Bytes.
    RegionHoles,
    /// The region's descriptor was not opened for reading. Flags as in `open(2)`: the access mode, and `O_PATH`.
    RegionAccess,
    /// The credit descriptor is not a `SOCK_SEQPACKET` socket.
    CreditSocket,
    /// `Hello` came without credentials, or with none that name a process, user or group in our namespaces.
    Credentials,
    /// Another packet than the one whose turn it is, or a malformed one. Packet kinds.
    Packet,
    /// [`Handshake::refuse`](crate::Handshake::refuse) was called.
    Application,
    /// The region or the credit socket in the peer's `Hello` is one of our own, which somebody reflects.
    Reflected,
    /// No fault of the other side's: the side that refuses had no memory or descriptors left, or its sandbox stopped it. It
    /// reports [`Error::Io`] itself, or [`Error::FdsLost`]; found is an `errno(3)`, or 0.
    OwnFailure,
    /// A reason of a newer version.
    Unknown(u32),
}

/// How the peer broke the protocol. An honest peer never does, so each of these closes the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are the numbers named in the message of each variant")]
pub enum ProtocolError {
    /// The count of committed bytes went backwards, or ahead by more than a ring.
    #[error("ring head: {from} to {limit} expected, {found} found")]
    Head { from: u64, limit: u64, found: u64 },
    /// The count of released bytes went backwards, or past what was committed.
    #[error("ring tail: {from} to {limit} expected, {found} found")]
    Tail { from: u64, limit: u64, found: u64 },
    /// A head or tail between two records.
    #[error("ring position: a multiple of 64 expected, {found} found")]
    Misaligned { found: u64 },
    /// A record that is longer than what was committed, or than the rest of the ring.
    #[error(
        "record: at most {available} bytes expected, payload of {payload} and control of {control} bytes found"
    )]
    RecordLength { available: u64, payload: u64, control: u64 },
    /// A record with unknown flags.
    #[error("record flags: {known:#x} known, {found:#x} found")]
    RecordFlags { known: u32, found: u32 },
    /// Padding that does not end where the ring does.
    #[error("padding: {expected} bytes expected, {found} found")]
    Padding { expected: u64, found: u64 },
    /// A record whose reserved bytes, or the fields without a meaning in padding, are not zero.
    #[error("record: zeros expected in the reserved bytes")]
    RecordReserved,
    /// A packet shorter than its header, or of a kind that has no body but one.
    #[error("packet: {expected} bytes expected, {found} found")]
    PacketLength { expected: usize, found: usize },
    /// A packet that is longer than what we said that we accept.
    #[error("packet: at most {max} bytes expected, more found")]
    PacketTooLong { max: usize },
    /// A packet of a kind that has no place here.
    #[error("packet kind: {expected} expected, {found} found")]
    PacketKind { expected: u16, found: u16 },
    /// A packet with unknown flags.
    #[error("packet flags: {known:#x} known, {found:#x} found")]
    PacketFlags { known: u16, found: u16 },
    /// A packet whose reserved bytes, or fields without a meaning in its kind, are not zero.
    #[error("packet: zeros expected in the reserved bytes")]
    PacketReserved,
    /// More control bytes than we said that we accept.
    #[error("control: at most {max} bytes expected, {found} found")]
    ControlLength { max: usize, found: usize },
    /// More descriptors than we said that we accept.
    #[error("descriptors: at most {max} expected, {found} found")]
    FdLimit { max: usize, found: usize },
    /// Another number of descriptors than the packet says.
    #[error("descriptors: {announced} announced, {found} found")]
    FdCount { announced: usize, found: usize },
    /// A message out of turn.
    #[error("sequence: {expected} expected, {found} found")]
    Sequence { expected: u64, found: u64 },
    /// One half of a message says that there is another half, which does not say so, or is not there.
    #[error("message {sequence}: its halves in ring and socket do not fit")]
    Halves { sequence: u64 },
    /// More doorbells than there were sleeps.
    #[error("doorbells: at most {shown} expected, {heard} found")]
    Doorbells { shown: u64, heard: u64 },
    /// More requests than we said that we leave unanswered.
    #[error("requests: at most {max} without a reply expected, more found")]
    Requests { max: usize },
    /// A reply to what was not asked.
    #[error("reply to message {sequence}, which asked for none or was answered before")]
    UnaskedReply { sequence: u64 },
}

/// Why received bytes could not be read as what was asked for. Nothing was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CastError {
    /// The two lengths must be equal. Bytes for control data, elements for slices.
    #[error("length {expected} expected, {found} found (bytes of control data, elements of a slice)")]
    Length {
        /// The length that was asked for.
        expected: usize,
        /// The length that is there.
        found: usize,
    },
    /// Not a whole number of elements.
    #[error("a multiple of {size} bytes expected, {found} bytes found")]
    Remainder {
        /// Bytes of one element.
        size: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// The range ends behind the end, or its length cannot be counted in bytes.
    #[error("{count} elements of {size} bytes at offset {offset} expected, {available} bytes found in all")]
    OutOfBounds {
        /// First byte asked for.
        offset: usize,
        /// Elements asked for.
        count: usize,
        /// Bytes of one element.
        size: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The bytes are no value of the type.
    #[error("a valid {expected} expected, other bytes found")]
    Invalid {
        /// The type's name.
        expected: &'static str,
    },
}

/// Why a descriptor is no [`SealedBuffer`](crate::SealedBuffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Not a regular file.
    #[error("a regular file (mode {expected:#o}) expected, mode {found:#o} found")]
    Kind {
        /// `S_IFREG`, `inode(7)`.
        expected: u32,
        /// The file type found.
        found: u32,
    },
    /// The descriptor was opened without the right to read.
    #[error("a descriptor opened for reading expected, access mode {found:#o} found (O_ACCMODE, open(2))")]
    Access {
        /// `O_WRONLY` or `O_PATH`, `open(2)`.
        found: u32,
    },
    /// Somebody may still change it. Masks as in `fcntl(2)`, `F_GET_SEALS`.
    #[error("a memfd with seals {expected:#x} expected, {found:#x} found")]
    Seals {
        /// Seals that are needed.
        expected: u32,
        /// Seals that it has.
        found: u32,
    },
    /// Larger than the limit. Bytes.
    #[error(
        "a sealed buffer of at most {max} bytes expected, {found} found (the limit is SealedBuffer::with_limit's)"
    )]
    TooLarge {
        /// The limit.
        max: u64,
        /// Its size.
        found: u64,
    },
    /// It has holes, which would be filled at this process's expense. Bytes.
    #[error("{expected} allocated bytes expected, {found} found")]
    Holes {
        /// Its size.
        expected: u64,
        /// What is allocated, or how much precedes a hole that pages beyond the end had hidden.
        found: u64,
    },
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
    fn io_error_shows_operation_path_and_cause() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Error::io("socket")(refused()).to_string(), "socket failed: connection refused");
        let error = Error::io_at("connect", Path::new("/run/service"))(refused());
        assert_eq!(error.to_string(), "connect /run/service failed: connection refused");
        let error = Error::io_at("bind", Path::new(""))(refused());
        assert_eq!(error.to_string(), "bind \"\" failed: connection refused");
    }

    #[test]
    fn refusal_of_a_packet_names_the_kinds() {
        let refusal = |expected, found| Refusal { reason: Reason::Packet, expected, found }.to_string();
        assert_eq!(refusal(1, 0), "Hello expected, a packet that is none of sealane's found");
        assert_eq!(refusal(2, 4), "Ready expected, Control found");
        assert_eq!(refusal(1, 99), "Hello expected, packet of kind 99 found");
    }

    #[test]
    fn a_failure_of_who_refuses_has_the_cause_that_it_tells() {
        let text = |found| Refusal { reason: Reason::OwnFailure, expected: 0, found }.to_string();
        assert_eq!(text(1), "who refuses failed by itself: Operation not permitted (os error 1)");
        for none in [0, 1 << 31, u64::MAX] {
            assert!(!text(none).contains("uccess"), "{}", text(none));
            assert!(text(none).contains(&none.to_string()), "{}", text(none));
        }
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
