//! Structures and requests of `linux/dma-buf.h` and `linux/udmabuf.h`.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::ioctl::opcode;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Request, given};

/// The request of `ioctl(2)` on a dmabuf whose content is looked at, for the rules of a sandbox.
pub const SYNC_REQUEST: u32 = SYNC.number;

pub(crate) const SYNC: Request<Sync> = Request::new("DMA_BUF_IOCTL_SYNC", opcode::write::<Sync>(b'b', 0));
const UDMABUF_CREATE: Request<UdmabufCreate> =
    Request::new("UDMABUF_CREATE", opcode::write::<UdmabufCreate>(b'u', 0x42));
/// A part of a memfd, as a dmabuf (`UDMABUF_CREATE`).
pub(crate) fn udmabuf(
    device: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    offset: u64,
    len: u64,
) -> io::Result<OwnedFd> {
    const CLOEXEC: u32 = 1;
    let mut create = UdmabufCreate { memfd: memfd.as_raw_fd(), flags: CLOEXEC, offset, len };
    let made = UDMABUF_CREATE.try_make(device, &mut create);
    made.map(given).map_err(|errno| UDMABUF_CREATE.failed(errno))
}

/// `struct dma_buf_sync`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Sync {
    pub(crate) flags: u64,
}

impl Sync {
    pub(crate) const READ: u64 = 1;
    pub(crate) const WRITE: u64 = 2;
    pub(crate) const START: u64 = 0;
    pub(crate) const END: u64 = 4;
}

/// `struct udmabuf_create`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct UdmabufCreate {
    memfd: i32,
    flags: u32,
    offset: u64,
    len: u64,
}

const _: () = {
    assert!(size_of::<Sync>() == 8);
    assert!(size_of::<UdmabufCreate>() == 24);
};
