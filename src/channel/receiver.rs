//! [`Receiver`]: the receiving half of a channel, as the user sees it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use crate::{
    channel::{Backlog, Held, Inbox, Limits, Message, Peer, RecvBatch, RequestId, Stats},
    error::{Error, Result},
    ring::Releases,
    socket::{death::Watch, link::Closer},
    sys::own_region::ControlPage,
    wait::{Deadline, Outcome, Spinner},
};

/// The receiving half of a [`Channel`](crate::Channel). Messages arrive whole, in the order in which they were sent.
///
/// Everything that the peer committed is delivered before [`Error::Disconnected`], even if it has died.
///
/// # In an event loop
/// The descriptor ([`AsFd`]) becomes readable, level-triggered, when there is something to receive, provided that the
/// receiver is armed: a new one is, and it is again after [`try_recv`](Self::try_recv) has returned `None`. So drain until
/// `None`; a loop that stops earlier must not wait before it continues. After `Disconnected` it stays readable:
/// unregister it.
///
/// A receiver that is drained until `None` serves edge-triggered loops too. A loop that owns its source (calloop's `Generic`)
/// gets a duplicate (`as_fd().try_clone_to_owned()`), which is dropped with the registration.
///
/// ```
/// use sealane::Channel;
/// use std::time::Duration;
///
/// let (a, b) = Channel::pair()?;
/// let (mut sender, _) = a.split();
/// let (_, mut receiver) = b.split();
/// assert!(receiver.try_recv()?.is_none());
/// sender.send(b"hello")?;
/// assert_eq!(receiver.recv_timeout(Duration::from_secs(1))?.control(), b"hello");
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Receiver {
    pub(super) inbox: Inbox,
    /// Came while a reply was awaited.
    backlog: Backlog,
    peer: Peer,
}

impl Receiver {
    pub(crate) fn new(
        intake: Arc<Releases>,
        words: ControlPage,
        limits: Limits,
        peer: Peer,
        spinner: Spinner,
    ) -> Self {
        let watch = Watch::new(peer.pidfd_shared());
        Self { inbox: Inbox::new(intake, words, limits, watch, spinner), backlog: Backlog::default(), peer }
    }

    /// Waits for the next message, as long as the peer lives.
    ///
    /// # Errors
    /// [`Error::Disconnected`] after everything has been delivered, [`Error::FdsLost`] in place of a message,
    /// [`Error::Protocol`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message> {
        self.receive(Deadline::Never)
    }

    /// Waits for the next message for at most `timeout`; with zero, looks once.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::TimeoutHolding`] if the peer could not send because of payloads that are held here;
    /// and those of [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message> {
        self.receive(Deadline::after(timeout))
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
    fn receive(&mut self, deadline: Deadline) -> Result<Message> {
        match self.backlog.take() {
            Some(message) => Ok(message),
            None => self.inbox.receive(deadline),
        }
    }

    /// Takes the next message if there is one; never blocks. `None` arms the descriptor. Finding nothing costs a system
    /// call; to spin, use [`recv`](Self::recv) with [`Wait::Spin`](crate::Wait::Spin).
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        match self.find()? {
            Outcome::Done(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }

    /// Waits for the next message, as [`recv`](Self::recv) does, and gives out all that have arrived, one by one. A batch is
    /// the fastest way to receive many small messages.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv). A later message that would be an error ends the batch; the next call reports it.
    #[inline]
    pub fn recv_batch(&mut self) -> Result<RecvBatch<'_>> {
        self.batch_until(Deadline::Never)
    }

    /// Like [`recv_batch`](Self::recv_batch), for at most `timeout`; with zero, looks once.
    ///
    /// # Errors
    /// Those of [`recv_timeout`](Self::recv_timeout).
    pub fn recv_batch_timeout(&mut self, timeout: Duration) -> Result<RecvBatch<'_>> {
        self.batch_until(Deadline::after(timeout))
    }

    #[inline]
    fn batch_until(&mut self, deadline: Deadline) -> Result<RecvBatch<'_>> {
        let first = self.receive(deadline)?;
        Ok(RecvBatch::new(&mut self.inbox, &mut self.backlog, first, true))
    }

    /// Like [`recv_batch`](Self::recv_batch) if there is a message; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv_batch(&mut self) -> Result<Option<RecvBatch<'_>>> {
        Ok(self.try_recv()?.map(|first| self.batch_after(first)))
    }

    /// A batch that never rests, after its first message was received without waiting.
    pub(crate) fn batch_after(&mut self, first: Message) -> RecvBatch<'_> {
        RecvBatch::new(&mut self.inbox, &mut self.backlog, first, false)
    }

    /// Arms the descriptor and receives nothing; never blocks. True if there is no message: the descriptor becomes readable
    /// when there is one. False if there is a message, or may be one: receive, then arm again.
    ///
    /// It is for event loops that dispatch one event at a time (`Qt`, `GLib`, libcamera), where a handler does not drain the
    /// receiver.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.send(b"1")?;
    /// # a.send(b"2")?;
    /// // The handler of the event takes one message.
    /// let message = b.receiver.try_recv()?;
    /// # assert_eq!(message.unwrap().control(), b"1");
    /// if !b.receiver.arm()? {
    ///     // There is another message: dispatch the event again, before the loop waits.
    /// }
    /// # assert!(!b.receiver.arm()?);
    /// # assert_eq!(b.receiver.try_recv()?.unwrap().control(), b"2");
    /// # assert!(b.receiver.arm()?);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn arm(&mut self) -> Result<bool> {
        // A message that is all in the ring can stay there.
        if !self.backlog.is_empty() || self.inbox.try_inline().is_some() {
            return Ok(false);
        }
        match self.inbox.find()? {
            Outcome::Done(message) => self.backlog.put_back(message),
            Outcome::Empty => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// The messages, one after the other; waits for each as [`recv`](Self::recv) does. Ends when the peer is gone and all of
    /// its messages were delivered, and after a [fatal](Error::is_fatal) error.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// for word in ["to", "be"] {
    ///     a.send(word)?;
    /// }
    /// drop(a);
    /// let messages: Vec<_> = b.receiver.iter().collect::<sealane::Result<_>>()?;
    /// assert_eq!(messages.len(), 2);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn iter(&mut self) -> Messages<'_> {
        Messages { receiver: self, ended: false }
    }

    /// The next message, if it is here.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Outcome<Message>> {
        match self.backlog.take() {
            Some(message) => Ok(Outcome::Done(message)),
            None => self.inbox.find(),
        }
    }

    /// The payloads of this channel that have not been dropped, and so keep the peer from reusing their space.
    #[must_use]
    pub fn held(&self) -> Held {
        self.inbox.held()
    }

    /// Waits for the reply to a request, for at most `timeout`. Messages that come meanwhile are kept, in order, for
    /// [`recv`](Self::recv): drain them before waiting for the descriptor, which does not announce them. If the peer drops
    /// the request without a reply, the call waits until its deadline.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// let question = a.sender.request(b"gain?")?;
    /// # let token = b.recv()?.reply_token().unwrap();
    /// # b.send(b"frame 7")?;
    /// # b.reply(token, b"2.0")?;
    /// let answer = a.receiver.wait_reply(question, Duration::from_secs(1))?;
    /// assert_eq!(answer.control(), b"2.0");
    /// assert_eq!(a.receiver.recv()?.control(), b"frame 7", "which came before the reply");
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Timeout`], or [`Error::TimeoutHolding`] if payloads that are held here kept the peer from sending. The
    ///   request is [cancelled](Self::cancel).
    /// - [`Error::Backlog`] if 64 messages, 4 MiB or 256 descriptors are kept. The request is still open: receive messages,
    ///   then wait again.
    /// - [`Error::UnknownRequest`] if the request was answered or cancelled before, or belongs to another channel.
    /// - [`Error::Disconnected`] as soon as the peer is gone, and others of [`recv`](Self::recv).
    pub fn wait_reply(&mut self, request: RequestId, timeout: Duration) -> Result<Message> {
        self.wait_reply_until(request, Deadline::after(timeout))
    }

    pub(crate) fn wait_reply_until(&mut self, request: RequestId, deadline: Deadline) -> Result<Message> {
        let Self { inbox, backlog, .. } = self;
        backlog.wait_reply(&Arc::clone(&inbox.link), request, || inbox.receive(deadline))
    }

    /// Like [`wait_reply`](Self::wait_reply), without waiting: `None` if the reply has not come. The request stays open.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// let question = a.sender.request(b"gain?")?;
    /// assert!(a.receiver.take_reply(question)?.is_none());
    /// # let token = b.recv()?.reply_token().unwrap();
    /// # b.reply(token, b"2.0")?;
    /// // Later:
    /// let answer = a.receiver.take_reply(question)?.unwrap();
    /// # assert_eq!(answer.control(), b"2.0");
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`wait_reply`](Self::wait_reply) without timeouts.
    pub fn take_reply(&mut self, request: RequestId) -> Result<Option<Message>> {
        Ok(match self.find_reply(request)? {
            Outcome::Done(reply) => Some(reply),
            _ => None,
        })
    }

    /// The reply to `request`, if it is here; keeps the messages before it.
    pub(crate) fn find_reply(&mut self, request: RequestId) -> Result<Outcome<Message>> {
        let Self { inbox, backlog, .. } = self;
        backlog.find_reply(&Arc::clone(&inbox.link), request, || inbox.find())
    }

    /// Cancels a request: its reply is dropped and [counted](Stats::late_replies) if it still comes. Does nothing if the
    /// request was answered, or belongs to another channel.
    ///
    /// A cancelled request counts against [`max_requests`](crate::Limits::max_requests) until its reply comes.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// let question = a.sender.request(b"gain?")?;
    /// a.receiver.cancel(question);
    /// # let token = b.recv()?.reply_token().unwrap();
    /// # b.reply(token, b"2.0")?;
    /// assert!(a.receiver.try_recv()?.is_none());
    /// assert_eq!(a.receiver.stats().late_replies, 1);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn cancel(&self, request: RequestId) {
        request.cancel(&self.inbox.link);
    }

    /// A request of this channel that waits for its reply, by its [number](RequestId::number), or whose reply is kept. `None` if the
    /// reply was given out, or the request cancelled.
    ///
    /// ```
    /// # let (mut a, _b) = sealane::Channel::pair()?;
    /// let number = a.request(b"?")?.number();
    /// // Later, when nobody waits for the answer any more:
    /// let request = a.receiver.request_id(number).unwrap();
    /// a.receiver.cancel(request);
    /// assert_eq!(a.receiver.request_id(number), None);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn request_id(&self, number: u64) -> Option<RequestId> {
        RequestId::open(&self.inbox.link, number).or_else(|| self.backlog.request(number))
    }

    /// Whether a request is of this channel.
    pub(crate) fn is_of(&self, request: RequestId) -> bool {
        request.channel == self.inbox.link.id
    }

    /// The process at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The counts of this half.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inbox.stats
    }

    /// How large a message from the peer may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inbox.limits
    }

    /// A handle to end the whole channel with, from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.inbox.link))
    }
}

/// An iterator over the messages of a [`Receiver`]: from [`Receiver::iter`].
///
/// An item is an error where a message could not be delivered ([`Error::FdsLost`]), or where the channel fails; the end of
/// the peer is no error.
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// # a.send("1")?;
/// # drop(a);
/// let mut messages = b.receiver.iter();
/// assert_eq!(messages.next().unwrap()?.control(), b"1");
/// assert!(messages.next().is_none());
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator receives only when it is asked"]
pub struct Messages<'r> {
    receiver: &'r mut Receiver,
    ended: bool,
}

impl Iterator for Messages<'_> {
    type Item = Result<Message>;

    fn next(&mut self) -> Option<Result<Message>> {
        if self.ended {
            return None;
        }
        item(self.receiver.recv(), &mut self.ended)
    }
}

impl std::iter::FusedIterator for Messages<'_> {}

/// The item of an iterator or a stream for a result of receiving; sets `ended` if it is the last.
pub(crate) fn item(received: Result<Message>, ended: &mut bool) -> Option<Result<Message>> {
    *ended = received.as_ref().is_err_and(Error::is_fatal);
    match received {
        Err(Error::Disconnected) => None,
        received => Some(received),
    }
}

/// Closes this direction only: the peer's sender learns of it, and our sender stays open. A copy in a fork that has
/// not used it [closes nothing](crate#processes-as-they-are).
impl Drop for Receiver {
    fn drop(&mut self) {
        // A payload that lives on keeps the descriptors open, so the peer would not notice a close.
        self.inbox.link.close_receiving();
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.link.socket.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("next_sequence", &self.inbox.order.next_sequence())
            .field("ended", &self.inbox.eof)
            .field("kept", &self.backlog.len())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
