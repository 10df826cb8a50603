//! [`Payload`]: the large part of a received message, in the peer's ring until it is released.

mod reader;

use std::{
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::event::PollFlags;
use zerocopy::{FromBytes, TryFromBytes};

pub use self::reader::PayloadReader;
use crate::{
    error::{CastError, Error, Result},
    memory::shared_slice::SharedSlice,
    ring::{Releases, Span, claim},
    sys::foreign::VolatileBytes,
    wait::{Deadline, sleep},
};

/// The bytes of a received message, where the sender wrote them.
///
/// A payload is owned, and can be sent to another thread. Dropping it releases its space to the sender. Space is released in
/// the order in which it was sent, so a payload that is kept also holds the space of all later ones. A program that keeps
/// the last `n` payloads needs a ring for `n` + 2 of them ([`Builder::ring_for`](crate::Builder::ring_for)), or
/// [`detach`](Self::detach)es them. In a smaller ring the sender waits, and a receiver with a deadline returns
/// [`Error::TimeoutHolding`].
///
/// The peer can change the bytes at any time, so they are read by value: through [`SharedSlice`], by copying, or by
/// [`reader`](Self::reader). Only [`write_all_to`](Self::write_all_to) blocks.
///
/// ```
/// use sealane::Channel;
/// use std::io::BufRead;
///
/// let (mut a, mut b) = Channel::pair()?;
/// let mut loan = a.loan(12)?;
/// loan.copy_from_slice(b"one\ntwo\nsix\n");
/// loan.send()?;
///
/// let payload = b.recv()?.take_payload().unwrap();
/// assert_eq!(payload.len(), 12);
/// let lines: Vec<String> = payload.reader().lines().map(Result::unwrap).collect();
/// assert_eq!(lines, ["one", "two", "six"]);
/// assert_eq!(payload.read::<u8>(4)?, b't');
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "dropping a payload gives its bytes back to the sender"]
pub struct Payload {
    place: Place,
    len: usize,
}

/// The size is that of the first variant.
enum Place {
    Ring(Arc<Releases>, Span),
    /// A copy, and whether it is one of what was published.
    Private(Box<[u8]>, bool),
}

const _: () = assert!(size_of::<Payload>() == 40, "a payload is moved often");

/// The largest value, in bytes, that [`Payload::read`] copies on the stack.
const STACK_READ_MAX: usize = 256;

impl Payload {
    #[inline]
    pub(crate) fn new(intake: Arc<Releases>, span: Span, len: usize) -> Self {
        Self { place: Place::Ring(intake, span), len }
    }

    /// A payload that is whole and in private memory.
    pub(crate) fn private(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), place: Place::Private(bytes.into(), true) }
    }

    /// The place in the ring; `None` if the payload was copied out of it.
    pub(crate) fn span(&self) -> Option<Span> {
        match &self.place {
            Place::Ring(_, span) => Some(*span),
            Place::Private(..) => None,
        }
    }

    /// The ring and the place in it, which the caller releases; `None` if the payload was copied out of it.
    #[inline]
    pub(crate) fn into_ring(mut self) -> Option<(Arc<Releases>, Span)> {
        match mem::replace(&mut self.place, Place::Private(Box::default(), true)) {
            Place::Ring(intake, span) => Some((intake, span)),
            Place::Private(..) => None,
        }
    }

    #[inline]
    fn foreign(&self) -> VolatileBytes<'_> {
        match &self.place {
            Place::Ring(intake, span) => intake.payload(*span, self.len),
            Place::Private(bytes, _) => VolatileBytes::from_slice(bytes),
        }
    }

    /// The length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the length is 0. A message can have an empty payload, which differs from no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// False if what was read of it until now may have been overwritten by a publisher. Then a view has shown, and
    /// [`to_vec`](Self::to_vec) copied, any bytes. Ask after you have used what you read.
    ///
    /// A channel's payload is always whole. So is one of a [`Subscriber`](crate::Subscriber), until its publisher has ended it for
    /// slowness: then the publisher goes on, over payloads that are still held here.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.loan(4)?.send()?;
    /// # let message = b.recv()?;
    /// let payload = message.payload().unwrap();
    /// let sum: u32 = payload.bytes().iter().map(u32::from).sum();
    /// if payload.is_whole() {
    ///     println!("the sum is {sum}");
    /// }
    /// # assert!(payload.is_whole());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.place {
            Place::Ring(intake, span) => !intake.is_subscription || claim::is_whole(&intake.peer, span.start),
            Place::Private(_, whole) => *whole,
        }
    }

    /// The same as an error, for what gives out private copies.
    fn check_whole(&self) -> Result<()> {
        if self.is_whole() { Ok(()) } else { Err(Error::Overrun) }
    }

    /// A view of the bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> SharedSlice<'_, u8> {
        SharedSlice::bytes(self.foreign())
    }

    /// A view of all bytes as values of `T`, which must have a size:
    ///
    /// ```compile_fail,E0080
    /// # let (_a, mut b) = sealane::Channel::pair()?;
    /// let payload = b.recv()?.take_payload().unwrap();
    /// payload.shared::<()>()?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`CastError::Remainder`] if the length is not a multiple of the size of `T`.
    pub fn shared<T: FromBytes>(&self) -> Result<SharedSlice<'_, T>> {
        SharedSlice::new(self.foreign())
    }

    /// A view of `count` values of `T` from byte `offset` on, at any alignment.
    ///
    /// # Errors
    /// [`CastError::OutOfBounds`] if they reach past the end.
    pub fn shared_at<T: FromBytes>(&self, offset: usize, count: usize) -> Result<SharedSlice<'_, T>> {
        SharedSlice::at(self.foreign(), offset, count)
    }

    /// Copies out the value at byte `offset`, at any alignment. The bytes are copied first, then validated as a `T`.
    ///
    /// # Errors
    /// [`CastError::OutOfBounds`] if it reaches past the end, [`CastError::Invalid`] if the bytes are not a valid `T`;
    /// [`Error::Overrun`], see [`is_whole`](Self::is_whole).
    pub fn read<T: TryFromBytes>(&self, offset: usize) -> Result<T> {
        let size = size_of::<T>();
        let available = self.len;
        let bytes = self.shared_at::<u8>(offset, size).map_err(|_| CastError::OutOfBounds {
            offset,
            count: 1,
            size,
            available,
        })?;
        let invalid = || Error::from(CastError::Invalid { expected: std::any::type_name::<T>() });
        let mut small = [0; STACK_READ_MAX];
        if let Some(small) = small.get_mut(..size) {
            bytes.copy_to_slice(small)?;
            self.check_whole()?;
            return T::try_read_from_bytes(small).map_err(|_| invalid());
        }
        let copy = bytes.to_vec();
        self.check_whole()?;
        T::try_read_from_bytes(&copy).map_err(|_| invalid())
    }

    /// Copies all bytes to a new vector. A subscriber asks then whether they [are whole](Self::is_whole), or calls
    /// [`try_to_vec`](Self::try_to_vec).
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    /// Copies all bytes to a new vector, if they [are whole](Self::is_whole).
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.loan(4)?.send()?;
    /// # let message = b.recv()?;
    /// assert_eq!(message.payload().unwrap().try_to_vec()?.len(), 4);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Overrun`].
    pub fn try_to_vec(&self) -> Result<Vec<u8>> {
        let copy = self.to_vec();
        self.check_whole()?;
        Ok(copy)
    }

    /// Copies all bytes to a slice.
    ///
    /// # Errors
    /// [`CastError::Length`] unless `bytes` is exactly as long; [`Error::Overrun`], see [`is_whole`](Self::is_whole).
    pub fn copy_to_slice(&self, bytes: &mut [u8]) -> Result<()> {
        self.bytes().copy_to_slice(bytes)?;
        self.check_whole()
    }

    /// A stream of the bytes, for formats that read one.
    #[must_use]
    pub fn reader(&self) -> PayloadReader<'_> {
        PayloadReader::borrowed(self)
    }

    /// A stream of the bytes that owns the payload, to be stored or returned.
    #[must_use = "dropping a payload gives its bytes back to the sender"]
    pub fn into_reader(self) -> PayloadReader<'static> {
        PayloadReader::owned(self)
    }

    /// Writes all bytes to `fd`, directly from the ring. Blocks until they are written; waits for a non-blocking `fd` with
    /// `poll(2)`.
    ///
    /// # Errors
    /// [`Error::Io`] as of `write(2)`. The error does not say how much was written before. [`Error::Overrun`] after all was
    /// written, see [`is_whole`](Self::is_whole).
    pub fn write_all_to(&self, fd: impl AsFd) -> Result<()> {
        write_all(self.bytes(), fd.as_fd())?;
        self.check_whole()
    }

    /// Copies the bytes to private memory and releases the ring's space at once. The copy knows whether it
    /// [is whole](Self::is_whole).
    pub fn detach(self) -> Self {
        match self.place {
            Place::Private(..) => self,
            Place::Ring(..) => {
                let copy = self.to_vec().into();
                Self { len: self.len, place: Place::Private(copy, self.is_whole()) }
            }
        }
    }
}

impl Drop for Payload {
    #[inline]
    fn drop(&mut self) {
        if let Place::Ring(intake, span) = &self.place {
            intake.release(*span, 1);
        }
    }
}

/// Prints the length and where the bytes are; never the bytes.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detached = matches!(self.place, Place::Private(..));
        f.debug_struct("Payload").field("len", &self.len).field("detached", &detached).finish()
    }
}

fn write_all(mut bytes: SharedSlice<'_, u8>, fd: BorrowedFd<'_>) -> Result<()> {
    while !bytes.is_empty() {
        match bytes.write_to(fd) {
            Ok(0) => return Err(Error::io("write")(io::Error::from(io::ErrorKind::WriteZero))),
            // `written` is at most the length.
            Ok(written) => {
                bytes =
                    bytes.subslice(written..).unwrap_or(SharedSlice::bytes(VolatileBytes::from_slice(&[])));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep([(fd, PollFlags::OUT)], Deadline::Never, None)?;
            }
            Err(error) => return Err(Error::io("write")(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read, Seek, SeekFrom};

    use super::*;
    use crate::protocol::to_u64;

    fn payload(bytes: Vec<u8>) -> Payload {
        Payload::private(bytes)
    }

    #[test]
    fn a_reader_reads_seeks_and_splits() {
        let text: Vec<u8> = (0..1000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let payload = payload(text.clone());
        let lines: Vec<_> = payload.reader().lines().map(Result::unwrap).collect();
        assert_eq!((lines.len(), lines[999].as_str()), (1000, "line 999"));
        let mut reader = payload.reader();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, text);
        assert_eq!(reader.seek(SeekFrom::End(-9)).unwrap(), to_u64(text.len()) - 9);
        let mut last = String::new();
        reader.read_line(&mut last).unwrap();
        assert_eq!(last, "line 999\n");
        assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
        reader.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        assert!(reader.fill_buf().unwrap().is_empty());
    }

    #[test]
    fn a_value_is_copied_then_checked() {
        let payload = payload(vec![1, 0, 2, 0, 0, 0, 9]);
        assert!(payload.read::<bool>(0).unwrap());
        assert!(matches!(payload.read::<bool>(2), Err(Error::Cast(CastError::Invalid { expected: "bool" }))));
        assert_eq!(payload.read::<u32>(2).unwrap(), 2);
        assert!(payload.read::<[u8; 300]>(0).is_err());
        assert!(matches!(
            payload.read::<u32>(4),
            Err(Error::Cast(CastError::OutOfBounds { offset: 4, count: 1, size: 4, available: 7 }))
        ));
    }

    #[test]
    fn all_bytes_reach_a_pipe_that_does_not_block() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut all).unwrap();
            all
        });
        payload(bytes.clone()).write_all_to(&writer).unwrap();
        drop(writer);
        assert_eq!(read.join().unwrap(), bytes);
    }
}
