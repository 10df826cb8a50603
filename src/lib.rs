//! Zero-copy IPC between Linux processes that do not trust each other, with no `unsafe` in the public API.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("sealane needs 64-bit little-endian Linux (5.14 or later): see the README's requirements");

mod builder;
mod channel;
mod control;
mod doorbell;
mod error;
mod handshake;
mod hello;
mod layout;
mod link;
mod listener;
mod loan;
mod message;
mod order;
mod payload;
mod process;
mod raw;
mod receiver;
mod region;
mod requests;
mod ring;
mod sender;
mod shared;
mod socket;
mod stats;
mod wait;
mod wire;

pub use builder::Builder;
pub use channel::Channel;
pub use control::{Control, IntoBorrowedFd};
pub use error::{CastError, Error, HandshakeError, ProtocolError, Reason, Refusal, Result};
pub use handshake::{Credentials, Handshake, Peer};
pub use link::Closer;
pub use listener::Listener;
pub use loan::{Loan, Unsent};
pub use message::{Message, ReplyToken, RequestId};
pub use payload::Payload;
pub use receiver::Receiver;
pub use sender::Sender;
pub use shared::{ArrayChunks, Iter, SharedSlice};
pub use stats::{Held, Limits, Stats};
pub use wait::Wait;
/// Re-exported for its traits, which say what types may cross.
pub use zerocopy;
