//! A record of the ring: its header byte by byte, and where its parts stand.
//!
//! A record is a header, the payload, and the control bytes that ride behind it, each padded to whole lines. This file is
//! the one home of that rule: the writer and the reader of a ring ask a [`Record`] where its parts stand.

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use crate::{
    error::ProtocolError,
    protocol::{CACHE_LINE, RecordSize, layout::round_up_to_line, to_u64, to_usize},
};

/// The sender expects a reply.
pub(super) const WANTS_REPLY: u16 = 1;
/// The other half of the message is in the other carrier.
pub(super) const SPLIT: u16 = 2;
pub(super) const KNOWN_FLAGS: u16 = WANTS_REPLY | SPLIT;
/// The record is no message, but leaves out the ring up to its end. No other flag stands beside it.
pub(super) const PADDING: u16 = 4;
/// The record of a publisher is a message without a payload.
pub(super) const CONTROL: u16 = 8;

/// The part that the headers of records and packets share: what a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MessageHeader {
    /// The message's number in its direction.
    pub(crate) sequence: u64,
    /// 0, or one more than the sequence of the peer's message that it answers.
    pub(super) reply_to: u64,
    /// Known flags only.
    pub(super) flags: u16,
}

impl MessageHeader {
    /// The heading of a message that is whole in its carrier.
    #[inline]
    pub(crate) fn new(sequence: u64, wants_reply: bool, in_reply_to: Option<u64>) -> Self {
        let reply_to = in_reply_to.map_or(0, |sequence| sequence.wrapping_add(1));
        Self { sequence, reply_to, flags: if wants_reply { WANTS_REPLY } else { 0 } }
    }

    /// The heading of each half of a message that is in both carriers.
    pub(crate) fn split(self) -> Self {
        Self { flags: self.flags | SPLIT, ..self }
    }

    /// The flags, as they stand in a header.
    pub(crate) fn flags(self) -> u16 {
        self.flags
    }

    /// Whether the message asks for a reply.
    #[inline]
    pub(crate) fn wants_reply(self) -> bool {
        self.flags & WANTS_REPLY != 0
    }

    /// Whether the rest of the message is in the other carrier.
    #[inline]
    pub(crate) fn is_split(self) -> bool {
        self.flags & SPLIT != 0
    }

    /// The sequence of the peer's message that this one answers.
    #[inline]
    pub(crate) fn in_reply_to(self) -> Option<u64> {
        self.reply_to.checked_sub(1)
    }
}

/// The header of a ring record.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    pub(super) sequence: U64,
    pub(super) payload_len: U64,
    pub(super) control_len: U32,
    pub(super) flags: U32,
    pub(super) reply_to: U64,
    /// The rest is a publisher's, and zero in a channel.
    pub(super) lost: U64,
    pub(super) epoch: U64,
    pub(super) attempt: U64,
    pub(super) offset: U64,
}
const _: () = assert!(size_of::<RecordHeader>() == 64);

/// A message's record: what it says, and how long its parts are.
///
/// Invariant: the payload is shorter than 2^63 bytes, as it is in memory, or was compared with what is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) heading: MessageHeader,
    payload_len: u64,
    control_len: u32,
}

impl Record {
    /// Where the payload stands, from the record's start.
    pub(crate) const PAYLOAD: u64 = CACHE_LINE;

    /// The record of a payload that is lent, without control bytes.
    #[inline]
    pub(crate) fn new(heading: MessageHeader, payload_len: usize) -> Self {
        Self { heading, payload_len: to_u64(payload_len), control_len: 0 }
    }

    /// The same record with `len` control bytes behind the payload. `None` if that many cannot be counted in a header.
    #[inline]
    pub(crate) fn with_control(self, len: usize) -> Option<Self> {
        Some(Self { control_len: u32::try_from(len).ok()?, ..self })
    }

    /// Bytes of payload.
    #[inline]
    pub(crate) fn payload_len(self) -> usize {
        to_usize(self.payload_len)
    }

    /// Bytes of control data.
    #[inline]
    pub(crate) fn control_len(self) -> usize {
        to_usize(self.control_len.into())
    }

    /// Where the control bytes stand, from the record's start.
    #[inline]
    pub(crate) fn control(self) -> u64 {
        Self::PAYLOAD.wrapping_add(round_up_to_line(self.payload_len))
    }

    /// Bytes of the ring that the record takes.
    #[inline]
    pub(crate) fn size(self) -> RecordSize {
        RecordSize::of_parts(self.payload_len, self.control_len)
    }

    /// Bytes of payload and control.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        self.payload_len().wrapping_add(self.control_len())
    }
}

/// What a publisher says of the stream that it passes on, of which it is not the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Source {
    /// Messages that were lost on their way to the publisher, in all. Only grows.
    pub(crate) lost: u64,
    /// The number of the source's run, which changes when it is started again.
    pub(crate) epoch: u64,
    /// Added (wrapping) to a record's sequence and `lost`, it gives the number that the message has at its source.
    pub(crate) offset: u64,
}

impl Source {
    /// The number, at the source, of the message whose record has the number `sequence`.
    #[inline]
    pub(crate) fn number(self, sequence: u64) -> u64 {
        sequence.wrapping_add(self.lost).wrapping_add(self.offset)
    }

    /// Gives the message whose record has the number `sequence` the `number` at the source.
    pub(crate) fn set_number(&mut self, sequence: u64, number: u64) {
        self.offset = number.wrapping_sub(sequence.wrapping_add(self.lost));
    }
}

/// A publisher's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishedRecord {
    pub(crate) record: Record,
    /// False for a message without a payload, which differs from an empty one.
    pub(crate) has_payload: bool,
    /// The attempt to send the message's descriptors that succeeded; 0 without descriptors.
    pub(crate) attempt: u64,
    pub(crate) source: Source,
}

impl RecordHeader {
    #[inline]
    pub(crate) fn new(record: Record) -> Self {
        let Record { heading, payload_len, control_len } = record;
        Self {
            sequence: heading.sequence.into(),
            payload_len: payload_len.into(),
            control_len: control_len.into(),
            flags: u32::from(heading.flags).into(),
            reply_to: heading.reply_to.into(),
            lost: 0.into(),
            epoch: 0.into(),
            attempt: 0.into(),
            offset: 0.into(),
        }
    }

    /// The header of a publisher's record.
    #[inline]
    pub(crate) fn published(published: PublishedRecord) -> Self {
        let PublishedRecord { record, has_payload, attempt, source } = published;
        Self {
            flags: u32::from(if has_payload { 0 } else { CONTROL }).into(),
            lost: source.lost.into(),
            epoch: source.epoch.into(),
            attempt: attempt.into(),
            offset: source.offset.into(),
            ..Self::new(record)
        }
    }

    /// The header of padding that leaves out `len` bytes behind it.
    pub(crate) fn padding(len: u64) -> Self {
        Self { flags: u32::from(PADDING).into(), payload_len: len.into(), ..Self::new_zeroed() }
    }

    #[inline]
    pub(crate) fn is_padding(&self) -> bool {
        self.flags.get() == u32::from(PADDING)
    }

    /// The bytes behind it that [padding](Self::is_padding) leaves out.
    pub(crate) fn check_padding(&self) -> Result<u64, ProtocolError> {
        let len = self.payload_len.get();
        if self.as_bytes() == Self::padding(len).as_bytes() {
            Ok(len)
        } else {
            Err(ProtocolError::RecordReserved)
        }
    }

    /// The message's record that the header says, if it fits into the `available` bytes from its start.
    ///
    /// UNTRUSTED: every field.
    #[inline]
    pub(crate) fn check(self, available: u64) -> Result<Record, ProtocolError> {
        let flags = self.known_flags(KNOWN_FLAGS)?;
        if self.lost.get() | self.epoch.get() | self.attempt.get() | self.offset.get() != 0 {
            return Err(ProtocolError::RecordReserved);
        }
        self.record(flags, available)
    }

    /// The publisher's record that the header says, if it fits into the `available` bytes from its start.
    ///
    /// UNTRUSTED: every field.
    #[inline]
    pub(crate) fn check_published(self, available: u64) -> Result<PublishedRecord, ProtocolError> {
        let has_payload = self.known_flags(CONTROL)? & CONTROL == 0;
        let stray = self.reply_to.get() | if has_payload { 0 } else { self.payload_len.get() };
        if stray != 0 {
            return Err(ProtocolError::RecordReserved);
        }
        let source = Source { lost: self.lost.get(), epoch: self.epoch.get(), offset: self.offset.get() };
        let record = self.record(0, available)?;
        Ok(PublishedRecord { record, has_payload, attempt: self.attempt.get(), source })
    }

    /// The publisher's record that the header says, if it is all of message `sequence`, with a payload, from a source in its first
    /// run that has lost `lost` messages and has no numbers of its own. For any other, [`check_published`](Self::check_published) says what it is.
    ///
    /// UNTRUSTED: every field. It is one comparison, and the record fits into registers.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
    pub(crate) fn check_plain(self, sequence: u64, lost: u64, available: u64) -> Option<Record> {
        let others = self.attempt.get() | self.reply_to.get() | self.offset.get() | self.epoch.get();
        let small = u64::from(self.flags.get());
        let differences = (self.sequence.get() ^ sequence) | (self.lost.get() ^ lost);
        if others | small | differences == 0 { self.record(0, available).ok() } else { None }
    }

    /// UNTRUSTED: a flag that is not among `known` is a violation.
    #[inline]
    fn known_flags(&self, known: u16) -> Result<u16, ProtocolError> {
        match u16::try_from(self.flags.get()) {
            Ok(flags) if flags & !known == 0 => Ok(flags),
            _ => Err(ProtocolError::RecordFlags { known: known.into(), found: self.flags.get() }),
        }
    }

    /// UNTRUSTED: the lengths are compared before and after they are rounded up.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
    fn record(self, flags: u16, available: u64) -> Result<Record, ProtocolError> {
        let (payload_len, control_len) = (self.payload_len.get(), self.control_len.get());
        // The first comparison keeps the sum of the second from overflowing.
        if payload_len > available || RecordSize::of_parts(payload_len, control_len).bytes() > available {
            let (payload, control) = (payload_len, control_len.into());
            return Err(ProtocolError::RecordLength { available, payload, control });
        }
        let heading = MessageHeader { sequence: self.sequence.get(), reply_to: self.reply_to.get(), flags };
        Ok(Record { heading, payload_len, control_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> MessageHeader {
        MessageHeader::new(7, true, Some(0)).split()
    }

    fn record(payload_len: usize, control_len: usize) -> Record {
        Record::new(heading(), payload_len).with_control(control_len).unwrap()
    }

    #[test]
    fn record_header_round_trips() {
        let record = record(3, 5);
        assert_eq!(RecordHeader::new(record).check(192), Ok(record));
    }

    #[test]
    fn parts_stand_one_behind_the_other_on_whole_lines() {
        for (payload, control, control_at, size) in [
            (0, 0, 64, 64),
            (1, 0, 128, 128),
            (64, 1, 128, 192),
            (65, 65, 192, 320),
            ((64 << 10) - 1, 0, 65_600, 65_600),
            // A long one always has room for a kilobyte of control bytes.
            (64 << 10, 0, 65_600, 65_600 + 1024),
            (64 << 10, 1024, 65_600, 65_600 + 1024),
            (64 << 10, 1025, 65_600, 65_600 + 1088),
            (1 << 40, 0, 64 + (1 << 40), 64 + (1 << 40) + 1024),
        ] {
            let record = record(payload, control);
            assert_eq!((record.control(), record.size().bytes()), (control_at, size), "{payload} {control}");
            assert_eq!(record.bytes(), payload + control);
        }
        assert_eq!(Record::new(heading(), 0).with_control(1 << 32), None);
    }

    #[test]
    fn records_end_within_what_is_available() {
        let header = |payload_len: u64, control_len: u32| RecordHeader {
            payload_len: payload_len.into(),
            control_len: control_len.into(),
            ..RecordHeader::new(record(0, 0))
        };
        for (payload, control, available) in
            [(0, 0, 64), (1, 0, 128), (64, 64, 192), (u64::MAX >> 2, 0, (1 << 62) + 64 + 1024)]
        {
            let header = header(payload, control);
            if payload < 1 << 60 {
                let record = header.check(available).unwrap();
                assert_eq!(record.size().bytes(), available);
            }
            let available = available - 1;
            let control = control.into();
            let too_long = ProtocolError::RecordLength { available, payload, control };
            assert_eq!(header.check(available), Err(too_long));
        }
        for (payload, control) in
            [(u64::MAX, 0), (u64::MAX - 63, 0), (u64::MAX - 127, u32::MAX), (0, u32::MAX)]
        {
            assert!(header(payload, control).check(1 << 20).is_err(), "{payload} {control}");
        }
    }

    #[test]
    fn padding_is_told_from_messages_and_says_nothing_else() {
        let padding = RecordHeader::padding(640);
        assert!(padding.is_padding());
        assert_eq!(padding.check_padding(), Ok(640));
        assert_eq!(padding.check(1 << 20), Err(ProtocolError::RecordFlags { known: 3, found: 4 }));
        assert!(!RecordHeader::new(record(3, 5)).is_padding());
        assert!(!RecordHeader { flags: 5.into(), ..padding }.is_padding());
        for stray in [
            RecordHeader { sequence: 1.into(), ..padding },
            RecordHeader { control_len: 1.into(), ..padding },
            RecordHeader { reply_to: 1.into(), ..padding },
            RecordHeader { offset: 1.into(), ..padding },
            RecordHeader { attempt: 1.into(), ..padding },
        ] {
            assert_eq!(stray.check_padding(), Err(ProtocolError::RecordReserved));
        }
    }

    #[test]
    fn a_heading_says_no_more_than_it_was_told() {
        let plain = MessageHeader::new(7, false, None);
        assert_eq!((plain.wants_reply(), plain.is_split(), plain.in_reply_to()), (false, false, None));
        let request = MessageHeader::new(7, true, None);
        assert_eq!((request.wants_reply(), request.is_split()), (true, false));
        let half = MessageHeader::new(7, false, Some(8)).split();
        assert_eq!((half.wants_reply(), half.is_split(), half.in_reply_to()), (false, true, Some(8)));
        assert_eq!(half.split(), half);
    }

    #[test]
    fn bad_records_are_named() {
        let good = RecordHeader::new(record(0, 0));
        for flags in [8u32, 1 << 16, u32::MAX] {
            let error = RecordHeader { flags: flags.into(), ..good }.check(64).unwrap_err();
            assert_eq!(error, ProtocolError::RecordFlags { known: 3, found: flags });
        }
        for stray in [
            RecordHeader { lost: 1.into(), ..good },
            RecordHeader { epoch: 1.into(), ..good },
            RecordHeader { attempt: 1.into(), ..good },
            RecordHeader { offset: 1.into(), ..good },
            RecordHeader { lost: 1.into(), epoch: 1.into(), ..good },
        ] {
            assert_eq!(stray.check(64), Err(ProtocolError::RecordReserved));
        }
    }

    #[test]
    fn plain_records_say_nothing_of_their_source() {
        let plain = Record::new(MessageHeader::new(7, false, None), 64);
        let good = RecordHeader { lost: 3.into(), ..RecordHeader::new(plain) };
        assert_eq!(good.check_plain(7, 3, 1024), Some(plain));
        for other in [
            RecordHeader { sequence: 8.into(), ..good },
            RecordHeader { lost: 4.into(), ..good },
            RecordHeader { epoch: 1.into(), ..good },
            RecordHeader { attempt: 1.into(), ..good },
            RecordHeader { offset: 1.into(), ..good },
            RecordHeader { reply_to: 1.into(), ..good },
            RecordHeader { flags: u32::from(CONTROL).into(), ..good },
        ] {
            assert_eq!(other.check_plain(7, 3, 1024), None);
        }
    }

    #[test]
    fn numbers_at_the_source_wrap_and_count_what_was_lost() {
        for (sequence, lost, number) in [(0, 0, 0), (7, 3, 0), (7, 3, u64::MAX), (u64::MAX, u64::MAX, 5)] {
            let mut source = Source { lost, ..Source::default() };
            source.set_number(sequence, number);
            assert_eq!(source.number(sequence), number);
            source.lost = lost.wrapping_add(4);
            assert_eq!(source.number(sequence.wrapping_add(1)), number.wrapping_add(5));
        }
    }

    #[test]
    fn published_records_round_trip_and_are_no_channels() {
        let source = Source { lost: 3, epoch: 9, offset: u64::MAX };
        let record = |payload_len, control_len| {
            let plain = MessageHeader::new(7, false, None);
            Record::new(plain, payload_len).with_control(control_len).unwrap()
        };
        for (record, has_payload) in [(record(100, 5), true), (record(0, 0), true), (record(0, 70), false)] {
            for attempt in [0, 4] {
                let published = PublishedRecord { record, has_payload, attempt, source };
                assert_eq!(RecordHeader::published(published).check_published(1024), Ok(published));
                assert!(RecordHeader::published(published).check(1024).is_err());
            }
        }
        let good = RecordHeader::new(record(64, 0));
        let length = ProtocolError::RecordLength { available: 64, payload: 64, control: 0 };
        assert_eq!(good.check_published(64), Err(length));
        for flags in [WANTS_REPLY, SPLIT, PADDING, CONTROL | SPLIT, 16] {
            let bad = RecordHeader { flags: u32::from(flags).into(), ..good };
            let error = ProtocolError::RecordFlags { known: 8, found: flags.into() };
            assert_eq!(bad.check_published(1024), Err(error));
        }
        for stray in [
            RecordHeader { reply_to: 1.into(), ..good },
            RecordHeader { flags: u32::from(CONTROL).into(), ..good },
        ] {
            assert_eq!(stray.check_published(1024), Err(ProtocolError::RecordReserved));
        }
    }
}
