//! [`ProtocolError`]: every way in which a peer can break the protocol.

use thiserror::Error;

/// A violation of the protocol by the peer. An honest peer commits none, so each of these closes the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are the numbers named in the message of each variant")]
pub enum ProtocolError {
    /// The count of committed bytes went backwards, or ahead by more than a ring.
    #[error("ring head: {from} to {limit} expected, {found} found")]
    Head { from: u64, limit: u64, found: u64 },
    /// The count of released bytes went backwards, or past the committed bytes.
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
    /// A record whose reserved bytes are not zero, or padding with any other field set.
    #[error("record: zeros expected in the reserved bytes")]
    RecordReserved,
    /// A packet that is shorter than its header, or has a body although its kind has none.
    #[error("packet: {expected} bytes expected, {found} found")]
    PacketLength { expected: usize, found: usize },
    /// A packet that is longer than the receiver's limits allow.
    #[error("packet: at most {max} bytes expected, more found")]
    PacketTooLong { max: usize },
    /// A packet of an unknown kind, or of a kind that is not sent at this point.
    #[error("packet kind: {expected} expected, {found} found")]
    PacketKind { expected: u16, found: u16 },
    /// A packet with unknown flags.
    #[error("packet flags: {known:#x} known, {found:#x} found")]
    PacketFlags { known: u16, found: u16 },
    /// A packet whose reserved bytes are not zero, or with a field set that its kind does not use.
    #[error("packet: zeros expected in the reserved bytes")]
    PacketReserved,
    /// A message with more control bytes than the receiver's limit.
    #[error("control: at most {max} bytes expected, {found} found")]
    ControlLength { max: usize, found: usize },
    /// A message with more descriptors than the receiver's limit.
    #[error("descriptors: at most {max} expected, {found} found")]
    FdLimit { max: usize, found: usize },
    /// A packet with another number of descriptors than its header says.
    #[error("descriptors: {announced} announced, {found} found")]
    FdCount { announced: usize, found: usize },
    /// A message out of sequence.
    #[error("sequence: {expected} expected, {found} found")]
    Sequence { expected: u64, found: u64 },
    /// A publisher's mark of what may be written went backwards, or ahead by more than a ring.
    #[error("ring mark (claimed): {from} to {limit} expected, {found} found")]
    Claimed { from: u64, limit: u64, found: u64 },
    /// A publisher's newest record begins before an earlier one, or behind all that is published.
    #[error("newest record: {from} to {limit} expected, {found} found")]
    Latest { from: u64, limit: u64, found: u64 },
    /// More messages were left out than the bytes that were left out can hold, or fewer than none.
    #[error("sequence behind a gap: {from} to {limit} expected, {found} found")]
    Gap { from: u64, limit: u64, found: u64 },
    /// The messages that were lost at a publisher's source became fewer.
    #[error("messages lost at the source: at least {from} expected, {found} found")]
    SourceLost { from: u64, found: u64 },
    /// A packet of descriptors whose attempt came before, or is none.
    #[error("attempt to send descriptors: at least {expected} expected, {found} found")]
    Attempt { expected: u64, found: u64 },
    /// A message whose descriptors were not sent, to a subscriber that loses nothing.
    #[error("message {sequence}: its descriptors were not sent")]
    NoDescriptors { sequence: u64 },
    /// A message whose record and packet disagree, or one of which is missing.
    #[error("message {sequence}: its halves in ring and socket do not fit")]
    Halves { sequence: u64 },
    /// More doorbells than odd epochs were shown.
    #[error("doorbells: at most {shown} expected, {heard} found")]
    Doorbells { shown: u64, heard: u64 },
    /// More requests without a reply than the receiver's limit.
    #[error("requests: at most {max} without a reply expected, more found")]
    Requests { max: usize },
    /// A reply to a message that asked for none, or was answered before.
    #[error("reply to message {sequence}, which asked for none or was answered before")]
    UnaskedReply { sequence: u64 },
}
