//! [`HandshakeError`] and [`Refusal`]: the reasons for which no channel was established.

use std::{fmt, io, process::ExitStatus};

use thiserror::Error;
use zerocopy::{TryFromBytes, try_transmute};

/// The reason for which a handshake gave no channel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// This side refused the peer's offer, and sent the peer the reason.
    #[error("we refused the peer: {0}")]
    Refused(Refusal),
    /// The peer refused this side's offer.
    #[error("the peer refused us: {0}")]
    Rejected(Refusal),
    /// The peer went away in the middle.
    #[error("the peer closed the socket before its {awaited}")]
    Closed {
        /// The packet that was awaited.
        awaited: &'static str,
    },
    /// The given descriptor is no connected `AF_UNIX` `SOCK_SEQPACKET` socket.
    #[error("expected a connected AF_UNIX SOCK_SEQPACKET socket, found {found}")]
    NotSeqpacket {
        /// The descriptor's kind.
        found: &'static str,
    },
    /// The given descriptor is no listening `AF_UNIX` `SOCK_SEQPACKET` socket.
    #[error("expected a listening AF_UNIX SOCK_SEQPACKET socket, found {found}")]
    NotListening {
        /// The descriptor's kind.
        found: &'static str,
    },
    /// The child process ended in the middle. Either its program does not take a channel
    /// ([`Channel::inherited`](crate::Channel::inherited)), or it failed before. Its status may tell which.
    #[error(
        "the child ended with {status} before its {awaited}: it does not take its channel (Channel::inherited), or could not"
    )]
    ChildEnded {
        /// The packet that was awaited.
        awaited: &'static str,
        /// The child's exit status.
        status: ExitStatus,
    },
    /// This process was not started by [`Channel::spawn`](crate::Channel::spawn), or its environment was cleared, or the
    /// named descriptor is no channel.
    #[error(
        "expected a descriptor and cookie in {place}, found {found}: a program that Channel::spawn or Prepared starts has one, unless a wrapper drops it"
    )]
    NotInherited {
        /// The place where they were looked for.
        place: &'static str,
        /// The text there, or what is wrong with the descriptor that it names.
        found: String,
    },
    /// This process has taken the channel of its parent before, which it can do once.
    #[error("the inherited channel was taken before")]
    AlreadyInherited,
}

/// The fault that one side of a handshake finds in the other's `Hello`. Both sides report the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of fault.
    pub reason: Reason,
    /// The expected number, limit, or mask, as [`Reason`] says.
    pub expected: u64,
    /// The number or mask that was found.
    pub found: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, expected, found } = *self;
        match reason {
            Reason::Magic => write!(f, "not a sealane peer: magic {expected:#x} expected, {found:#x} found"),
            Reason::Version => write!(f, "no common version: {expected} expected, {found} found"),
            Reason::HelloLength => write!(f, "Hello of at least {expected} bytes expected, {found} found"),
            // The peers differ in what they establish: one bit is all that there is.
            Reason::Features if (expected, found) == (0, 1) => {
                write!(f, "a channel expected, a publisher or subscriber found (features 0x0 and 0x1): Channel::connect is for listeners, Subscriber::connect for publishers")
            }
            Reason::Features if (expected, found) == (1, 0) => {
                write!(f, "a publisher or subscriber expected, a channel found (features 0x1 and 0x0): Subscriber::connect is for publishers, Channel::connect for listeners")
            }
            Reason::Features => write!(f, "features {expected:#x} expected, {found:#x} found"),
            Reason::ReadyLength => write!(f, "Ready of {expected} bytes expected, {found} found"),
            Reason::ControlLimit => write!(
                f,
                "a subscriber that accepts {expected} control bytes expected, one of {found} found: raise its Builder::max_control, or lower the publisher's"
            ),
            Reason::FdLimit => write!(
                f,
                "a subscriber that accepts {expected} descriptors expected, one of {found} found: raise its Builder::max_fds, or lower the publisher's"
            ),
            Reason::Subscribers => write!(
                f,
                "no more than {expected} subscribers expected, {found} found: raise Builder::max_subscribers"
            ),
            Reason::Patience if expected == 0 => f.write_str(
                "an earlier subscriber of this user was ended, and has not read all descriptors that it was sent: close it first",
            ),
            Reason::Patience => write!(
                f,
                "this user's subscribers have used up the time for which they are waited for (Builder::slow): {expected} ms expected, {found} ms found: subscribe again in {} ms",
                expected.saturating_sub(found).saturating_mul(10)
            ),
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
            Reason::SpaceSocket => write!(f, "space socket: a SOCK_SEQPACKET AF_UNIX socket expected"),
            Reason::Credentials => {
                write!(f, "credentials: a process or user that has a name here expected, none found")
            }
            Reason::Packet if found == 0 => {
                write!(f, "{} expected, a malformed packet found", PacketName(expected))
            }
            Reason::Packet => write!(f, "{} expected, {} found", PacketName(expected), PacketName(found)),
            Reason::Application => write!(f, "refused by the application"),
            Reason::Reflected => {
                write!(f, "the other side's own region and space socket expected, ours found")
            }
            Reason::OwnFailure => {
                let errno = i32::try_from(found).ok().filter(|errno| *errno > 0);
                match errno.map(io::Error::from_raw_os_error) {
                    Some(cause) => write!(f, "the refusing side failed by itself: {cause}"),
                    None => {
                        write!(f, "the refusing side failed by itself: an errno expected, {found} found")
                    }
                }
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
            6 => f.write_str("Descriptors"),
            kind => write!(f, "packet of kind {kind}"),
        }
    }
}

/// The subject of a [`Refusal`]. The numbers are those of the packet `Reject`; there is no other list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TryFromBytes)]
#[repr(u32)]
#[non_exhaustive]
pub enum Reason {
    /// A reason of a newer version, with its number.
    Unknown(u32) = 0,
    /// The first bytes are not sealane's.
    Magic = 1,
    /// The version ranges do not meet. Expected is this side's nearest bound, found the peer's.
    Version = 2,
    /// The `Hello` is shorter than its version demands, or than it says itself. Bytes.
    HelloLength = 3,
    /// The peer requires features that are not known here, or lacks one that is required: the one is a channel, the other a
    /// publisher or subscriber. Bit masks.
    Features = 4,
    /// The ring is larger than [`Builder::max_peer_ring_capacity`](crate::Builder::max_peer_ring_capacity). Bytes.
    RingTooLarge = 5,
    /// The ring's capacity or offset is misaligned. Bytes.
    Geometry = 6,
    /// The first sequence or position is not that of a new channel.
    Start = 7,
    /// The `Hello` came with another number of descriptors.
    Descriptors = 8,
    /// The region's descriptor is not a regular file. `st_mode & S_IFMT`.
    RegionKind = 9,
    /// The region lacks seals. Masks as in `fcntl(2)`, `F_GET_SEALS`; a file without seals shows 0.
    RegionSeals = 10,
    /// The region's file is of another size than `Hello` says. Bytes.
    RegionSize = 11,
    /// The region has holes, which a reader would fill at its own expense. Found are the allocated bytes, or the bytes before
    /// a hole that pages beyond the end had hidden.
    RegionHoles = 12,
    /// The region's descriptor was not opened for reading. Flags as in `open(2)`: the access mode, and `O_PATH`.
    RegionAccess = 13,
    /// The space socket is not a `SOCK_SEQPACKET` socket.
    SpaceSocket = 14,
    /// The `Hello` came without credentials, or its credentials name no process, user or group in our namespaces.
    Credentials = 15,
    /// The packet is malformed, or is not the one that was awaited. Packet kinds.
    Packet = 16,
    /// The application called [`Handshake::refuse`](crate::Handshake::refuse).
    Application = 17,
    /// The region or the space socket in the peer's `Hello` is one of our own, which the peer reflects.
    Reflected = 18,
    /// The refusing side failed by itself: it had no memory or descriptors left, or its sandbox stopped it. It reports
    /// [`Error::Io`](crate::Error::Io) or [`Error::FdsLost`](crate::Error::FdsLost). Found is an `errno(3)`, or 0.
    OwnFailure = 19,
    /// The `Ready` has another length than its kind demands: a publisher's has terms, a channel's has none. Bytes.
    ReadyLength = 20,
    /// The subscriber accepts fewer control bytes than the publisher may send
    /// ([`Builder::max_control`](crate::Builder::max_control)). Bytes.
    ControlLimit = 21,
    /// The subscriber accepts fewer descriptors than the publisher may send
    /// ([`Builder::max_fds`](crate::Builder::max_fds)).
    FdLimit = 22,
    /// The publisher has as many subscribers as it may
    /// ([`Builder::max_subscribers`](crate::Builder::max_subscribers)).
    Subscribers = 23,
    /// Subscribers of the same user have used up the time for which they are waited for ([`Slow::Wait`](crate::Slow::Wait)), or
    /// hold descriptors that they do not read. Milliseconds.
    Patience = 24,
}

impl Reason {
    /// The reason of a number on the wire.
    pub(crate) fn from_code(code: u32) -> Self {
        try_transmute!([code, 0]).unwrap_or(Self::Unknown(code))
    }

    /// The number on the wire, found by trying: a cold path, and no second list.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Unknown(code) => code,
            known => (1..u32::MAX).find(|code| Self::from_code(*code) == known).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_of_a_packet_names_the_kinds() {
        let refusal = |expected, found| Refusal { reason: Reason::Packet, expected, found }.to_string();
        assert_eq!(refusal(1, 0), "Hello expected, a malformed packet found");
        assert_eq!(refusal(2, 4), "Ready expected, Control found");
        assert_eq!(refusal(1, 99), "Hello expected, packet of kind 99 found");
    }

    #[test]
    fn refusal_for_a_failure_of_the_refusing_side_shows_the_cause() {
        let text = |found| Refusal { reason: Reason::OwnFailure, expected: 0, found }.to_string();
        assert_eq!(text(1), "the refusing side failed by itself: Operation not permitted (os error 1)");
        for none in [0, 1 << 31, u64::MAX] {
            assert!(!text(none).contains("uccess"), "{}", text(none));
            assert!(text(none).contains(&none.to_string()), "{}", text(none));
        }
    }
}
