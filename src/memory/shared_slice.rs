//! [`SharedSlice`]: values in memory that the peer may be changing, read by value only.

use std::{
    convert::Infallible,
    fmt,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    ops::{Bound, RangeBounds},
    os::fd::AsFd,
};

use zerocopy::FromBytes;

pub use super::shared_iter::{ArrayChunks, Iter};
use crate::{
    error::{CastError, Result},
    sys::foreign::{BounceBuffer, VolatileBytes},
};

/// A view of values of `T` in a payload: a slice whose every read copies the value out.
///
/// The memory belongs to the peer, which may write there at any time, so a `&[T]` to it cannot exist. A value that was read is
/// private: check it, then use it, and it is the same. Reading one element twice may give two values.
///
/// The bytes may be unaligned. All of `T`'s bit patterns must be values (`FromBytes`), as the peer chooses them. Only
/// [`write_to`](SharedSlice::write_to) makes a system call, or may block.
///
/// | to | call | speed |
/// |---|---|---|
/// | make one result of all values | what consumes an [`iter`](Self::iter) as a whole: `fold`, `sum`, `max`, `for_each` | 0.9 to 1 |
/// | the same with vector instructions | [`array_chunks`](Self::array_chunks) of 64 bytes | 1 and more |
/// | call a function that takes slices | [`for_each_block`](Self::for_each_block) | 0.5; 1 if the function takes some time for each value |
/// | look at single values | [`get`](Self::get) | 0.3 |
/// | leave a loop early, or write it as `for` | [`iter`](Self::iter), one `next` after the other | 0.3 |
/// | keep the values | [`copy_to_slice`](Self::copy_to_slice), [`copy_to_uninit`](Self::copy_to_uninit), [`to_vec`](Self::to_vec) | that of a copy |
///
/// The speed is that of a sum of `u64` within a cache, where a plain slice has 1 (Intel Xeon). Values of which 64 bytes are no
/// whole number are slower to iterate.
///
/// ```
/// use sealane::Channel;
///
/// let (mut a, mut b) = Channel::pair()?;
/// let mut loan = a.loan_slice::<u32>(1000)?;
/// for (i, value) in loan.iter_mut().enumerate() {
///     *value = i as u32;
/// }
/// loan.send()?;
///
/// let message = b.recv()?;
/// let values = message.payload().unwrap().shared::<u32>()?;
/// assert_eq!(values.get(7), Some(7));
/// assert_eq!(values.iter().map(u64::from).sum::<u64>(), 499_500);
/// assert_eq!(values.subslice(10..12).unwrap().to_vec(), [10, 11]);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct SharedSlice<'a, T = u8> {
    bytes: VolatileBytes<'a>,
    values: PhantomData<fn() -> T>,
}

impl<T> Clone for SharedSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<'_, T> {}

impl<'a, T: FromBytes> SharedSlice<'a, T> {
    /// Bytes of a value. A `T` without a size is refused at compile time.
    const SIZE: usize = {
        assert!(size_of::<T>() > 0, "a type without a size cannot be read");
        size_of::<T>()
    };

    /// A view of all of `bytes`, which must be a whole number of values.
    pub(crate) fn new(bytes: VolatileBytes<'a>) -> Result<Self> {
        if bytes.len().checked_rem(Self::SIZE) == Some(0) {
            Ok(Self { bytes, values: PhantomData })
        } else {
            Err(CastError::Remainder { size: Self::SIZE, found: bytes.len() }.into())
        }
    }

    /// A view of `count` values from byte `offset` of `bytes` on.
    pub(crate) fn at(bytes: VolatileBytes<'a>, offset: usize, count: usize) -> Result<Self> {
        let part = count.checked_mul(Self::SIZE).and_then(|len| bytes.part(offset, len));
        let (size, available) = (Self::SIZE, bytes.len());
        let bytes = part.ok_or(CastError::OutOfBounds { offset, count, size, available })?;
        Ok(Self { bytes, values: PhantomData })
    }

    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.bytes.len().checked_div(Self::SIZE) {
            Some(len) => len,
            None => 0,
        }
    }

    /// True without any values.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == 0
    }

    /// Reads one value; `None` past the end. A loop over all values is faster with [`iter`](Self::iter).
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        self.bytes.nth(index)
    }

    /// Iterates over the values. A call that consumes the iterator as a whole reads 64 bytes at a time; `next`, and so a `for`
    /// loop, reads one value.
    #[must_use]
    pub const fn iter(&self) -> Iter<'a, T> {
        Iter::new(*self)
    }

    /// A view of the values in `range`; `None` if the range reaches past the end.
    #[must_use]
    pub fn subslice(&self, range: impl RangeBounds<usize>) -> Option<Self> {
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n.checked_add(1)?,
            Bound::Excluded(&n) => n,
            Bound::Unbounded => self.len(),
        };
        Self::at(self.bytes, start.checked_mul(Self::SIZE)?, end.checked_sub(start)?).ok()
    }

    /// Copies all values to `values`.
    ///
    /// # Errors
    /// [`CastError::Length`] unless `values` is exactly as long as `self`.
    pub fn copy_to_slice(&self, values: &mut [T]) -> Result<()> {
        let (expected, found) = (self.len(), values.len());
        if self.bytes.copy_over(values) { Ok(()) } else { Err(CastError::Length { expected, found }.into()) }
    }

    /// Copies all values to memory that may be uninitialised, and returns that as `values`. So memory that is not zeroed
    /// before is written once.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # let mut loan = a.loan_slice::<u32>(3)?;
    /// # loan.copy_from_slice(&[1, 2, 3]);
    /// # loan.send()?;
    /// let message = b.recv()?;
    /// let payload = message.payload().unwrap().shared::<u32>()?;
    /// let mut memory = Box::new_uninit_slice(3);
    /// let values: &mut [u32] = payload.copy_to_uninit(&mut memory)?;
    /// assert_eq!(values, [1, 2, 3]);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`CastError::Length`] unless `values` is exactly as long as `self`.
    pub fn copy_to_uninit<'v>(&self, values: &'v mut [MaybeUninit<T>]) -> Result<&'v mut [T]> {
        let (expected, found) = (self.len(), values.len());
        self.bytes.copy_to(values).ok_or_else(|| CastError::Length { expected, found }.into())
    }

    /// Copies all values to a new vector.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.bytes.to_vec().unwrap_or_default()
    }

    /// Calls `each` with all values, as ordinary slices of at most 8 KiB (or one value, if that is larger). Each slice is a
    /// private copy on the stack.
    ///
    /// It is for functions that take a `&[T]`: a parser, a checksum, a codec, a writer. They cost what they cost with a plain
    /// slice, and the copy some 20 ns for each KiB. To add values up, [`iter`](Self::iter) is faster.
    ///
    /// ```
    /// /// A function that knows of plain slices only.
    /// fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    ///     bytes.iter().fold(sum, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))
    /// }
    ///
    /// let (mut a, mut b) = sealane::Channel::pair()?;
    /// let mut loan = a.loan(10_000)?;
    /// loan.fill(7);
    /// let expected = checksum(0, &loan);
    /// loan.send()?;
    ///
    /// let message = b.recv()?;
    /// let mut sum = 0;
    /// message.payload().unwrap().bytes().for_each_block(|block| sum = checksum(sum, block));
    /// assert_eq!(sum, expected);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[inline]
    pub fn for_each_block(&self, mut each: impl FnMut(&[T])) {
        let Ok(()) = self.try_for_each_block(|block| {
            each(block);
            Ok::<(), Infallible>(())
        });
    }

    /// Does the same as [`for_each_block`](Self::for_each_block), until `each` fails.
    ///
    /// # Errors
    /// The error of `each`.
    #[inline]
    pub fn try_for_each_block<E>(&self, mut each: impl FnMut(&[T]) -> Result<(), E>) -> Result<(), E> {
        let per_block = BounceBuffer::count::<T>();
        if per_block == 0 {
            return self.iter().try_for_each(|value| each(std::slice::from_ref(&value)));
        }
        let mut buffer = BounceBuffer::new();
        let mut rest = self.bytes;
        while rest.len() > 0 {
            let (block, behind) = rest.split_at(per_block.wrapping_mul(Self::SIZE));
            let Some(values) = buffer.fill(block) else { break };
            each(values)?;
            rest = behind;
        }
        Ok(())
    }

    /// Reads `N` values at a time, as arrays by value. Values behind the last whole chunk are the iterator's
    /// [`remainder`](ArrayChunks::remainder). Chunks of 64 bytes are the fastest.
    ///
    /// Keep one result for each place of the chunk, and combine them at the end: vector instructions then work side by side.
    /// With a single result, each step waits for the one before.
    ///
    /// ```
    /// use sealane::SharedSlice;
    ///
    /// fn sum(values: SharedSlice<'_, u64>) -> u64 {
    ///     let mut sums = [0_u64; 8];
    ///     let mut chunks = values.array_chunks::<8>();
    ///     for chunk in chunks.by_ref() {
    ///         for (sum, value) in sums.iter_mut().zip(chunk) {
    ///             *sum = sum.wrapping_add(value);
    ///         }
    ///     }
    ///     chunks.remainder().iter().chain(sums).fold(0, u64::wrapping_add)
    /// }
    ///
    /// let (mut a, mut b) = sealane::Channel::pair()?;
    /// let mut loan = a.loan_slice::<u64>(1003)?;
    /// loan.iter_mut().zip(1..).for_each(|(value, i)| *value = i);
    /// loan.send()?;
    /// assert_eq!(sum(b.recv()?.payload().unwrap().shared()?), 503_506);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// The remainder:
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.loan(20)?.send()?;
    /// # let message = b.recv()?;
    /// let bytes = message.payload().unwrap().bytes();
    /// let mut chunks = bytes.array_chunks::<8>();
    /// assert_eq!(chunks.by_ref().count(), 2);
    /// assert_eq!(chunks.remainder().len(), 4);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn array_chunks<const N: usize>(&self) -> ArrayChunks<'a, T, N> {
        const { assert!(N > 0, "chunks have a size") };
        let left_over = self.bytes.len().checked_rem(Self::SIZE.saturating_mul(N)).unwrap_or(0);
        let (chunks, rest) = self.bytes.split_at(self.bytes.len().saturating_sub(left_over));
        let chunks = SharedSlice { bytes: chunks, values: PhantomData };
        ArrayChunks::new(chunks.iter(), Self { bytes: rest, values: PhantomData })
    }

    /// Reads the first value and takes it off the view.
    #[inline]
    pub(super) fn take_first(&mut self) -> Option<T> {
        self.bytes.take_first()
    }

    /// Reads the last value and takes it off the view.
    #[inline]
    pub(super) fn take_last(&mut self) -> Option<T> {
        self.bytes.take_last()
    }
}

impl<'a> SharedSlice<'a, u8> {
    /// A view of all of `bytes`.
    pub(crate) const fn bytes(bytes: VolatileBytes<'a>) -> Self {
        Self { bytes, values: PhantomData }
    }

    /// The same bytes as values of `U`, at any alignment.
    ///
    /// # Errors
    /// [`CastError::Remainder`] if the bytes are no whole number of values.
    pub fn cast<U: FromBytes>(self) -> Result<SharedSlice<'a, U>> {
        SharedSlice::new(self.bytes)
    }

    /// Makes one `write(2)`, straight from the shared memory, and returns how many bytes the kernel took. Blocks if `fd` does.
    /// A pipe or socket without a reader raises `SIGPIPE`, which Rust programs ignore by default.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub fn write_to(&self, fd: impl AsFd) -> std::io::Result<usize> {
        self.bytes.write_to(fd.as_fd())
    }
}

/// Shows the length, not the values, which may change meanwhile.
impl<T: FromBytes> fmt::Debug for SharedSlice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSlice").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a, T: FromBytes> IntoIterator for SharedSlice<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: FromBytes> IntoIterator for &SharedSlice<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn shared(bytes: &[u8]) -> SharedSlice<'_, u8> {
        SharedSlice::bytes(VolatileBytes::from_slice(bytes))
    }

    #[test]
    fn all_reads_agree_with_a_plain_slice() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
        for len in [0, 1, 7, 8, 63, 64, 65, 8191, 8192, 8193, 20_000] {
            let (plain, view) = (&bytes[..len], shared(&bytes[..len]));
            assert_eq!(view.len(), len);
            assert_eq!(view.to_vec(), plain);
            assert!(view.iter().eq(plain.iter().copied()));
            assert!((0..=len).map(|i| view.get(i)).eq((0..=len).map(|i| plain.get(i).copied())));
            assert!(view.iter().rev().eq(plain.iter().rev().copied()));
            assert_eq!(
                view.iter().map(u64::from).sum::<u64>(),
                plain.iter().copied().map(u64::from).sum::<u64>()
            );
            let mut blocks = Vec::new();
            view.for_each_block(|block| blocks.extend_from_slice(block));
            assert_eq!(blocks, plain);
            let chunks = view.array_chunks::<64>();
            assert_eq!(chunks.remainder().to_vec(), plain.as_chunks::<64>().1);
            assert!(chunks.eq(plain.as_chunks::<64>().0.iter().copied()));
            let mut copy = vec![0; len];
            view.copy_to_slice(&mut copy).unwrap();
            assert_eq!(copy, plain);
            assert_eq!(view.copy_to_uninit(&mut Box::new_uninit_slice(len)).unwrap(), plain);
        }
    }

    #[test]
    fn chunks_from_either_end_are_a_slices_chunks() {
        let bytes: Vec<u8> = (0..35).collect();
        let mut chunks = shared(&bytes).array_chunks::<8>();
        assert_eq!(chunks.size_hint(), (4, Some(4)));
        assert_eq!(chunks.next_back().as_ref().map(<[u8; 8]>::as_slice), Some(&bytes[24..32]));
        assert_eq!(chunks.nth(1).as_ref().map(<[u8; 8]>::as_slice), Some(&bytes[8..16]));
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks.remainder().to_vec(), bytes[32..]);
        assert_eq!(chunks.nth(1), None);
    }

    #[test]
    fn views_are_iterated_as_slices_are() {
        let view = shared(&[1, 2, 3]);
        let (mut lent, mut given) = (Vec::new(), Vec::new());
        for value in &view {
            lent.push(value);
        }
        for value in view {
            given.push(value);
        }
        assert_eq!((lent, given), (vec![1, 2, 3], vec![1, 2, 3]));
        assert!(!view.is_empty() && shared(&[]).is_empty());
    }

    #[test]
    fn values_need_no_alignment() {
        let bytes: Vec<u8> = (0..=255).collect();
        let view = shared(&bytes).subslice(1..).unwrap().subslice(..=31).unwrap().cast::<u64>().unwrap();
        assert_eq!(view.len(), 4);
        assert_eq!(view.get(3), Some(u64::from_le_bytes(bytes[25..33].try_into().unwrap())));
        let mut sum = 0_u64;
        view.for_each_block(|block| sum = block.iter().fold(sum, |sum, n| sum.wrapping_add(*n)));
        assert_eq!(sum, view.iter().fold(0, u64::wrapping_add));
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let bytes = [0_u8; 10];
        let view = shared(&bytes);
        assert!(matches!(view.cast::<u32>(), Err(Error::Cast(CastError::Remainder { size: 4, found: 10 }))));
        assert!(matches!(
            view.copy_to_slice(&mut [0; 9]),
            Err(Error::Cast(CastError::Length { expected: 10, found: 9 }))
        ));
        let mut longer = [MaybeUninit::new(7); 11];
        assert!(matches!(
            view.copy_to_uninit(&mut longer),
            Err(Error::Cast(CastError::Length { expected: 10, found: 11 }))
        ));
        assert!(view.subslice(4..11).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake, which must not panic")]
        let backwards = view.subslice(5..4);
        assert!(backwards.is_none());
        assert!(view.subslice(..=usize::MAX).is_none());
        assert!(view.get(10).is_none() && view.get(usize::MAX).is_none());
        assert!(SharedSlice::<u32>::at(VolatileBytes::from_slice(&bytes), 0, usize::MAX).is_err());
    }

    #[test]
    fn error_of_a_block_ends_the_reading() {
        let bytes = vec![1_u8; 20_000];
        let mut blocks = 0;
        let result = shared(&bytes).try_for_each_block(|_| {
            blocks += 1;
            if blocks == 2 { Err("enough") } else { Ok(()) }
        });
        assert_eq!((result, blocks), (Err("enough"), 2));
    }

    #[test]
    fn values_larger_than_a_block_are_read_one_by_one() {
        let bytes = vec![3_u8; 30_000];
        let mut seen = 0;
        shared(&bytes).cast::<[u8; 10_000]>().unwrap().for_each_block(|block| seen += block.len());
        assert_eq!(seen, 3);
    }
}
