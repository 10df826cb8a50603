//! Packets, byte by byte: their header, and the bodies of `Hello` and `Reject`.
//!
//! All integers are little-endian. Reading a header checks everything that can be checked without knowing the channel's
//! state; what comes out is typed, and only that is used. docs/protocol.md has the same as tables.

use std::mem::size_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::{
    error::{ProtocolError, Reason, Refusal},
    protocol::{
        layout::{to_u64, to_usize},
        record::{Heading, KNOWN_FLAGS},
    },
};

/// First bytes of a `Hello`: "SEALANE" and a zero, read as a little-endian number.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"SEALANE\0");
/// The only version so far.
pub(crate) const VERSION: u32 = 1;
/// Most descriptors in one packet (`SCM_MAX_FD`, `unix(7)`).
pub(crate) const SCM_MAX_FD: usize = 253;

/// The kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    Hello = 1,
    Ready = 2,
    Reject = 3,
    Control = 4,
    Doorbell = 5,
}

impl Kind {
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub(crate) const fn code(self) -> u16 {
        self as u16
    }

    fn of(code: u16) -> Option<Self> {
        [Self::Hello, Self::Ready, Self::Reject, Self::Control, Self::Doorbell]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The header of a packet.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct PacketHeader {
    kind: U16,
    flags: U16,
    fd_count: U32,
    sequence: U64,
    reply_to: U64,
    reserved: U64,
}
const _: () = assert!(size_of::<PacketHeader>() == 32);
/// Bytes of a packet's header.
pub(crate) const PACKET_HEADER: usize = size_of::<PacketHeader>();

/// A packet whose header has been checked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) heading: Heading,
    pub(crate) fd_count: usize,
}

impl PacketHeader {
    /// A packet of a kind that is not sequenced.
    pub(crate) fn plain(kind: Kind, fd_count: u32) -> Self {
        Self {
            kind: kind.code().into(),
            flags: 0.into(),
            fd_count: fd_count.into(),
            sequence: 0.into(),
            reply_to: 0.into(),
            reserved: 0.into(),
        }
    }

    pub(crate) fn control(heading: Heading, fd_count: u32) -> Self {
        Self {
            flags: heading.flags.into(),
            sequence: heading.sequence.into(),
            reply_to: heading.reply_to.into(),
            ..Self::plain(Kind::Control, fd_count)
        }
    }

    /// Splits a packet into its checked header and its body.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Packet, &[u8]), ProtocolError> {
        let (header, body) = Self::read_from_prefix(bytes)
            .map_err(|_| ProtocolError::PacketLength { expected: PACKET_HEADER, found: bytes.len() })?;
        let Some(kind) = Kind::of(header.kind.get()) else {
            let (expected, found) = (Kind::Control.code(), header.kind.get());
            return Err(ProtocolError::PacketKind { expected, found });
        };
        let known = if kind == Kind::Control { KNOWN_FLAGS } else { 0 };
        let flags = header.flags.get();
        if flags & !known != 0 {
            return Err(ProtocolError::PacketFlags { known, found: flags });
        }
        let sequenced = kind == Kind::Control;
        let stray = !sequenced && (header.sequence.get() != 0 || header.reply_to.get() != 0);
        if header.reserved.get() != 0 || stray {
            return Err(ProtocolError::PacketReserved);
        }
        if matches!(kind, Kind::Doorbell | Kind::Ready) && !body.is_empty() {
            return Err(ProtocolError::PacketLength { expected: PACKET_HEADER, found: bytes.len() });
        }
        let heading = Heading { sequence: header.sequence.get(), reply_to: header.reply_to.get(), flags };
        let fd_count = to_usize(header.fd_count.get().into());
        Ok((Packet { kind, heading, fd_count }, body))
    }
}

/// The body of a `Hello`. The first 24 bytes never change; a newer version may append.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Hello {
    pub(crate) magic: U64,
    pub(crate) lowest_version: U32,
    pub(crate) highest_version: U32,
    /// Bytes of this body, from `magic` on.
    pub(crate) length: U32,
    pub(crate) reserved: U32,
    /// Features that the sender offers, as bits. None exist yet.
    pub(crate) features: U64,
    /// Features without which the sender does not go on.
    pub(crate) required: U64,
    pub(crate) ring_offset: U64,
    pub(crate) ring_capacity: U64,
    /// Control bytes that the sender accepts in one message.
    pub(crate) max_control: U32,
    /// Descriptors that the sender accepts with one message.
    pub(crate) max_fds: U32,
    pub(crate) first_sequence: U64,
    pub(crate) first_position: U64,
    /// Requests that may be without a reply at the sender.
    pub(crate) max_requests: U32,
    pub(crate) reserved_tail: [U32; 3],
}
const _: () = assert!(size_of::<Hello>() == 96);
/// Bytes of the part of a `Hello` that no version changes.
pub(crate) const HELLO_FIXED: usize = 24;
/// Longest `Hello` packet that is read: room for later versions.
pub(crate) const HELLO_MAX: usize = 4096;

/// The body of a `Reject`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Reject {
    reason: U32,
    reserved: U32,
    expected: U64,
    found: U64,
}
const _: () = assert!(size_of::<Reject>() == 24);

/// Reasons and their numbers on the wire.
const REASONS: [(Reason, u32); 19] = [
    (Reason::Magic, 1),
    (Reason::Version, 2),
    (Reason::HelloLength, 3),
    (Reason::Features, 4),
    (Reason::RingTooLarge, 5),
    (Reason::Geometry, 6),
    (Reason::Start, 7),
    (Reason::Descriptors, 8),
    (Reason::RegionKind, 9),
    (Reason::RegionSeals, 10),
    (Reason::RegionSize, 11),
    (Reason::RegionHoles, 12),
    (Reason::RegionAccess, 13),
    (Reason::CreditSocket, 14),
    (Reason::Credentials, 15),
    (Reason::Packet, 16),
    (Reason::Application, 17),
    (Reason::Reflected, 18),
    (Reason::OwnFailure, 19),
];

impl Reject {
    pub(crate) fn new(refusal: Refusal) -> Self {
        let code = match refusal.reason {
            Reason::Unknown(code) => code,
            known => REASONS.iter().find(|(reason, _)| *reason == known).map_or(0, |(_, code)| *code),
        };
        Self {
            reason: code.into(),
            reserved: 0.into(),
            expected: refusal.expected.into(),
            found: refusal.found.into(),
        }
    }

    /// Reads a body; one that is too short names no reason.
    pub(crate) fn parse(body: &[u8]) -> Refusal {
        let Ok((reject, _)) = Self::read_from_prefix(body) else {
            let (expected, found) = (to_u64(size_of::<Self>()), to_u64(body.len()));
            return Refusal { reason: Reason::Unknown(0), expected, found };
        };
        let code = reject.reason.get();
        let reason = REASONS
            .iter()
            .find(|(_, known)| *known == code)
            .map_or(Reason::Unknown(code), |(reason, _)| *reason);
        Refusal { reason, expected: reject.expected.get(), found: reject.found.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> Heading {
        Heading::new(7, true, Some(0)).halved()
    }

    #[test]
    fn packet_header_round_trips() {
        let header = PacketHeader::control(heading(), 2);
        let bytes = [header.as_bytes(), b"body"].concat();
        let (packet, body) = PacketHeader::parse(&bytes).unwrap();
        assert_eq!((packet.kind, packet.heading, packet.fd_count), (Kind::Control, heading(), 2));
        assert_eq!(body, b"body");
    }

    #[test]
    fn every_reason_round_trips_and_has_its_own_number() {
        for (i, (reason, code)) in REASONS.into_iter().enumerate() {
            let refusal = Refusal { reason, expected: 1, found: u64::MAX };
            assert_eq!(Reject::parse(Reject::new(refusal).as_bytes()), refusal);
            assert!(REASONS.into_iter().skip(i + 1).all(|(_, other)| other != code));
        }
        let unknown = Refusal { reason: Reason::Unknown(999), expected: 0, found: 0 };
        assert_eq!(Reject::parse(Reject::new(unknown).as_bytes()), unknown);
        assert_eq!(Reject::parse(b"short").reason, Reason::Unknown(0));
    }

    #[test]
    fn bad_packets_are_named() {
        let good = PacketHeader::plain(Kind::Doorbell, 0);
        let parse = |header: PacketHeader| PacketHeader::parse(header.as_bytes()).unwrap_err();
        assert_eq!(
            PacketHeader::parse(&[0; 31]).unwrap_err(),
            ProtocolError::PacketLength { expected: 32, found: 31 }
        );
        assert_eq!(
            parse(PacketHeader { kind: 77.into(), ..good }),
            ProtocolError::PacketKind { expected: 4, found: 77 }
        );
        assert_eq!(
            parse(PacketHeader { flags: 1.into(), ..good }),
            ProtocolError::PacketFlags { known: 0, found: 1 }
        );
        assert_eq!(parse(PacketHeader { sequence: 1.into(), ..good }), ProtocolError::PacketReserved);
        assert_eq!(parse(PacketHeader { reply_to: 1.into(), ..good }), ProtocolError::PacketReserved);
        assert_eq!(parse(PacketHeader { reserved: 1.into(), ..good }), ProtocolError::PacketReserved);
        let long = [good.as_bytes(), b"x"].concat();
        assert_eq!(
            PacketHeader::parse(&long).unwrap_err(),
            ProtocolError::PacketLength { expected: 32, found: 33 }
        );
    }

    const PAGE: &str = include_str!("../../docs/protocol.md");

    /// The cells of the rows of docs/protocol.md's table under the line that begins with `title`.
    fn table(title: &str) -> Vec<Vec<String>> {
        let lines = PAGE
            .lines()
            .skip_while(|line| !line.starts_with(title))
            .skip_while(|line| !line.starts_with("|---"));
        let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
    }

    macro_rules! assert_documented {
        ($type:ident { $($field:ident),* }) => {
            let whole: $type = FromZeros::new_zeroed();
            let code = [$((std::mem::offset_of!($type, $field), stringify!($field), size_of_val(&whole.$field))),*];
            let page: Vec<(usize, String, usize)> = table(concat!(stringify!($type), ", "))
                .iter()
                .map(|row| (row[1].parse().unwrap(), row[2].clone(), row[3].parse().unwrap()))
                .collect();
            assert_eq!(page.len(), code.len(), stringify!($type));
            for (page, code) in page.iter().zip(code) {
                assert_eq!((page.0, page.1.as_str(), page.2), code, stringify!($type));
            }
            assert!(PAGE.contains(&format!("{}, {} bytes", stringify!($type), size_of::<$type>())));
        };
    }

    #[test]
    fn the_documented_headers_are_these() {
        use zerocopy::FromZeros;

        use crate::protocol::record::RecordHeader;
        assert_documented!(RecordHeader { sequence, payload_len, control_len, flags, reply_to, reserved });
        assert_documented!(PacketHeader { kind, flags, fd_count, sequence, reply_to, reserved });
        assert_documented!(Hello {
            magic,
            lowest_version,
            highest_version,
            length,
            reserved,
            features,
            required,
            ring_offset,
            ring_capacity,
            max_control,
            max_fds,
            first_sequence,
            first_position,
            max_requests,
            reserved_tail
        });
        assert_documented!(Reject { reason, reserved, expected, found });
    }

    #[test]
    fn the_documented_numbers_are_these() {
        use crate::protocol::{
            layout::Word,
            record::{OTHER_HALF, PADDING, WANTS_REPLY},
        };
        let words =
            [Word::Head, Word::Packets, Word::Tail, Word::ReceiverEpoch, Word::SenderEpoch, Word::Origin];
        let rows = table("| offset | word");
        assert_eq!(rows.len(), words.len());
        for (row, word) in rows.into_iter().zip(words) {
            assert_eq!(row[1], format!("{:#05x}", word.offset()));
            assert!(row[2].starts_with(&format!("{word:?}:")), "{row:?}");
        }
        let kinds = table("| kind | name");
        assert_eq!(kinds.len(), usize::from(Kind::Doorbell.code()));
        for row in kinds {
            assert_eq!(format!("{:?}", Kind::of(row[1].parse().unwrap()).unwrap()), row[2]);
        }
        let reasons = table("| reason | name");
        assert_eq!(reasons.len(), REASONS.len());
        for (row, (reason, code)) in reasons.into_iter().zip(REASONS) {
            assert_eq!((row[1].clone(), row[2].clone()), (code.to_string(), format!("{reason:?}")));
        }
        let flags: Vec<u16> = table("| flag | meaning").iter().map(|row| row[1].parse().unwrap()).collect();
        assert_eq!(flags, [WANTS_REPLY, OTHER_HALF, PADDING]);
    }
}
