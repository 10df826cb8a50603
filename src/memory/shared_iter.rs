//! [`Iter`] and [`ArrayChunks`]: the iterators over a [`SharedSlice`].

use std::{fmt, iter::FusedIterator, mem::size_of};

use zerocopy::FromBytes;

use super::shared_slice::SharedSlice;

/// An iterator over the values of a [`SharedSlice`]. Each call of `next` reads one value.
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

impl<'a, T> Iter<'a, T> {
    pub(super) const fn new(values: SharedSlice<'a, T>) -> Self {
        Self { rest: values }
    }
}

impl<T: FromBytes> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rest.take_first()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.rest.len();
        (len, Some(len))
    }

    fn nth(&mut self, n: usize) -> Option<T> {
        self.rest = self.rest.subslice(n.min(self.rest.len())..)?;
        self.next()
    }

    /// Reads by 64-byte chunks, which makes `sum`, `max`, `for_each` and the like fast.
    #[inline]
    fn fold<B, F: FnMut(B, T) -> B>(self, first: B, each: F) -> B {
        match size_of::<T>() {
            1 => self.fold_by::<64, _>(first, each),
            2 => self.fold_by::<32, _>(first, each),
            8 => self.fold_by::<8, _>(first, each),
            16 => self.fold_by::<4, _>(first, each),
            32 => self.fold_by::<2, _>(first, each),
            // 16 values of 4 bytes are 64 bytes; chunks of other sizes are several loads.
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
        self.rest.take_last()
    }
}

impl<T: FromBytes> ExactSizeIterator for Iter<'_, T> {}
impl<T: FromBytes> FusedIterator for Iter<'_, T> {}

impl<T: FromBytes> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &self.len()).finish_non_exhaustive()
    }
}

/// An iterator over arrays of `N` values of a [`SharedSlice`], see [`SharedSlice::array_chunks`].
pub struct ArrayChunks<'a, T, const N: usize> {
    chunks: Iter<'a, [T; N]>,
    rest: SharedSlice<'a, T>,
}

impl<'a, T: FromBytes, const N: usize> ArrayChunks<'a, T, N> {
    pub(super) const fn new(chunks: Iter<'a, [T; N]>, rest: SharedSlice<'a, T>) -> Self {
        Self { chunks, rest }
    }

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
    use crate::sys::foreign::VolatileBytes;

    fn shared(bytes: &[u8]) -> SharedSlice<'_, u8> {
        SharedSlice::bytes(VolatileBytes::from_slice(bytes))
    }

    #[test]
    fn iterator_yields_from_both_ends() {
        let bytes: Vec<u8> = (0..10).collect();
        let mut iter = shared(&bytes).iter();
        assert_eq!((iter.next(), iter.next_back(), iter.nth(2), iter.len()), (Some(0), Some(9), Some(3), 5));
        assert_eq!(iter.rest.to_vec(), [4, 5, 6, 7, 8]);
        assert_eq!((iter.nth(4), iter.len(), iter.next(), iter.next_back()), (Some(8), 0, None, None));
        assert_eq!(shared(&bytes).iter().nth(usize::MAX), None);
    }
}
