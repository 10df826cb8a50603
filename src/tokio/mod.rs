//! Channels, publishers and subscribers for [tokio]: the same types, whose waiting is awaiting. Needs the cargo feature
//! `tokio`.
//!
//! Every type here wraps its namesake of the crate, and is made of it by `try_from`; [`Message`](crate::Message),
//! [`Control`](crate::Control) and [`Builder`](crate::Builder) are the same. The runtime watches a *duplicate* of
//! each descriptor, and never reads it.
//!
//! Methods that wait are `async` here; `try_` forms do not wait. There are no `_timeout` forms: use
//! [`timeout`](::tokio::time::timeout). A [`Receiver`] and a [`Subscriber`] are [`Stream`](futures_core::Stream)s too. All
//! types but [`Channel`] and [`Listener`] dereference to those that block, as far as their methods take `&self`: limits,
//! counters, held payloads, `cancel`.
//!
//! A [`Publisher`] is served by one task, which publishes, and takes the [events](Publisher::next_event) that its subscribers
//! bring about. Each [`Subscriber`] may live in a task or process of its own.
//!
//! ```
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> sealane::Result<()> {
//!     let (a, b) = sealane::Channel::pair()?;
//!     let (mut pipeline, mut algorithm) =
//!         (sealane::tokio::Channel::try_from(a)?, sealane::tokio::Channel::try_from(b)?);
//!
//!     tokio::spawn(async move {
//!         let request = algorithm.recv().await?;
//!         let mut answer = algorithm.loan(1 << 20).await?;
//!         answer.fill(request.control()[0]);
//!         answer.send_with(sealane::Control::default().in_reply_to(request.reply_token().unwrap())).await
//!     });
//!
//!     let time = std::time::Duration::from_secs(5);
//!     let reply = tokio::time::timeout(time, pipeline.call(b"7")).await.expect("it answers in time")?;
//!     assert_eq!(reply.payload().unwrap().bytes().get(1000), Some(b'7'));
//!     Ok(())
//! }
//! ```
//!
//! # Cancelling
//! Every future here may be dropped at any time, as `select!` and [`timeout`](::tokio::time::timeout) do, and nothing
//! is lost: a message was either received by the future that was polled last, or is still there; it was either sent,
//! and the future said so, or not at all; a loan that was not sent is free again. The exceptions are:
//! - [`Channel::call`]: the request may have been sent. Its reply is dropped when it comes, and
//!   [counted](crate::Stats::late_replies). Other messages that came meanwhile are kept for [`recv`](Channel::recv). The same
//!   holds for [`Subscriber::call`].
//! - [`Channel::spawn`]: the child is killed and reaped.
//! - [`Channel::connect`], [`establish`](Channel::establish) and [`Subscriber::connect`]: the handshake is broken off.
//!   [`Listener::accept`], [`accept_handshake`](Listener::accept_handshake) and [`Publisher::next_event`] break off none.
//!
//! Futures do nothing before they are polled, and all of them are `Send`.
//!
//! # The runtime
//! The runtime needs its drivers for I/O and time (`enable_all`). A conversion outside of such a runtime panics, as it does
//! in tokio. A task that always finds something to receive or room to send yields now and then
//! ([`coop`](::tokio::task::coop)). [`Wait`](crate::Wait) means nothing here: nothing spins.
//!
//! The calls of this module do not look at the peer's process, whatever [`Builder::peer_pidfd`](crate::Builder::peer_pidfd)
//! says. Watch [`Peer::pidfd`](crate::Peer::pidfd).
//!
//! A runtime with threads does not survive a fork, which has only the thread that forked: a program that goes into
//! the background (`daemon(3)`) does so before it starts one. A fork that drops objects which the runtime watches
//! ends no registration of its parent.

mod channel;
mod listener;
mod loan;
mod publisher;
mod publisher_loan;
mod readiness;
mod receiver;
mod sender;
mod subscriber;

pub use channel::Channel;
pub use listener::Listener;
pub use loan::{Loan, LoanWriter};
pub use publisher::Publisher;
pub use publisher_loan::PublisherLoan;
use readiness::{Attempt, Readiness};
pub use receiver::Receiver;
pub use sender::{SendBatch, Sender};
pub use subscriber::Subscriber;
