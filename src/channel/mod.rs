//! Messages and the two halves of a channel.
//!
//! Owns [`Sender`] and [`Receiver`], loans, messages and payloads, requests and replies, batches, and what the halves
//! count. [`Channel`] is both halves together.
//!
//! Refuses what exceeds the peer's limits before anything is sent, and every message of the peer that breaks the
//! protocol; a violation ends the channel.
//!
//! May import: all folders but `connect` and `tokio`.

pub(crate) mod ages;
pub(crate) mod backlog;
pub(crate) mod batch;
pub(crate) mod control;
pub(crate) mod inbox;
pub(crate) mod interest;
pub(crate) mod loan;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod payload;
pub(crate) mod peer;
pub(crate) mod receiver;
pub(crate) mod seek;
pub(crate) mod sender;
pub(crate) mod space;
pub(crate) mod stats;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    channel::{
        batch::Batch,
        control::Control,
        loan::Loan,
        message::{Message, ReplyToken, RequestId},
        peer::Peer,
        receiver::Receiver,
        sender::Sender,
        stats::{Held, Limits, Stats},
    },
    error::Result,
    socket::link::Closer,
    wait::Deadline,
};

/// One end of a connection between two processes: a [`Sender`] and a [`Receiver`], which are independent of each other.
///
/// It has all methods of both; where a name belongs to both halves ([`limits`](Self::limits), the descriptor), it says
/// which one answers. [`split`](Self::split) it to use the halves in two threads. Dropping it closes both directions; in a fork, only once that
/// has [used it](crate#processes-as-they-are).
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
#[derive(Debug)]
pub struct Channel {
    // Dropped first: a peer that then learns of the sender's end finds the receiver gone too.
    receiver: Receiver,
    sender: Sender,
}

impl Channel {
    pub(crate) fn new(sender: Sender, receiver: Receiver) -> Self {
        Self { receiver, sender }
    }

    /// The two halves. Each may live in a thread of its own; dropping one closes its direction only.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// Of the [`Sender`].
impl Channel {
    /// See [`Sender::loan`].
    ///
    /// # Errors
    /// Those of [`Sender::loan`].
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.sender.loan(len)
    }

    /// See [`Sender::try_loan`].
    ///
    /// # Errors
    /// Those of [`Sender::try_loan`].
    #[inline]
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        self.sender.try_loan(len)
    }

    /// See [`Sender::loan_timeout`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_timeout`].
    pub fn loan_timeout(&mut self, len: usize, timeout: Duration) -> Result<Loan<'_>> {
        self.sender.loan_timeout(len, timeout)
    }

    /// See [`Sender::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice`].
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Loan<'_, T>> {
        self.sender.loan_slice(count)
    }

    /// See [`Sender::has_space`].
    ///
    /// # Errors
    /// Those of [`Sender::has_space`].
    pub fn has_space(&mut self, len: usize) -> Result<bool> {
        self.sender.has_space(len)
    }

    /// See [`Sender::batch`].
    pub fn batch<R>(&mut self, send: impl FnOnce(&mut Sender) -> R) -> R {
        self.sender.batch(send)
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// Those of [`Sender::send`].
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.sender.send(control)
    }

    /// See [`Sender::try_send`].
    ///
    /// # Errors
    /// Those of [`Sender::try_send`].
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.sender.try_send(control)
    }

    /// See [`Sender::send_timeout`].
    ///
    /// # Errors
    /// Those of [`Sender::send_timeout`].
    pub fn send_timeout<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.sender.send_timeout(control, timeout)
    }

    /// See [`Sender::request`].
    ///
    /// # Errors
    /// Those of [`Sender::request`].
    pub fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.sender.request(control)
    }

    /// See [`Sender::try_request`].
    ///
    /// # Errors
    /// Those of [`Sender::try_request`].
    pub fn try_request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.sender.try_request(control)
    }

    /// See [`Sender::request_timeout`].
    ///
    /// # Errors
    /// Those of [`Sender::request_timeout`].
    pub fn request_timeout<'c>(
        &mut self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<RequestId> {
        self.sender.request_timeout(control, timeout)
    }

    /// See [`Sender::reply`].
    ///
    /// # Errors
    /// Those of [`Sender::reply`].
    pub fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.sender.reply(token, control)
    }
}

/// Of the [`Receiver`].
impl Channel {
    /// See [`Receiver::recv`].
    ///
    /// # Errors
    /// Those of [`Receiver::recv`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message> {
        self.receiver.recv()
    }

    /// See [`Receiver::try_recv`].
    ///
    /// # Errors
    /// Those of [`Receiver::try_recv`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.receiver.try_recv()
    }

    /// See [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// Those of [`Receiver::recv_timeout`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message> {
        self.receiver.recv_timeout(timeout)
    }

    /// See [`Receiver::recv_batch`].
    ///
    /// # Errors
    /// Those of [`Receiver::recv_batch`].
    #[inline]
    pub fn recv_batch(&mut self) -> Result<Batch<'_>> {
        self.receiver.recv_batch()
    }

    /// See [`Receiver::try_recv_batch`].
    ///
    /// # Errors
    /// Those of [`Receiver::try_recv_batch`].
    #[inline]
    pub fn try_recv_batch(&mut self) -> Result<Option<Batch<'_>>> {
        self.receiver.try_recv_batch()
    }

    /// See [`Receiver::held`].
    #[must_use]
    pub fn held(&self) -> Held {
        self.receiver.held()
    }
}

/// Of both.
impl Channel {
    /// Sends a request and waits for its reply: [`request`](Self::request), then [`wait_reply`](Self::wait_reply).
    ///
    /// If both sides call at once, neither answers the other until its own call has ended: then answer in a loop instead,
    /// where replies arrive as messages.
    ///
    /// A request that the other side drops without a reply is waited for until the time is over: nothing tells of it. So
    /// answer every request.
    ///
    /// # Errors
    /// Those of the two.
    pub fn call<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<Message> {
        let deadline = Deadline::after(timeout);
        let request = self.sender.request_until(control, deadline)?;
        self.receiver.wait_reply(request, deadline).inspect_err(|_| self.give_up(request))
    }

    /// Waits for the reply to a request, for at most `timeout`. What comes meanwhile is kept, in order, for
    /// [`recv`](Self::recv): so drain before waiting for the descriptor, which does not tell of it. A request that the other
    /// side drops without a reply is waited for until the time is over.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout): the request is given up, a late reply will be dropped.
    /// [`Error::TimeoutHolding`](crate::Error::TimeoutHolding): the same, and payloads that are held here kept the peer from
    /// sending.
    /// [`Error::Backlog`](crate::Error::Backlog): 64 messages, 4 MiB or 256 descriptors are kept; the request is still
    /// open. [`Error::UnknownRequest`](crate::Error::UnknownRequest) if the request was answered or given up before, or belongs to another
    /// channel. [`Error::Disconnected`](crate::Error::Disconnected) as soon as the peer is gone. Others of
    /// [`recv`](Self::recv).
    pub fn wait_reply(&mut self, request: RequestId, timeout: Duration) -> Result<Message> {
        self.receiver.wait_reply(request, Deadline::after(timeout))
    }

    /// See [`Receiver::give_up`].
    pub fn give_up(&self, request: RequestId) {
        self.receiver.give_up(request);
    }

    /// Who the peer is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.sender.peer()
    }

    /// What both halves have counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.stats().merged(self.receiver.stats())
    }

    /// How large a message to the peer may be: the sender's.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.sender.limits()
    }

    /// A handle to end the channel with, from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.sender.closer()
    }

    /// The descriptor of the sending half: readable when trying again is worthwhile, see [`Sender`].
    #[must_use]
    pub fn space_fd(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }
}

/// The receiver's: readable when there is something to receive, see [`Receiver`].
impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
