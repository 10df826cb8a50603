//! [`PayloadReader`]: a payload that is read as a stream.
//!
//! Invariant: bytes are handed out only after they were copied out of the ring once, to the caller's memory or to
//! `buffer`. So it is not looked at where the peer could change it.

use std::{
    fmt,
    io::{self, BufRead, Read, Seek, SeekFrom},
};

use super::Payload;
use crate::{
    channel::seek::sought,
    protocol::{to_u64, to_usize},
    sys::foreign::VolatileBytes,
};

/// Bytes that are copied into the buffer at once.
const READ_AHEAD: usize = 2048;

/// A payload as [`Read`], [`BufRead`] and [`Seek`]. From [`Payload::reader`], which borrows it, or
/// [`Payload::into_reader`], which owns it and releases it when the reader is dropped.
///
/// Small reads are served from a private copy of at most 2 KiB; large ones are copied straight from the ring to the
/// caller's memory. Nothing here blocks, makes a system call or fails, but for a seek to before the first byte
/// ([`InvalidInput`](io::ErrorKind::InvalidInput)), a `read_exact` past the end
/// ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof)), and a payload that is not [whole](Payload::is_whole)
/// ([`Error::Overrun`](crate::Error::Overrun)). A read of one byte costs about as much as one from a slice.
///
/// ```
/// use std::io::{BufRead, Lines};
/// use sealane::{Channel, PayloadReader};
///
/// /// The rest of a list that a peer sent.
/// struct Tasks {
///     lines: Lines<PayloadReader<'static>>,
/// }
///
/// let (mut a, mut b) = Channel::pair()?;
/// let mut loan = a.loan(12)?;
/// loan.copy_from_slice(b"tea\nfly\nzip\n");
/// loan.send()?;
///
/// let payload = b.recv()?.take_payload().unwrap();
/// let mut tasks = Tasks { lines: payload.into_reader().lines() };
/// assert_eq!(tasks.lines.next().unwrap().unwrap(), "tea");
/// assert_eq!(b.receiver.held().count, 1);
/// drop(tasks);
/// assert_eq!(b.receiver.held().count, 0);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct PayloadReader<'a> {
    source: Source<'a>,
    /// A private copy of the payload's bytes from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// The next byte to be read, counted in the buffer. At most its length.
    at: usize,
}

/// No type here may have a `Drop` of its own with `'a` in it: the borrow would then last to the end of the scope.
enum Source<'a> {
    Borrowed(&'a Payload),
    Owned(Payload),
}

impl Source<'_> {
    #[inline]
    fn payload(&self) -> &Payload {
        match self {
            Source::Borrowed(payload) => payload,
            Source::Owned(payload) => payload,
        }
    }

    /// At most `len` bytes, from `position` on.
    fn bytes(&self, position: usize, len: usize) -> VolatileBytes<'_> {
        let bytes = self.payload().foreign();
        let len = bytes.len().saturating_sub(position).min(len);
        bytes.part(position, len).unwrap_or(VolatileBytes::from_slice(&[]))
    }
}

impl<'a> PayloadReader<'a> {
    fn new(source: Source<'a>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, at: 0 }
    }

    pub(super) fn borrowed(payload: &'a Payload) -> Self {
        Self::new(Source::Borrowed(payload))
    }

    /// The payload, if the reader owns it.
    #[must_use = "dropping a payload gives its bytes back to the sender"]
    pub fn into_payload(self) -> Option<Payload> {
        match self.source {
            Source::Borrowed(_) => None,
            Source::Owned(payload) => Some(payload),
        }
    }

    #[inline]
    fn position(&self) -> usize {
        self.start.saturating_add(self.at)
    }

    #[inline]
    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Goes to `position`, with nothing in the buffer.
    fn jump(&mut self, position: usize) {
        self.buffer.clear();
        self.start = position;
        self.at = 0;
    }

    /// Fills the buffer anew, from the position on.
    #[inline(never)]
    fn fill(&mut self) -> io::Result<()> {
        self.jump(self.position());
        let whole = self.source.bytes(self.start, READ_AHEAD).append_to(&mut self.buffer);
        debug_assert!(whole, "any number of bytes is whole");
        self.check_whole()
    }

    /// Drops what was copied of a payload that is not [whole](Payload::is_whole).
    #[inline]
    fn check_whole(&mut self) -> io::Result<()> {
        self.source.payload().check_whole().map_err(|overrun| {
            self.jump(self.start);
            overrun.into()
        })
    }

    /// Fills `to` from the buffer; does nothing, and returns false, if there is too little in it.
    #[inline]
    fn take(&mut self, to: &mut [u8]) -> bool {
        let rest = self.buffer.get(self.at..);
        let Some(from) = rest.and_then(|rest| rest.get(..to.len())) else { return false };
        to.copy_from_slice(from);
        // Within the buffer.
        self.at = self.at.wrapping_add(to.len());
        true
    }

    /// Fills `to`, for which the buffer has too little, as far as the payload reaches. Returns the length.
    #[inline(never)]
    fn read_on(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let buffered = self.buffered().len();
        let Some((first, rest)) = to.split_at_mut_checked(buffered) else { return Ok(0) };
        self.take(first);
        if rest.len() < READ_AHEAD {
            self.fill()?;
        }
        let position = self.position();
        let next = self.source.bytes(position, rest.len());
        let len = next.len();
        let Some(rest) = rest.get_mut(..len) else { return Ok(buffered) };
        let straight = self.buffered().is_empty() && next.copy_over(rest);
        if straight {
            self.check_whole()?;
            self.jump(position.saturating_add(len));
        } else {
            self.take(rest);
        }
        Ok(buffered.saturating_add(len))
    }
}

impl PayloadReader<'static> {
    pub(super) fn owned(payload: Payload) -> Self {
        Self::new(Source::Owned(payload))
    }
}

impl Read for PayloadReader<'_> {
    #[inline]
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.take(to) { Ok(to.len()) } else { self.read_on(to) }
    }

    #[inline]
    fn read_exact(&mut self, to: &mut [u8]) -> io::Result<()> {
        if self.take(to) || self.read_on(to)? == to.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn read_to_end(&mut self, to: &mut Vec<u8>) -> io::Result<usize> {
        let (position, buffered) = (self.position(), self.buffered().len());
        let rest = self.source.bytes(position.saturating_add(buffered), usize::MAX);
        let len = buffered.saturating_add(rest.len());
        to.reserve(len);
        to.extend_from_slice(self.buffered());
        let whole = rest.append_to(to);
        debug_assert!(whole, "any number of bytes is whole");
        self.jump(position.saturating_add(len));
        self.check_whole().inspect_err(|_| to.truncate(to.len().saturating_sub(len)))?;
        Ok(len)
    }
}

impl BufRead for PayloadReader<'_> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.buffer.len() {
            self.fill()?;
        }
        Ok(self.buffered())
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount).min(self.buffer.len());
    }
}

impl Seek for PayloadReader<'_> {
    #[inline]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = sought(to, to_u64(self.position()), to_u64(self.source.payload().len()))?;
        match to_usize(position).checked_sub(self.start).filter(|at| *at <= self.buffer.len()) {
            Some(at) => self.at = at,
            None => self.jump(to_usize(position)),
        }
        Ok(position)
    }
}

/// Prints length and position, never the bytes.
impl fmt::Debug for PayloadReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, position) = (self.source.payload().len(), self.position());
        f.debug_struct("PayloadReader")
            .field("len", &len)
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_read_does_not_pass_through_the_buffer() {
        let bytes: Vec<u8> = (0..251).cycle().take(3 * READ_AHEAD).collect();
        let payload = Payload::private(bytes.clone());
        let mut reader = payload.reader();
        let mut large = vec![0; READ_AHEAD];
        reader.read_exact(&mut large).unwrap();
        assert_eq!((large.as_slice(), reader.buffer.capacity()), (&bytes[..READ_AHEAD], 0));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!((rest.as_slice(), reader.buffer.capacity()), (&bytes[READ_AHEAD..], 0));
        // Bytes that were read ahead come from the buffer, and only those behind them come from the ring directly.
        reader.rewind().unwrap();
        reader.read_exact(&mut [0; 10]).unwrap();
        large.resize(2 * READ_AHEAD, 0);
        reader.read_exact(&mut large).unwrap();
        assert_eq!(large, bytes[10..][..2 * READ_AHEAD]);
        assert_eq!((reader.buffered().len(), reader.start), (0, 10 + 2 * READ_AHEAD));
    }
}
