//! Parts of the inputs of several bodies.

use std::{fs::File, os::fd::OwnedFd};

use arbitrary::Arbitrary;

/// A value of a word in shared memory.
#[derive(Debug, Arbitrary)]
pub(crate) enum Value {
    Any(u64),
    /// Lines from a base.
    Lines(i8),
    /// Bytes from a base.
    Near(i8),
}

impl Value {
    pub(crate) fn from(&self, base: u64) -> u64 {
        match *self {
            Self::Any(value) => value,
            Self::Lines(lines) => base.wrapping_add_signed(i64::from(lines) * 64),
            Self::Near(by) => base.wrapping_add_signed(by.into()),
        }
    }
}

/// Three descriptors at most.
pub(crate) fn files(count: u8) -> Vec<OwnedFd> {
    (0..count % 4).map(|_| File::open("/dev/null").unwrap().into()).collect()
}
