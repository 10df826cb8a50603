//! Real dmabufs and a real capture device between two processes: `vivid`, `vgem`, udmabuf and the system heap of Linux.
//!
//! All tests are ignored by default: they need a machine of their own, which `tests/hardware/run` boots. Some count
//! resources of the whole machine, so they run one after the other.

mod buffers;
mod camera;
mod capture;
mod death;
mod fences;
mod machine;
#[path = "../support/mod.rs"]
mod support;
