//! A buffer that is handed on before it is filled, as a GPU's are. `vgem` is Linux's driver to test that.

use std::{fs::File, io, os::fd::AsFd};

use rustix::io::Errno;
use zerocopy::FromZeros;

use crate::{
    DmaBuf,
    kernel::vgem::{self, ATTACH, Attach, CREATE, Create, SIGNAL, Signal},
};

/// A buffer of `vgem`.
#[derive(Debug)]
pub struct Vgem {
    device: File,
    handle: u32,
}

/// Work on the buffer that is not done.
#[derive(Debug)]
pub struct Fence(u32);

impl Vgem {
    /// Makes a buffer of one page.
    ///
    /// # Errors
    /// Those of opening the device, and of `DRM_IOCTL_MODE_CREATE_DUMB`.
    pub fn new() -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/dri/card0")?;
        let mut create = Create { height: 32, width: 32, bits_per_pixel: 32, ..Create::new_zeroed() };
        CREATE.make(&device, &mut create)?;
        Ok(Self { device, handle: create.handle })
    }

    /// The buffer as a dmabuf, for reading only.
    ///
    /// # Errors
    /// Those of `DRM_IOCTL_PRIME_HANDLE_TO_FD`.
    pub fn export(&self) -> io::Result<DmaBuf> {
        DmaBuf::try_from(vgem::export(&self.device, self.handle)?)
    }

    /// Begins to write to the buffer. The driver ends that by itself after ten seconds.
    ///
    /// # Errors
    /// Those of `DRM_IOCTL_VGEM_FENCE_ATTACH`; `ResourceBusy` if a writer's fence is attached already.
    pub fn begin(&self) -> io::Result<Fence> {
        let mut attach = Attach::writer(self.handle);
        ATTACH.make(&self.device, &mut attach)?;
        Ok(Fence(attach.fence))
    }

    /// Signals that the writing is done. False if the driver has ended the fence after its timeout.
    ///
    /// # Errors
    /// Those of `DRM_IOCTL_VGEM_FENCE_SIGNAL`.
    pub fn end(&self, Fence(fence): Fence) -> io::Result<bool> {
        match SIGNAL.try_make(self.device.as_fd(), &mut Signal { fence, flags: 0 }) {
            Ok(_) => Ok(true),
            Err(Errno::TIMEDOUT) => Ok(false),
            Err(errno) => Err(SIGNAL.failed(errno)),
        }
    }
}
