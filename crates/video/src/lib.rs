//! Video capture (V4L2) and dmabufs, just as much as the example `camera` and the tests in `tests/hardware` need.
//!
//! No reference is ever made to the memory of a dmabuf, since a device or another process may be writing to it: bytes are
//! copied out and in. All `unsafe` is in `kernel/mod.rs`.

mod capture;
mod device;
mod dmabuf;
mod kernel;
mod udmabuf;
mod vgem;

pub use capture::{Capture, Frame};
pub use device::{Control, Device, Format, Range};
pub use dmabuf::{DmaBuf, Mapping};
pub use kernel::dmabuf::SYNC_REQUEST;
pub use udmabuf::{memfd, udmabuf};
pub use vgem::{Fence, Vgem};
