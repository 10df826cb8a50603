//! [`AlignedBytes`]: a private copy of control bytes, out of the peer's reach.

use std::mem::size_of;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::sys::foreign::VolatileBytes;

/// Units of bytes that need no allocation of their own: 64 bytes.
const SHORT_UNITS: usize = 4;

/// Bytes in private memory, aligned to 16, so that types can be parsed in place.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    /// The bytes, if they fit.
    short: [Unit; SHORT_UNITS],
    /// The bytes otherwise.
    long: Vec<Unit>,
    /// Bytes, of which the last unit may hold fewer than 16.
    len: usize,
}

#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(16))]
struct Unit([u8; 16]);

impl AlignedBytes {
    /// Copies bytes that another process may be changing. The copy does not change.
    #[inline]
    pub(crate) fn copy(bytes: VolatileBytes<'_>) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        let copied = bytes.copy_over(copy.as_mut_slice());
        debug_assert!(copied, "the copy is as long");
        copy
    }

    #[inline]
    fn zeroed(len: usize) -> Self {
        let units = len.div_ceil(size_of::<Unit>());
        let long = if units > SHORT_UNITS { vec![Unit::new_zeroed(); units] } else { Vec::new() };
        Self { short: Default::default(), long, len }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [u8] {
        let units = if self.long.is_empty() { &mut self.short } else { self.long.as_mut_slice() };
        units.as_mut_bytes().get_mut(..self.len).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        let units = if self.long.is_empty() { &self.short } else { self.long.as_slice() };
        units.as_bytes().get(..self.len).unwrap_or_default()
    }
}

impl From<&[u8]> for AlignedBytes {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_any_length_are_equal_and_aligned() {
        for len in [0, 1, 15, 16, 63, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            for copy in [AlignedBytes::from(&*bytes), AlignedBytes::copy(VolatileBytes::from_slice(&bytes))] {
                assert_eq!(copy.as_slice(), bytes);
                assert!(copy.as_slice().as_ptr().addr().is_multiple_of(16), "{len} bytes");
                let moved = Box::new(copy);
                assert_eq!(moved.as_slice(), bytes);
            }
        }
    }
}
