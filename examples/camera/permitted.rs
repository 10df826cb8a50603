//! The algorithm's sandbox: what a channel needs, and what its frame buffers need.

use crate::{Result, output::note, sandbox::Sandbox};

/// System calls of the algorithm itself, which reads frame buffers. Dmabufs are mapped, too, and there is one more call for them.
const BUFFERS: [i64; 3] = [libc::SYS_pread64, libc::SYS_fstat, libc::SYS_fstatfs];

/// Shuts this process in, for good.
pub(crate) fn enter_sandbox() -> Result<()> {
    // `ioctl` is allowed for one request only, that of a dmabuf which is looked at. `FIOSETOWN`, with which `fcntl`'s way to a
    // signal begins as well, is not among them.
    let sandbox = Sandbox::for_channel()?.allow(&BUFFERS);
    // A subscriber prints what it has seen.
    let sandbox = sandbox.allow_if(libc::SYS_write, &[(0, libc::STDOUT_FILENO.cast_unsigned())])?;
    let has_landlock = sandbox.allow_if(libc::SYS_ioctl, &[(1, video::SYNC_REQUEST)])?.enter()?;
    if !has_landlock {
        note(format_args!(
            "camera algorithm: this kernel has no landlock; seccomp alone keeps files out of reach"
        ));
    }
    Ok(())
}
