//! The file behind a region. Ours is created, allocated, sealed and tested here; the peer's is checked before it is mapped.
//!
//! Invariant: a descriptor of ours leaves this module only after the kernel has refused another writable mapping of it. A
//! peer's region leaves it only dense, sealed, and of the announced size.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering::Relaxed,
};

use ::memfd::FileSeal;
use rustix::fs::{OFlags, SealFlags};

use crate::{
    error::{Error, Reason, Refusal, Result, SealError},
    memory::memfd::{self, FileInfo, HUGE_PAGE, POPULATE_STEP},
    protocol::layout::{Geometry, Owner, Word, to_u64},
    sys::{
        own_region::{ControlPage, OwnRing, map_own, try_writable},
        peer_region::{MapError, PeerRegion, UncheckedRegion},
    },
    wait::Deadline,
};

/// The seals of our region: no resizing, no further writable mapping, no further seals (`F_ADD_SEALS`, `fcntl(2)`; Linux
/// 5.1).
const OUR_SEALS: [FileSeal; 4] =
    [FileSeal::SealShrink, FileSeal::SealGrow, FileSeal::SealFutureWrite, FileSeal::SealSeal];
/// The seals that a peer's region must have: the same ones.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Our own region, mapped writable.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    /// The descriptor for the peer. Closed when both sides have mapped the region.
    pub(crate) memfd: OwnedFd,
    pub(crate) geometry: Geometry,
    pub(crate) ring: OwnRing,
    pub(crate) words: ControlPage,
}

fn page_size(huge_pages: bool) -> usize {
    if huge_pages { HUGE_PAGE } else { rustix::param::page_size() }
}

impl OwnRegion {
    /// Creates a region with a ring of at least `capacity` bytes (rounded up to a page; 0 for none).
    ///
    /// All pages are allocated here and charged to this process, so that no later access of either side fails. Where the
    /// system allows it for shared memory, they are transparent huge pages. `prefault` prepares them for
    /// [`populate`](Self::populate).
    ///
    /// # Errors
    /// [`Error::Timeout`] if the deadline passes between two pieces; [`Error::RingTooLarge`], [`Error::Io`].
    pub(crate) fn create(
        capacity: usize,
        prefault: bool,
        huge_pages: bool,
        deadline: Deadline,
    ) -> Result<Self> {
        let page = page_size(huge_pages);
        let geometry = Geometry::new(capacity, page)?;
        let memfd = memfd::without_pages(geometry.size(), huge_pages)?;
        let (ring, words) = map_own(memfd.as_file().as_fd(), geometry).map_err(Error::io("mmap"))?;
        for piece in memfd::pieces(geometry.size()) {
            if piece.start > 0 && deadline.passed() {
                return Err(Error::Timeout);
            }
            if !huge_pages {
                piece.clone().step_by(HUGE_PAGE).for_each(|at| words.allocate_huge(at));
            }
            memfd::allocate(&memfd, piece, page, prefault, deadline)?;
        }
        // A new receiver is armed, so that an event loop may wait before the first `try_recv`.
        words.word(Word::ReceiverEpoch).store(1, Relaxed);
        memfd::seal(&memfd, &OUR_SEALS).map_err(Error::io("fcntl(F_ADD_SEALS)"))?;
        let memfd = memfd::into_fd(memfd);
        match try_writable(memfd.as_fd(), geometry.size()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(Error::io("mmap of a sealed memfd")(error)),
            // The kernel must refuse what the peer would do: otherwise a loan would be no `&mut`.
            Ok(()) => {
                let why = "this kernel maps a sealed memfd writable";
                return Err(Error::io("fcntl(F_ADD_SEALS)")(io::Error::new(io::ErrorKind::Unsupported, why)));
            }
        }
        Ok(Self { memfd, geometry, ring, words })
    }

    /// Checks that a region with a ring of at least `capacity` bytes is within the limits. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::RingTooLarge`]; [`Error::Io`] that names a limit of the machine or of this process.
    pub(crate) fn check(capacity: usize, huge_pages: bool) -> Result<()> {
        memfd::check_size(Geometry::new(capacity, page_size(huge_pages))?.size())
    }

    /// Says in the control page what the owner is, for tools that look at it from outside.
    pub(crate) fn describe(&self, owner: Owner) {
        self.words.word(Word::Capacity).store(to_u64(self.geometry.capacity), Relaxed);
        self.words.word(Word::Owner).store(owner.code(), Relaxed);
    }

    /// Fills our page tables, so that no later touch faults.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the deadline passes between two pieces; those of `madvise(2)`.
    pub(crate) fn populate(&self, deadline: Deadline) -> Result<()> {
        for piece in memfd::pieces(self.geometry.size()) {
            if piece.start > 0 && deadline.passed() {
                return Err(Error::Timeout);
            }
            self.words.populate(piece).map_err(Error::io("madvise(MADV_POPULATE_READ)"))?;
        }
        Ok(())
    }
}

/// The reason for which a peer's offer is not accepted.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// A fault of the peer's, which the peer is to read.
    Refused(Refusal),
    /// A failure of ours, or an end that the peer has made.
    Failed(Error),
}

impl From<Refusal> for Unfit {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A fault of a file, in the terms of the handshake.
fn refusal(fault: SealError) -> Refusal {
    let (reason, expected, found) = match fault {
        SealError::Kind { expected, found } => (Reason::RegionKind, expected.into(), found.into()),
        SealError::Access { found } => (Reason::RegionAccess, OFlags::RDONLY.bits().into(), found.into()),
        SealError::Seals { expected, found } => (Reason::RegionSeals, expected.into(), found.into()),
        SealError::TooLarge { max, found } => (Reason::RegionSize, max, found),
        SealError::Holes { expected, found } => (Reason::RegionHoles, expected, found),
    };
    Refusal { reason, expected, found }
}

/// A file that the peer sent as its region, checked and not yet fully mapped.
pub(crate) struct Offered {
    memfd: OwnedFd,
    geometry: Geometry,
    region: Option<UncheckedRegion>,
}

impl Offered {
    /// Checks the file that the peer sent, without mapping it.
    ///
    /// UNTRUSTED: `memfd` may be anything. None of the calls blocks.
    ///
    /// # Errors
    /// A refusal if the file is not what `geometry` says; [`Error::Io`] for failures of this process.
    pub(crate) fn examine(memfd: OwnedFd, geometry: Geometry) -> Result<Self, Unfit> {
        let info = FileInfo::of(memfd.as_fd()).map_err(Error::io("fstat"))?;
        let size = to_u64(geometry.size());
        info.check(SEALS, size..=size).map_err(refusal)?;
        // The kernel rounds mappings up to the file's pages: a region that is not aligned to them would reach past its size.
        if geometry.offset != info.page || !geometry.capacity.is_multiple_of(info.page) {
            let found = if geometry.offset == info.page { geometry.capacity } else { geometry.offset };
            let (reason, expected) = (Reason::Geometry, to_u64(info.page));
            return Err(Refusal { reason, expected, found: to_u64(found) }.into());
        }
        Ok(Self { memfd, geometry, region: None })
    }

    /// Maps the file read-only and populates [`POPULATE_STEP`] bytes of it. Returns the region after the last piece;
    /// `prefault` leaves its page tables filled.
    ///
    /// UNTRUSTED: the peer may free the file's pages meanwhile. A piece with a hole has at most its own length charged to us.
    ///
    /// # Errors
    /// Those of [`examine`](Self::examine). The offer is of no use after one.
    pub(crate) fn map_peer(&mut self, prefault: bool) -> Result<Option<PeerRegion>, Unfit> {
        let fd = self.memfd.as_fd();
        let mut region = match self.region.take() {
            Some(region) => region,
            None => UncheckedRegion::map(fd, self.geometry).map_err(Error::io("mmap"))?,
        };
        match region.populate(fd, POPULATE_STEP) {
            Ok(true) => {
                let region = region.finish(prefault).map_err(Error::io("madvise"))?;
                Ok(Some(region))
            }
            Ok(false) => {
                self.region = Some(region);
                Ok(None)
            }
            Err(MapError::Hole { dense }) => {
                let (expected, found) = (to_u64(self.geometry.size()), to_u64(dense));
                Err(refusal(SealError::Holes { expected, found }).into())
            }
            Err(MapError::Failed(error)) => Err(Error::io("madvise(MADV_POPULATE_READ)")(error).into()),
        }
    }
}

/// Checks and maps a whole file at once.
#[cfg(test)]
pub(crate) fn map_peer(memfd: impl AsFd, geometry: Geometry, prefault: bool) -> Result<PeerRegion, Unfit> {
    let mut offered = Offered::examine(memfd.as_fd().try_clone_to_owned().unwrap(), geometry)?;
    loop {
        if let Some(region) = offered.map_peer(prefault)? {
            return Ok(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{FallocateFlags, fallocate, fcntl_add_seals};

    use super::*;
    use crate::memory::memfd::foreign_file;

    fn unsealed(size: u64, dense: bool) -> OwnedFd {
        foreign_file(size, dense, SealFlags::empty())
    }

    fn create(capacity: usize, prefault: bool) -> OwnRegion {
        OwnRegion::create(capacity, prefault, false, Deadline::Never).unwrap()
    }

    fn refusal(fd: impl AsFd, geometry: Geometry) -> Refusal {
        match map_peer(fd.as_fd(), geometry, true) {
            Err(Unfit::Refused(refusal)) => refusal,
            other => panic!("a refusal was expected: {other:?}"),
        }
    }

    fn reason(fd: impl AsFd, geometry: Geometry) -> Reason {
        refusal(fd, geometry).reason
    }

    const SMALL: Geometry = Geometry { offset: 4096, capacity: 4096 };

    #[test]
    fn our_own_region_is_accepted_and_its_words_are_seen() {
        for capacity in [0, 1, 4096, 1 << 20] {
            for prefault in [false, true] {
                let own = create(capacity, prefault);
                let peer = map_peer(own.memfd.as_fd(), own.geometry, prefault).unwrap();
                own.words.word(Word::Head).store(64, Relaxed);
                assert_eq!(peer.load(Word::Head), 64);
                assert_eq!(peer.capacity(), own.geometry.capacity);
            }
        }
    }

    #[test]
    fn writes_end_with_the_ring() {
        for capacity in [4096, 12288] {
            let mut own = create(capacity, true);
            let peer = map_peer(own.memfd.as_fd(), own.geometry, true).unwrap();
            let end = to_u64(capacity);
            let bytes: Vec<u8> = (0..=255).collect();
            assert!(own.ring.write(end - 256, &bytes));
            assert_eq!(peer.bytes(end - 256, 256).to_vec::<u8>().unwrap(), bytes);
            assert_eq!(peer.bytes(end - 128, 128).to_vec::<u8>().unwrap(), bytes[128..]);
            assert!(own.ring.write(0, &vec![7; capacity]), "as long as the ring");
            assert_eq!(peer.bytes(0, capacity).to_vec::<u8>().unwrap(), vec![7; capacity]);
            assert!(own.ring.write(end, &[]), "nothing, at the end");
            for (at, len) in [(0, capacity + 1), (end - 255, 256), (end, 1), (end + 1, 1), (u64::MAX, 1)] {
                assert!(!own.ring.write(at, &vec![1; len]), "{len} bytes at {at}");
                assert!(own.ring.slot::<u8>(at, len).is_none(), "{len} bytes at {at}");
            }
            assert!(own.ring.slot::<u64>(4, 1).is_none(), "misaligned");
            assert!(own.ring.slot::<u64>(0, usize::MAX).is_none());
        }
    }

    /// The control page is not the ring's: what is written past the end does not come round to it.
    #[test]
    #[should_panic(expected = "within the ring")]
    #[cfg(debug_assertions)]
    fn reads_end_with_the_ring() {
        let own = create(4096, true);
        let peer = map_peer(own.memfd.as_fd(), own.geometry, true).unwrap();
        let _ = peer.bytes(4096 - 64, 65);
    }

    #[test]
    fn invalid_regions_are_refused_by_name() {
        assert_eq!(reason(rustix::pipe::pipe().unwrap().0, SMALL), Reason::RegionKind);
        assert_eq!(reason(std::fs::File::open("/dev/null").unwrap(), SMALL), Reason::RegionKind);
        assert_eq!(reason(tempfile::tempfile().unwrap(), SMALL), Reason::RegionSeals);
        assert_eq!(reason(unsealed(8192, true), SMALL), Reason::RegionSeals);
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let memfd = foreign_file(8192, true, SEALS.difference(missing));
            assert_eq!(reason(memfd, SMALL), Reason::RegionSeals, "without {missing:?}");
        }
        for size in [0, 4096, 8191, 8193, 1 << 20] {
            assert_eq!(reason(foreign_file(size, true, SEALS), SMALL), Reason::RegionSize, "of {size} bytes");
        }
        assert_eq!(reason(foreign_file(8192, false, SEALS), SMALL), Reason::RegionHoles);
        // The hole is found before anything is mapped, so that the number is exact and no page was allocated.
        let half = unsealed(8192, false);
        fallocate(&half, FallocateFlags::empty(), 0, 4096).unwrap();
        fcntl_add_seals(&half, SEALS).unwrap();
        let refused = refusal(half, SMALL);
        assert_eq!(refused, Refusal { reason: Reason::RegionHoles, expected: 8192, found: 4096 });
        // Pages beyond the end count as allocated, and hide holes.
        let disguised = unsealed(8192, false);
        fallocate(&disguised, FallocateFlags::KEEP_SIZE, 8192, 8192).unwrap();
        fcntl_add_seals(&disguised, SEALS).unwrap();
        assert_eq!(reason(disguised, SMALL), Reason::RegionHoles);
        let shifted = foreign_file(12288, true, SEALS);
        let refused = refusal(shifted, Geometry { offset: 8192, capacity: 4096 });
        assert_eq!(refused, Refusal { reason: Reason::Geometry, expected: 4096, found: 8192 });
        let uneven = foreign_file(4096 + 64, true, SEALS);
        let refused = refusal(uneven, Geometry { offset: 4096, capacity: 64 });
        assert_eq!(refused, Refusal { reason: Reason::Geometry, expected: 4096, found: 64 });
    }

    /// This test is the reason for which a kernel that ignores the seals would be refused; no such kernel is available.
    #[test]
    fn trying_to_map_tells_a_sealed_file_from_one_that_is_not() {
        let memfd = unsealed(8192, true);
        try_writable(memfd.as_fd(), 8192).unwrap();
        fcntl_add_seals(&memfd, SEALS).unwrap();
        let refused = try_writable(memfd.as_fd(), 8192).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
