//! Reading bytes that somebody else may be changing.
//!
//! Rust's references promise that what they point at holds still, or changes only through them. Nothing of the kind can
//! be promised here. So no reference is made: bytes are loaded by instructions that the compiler cannot see into (x86-64),
//! or by relaxed atomics, once, into private memory, and only what was loaded is looked at.

use std::{
    fmt, io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd},
    slice,
};

use zerocopy::FromBytes;

/// A range of bytes that somebody else may be changing: an address, a length and a lifetime.
///
/// Invariant: `at` is readable for `len` bytes as long as `'a` lasts.
#[derive(Clone, Copy)]
pub(crate) struct Foreign<'a> {
    at: *const u8,
    len: usize,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: reading the bytes from another thread is no different from reading them here.
unsafe impl Send for Foreign<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Foreign<'_> {}

impl<'a> Foreign<'a> {
    /// # Safety
    /// `at` is readable for `len` bytes as long as `'a` lasts. It may be changed meanwhile, by other processes, but not
    /// by this one other than atomically.
    pub(super) const unsafe fn new(at: *const u8, len: usize, lifetime: PhantomData<&'a [u8]>) -> Self {
        Self { at, len, lifetime }
    }

    /// Private bytes, to be read in the same ways.
    pub(crate) const fn private(bytes: &'a [u8]) -> Self {
        Self { at: bytes.as_ptr(), len: bytes.len(), lifetime: PhantomData }
    }

    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// `len` bytes from `offset` on, if they are within.
    pub(crate) fn part(self, offset: usize, len: usize) -> Option<Self> {
        if offset > self.len || len > self.len.wrapping_sub(offset) {
            return None;
        }
        // SAFETY: `offset` is within the range, or its end.
        let at = unsafe { self.at.byte_add(offset) };
        Some(Self { at, len, lifetime: PhantomData })
    }

    /// The value whose bytes stand at `offset`, aligned or not.
    #[inline]
    pub(crate) fn load<T: FromBytes>(self, offset: usize) -> Option<T> {
        let from = self.part(offset, size_of::<T>())?;
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: contract of `fetch`: the source by the invariant of `Foreign`, of exactly the size of the private
        // `value`.
        unsafe { fetch(from.at, value.as_mut_ptr().cast(), size_of::<T>()) };
        // SAFETY: all its bytes have been written, and whatever they are, they are a `T`: it is `FromBytes`.
        Some(unsafe { value.assume_init() })
    }

    /// Takes the first value off the range.
    #[inline]
    pub(crate) fn take_first<T: FromBytes>(&mut self) -> Option<T> {
        let value = self.load(0)?;
        *self = self.part(size_of::<T>(), self.len.wrapping_sub(size_of::<T>()))?;
        Some(value)
    }

    /// Takes the last value off the range.
    #[inline]
    pub(crate) fn take_last<T: FromBytes>(&mut self) -> Option<T> {
        let rest = self.len.checked_sub(size_of::<T>())?;
        let value = self.load(rest)?;
        self.len = rest;
        Some(value)
    }

    /// Fills `values` from the start of the range. False, and nothing done, if the sizes differ.
    #[must_use]
    pub(crate) fn copy_to<T: FromBytes>(self, values: &mut [MaybeUninit<T>]) -> bool {
        if size_of_val(values) != self.len {
            return false;
        }
        // SAFETY: contract of `fetch`: the source by the invariant of `Foreign`; the destination is as long and ours.
        unsafe { fetch(self.at, values.as_mut_ptr().cast(), self.len) };
        true
    }

    /// As [`copy_to`](Self::copy_to), over values that were there before.
    #[must_use]
    pub(crate) fn copy_over<T: FromBytes>(self, values: &mut [T]) -> bool {
        let (at, len) = (values.as_mut_ptr().cast::<MaybeUninit<T>>(), values.len());
        // SAFETY: a `T` may be written as a `MaybeUninit<T>` as long as what is written is a `T`, and `copy_to` writes
        // nothing, or `T: FromBytes` throughout.
        self.copy_to(unsafe { slice::from_raw_parts_mut(at, len) })
    }

    /// The whole range as values; `None` if it is not a whole number of them.
    pub(crate) fn to_vec<T: FromBytes>(self) -> Option<Vec<T>> {
        let mut values = Vec::new();
        self.append_to(&mut values).then_some(values)
    }

    /// Copies the whole range to the end of `values`. False, and nothing done, if it is not a whole number of them.
    #[must_use]
    pub(crate) fn append_to<T: FromBytes>(self, values: &mut Vec<T>) -> bool {
        const { assert!(size_of::<T>() > 0) };
        let count = self.len.checked_div(size_of::<T>()).unwrap_or(0);
        values.reserve(count);
        let Some(spare) = values.spare_capacity_mut().get_mut(..count) else { return false };
        if !self.copy_to::<T>(spare) {
            return false;
        }
        // `reserve` would have panicked at an overflow.
        let len = values.len().wrapping_add(count);
        // SAFETY: contract of `set_len`: within the capacity, in which there was room for `count` more; `copy_to` has written
        // those.
        unsafe { values.set_len(len) };
        true
    }

    /// `write(2)` from the range: the kernel reads it, this process does not.
    pub(crate) fn write_to(self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: contract of `write(2)`: readable for `len` bytes by the invariant; the kernel bears concurrent change.
        let written = unsafe { libc::write(fd.as_raw_fd(), self.at.cast(), self.len) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }
}

impl fmt::Debug for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes of a [`Block`].
const BLOCK: usize = 2048;

/// A private buffer through which foreign memory is read piece by piece.
#[repr(align(64))]
pub(crate) struct Block {
    bytes: [MaybeUninit<u8>; BLOCK],
}

impl Block {
    pub(crate) const fn new() -> Self {
        Self { bytes: [MaybeUninit::uninit(); BLOCK] }
    }

    /// How many values of `T` are read at once; 0 if not even one fits, aligned.
    pub(crate) const fn count<T>() -> usize {
        const { assert!(size_of::<T>() > 0) };
        match BLOCK.checked_div(size_of::<T>()) {
            Some(count) if align_of::<T>() <= align_of::<Self>() => count,
            _ => 0,
        }
    }

    /// Reads all of `from`, which must be a whole number of values that fits.
    #[inline]
    pub(crate) fn fill<T: FromBytes>(&mut self, from: Foreign<'_>) -> Option<&[T]> {
        let count = from.len.checked_div(size_of::<T>())?;
        if count > Self::count::<T>() {
            return None;
        }
        let at = self.bytes.as_mut_ptr().cast::<MaybeUninit<T>>();
        // SAFETY: the buffer is ours, borrowed uniquely, at least as aligned as `T` and longer than `count` of them
        // (`Self::count`).
        let values = unsafe { slice::from_raw_parts_mut(at, count) };
        if !from.copy_to(values) {
            return None;
        }
        let at = values.as_ptr().cast::<T>();
        // SAFETY: the same memory, all of it written just now, and any bytes are a `T`: it is `FromBytes`.
        Some(unsafe { slice::from_raw_parts(at, count) })
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable::fetch;
#[cfg(target_arch = "x86_64")]
use x86_64::fetch;

/// Loads in inline assembly: whatever the memory does meanwhile, the compiler has no opinion on it. None of the blocks is
/// `pure`, so that none is repeated or moved.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::inline_always, reason = "a load must become one instruction in its caller")]
mod x86_64 {
    use std::arch::{asm, x86_64::__m128i};

    /// From this many bytes on the processor's own string move is the fastest.
    const STRING_MOVE: usize = 256;

    /// Copies `len` bytes; for a constant `len` of a register's size, a plain load.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes, `to` is private memory, writable for as many.
    #[inline(always)]
    pub(super) unsafe fn fetch(from: *const u8, to: *mut u8, len: usize) {
        match len {
            // SAFETY: the caller's promise, for 1 byte.
            1 => unsafe { word8(from, to) },
            // SAFETY: the caller's promise, for 2 bytes.
            2 => unsafe { word16(from, to) },
            // SAFETY: the caller's promise, for 4 bytes.
            4 => unsafe { word32(from, to) },
            // SAFETY: the caller's promise, for 8 bytes.
            8 => unsafe { word64(from, to) },
            // SAFETY: the caller's promise, for 16 bytes.
            16 => unsafe { word128(from, to) },
            // SAFETY: the caller's promise, for 64 bytes.
            64 => unsafe { line(from, to) },
            // SAFETY: the caller's promise, handed on.
            _ => unsafe { any(from, to, len) },
        }
    }

    #[cfg(not(target_feature = "avx"))]
    macro_rules! load128 {
        () => {
            "movdqu"
        };
    }
    // Beside code that uses AVX the older form of the instruction costs some 70 cycles.
    #[cfg(target_feature = "avx")]
    macro_rules! load128 {
        () => {
            "vmovdqu"
        };
    }

    macro_rules! word {
        ($name:ident, $type:ty, $class:ident, $load:expr) => {
            /// # Safety
            /// As for [`fetch`], for the bytes of one word.
            #[inline(always)]
            unsafe fn $name(from: *const u8, to: *mut u8) {
                let value: $type;
                // SAFETY: loads from where the caller says that it is readable, and does nothing else.
                unsafe {
                    asm!($load, lateout($class) value, in(reg) from,
                        options(readonly, nostack, preserves_flags));
                }
                // SAFETY: the caller says that `to` is ours; alignment is not asked for.
                unsafe { to.cast::<$type>().write_unaligned(value) };
            }
        };
    }
    word!(word8, u8, reg_byte, "mov {0}, byte ptr [{1}]");
    word!(word16, u16, reg, "mov {0:x}, word ptr [{1}]");
    word!(word32, u32, reg, "mov {0:e}, dword ptr [{1}]");
    word!(word64, u64, reg, "mov {0}, qword ptr [{1}]");
    word!(word128, __m128i, xmm_reg, concat!(load128!(), " {0}, xmmword ptr [{1}]"));

    /// # Safety
    /// As for [`fetch`], for 64 bytes.
    #[inline(always)]
    unsafe fn line(from: *const u8, to: *mut u8) {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: loads the 64 bytes from where the caller says that they are readable, and does nothing else.
        unsafe {
            asm!(
                concat!(load128!(), " {0}, xmmword ptr [{4}]"),
                concat!(load128!(), " {1}, xmmword ptr [{4} + 16]"),
                concat!(load128!(), " {2}, xmmword ptr [{4} + 32]"),
                concat!(load128!(), " {3}, xmmword ptr [{4} + 48]"),
                lateout(xmm_reg) a, lateout(xmm_reg) b, lateout(xmm_reg) c, lateout(xmm_reg) d, in(reg) from,
                options(readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: the caller says that `to` is ours; alignment is not asked for.
        unsafe { to.cast::<[__m128i; 4]>().write_unaligned([a, b, c, d]) };
    }

    /// # Safety
    /// As for [`fetch`].
    unsafe fn any(from: *const u8, to: *mut u8, len: usize) {
        if len >= STRING_MOVE {
            // SAFETY: reads and writes exactly the caller's two ranges; the direction flag is clear, as the ABI says.
            unsafe {
                asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                    options(nostack, preserves_flags));
            }
            return;
        }
        let mut done = 0_usize;
        macro_rules! steps {
            ($word:ident, $size:literal) => {
                while len.wrapping_sub(done) >= $size {
                    // SAFETY: `done + $size <= len`, within both of the caller's ranges.
                    unsafe { $word(from.wrapping_add(done), to.wrapping_add(done)) };
                    done = done.wrapping_add($size);
                }
            };
        }
        steps!(word128, 16);
        steps!(word64, 8);
        steps!(word32, 4);
        steps!(word16, 2);
        steps!(word8, 1);
    }
}

/// Relaxed atomic loads, word by word where the source is aligned. Elsewhere than on x86-64 this is how it is done;
/// there it is the oracle for the other.
#[cfg(any(not(target_arch = "x86_64"), test))]
mod portable {
    use std::{
        mem::size_of,
        sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    };

    const WORD: usize = size_of::<u64>();

    /// # Safety
    /// `from` is readable for `len` bytes, `to` is private memory, writable for as many.
    #[inline]
    pub(super) unsafe fn fetch(from: *const u8, to: *mut u8, len: usize) {
        let mut done = 0_usize;
        while done < len {
            let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
            if from.addr().is_multiple_of(WORD) && len.wrapping_sub(done) >= WORD {
                // SAFETY: aligned, and `done + 8 <= len`, within the caller's range; only loaded.
                let word = unsafe { AtomicU64::from_ptr(from.cast_mut().cast()) }.load(Relaxed);
                // SAFETY: within the caller's range; alignment is not asked for.
                unsafe { to.cast::<u64>().write_unaligned(word) };
                done = done.wrapping_add(WORD);
            } else {
                // SAFETY: `done < len`, within the caller's range; only loaded.
                let byte = unsafe { AtomicU8::from_ptr(from.cast_mut()) }.load(Relaxed);
                // SAFETY: within the caller's range.
                unsafe { to.write(byte) };
                done = done.wrapping_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_copy_agrees_with_the_portable_one() {
        let source: Vec<u8> = (0..5000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for offset in 0..17 {
            for len in (0..600).chain([1023, 1024, 4096]) {
                let from = &source[offset..offset + len];
                let (mut fast, mut slow) = (vec![0xaa_u8; len + 2], vec![0xaa_u8; len + 2]);
                // SAFETY: both ranges are `len` bytes of live vectors.
                unsafe { fetch(from.as_ptr(), fast[1..].as_mut_ptr(), len) };
                // SAFETY: both ranges are `len` bytes of live vectors.
                unsafe { portable::fetch(from.as_ptr(), slow[1..].as_mut_ptr(), len) };
                assert_eq!(fast, slow, "offset {offset}, length {len}");
                assert_eq!((&fast[1..=len], fast[0], fast[len + 1]), (from, 0xaa, 0xaa));
            }
        }
    }

    #[test]
    fn loads_of_every_size_are_unaligned() {
        let bytes: Vec<u8> = (0..100).collect();
        let foreign = Foreign::private(&bytes);
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
        assert_eq!(foreign.part(100, 0).map(Foreign::len), Some(0), "the end is within");
        assert!(foreign.part(101, 0).is_none());
    }

    #[repr(align(128))]
    struct Wide(#[expect(dead_code, reason = "only its layout matters")] [u8; 128]);

    #[test]
    fn a_block_takes_whole_values_that_fit() {
        let bytes = [7_u8; 4096];
        let mut block = Block::new();
        let part = |len| Foreign::private(&bytes).part(0, len).unwrap();
        assert_eq!(block.fill::<u32>(part(2048)).unwrap().len(), 512);
        assert!(block.fill::<u32>(part(2052)).is_none(), "too long");
        assert!(block.fill::<u32>(part(7)).is_none(), "not whole");
        assert_eq!(Block::count::<[u8; 4096]>(), 0);
        assert_eq!(Block::count::<Wide>(), 0, "the buffer is aligned to a line");
    }
}
