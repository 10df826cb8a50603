//! Shared memory in this process's address space: our own region, writable, the peer's, read-only, and sealed files.
//!
//! Both regions have the control page first and the ring twice in a row behind it, so that a record never wraps. Our ring is
//! written through its one [`RingWriter`]; the words of our control page are atomics; the peer's region is only ever
//! read, by [`Foreign`] loads.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::{
    fmt, io,
    marker::PhantomData,
    mem::{ManuallyDrop, align_of, size_of},
    ops::Range,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{SealFlags, fcntl_get_seals, fstat},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
};
use zerocopy::{FromBytes, IntoBytes};

use super::foreign::Foreign;
use crate::{
    protocol::layout::{Geometry, LINE, Word, to_usize},
    wait::lock_unless_lost,
};

/// A region's place in this process: `geometry.size() + geometry.capacity` bytes from `base`, unmapped with the last clone.
///
/// Invariant: the whole of it is mapped to the region's file (the ring twice), as long as `_area` lives, and readable;
/// `geometry.offset` is the file's page and `geometry.capacity` 0 or a power of two and a multiple of it. A forked child
/// inherits the mapping and the value together, so all of this is true there too.
#[derive(Clone)]
struct Mapping {
    base: NonNull<u8>,
    geometry: Geometry,
    _area: Arc<Area>,
}

// SAFETY: the mapping belongs to the process, not to a thread; all access goes through the types below, which say who
// may write what.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`: a shared `Mapping` gives out atomics, foreign loads, and nothing else.
unsafe impl Sync for Mapping {}

/// How often a place is looked for that another thread takes before it is used.
const PLACES: u32 = 64;
/// Whose turn it is to look for a place and take it.
static TURN: Mutex<()> = Mutex::new(());

impl Mapping {
    /// Maps the file and, behind it, its ring once more. If that fails nothing is left behind.
    fn new(
        fd: BorrowedFd<'_>,
        geometry: Geometry,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        let Geometry { offset, capacity } = geometry;
        let size = geometry.size();
        let len = size.saturating_add(capacity);
        // The kernel gives all threads the same room: so one of them at a time. A fork that cannot lock tries more often.
        let _turn = lock_unless_lost(&TURN);
        for _ in 0..PLACES {
            let base = find_place(len, offset)?;
            let place = |at: *mut u8, len, from| Area::at(at, fd, len, protection, flags, from);
            let Some(mut area) = place(base, size, 0)? else { continue };
            if capacity > 0 {
                let Some(second) = place(base.wrapping_add(size), capacity, offset)? else { continue };
                area.join(second);
            }
            // A core dump would hold all of it, the ring twice.
            area.advise(Advice::LinuxDontDump)?;
            return Ok(Self { base: area.base, geometry, _area: Arc::new(area) });
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other threads map memory wherever there is room"))
    }

    fn len(&self) -> usize {
        self.geometry.size().saturating_add(self.geometry.capacity)
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        self.advise_part(0, self.len(), advice)
    }

    /// Of `len` bytes from `from` on, as far as they are of this mapping.
    fn advise_part(&self, from: usize, len: usize, advice: Advice) -> io::Result<()> {
        let len = len.min(self.len().saturating_sub(from));
        if len == 0 {
            return Ok(());
        }
        let at = self.base.as_ptr().wrapping_add(from).cast();
        // SAFETY: the range is within this mapping; none of the advices used here changes what it holds.
        unsafe { madvise(at, len, advice) }.map_err(short_of_memory)
    }

    /// Address of the word, which lies in the control page whatever `word` is.
    #[inline]
    fn word(&self, word: Word) -> NonNull<AtomicU64> {
        const { assert!(Word::Origin.offset() < 4096) };
        // SAFETY: every `Word`'s offset is below the smallest page, which is mapped.
        unsafe { self.base.byte_add(word.offset()) }.cast()
    }

    /// Address of `len` bytes of the ring from `position` on, contiguous because the ring is mapped twice.
    #[inline]
    fn ring(&self, position: u64, len: usize) -> Option<NonNull<u8>> {
        let Geometry { offset, capacity } = self.geometry;
        if len > capacity || capacity == 0 {
            return None;
        }
        let at = offset.wrapping_add(to_usize(position) & capacity.wrapping_sub(1));
        // SAFETY: `at + len <= offset + 2 * capacity`, the end of the mapping: `at < offset + capacity` by the mask, and
        // `len <= capacity` was checked.
        Some(unsafe { self.base.byte_add(at) })
    }
}

/// An address, a multiple of `page`, from which `len` bytes are free: as the kernel sees it at this moment.
fn find_place(len: usize, page: usize) -> io::Result<*mut u8> {
    let reserved = len.saturating_add(page);
    // SAFETY: a new anonymous mapping at an address that the kernel chooses disturbs nothing.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE) }
        .map_err(too_much)?;
    // SAFETY: exactly what was just mapped, known to nobody else.
    unsafe { munmap(start, reserved) }?;
    // A page more than is needed was free: so the multiple above the start will do.
    Ok(start.cast::<u8>().map_addr(|start| start.checked_next_multiple_of(page).unwrap_or(start)))
}

/// The error of an `mmap(2)`: what it calls `EAGAIN` is no passing state, but a limit.
fn too_much(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => {
            let limit = "more than may be locked in memory (RLIMIT_MEMLOCK, getrlimit(2))";
            io::Error::new(io::ErrorKind::OutOfMemory, limit)
        }
        error => error.into(),
    }
}

/// The error of a `madvise(2)`, which says `EAGAIN` where the kernel is short of memory.
fn short_of_memory(error: Errno) -> io::Error {
    if error == Errno::AGAIN { Errno::NOMEM.into() } else { error.into() }
}

/// Asks the processor for the line at `at`, and the translation of its address.
#[inline]
fn expect<T>(at: NonNull<T>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which changes nothing that a program can see.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().cast_const().cast());
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Maps our own region, writable. The pages must be allocated already.
///
/// # Errors
/// Those of `mmap(2)` and `madvise(2)`.
pub(crate) fn map_own(fd: BorrowedFd<'_>, geometry: Geometry) -> io::Result<(RingWriter, OwnWords)> {
    let mapping = Mapping::new(fd, geometry, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
    Ok((RingWriter { mapping: mapping.clone() }, OwnWords { mapping }))
}

/// Tries a further writable shared mapping of `len` bytes: the kernel must refuse it once the region is sealed.
///
/// # Errors
/// What `mmap(2)` says; `Ok` means that the region is not protected.
pub(crate) fn try_writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let at =
        unsafe { mmap(ptr::null_mut(), len, ProtFlags::WRITE, MapFlags::SHARED, fd, 0) }.map_err(too_much)?;
    // SAFETY: just mapped, known to nobody else.
    unsafe { munmap(at, len) }?;
    Ok(())
}

/// The words of our own control page. Who may store to which is told by [`Word`]; being atomics, they need no more.
#[derive(Clone)]
pub(crate) struct OwnWords {
    mapping: Mapping,
}

impl OwnWords {
    #[inline]
    pub(crate) fn word(&self, word: Word) -> &AtomicU64 {
        let at = self.mapping.word(word);
        // SAFETY: contract of `NonNull::as_ref`:
        // 1. aligned, mapped, initialised (zero pages): `Mapping::word`, and all offsets are multiples of 8;
        // 2. in this process only accessed atomically while borrowed: `OwnWords` is the only way to the control page of our
        //    own region. The peer cannot write there; the stores of a fork, which can, are like those of another thread.
        unsafe { at.as_ref() }
    }

    /// Fills the page tables of `len` bytes of the region from `from` on, so that no later touch faults. False where there
    /// are none: `from` is its end, or behind it.
    pub(crate) fn populate(&self, from: usize, len: usize) -> io::Result<bool> {
        self.mapping.advise_part(from, len, Advice::LinuxPopulateWrite)?;
        Ok(from < self.mapping.len())
    }
}

/// The one writer of our ring in this process. There is one per region; it cannot be cloned. A fork inherits a
/// copy: a program that forks must not use both.
pub(crate) struct RingWriter {
    mapping: Mapping,
}

impl RingWriter {
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.mapping.geometry.capacity
    }

    /// Lends `count` values at `position`; `None` if they are longer than the ring, or misaligned.
    #[inline]
    pub(crate) fn slot<T: FromBytes + IntoBytes>(
        &mut self,
        position: u64,
        count: usize,
    ) -> Option<Slot<'_, T>> {
        const { assert!(size_of::<T>() > 0, "a type without a size cannot be lent") };
        const { assert!(align_of::<T>() <= to_usize(LINE), "payloads are aligned to 64 bytes, no more") };
        let at = self.mapping.ring(position, count.checked_mul(size_of::<T>())?)?.cast::<T>();
        if !at.is_aligned() {
            return None;
        }
        settle(&self.mapping);
        Some(Slot { at, count, ring: self })
    }

    /// Writes one value at `position`. False if it is longer than the ring, or misaligned.
    #[must_use]
    #[inline]
    pub(crate) fn put<T: FromBytes + IntoBytes>(&mut self, position: u64, value: T) -> bool {
        let Some(mut slot) = self.slot::<T>(position, 1) else {
            return false;
        };
        if let [place] = slot.as_mut_slice() {
            *place = value;
        }
        slot.finish();
        true
    }

    /// Writes `bytes` at `position`. False if they are longer than the ring.
    #[must_use]
    pub(crate) fn write(&mut self, position: u64, bytes: &[u8]) -> bool {
        let Some(mut slot) = self.slot::<u8>(position, bytes.len()) else {
            return false;
        };
        slot.as_mut_slice().copy_from_slice(bytes);
        slot.finish();
        true
    }
}

/// The ring's bytes have two names. Where one name's use ends and the other's may begin, the compiler must forget what
/// it knows of them: without this a release build was seen to return stale bytes.
#[inline]
fn settle(mapping: &Mapping) {
    // SAFETY: an empty instruction. That it takes the address and may touch memory is all that it is for.
    unsafe { std::arch::asm!("/* {0} */", in(reg) mapping.base.as_ptr(), options(nostack, preserves_flags)) };
}

/// A part of our ring, lent for writing. While it lives nothing else can reach the ring: it holds the [`RingWriter`].
///
/// Invariant: `at` is aligned and valid for `count` values, within `ring`'s mapping.
pub(crate) struct Slot<'r, T> {
    at: NonNull<T>,
    count: usize,
    ring: &'r mut RingWriter,
}

// SAFETY: a `Slot` is a `&mut [T]` and a `&mut RingWriter`, which are `Send` where `T` is.
unsafe impl<T: Send> Send for Slot<'_, T> {}
// SAFETY: a shared `Slot` gives a `&[T]`.
unsafe impl<T: Sync> Sync for Slot<'_, T> {}

impl<'r, T> Slot<'r, T> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: contract of `from_raw_parts`:
        // 1. valid and aligned: the invariant of `Slot`; any bytes are a `T`, which is `FromBytes` (see `slot`);
        // 2. not written meanwhile: the region is sealed against the peer and against a second writable mapping, so in this
        //    process only `self.ring` can write it, which is borrowed. A fork has inherited the mapping: the program
        //    that forks promises that only one of the two processes uses its copy (as to `pre_exec` of the standard library).
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }

    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; unique, because `self` is borrowed uniquely. The bytes written are initialised, as `T`
        // is `IntoBytes` and so has no padding.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.count) }
    }

    /// Keeps the first `count` values.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }

    /// The ring, for as long as `self` is not looked at: to write what goes around the slot.
    pub(crate) fn ring(&mut self) -> &mut RingWriter {
        settle(&self.ring.mapping);
        self.ring
    }

    /// Ends the loan.
    #[inline]
    pub(crate) fn finish(self) -> &'r mut RingWriter {
        settle(&self.ring.mapping);
        self.ring
    }
}

/// Why a file that somebody else made is not mapped.
#[derive(Debug)]
pub(crate) enum Unmapped {
    /// A system call failed.
    Failed(io::Error),
    /// There is a hole within the step that follows so many bytes.
    Hole { dense: usize },
}

impl<E: Into<io::Error>> From<E> for Unmapped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Bytes that are populated between two looks at what is allocated.
const STEP: usize = 64 << 10;

/// Fills the page tables of a part of a mapping of `fd` for reading, and sees that nothing is allocated for that, beyond
/// what was `allocated` when the file was first looked at (`st_blocks`, `fstat(2)`): a hole would be filled, at our expense. What a file has allocated does not say where, as it may have pages beyond
/// its end (`FALLOC_FL_KEEP_SIZE`, `fallocate(2)`) and free them at any moment; so each step is looked at. They are small,
/// since the one that finds a hole has paid for it.
///
/// It does not cut such pages off: `ftruncate(2)` waits for the file's lock, and before Linux 6.16 a peer that writes to
/// the file, from memory whose faults it does not answer, holds that for as long as it likes, sealed or not.
fn populate_dense(
    fd: BorrowedFd<'_>,
    base: NonNull<u8>,
    part: Range<usize>,
    allocated: i64,
) -> Result<(), Unmapped> {
    let mut dense = part.start;
    while dense < part.end {
        let (at, step) = (base.as_ptr().wrapping_add(dense), STEP.min(part.end.wrapping_sub(dense)));
        // SAFETY: the callers have mapped all of `part` from `base` on, and reading changes nothing that they hold.
        match unsafe { madvise(at.cast(), step, Advice::LinuxPopulateRead) } {
            Ok(()) => {}
            // A page that cannot be had, of huge ones for instance, or that the machine has lost.
            Err(Errno::FAULT | Errno::HWPOISON) => return Err(Unmapped::Hole { dense }),
            Err(error) => return Err(short_of_memory(error).into()),
        }
        if fstat(fd)?.st_blocks != allocated {
            return Err(Unmapped::Hole { dense });
        }
        dense = dense.wrapping_add(step);
    }
    Ok(())
}

/// The peer's region while it is not known yet whether it has holes: populated piece by piece, as large ones take long.
pub(crate) struct UncheckedRegion {
    mapping: Mapping,
    /// `st_blocks` before anything was populated.
    allocated: i64,
    /// So many bytes are known to be dense.
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
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        Ok(Self { mapping: Mapping::new(fd, geometry, ProtFlags::READ, flags)?, allocated, dense: 0 })
    }

    /// Populates the next piece, of at most `len` bytes. True if it was the last.
    ///
    /// # Errors
    /// A hole; those of `madvise(2)` and `fstat(2)`.
    pub(crate) fn populate(&mut self, fd: BorrowedFd<'_>, len: usize) -> Result<bool, Unmapped> {
        let end = self.dense.saturating_add(len).min(self.mapping.len());
        populate_dense(fd, self.mapping.base, self.dense..end, self.allocated)?;
        self.dense = end;
        Ok(end == self.mapping.len())
    }

    /// The region, once all of it has been populated; `keep` leaves the page tables filled.
    ///
    /// # Errors
    /// Those of `madvise(2)`.
    pub(crate) fn finish(self, keep: bool) -> io::Result<PeerRegion> {
        if !keep {
            // Of a shared mapping that takes nothing but entries of page tables.
            self.mapping.advise(Advice::LinuxDontNeed)?;
        }
        Ok(PeerRegion { mapping: self.mapping })
    }
}

/// The peer's region. Nothing in it is believed and nothing of it is borrowed.
#[derive(Clone)]
pub(crate) struct PeerRegion {
    mapping: Mapping,
}

impl PeerRegion {
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.mapping.geometry.capacity
    }

    /// Loads a word, relaxed.
    #[inline]
    pub(crate) fn load(&self, word: Word) -> u64 {
        let at = self.mapping.word(word);
        // SAFETY: contract of `AtomicU64::from_ptr`: mapped and aligned (`Mapping::word`), and within this process only
        // loaded atomically. Relaxed loads of 8 bytes are allowed on read-only memory (`core::sync::atomic`); another
        // process's stores are like those of another thread.
        let word = unsafe { AtomicU64::from_ptr(at.as_ptr().cast()) };
        word.load(Ordering::Relaxed)
    }

    /// Asks the processor for the line at `position`, to be read soon: it is in another one's cache.
    #[inline]
    pub(crate) fn expect_read(&self, position: u64) {
        if let Some(at) = self.mapping.ring(position, 1) {
            expect(at);
        }
    }

    /// Asks the processor for the line of `word`, to be loaded soon: where there are many channels it is in no cache.
    #[inline]
    pub(crate) fn expect_word(&self, word: Word) {
        expect(self.mapping.word(word));
    }

    /// `len` bytes of the ring from `position` on; `None` if that is more than the ring.
    #[inline]
    pub(crate) fn bytes(&self, position: u64, len: usize) -> Option<Foreign<'_>> {
        let at = self.mapping.ring(position, len)?;
        // SAFETY: contract of `Foreign::new`: `Mapping::ring` checked the range, and the borrow of `self` keeps the
        // mapping.
        Some(unsafe { Foreign::new(at.as_ptr(), len, PhantomData) })
    }
}

/// Addresses that are ours, and what is mapped there: `len` bytes from `base`, unmapped on drop. Nothing is if there are none.
struct Area {
    base: NonNull<u8>,
    len: usize,
}

/// As aligned as a mapping is.
#[repr(align(4096))]
struct Page;

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Area {}
// SAFETY: as for `Send`: a shared `Area` gives nothing out.
unsafe impl Sync for Area {}

impl Area {
    /// A mapping of a whole file.
    fn new(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { base: NonNull::<Page>::dangling().cast(), len });
        }
        // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, 0) }.map_err(too_much)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let area = Self { base, len };
        area.advise(Advice::LinuxDontDump)?;
        Ok(area)
    }

    /// A mapping of `len` bytes of a file, a multiple of its pages, at `at`; `None` if something is mapped there.
    fn at(
        at: *mut u8,
        fd: BorrowedFd<'_>,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
        from: usize,
    ) -> io::Result<Option<Self>> {
        let from = u64::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Not `MAP_FIXED`, which would replace what another thread may have mapped there, and which may leave a hole when
        // it fails, in a reservation that could then never be given back.
        let flags = flags | MapFlags::FIXED_NOREPLACE;
        // SAFETY: a new mapping where the kernel finds nothing disturbs nothing (`MAP_FIXED_NOREPLACE`, `mmap(2)`; Linux
        // 4.17).
        let base = match unsafe { mmap(at.cast(), len, protection, flags, fd, from) } {
            Ok(base) => NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?,
            Err(Errno::EXIST) => return Ok(None),
            Err(error) => return Err(too_much(error)),
        };
        let area = Self { base, len };
        // A kernel that does not know the flag takes the address for a wish.
        Ok((area.base.as_ptr() == at).then_some(area))
    }

    /// Takes in `next`, which begins where this one ends.
    fn join(&mut self, next: Self) {
        self.len = self.len.saturating_add(ManuallyDrop::new(next).len);
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        if self.len > 0 {
            // SAFETY: the range is exactly this mapping; none of the advices used here changes what it holds.
            unsafe { madvise(self.base.as_ptr().cast(), self.len, advice) }.map_err(short_of_memory)?;
        }
        Ok(())
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: exactly what `new` or `at` mapped, in this process or in the one that it was forked from with the mapping;
            // and what borrows from it holds an `Arc` of it, or a lifetime within it. There is no way to report an error, and
            // none is possible on a whole mapping.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

/// A file that only this process can write, and those forked from it, mapped writable: fresh, and never handed out while
/// this lives.
pub(crate) struct Draft(Area);

impl Draft {
    /// Maps `fd`, a fresh memfd of `len` bytes.
    ///
    /// # Errors
    /// Those of `mmap(2)` and `madvise(2)`.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Area::new(fd, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED).map(Self)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: as in `as_mut_slice`, for reading.
        unsafe { slice::from_raw_parts(self.0.base.as_ptr(), self.0.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: contract of `from_raw_parts_mut`:
        // 1. valid and initialised: mapped for `len` bytes of zero pages, as long as `self` lives;
        // 2. unique in this process: the file is fresh and its keeper (`SealedBufferMut`) hands it out only after this is
        //    dropped. A fork has inherited the mapping: as in `Slot::as_slice`.
        unsafe { slice::from_raw_parts_mut(self.0.base.as_ptr(), self.0.len) }
    }
}

/// A file that nobody can change any more, mapped read-only.
pub(crate) struct Immutable(Area);

impl Immutable {
    /// The seals without which a file is not immutable.
    pub(crate) const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

    /// Maps `len` bytes of `fd`: private, as kernels before 6.7 refuse a shared mapping of a write-sealed file.
    ///
    /// # Errors
    /// A hole; `PermissionDenied` if the file lacks one of [`SEALS`](Self::SEALS) or is not of that length; those of
    /// `mmap(2)` and `madvise(2)`.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> Result<Self, Unmapped> {
        let stat = fstat(fd)?;
        if !fcntl_get_seals(fd)?.contains(Self::SEALS) || usize::try_from(stat.st_size) != Ok(len) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
        }
        // A private mapping of huge pages would reserve as many for us.
        let area = Area::new(fd, len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        populate_dense(fd, area.base, 0..len, stat.st_blocks)?;
        Ok(Self(area))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: contract of `from_raw_parts`:
        // 1. valid: mapped for `len` bytes as long as `self` lives, and the file cannot shrink (`map` has seen the seals);
        // 2. never written: `F_SEAL_WRITE` is given only to a file without writable mappings, and allows none, nor
        //    `write(2)` or punching holes, ever after, by anybody.
        unsafe { slice::from_raw_parts(self.0.base.as_ptr(), self.0.len) }
    }
}

impl fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RingWriter").field(&self.mapping.geometry).finish()
    }
}

impl fmt::Debug for OwnWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnWords").field(&self.mapping.geometry).finish()
    }
}

impl fmt::Debug for PeerRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerRegion").field(&self.mapping.geometry).finish()
    }
}
