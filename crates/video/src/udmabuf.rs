//! Dmabufs made of ordinary memory.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::{DmaBuf, kernel::dmabuf};

/// Makes a dmabuf of the first `len` bytes of a memfd, which must be whole pages.
///
/// The memfd has to be sealed against shrinking, and must not be sealed against writing: every holder of the dmabuf may write.
///
/// # Errors
/// Those of opening `/dev/udmabuf`, and of `UDMABUF_CREATE`.
pub fn udmabuf(memfd: impl AsFd, len: usize) -> io::Result<DmaBuf> {
    let device = File::options().read(true).write(true).open("/dev/udmabuf")?;
    let len = u64::try_from(len).map_err(io::Error::other)?;
    DmaBuf::try_from(dmabuf::udmabuf(device.as_fd(), memfd.as_fd(), 0, len)?)
}

/// Makes a memfd that can become a dmabuf.
///
/// # Errors
/// Those of `memfd_create(2)`, `ftruncate(2)` and `fcntl(2)`.
pub fn memfd(len: usize) -> io::Result<OwnedFd> {
    let memfd = memfd_create("udmabuf", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memfd, u64::try_from(len).map_err(io::Error::other)?)?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK)?;
    Ok(memfd)
}
