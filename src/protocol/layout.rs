//! Offsets, sizes and the arithmetic on them: where things stand in a region.
//!
//! A region is one control page (rounded up to the region's page size), then the ring. A [`Position`] counts bytes since the
//! channel began, and only grows. Where it stands in the ring is counted beside it, as padding and records of any size end
//! there.

use crate::error::{Error, Result};

/// Alignment of records and payloads, and the size of a record's header: one cache line.
pub(crate) const CACHE_LINE: u64 = 64;
/// Bytes of a loan's record that are kept free for control bytes. That many always ride behind the payload.
pub(crate) const RESERVE: u64 = 1024;
/// Bytes of the shortest payload whose record has room for [`RESERVE`] control bytes in any case.
pub(crate) const LONG: u64 = 64 << 10;

/// The words of the control page. Each stands in a cache line with a single writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Word {
    /// Bytes committed to the owner's ring.
    Head = 0x000,
    /// Sequenced packets that the owner has sent.
    Packets = 0x008,
    /// A publisher's: where its newest record with a payload begins.
    Latest = 0x018,
    /// Messages that the owner has sent, or is about to send; a publisher's are published.
    Messages = 0x020,
    /// The most bytes of the owner's ring that were in use at once.
    HighWater = 0x028,
    /// Bytes of the peer's ring that the owner has released. A subscriber counts from where it joined.
    Tail = 0x040,
    /// A subscriber's: messages of the publisher that it has missed.
    Missed = 0x048,
    /// Odd while the owner's receiver sleeps, is about to, or is armed for an event loop.
    ReceiverEpoch = 0x080,
    /// Odd while the owner's sender waits for space.
    SenderEpoch = 0x0c0,
    /// The `Tail` of the peer from which on the record fits that the owner's sender waits for. Changes only with a new odd
    /// `SenderEpoch`; 0 while the sender waits for the socket only.
    SenderNeeds = 0x0c8,
    /// How often the owner's sender has waited, or a call that must not wait has found no space.
    Waits = 0x0d0,
    /// A random number by which its owner knows it again.
    Origin = 0x100,
    /// The peer's `Origin`; 0 for a publisher.
    Peer = 0x108,
    /// What the owner is: an [`Owner`].
    Owner = 0x110,
    /// A subscriber's: the position from which its `Tail` counts.
    Base = 0x118,
    /// Bytes of the owner's ring.
    Capacity = 0x120,
    /// A publisher's: bytes of its ring up to here may be written at any time. Written seldom, and looked at for each record, so
    /// that it has a line of its own.
    Claimed = 0x140,
    /// A publisher's: how often it has woken those of its subscribers that sleep on this word.
    Wakes = 0x180,
}

impl Word {
    /// Bytes from the start of the region.
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub(crate) const fn offset(self) -> usize {
        self as usize
    }
}

/// What the owner of a region is, as its word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Owner {
    /// One end of a channel.
    Channel = 1,
    Publisher = 2,
    /// A subscriber that is waited for.
    Gating = 3,
    /// A subscriber that may be overrun.
    Overrunning = 4,
}

impl Owner {
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub(crate) const fn code(self) -> u64 {
        self as u64
    }
}

/// Where the ring stands in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// First byte of the ring: a multiple of the page size, not 0.
    pub(crate) offset: usize,
    /// Bytes of the ring: 0, or a multiple of the page size.
    pub(crate) capacity: usize,
}

impl Geometry {
    /// Most bytes of a ring.
    const MAX: usize = usize::MAX / 8;

    /// The geometry for at least `capacity` bytes on pages of `page` bytes; 0 stays 0.
    pub(crate) fn new(capacity: usize, page: usize) -> Result<Self> {
        let rounded = capacity.checked_next_multiple_of(page).filter(|rounded| *rounded <= Self::MAX);
        match rounded {
            Some(capacity) => Ok(Self { offset: page, capacity }),
            None => Err(Error::RingTooLarge { capacity, max: Self::MAX }),
        }
    }

    /// Bytes of a ring that never keeps its sender waiting for room while the receiver keeps the last `kept` payloads of
    /// `payload` bytes: room for two more, with what is reserved for control bytes, on pages of `page` bytes.
    pub(crate) fn capacity_for(payload: usize, kept: usize, page: usize) -> usize {
        // No ring has room for payloads beyond that, and none for two of them.
        let record = to_usize(RecordSize::of_loan(payload.min(Self::MAX)).bytes());
        let bytes = record.saturating_mul(kept.saturating_add(2));
        bytes.checked_next_multiple_of(page).unwrap_or(bytes)
    }

    /// Bytes of the region.
    pub(crate) fn size(self) -> usize {
        self.offset.saturating_add(self.capacity)
    }

    /// Bytes of the longest payload: its record, with what is reserved for control bytes, is at most half of the ring.
    ///
    /// So an empty ring has room for it wherever the head stands: the rest of the ring is left out only if it is shorter
    /// than the record, and the two together are shorter than the ring.
    pub(crate) fn max_payload(self) -> usize {
        (self.capacity / 2).saturating_sub(to_usize(RecordSize::OVERHEAD))
    }
}

/// Bytes of the ring that a record takes, or that are reserved for it: a multiple of 64.
///
/// Invariant: below 2^63 + 2^33, so that a sum with a position or a capacity does not overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordSize(u64);

impl RecordSize {
    /// Bytes of a loan's record beside its payload: the header, and what is reserved for control bytes.
    pub(crate) const OVERHEAD: u64 = CACHE_LINE.wrapping_add(RESERVE);

    /// The size of no record.
    pub(crate) const NONE: Self = Self(0);

    /// The size that is reserved for a loan of `payload` bytes, which are fewer than 2^63.
    #[inline]
    pub(crate) const fn of_loan(payload: usize) -> Self {
        Self(round_up_to_line(to_u64(payload)).wrapping_add(Self::OVERHEAD))
    }

    /// The size of a header and `payload` bytes, which are fewer than 2^63, without any room for control bytes.
    #[inline]
    pub(crate) const fn of_payload(payload: usize) -> Self {
        Self(round_up_to_line(to_u64(payload)).wrapping_add(CACHE_LINE))
    }

    /// The size of a record whose parts are that long. The caller knows that `payload` is below 2^63.
    ///
    /// The record of a long payload is as long as its loan's, whatever control bytes it has. So payloads of one length stand at the
    /// same places in each round of the ring, and the first place is free as soon as the first payload is released.
    #[inline]
    pub(super) fn of_parts(payload: u64, control: u32) -> Self {
        let control = u64::from(control).max(if payload < LONG { 0 } else { RESERVE });
        Self(Self::of_payload(to_usize(payload)).0.wrapping_add(round_up_to_line(control)))
    }

    #[inline]
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

/// Bytes that were committed to a ring, or released, since the channel began.
///
/// A sender ends its channel before a position reaches [`END`](Self::END): after 29 years at 10 GB/s. So the sum of a
/// position and a ring's capacity does not overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position(u64);

impl Position {
    /// Positions stay below this.
    pub(crate) const END: Self = Self(1 << 63);

    pub(crate) const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on.
    #[inline]
    #[must_use]
    pub(crate) const fn after(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Bytes from `earlier` up to here.
    #[inline]
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// Rounds up to whole lines; for lengths below 2^64 - 63.
#[inline]
pub(super) const fn round_up_to_line(len: u64) -> u64 {
    len.wrapping_add(CACHE_LINE.wrapping_sub(1)) & !CACHE_LINE.wrapping_sub(1)
}

/// `usize` and `u64` are the same on the platforms that this crate compiles for.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "64-bit targets only, see lib.rs"
)]
pub(crate) const fn to_usize(n: u64) -> usize {
    n as usize
}

/// See [`to_usize`].
#[expect(clippy::as_conversions, reason = "64-bit targets only, see lib.rs")]
pub(crate) const fn to_u64(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_rounded_up() {
        for (asked, given) in [
            (0, 0),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (3 << 20, 3 << 20),
            ((3 << 20) + 1, (3 << 20) + 4096),
        ] {
            assert_eq!(Geometry::new(asked, 4096).unwrap().capacity, given);
        }
        for too_large in [usize::MAX, usize::MAX / 8, (usize::MAX / 8) - 4094] {
            assert!(matches!(
                Geometry::new(too_large, 4096),
                Err(Error::RingTooLarge { capacity, max }) if capacity == too_large && max == usize::MAX / 8
            ));
        }
    }

    #[test]
    fn longest_payload_is_half_of_the_ring_with_its_record() {
        for (capacity, max) in [(0, 0), (4096, 960), (8192, 3008), (12288, 5056), (1 << 20, (1 << 19) - 1088)]
        {
            let geometry = Geometry { offset: 4096, capacity };
            assert_eq!(geometry.max_payload(), max, "{capacity}");
            let fits = |len| RecordSize::of_loan(len).bytes() <= to_u64(capacity / 2);
            assert_eq!((fits(max), fits(max + 1)), (capacity > 0, false), "{capacity}");
        }
    }

    #[test]
    fn rings_are_counted_in_records() {
        for (payload, kept, bytes) in [
            (0, 0, 4096),
            (960, 0, 4096),
            (961, 0, 8192),
            (4096, 1, 16384),
            (1 << 20, 1, 3 * ((1 << 20) + 1088)),
        ] {
            let capacity = Geometry::capacity_for(payload, kept, 4096);
            assert_eq!(capacity, usize::next_multiple_of(bytes, 4096), "{payload} bytes, {kept} kept");
            assert!(Geometry::new(capacity, 4096).unwrap().max_payload() >= payload);
        }
        for (payload, kept) in [(usize::MAX, 0), (1, usize::MAX), (usize::MAX / 2, 7)] {
            assert!(Geometry::new(Geometry::capacity_for(payload, kept, 4096), 4096).is_err());
        }
    }
}
