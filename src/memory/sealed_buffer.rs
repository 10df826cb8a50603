//! [`SealedBuffer`]: bytes that nobody can change, in a descriptor that goes along with any message.

use std::{
    fmt,
    io::{self, Write},
    ops::{Deref, DerefMut},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use ::memfd::{FileSeal, Memfd};
use rustix::fs::FileType;
use zerocopy::{FromBytes, Immutable as NoInterior, KnownLayout};

use crate::{
    error::{CastError, Error, Result, SealError},
    memory::memfd::{self, Facts},
    protocol::layout::{to_u64, to_usize},
    sys::{
        cmsg::above_stdio,
        peer_region::Unmapped,
        sealed::{Draft, Immutable},
    },
    wait::Deadline,
};

/// Largest buffer that is taken without asking: 64 MiB.
const LIMIT: u64 = 64 << 20;
/// [`Immutable::SEALS`], and no further seals.
const SEALS: [FileSeal; 4] =
    [FileSeal::SealWrite, FileSeal::SealShrink, FileSeal::SealGrow, FileSeal::SealSeal];

/// A buffer to be filled, then [sealed](Self::seal). It starts as zeros.
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
    // Unmapped before the descriptor is closed or handed on.
    draft: Draft,
    memfd: Memfd,
}

impl SealedBufferMut {
    /// A buffer of `len` bytes, page-aligned. All its memory is allocated now and counts as this process's.
    ///
    /// # Errors
    /// [`Error::Io`], for instance for want of memory.
    pub fn new(len: usize) -> Result<Self> {
        let memfd = memfd::create(len, false, Deadline::Never)?;
        let draft = Draft::map(memfd.as_file().as_fd(), len).map_err(Error::io("mmap of a buffer"))?;
        Ok(Self { draft, memfd })
    }

    /// Makes it immutable, for everyone and for ever (`F_SEAL_WRITE`, `fcntl(2)`). The kernel refuses that while a
    /// fork of this process has the buffer too: then a copy is sealed.
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

/// A file with the same bytes and no mapping: a fork has mapped `memfd` writable.
fn copy(memfd: &Memfd, len: usize) -> Result<Memfd> {
    let draft = Draft::map(memfd.as_file().as_fd(), len).map_err(Error::io("mmap of a buffer"))?;
    let copy = memfd::create(len, false, Deadline::Never)?;
    copy.as_file()
        .write_all(draft.as_slice())
        .map_err(Error::io("write to the copy of a buffer that a fork has mapped"))?;
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

/// Bytes that nobody can change: a memfd with `F_SEAL_WRITE`, mapped. A plain `&[u8]`, page-aligned.
///
/// Its descriptor goes along with any message; who receives one verifies it with `try_from`. For tables and tuning files,
/// and for what many peers get: it is in memory once. Cloning shares it.
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
/// let received = SealedBuffer::try_from(b.recv()?.take_fds().remove(0))?;
/// assert_eq!(received.len(), 1 << 20);
/// assert_eq!(received.slice_of::<u32>()?[5], 0x0707_0707);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Clone)]
pub struct SealedBuffer {
    shared: Arc<Shared>,
}

struct Shared {
    mapping: Immutable,
    memfd: OwnedFd,
}

impl SealedBuffer {
    /// Verifies and maps a received descriptor of at most `max` bytes: a memfd that is sealed against writing and
    /// resizing, without holes. Everything else is refused, whatever it is, without blocking.
    ///
    /// # Errors
    /// [`Error::Sealed`] with what was expected and found; the descriptor is closed. [`Error::Io`].
    pub fn with_limit(fd: OwnedFd, max: u64) -> Result<Self> {
        let fd = above_stdio(fd)?;
        let facts = Facts::of(fd.as_fd()).map_err(Error::io("fstat"))?;
        let Facts { kind, access, seals, size, allocated, .. } = facts;
        if kind != FileType::RegularFile {
            let (expected, found) = (FileType::RegularFile.as_raw_mode(), kind.as_raw_mode());
            return Err(SealError::Kind { expected, found }.into());
        }
        if !facts.is_readable() {
            return Err(SealError::Access { found: access.bits() }.into());
        }
        if !seals.contains(Immutable::SEALS) {
            return Err(SealError::Seals { expected: Immutable::SEALS.bits(), found: seals.bits() }.into());
        }
        if size > max {
            return Err(SealError::TooLarge { max, found: size }.into());
        }
        let holes = |found| SealError::Holes { expected: size, found };
        if allocated < size {
            return Err(holes(allocated).into());
        }
        let mapping = Immutable::map(fd.as_fd(), to_usize(size)).map_err(|unmapped| match unmapped {
            Unmapped::Failed(error) => Error::io("mmap of a sealed buffer")(error),
            Unmapped::Hole { dense } => holes(to_u64(dense)).into(),
        })?;
        Ok(Self { shared: Arc::new(Shared { mapping, memfd: fd }) })
    }

    /// The bytes as values of `T`.
    ///
    /// # Errors
    /// [`CastError::Remainder`] if they are no whole number of values.
    pub fn slice_of<T: FromBytes + KnownLayout + NoInterior>(&self) -> Result<&[T]> {
        const { assert!(align_of::<T>() <= 4096, "buffers are aligned to a page, no more") };
        let (size, found) = (size_of::<T>(), self.len());
        <[T]>::ref_from_bytes(self).map_err(|_| CastError::Remainder { size, found }.into())
    }
}

/// Of at most 64 MiB; see [`with_limit`](SealedBuffer::with_limit) for more or less.
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

/// For a message: `Control::fd(&buffer)`.
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

    use rustix::fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
    };

    use super::*;

    fn refused(fd: OwnedFd) -> SealError {
        match SealedBuffer::try_from(fd) {
            Err(Error::Sealed(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
        let memfd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memfd, size).unwrap();
        fcntl_add_seals(&memfd, seals).unwrap();
        memfd
    }

    #[test]
    fn a_buffer_keeps_its_bytes_and_its_length() {
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

    /// Whatever was looked at before: a view of bytes that somebody can write would be unsound.
    #[test]
    fn nothing_is_mapped_as_immutable_that_is_not() {
        let refused = |memfd: OwnedFd, len| match Immutable::map(memfd.as_fd(), len) {
            Err(Unmapped::Failed(error)) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        };
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
            assert!(refused(memfd(8192, Immutable::SEALS.difference(missing)), 8192), "{missing:?}");
        }
        for len in [0, 4095, 4097, 8192, 16384] {
            assert!(refused(memfd(4096, Immutable::SEALS), len), "{len} bytes of 4096");
        }
        let sealed = memfd(4096, SealFlags::empty());
        assert_eq!(rustix::io::pwrite(&sealed, &[7; 4096], 0), Ok(4096));
        fcntl_add_seals(&sealed, Immutable::SEALS).unwrap();
        assert_eq!(Immutable::map(sealed.as_fd(), 4096).unwrap().as_slice(), [7; 4096]);
    }

    #[test]
    fn a_buffer_may_be_as_large_as_the_limit() {
        let of = |len: usize| SealedBufferMut::new(len).unwrap().seal().unwrap();
        let copy = |buffer: &SealedBuffer| buffer.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(SealedBuffer::with_limit(copy(&of(8192)), 8192).unwrap().len(), 8192);
        let error = SealedBuffer::with_limit(copy(&of(8193)), 8192).unwrap_err();
        assert!(matches!(error, Error::Sealed(SealError::TooLarge { max: 8192, found: 8193 })));
    }

    #[test]
    fn nobody_can_write_to_a_sealed_buffer() {
        let buffer = SealedBufferMut::new(10).unwrap().seal().unwrap();
        assert!(rustix::io::pwrite(&buffer, b"x", 0).is_err());
        assert!(ftruncate(&buffer, 5).is_err());
        assert!(ftruncate(&buffer, 50).is_err());
        assert!(crate::sys::own_region::try_writable(buffer.as_fd(), 10).is_err());
    }

    #[test]
    fn what_is_no_sealed_buffer_is_refused_by_name() {
        let expected = Immutable::SEALS.bits();
        assert!(matches!(refused(rustix::pipe::pipe().unwrap().0), SealError::Kind { .. }));
        let file = tempfile::tempfile().unwrap().into();
        assert!(matches!(refused(file), SealError::Seals { .. }));
        for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
            let seals = Immutable::SEALS.difference(missing);
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
        // A ring is sealed against new writers only: its owner can still write.
        let ring = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        assert!(matches!(refused(memfd(4096, ring)), SealError::Seals { .. }));
        assert_eq!(refused(memfd(8192, Immutable::SEALS)), SealError::Holes { expected: 8192, found: 0 });
        let half = memfd(8192, SealFlags::empty());
        fallocate(&half, FallocateFlags::empty(), 0, 4096).unwrap();
        fcntl_add_seals(&half, Immutable::SEALS).unwrap();
        assert_eq!(refused(half), SealError::Holes { expected: 8192, found: 4096 });
        let disguised = memfd(8192, SealFlags::empty());
        fallocate(&disguised, FallocateFlags::KEEP_SIZE, 8192, 8192).unwrap();
        fcntl_add_seals(&disguised, Immutable::SEALS).unwrap();
        assert_eq!(refused(disguised), SealError::Holes { expected: 8192, found: 0 });
        let (max, found) = (LIMIT, 1 << 40);
        assert_eq!(refused(memfd(found, Immutable::SEALS)), SealError::TooLarge { max, found });
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
