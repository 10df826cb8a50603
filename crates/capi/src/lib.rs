//! The C interface of sealane: `include/sealane.h`, generated from these files.
//!
//! Each exported function does three things: it checks what C gave, calls one verb of the Rust interface, and turns the result
//! into a status. The handles are in the files of their names; `halves.rs` has both halves of a channel, each behind a lock that
//! is only tried, with `sending.rs` and `verbs.rs` below it. `arguments.rs` owns every access to memory that a bare pointer names;
//! `status.rs` owns the numbers and the sentences of failures.
//!
//! # The contract with C
//!
//! Handles arrive as `Option<&T>`, and the *address* of a handle as `Option<&mut Option<Box<T>>>`: pointers that may be null,
//! and are otherwise as the header demands. Results go to `Option<&mut MaybeUninit<T>>`, which may be uninitialised. Bytes
//! arrive as a pointer and a length, readable or writable for that length until the function returns.

#![expect(unsafe_code, reason = "a C interface: it exports names, and takes pointers")]
#![expect(
    clippy::missing_safety_doc,
    reason = "the contract of all pointers stands above, and in the header"
)]
#![expect(clippy::doc_markdown, reason = "the documentation is a C header's")]
#![expect(clippy::unnecessary_box_returns, clippy::vec_box, reason = "C has the address of a handle")]

mod arguments;
mod channel;
mod halves;
mod handshake;
mod listener;
mod loan;
mod message;
mod options;
mod pipe;
mod readable;
mod sealed;
mod sending;
mod status;
mod verbs;

pub use channel::*;
pub use halves::Loan;
pub use handshake::*;
pub use listener::*;
pub use loan::*;
pub use message::*;
pub use options::*;
pub use pipe::*;
pub use sealed::*;
pub use status::*;
