//! [`PrivateBytes`]: what a packet or a record carries beside a payload, copied, and out of the peer's reach.

use std::mem::size_of;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::sys::foreign::Foreign;

/// Bytes in private memory, aligned so that types can be read in place.
#[derive(Debug, Default)]
pub(crate) struct PrivateBytes {
    lines: Vec<Aligned>,
    len: usize,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(16))]
struct Aligned([u8; 16]);

impl PrivateBytes {
    /// Copies bytes that somebody else may be changing: from here on they hold still.
    #[inline]
    pub(crate) fn copy(bytes: Foreign<'_>) -> Self {
        let len = bytes.len();
        if len == 0 {
            return Self::default();
        }
        let mut lines = vec![Aligned::new_zeroed(); len.div_ceil(size_of::<Aligned>())];
        let copied = lines.as_mut_bytes().get_mut(..len).is_some_and(|to| bytes.copy_over(to));
        debug_assert!(copied, "the lines are at least as long");
        Self { lines, len }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.lines.as_bytes().get(..self.len).unwrap_or_default()
    }
}

impl From<&[u8]> for PrivateBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::copy(Foreign::private(bytes))
    }
}
