//! Files that become immutable: writable while only this process holds them, and plain bytes once they are sealed.

use std::{io, os::fd::BorrowedFd, slice};

use rustix::{
    fs::{SealFlags, fcntl_get_seals, fstat},
    mm::{MapFlags, ProtFlags},
};

use super::{
    mapping::Mapping,
    peer_region::{MapError, populate_dense},
};

/// A file that only this process can write, and those forked from it, mapped writable: fresh, and never handed out while
/// this lives.
pub(crate) struct WritableMapping(Mapping);

impl WritableMapping {
    /// Maps `fd`, a fresh memfd of `len` bytes.
    ///
    /// # Errors
    /// Those of `mmap(2)` and `madvise(2)`.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Mapping::new(fd, len, ProtFlags::READ.union(ProtFlags::WRITE), MapFlags::SHARED).map(Self)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: as in `as_mut_slice`, for reading.
        unsafe { slice::from_raw_parts(self.0.base.0.as_ptr(), self.0.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: contract of `from_raw_parts_mut`:
        // 1. valid and initialised: mapped for `len` bytes of zero pages, as long as `self` lives;
        // 2. unique in this process: the file is fresh and its keeper (`SealedBufferMut`) hands it out only after this is
        //    dropped. A fork has inherited the mapping: as in `RingSlot::as_slice`.
        unsafe { slice::from_raw_parts_mut(self.0.base.0.as_ptr(), self.0.len) }
    }
}

/// A file that nobody can change any more, mapped read-only.
pub(crate) struct SealedMapping(Mapping);

impl SealedMapping {
    /// The seals without which a file is not immutable.
    pub(crate) const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

    /// Maps `len` bytes of `fd`: private, as kernels before 6.7 refuse a shared mapping of a write-sealed file.
    ///
    /// # Errors
    /// A hole; `PermissionDenied` if the file lacks one of [`SEALS`](Self::SEALS) or is not of that length; those of
    /// `mmap(2)` and `madvise(2)`.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> Result<Self, MapError> {
        let stat = fstat(fd)?;
        if !fcntl_get_seals(fd)?.contains(Self::SEALS) || usize::try_from(stat.st_size) != Ok(len) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
        }
        // A private mapping of huge pages would reserve as many for us.
        let mapping = Mapping::new(fd, len, ProtFlags::READ, MapFlags::PRIVATE.union(MapFlags::NORESERVE))?;
        populate_dense(fd, &mapping, 0..len, stat.st_blocks)?;
        Ok(Self(mapping))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: contract of `from_raw_parts`:
        // 1. valid: mapped for `len` bytes as long as `self` lives, and the file cannot shrink (`map` has seen the seals);
        // 2. never written: `F_SEAL_WRITE` is given only to a file without writable mappings, and allows none, nor
        //    `write(2)` or punching holes, ever after, by anybody.
        unsafe { slice::from_raw_parts(self.0.base.0.as_ptr(), self.0.len) }
    }
}
