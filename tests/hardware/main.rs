//! Real dmabufs and a real capture device: `vivid`, `vgem`, udmabuf and the system heap of Linux, over sealane, between two processes.
//!
//! All tests are ignored where they are not asked for: they need a machine of their own, and `tests/hardware/run` boots one.
//! Some count what is left over in all of it, so they run one after the other.

mod buffers;
mod camera;
mod capture;
mod death;
mod fences;
mod machine;
#[path = "../support/mod.rs"]
mod support;
