//! Zero-copy IPC between Linux processes that do not trust each other, with no `unsafe` in the public API.
//!
//! A [`Channel`] connects two processes. Payloads are written in place in a [`Loan`] of a shared ring that only the sender
//! can write, and read by value, where they are, from a [`Payload`]. Control bytes and descriptors go along in the same
//! [`Message`], or alone.
//!
//! ```
//! use sealane::{Channel, Control};
//!
//! let (mut pipeline, mut algorithm) = Channel::pair()?;
//!
//! let mut statistics = pipeline.loan(4096)?;
//! statistics.fill(1);
//! statistics.send_with(Control::of(&42_u64))?;
//!
//! let message = algorithm.recv()?;
//! assert_eq!(message.control_as::<u64>()?, &42);
//! assert_eq!(message.payload().unwrap().bytes().iter().map(u32::from).sum::<u32>(), 4096);
//! # Ok::<(), sealane::Error>(())
//! ```
//!
//! # Where to begin
//! | to | see |
//! |---|---|
//! | start an isolated process with a channel | [`Channel::spawn`], and [`Channel::inherited`] in it |
//! | serve clients | [`Listener`], and [`Channel::connect`] |
//! | set sizes and limits | [`Builder`] |
//! | use the two directions in two threads | [`Channel::split`] into [`Sender`] and [`Receiver`] |
//! | use an event loop | [`Receiver`], [`Sender`] and [`Handshake`] each say when their descriptor is readable |
//! | ask and answer | [`Channel::call`], [`Channel::reply`] |
//! | await instead of waiting | the feature `tokio`, and `sealane::tokio` |
//! | read payloads | [`SharedSlice`] |
//! | send one table to many | [`SealedBuffer`] |
//!
//! # What to rely on
//! - A message is whole or not at all, and messages arrive in the order in which they were sent.
//! - What was committed is delivered, even if its sender is gone.
//! - Nothing that a peer does makes this library panic, and nothing in it waits past a deadline, but for closing a
//!   descriptor that the peer sent: the kernel sets no limit for that.
//! - Plain verbs block, as long as the peer lives; `try_…` never does; `…_timeout` for its time.
#![cfg_attr(
    any(doc, doctest),
    doc = "\n# Read on\n- [`architecture`], [`protocol`], [`security`], [`performance`]: how it is built, what crosses, and what a hostile peer can do.\n- [`camera`]: frames in dmabufs, statistics in payloads."
)]
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
mod death;
mod doorbell;
mod error;
mod handshake;
mod hello;
mod layout;
mod link;
mod listener;
mod loan;
mod memfd;
mod message;
mod order;
mod outgoing;
mod payload;
mod peer;
mod private;
mod process;
mod raw;
mod receipts;
mod receiver;
mod region;
mod requests;
mod ring;
mod sealed;
mod sender;
mod shared;
mod socket;
mod stats;
mod wait;
mod wire;

#[cfg(feature = "tokio")]
pub mod tokio;

/// How it is built.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}
/// Using it for a camera pipeline.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/camera.md")]
pub mod camera {}
/// What it costs, and how that was measured.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}
/// What a hostile peer can and cannot do.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/security.md")]
pub mod security {}
/// What crosses the process boundary.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/protocol.md")]
pub mod protocol {}
/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use builder::Builder;
pub use channel::Channel;
pub use control::{Control, IntoBorrowedFd};
pub use error::{CastError, Error, HandshakeError, ProtocolError, Reason, Refusal, Result, SealError};
pub use handshake::Handshake;
pub use link::Closer;
pub use listener::Listener;
pub use loan::{Loan, Unsent};
pub use message::{Message, ReplyToken, RequestId};
pub use payload::Payload;
pub use peer::{Credentials, Peer};
pub use receiver::{Batch, Receiver};
pub use sealed::{SealedBuffer, SealedBufferMut};
pub use sender::Sender;
pub use shared::{ArrayChunks, Iter, SharedSlice};
pub use stats::{Held, Limits, Stats};
pub use wait::Wait;
/// Re-exported for its traits, which say what types may cross.
pub use zerocopy;
