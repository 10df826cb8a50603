//! [`Subscriber`]: a reader of a publisher's ring, as the user sees it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    channel::{Backlog, Block, Control, Limits, Message, Peer, RequestId, Sender, Stats},
    connect::{Builder, Handshake, Region, Role, Settings, child},
    error::{Error, Result},
    fanout::{
        Published,
        feed::{Feed, Wanted},
    },
    protocol::{Slow, Start, Word},
    ring::Releases,
    socket::{death::Watch, link::Closer, seqpacket::Socket},
    wait::{Deadline, Outcome},
};

/// A reader of a [`Publisher`](crate::Publisher)'s messages.
///
/// What becomes of it when it is slow was [granted](Self::granted) when it joined:
///
/// | policy | messages | payloads |
/// |---|---|---|
/// | [`Slow::Wait`] | all, in order, until it is ended ([`Error::TooSlow`]) | read in place, as a channel's; the publisher waits until they are dropped |
/// | [`Slow::Overrun`] | in order, with gaps that are told exactly ([`Message::missed`]) | copied to private memory, and whole |
///
/// A gap is no error: `while let Ok(message) = subscriber.recv()` does not end at one.
///
/// The way back is for control messages: [`send`](Self::send), [`request`](Self::request) and [`call`](Self::call). A reply is for this
/// subscriber alone, and comes outside of the order of the published messages.
///
/// # In an event loop
/// The descriptor ([`AsFd`]) is readable, level-triggered, when there is something to receive, as a
/// [`Receiver`](crate::Receiver)'s: drain until `None`.
///
/// ```
/// use std::time::Duration;
/// use sealane::{Builder, Publisher, Slow, Subscriber};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("readings");
/// let mut publisher = Publisher::bind(&path)?;
/// let reader = std::thread::spawn(move || {
///     let mut subscriber = Builder::default().slow(Slow::Overrun).subscribe(path)?;
///     assert_eq!(subscriber.granted(), Slow::Overrun);
///     let mut missed = 0;
///     while let Ok(message) = subscriber.recv() {
///         missed += message.missed();
///     }
///     Ok::<_, sealane::Error>((subscriber.stats().messages_received, missed))
/// });
/// while publisher.subscribers().is_empty() {
///     publisher.wait_event(Duration::from_secs(5))?;
/// }
/// for reading in 0..1000_u32 {
///     publisher.send(&reading.to_le_bytes())?;
/// }
/// drop(publisher);
/// let (received, missed) = reader.join().unwrap()?;
/// assert!(received + missed <= 1000);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Subscriber {
    feed: Feed,
    /// Came while a reply was awaited.
    backlog: Backlog,
    sender: Sender,
    granted: Slow,
    peer: Peer,
    /// The random number of the publisher's region.
    run: u64,
}

/// Ways to subscribe.
impl Builder {
    /// Subscribes at a publisher's path ([`publish`](Self::publish)); blocks for the handshake timeout at most. Of the settings,
    /// [`slow`](Self::slow) and [`start`](Self::start) are wishes; [`max_control`](Self::max_control) and
    /// [`max_fds`](Self::max_fds), which is 0 by default, must be as large as the publisher's;
    /// [`ring_capacity`](Self::ring_capacity) has no meaning.
    ///
    /// # Errors
    /// [`Error::Io`] if nobody publishes there; [`Error::Timeout`]; [`Error::Handshake`]: also if a
    /// [`Listener`](crate::Listener) is there, or the publisher refuses.
    pub fn subscribe(&self, path: impl AsRef<Path>) -> Result<Subscriber> {
        Handshake::connect(path.as_ref(), self.settings()?.to_subscribe()).and_then(Subscriber::of)
    }

    /// Subscribes over a connected socket, whose other end its publisher [adds](crate::Publisher::add).
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe), and
    /// [`HandshakeError::NotSeqpacket`](crate::HandshakeError::NotSeqpacket).
    pub fn subscribe_on(&self, socket: OwnedFd) -> Result<Subscriber> {
        begin(Socket::from_fd(socket)?, self.settings()?.to_subscribe()).and_then(Subscriber::of)
    }

    /// Subscribes to the parent, in a child that a publisher has [spawned](crate::Publisher::spawn). Works once in a process.
    ///
    /// # Errors
    /// Those of [`inherited`](Self::inherited).
    pub fn subscribe_inherited(&self) -> Result<Subscriber> {
        begin(child::inherited()?, self.settings()?.to_subscribe()).and_then(Subscriber::of)
    }

    /// A subscriber's wish for where to begin. Default: [`Start::Next`].
    pub fn start(self, start: Start) -> Self {
        self.with(|settings| settings.start = start)
    }
}

/// Begins the handshake of a subscriber.
pub(crate) fn begin(socket: Socket, settings: Settings) -> Result<Handshake> {
    Handshake::new(socket, settings, Role::Caller)
}

impl Subscriber {
    /// Subscribes with the default settings: see [`Builder::subscribe`].
    ///
    /// # Errors
    /// Those of [`Builder::subscribe`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Builder::default().subscribe(path)
    }

    /// Subscribes to the parent with the default settings: see [`Builder::subscribe_inherited`].
    ///
    /// # Errors
    /// Those of [`Builder::subscribe_inherited`].
    pub fn inherited() -> Result<Self> {
        Builder::default().subscribe_inherited()
    }

    /// Completes a handshake.
    pub(crate) fn of(handshake: Handshake) -> Result<Self> {
        let parts = handshake.parts()?;
        // A subscriber's handshake ends with terms, and with a region of its own.
        let (Some(terms), Region::Own(region)) = (parts.terms, parts.region) else {
            return Err(Error::Disconnected);
        };
        let words = region.words;
        // UNTRUSTED: the publisher's own word. It was read once, when our page was told whom it belongs to.
        let run = words.word(Word::Peer).load(Relaxed);
        let intake =
            Releases::of_subscription(parts.peer_region, parts.link, words.clone(), terms.first_position);
        let (peer, spinner) = (parts.peer, parts.spinner);
        let sender = Sender::new(
            Arc::clone(&intake),
            region.ring,
            words.clone(),
            parts.sending,
            peer.clone(),
            spinner.clone(),
        );
        let watch = Watch::new(peer.pidfd_shared());
        let feed = Feed::new(intake, words, parts.receiving, terms, watch, spinner);
        Ok(Self { feed, backlog: Backlog::default(), sender, granted: terms.slow, peer, run })
    }

    /// What the publisher does when this subscriber is slow: its wish, or less.
    #[must_use]
    pub fn granted(&self) -> Slow {
        self.granted
    }

    /// Waits for the next message, as long as the publisher lives.
    ///
    /// # Errors
    /// [`Error::Disconnected`] after all that was published has been delivered, [`Error::TooSlow`], [`Error::Protocol`];
    /// [`Error::FdsLost`] in place of a message.
    #[inline]
    pub fn recv(&mut self) -> Result<Message> {
        self.receive(Wanted::Next, Deadline::Never)
    }

    /// Waits for the next message for at most `timeout`; with zero, looks once.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::TimeoutHolding`] if the publisher waits for payloads that are held here; and those of
    /// [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message> {
        self.receive(Wanted::Next, Deadline::after(timeout))
    }

    /// Takes the next message if there is one; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        Ok(done(self.find()?))
    }

    /// Waits for the newest message with a payload that was not received yet, and leaves out all before it. They count as
    /// [missed](Message::missed): for control loops, which want the newest and nothing else. Replies stay for
    /// [`recv`](Self::recv), and so do messages without a payload behind the newest one, also at the end.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn recv_latest(&mut self) -> Result<Message> {
        self.receive_latest(Deadline::Never)
    }

    /// Like [`recv_latest`](Self::recv_latest), for at most `timeout`.
    ///
    /// # Errors
    /// Those of [`recv_timeout`](Self::recv_timeout).
    pub fn recv_latest_timeout(&mut self, timeout: Duration) -> Result<Message> {
        self.receive_latest(Deadline::after(timeout))
    }

    /// Like [`recv_latest`](Self::recv_latest), if there is such a message; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn try_recv_latest(&mut self) -> Result<Option<Message>> {
        Ok(done(self.find_latest()?))
    }

    /// Waits for the next published message and reads it in place: `read` is called with it, and afterwards it is checked that nothing
    /// was overwritten meanwhile. `None` if something was: then the result of `read` is dropped, and the message is missed. Nothing
    /// is copied but control bytes.
    ///
    /// Descriptors of the message are closed, and replies stay for [`recv`](Self::recv).
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    #[inline]
    pub fn recv_with<R>(&mut self, read: impl FnOnce(&Published<'_>) -> R) -> Result<Option<R>> {
        self.read_next(Deadline::Never, read)
    }

    /// Like [`recv_with`](Self::recv_with), for at most `timeout`.
    ///
    /// # Errors
    /// Those of [`recv_timeout`](Self::recv_timeout).
    pub fn recv_with_timeout<R>(
        &mut self,
        timeout: Duration,
        read: impl FnOnce(&Published<'_>) -> R,
    ) -> Result<Option<R>> {
        self.read_next(Deadline::after(timeout), read)
    }

    /// Arms the descriptor and receives nothing; never blocks. True if there is no message: the descriptor becomes readable when
    /// there is one. See [`Receiver::arm`](crate::Receiver::arm).
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv).
    pub fn arm(&mut self) -> Result<bool> {
        if !self.backlog.is_empty() {
            return Ok(false);
        }
        match self.feed.find_message(Wanted::Next)? {
            Outcome::Done(message) => self.backlog.put_back(message),
            Outcome::Empty => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a message on its way must not be copied from frame to frame")]
    fn receive(&mut self, wanted: Wanted, deadline: Deadline) -> Result<Message> {
        match self.backlog.take() {
            Some(message) => Ok(message),
            None => self.feed.receive(wanted, deadline),
        }
    }

    fn receive_latest(&mut self, deadline: Deadline) -> Result<Message> {
        if self.backlog.has_payload()
            && let Outcome::Done(message) = self.find_latest()?
        {
            return Ok(message);
        }
        self.feed.receive(Wanted::Latest, deadline).map(|message| self.after_all_kept(message))
    }

    /// The newest message with a payload: one that is published now, or else one that came while a reply was awaited.
    pub(crate) fn find_latest(&mut self) -> Result<Outcome<Message>> {
        match self.feed.find_message(Wanted::Latest) {
            Ok(Outcome::Done(message)) => Ok(Outcome::Done(self.after_all_kept(message))),
            nothing => match self.backlog.take_latest() {
                Some((message, left_out)) => Ok(Outcome::Done(self.feed.leave_out(left_out, message))),
                None => nothing,
            },
        }
    }

    /// Leaves out the messages that are kept, which are older than this one.
    fn after_all_kept(&mut self, message: Message) -> Message {
        let left_out = self.backlog.leave_out();
        self.feed.leave_out(left_out, message)
    }

    fn read_next<R>(
        &mut self,
        deadline: Deadline,
        read: impl FnOnce(&Published<'_>) -> R,
    ) -> Result<Option<R>> {
        match self.backlog.take_unasked() {
            Some(message) => self.feed.read_in_place(&message, read),
            None => self.feed.receive_with(deadline, read),
        }
    }

    /// The next message, if it is here.
    pub(crate) fn find(&mut self) -> Result<Outcome<Message>> {
        match self.backlog.take() {
            Some(message) => Ok(Outcome::Done(message)),
            None => self.feed.find_message(Wanted::Next),
        }
    }

    /// Messages that were missed, in all: before the last message that was received, and at the end.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.feed.missed
    }

    /// The number, at its source, of the message that follows the last one that was taken out of the ring. Publishers that are not the
    /// source say it ([`Publisher::number`](crate::Publisher::number)); others count their messages from 0.
    ///
    /// - It counts each message that was published or reported lost before. So it grows by exactly what is received and
    ///   [missed](Self::missed), as long as the source's run is the same ([`Message::epoch`]) and the publisher sets no other
    ///   number. A message that ends in [`Error::FdsLost`] counts as well; replies do not.
    /// - Messages that are kept during a [`call`](Self::call), or by [`arm`](Self::arm), are counted already.
    /// - Before the first message it is the place where the subscription began. The publisher's numbers are known with the first
    ///   message.
    /// - It is the publisher's own word, and wraps: a hostile one may say any number at any time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sealane::{Publisher, Subscriber};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("readings");
    /// # let mut publisher = Publisher::bind(&path)?;
    /// # let joining = std::thread::spawn(|| Subscriber::connect(path));
    /// # while publisher.subscribers().is_empty() {
    /// #     publisher.wait_event(Duration::from_secs(5))?;
    /// # }
    /// # let mut subscriber = joining.join().unwrap()?;
    /// for reading in 0..10_u8 {
    ///     publisher.loan(100)?.send_with(&[reading])?;
    /// }
    /// let newest = subscriber.recv_latest()?;
    /// assert_eq!((newest.control(), newest.missed()), (&[9][..], 9));
    /// assert_eq!(subscriber.number(), 10);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn number(&self) -> u64 {
        self.feed.number()
    }

    /// A random number of the publisher's run. Two subscriptions with the same one read the same publisher's ring, so that
    /// [`number`](Self::number) continues from one to the other. Another one says that the publisher was started again. 0 says
    /// nothing: this library's publishers have other numbers.
    ///
    /// It is the publisher's own word, read when the subscriber joined: a hostile one may lie about itself.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sealane::{Publisher, Result, Subscriber};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("readings");
    /// fn subscribe(publisher: &mut Publisher) -> Result<Subscriber> {
    ///     // …
    /// #     let path = publisher.path().unwrap().to_owned();
    /// #     let joining = std::thread::spawn(|| Subscriber::connect(path));
    /// #     while !joining.is_finished() {
    /// #         publisher.wait_event(Duration::from_millis(10))?;
    /// #     }
    /// #     joining.join().unwrap()
    /// }
    ///
    /// let mut publisher = Publisher::bind(&path)?;
    /// let first = subscribe(&mut publisher)?;
    /// // After a break, the same subscriber comes back.
    /// let again = subscribe(&mut publisher)?;
    /// assert_eq!(again.run(), first.run());
    ///
    /// drop(publisher);
    /// let mut publisher = Publisher::bind(&path)?;
    /// let other = subscribe(&mut publisher)?;
    /// assert_ne!(other.run(), first.run());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Bytes of the ring that are published and not read yet, headers and padding included.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.feed.follower.lag()
    }

    /// The publisher's process.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The counts of this subscriber, both ways.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.feed.stats.merged(self.sender.stats())
    }

    /// How large a message from the publisher may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.feed.limits
    }

    /// A handle to end the subscription with, from any thread. A call that waits may notice that, or that the publisher was killed,
    /// up to 100 ms later where messages come at intervals of at most 50 ms.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.feed.link))
    }
}

/// The way back.
impl Subscriber {
    /// Sends a control message to the publisher, for instance that a buffer is free again; waits while its socket is full.
    ///
    /// # Errors
    /// Those of [`Sender::send`](crate::Sender::send).
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.sender.send(control)
    }

    /// Like [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`send`](Self::send).
    pub fn send_timeout<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.sender.send_timeout(control, timeout)
    }

    /// Like [`send`](Self::send) if there is room now; never blocks.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`]: [`room`](Self::room) becomes readable when trying again is worthwhile; those of
    /// [`send`](Self::send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.sender.try_send(control)
    }

    /// Sends a request. Its reply comes as a message whose [`in_reply_to`](Message::in_reply_to) is the identifier returned here.
    ///
    /// # Errors
    /// Those of [`Sender::request`](crate::Sender::request).
    pub fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.sender.request(control)
    }

    /// Like [`request`](Self::request) if there is room now; never blocks.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send) and [`request`](Self::request).
    pub fn try_request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.sender.try_request(control)
    }

    /// Like [`request`](Self::request), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`request`](Self::request).
    pub fn request_timeout<'c>(
        &mut self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<RequestId> {
        self.sender.request_timeout(control, timeout)
    }

    /// Sends a request and waits for its reply, for at most `timeout` in all. Published messages that come meanwhile are kept for
    /// [`recv`](Self::recv), up to 64 messages and 4 MiB. A subscriber that is waited for, and waits here while it holds payloads, may
    /// be ended for that.
    ///
    /// # Errors
    /// Those of [`request_timeout`](Self::request_timeout) and [`wait_reply`](Self::wait_reply); after any of them the request is
    /// cancelled.
    pub fn call<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<Message> {
        let deadline = Deadline::after(timeout);
        let request = self.sender.post(control, true, Block::Until(deadline))?;
        self.wait_until(request, deadline).inspect_err(|_| self.cancel(request))
    }

    /// Waits for the reply to a request, for at most `timeout`, see [`Receiver::wait_reply`](crate::Receiver::wait_reply).
    ///
    /// # Errors
    /// Those of [`Receiver::wait_reply`](crate::Receiver::wait_reply), and [`Error::TooSlow`].
    pub fn wait_reply(&mut self, request: RequestId, timeout: Duration) -> Result<Message> {
        self.wait_until(request, Deadline::after(timeout))
    }

    fn wait_until(&mut self, request: RequestId, deadline: Deadline) -> Result<Message> {
        let Self { feed, backlog, .. } = self;
        backlog.wait_reply(&Arc::clone(&feed.link), request, || feed.receive(Wanted::Next, deadline))
    }

    /// Like [`wait_reply`](Self::wait_reply), without waiting: `None` if the reply has not come, which arms the descriptor. The request
    /// stays open.
    ///
    /// ```
    /// # use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    /// # use sealane::{Builder, Event};
    /// # use std::time::Duration;
    /// # let (ours, theirs) =
    /// #     socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    /// # let mut publisher = Builder::default().publisher()?;
    /// # publisher.add(ours)?;
    /// # let joining = std::thread::spawn(|| Builder::default().subscribe_on(theirs));
    /// # publisher.wait_event(Duration::from_secs(5))?;
    /// # let mut subscriber = joining.join().unwrap()?;
    /// let question = subscriber.request(b"gain?")?;
    /// assert!(subscriber.take_reply(question)?.is_none());
    /// # let Some(Event::Message(id, asked)) = publisher.wait_event(Duration::from_secs(5))? else { panic!() };
    /// # publisher.send(b"frame 7")?;
    /// # publisher.reply(id, asked.reply_token().unwrap(), b"2.0")?;
    /// // Later:
    /// let answer = subscriber.take_reply(question)?.unwrap();
    /// assert_eq!(answer.control(), b"2.0");
    /// assert_eq!(subscriber.recv()?.control(), b"frame 7", "which came meanwhile");
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`wait_reply`](Self::wait_reply) without timeouts.
    pub fn take_reply(&mut self, request: RequestId) -> Result<Option<Message>> {
        Ok(done(self.find_reply(request)?))
    }

    /// The reply to `request`, if it is here; keeps the messages before it.
    pub(crate) fn find_reply(&mut self, request: RequestId) -> Result<Outcome<Message>> {
        let Self { feed, backlog, .. } = self;
        backlog.find_reply(&Arc::clone(&feed.link), request, || feed.find_message(Wanted::Next))
    }

    /// A request that waits for its reply, by its number, or whose reply is kept: see
    /// [`Receiver::request_id`](crate::Receiver::request_id).
    #[must_use]
    pub fn request_id(&self, number: u64) -> Option<RequestId> {
        RequestId::open(&self.feed.link, number).or_else(|| self.backlog.request(number))
    }

    /// Cancels a request: its reply is dropped, and [counted](Stats::late_replies), if it still comes.
    pub fn cancel(&self, request: RequestId) {
        request.cancel(&self.feed.link);
    }

    /// The descriptor that becomes readable when a `try_send` or `try_request` that was refused is worth another attempt.
    #[must_use]
    pub fn room(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }
}

fn done(outcome: Outcome<Message>) -> Option<Message> {
    match outcome {
        Outcome::Done(message) => Some(message),
        _ => None,
    }
}

/// Ends the subscription. A copy in a fork that has not used it [ends nothing](crate#processes-as-they-are).
impl Drop for Subscriber {
    fn drop(&mut self) {
        // A payload that lives on keeps the descriptors open, so the publisher would not notice a close.
        self.feed.link.close_receiving();
    }
}

impl AsFd for Subscriber {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.feed.link.socket.as_fd()
    }
}

impl AsRawFd for Subscriber {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("granted", &self.granted)
            .field("missed", &self.missed())
            .field("kept", &self.backlog.len())
            .finish_non_exhaustive()
    }
}
