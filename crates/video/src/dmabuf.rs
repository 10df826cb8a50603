//! A dmabuf: memory that devices and processes share by a descriptor.
//!
//! Its size never changes, and it cannot be read or written but through a mapping. Each access stands between two
//! `DMA_BUF_IOCTL_SYNC`, which waits for a device that still writes, and keeps the caches coherent.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::fs::{fstat, fstatfs};
use vm_memory::{FileOffset, MmapRegion, VolatileArrayRef, VolatileMemory, mmap::MmapRegionError};

use crate::kernel::dmabuf::{SYNC, Sync};

/// A descriptor that was seen to be a dmabuf's.
#[derive(Debug)]
pub struct DmaBuf {
    file: File,
    len: usize,
}

/// Magic number of the file system of all dmabufs (`DMA_BUF_MAGIC` of `linux/magic.h`).
const MAGIC: u64 = 0x444d_4142;

impl TryFrom<OwnedFd> for DmaBuf {
    type Error = io::Error;

    /// Looks at a descriptor that may be anything.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let found = fstatfs(&fd)?.f_type.cast_unsigned();
        if found != MAGIC {
            let text = format!("a file system of type {found:#x}, expected that of dmabufs, {MAGIC:#x}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let len = usize::try_from(fstat(&fd)?.st_size).map_err(io::Error::other)?;
        Ok(Self { file: fd.into(), len })
    }
}

impl DmaBuf {
    /// Length in bytes, rounded up to whole pages.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number by which the kernel knows this buffer: the same in each process, and for each descriptor of it.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(fstat(&self.file)?.st_ino)
    }

    /// Maps it for reading.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub fn map(self) -> io::Result<Mapping> {
        Mapping::new(self, PROT_READ)
    }

    /// Maps it for reading and writing.
    ///
    /// # Errors
    /// Those of `mmap(2)`; `PermissionDenied` for a descriptor that is open for reading only.
    pub fn map_writable(self) -> io::Result<Mapping> {
        Mapping::new(self, PROT_READ | PROT_WRITE)
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<DmaBuf> for OwnedFd {
    fn from(dmabuf: DmaBuf) -> Self {
        dmabuf.file.into()
    }
}

// The values of `sys/mman.h`.
const PROT_READ: i32 = 1;
const PROT_WRITE: i32 = 2;
const MAP_SHARED: i32 = 1;

/// A mapped dmabuf. Dropping it unmaps it and closes the descriptor.
#[derive(Debug)]
pub struct Mapping {
    region: MmapRegion,
    file: Arc<File>,
}

impl Mapping {
    fn new(dmabuf: DmaBuf, protection: i32) -> io::Result<Self> {
        let file = Arc::new(dmabuf.file);
        let from = FileOffset::from_arc(file.clone(), 0);
        let region = MmapRegion::build(Some(from), dmabuf.len, protection, MAP_SHARED);
        let region = region.map_err(|error| match error {
            MmapRegionError::Mmap(error) => error,
            other => io::Error::other(other),
        })?;
        Ok(Self { region, file })
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Errors
    /// Those of `DMA_BUF_IOCTL_SYNC`; `InvalidInput` if they are not all within the buffer.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let (from_words, from_rest) = self.part(offset, words.len(), rest.len())?;
        self.synced(Sync::READ, || {
            // Elements that are no bytes are loaded one by one, volatile: a plain copy might look twice.
            from_words.copy_to(words);
            for (at, byte) in rest.iter_mut().enumerate() {
                *byte = from_rest.load(at);
            }
        })
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Errors
    /// The errors of [`read_at`](Self::read_at); `PermissionDenied` if it is not mapped for writing.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        if self.region.prot() & PROT_WRITE == 0 {
            let text = "a dmabuf that is mapped for reading, expected one that is mapped for writing";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        let (to_words, to_rest) = self.part(offset, words.len(), rest.len())?;
        self.synced(Sync::WRITE, || {
            to_words.copy_from(words);
            for (at, byte) in rest.iter().enumerate() {
                to_rest.store(at, *byte);
            }
        })
    }

    /// So many words from `offset` on, and the bytes after them, if they are all within the buffer.
    fn part(
        &self,
        offset: usize,
        words: usize,
        rest: usize,
    ) -> io::Result<(VolatileArrayRef<'_, [u8; 8]>, VolatileArrayRef<'_, u8>)> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let after = offset.saturating_add(8 * words);
        let in_words = self.region.get_array_ref(offset, words).map_err(invalid)?;
        Ok((in_words, self.region.get_array_ref(after, rest).map_err(invalid)?))
    }

    /// Accesses the memory between two syncs.
    fn synced(&self, access: u64, copy: impl FnOnce()) -> io::Result<()> {
        SYNC.make(&self.file, &mut Sync { flags: Sync::START | access })?;
        copy();
        SYNC.make(&self.file, &mut Sync { flags: Sync::END | access })
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn other_descriptors_than_dmabufs_are_refused() {
        let error = DmaBuf::try_from(memfd_create("no dmabuf", MemfdFlags::CLOEXEC).unwrap()).unwrap_err();
        assert!(error.to_string().contains("expected that of dmabufs"), "{error}");
    }
}
