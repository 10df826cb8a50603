//! [`AlignedBytes`]: a private copy of control bytes, out of the peer's reach.

use std::mem::size_of;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::sys::foreign::VolatileBytes;

/// Bytes in private memory, aligned to 16, so that types can be parsed in place.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    units: Vec<Unit>,
    /// Bytes, of which the last unit may hold fewer than 16.
    len: usize,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(16))]
struct Unit([u8; 16]);

impl AlignedBytes {
    /// Copies bytes that another process may be changing. The copy does not change.
    #[inline]
    pub(crate) fn copy(bytes: VolatileBytes<'_>) -> Self {
        let len = bytes.len();
        if len == 0 {
            return Self::default();
        }
        let mut units = vec![Unit::new_zeroed(); len.div_ceil(size_of::<Unit>())];
        let copied = units.as_mut_bytes().get_mut(..len).is_some_and(|to| bytes.copy_over(to));
        debug_assert!(copied, "the units are at least as long");
        Self { units, len }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.units.as_bytes().get(..self.len).unwrap_or_default()
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::copy(VolatileBytes::from_slice(bytes))
    }
}
