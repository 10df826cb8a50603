//! Files of memory, and views of their bytes.
//!
//! Owns the creation, allocation and sealing of memfds, the check of a memfd that a peer sent, sealed buffers, and the views
//! by which payloads are read.
//!
//! Refuses a file that lacks a seal, has another size or has holes. A region of this process leaves this folder only after
//! the kernel has refused a second writable mapping of it.
//!
//! May import: `error`, `protocol`, `wait`, `sys`.

pub(crate) mod aligned_bytes;
pub(crate) mod memfd;
pub(crate) mod region;
pub(crate) mod sealed_buffer;
mod shared_iter;
pub(crate) mod shared_slice;
