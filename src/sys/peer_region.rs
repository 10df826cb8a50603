//! The peer's region, mapped read-only. Nothing in it is believed and nothing of it is borrowed.

use std::{
    fmt, io,
    marker::PhantomData,
    ops::Range,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::{
    fs::fstat,
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
    thread::futex,
    time::Timespec,
};

use super::{
    foreign::VolatileBytes,
    mapping::{Mapping, Region, prefetch, short_of_memory},
};
use crate::protocol::layout::{Geometry, Word};

/// Why a file that somebody else made is not mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    /// A system call failed.
    Failed(io::Error),
    /// There is a hole within the step that follows the first `dense` bytes.
    Hole { dense: usize },
}

impl<E: Into<io::Error>> From<E> for MapError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Bytes that are populated between two looks at what is allocated.
const POPULATE_STEP: usize = 64 << 10;

/// Fills the page tables of a part of a mapping of `fd` for reading, and sees that nothing is allocated for that.
///
/// `allocated` is what the file had when it was first looked at (`st_blocks`, `fstat(2)`). A hole would be filled, at our
/// expense. What a file has allocated does not say where: it may have pages beyond its end (`FALLOC_FL_KEEP_SIZE`,
/// `fallocate(2)`) and free them at any moment. So each step is looked at. Steps are small, since the one that finds a
/// hole has paid for it.
///
/// The pages beyond the end are not cut off: `ftruncate(2)` waits for the file's lock, and before Linux 6.16 a peer that
/// writes to the file, from memory whose faults it does not answer, holds that for as long as it likes, sealed or not.
pub(super) fn populate_dense(
    fd: BorrowedFd<'_>,
    mapping: &Mapping,
    part: Range<usize>,
    allocated: i64,
) -> Result<(), MapError> {
    let mut dense = part.start;
    while dense < part.end {
        let end = dense.saturating_add(POPULATE_STEP).min(part.end);
        match mapping.advise(dense..end, Advice::LinuxPopulateRead) {
            Ok(()) => {}
            // A page that cannot be had, of huge ones for instance, or that the machine has lost.
            Err(Errno::FAULT | Errno::HWPOISON) => return Err(MapError::Hole { dense }),
            Err(error) => return Err(short_of_memory(error).into()),
        }
        if fstat(fd)?.st_blocks != allocated {
            return Err(MapError::Hole { dense });
        }
        dense = end;
    }
    Ok(())
}

/// The peer's region while it may still have holes: populated piece by piece, as large ones take long.
pub(crate) struct UncheckedRegion {
    region: Region,
    /// `st_blocks` before anything was populated.
    allocated: i64,
    /// Bytes from the start that are known to be dense.
    dense: usize,
}

impl UncheckedRegion {
    /// Maps a region that has been looked at, read-only.
    ///
    /// # Errors
    /// Those of `fstat(2)` and `mmap(2)`.
    pub(crate) fn map(fd: BorrowedFd<'_>, geometry: Geometry) -> io::Result<Self> {
        let allocated = fstat(fd)?.st_blocks;
        // A mapping of huge pages would reserve for us what its file lacks.
        let flags = MapFlags::SHARED.union(MapFlags::NORESERVE);
        Ok(Self { region: Region::new(fd, geometry, ProtFlags::READ, flags)?, allocated, dense: 0 })
    }

    /// Populates the next piece, of at most `len` bytes. True if it was the last.
    ///
    /// # Errors
    /// A hole; those of `madvise(2)` and `fstat(2)`.
    pub(crate) fn populate(&mut self, fd: BorrowedFd<'_>, len: usize) -> Result<bool, MapError> {
        let mapping = &self.region.mapping;
        let end = self.dense.saturating_add(len).min(mapping.len);
        populate_dense(fd, mapping, self.dense..end, self.allocated)?;
        self.dense = end;
        Ok(end == mapping.len)
    }

    /// The region, once all of it has been populated; `keep` leaves the page tables filled.
    ///
    /// # Errors
    /// Those of `madvise(2)`.
    pub(crate) fn finish(self, keep: bool) -> io::Result<PeerRegion> {
        if !keep {
            // This only changes page tables of a shared mapping.
            let mapping = &self.region.mapping;
            mapping.advise(0..mapping.len, Advice::LinuxDontNeed).map_err(short_of_memory)?;
        }
        Ok(PeerRegion { region: self.region })
    }
}

/// The peer's region.
#[derive(Clone)]
pub(crate) struct PeerRegion {
    region: Region,
}

impl PeerRegion {
    /// Bytes of the ring.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.region.geometry.capacity
    }

    /// Loads a word, relaxed.
    #[inline]
    pub(crate) fn load(&self, word: Word) -> u64 {
        let at = self.region.word(word);
        // SAFETY: contract of `AtomicU64::from_ptr`: mapped and aligned (`Region::word`), and within this process only
        // loaded atomically. Relaxed loads of 8 bytes are allowed on read-only memory (`core::sync::atomic`); another
        // process's stores are like those of another thread.
        let word = unsafe { AtomicU64::from_ptr(at.as_ptr().cast()) };
        word.load(Ordering::Relaxed)
    }

    /// Sleeps until the peer wakes those who sleep on `word`, for `at_most`, unless the word is not `value` any more
    /// (`FUTEX_WAIT`, `futex(2)`): the kernel compares the low halves. A read-only shared mapping of a file will do.
    ///
    /// # Errors
    /// `AGAIN`, `TIMEDOUT`, `INTR`.
    pub(crate) fn sleep_while(&self, word: Word, value: u64, at_most: Duration) -> Result<(), Errno> {
        let [a, b, c, d, ..] = value.to_le_bytes();
        let at_most = Timespec::try_from(at_most).ok();
        futex::wait(
            self.region.futex(word),
            futex::Flags::empty(),
            u32::from_le_bytes([a, b, c, d]),
            at_most.as_ref(),
        )
    }

    /// Prefetches the line of the ring's byte `at`, to be read soon: it is in another processor's cache.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        prefetch(self.region.ring(at, 0).0);
    }

    /// Prefetches the line of `word`, to be loaded soon: where there are many channels it is in no cache.
    #[inline]
    pub(crate) fn prefetch_word(&self, word: Word) {
        prefetch(self.region.word(word).cast());
    }

    /// `len` bytes from the ring's byte `at` on, cut at the ring's end.
    #[inline]
    pub(crate) fn bytes(&self, at: u64, len: usize) -> VolatileBytes<'_> {
        let (start, within) = self.region.ring(at, len);
        debug_assert_eq!(len, within, "records were checked to end within the ring");
        // SAFETY: contract of `VolatileBytes::new`: `Region::ring` cuts the range to the ring, and the borrow of `self` keeps
        // the mapping.
        unsafe { VolatileBytes::new(start.as_ptr(), within, PhantomData) }
    }
}

impl fmt::Debug for PeerRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerRegion").field(&self.region.geometry).finish()
    }
}
