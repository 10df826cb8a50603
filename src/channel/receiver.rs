//! [`Receiver`]: the receiving half of a channel, as the user sees it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use crate::{
    channel::{
        backlog::Backlog,
        batch::Batch,
        inbox::{Inbox, Poll},
        message::{Message, RequestId},
        peer::Peer,
        stats::{Held, Limits, Stats},
    },
    error::{Error, Result},
    ring::release::Intake,
    socket::{death::Watch, link::Closer},
    sys::own_region::OwnWords,
    wait::{Deadline, Spinner},
};

/// The receiving half of a [`Channel`](crate::Channel). Messages arrive whole, in the order in which they were sent.
///
/// Everything that the peer committed is delivered before [`Error::Disconnected`], even if it has died.
///
/// # In an event loop
/// The descriptor ([`AsFd`]) becomes readable, level-triggered, when there is something to receive, provided that the
/// receiver is armed: a new one is, and it is again after [`try_recv`](Self::try_recv) has returned `None`. So drain until
/// `None`; who stops earlier must not wait before going on. After `Disconnected` it stays readable: unregister it.
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
        intake: Arc<Intake>,
        words: OwnWords,
        limits: Limits,
        peer: Peer,
        spinner: Spinner,
    ) -> Self {
        let watch = Watch::new(peer.shared_pidfd());
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
            Poll::Message(message) => Ok(Some(message)),
            Poll::Empty | Poll::Budget => Ok(None),
        }
    }

    /// Waits for the next message, as [`recv`](Self::recv) does, and gives out those that are here, one by one: the leanest
    /// way to receive many small ones.
    ///
    /// # Errors
    /// Waits for the next message, as [`recv`](Self::recv) does, and gives out those that are here, one by one: the leanest
    /// way to receive many small ones.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv). Where the next message would be an error the batch ends, and the next call tells.
    #[inline]
    pub fn recv_batch(&mut self) -> Result<Batch<'_>> {
        let first = self.recv()?;
        Ok(Batch::new(&mut self.inbox, &mut self.backlog, first, true))
    }

    /// As [`recv_batch`](Self::recv_batch) if there is a message; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv_batch(&mut self) -> Result<Option<Batch<'_>>> {
        Ok(self.try_recv()?.map(|first| Batch::new(&mut self.inbox, &mut self.backlog, first, false)))
    }

    /// The next message, if it is here.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Poll> {
        match self.backlog.take() {
            Some(message) => Ok(Poll::Message(message)),
            None => self.inbox.find(),
        }
    }

    /// The payloads of this channel that have not been dropped, and so keep the peer from reusing their space.
    #[must_use]
    pub fn held(&self) -> Held {
        self.inbox.held()
    }

    /// Waits for the reply to `request`, and keeps what comes meanwhile.
    pub(crate) fn wait_reply(&mut self, request: RequestId, deadline: Deadline) -> Result<Message> {
        if let Some(reply) = self.kept_reply(request)? {
            return Ok(reply);
        }
        loop {
            if self.backlog.is_full() {
                return Err(Error::Backlog);
            }
            match self.inbox.receive(deadline) {
                Ok(message) if message.in_reply_to() == Some(request) => return Ok(message),
                Ok(message) => self.backlog.keep(message),
                Err(error) => {
                    if error.is_timeout() {
                        self.give_up(request);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The reply to `request`, if it is here; keeps what came before.
    #[cfg(feature = "tokio")]
    pub(crate) fn find_reply(&mut self, request: RequestId) -> Result<Poll> {
        if let Some(reply) = self.kept_reply(request)? {
            return Ok(Poll::Message(reply));
        }
        loop {
            if self.backlog.is_full() {
                return Err(Error::Backlog);
            }
            match self.inbox.find()? {
                Poll::Message(message) if message.in_reply_to() != Some(request) => {
                    self.backlog.keep(message);
                }
                found => return Ok(found),
            }
        }
    }

    /// The reply to `request` if it is kept; an error if it is neither kept nor still to come.
    fn kept_reply(&mut self, request: RequestId) -> Result<Option<Message>> {
        if let Some(reply) = self.backlog.take_reply(request) {
            return Ok(Some(reply));
        }
        let open =
            request.channel == self.inbox.link.id && self.inbox.link.requests.is_open(request.sequence);
        if open { Ok(None) } else { Err(Error::UnknownRequest) }
    }

    /// Says that nobody waits for the reply to `request` any more: if it comes it is dropped and counted. Does nothing if it
    /// was answered. The request counts against [`max_requests`](crate::Limits::max_requests) until its reply comes.
    pub fn give_up(&self, request: RequestId) {
        if request.channel == self.inbox.link.id {
            self.inbox.link.requests.give_up(request.sequence);
        }
    }

    /// Who the peer is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What this half has counted.
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

/// Closes this direction only: the peer's sender learns of it, our sender goes on. A copy in a fork that has not used it
/// [closes nothing](crate#processes-as-they-are).
impl Drop for Receiver {
    fn drop(&mut self) {
        // A payload that lives on keeps the descriptors open, so closing would not tell the peer.
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
            .field("next_sequence", &self.inbox.next_sequence())
            .field("ended", &self.inbox.eof)
            .field("kept", &self.backlog.len())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
