//! Where a seek leads, in a loan that is written and in a payload that is read.

use std::io::{self, SeekFrom};

/// The new position; any that is not negative. An error before the first byte.
#[inline]
pub(crate) fn sought(to: SeekFrom, current: u64, end: u64) -> io::Result<u64> {
    let (from, by) = match to {
        SeekFrom::Start(position) => return Ok(position),
        SeekFrom::Current(by) => (current, by),
        SeekFrom::End(by) => (end, by),
    };
    from.checked_add_signed(by).ok_or_else(|| out_of_range(from, by))
}

#[cold]
fn out_of_range(from: u64, by: i64) -> io::Error {
    let text = format!("a position from 0 to 2^64 - 1 expected, a seek by {by} from {from} found");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
