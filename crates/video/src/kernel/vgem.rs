//! Structures and requests of `drm/drm.h`, `drm/drm_mode.h` and `drm/vgem_drm.h`: buffers with fences.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{fs::OFlags, ioctl::opcode};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{Request, given};

pub(crate) const CREATE: Request<Create> =
    Request::new("DRM_IOCTL_MODE_CREATE_DUMB", opcode::read_write::<Create>(b'd', 0xb2));
const TO_FD: Request<Prime> =
    Request::new("DRM_IOCTL_PRIME_HANDLE_TO_FD", opcode::read_write::<Prime>(b'd', 0x2d));
pub(crate) const ATTACH: Request<Attach> =
    Request::new("DRM_IOCTL_VGEM_FENCE_ATTACH", opcode::read_write::<Attach>(b'd', 0x41));
pub(crate) const SIGNAL: Request<Signal> =
    Request::new("DRM_IOCTL_VGEM_FENCE_SIGNAL", opcode::write::<Signal>(b'd', 0x42));

/// A buffer of the driver, as a dmabuf.
pub(crate) fn export(device: impl AsFd, handle: u32) -> io::Result<OwnedFd> {
    let mut prime = Prime { handle, flags: (OFlags::RDONLY | OFlags::CLOEXEC).bits(), fd: -1 };
    TO_FD.make(device, &mut prime)?;
    Ok(given(prime.fd))
}

/// `struct drm_mode_create_dumb`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Create {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) bits_per_pixel: u32,
    pub(crate) flags: u32,
    pub(crate) handle: u32,
    pub(crate) pitch: u32,
    pub(crate) size: u64,
}

/// `struct drm_prime_handle`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Prime {
    handle: u32,
    flags: u32,
    fd: i32,
}

/// `struct drm_vgem_fence_attach`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Attach {
    pub(crate) handle: u32,
    pub(crate) flags: u32,
    pub(crate) fence: u32,
    padding: u32,
}

impl Attach {
    const WRITE: u32 = 1;

    /// An exclusive fence, for a writer.
    pub(crate) fn writer(handle: u32) -> Self {
        Self { handle, flags: Self::WRITE, ..Self::new_zeroed() }
    }
}

/// `struct drm_vgem_fence_signal`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Signal {
    pub(crate) fence: u32,
    pub(crate) flags: u32,
}

const _: () = {
    assert!(size_of::<Create>() == 32);
    assert!(size_of::<Prime>() == 12);
    assert!(size_of::<Attach>() == 16);
    assert!(size_of::<Signal>() == 8);
};
