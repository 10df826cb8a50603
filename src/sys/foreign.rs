//! Views of bytes that another process may be changing.
//!
//! A Rust reference promises that its bytes do not change, or change only through it. Nobody can promise that for memory that
//! a peer writes. Therefore no reference to it is made: the bytes are copied once, by loads that the compiler cannot repeat,
//! split or see through ([`copy_volatile`]), to private memory, and only the copy is used.

use std::{
    fmt, io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd},
    slice,
};

use zerocopy::FromBytes;

use super::copy::copy_volatile;

/// A range of bytes that another process may be changing: an address, a length and a lifetime.
///
/// Invariant: the `len` bytes at `at` are readable for all of `'a`. This process writes them only atomically, or not at all.
#[derive(Clone, Copy)]
pub(crate) struct VolatileBytes<'a> {
    at: *const u8,
    len: usize,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: `Send` demands that another thread may use the value. The mapping belongs to the process, so that the invariant
// holds in every thread.
unsafe impl Send for VolatileBytes<'_> {}
// SAFETY: `Sync` demands that several threads may use the value at once. All of its methods only read, by loads that permit
// any concurrent access.
unsafe impl Sync for VolatileBytes<'_> {}

impl<'a> VolatileBytes<'a> {
    /// # Safety
    /// The `len` bytes at `at` must be readable for all of `'a`. Other processes may write them meanwhile; this process may
    /// do so only atomically.
    #[inline]
    pub(super) const unsafe fn new(at: *const u8, len: usize, lifetime: PhantomData<&'a [u8]>) -> Self {
        Self { at, len, lifetime }
    }

    /// A view of private bytes.
    #[inline]
    pub(crate) const fn from_slice(bytes: &'a [u8]) -> Self {
        Self { at: bytes.as_ptr(), len: bytes.len(), lifetime: PhantomData }
    }

    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// The `len` bytes from `offset` on; `None` if they reach past the end.
    #[inline]
    pub(crate) fn part(self, offset: usize, len: usize) -> Option<Self> {
        if offset > self.len || len > self.len.wrapping_sub(offset) {
            return None;
        }
        // SAFETY: `byte_add` demands that the result is within the same allocation, or at its end. The range is within one
        // mapping or slice by the invariant, and `offset <= self.len` was checked.
        let at = unsafe { self.at.byte_add(offset) };
        Some(Self { at, len, lifetime: PhantomData })
    }

    /// The first `len` bytes, or all if there are fewer, and the rest.
    #[inline]
    pub(crate) fn split_at(self, len: usize) -> (Self, Self) {
        let len = len.min(self.len);
        // SAFETY: `byte_add` demands that the result is within the same allocation, or at its end. The range is within one
        // mapping or slice by the invariant, and `len <= self.len`.
        let behind = unsafe { self.at.byte_add(len) };
        (Self { len, ..self }, Self { at: behind, len: self.len.wrapping_sub(len), ..self })
    }

    /// Copies the value at `offset`, aligned or not; `None` if it reaches past the end.
    #[inline]
    pub(crate) fn load<T: FromBytes>(self, offset: usize) -> Option<T> {
        let from = self.part(offset, size_of::<T>())?;
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `copy_volatile` demands that both ranges have `size_of::<T>()` bytes, the source readable, the destination
        // private and writable. `part` checked the source's length, and the invariant of `VolatileBytes` keeps it readable; `value`
        // is a local variable of that size.
        unsafe { copy_volatile(from.at, value.as_mut_ptr().cast(), size_of::<T>()) };
        // SAFETY: `assume_init` demands a valid value. All bytes have been written, and any bytes are a valid `T: FromBytes`.
        Some(unsafe { value.assume_init() })
    }

    /// Copies the value that has `index` values before it; `None` past the last whole one.
    #[inline]
    pub(crate) fn nth<T: FromBytes>(self, index: usize) -> Option<T> {
        // One comparison, with a number that a loop computes once.
        if index >= self.len.checked_div(size_of::<T>())? {
            return None;
        }
        // SAFETY: `byte_add` demands that the result is within the same allocation. The range is within one mapping or slice
        // by the invariant, and `index` was compared with the number of whole values in it, so that the product does not
        // overflow.
        let at = unsafe { self.at.byte_add(index.wrapping_mul(size_of::<T>())) };
        Self { at, len: size_of::<T>(), lifetime: PhantomData }.load(0)
    }

    /// Copies the first value and takes it off the range.
    #[inline]
    pub(crate) fn take_first<T: FromBytes>(&mut self) -> Option<T> {
        let value = self.load(0)?;
        *self = self.part(size_of::<T>(), self.len.wrapping_sub(size_of::<T>()))?;
        Some(value)
    }

    /// Copies the last value and takes it off the range.
    #[inline]
    pub(crate) fn take_last<T: FromBytes>(&mut self) -> Option<T> {
        let rest = self.len.checked_sub(size_of::<T>())?;
        let value = self.load(rest)?;
        self.len = rest;
        Some(value)
    }

    /// Fills `values` with the whole range, and returns them as they are then. `None`, and nothing is copied, if the sizes
    /// differ.
    #[must_use]
    pub(crate) fn copy_to<T: FromBytes>(self, values: &mut [MaybeUninit<T>]) -> Option<&mut [T]> {
        if size_of_val(values) != self.len {
            return None;
        }
        // SAFETY: `copy_volatile` demands that both ranges have `len` bytes, the source readable, the destination private and
        // writable. The invariant of `VolatileBytes` keeps the source readable; `values` is borrowed uniquely, and its size was
        // compared.
        unsafe { copy_volatile(self.at, values.as_mut_ptr().cast(), self.len) };
        // SAFETY: `assume_init_mut` demands valid values. All of their bytes have been written, and any bytes are a valid
        // `T: FromBytes`.
        Some(unsafe { values.assume_init_mut() })
    }

    /// Does the same as [`copy_to`](Self::copy_to), over initialised values.
    #[must_use]
    pub(crate) fn copy_over<T: FromBytes>(self, values: &mut [T]) -> bool {
        let (at, len) = (values.as_mut_ptr().cast::<MaybeUninit<T>>(), values.len());
        // SAFETY: `slice::from_raw_parts_mut` demands `len` valid elements that are borrowed uniquely: `values` is, and a
        // `MaybeUninit<T>` has the layout of `T`. No `T` may be left invalid through this slice: `copy_to` writes nothing, or
        // every byte, and any bytes are a valid `T: FromBytes`.
        self.copy_to(unsafe { slice::from_raw_parts_mut(at, len) }).is_some()
    }

    /// Copies the whole range to a new vector; `None` if it is not a whole number of values.
    pub(crate) fn to_vec<T: FromBytes>(self) -> Option<Vec<T>> {
        let mut values = Vec::new();
        self.append_to(&mut values).then_some(values)
    }

    /// Appends the whole range to `values`. False, and nothing is appended, if it is not a whole number of values.
    #[must_use]
    pub(crate) fn append_to<T: FromBytes>(self, values: &mut Vec<T>) -> bool {
        const { assert!(size_of::<T>() > 0) };
        let count = self.len.checked_div(size_of::<T>()).unwrap_or(0);
        values.reserve(count);
        let Some(spare) = values.spare_capacity_mut().get_mut(..count) else { return false };
        if self.copy_to::<T>(spare).is_none() {
            return false;
        }
        // `reserve` has checked that this sum does not overflow.
        let len = values.len().wrapping_add(count);
        // SAFETY: `Vec::set_len` demands a length within the capacity and initialised elements. The spare capacity had room
        // for `count` elements, and `copy_to` has written all of them; any bytes are a valid `T: FromBytes`.
        unsafe { values.set_len(len) };
        true
    }

    /// Makes one `write(2)` from the range. The kernel reads the bytes; this process does not.
    pub(crate) fn write_to(self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: `write(2)` reads at most `len` bytes at the pointer, which the invariant of `VolatileBytes` keeps readable. The
        // kernel copies them itself, so that concurrent writes only change what it copies.
        let written = unsafe { libc::write(fd.as_raw_fd(), self.at.cast(), self.len) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }
}

impl fmt::Debug for VolatileBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes of a [`BounceBuffer`].
const BOUNCE_BYTES: usize = 8192;

/// A private buffer through which foreign memory is read piece by piece.
#[repr(align(64))]
pub(crate) struct BounceBuffer {
    bytes: [MaybeUninit<u8>; BOUNCE_BYTES],
}

impl BounceBuffer {
    pub(crate) const fn new() -> Self {
        Self { bytes: [MaybeUninit::uninit(); BOUNCE_BYTES] }
    }

    /// Number of values of `T` that fit; 0 if the buffer is too small, or not aligned enough, for one.
    pub(crate) const fn count<T>() -> usize {
        const { assert!(size_of::<T>() > 0) };
        match BOUNCE_BYTES.checked_div(size_of::<T>()) {
            Some(count) if align_of::<T>() <= align_of::<Self>() => count,
            _ => 0,
        }
    }

    /// Copies all of `from`; `None` unless it is a whole number of values that fits.
    #[inline]
    pub(crate) fn fill<T: FromBytes>(&mut self, from: VolatileBytes<'_>) -> Option<&[T]> {
        let count = from.len.checked_div(size_of::<T>())?;
        if count > Self::count::<T>() {
            return None;
        }
        let at = self.bytes.as_mut_ptr().cast::<MaybeUninit<T>>();
        // SAFETY: `slice::from_raw_parts_mut` demands `count` aligned elements that are borrowed uniquely. The buffer is, by
        // `&mut self`; `Self::count` has compared its size and its alignment with those of `T`. Uninitialised bytes are valid
        // in a `MaybeUninit`.
        let values = unsafe { slice::from_raw_parts_mut(at, count) };
        from.copy_to(values).map(|values| &*values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_every_size_are_unaligned() {
        let bytes: Vec<u8> = (0..100).collect();
        let foreign = VolatileBytes::from_slice(&bytes);
        for offset in 0..9_u8 {
            let at = usize::from(offset);
            assert_eq!(foreign.load::<u8>(at), Some(offset));
            assert_eq!(foreign.load::<[u8; 3]>(at), Some([offset, offset + 1, offset + 2]));
            assert_eq!(
                foreign.load::<u64>(at),
                Some(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
            );
            assert_eq!(foreign.load::<[u8; 64]>(at).unwrap().as_slice(), &bytes[at..at + 64]);
        }
        assert_eq!(foreign.load::<u64>(93), None);
        assert_eq!(foreign.load::<u64>(usize::MAX), None);
        assert_eq!((foreign.nth::<u8>(99), foreign.nth::<u8>(100)), (Some(99), None));
        assert_eq!(foreign.nth::<[u8; 3]>(32), Some([96, 97, 98]));
        assert_eq!(foreign.nth::<[u8; 3]>(33), None, "a part of a value");
        assert_eq!(foreign.nth::<u64>(usize::MAX), None);
        assert_eq!(foreign.part(100, 0).map(VolatileBytes::len), Some(0), "the end is within");
        assert!(foreign.part(101, 0).is_none());
    }

    #[test]
    fn ranges_are_split_within_their_length() {
        let bytes: Vec<u8> = (0..10).collect();
        for len in [0, 4, 10, 11, usize::MAX] {
            let (first, rest) = VolatileBytes::from_slice(&bytes).split_at(len);
            let len = len.min(10);
            assert_eq!(first.to_vec::<u8>().unwrap(), bytes[..len]);
            assert_eq!(rest.to_vec::<u8>().unwrap(), bytes[len..]);
        }
    }

    #[repr(align(128))]
    struct Wide(#[expect(dead_code, reason = "only its layout matters")] [u8; 128]);

    #[test]
    fn bounce_buffer_takes_whole_values_that_fit() {
        let bytes = [7_u8; 2 * BOUNCE_BYTES];
        let mut buffer = BounceBuffer::new();
        let part = |len| VolatileBytes::from_slice(&bytes).part(0, len).unwrap();
        assert_eq!(buffer.fill::<u32>(part(BOUNCE_BYTES)).unwrap().len(), BOUNCE_BYTES / 4);
        assert!(buffer.fill::<u32>(part(BOUNCE_BYTES + 4)).is_none(), "too long");
        assert!(buffer.fill::<u32>(part(7)).is_none(), "not whole");
        assert_eq!(BounceBuffer::count::<[u8; 2 * BOUNCE_BYTES]>(), 0);
        assert_eq!(BounceBuffer::count::<Wide>(), 0, "the buffer is aligned to a line");
    }
}
