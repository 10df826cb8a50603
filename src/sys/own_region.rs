//! Our own region: the words of its control page are atomics, and its ring is written through its one [`OwnRing`].
//!
//! The region is sealed before it leaves the process, so the peer can write neither. There is no second writable mapping.

use std::{
    fmt, io,
    marker::PhantomData,
    mem::{align_of, size_of},
    ops::Range,
    os::fd::BorrowedFd,
    ptr, slice,
    sync::atomic::AtomicU64,
};

use rustix::{
    mm::{Advice, MapFlags, ProtFlags, mmap, munmap},
    thread::futex,
};
use zerocopy::{FromBytes, IntoBytes};

use super::mapping::{Address, Region, prefetch_for_write, short_of_memory, too_much};
use crate::protocol::layout::{CACHE_LINE, Geometry, Word, to_usize};

/// Maps our own region, writable. Its pages must be allocated before they are touched.
///
/// # Errors
/// Those of `mmap(2)` and `madvise(2)`.
pub(crate) fn map_own(fd: BorrowedFd<'_>, geometry: Geometry) -> io::Result<(OwnRing, ControlPage)> {
    // A mapping of huge pages (`MFD_HUGETLB`) would reserve them, and fail in place of the allocation, whose error says more.
    let flags = MapFlags::SHARED.union(MapFlags::NORESERVE);
    let region = Region::new(fd, geometry, ProtFlags::READ.union(ProtFlags::WRITE), flags)?;
    // A system without transparent huge pages refuses this, and nothing is lost.
    let _ = region.mapping.advise(0..geometry.size(), Advice::LinuxHugepage);
    Ok((OwnRing { region: region.clone() }, ControlPage { region }))
}

/// Tries a further writable shared mapping of `len` bytes: the kernel must refuse it once the region is sealed.
///
/// # Errors
/// Those of `mmap(2)`; `Ok` means that the region is not protected.
pub(crate) fn try_writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let at =
        unsafe { mmap(ptr::null_mut(), len, ProtFlags::WRITE, MapFlags::SHARED, fd, 0) }.map_err(too_much)?;
    // SAFETY: just mapped, known to nobody else.
    unsafe { munmap(at, len) }?;
    Ok(())
}

/// The words of our own control page. [`Word`] says who stores to which; being atomics, they need no more.
#[derive(Clone)]
pub(crate) struct ControlPage {
    region: Region,
}

impl ControlPage {
    #[inline]
    pub(crate) fn word(&self, word: Word) -> &AtomicU64 {
        let at = self.region.word(word);
        // SAFETY: contract of `NonNull::as_ref`:
        // 1. aligned, mapped, initialised (zero pages): `Region::word`, and all offsets are multiples of 8;
        // 2. in this process only accessed atomically while borrowed: `ControlPage` is the only way to the control page of our
        //    own region. The peer cannot write there; the stores of a fork, which can, are like those of another thread.
        unsafe { at.as_ref() }
    }

    /// Wakes `count` of those who sleep on `word`, in whichever process (`FUTEX_WAKE`, `futex(2)`).
    ///
    /// UNTRUSTED: anybody who has the region may sleep there; no more are woken than `count`, the longest sleepers first.
    pub(crate) fn wake(&self, word: Word, count: u32) {
        // It fails for no word that is mapped.
        let _ = futex::wake(self.region.futex(word), futex::Flags::empty(), count);
    }

    /// Allocates the page at byte `at` of the region, in a huge page if the system gives one for shared memory
    /// (`shmem_enabled`, the kernel's `admin-guide/mm/transhuge`).
    ///
    /// With the setting `advise` only a fault within a mapping that was advised gives one; `fallocate(2)` does not. A huge
    /// page that would reach past the mapping is never given (`thp_vma_suitable_order`, `linux/huge_mm.h`). Nothing is
    /// reported: what could not be allocated is missing, and `fallocate(2)` gives the reason.
    pub(crate) fn allocate_huge(&self, at: usize) {
        let _ = self.region.mapping.advise(at..at.saturating_add(1), Advice::LinuxPopulateWrite);
    }

    /// Fills the page tables of `piece` of the region, so that no later touch faults.
    ///
    /// Faults for reading do that: the mapping is shared and writable, so that the entries are writable, and fault-around
    /// enters sixteen pages at a time. A fault for writing enters one.
    pub(crate) fn populate(&self, piece: Range<usize>) -> io::Result<()> {
        self.region.mapping.advise(piece, Advice::LinuxPopulateRead).map_err(short_of_memory)
    }
}

/// The bytes of our ring, and their one writer in this process. There is one per region; it cannot be cloned. A fork
/// inherits a copy: a program that forks must not use both.
pub(crate) struct OwnRing {
    region: Region,
}

impl OwnRing {
    pub(crate) fn geometry(&self) -> Geometry {
        self.region.geometry
    }

    /// Lends `count` values from the ring's byte `at` on. `None` if they reach past the ring's end, or are misaligned.
    #[inline]
    pub(crate) fn slot<T: FromBytes + IntoBytes>(
        &mut self,
        at: u64,
        count: usize,
    ) -> Option<RingSlot<'_, T>> {
        const { assert!(size_of::<T>() > 0, "a type without a size cannot be lent") };
        const { assert!(align_of::<T>() <= to_usize(CACHE_LINE), "payloads are aligned to 64 bytes, no more") };
        let len = count.checked_mul(size_of::<T>())?;
        let (start, within) = self.region.ring(at, len);
        if within < len || !start.cast::<T>().is_aligned() {
            return None;
        }
        Some(RingSlot { start: Address(start), count, values: PhantomData, ring: self })
    }

    /// The `len` bytes from the ring's byte `at` on, to be read. `None` if they reach past the ring's end.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (start, within) = self.region.ring(at, len);
        if within < len {
            return None;
        }
        // SAFETY: contract of `from_raw_parts`: `Region::ring` gives `len` mapped, initialised bytes; not written meanwhile for
        // the reasons in `RingSlot::as_slice`, as `self` is borrowed.
        Some(unsafe { slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// The `len` bytes from the ring's byte `at` on, to be written. `None` if they reach past the ring's end.
    pub(crate) fn bytes_mut(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        let (start, within) = self.region.ring(at, len);
        if within < len {
            return None;
        }
        // SAFETY: as in `bytes`; unique, because `self` is borrowed uniquely.
        Some(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Writes `value` to the ring's byte `at`. False if it reaches past the ring's end, or is misaligned.
    #[must_use]
    #[inline]
    pub(crate) fn put<T: FromBytes + IntoBytes>(&mut self, at: u64, value: T) -> bool {
        let Some(mut slot) = self.slot(at, 1) else { return false };
        if let [place] = slot.as_mut_slice() {
            *place = value;
        }
        true
    }

    /// Copies `len` bytes of the ring to its byte `to`. False if they reach past the ring's end, there or here.
    #[must_use]
    pub(crate) fn copy_within(&mut self, from: u64, to: u64, len: usize) -> bool {
        let (from, to) = (to_usize(from), to_usize(to));
        let Some(ring) = self.bytes_mut(0, self.region.geometry.capacity) else { return false };
        let is_within = |at: usize| at.checked_add(len).is_some_and(|end| end <= ring.len());
        let fits = is_within(from) && is_within(to);
        if fits {
            ring.copy_within(from..from.wrapping_add(len), to);
        }
        fits
    }

    /// Writes `bytes` from the ring's byte `at` on. False if they reach past the ring's end.
    #[must_use]
    #[inline]
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.slot(at, bytes.len()).map(|mut slot| slot.as_mut_slice().copy_from_slice(bytes)).is_some()
    }
}

/// A part of our ring, lent for writing. While it lives the rest of the ring is reached through it only.
///
/// Invariant: `start` is aligned and valid for `count` values of `T`, within `ring`'s region, which stays mapped: nothing
/// gives out the [`OwnRing`] itself, so that it cannot be replaced.
pub(crate) struct RingSlot<'r, T> {
    start: Address,
    count: usize,
    values: PhantomData<T>,
    ring: &'r mut OwnRing,
}

impl<T> RingSlot<'_, T> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: contract of `from_raw_parts`:
        // 1. valid and aligned: the invariant of `RingSlot`; any bytes are a `T`, which is `FromBytes` (see `slot`);
        // 2. not written meanwhile: the region is sealed against the peer and against a second writable mapping, so in this
        //    process only `self.ring` can write it, and only through `self`. A fork has inherited the mapping: the program
        //    that forks promises that only one of the two processes uses its copy (as to `pre_exec` of the standard library).
        unsafe { slice::from_raw_parts(self.start.0.as_ptr().cast(), self.count) }
    }

    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; unique, because `self` is borrowed uniquely. The bytes written are initialised, as `T`
        // is `IntoBytes` and so has no padding.
        unsafe { slice::from_raw_parts_mut(self.start.0.as_ptr().cast(), self.count) }
    }

    /// Keeps the first `count` values.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }

    /// The ring around the slot, and behind what is left of its values.
    #[inline]
    pub(crate) fn around(&mut self) -> Around<'_> {
        Around(self.ring)
    }
}

/// The ring, to be written while a [`RingSlot`] of it is not looked at. It cannot be replaced by another, as the slot's
/// address would outlive it.
pub(crate) struct Around<'r>(&'r mut OwnRing);

impl Around<'_> {
    /// The same for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Around<'_> {
        Around(self.0)
    }

    /// Prefetches the line of the ring's byte `at`, to be written soon: it is in another processor's cache.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        prefetch_for_write(self.0.region.ring(at, 0).0);
    }

    /// See [`OwnRing::put`].
    #[must_use]
    #[inline]
    pub(crate) fn put<T: FromBytes + IntoBytes>(&mut self, at: u64, value: T) -> bool {
        self.0.put(at, value)
    }

    /// See [`OwnRing::copy_within`].
    #[must_use]
    pub(crate) fn copy_within(&mut self, from: u64, to: u64, len: usize) -> bool {
        self.0.copy_within(from, to, len)
    }

    /// See [`OwnRing::write`].
    #[must_use]
    #[inline]
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.0.write(at, bytes)
    }
}

impl fmt::Debug for OwnRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnRing").field(&self.region.geometry).finish()
    }
}

impl fmt::Debug for ControlPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlPage").field(&self.region.geometry).finish()
    }
}
