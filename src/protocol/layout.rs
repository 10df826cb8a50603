//! Offsets, sizes and the arithmetic on them: where things stand in a region.
//!
//! A region is one control page (rounded up to the region's page size), then the ring. Positions are bytes since the
//! channel began: `u64` counters that only grow, taken modulo the capacity.

use crate::error::{Error, Result};

/// Alignment of records and payloads, and the size of a record's header: one cache line.
pub(crate) const LINE: u64 = 64;

/// The words of the control page. Each stands in a cache line with a single writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Word {
    /// Bytes committed to the owner's ring.
    Head = 0x000,
    /// Sequenced packets that the owner has sent.
    Packets = 0x008,
    /// Bytes of the peer's ring that the owner has released.
    Tail = 0x040,
    /// Odd while the owner's receiver sleeps, is about to, or is armed for an event loop.
    ReceiverEpoch = 0x080,
    /// Odd while the owner's sender waits for space.
    SenderEpoch = 0x0c0,
    /// A random number by which its owner knows it again.
    Origin = 0x100,
}

impl Word {
    /// Bytes from the start of the region.
    #[expect(clippy::as_conversions, reason = "a fieldless enum's discriminant")]
    pub(crate) const fn offset(self) -> usize {
        self as usize
    }
}

/// Where the ring stands in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// First byte of the ring: a multiple of the page size, not 0.
    pub(crate) offset: usize,
    /// Bytes of the ring: 0, or a power of two and a multiple of the page size.
    pub(crate) capacity: usize,
}

impl Geometry {
    /// The geometry for at least `capacity` bytes on pages of `page` bytes; 0 stays 0.
    pub(crate) fn new(capacity: usize, page: usize) -> Result<Self> {
        const MAX: usize = usize::MAX / 8;
        let too_large = || Error::RingTooLarge { capacity, max: MAX };
        if capacity > MAX {
            return Err(too_large());
        }
        let capacity = match capacity {
            0 => 0,
            n => n.max(page).checked_next_power_of_two().ok_or_else(too_large)?,
        };
        Ok(Self { offset: page, capacity })
    }

    /// Bytes of the region.
    pub(crate) fn size(self) -> usize {
        self.offset.saturating_add(self.capacity)
    }

    /// The longest payload: a record is at least its header.
    pub(crate) fn max_payload(self) -> usize {
        self.capacity.saturating_sub(to_usize(LINE))
    }
}

/// Rounds up to whole lines; `None` past the end of `u64`.
pub(crate) const fn padded(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(LINE)
}

/// Bytes that a record occupies.
pub(crate) fn record_size(payload: u64, control: u64) -> Option<u64> {
    padded(payload)?.checked_add(padded(control)?)?.checked_add(LINE)
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
        for (asked, given) in [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (3 << 20, 4 << 20)] {
            assert_eq!(Geometry::new(asked, 4096).unwrap().capacity, given);
        }
        assert!(matches!(
            Geometry::new(usize::MAX, 4096),
            Err(Error::RingTooLarge { capacity: usize::MAX, max }) if max == usize::MAX / 8
        ));
    }

    #[test]
    fn sizes_do_not_wrap() {
        assert_eq!(record_size(0, 0), Some(64));
        assert_eq!(record_size(65, 1), Some(64 + 128 + 64));
        assert_eq!(record_size(u64::MAX, 0), None);
        assert_eq!(record_size(u64::MAX - 63, 0), None);
    }
}
