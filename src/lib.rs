//! Zero-copy IPC between Linux processes that do not trust each other, with no `unsafe` in the public API.
//!
//! A [`Channel`] joins two processes. Payloads are written in place in a [`Loan`] of a shared ring that only the sender can
//! write, and read by value, where they lie, from a [`Payload`]. Control bytes and descriptors travel in the same
//! [`Message`], or alone. A [`Publisher`] writes once for any number of [`Subscriber`]s.
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
//! | start a child process with a channel | [`Channel::spawn`], and [`Channel::inherited`] in it |
//! | start it in another way | [`Builder::prepare`], and [`Builder::inherited_as`] in it |
//! | serve clients | [`Listener`], and [`Channel::connect`] |
//! | serve clients on a given socket | [`Builder::listen_on`] |
//! | set sizes and limits | [`Builder`] |
//! | use the two directions in two threads | [`Channel`]: its halves, [`Sender`] and [`Receiver`], are fields |
//! | use an event loop | [`Receiver`], [`Sender`] and [`Handshake`] each say when their descriptor is readable |
//! | ask and answer | [`Channel::call`], [`Channel::reply`] |
//! | await instead of waiting | the feature `tokio`, and `sealane::tokio` |
//! | fork, or go into the background | [below](#processes-as-they-are) |
//! | read payloads | [`SharedSlice`], [`PayloadReader`] |
//! | serialise to a payload | [`LoanWriter`] |
//! | store a loan in a struct | [`OwnedLoan`] |
//! | write once for many readers | [`Publisher`], and [`Subscriber`] in them |
//! | send one table to many | [`SealedBuffer`] |
//!
//! # Requirements
//! 64-bit little-endian Linux, 5.14 or later. Each channel takes three descriptors, four with [`Builder::peer_pidfd`], and the
//! memory of its own ring. The feature `tokio` is off by default.
//!
//! # What to rely on
//! - A message is whole or not at all, and messages arrive in the order in which they were sent.
//! - Committed messages are delivered, even if their sender is gone.
//! - No act of a peer makes this library panic. No call waits past its deadline, with two exceptions: closing a descriptor
//!   that the peer sent, for which the kernel sets no limit, and starting children ([`Builder::spawn`]).
//! - No descriptor of this library, and none that it received, has the number of a standard stream, whatever is closed.
//! - Plain verbs block, as long as the peer lives; `try_…` forms never do; `…_timeout` forms end after their time.
//!
//! # Processes as they are
//! A program may fork, or go into the background (`daemon(3)`), while it has channels, publishers, subscribers, listeners and buffers. The fork
//! inherits all of them: each process has a copy.
//! - The *owner* of a copy is the process that made it, until a fork uses its own copy: sends, lends, receives, accepts. From
//!   then on that copy is the fork's. Only an owner's drop is noticed elsewhere: it closes a direction, removes a listener's
//!   file, gives a payload's space back. Any other process's drop closes and unmaps its copy, and nothing else.
//! - A daemon keeps its channels, and its drops are noticed. A half that it drops before it has used its channel closes when
//!   the other half is dropped too; a payload that it drops before that gives its space back at the first use.
//! - The process that a daemon leaves behind ends by `_exit(2)`, as in `daemon(3)`, or by `std::process::exit`. One that
//!   returns from `main` drops its listener, which removes the path, and its channels, which are shut.
//! - A helper's drops of inherited values, and its exit, are not noticed. A helper that keeps a copy keeps the socket open:
//!   then the peer does not learn that this process was killed, and a listener's path looks alive.
//! - Workers that are forked from a server and accept for it would each own its [`Listener`], and the first one that ends would
//!   remove its path. So each makes a listener of its own, of a duplicate of the descriptor ([`Builder::listen_on`]).
//! - [`Closer::close`] acts in any process that calls it.
//! - Each value is for one process at a time. Two processes that send, or receive, on copies of one channel break its order,
//!   which the peer calls a violation. A [`Loan`] or [`SealedBufferMut`] that both use is one `&mut` in two processes:
//!   a program that forks has to avoid that, as the standard library demands of users of `pre_exec`.
//! - [`Channel::pair`] does not serve a fork with one end each: the process that made both owns both, and its drop of one
//!   end shuts the other process's copy. [`Channel::spawn`] and [`Listener`] are for two processes.
//! - A fork can write its parent's rings and use its sockets. A process that deserves less trust executes a program.
//! - A runtime with threads does not survive a fork, so a program goes into the background before it starts one.
//! - Core dumps leave regions and sealed buffers out (`MADV_DONTDUMP`, `madvise(2)`).
#![cfg_attr(
    any(doc, doctest),
    doc = "\n# Read on\n- [`docs::guide`]: event loops, requests, restarts, many clients, moving here, and questions by error message.\n- [`docs::fanout`]: one writer, many readers.\n- [`docs::workers`]: a worker that may crash.\n- [`docs::tuning`]: ring sizes, ways to wait, batches.\n- [`docs::architecture`], [`docs::protocol`]: layers and terms, and the bytes that cross.\n- [`docs::security`], [`docs::sandbox`], [`docs::unsafe_code`]: attacks with checks and tests, system calls, obligations.\n- [`docs::camera`]: frames in dmabufs, statistics in payloads.\n- [`docs::serde`]: sending serde types."
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

mod channel;
mod connect;
mod error;
mod fanout;
mod memory;
mod protocol;
mod ring;
mod socket;
mod sys;
mod wait;

#[cfg(feature = "tokio")]
pub mod tokio;

/// The pages of the repository's folder `docs`.
#[cfg(any(doc, doctest))]
pub mod docs {
    /// Includes pages. The links of each are defined twice: here for rustdoc, where the first definition counts, and at the
    /// page's end for the repository.
    macro_rules! pages {
        ($($(#[$about:meta])* $name:ident = $file:literal;)*) => {$(
            $(#[$about])*
            #[doc = ""]
            #[doc = include_str!("../docs/rustdoc.links")]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $name {}
        )*};
    }

    pages! {
        /// Layers, terms and decisions.
        architecture = "architecture.md";
        /// Frames in dmabufs, statistics in payloads.
        camera = "camera.md";
        /// One writer, many readers: policies, late joiners, buffers that come back.
        fanout = "fanout.md";
        /// Event loops, requests, restarts, many clients, moving here, and errors.
        guide = "guide.md";
        /// The bytes that cross the process boundary.
        protocol = "protocol.md";
        /// System calls that a sandbox has to allow.
        sandbox = "sandbox.md";
        /// The threat model, and each attack with its check and its test.
        security = "security.md";
        /// Sending serde types.
        serde = "serde.md";
        /// The command `sealane`: looking, recording, examining.
        tools = "tools.md";
        /// Ring sizes, ways to wait, batches.
        tuning = "tuning.md";
        /// Every obligation of unsafe code.
        unsafe_code = "unsafe.md";
        /// A worker that may crash: what is in flight, what is repeated, and what a restart costs.
        workers = "workers.md";
    }
}
/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use channel::{
    BatchMessage, Channel, Control, Credentials, Held, IntoBorrowedFd, Limits, Loan, LoanWriter, Message,
    Messages, OwnedLoan, OwnsSender, Payload, PayloadReader, Peer, Receiver, RecvBatch, ReplyToken,
    RequestId, SendBatch, Sender, Stats, Unsent,
};
pub use connect::{Builder, Handshake, Inheritable, Listener, Prepared};
pub use error::{CastError, Error, HandshakeError, ProtocolError, Reason, Refusal, Result, SealError};
pub use fanout::{
    Event, Newcomer, Published, Publisher, PublisherBatch, PublisherLoan, Subscriber, SubscriberId,
    SubscriberInfo,
};
pub use memory::{
    sealed_buffer::{SealedBuffer, SealedBufferMut},
    shared_slice::{ArrayChunks, Iter, SharedSlice},
};
pub use protocol::{Slow, Start};
pub use socket::link::Closer;
pub use wait::Wait;
/// Re-exported for its traits, which say what types may cross.
///
/// A program without a dependency of its own on `zerocopy` derives them so:
///
/// ```
/// use sealane::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[zerocopy(crate = "sealane::zerocopy")]
/// #[repr(C)]
/// struct Frame {
///     id: u64,
///     zones: u64,
/// }
/// ```
pub use zerocopy;
