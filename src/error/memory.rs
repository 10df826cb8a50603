//! [`CastError`] and [`SealError`]: received bytes and files that a caller cannot use.

use thiserror::Error;

/// The reason for which received bytes could not be read as the type that was asked for. Nothing was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CastError {
    /// The two lengths differ: bytes of a message's control bytes, or elements of a slice.
    #[error("length {expected} expected, {found} found")]
    Length {
        /// Length that was asked for.
        expected: usize,
        /// Length of the bytes or the slice.
        found: usize,
    },
    /// The bytes are not a whole number of elements.
    #[error("a multiple of {size} bytes expected, {found} bytes found")]
    Remainder {
        /// Bytes of one element.
        size: usize,
        /// Bytes in all.
        found: usize,
    },
    /// The range reaches past the end, or its length in bytes is above `usize::MAX`.
    #[error("{count} elements of {size} bytes at offset {offset} expected, {available} bytes found in all")]
    OutOfBounds {
        /// First byte asked for.
        offset: usize,
        /// Elements asked for.
        count: usize,
        /// Bytes of one element.
        size: usize,
        /// Bytes in all.
        available: usize,
    },
    /// The bytes are no value of the type.
    #[error("a valid {expected} expected, other bytes found")]
    Invalid {
        /// The type's name.
        expected: &'static str,
    },
}

/// The reason for which a descriptor is no [`SealedBuffer`](crate::SealedBuffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The descriptor is no regular file.
    #[error("a regular file (mode {expected:#o}) expected, mode {found:#o} found")]
    Kind {
        /// `S_IFREG`, `inode(7)`.
        expected: u32,
        /// The file type found.
        found: u32,
    },
    /// The descriptor was opened without the right to read.
    #[error("a descriptor opened for reading expected, access mode {found:#o} found (O_ACCMODE, open(2))")]
    Access {
        /// `O_WRONLY` or `O_PATH`, `open(2)`.
        found: u32,
    },
    /// Seals are missing, so that the file may still change. Masks as in `fcntl(2)`, `F_GET_SEALS`.
    #[error("a memfd with seals {expected:#x} expected, {found:#x} found")]
    Seals {
        /// Seals that must be set.
        expected: u32,
        /// Seals of the file.
        found: u32,
    },
    /// The file is larger than the limit. Bytes.
    #[error(
        "a sealed buffer of at most {max} bytes expected, {found} found (the limit is SealedBuffer::with_limit's)"
    )]
    TooLarge {
        /// The limit.
        max: u64,
        /// The file's size.
        found: u64,
    },
    /// The file has holes, which a reader would fill at its own expense. Bytes.
    #[error("{expected} allocated bytes expected, {found} found")]
    Holes {
        /// The file's size.
        expected: u64,
        /// Allocated bytes, or the bytes before a hole that pages beyond the end had hidden.
        found: u64,
    },
}
