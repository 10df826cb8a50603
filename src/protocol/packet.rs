//! The headers of packets and records, byte by byte.
//!
//! All integers are little-endian. Parsing a header checks everything that can be checked without the channel's state; the
//! result is typed, and only the result is used. docs/protocol.md has the same as tables.

use std::mem::size_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned,
    little_endian::{U16, U32, U64},
    transmute, try_transmute,
};

use crate::{error::ProtocolError, protocol::layout::to_usize};

/// Most descriptors in one packet (`SCM_MAX_FD`, `unix(7)`).
pub(crate) const SCM_MAX_FD: usize = 253;

/// The sender expects a reply.
const WANTS_REPLY: u16 = 1;
/// The other half of the message is in the other carrier.
const OTHER_HALF: u16 = 2;
const KNOWN_FLAGS: u16 = WANTS_REPLY | OTHER_HALF;
/// The record is no message: it fills the ring up to its end. Stands alone.
const PADDING: u16 = 4;

/// What a message says of itself, in whichever carrier: the part that records and packets share, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Heading {
    /// Its number among all messages of its direction.
    pub(crate) sequence: u64,
    /// 0, or one more than the sequence of the peer's message that it answers.
    reply_to: u64,
    /// Known ones.
    flags: u16,
}

impl Heading {
    /// Of a message that is whole in its carrier.
    #[inline]
    pub(crate) fn new(sequence: u64, wants_reply: bool, in_reply_to: Option<u64>) -> Self {
        let reply_to = in_reply_to.map_or(0, |sequence| sequence.wrapping_add(1));
        Self { sequence, reply_to, flags: if wants_reply { WANTS_REPLY } else { 0 } }
    }

    /// Of each half of a message, the rest of which is in the other carrier.
    pub(crate) fn halved(self) -> Self {
        Self { flags: self.flags | OTHER_HALF, ..self }
    }

    /// It asks for a reply.
    #[inline]
    pub(crate) fn wants_reply(self) -> bool {
        self.flags & WANTS_REPLY != 0
    }

    /// The rest of the message is in the other carrier.
    #[inline]
    pub(crate) fn other_half(self) -> bool {
        self.flags & OTHER_HALF != 0
    }

    /// The sequence of the peer's message that it answers.
    #[inline]
    pub(crate) fn in_reply_to(self) -> Option<u64> {
        self.reply_to.checked_sub(1)
    }
}

/// The header of a ring record.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    sequence: U64,
    payload_len: U64,
    control_len: U32,
    flags: U32,
    reply_to: U64,
    reserved: [U64; 4],
}
const _: () = assert!(size_of::<RecordHeader>() == 64);

/// A record whose header has been checked by itself; that it fits into the ring is the consumer's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) heading: Heading,
    /// Bytes.
    pub(crate) payload_len: u64,
    /// Bytes.
    pub(crate) control_len: u32,
}

impl Record {
    /// Of payload and control, as far as there can be so many.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        to_usize(self.payload_len.saturating_add(self.control_len.into()))
    }
}

impl RecordHeader {
    #[inline]
    pub(crate) fn new(record: Record) -> Self {
        Self {
            sequence: record.heading.sequence.into(),
            payload_len: record.payload_len.into(),
            control_len: record.control_len.into(),
            flags: u32::from(record.heading.flags).into(),
            reply_to: record.heading.reply_to.into(),
            reserved: Default::default(),
        }
    }

    /// Of padding: `len` bytes behind this header are left out.
    pub(crate) fn padding(len: u64) -> Self {
        Self { flags: u32::from(PADDING).into(), payload_len: len.into(), ..Self::new(Record::default()) }
    }

    #[inline]
    pub(crate) fn is_padding(&self) -> bool {
        self.flags.get() == u32::from(PADDING)
    }

    /// The bytes that [padding](Self::is_padding) leaves out.
    pub(crate) fn check_padding(&self) -> Result<u64, ProtocolError> {
        let len = self.payload_len.get();
        if self.as_bytes() == Self::padding(len).as_bytes() {
            Ok(len)
        } else {
            Err(ProtocolError::RecordReserved)
        }
    }

    /// What a message's header says.
    #[inline]
    pub(crate) fn check(self) -> Result<Record, ProtocolError> {
        let flags = match u16::try_from(self.flags.get()) {
            Ok(flags) if flags & !KNOWN_FLAGS == 0 => flags,
            _ => {
                let (known, found) = (KNOWN_FLAGS.into(), self.flags.get());
                return Err(ProtocolError::RecordFlags { known, found });
            }
        };
        if self.reserved.iter().fold(0, |all, word| all | word.get()) != 0 {
            return Err(ProtocolError::RecordReserved);
        }
        Ok(Record {
            heading: Heading { sequence: self.sequence.get(), reply_to: self.reply_to.get(), flags },
            payload_len: self.payload_len.get(),
            control_len: self.control_len.get(),
        })
    }
}

/// The kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable)]
#[repr(u16)]
pub(crate) enum Kind {
    Hello = 1,
    Ready = 2,
    Reject = 3,
    Control = 4,
    Doorbell = 5,
}

impl Kind {
    /// The kind's number on the wire.
    pub(crate) const fn code(self) -> u16 {
        transmute!(self)
    }

    fn from_code(code: u16) -> Option<Self> {
        try_transmute!(code).ok()
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

/// The contents of a packet's header, checked without the channel's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) heading: Heading,
    /// Descriptors that the packet should come with.
    pub(crate) fd_count: usize,
}

impl PacketHeader {
    /// The header of a packet that has no sequence.
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

    /// The header of a control message, or of a message's part that does not travel in the ring.
    pub(crate) fn control(heading: Heading, fd_count: u32) -> Self {
        Self {
            flags: heading.flags.into(),
            sequence: heading.sequence.into(),
            reply_to: heading.reply_to.into(),
            ..Self::plain(Kind::Control, fd_count)
        }
    }

    /// Splits a packet into its checked header and its body.
    ///
    /// UNTRUSTED: every field of the header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Packet, &[u8]), ProtocolError> {
        let (header, body) = Self::read_from_prefix(bytes)
            .map_err(|_| ProtocolError::PacketLength { expected: PACKET_HEADER, found: bytes.len() })?;
        let Some(kind) = Kind::from_code(header.kind.get()) else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Reason, Refusal},
        protocol::page::{assert_documented, table},
    };

    fn heading() -> Heading {
        Heading::new(7, true, Some(0)).halved()
    }

    #[test]
    fn record_header_round_trips() {
        let record = Record { heading: heading(), payload_len: 3, control_len: 5 };
        assert_eq!(RecordHeader::new(record).check(), Ok(record));
    }

    #[test]
    fn padding_is_told_from_messages_and_says_nothing_else() {
        let padding = RecordHeader::padding(640);
        assert!(padding.is_padding());
        assert_eq!(padding.check_padding(), Ok(640));
        assert_eq!(padding.check(), Err(ProtocolError::RecordFlags { known: 3, found: 4 }));
        assert!(
            !RecordHeader::new(Record { heading: heading(), payload_len: 3, control_len: 5 }).is_padding()
        );
        assert!(!RecordHeader { flags: 5.into(), ..padding }.is_padding());
        for stray in [
            RecordHeader { sequence: 1.into(), ..padding },
            RecordHeader { control_len: 1.into(), ..padding },
            RecordHeader { reply_to: 1.into(), ..padding },
            RecordHeader { reserved: [0.into(), 0.into(), 0.into(), 1.into()], ..padding },
        ] {
            assert_eq!(stray.check_padding(), Err(ProtocolError::RecordReserved));
        }
    }

    #[test]
    fn a_heading_says_no_more_than_it_was_told() {
        let plain = Heading::new(7, false, None);
        assert_eq!((plain.wants_reply(), plain.other_half(), plain.in_reply_to()), (false, false, None));
        let request = Heading::new(7, true, None);
        assert_eq!((request.wants_reply(), request.other_half()), (true, false));
        let half = Heading::new(7, false, Some(8)).halved();
        assert_eq!((half.wants_reply(), half.other_half(), half.in_reply_to()), (false, true, Some(8)));
        assert_eq!(half.halved(), half);
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

    #[test]
    fn bad_records_are_named() {
        let good = RecordHeader::new(Record { heading: heading(), payload_len: 0, control_len: 0 });
        for flags in [8u32, 1 << 16, u32::MAX] {
            let error = RecordHeader { flags: flags.into(), ..good }.check().unwrap_err();
            assert_eq!(error, ProtocolError::RecordFlags { known: 3, found: flags });
        }
        for at in 0..4 {
            let mut bad = good;
            bad.reserved[at] = 1.into();
            assert_eq!(bad.check(), Err(ProtocolError::RecordReserved));
        }
        let alike = RecordHeader { reserved: [1.into(); 4], ..good };
        assert_eq!(alike.check(), Err(ProtocolError::RecordReserved));
    }

    #[test]
    fn the_documented_headers_are_these() {
        assert_documented!(RecordHeader { sequence, payload_len, control_len, flags, reply_to, reserved });
        assert_documented!(PacketHeader { kind, flags, fd_count, sequence, reply_to, reserved });
    }

    #[test]
    fn the_documented_numbers_are_these() {
        use crate::protocol::layout::Word;
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
            let code: u16 = row[1].parse().unwrap();
            assert_eq!(format!("{:?}", Kind::from_code(code).unwrap()), row[2]);
            let refusal = Refusal { reason: Reason::Packet, expected: code.into(), found: 0 };
            assert!(refusal.to_string().starts_with(&format!("{} expected", row[2])), "{refusal}");
        }
        let flags: Vec<u16> = table("| flag | meaning").iter().map(|row| row[1].parse().unwrap()).collect();
        assert_eq!(flags, [WANTS_REPLY, OTHER_HALF, PADDING]);
    }
}
