//! The region's file: ours is made, allocated, sealed and tested here; the peer's is looked at before it is mapped.
//!
//! Invariant: a descriptor leaves this module only after the kernel has shown that it refuses a further writable
//! mapping, and a peer's region comes out of it only dense, sealed, and of the size that was announced.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering::Relaxed,
};

use ::memfd::FileSeal;
use rustix::{
    fs::{FileType, OFlags, SealFlags},
    io::Errno,
};

use crate::{
    error::{Error, Reason, Refusal, Result},
    memory::memfd::{self, Facts, HUGE_PAGE, STEP},
    protocol::layout::{Geometry, Word, to_u64},
    sys::{
        own_region::{OwnRing, OwnWords, map_own, try_writable},
        peer_region::{PeerRegion, UncheckedRegion, Unmapped},
    },
    wait::Deadline,
};

/// No resizing, no further writable mapping, no further seals (`F_ADD_SEALS`, `fcntl(2)`; Linux 5.1): what our region gets.
const OUR_SEALS: [FileSeal; 4] =
    [FileSeal::SealShrink, FileSeal::SealGrow, FileSeal::SealFutureWrite, FileSeal::SealSeal];
/// The same, without which a peer's region is refused.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

/// Our own region, mapped writable.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    /// To be sent to the peer, and closed when both have mapped it.
    pub(crate) memfd: OwnedFd,
    pub(crate) geometry: Geometry,
    pub(crate) ring: OwnRing,
    pub(crate) words: OwnWords,
}

impl OwnRegion {
    /// Makes a region with a ring of at least `capacity` bytes (rounded up to a page; 0 for none).
    ///
    /// All pages are allocated here, whatever `prefault` says, so that they are charged to this process and no later
    /// touch of ours or the peer's can fail; `prefault` fills the page tables too.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the deadline passes between two steps; [`Error::RingTooLarge`], [`Error::Io`].
    pub(crate) fn create(
        capacity: usize,
        prefault: bool,
        huge_pages: bool,
        deadline: Deadline,
    ) -> Result<Self> {
        let page = if huge_pages { HUGE_PAGE } else { rustix::param::page_size() };
        let geometry = Geometry::new(capacity, page)?;
        let memfd = memfd::create(geometry.size(), huge_pages, deadline)?;
        let (ring, words) =
            map_own(memfd.as_file().as_fd(), geometry).map_err(Error::io("mmap of our region"))?;
        // A new receiver is armed, so that an event loop may wait before it first looks.
        words.word(Word::ReceiverEpoch).store(1, Relaxed);
        let mut populated = 0;
        while prefault
            && words.populate(populated, STEP).map_err(Error::io("madvise(MADV_POPULATE_WRITE)"))?
        {
            populated = populated.saturating_add(STEP);
            if populated < geometry.size() && deadline.passed() {
                return Err(Error::Timeout);
            }
        }
        memfd::seal(&memfd, &OUR_SEALS).map_err(Error::io("fcntl(F_ADD_SEALS)"))?;
        let memfd = memfd::into_fd(memfd);
        match try_writable(memfd.as_fd(), geometry.size()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(Error::io("the test of a sealed region")(error)),
            Ok(()) => {
                return Err(Error::io("sealing (this kernel maps a sealed memfd writable)")(
                    Errno::OPNOTSUPP,
                ));
            }
        }
        Ok(Self { memfd, geometry, ring, words })
    }
}

/// Why what a peer offers is not taken.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is the peer's fault, and the peer learns of it.
    Refused(Refusal),
    /// We failed by ourselves, or the peer has ended it.
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

/// A file that the peer sent as its region, on its way to being one.
pub(crate) struct Offered {
    memfd: OwnedFd,
    geometry: Geometry,
    region: Option<UncheckedRegion>,
}

impl Offered {
    /// Looks at what the peer sent, without mapping it.
    ///
    /// UNTRUSTED: `memfd` may be anything. None of the calls blocks.
    ///
    /// # Errors
    /// A refusal if it is not what `geometry` says; what is no fault of the peer's as [`Error::Io`].
    pub(crate) fn examine(memfd: OwnedFd, geometry: Geometry) -> Result<Self, Unfit> {
        let refuse = |reason, expected, found| Err(Refusal { reason, expected, found }.into());
        let facts = Facts::of(memfd.as_fd()).map_err(Error::io("looking at the peer's region"))?;
        let Facts { access, kind, seals, size, page, allocated } = facts;
        if kind != FileType::RegularFile {
            let (expected, found) = (FileType::RegularFile.as_raw_mode(), kind.as_raw_mode());
            return refuse(Reason::RegionKind, expected.into(), found.into());
        }
        if !facts.is_readable() {
            return refuse(Reason::RegionAccess, OFlags::RDONLY.bits().into(), access.bits().into());
        }
        if !seals.contains(SEALS) {
            return refuse(Reason::RegionSeals, SEALS.bits().into(), seals.bits().into());
        }
        let expected = to_u64(geometry.size());
        if size != expected {
            return refuse(Reason::RegionSize, expected, size);
        }
        // Mappings are rounded up to the file's pages: what is not aligned to them would reach further than it says.
        if geometry.offset != page || !geometry.capacity.is_multiple_of(page) {
            let found = if geometry.offset == page { geometry.capacity } else { geometry.offset };
            return refuse(Reason::Geometry, to_u64(page), to_u64(found));
        }
        // Holes would be filled on first touch, by us and charged to us.
        if allocated < expected {
            return refuse(Reason::RegionHoles, expected, allocated);
        }
        Ok(Self { memfd, geometry, region: None })
    }

    /// Maps it read-only and populates a piece of it, [`STEP`] bytes. The region, if that was the last; `prefault` leaves the
    /// page tables filled.
    ///
    /// UNTRUSTED: the file's pages may be freed meanwhile. A piece that finds a hole has little memory charged to us.
    ///
    /// # Errors
    /// As [`examine`](Self::examine). After one there is nothing more to do.
    pub(crate) fn adopt(&mut self, prefault: bool) -> Result<Option<PeerRegion>, Unfit> {
        let fd = self.memfd.as_fd();
        let mut region = match self.region.take() {
            Some(region) => region,
            None => {
                UncheckedRegion::map(fd, self.geometry).map_err(Error::io("mmap of the peer's region"))?
            }
        };
        match region.populate(fd, STEP) {
            Ok(true) => {
                let region = region.finish(prefault).map_err(Error::io("madvise of the peer's region"))?;
                Ok(Some(region))
            }
            Ok(false) => {
                self.region = Some(region);
                Ok(None)
            }
            Err(Unmapped::Hole { dense }) => {
                let (expected, found) = (to_u64(self.geometry.size()), to_u64(dense));
                Err(Refusal { reason: Reason::RegionHoles, expected, found }.into())
            }
            Err(Unmapped::Failed(error)) => {
                Err(Error::io("madvise(MADV_POPULATE_READ) of the peer's region")(error).into())
            }
        }
    }
}

/// All of it at once.
#[cfg(test)]
pub(crate) fn adopt(memfd: impl AsFd, geometry: Geometry, prefault: bool) -> Result<PeerRegion, Unfit> {
    let mut offered = Offered::examine(memfd.as_fd().try_clone_to_owned().unwrap(), geometry)?;
    loop {
        if let Some(region) = offered.adopt(prefault)? {
            return Ok(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn unsealed(size: u64, dense: bool) -> OwnedFd {
        let memfd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memfd, size).unwrap();
        if dense && size > 0 {
            fallocate(&memfd, FallocateFlags::empty(), 0, size).unwrap();
        }
        memfd
    }

    fn create(capacity: usize, prefault: bool) -> OwnRegion {
        OwnRegion::create(capacity, prefault, false, Deadline::Never).unwrap()
    }

    fn refusal(fd: impl AsFd, geometry: Geometry) -> Refusal {
        match adopt(fd.as_fd(), geometry, true) {
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
                let peer = adopt(own.memfd.as_fd(), own.geometry, prefault).unwrap();
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
            let peer = adopt(own.memfd.as_fd(), own.geometry, true).unwrap();
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
        let peer = adopt(own.memfd.as_fd(), own.geometry, true).unwrap();
        let _ = peer.bytes(4096 - 64, 65);
    }

    #[test]
    fn what_is_no_region_is_refused_by_name() {
        assert_eq!(reason(rustix::pipe::pipe().unwrap().0, SMALL), Reason::RegionKind);
        assert_eq!(reason(std::fs::File::open("/dev/null").unwrap(), SMALL), Reason::RegionKind);
        assert_eq!(reason(tempfile::tempfile().unwrap(), SMALL), Reason::RegionSeals);
        assert_eq!(reason(unsealed(8192, true), SMALL), Reason::RegionSeals);
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let memfd = unsealed(8192, true);
            fcntl_add_seals(&memfd, SEALS.difference(missing)).unwrap();
            assert_eq!(reason(memfd, SMALL), Reason::RegionSeals, "without {missing:?}");
        }
        for size in [0, 4096, 8191, 8193, 1 << 20] {
            let memfd = unsealed(size, true);
            fcntl_add_seals(&memfd, SEALS).unwrap();
            assert_eq!(reason(memfd, SMALL), Reason::RegionSize, "of {size} bytes");
        }
        let sparse = unsealed(8192, false);
        fcntl_add_seals(&sparse, SEALS).unwrap();
        assert_eq!(reason(sparse, SMALL), Reason::RegionHoles);
        // Seen before anything is mapped: so all that is there is known, and nothing more was allocated.
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
        let shifted = unsealed(12288, true);
        fcntl_add_seals(&shifted, SEALS).unwrap();
        let refused = refusal(shifted, Geometry { offset: 8192, capacity: 4096 });
        assert_eq!(refused, Refusal { reason: Reason::Geometry, expected: 4096, found: 8192 });
        let uneven = unsealed(4096 + 64, true);
        fcntl_add_seals(&uneven, SEALS).unwrap();
        let refused = refusal(uneven, Geometry { offset: 4096, capacity: 64 });
        assert_eq!(refused, Refusal { reason: Reason::Geometry, expected: 4096, found: 64 });
    }

    /// What makes us refuse a kernel that does not keep the seals: such a kernel is not at hand.
    #[test]
    fn trying_to_map_tells_a_sealed_file_from_one_that_is_not() {
        let memfd = unsealed(8192, true);
        try_writable(memfd.as_fd(), 8192).unwrap();
        fcntl_add_seals(&memfd, SEALS).unwrap();
        let refused = try_writable(memfd.as_fd(), 8192).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
