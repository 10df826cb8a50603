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
//! | fork, or go into the background | [below](#processes-as-they-are) |
//! | read payloads | [`SharedSlice`] |
//! | send one table to many | [`SealedBuffer`] |
//!
//! # What to rely on
//! - A message is whole or not at all, and messages arrive in the order in which they were sent.
//! - What was committed is delivered, even if its sender is gone.
//! - Nothing that a peer does makes this library panic, and nothing in it waits past a deadline, but for closing a
//!   descriptor that the peer sent: the kernel sets no limit for that.
//! - Plain verbs block, as long as the peer lives; `try_…` never does; `…_timeout` for its time.
//!
//! # Processes as they are
//! A program may fork, or go into the background (`daemon(3)`), with channels, listeners and buffers that it has. The fork
//! inherits all of them, and each process has a copy.
//! - The *owner* of a copy is the process that made it, until a fork uses its own: sends, lends, receives, accepts, advances a
//!   handshake. From then on that copy is the fork's. Only an owner's drop is felt by others: it closes a direction, removes a
//!   listener's file, gives a payload's space back. Dropped by anybody else it is closed and unmapped, no more.
//! - So a daemon goes on with what it had, and its drops are heard; and nobody notices a helper that drops, or exits with, what
//!   it has inherited. What a fork drops before it first receives gives its space back when it does. [`Closer::close`] acts in
//!   whatever process it is called.
//! - A copy that a fork keeps open keeps the socket open: while it lives, the peer does not learn that this process was
//!   killed, and a listener's path looks alive.
//! - Use each value in one process only. Two that send, or receive, on their copies of one channel corrupt its order: the
//!   peer calls that a violation. A [`Loan`] or a [`SealedBufferMut`] that both go on using is one `&mut` in two processes: as
//!   for `pre_exec` of the standard library, whoever forks answers for that.
//! - [`Channel::pair`] is not for a fork with one end each: the maker still owns both ends, and its drop of the child's
//!   shuts that. Start a program with [`Channel::spawn`], or connect to a [`Listener`].
//! - A fork can write the rings of its parent and holds its sockets. Who wants to trust a process less lets it execute a
//!   program.
//! - A runtime with threads does not survive a fork: go into the background first, then start it. A fork's copy of what a
//!   runtime watches is closed, and stays registered in the parent.
//! - Regions and sealed buffers are left out of core dumps (`MADV_DONTDUMP`, `madvise(2)`).
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
mod owner;
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
