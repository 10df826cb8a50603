//! Messages and the two halves of a channel.
//!
//! Owns [`Sender`] and [`Receiver`], loans, messages and payloads, requests and replies, batches, and the counters
//! of both halves. [`Channel`] is both halves together.
//!
//! Refuses what exceeds the peer's limits before anything is sent, and every message of the peer that breaks the
//! protocol; a violation ends the channel.
//!
//! May import: all folders but `connect` and `tokio`.

pub(crate) mod ages;
mod backlog;
mod batch;
mod control;
mod delegate;
mod inbox;
mod interest;
mod loan;
mod message;
mod numbering;
mod outbox;
mod owned_loan;
mod payload;
mod peer;
pub(crate) mod receiver;
mod seek;
mod send_batch;
mod sender;
mod space;
pub(crate) mod stats;

use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

pub(crate) use self::delegate::delegate;
use self::{ages::DeliveryTimes, interest::Space, outbox::Outbox, space::SpaceWaiter};
pub(crate) use self::{
    backlog::{Backlog, LeftOut},
    inbox::Inbox,
    message::{Attachments, Story},
    numbering::Numbering,
    outbox::Wake,
    space::Block,
};
pub use self::{
    batch::{BatchMessage, RecvBatch},
    control::{Control, IntoBorrowedFd},
    loan::{Loan, LoanWriter, Unsent},
    message::{Message, ReplyToken, RequestId},
    owned_loan::{OwnedLoan, OwnsSender},
    payload::{Payload, PayloadReader},
    peer::{Credentials, Peer},
    receiver::{Messages, Receiver},
    send_batch::SendBatch,
    sender::Sender,
    stats::{Held, Limits, Stats},
};
use crate::{
    error::{Error, Result},
    socket::link::Closer,
    wait::Deadline,
};

/// One end of a connection between two processes: a [`Sender`] and a [`Receiver`], which are independent of each other.
///
/// The halves are public fields, as in [`std::process::Child`]: borrow them separately, or [`split`](Self::split) the
/// channel and move them into two threads. The channel itself has the everyday methods of both halves, and
/// [`call`](Self::call), which needs both. Event loops watch a half: the descriptor of the `receiver` says when there is
/// something to receive, that of the `sender` when there is room.
///
/// Dropping a channel closes both directions. A copy in a fork does so only after the fork has
/// [used it](crate#processes-as-they-are).
///
/// ```
/// use sealane::Channel;
///
/// let (mut pipeline, mut algorithm) = Channel::pair()?;
///
/// let mut statistics = pipeline.loan(3)?;
/// statistics.copy_from_slice(&[1, 2, 3]);
/// statistics.send_with(b"frame 1")?;
///
/// let message = algorithm.recv()?;
/// assert_eq!(message.control(), b"frame 1");
/// assert_eq!(message.payload().unwrap().to_vec(), [1, 2, 3]);
/// algorithm.send(b"gain 2.0")?;
/// assert_eq!(pipeline.recv()?.control(), b"gain 2.0");
/// # Ok::<(), sealane::Error>(())
/// ```
///
/// A loan borrows the sender only, so the receiver can be read while the loan is filled:
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// # b.loan(4)?.send()?;
/// let mut echo = a.sender.loan(4)?;
/// let question = a.receiver.recv()?;
/// question.payload().unwrap().copy_to_slice(&mut echo)?;
/// echo.send()?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Channel {
    /// The receiving half.
    // Declared, and so dropped, first: a peer that then learns of the sender's end finds the receiver gone too.
    pub receiver: Receiver,
    /// The sending half.
    pub sender: Sender,
}

impl Channel {
    pub(crate) fn new(sender: Sender, receiver: Receiver) -> Self {
        Self { receiver, sender }
    }

    /// Returns the two halves. Each may live in a thread of its own; dropping one closes its direction only.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The everyday methods of the [`Sender`]; the others are those of the field [`sender`](Self::sender).
impl Channel {
    delegate! { Sender: self.sender;
        pub fn loan(&mut self, len: usize) -> Result<Loan<'_>>;
        pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>>;
        pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()>;
        pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()>;
        pub fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId>;
        pub fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()>;
    }

    /// See [`Sender::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice`].
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Loan<'_, T>> {
        self.sender.loan_slice(count)
    }
}

/// The everyday methods of the [`Receiver`]; the others are those of the field [`receiver`](Self::receiver).
impl Channel {
    delegate! { Receiver: self.receiver;
        pub fn recv(&mut self) -> Result<Message>;
        pub fn try_recv(&mut self) -> Result<Option<Message>>;
        pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message>;
    }
}

/// Methods that need both halves, or are the same for both.
impl Channel {
    /// Sends a request and waits for its reply, for at most `timeout` in all: [`Sender::request_timeout`], then
    /// [`Receiver::wait_reply`]. Messages that come meanwhile are kept, in order, for [`recv`](Self::recv).
    ///
    /// If both sides call at the same time, neither answers the other until its own call has ended. Such programs answer in
    /// a loop instead, where replies arrive as messages.
    ///
    /// The peer should answer every request: nothing announces that it dropped one, so the call waits until its deadline.
    ///
    /// # Errors
    /// Those of [`Sender::request_timeout`] and [`Receiver::wait_reply`]; after any of them the request is cancelled.
    /// [`Error::UnknownRequest`] if the two halves are of different channels; nothing was sent.
    pub fn call<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<Message> {
        // The fields are public, so a program can combine the halves of two channels. A reply would never arrive there.
        if !self.receiver.is_of(self.sender.next_id()) {
            return Err(Error::UnknownRequest);
        }
        let deadline = Deadline::after(timeout);
        let request = self.sender.post(control, true, Block::Until(deadline))?;
        self.receiver.wait_reply_until(request, deadline).inspect_err(|_| self.receiver.cancel(request))
    }

    /// The process at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.sender.peer()
    }

    /// The counters of both halves together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.stats().merged(self.receiver.stats())
    }

    /// The limits of a message to the peer: those of the sender.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.sender.limits()
    }

    /// A handle that ends the channel, from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.sender.closer()
    }
}
