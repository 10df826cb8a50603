//! Real dmabufs and a real capture device between two processes: `vivid`, `vgem`, udmabuf and the system heap of Linux.
//!
//! All tests are ignored by default: they need a machine of their own, which `tests/hardware/run` boots. Some count
//! resources of the whole machine, so they run one after the other.

mod buffers;
mod camera;
mod capture;
mod death;
mod fanout;
mod fences;
mod machine;
#[path = "../../examples/camera/shares.rs"]
#[allow(clippy::allow_attributes, dead_code, reason = "a part of it is used")]
mod shares;
#[path = "../support/mod.rs"]
mod support;
