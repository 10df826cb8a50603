//! The header of packets, byte by byte.
//!
//! All integers are little-endian. Parsing a header checks everything that can be checked without the channel's state; the
//! result is typed, and only the result is used. docs/protocol.md has the same as tables.

use std::mem::size_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned,
    little_endian::{U16, U32, U64},
    transmute, try_transmute,
};

use crate::{
    error::ProtocolError,
    protocol::{MessageHeader, record::KNOWN_FLAGS, to_usize},
};

/// Most descriptors in one packet (`SCM_MAX_FD`, `unix(7)`).
pub(crate) const SCM_MAX_FD: usize = 253;

/// The kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable)]
#[repr(u16)]
pub(crate) enum Kind {
    Hello = 1,
    Ready = 2,
    Reject = 3,
    Control = 4,
    Doorbell = 5,
    /// The descriptors of a publisher's message, whose record names the attempt to send them.
    Descriptors = 6,
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
    pub(crate) heading: MessageHeader,
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
    pub(crate) fn control(heading: MessageHeader, fd_count: u32) -> Self {
        Self {
            flags: heading.flags.into(),
            sequence: heading.sequence.into(),
            reply_to: heading.reply_to.into(),
            ..Self::plain(Kind::Control, fd_count)
        }
    }

    /// The header of the descriptors of a publisher's message.
    pub(crate) fn descriptors(attempt: u64, fd_count: u32) -> Self {
        Self { sequence: attempt.into(), ..Self::plain(Kind::Descriptors, fd_count) }
    }

    /// Splits a packet into its checked header and its body.
    ///
    /// UNTRUSTED: every field of the header.
    #[inline]
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
        let stray = match kind {
            Kind::Control => 0,
            Kind::Descriptors => header.reply_to.get(),
            _ => header.sequence.get() | header.reply_to.get(),
        } != 0;
        if header.reserved.get() != 0 || stray {
            return Err(ProtocolError::PacketReserved);
        }
        if matches!(kind, Kind::Doorbell | Kind::Descriptors) && !body.is_empty() {
            return Err(ProtocolError::PacketLength { expected: PACKET_HEADER, found: bytes.len() });
        }
        let heading =
            MessageHeader { sequence: header.sequence.get(), reply_to: header.reply_to.get(), flags };
        let fd_count = to_usize(header.fd_count.get().into());
        Ok((Packet { kind, heading, fd_count }, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Reason, Refusal},
        protocol::{
            RecordHeader,
            page::{assert_documented, table},
        },
    };

    fn heading() -> MessageHeader {
        MessageHeader::new(7, true, Some(0)).split()
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
        let both = PacketHeader { sequence: 1.into(), reply_to: 1.into(), ..good };
        assert_eq!(parse(both), ProtocolError::PacketReserved);
        assert_eq!(parse(PacketHeader { reserved: 1.into(), ..good }), ProtocolError::PacketReserved);
        for header in [good, PacketHeader::descriptors(7, 1)] {
            let long = [header.as_bytes(), b"x"].concat();
            assert_eq!(
                PacketHeader::parse(&long).unwrap_err(),
                ProtocolError::PacketLength { expected: 32, found: 33 }
            );
        }
        let (packet, _) = PacketHeader::parse(PacketHeader::descriptors(7, 1).as_bytes()).unwrap();
        assert_eq!((packet.kind, packet.heading.sequence, packet.fd_count), (Kind::Descriptors, 7, 1));
        let reply = PacketHeader { reply_to: 1.into(), ..PacketHeader::descriptors(7, 1) };
        assert_eq!(parse(reply), ProtocolError::PacketReserved);
    }

    #[test]
    fn the_documented_headers_are_these() {
        assert_documented!(RecordHeader {
            sequence,
            payload_len,
            control_len,
            flags,
            reply_to,
            lost,
            epoch,
            attempt,
            offset
        });
        assert_documented!(PacketHeader { kind, flags, fd_count, sequence, reply_to, reserved });
    }

    #[test]
    fn the_documented_numbers_are_these() {
        use crate::protocol::{
            Word,
            record::{CONTROL, PADDING, SPLIT, WANTS_REPLY},
        };
        let words = [
            Word::Head,
            Word::Packets,
            Word::Latest,
            Word::Messages,
            Word::HighWater,
            Word::Tail,
            Word::Missed,
            Word::ReceiverEpoch,
            Word::SenderEpoch,
            Word::SenderNeeds,
            Word::Waits,
            Word::Origin,
            Word::Peer,
            Word::Owner,
            Word::Base,
            Word::Capacity,
            Word::Claimed,
            Word::Wakes,
        ];
        let rows = table("| offset | word");
        assert_eq!(rows.len(), words.len());
        for (row, word) in rows.into_iter().zip(words) {
            assert_eq!(row[1], format!("{:#05x}", word.offset()));
            assert!(row[2].starts_with(&format!("{word:?}:")), "{row:?}");
        }
        let kinds = table("| kind | name");
        assert_eq!(kinds.len(), usize::from(Kind::Descriptors.code()));
        for row in kinds {
            let code: u16 = row[1].parse().unwrap();
            assert_eq!(format!("{:?}", Kind::from_code(code).unwrap()), row[2]);
            let refusal = Refusal { reason: Reason::Packet, expected: code.into(), found: 0 };
            assert!(refusal.to_string().starts_with(&format!("{} expected", row[2])), "{refusal}");
        }
        let flags: Vec<(u16, String)> =
            table("| flag | name").iter().map(|row| (row[1].parse().unwrap(), row[2].clone())).collect();
        let code =
            [(WANTS_REPLY, "WANTS_REPLY"), (SPLIT, "SPLIT"), (PADDING, "PADDING"), (CONTROL, "CONTROL")];
        assert_eq!(flags, code.map(|(flag, name)| (flag, name.to_owned())));
    }
}
