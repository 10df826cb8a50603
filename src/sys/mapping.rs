//! A file in this process's address space: mapped once, whole, and unmapped with the last that refers to it.
//!
//! [`Mapping`] owns the addresses. [`Region`] is a mapping that is a control page and a ring. What may be read or written
//! there is said by [`own_region`](super::own_region), [`peer_region`](super::peer_region) and [`sealed`](super::sealed).

#[cfg(target_arch = "x86_64")]
use std::arch::{
    asm,
    x86_64::{_MM_HINT_T0, _mm_prefetch},
};
use std::{
    io,
    ops::Range,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};

use crate::protocol::layout::{Geometry, Word, to_u64, to_usize};

/// An address of mapped memory, or of none. What stands there, and for how long, is the invariant of what holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address(pub(super) NonNull<u8>);

// SAFETY: a mapping belongs to the process, not to a thread, and an address by itself gives no access. The types that hold
// one say who may access what.
unsafe impl Send for Address {}
// SAFETY: as for `Send`.
unsafe impl Sync for Address {}

/// A mapping of a whole file: `len` bytes from `base`, unmapped on drop. Nothing is mapped if there are none.
///
/// Invariant: all of it is mapped and readable as long as the value lives. A forked child inherits mapping and value
/// together, so this is true there too.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) base: Address,
    pub(super) len: usize,
}

/// The alignment of a mapping.
#[repr(align(4096))]
struct Page;

impl Mapping {
    /// Maps `len` bytes of `fd` from its start, and leaves them out of core dumps.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { base: Address(NonNull::<Page>::dangling().cast()), len });
        }
        // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, 0) }.map_err(too_much)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { base: Address(base), len };
        mapping.advise(0..len, Advice::LinuxDontDump).map_err(short_of_memory)?;
        Ok(mapping)
    }

    /// Gives advice on the part of `range` that is mapped.
    ///
    /// # Errors
    /// Those of `madvise(2)`.
    pub(super) fn advise(&self, range: Range<usize>, advice: Advice) -> rustix::io::Result<()> {
        let len = range.end.min(self.len).saturating_sub(range.start);
        if len == 0 {
            return Ok(());
        }
        let at = self.base.0.as_ptr().wrapping_add(range.start).cast();
        // SAFETY: the range is cut to this mapping; none of the advices that this crate uses changes what it holds.
        unsafe { madvise(at, len, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: exactly what `new` mapped, in this process or in the one that it was forked from with the mapping; and
            // what borrows from it holds an `Arc` of it, or a lifetime within it. There is no way to report an error, and
            // none is possible on a whole mapping.
            let _ = unsafe { munmap(self.base.0.as_ptr().cast(), self.len) };
        }
    }
}

/// The error of an `mmap(2)`, where `EAGAIN` is no passing state but a limit.
pub(super) fn too_much(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => {
            let limit = "more than may be locked in memory (RLIMIT_MEMLOCK, getrlimit(2))";
            io::Error::new(io::ErrorKind::OutOfMemory, limit)
        }
        error => error.into(),
    }
}

/// The error of a `madvise(2)`, which says `EAGAIN` where the kernel is short of memory.
pub(super) fn short_of_memory(error: Errno) -> io::Error {
    if error == Errno::AGAIN { Errno::NOMEM.into() } else { error.into() }
}

/// Prefetches the cache line at `at`, and the translation of its address.
#[inline]
pub(super) fn prefetch(at: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which changes nothing that a program can see.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().cast_const().cast());
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches the cache line at `at` to be written: the processor that has it gives it up.
#[inline]
pub(super) fn prefetch_for_write(at: NonNull<u8>) {
    // Compilers make a prefetch for reading of the intrinsic, unless all processors aimed at have this instruction. Those that
    // do not know it take it for none.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `asm!` must do what its operands and options say. A hint, which changes nothing that a program can see.
    unsafe {
        asm!("prefetchw [{}]", in(reg) at.as_ptr(), options(nostack, preserves_flags, readonly));
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A region's place in this process: a control page, and the ring behind it.
///
/// Invariant: `base` is the start of `mapping`, which is as long as `geometry` says; the first `geometry.offset` bytes,
/// the control page, are at least a page; `ring` is behind them.
#[derive(Debug, Clone)]
pub(super) struct Region {
    base: Address,
    ring: Address,
    pub(super) geometry: Geometry,
    pub(super) mapping: Arc<Mapping>,
}

impl Region {
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        geometry: Geometry,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        let mapping = Mapping::new(fd, geometry.size(), protection, flags)?;
        let base = mapping.base;
        // SAFETY: `offset` is within the mapping, or its end: it is not longer than all of it.
        let ring = Address(unsafe { base.0.byte_add(geometry.offset) });
        Ok(Self { base, ring, geometry, mapping: Arc::new(mapping) })
    }

    /// The address of `word`.
    #[inline]
    pub(super) fn word(&self, word: Word) -> NonNull<AtomicU64> {
        const { assert!(Word::Wakes.offset() < 4096) };
        // SAFETY: every `Word`'s offset is below the smallest page, which is mapped.
        unsafe { self.base.0.byte_add(word.offset()) }.cast()
    }

    /// The low half of `word`, as a place that the kernel is told (`futex(2)`). It is not to be accessed through this reference.
    pub(super) fn futex(&self, word: Word) -> &AtomicU32 {
        let at = self.word(word);
        // SAFETY: contract of `AtomicU32::from_ptr`: mapped and aligned (`Region::word`) as long as the borrow; the low half comes
        // first, as integers are little-endian. Nothing in this process is accessed through it.
        unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }
    }

    /// The address of the ring's byte `at`, and how many of the `len` bytes from there are before the ring's end.
    #[inline]
    pub(super) fn ring(&self, at: u64, len: usize) -> (NonNull<u8>, usize) {
        let capacity = self.geometry.capacity;
        let at = to_usize(at.min(to_u64(capacity)));
        let len = len.min(capacity.wrapping_sub(at));
        // SAFETY: `at <= capacity`, and as many bytes are mapped from `ring` on: within the mapping, or its end.
        (unsafe { self.ring.0.byte_add(at) }, len)
    }
}
