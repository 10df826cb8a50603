//! [`SharedSlice`]: values in memory that the peer may be changing, read by value only.

use std::{
    fmt,
    iter::FusedIterator,
    marker::PhantomData,
    mem::size_of,
    ops::{Bound, RangeBounds},
    os::fd::AsFd,
};

use zerocopy::FromBytes;

use crate::{
    error::{CastError, Result},
    sys::foreign::{Block, Foreign},
};

/// A view of values of `T` in a payload. Like a slice, but every read copies out.
///
/// The memory belongs to the peer, who may write there at any time, so a `&[T]` to it cannot exist. What has been read is
/// private: check it, then use it, and it will not have changed in between. Reading the same element twice may give two
/// values.
///
/// No alignment is needed. All of `T`'s bit patterns must be values (`FromBytes`), as the peer chooses them. Nothing here
/// blocks or makes a system call, but [`write_to`](SharedSlice::write_to).
///
/// How fast: what consumes an [`iter`](Self::iter) as a whole (`fold`, `sum`, `for_each`, `max`), if 64 bytes are a whole number
/// of values, and [`array_chunks`](Self::array_chunks) of 64 bytes are as fast as with a plain slice;
/// [`for_each_block`](Self::for_each_block) is half as fast; a `for` loop over values, or [`get`](Self::get), goes one by one.
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
    bytes: Foreign<'a>,
    values: PhantomData<fn() -> T>,
}

impl<T> Clone for SharedSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<'_, T> {}

impl<'a, T: FromBytes> SharedSlice<'a, T> {
    /// Refused at compile time for a `T` without a size.
    const SIZE: usize = {
        assert!(size_of::<T>() > 0, "a type without a size cannot be read");
        size_of::<T>()
    };

    /// The whole of `bytes`, if it is a whole number of values.
    pub(crate) fn new(bytes: Foreign<'a>) -> Result<Self> {
        if bytes.len().checked_rem(Self::SIZE) == Some(0) {
            Ok(Self { bytes, values: PhantomData })
        } else {
            Err(CastError::Remainder { size: Self::SIZE, found: bytes.len() }.into())
        }
    }

    /// `count` values from byte `offset` of `bytes` on.
    pub(crate) fn at(bytes: Foreign<'a>, offset: usize, count: usize) -> Result<Self> {
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

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.len() == 0
    }

    /// Reads one value; `None` past the end.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        self.bytes.load(index.checked_mul(Self::SIZE)?)
    }

    /// Reads the values one by one.
    #[must_use]
    pub const fn iter(&self) -> Iter<'a, T> {
        Iter { rest: *self }
    }

    /// The values in `range`; `None` if it is not within.
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

    /// Copies all values out.
    ///
    /// # Errors
    /// [`CastError::Length`] unless `values` is exactly as long as `self`.
    pub fn copy_to_slice(&self, values: &mut [T]) -> Result<()> {
        let (expected, found) = (self.len(), values.len());
        if self.bytes.copy_over(values) { Ok(()) } else { Err(CastError::Length { expected, found }.into()) }
    }

    /// Copies all values out.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.bytes.to_vec().unwrap_or_default()
    }

    /// Hands all values on as ordinary slices of at most 2 KiB (or one value, if that is larger), each a private copy.
    #[inline]
    pub fn for_each_block(&self, mut each: impl FnMut(&[T])) {
        let done: Result<(), std::convert::Infallible> = self.try_for_each_block(|block| {
            each(block);
            Ok(())
        });
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// As [`for_each_block`](Self::for_each_block), until `each` fails.
    ///
    /// # Errors
    /// That of `each`.
    #[inline]
    pub fn try_for_each_block<E>(&self, mut each: impl FnMut(&[T]) -> Result<(), E>) -> Result<(), E> {
        let per_block = Block::count::<T>();
        if per_block == 0 {
            return self.iter().try_for_each(|value| each(std::slice::from_ref(&value)));
        }
        let mut block = Block::new();
        let step = per_block.wrapping_mul(Self::SIZE);
        let mut offset = 0_usize;
        while offset < self.bytes.len() {
            let len = step.min(self.bytes.len().wrapping_sub(offset));
            let Some(values) = self.bytes.part(offset, len).and_then(|part| block.fill(part)) else { break };
            each(values)?;
            offset = offset.wrapping_add(len);
        }
        Ok(())
    }

    /// Reads `N` values at a time, as arrays by value; what is left over is the iterator's
    /// [`remainder`](ArrayChunks::remainder). Chunks of 64 bytes are the fastest.
    ///
    /// A result for each place in the chunk, put together at the end, is what vector instructions do best: with a single
    /// one, each step waits for the one before.
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
    /// The rest:
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
        let chunk = Self::SIZE.saturating_mul(N);
        let whole = self.bytes.len().wrapping_sub(self.bytes.len().checked_rem(chunk).unwrap_or(0));
        // Both ranges are within by construction.
        let part = |at, len| Self {
            bytes: self.bytes.part(at, len).unwrap_or(Foreign::private(&[])),
            values: PhantomData,
        };
        let rest = part(whole, self.bytes.len().wrapping_sub(whole));
        let chunks = SharedSlice { bytes: part(0, whole).bytes, values: PhantomData };
        ArrayChunks { chunks: chunks.iter(), rest }
    }
}

impl<'a> SharedSlice<'a, u8> {
    /// All of `bytes`.
    pub(crate) const fn bytes(bytes: Foreign<'a>) -> Self {
        Self { bytes, values: PhantomData }
    }

    /// The same bytes as values of `U`, whatever their alignment.
    ///
    /// # Errors
    /// [`CastError::Remainder`] if they are no whole number of values.
    pub fn cast<U: FromBytes>(self) -> Result<SharedSlice<'a, U>> {
        SharedSlice::new(self.bytes)
    }

    /// One `write(2)` of as many bytes as the kernel takes, straight from the shared memory. Blocks if `fd` does; on a
    /// pipe or socket whose reader is gone it raises `SIGPIPE`, which Rust programs ignore unless told otherwise.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub fn write_to(&self, fd: impl AsFd) -> std::io::Result<usize> {
        self.bytes.write_to(fd.as_fd())
    }
}

/// Prints the length, not the values: they may change while they are printed.
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

/// The values of a [`SharedSlice`], one by one, each read when it is asked for.
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// # a.loan(3)?.send()?;
/// # let message = b.recv()?;
/// let bytes = message.payload().unwrap().bytes();
/// assert_eq!(bytes.iter().rev().len(), 3);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Iter<'a, T> {
    rest: SharedSlice<'a, T>,
}

impl<T: FromBytes> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rest.bytes.take_first()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.rest.len();
        (len, Some(len))
    }

    fn nth(&mut self, n: usize) -> Option<T> {
        self.rest = self.rest.subslice(n.min(self.rest.len())..)?;
        self.next()
    }

    /// By lines, which is what makes `sum`, `max`, `for_each` and the like fast.
    #[inline]
    fn fold<B, F: FnMut(B, T) -> B>(self, first: B, each: F) -> B {
        match size_of::<T>() {
            1 => self.fold_by::<64, _>(first, each),
            2 => self.fold_by::<32, _>(first, each),
            8 => self.fold_by::<8, _>(first, each),
            16 => self.fold_by::<4, _>(first, each),
            32 => self.fold_by::<2, _>(first, each),
            // Of 4 bytes these are a line, too; of others several, and a part.
            ..64 => self.fold_by::<16, _>(first, each),
            _ => self.fold_by::<1, _>(first, each),
        }
    }
}

impl<T: FromBytes> Iter<'_, T> {
    #[inline]
    fn fold_by<const N: usize, B>(self, first: B, mut each: impl FnMut(B, T) -> B) -> B {
        let mut chunks = self.rest.array_chunks::<N>();
        let mut result = first;
        for chunk in chunks.by_ref() {
            result = chunk.into_iter().fold(result, &mut each);
        }
        for value in chunks.remainder() {
            result = each(result, value);
        }
        result
    }
}

impl<T: FromBytes> DoubleEndedIterator for Iter<'_, T> {
    #[inline]
    fn next_back(&mut self) -> Option<T> {
        self.rest.bytes.take_last()
    }
}

impl<T: FromBytes> ExactSizeIterator for Iter<'_, T> {}
impl<T: FromBytes> FusedIterator for Iter<'_, T> {}

impl<T: FromBytes> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &self.len()).finish_non_exhaustive()
    }
}

/// Arrays of `N` values of a [`SharedSlice`], see [`SharedSlice::array_chunks`].
pub struct ArrayChunks<'a, T, const N: usize> {
    chunks: Iter<'a, [T; N]>,
    rest: SharedSlice<'a, T>,
}

impl<'a, T: FromBytes, const N: usize> ArrayChunks<'a, T, N> {
    /// The values behind the last whole chunk: fewer than `N`.
    #[must_use]
    pub const fn remainder(&self) -> SharedSlice<'a, T> {
        self.rest
    }
}

impl<T: FromBytes, const N: usize> Iterator for ArrayChunks<'_, T, N> {
    type Item = [T; N];

    #[inline]
    fn next(&mut self) -> Option<[T; N]> {
        self.chunks.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.chunks.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<[T; N]> {
        self.chunks.nth(n)
    }
}

impl<T: FromBytes, const N: usize> DoubleEndedIterator for ArrayChunks<'_, T, N> {
    #[inline]
    fn next_back(&mut self) -> Option<[T; N]> {
        self.chunks.next_back()
    }
}

impl<T: FromBytes, const N: usize> ExactSizeIterator for ArrayChunks<'_, T, N> {}
impl<T: FromBytes, const N: usize> FusedIterator for ArrayChunks<'_, T, N> {}

impl<T: FromBytes, const N: usize> fmt::Debug for ArrayChunks<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayChunks").field("left", &self.chunks.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn shared(bytes: &[u8]) -> SharedSlice<'_, u8> {
        SharedSlice::bytes(Foreign::private(bytes))
    }

    #[test]
    fn every_way_to_read_agrees_with_a_plain_slice() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
        for len in [0, 1, 7, 8, 63, 64, 65, 2047, 2048, 2049, 10_000] {
            let (plain, view) = (&bytes[..len], shared(&bytes[..len]));
            assert_eq!(view.len(), len);
            assert_eq!(view.to_vec(), plain);
            assert!(view.iter().eq(plain.iter().copied()));
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
        }
    }

    #[test]
    fn chunks_are_a_slices_chunks_from_either_end() {
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
    fn a_view_is_iterated_over_as_a_slice_is() {
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
    fn lengths_that_do_not_fit_are_errors() {
        let bytes = [0_u8; 10];
        let view = shared(&bytes);
        assert!(matches!(view.cast::<u32>(), Err(Error::Cast(CastError::Remainder { size: 4, found: 10 }))));
        assert!(matches!(
            view.copy_to_slice(&mut [0; 9]),
            Err(Error::Cast(CastError::Length { expected: 10, found: 9 }))
        ));
        assert!(view.subslice(4..11).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake, which must not panic")]
        let backwards = view.subslice(5..4);
        assert!(backwards.is_none());
        assert!(view.subslice(..=usize::MAX).is_none());
        assert!(view.get(10).is_none() && view.get(usize::MAX).is_none());
        assert!(SharedSlice::<u32>::at(Foreign::private(&bytes), 0, usize::MAX).is_err());
    }

    #[test]
    fn a_failing_block_ends_the_reading() {
        let bytes = [1_u8; 5000];
        let mut blocks = 0;
        let result = shared(&bytes).try_for_each_block(|_| {
            blocks += 1;
            if blocks == 2 { Err("enough") } else { Ok(()) }
        });
        assert_eq!((result, blocks), (Err("enough"), 2));
    }

    #[test]
    fn values_larger_than_a_block_are_read_one_by_one() {
        let bytes = [3_u8; 9000];
        let mut seen = 0;
        shared(&bytes).cast::<[u8; 3000]>().unwrap().for_each_block(|block| seen += block.len());
        assert_eq!(seen, 3);
    }

    #[test]
    fn an_iterator_can_be_cut_from_both_ends() {
        let bytes: Vec<u8> = (0..10).collect();
        let mut iter = shared(&bytes).iter();
        assert_eq!((iter.next(), iter.next_back(), iter.nth(2), iter.len()), (Some(0), Some(9), Some(3), 5));
        assert_eq!(iter.rest.to_vec(), [4, 5, 6, 7, 8]);
        assert_eq!((iter.nth(4), iter.len(), iter.next(), iter.next_back()), (Some(8), 0, None, None));
        assert_eq!(shared(&bytes).iter().nth(usize::MAX), None);
    }
}
