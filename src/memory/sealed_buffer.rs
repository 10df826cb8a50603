//! [`SealedBuffer`]: immutable bytes behind a descriptor that any message can carry.

use std::{
    fmt,
    io::{self, Write},
    ops::{Deref, DerefMut},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use ::memfd::{FileSeal, Memfd};
use zerocopy::{FromBytes, Immutable as NoInterior, KnownLayout};

use crate::{
    error::{CastError, Error, Result, SealError},
    memory::memfd::{self, FileInfo},
    protocol::layout::{to_u64, to_usize},
    sys::{
        descriptor::above_stdio,
        peer_region::MapError,
        sealed::{SealedMapping, WritableMapping},
    },
};

/// Bytes of the largest buffer that `try_from` accepts: 64 MiB.
const LIMIT: u64 = 64 << 20;
/// The seals of our buffers: [`SealedMapping::SEALS`], and no further seals.
const SEALS: [FileSeal; 4] =
    [FileSeal::SealWrite, FileSeal::SealShrink, FileSeal::SealGrow, FileSeal::SealSeal];

/// A writable buffer of zeros, to be filled and then [sealed](Self::seal).
///
/// ```
/// use sealane::SealedBufferMut;
///
/// let mut table = SealedBufferMut::new(4)?;
/// table.copy_from_slice(&[1, 2, 3, 4]);
/// let table = table.seal()?;
/// assert_eq!(*table, [1, 2, 3, 4]);
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a buffer is of use once it is sealed"]
pub struct SealedBufferMut {
    // The first field, so that it is unmapped before the descriptor is closed or handed on.
    draft: WritableMapping,
    memfd: Memfd,
}

impl SealedBufferMut {
    /// Creates a buffer of `len` bytes, page-aligned. All its memory is allocated at once and charged to this process.
    ///
    /// # Errors
    /// [`Error::Io`], for instance without enough memory.
    pub fn new(len: usize) -> Result<Self> {
        let memfd = memfd::create(len)?;
        let draft = WritableMapping::map(memfd.as_file().as_fd(), len).map_err(Error::io("mmap"))?;
        Ok(Self { draft, memfd })
    }

    /// Makes the buffer immutable, for every process and for ever (`F_SEAL_WRITE`, `fcntl(2)`). While a fork of this process
    /// has the buffer too, the kernel refuses that: then a copy is sealed.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel refuses.
    pub fn seal(self) -> Result<SealedBuffer> {
        let Self { draft, mut memfd } = self;
        let len = draft.as_slice().len();
        // The kernel refuses the seal while a writable mapping exists.
        drop(draft);
        let mut sealed = memfd::seal(&memfd, &SEALS);
        if sealed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
            memfd = copy(&memfd, len)?;
            sealed = memfd::seal(&memfd, &SEALS);
        }
        sealed.map_err(Error::io("fcntl(F_ADD_SEALS)"))?;
        SealedBuffer::with_limit(memfd::into_fd(memfd), u64::MAX)
    }
}

/// Copies the bytes to a new file without a mapping, because a fork has mapped `memfd` writable.
fn copy(memfd: &Memfd, len: usize) -> Result<Memfd> {
    let draft = WritableMapping::map(memfd.as_file().as_fd(), len).map_err(Error::io("mmap"))?;
    let copy = memfd::create(len)?;
    copy.as_file().write_all(draft.as_slice()).map_err(Error::io("write"))?;
    Ok(copy)
}

impl Deref for SealedBufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.draft.as_slice()
    }
}

impl DerefMut for SealedBufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.draft.as_mut_slice()
    }
}

impl fmt::Debug for SealedBufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBufferMut").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// An immutable buffer: a memfd with `F_SEAL_WRITE`, mapped. A plain `&[u8]`, page-aligned.
///
/// Any message can carry its descriptor, and the receiver verifies that by `try_from`. The bytes are in memory once, however
/// many processes have them, which fits tables and tuning files for many peers. A clone shares the buffer.
///
/// ```
/// use sealane::{Channel, Control, SealedBuffer, SealedBufferMut};
///
/// let mut table = SealedBufferMut::new(1 << 20)?;
/// table.fill(7);
/// let table = table.seal()?;
///
/// let (mut a, mut b) = Channel::pair()?;
/// a.send(Control::new(b"the table").fd(&table))?;
///
/// let received = SealedBuffer::try_from(b.recv()?.take_fd().unwrap())?;
/// assert_eq!(received.len(), 1 << 20);
/// assert_eq!(received.slice_of::<u32>()?[5], 0x0707_0707);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Clone)]
pub struct SealedBuffer {
    shared: Arc<Shared>,
}

struct Shared {
    mapping: SealedMapping,
    memfd: OwnedFd,
}

impl SealedBuffer {
    /// Verifies and maps a received descriptor: a memfd of at most `max` bytes, sealed against writing and resizing, without
    /// holes. Does not block, whatever the descriptor is.
    ///
    /// # Errors
    /// [`Error::Sealed`] with what was expected and found; the descriptor is closed. [`Error::Io`] for failures of this
    /// process.
    pub fn with_limit(fd: OwnedFd, max: u64) -> Result<Self> {
        let fd = above_stdio(fd)?;
        let info = FileInfo::of(fd.as_fd()).map_err(Error::io("fstat"))?;
        info.check(SealedMapping::SEALS, 0..=max)?;
        let mapping =
            SealedMapping::map(fd.as_fd(), to_usize(info.size)).map_err(|unmapped| match unmapped {
                MapError::Failed(error) => Error::io("mmap")(error),
                // Pages beyond the end count as allocated, and had hidden the hole.
                MapError::Hole { dense } => {
                    SealError::Holes { expected: info.size, found: to_u64(dense) }.into()
                }
            })?;
        Ok(Self { shared: Arc::new(Shared { mapping, memfd: fd }) })
    }

    /// The bytes as values of `T`.
    ///
    /// # Errors
    /// [`CastError::Remainder`] if the bytes are no whole number of values.
    pub fn slice_of<T: FromBytes + KnownLayout + NoInterior>(&self) -> Result<&[T]> {
        const { assert!(align_of::<T>() <= 4096, "buffers are aligned to a page, no more") };
        let (size, found) = (size_of::<T>(), self.len());
        <[T]>::ref_from_bytes(self).map_err(|_| CastError::Remainder { size, found }.into())
    }
}

/// Accepts buffers of at most 64 MiB; see [`with_limit`](SealedBuffer::with_limit) for another limit.
impl TryFrom<OwnedFd> for SealedBuffer {
    type Error = Error;

    fn try_from(fd: OwnedFd) -> Result<Self> {
        Self::with_limit(fd, LIMIT)
    }
}

impl Deref for SealedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.shared.mapping.as_slice()
    }
}

/// The descriptor, for `Control::fd(&buffer)`.
impl AsFd for SealedBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.memfd.as_fd()
    }
}

impl fmt::Debug for SealedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};

    use super::*;
    use crate::memory::memfd::foreign_file;

    fn refused(fd: OwnedFd) -> SealError {
        match SealedBuffer::try_from(fd) {
            Err(Error::Sealed(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
        foreign_file(size, false, seals)
    }

    #[test]
    fn buffer_keeps_its_bytes_and_its_length() {
        for len in [0, 1, 4095, 4096, 100_000] {
            let mut draft = SealedBufferMut::new(len).unwrap();
            assert_eq!(*draft, vec![0; len]);
            draft.fill(5);
            assert_eq!(*draft, vec![5; len]);
            let buffer = draft.seal().unwrap();
            let again = SealedBuffer::try_from(buffer.as_fd().try_clone_to_owned().unwrap()).unwrap();
            drop(buffer);
            assert_eq!(*again, vec![5; len]);
            assert_eq!(*again.clone(), vec![5; len]);
        }
    }

    /// The mapping checks for itself, whatever its caller has checked: a slice of writable memory would be unsound.
    #[test]
    fn mutable_files_are_not_mapped_as_immutable() {
        let refused = |memfd: OwnedFd, len| match SealedMapping::map(memfd.as_fd(), len) {
            Err(MapError::Failed(error)) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        };
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
            assert!(refused(memfd(8192, SealedMapping::SEALS.difference(missing)), 8192), "{missing:?}");
        }
        for len in [0, 4095, 4097, 8192, 16384] {
            assert!(refused(memfd(4096, SealedMapping::SEALS), len), "{len} bytes of 4096");
        }
        let sealed = memfd(4096, SealFlags::empty());
        assert_eq!(rustix::io::pwrite(&sealed, &[7; 4096], 0), Ok(4096));
        fcntl_add_seals(&sealed, SealedMapping::SEALS).unwrap();
        assert_eq!(SealedMapping::map(sealed.as_fd(), 4096).unwrap().as_slice(), [7; 4096]);
    }

    #[test]
    fn buffer_may_be_as_large_as_the_limit() {
        let of = |len: usize| SealedBufferMut::new(len).unwrap().seal().unwrap();
        let copy = |buffer: &SealedBuffer| buffer.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(SealedBuffer::with_limit(copy(&of(8192)), 8192).unwrap().len(), 8192);
        let error = SealedBuffer::with_limit(copy(&of(8193)), 8192).unwrap_err();
        assert!(matches!(error, Error::Sealed(SealError::TooLarge { max: 8192, found: 8193 })));
    }

    #[test]
    fn sealed_buffers_are_read_only_for_everyone() {
        let buffer = SealedBufferMut::new(10).unwrap().seal().unwrap();
        assert!(rustix::io::pwrite(&buffer, b"x", 0).is_err());
        assert!(ftruncate(&buffer, 5).is_err());
        assert!(ftruncate(&buffer, 50).is_err());
        assert!(crate::sys::own_region::try_writable(buffer.as_fd(), 10).is_err());
    }

    #[test]
    fn invalid_sealed_buffers_are_refused_by_name() {
        let expected = SealedMapping::SEALS.bits();
        assert!(matches!(refused(rustix::pipe::pipe().unwrap().0), SealError::Kind { .. }));
        let file = tempfile::tempfile().unwrap().into();
        assert!(matches!(refused(file), SealError::Seals { .. }));
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
            let seals = SealedMapping::SEALS.difference(missing);
            assert_eq!(refused(memfd(4096, seals)), SealError::Seals { expected, found: seals.bits() });
        }
        let sealed = SealedBufferMut::new(4096).unwrap().seal().unwrap();
        let again = |options: &mut std::fs::OpenOptions| {
            let number = std::os::fd::AsRawFd::as_raw_fd(&sealed.as_fd());
            options.open(format!("/proc/self/fd/{number}")).map(OwnedFd::from)
        };
        let path = again(std::fs::File::options().read(true).custom_flags(libc::O_PATH)).unwrap();
        assert!(matches!(refused(path), SealError::Access { .. }));
        match again(std::fs::File::options().write(true)) {
            Ok(writable) => assert!(matches!(refused(writable), SealError::Access { .. })),
            Err(error) => println!("left out: this kernel opens no sealed file for writing ({error})"),
        }
        // A ring is sealed against new writers only, so that its owner can still write.
        let ring = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        assert!(matches!(refused(memfd(4096, ring)), SealError::Seals { .. }));
        assert_eq!(refused(memfd(8192, SealedMapping::SEALS)), SealError::Holes { expected: 8192, found: 0 });
        let half = memfd(8192, SealFlags::empty());
        fallocate(&half, FallocateFlags::empty(), 0, 4096).unwrap();
        fcntl_add_seals(&half, SealedMapping::SEALS).unwrap();
        assert_eq!(refused(half), SealError::Holes { expected: 8192, found: 4096 });
        let disguised = memfd(8192, SealFlags::empty());
        fallocate(&disguised, FallocateFlags::KEEP_SIZE, 8192, 8192).unwrap();
        fcntl_add_seals(&disguised, SealedMapping::SEALS).unwrap();
        assert_eq!(refused(disguised), SealError::Holes { expected: 8192, found: 0 });
        let (max, found) = (LIMIT, 1 << 40);
        assert_eq!(refused(memfd(found, SealedMapping::SEALS)), SealError::TooLarge { max, found });
    }

    #[test]
    fn typed_slices_are_whole() {
        let buffer = SealedBufferMut::new(10).unwrap().seal().unwrap();
        assert_eq!(buffer.slice_of::<u16>().unwrap().len(), 5);
        assert!(SealedBufferMut::new(0).unwrap().seal().unwrap().slice_of::<u64>().unwrap().is_empty());
        assert!(matches!(
            buffer.slice_of::<u32>(),
            Err(Error::Cast(CastError::Remainder { size: 4, found: 10 }))
        ));
    }
}
