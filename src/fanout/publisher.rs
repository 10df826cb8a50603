//! [`Publisher`]: one ring, written once for any number of subscribers, as the user sees it.

use std::{
    borrow::BorrowMut,
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    process::{Child, Command},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::event::PollFlags;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    channel::{Block, Control, Limits, ReplyToken, Stats, Wake},
    connect::{Builder, Listener, Prepared, Settings, SharedRegion, child},
    error::{Error, Result},
    fanout::{
        Event, Newcomer, PublisherBatch, PublisherLoan, SubscriberId, SubscriberInfo,
        gates::Gates,
        joining::Joining,
        lanes::{Lanes, PAUSE},
    },
    memory::region::OwnRegion,
    protocol::{Owner, Slow, Word, to_usize},
    ring::Writer,
    socket::seqpacket::Socket,
    wait::{Deadline, Outcome, sleep},
};

/// One writer of a ring that any number of [`Subscriber`](crate::Subscriber)s read, none of which trusts another, or the publisher.
///
/// A message is written once, whoever reads it. Subscribers cannot write where anybody else reads. They join and leave at any
/// time; what becomes of a slow one is said by the policy [`Slow`]. Without subscribers, publishing succeeds.
///
/// Each message is a record of the ring, a control message too, so that all see one order. Descriptors go to each subscriber
/// by its own socket. The way back is for small messages: a subscriber sends, and asks; the answers are for it alone.
///
/// # When subscribers are slow
/// | call | a subscriber that is waited for has not released what is needed |
/// |---|---|
/// | `loan`, `loan_slice`, `send` | waits, until that subscriber's time is used up; then it is ended |
/// | the same with `_timeout` | waits for its time, then [`Error::Timeout`] |
/// | `try_loan`, `try_loan_slice` | `None` |
/// | `try_send` | [`Error::Full`], or [`Error::FdsInFlight`] |
/// | [`PublisherLoan::send`] | never waits: its room was reserved with the loan |
/// | [`PublisherLoan::send_with`] | waits only for descriptors, and for more than 1,024 control bytes |
///
/// # Subscribers join
/// at the start of a call that publishes, or in [`next_event`](Self::next_event), between two messages. A program that calls neither
/// for long keeps newcomers waiting. Calls that publish look at most once in a few milliseconds.
///
/// # In an event loop
/// The descriptor ([`AsFd`]) is readable, level-triggered, when [`next_event`](Self::next_event) has something to do, and after a
/// `try_…` was refused, when trying again is worthwhile. So when it is readable, call `next_event` until `None`, then repeat
/// what was refused. Time runs by it too: an event loop needs no clock for the publisher.
///
/// ```
/// use std::time::Duration;
/// use sealane::{Event, Publisher, Subscriber};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("frames");
/// let mut publisher = Publisher::bind(&path)?;
/// let viewer = std::thread::spawn(move || {
///     let mut subscriber = Subscriber::connect(path)?;
///     subscriber.recv_timeout(Duration::from_secs(5))
/// });
/// while publisher.subscribers().is_empty() {
///     publisher.wait_event(Duration::from_secs(5))?;
/// }
/// let mut frame = publisher.loan(1 << 20)?;
/// frame.fill(7);
/// frame.send_with(b"frame 0")?;
///
/// let message = viewer.join().unwrap()?;
/// assert_eq!((message.control(), message.missed()), (&b"frame 0"[..], 0));
/// assert_eq!(message.payload().unwrap().len(), 1 << 20);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Publisher {
    pub(super) writer: Writer<Gates>,
    pub(super) lanes: Lanes,
}

/// Ways to make a publisher.
impl Builder {
    /// Publishes at a path, or at an abstract name (`@name`), to which subscribers connect
    /// ([`subscribe`](Self::subscribe)). The path is taken, and removed, as by [`listen`](Self::listen).
    ///
    /// | setting | means here |
    /// |---|---|
    /// | [`ring_capacity`](Self::ring_capacity) | the one ring. Subscribers that may be overrun need room for four of the largest messages: [`ring_for`](Self::ring_for) with 2 kept |
    /// | [`max_control`](Self::max_control), [`max_fds`](Self::max_fds) | the most that is published in a message, and received. Subscribers must accept as much. `max_fds` is 0 by default |
    /// | [`max_requests`](Self::max_requests) | requests that one subscriber may have open |
    /// | [`slow`](Self::slow) | the rule for slow subscribers |
    /// | [`max_subscribers`](Self::max_subscribers) | 16 by default |
    /// | [`handshake_timeout`](Self::handshake_timeout), [`wait`](Self::wait), [`prefault`](Self::prefault), [`huge_pages`](Self::huge_pages), [`peer_pidfd`](Self::peer_pidfd) | as for a channel |
    ///
    /// It takes four descriptors, and three for each subscriber.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen); [`Error::RingTooLarge`].
    pub fn publish(&self, path: impl AsRef<Path>) -> Result<Publisher> {
        let settings = self.settings()?.to_publish();
        let region = create(&settings)?;
        Publisher::new(settings, region, Some(self.listen(path)?))
    }

    /// Makes a publisher without a path: its subscribers are [spawned](Publisher::spawn) or [added](Publisher::add).
    ///
    /// # Errors
    /// [`Error::RingTooLarge`], [`Error::Io`].
    pub fn publisher(&self) -> Result<Publisher> {
        let settings = self.settings()?.to_publish();
        let region = create(&settings)?;
        Publisher::new(settings, region, None)
    }

    /// A publisher's rule for subscribers that are slow; for a subscriber, its wish. Default: [`Slow::Wait`] for 100 ms as a rule,
    /// and no wish: what the rule grants.
    pub fn slow(self, slow: Slow) -> Self {
        self.with(|settings| settings.slow = Some(slow))
    }

    /// Most subscribers at once. Default: 16. Each message costs a look at each subscriber: 1 to 2 ns up to 32 of them.
    pub fn max_subscribers(self, count: usize) -> Self {
        self.with(|settings| settings.max_subscribers = count)
    }
}

/// The one region, marked so that a subscriber cannot offer it to us.
fn create(settings: &Settings) -> Result<OwnRegion> {
    let Settings { ring_capacity, prefault, huge_pages, timeout, .. } = *settings;
    let deadline = Deadline::after(timeout);
    let region = OwnRegion::create(ring_capacity, prefault, huge_pages, deadline)?;
    region.words.word(Word::Origin).store(settings.origin, Relaxed);
    // Subscribers only send packets: nobody sleeps by this word.
    region.words.word(Word::ReceiverEpoch).store(0, Relaxed);
    region.describe(Owner::Publisher);
    if prefault {
        region.populate(deadline)?;
    }
    Ok(region)
}

impl Publisher {
    fn new(settings: Settings, region: OwnRegion, listener: Option<Listener>) -> Result<Self> {
        let OwnRegion { memfd, geometry, ring, words } = region;
        let limits = Limits {
            max_payload: geometry.max_payload(),
            max_control: settings.max_control,
            max_fds: to_usize(settings.max_fds().into()),
            max_requests: to_usize(settings.max_requests.into()),
        };
        let joining = Joining::new(listener, settings, SharedRegion { memfd: Arc::new(memfd), geometry });
        let lanes = Lanes::new(&settings, words.clone(), limits, joining)?;
        Ok(Self { writer: Writer::new(ring, words, Gates::default()), lanes })
    }

    /// Publishes at a path with the default settings: see [`Builder::publish`].
    ///
    /// # Errors
    /// Those of [`Builder::publish`].
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        Builder::default().publish(path)
    }

    /// The path that a drop removes; `None` for an abstract name, or without one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.lanes.joining.path()
    }
}

/// Publishing.
#[expect(clippy::inline_always, reason = "a loan must stay in registers on its way out")]
impl Publisher {
    /// Lends `len` bytes of the ring, 64-byte aligned, to be written and published. Waits for room.
    ///
    /// The memory has old bytes of the ring. All subscribers can read it at once, sent or not: write nothing there that they must
    /// not know.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`]; [`Error::Disconnected`] after 2^63 bytes.
    #[doc(alias = "reserve")]
    #[doc(alias = "claim")]
    #[doc(alias = "borrow")]
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<PublisherLoan<'_>> {
        self.loan_slice(len)
    }

    /// Like [`loan`](Self::loan), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`loan`](Self::loan).
    pub fn loan_timeout(&mut self, len: usize, timeout: Duration) -> Result<PublisherLoan<'_>> {
        self.loan_slice_timeout(len, timeout)
    }

    /// Like [`loan`](Self::loan) if there is room; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    pub fn try_loan(&mut self, len: usize) -> Result<Option<PublisherLoan<'_>>> {
        self.try_loan_slice(len)
    }

    /// Lends room for `count` values of `T`, as [`loan`](Self::loan) does for bytes.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<PublisherLoan<'_, T>> {
        self.lend(count, Block::FOREVER, Wake::AtOnce)
    }

    /// Like [`loan_slice`](Self::loan_slice), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`loan`](Self::loan).
    pub fn loan_slice_timeout<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<PublisherLoan<'_, T>> {
        self.lend(count, Block::within(timeout), Wake::AtOnce)
    }

    /// Like [`loan_slice`](Self::loan_slice) if there is room; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
    ) -> Result<Option<PublisherLoan<'_, T>>> {
        self.try_lend(count, Wake::AtOnce)
    }

    pub(super) fn try_lend<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        wake: Wake,
    ) -> Result<Option<PublisherLoan<'_, T>>> {
        match self.lend(count, Block::No, wake) {
            Err(Error::Full) => Ok(None),
            lent => lent.map(Some),
        }
    }

    #[inline(always)]
    pub(super) fn lend<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        block: Block,
        wake: Wake,
    ) -> Result<PublisherLoan<'_, T>> {
        // A product that overflows is too long for any ring.
        let len = count.saturating_mul(size_of::<T>());
        let too_large = Error::PayloadTooLarge { len, max: self.lanes.limits.max_payload };
        let Some(size) = self.writer.loan_size(len) else { return Err(too_large) };
        self.lanes.reserve(&mut self.writer.producer, size, block)?;
        match self.writer.lend(count) {
            Some(reservation) => Ok(PublisherLoan::new(reservation, &mut self.lanes, wake)),
            None => Err(too_large),
        }
    }

    /// Publishes a message without a payload; waits for room in the ring.
    ///
    /// # Errors
    /// [`Error::ControlTooLarge`], [`Error::TooManyFds`], [`Error::FdsInFlight`]; [`Error::UnknownRequest`] for a reply, which
    /// goes to one subscriber: [`reply`](Self::reply).
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.lanes.send(&mut self.writer, &control.into(), Block::FOREVER)
    }

    /// Like [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`send`](Self::send).
    pub fn send_timeout<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.lanes.send(&mut self.writer, &control.into(), Block::within(timeout))
    }

    /// Like [`send`](Self::send) if there is room now; never blocks.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`], with the descriptor armed, or those of [`send`](Self::send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.lanes.send(&mut self.writer, &control.into(), Block::No)
    }

    /// Begins a batch: loans are published as ever, but sleeping subscribers are woken only when the batch is dropped.
    pub fn batch(&mut self) -> PublisherBatch<'_> {
        PublisherBatch::new(self)
    }

    /// Says that `count` messages were lost before they came here, for a publisher that passes on a stream from elsewhere: a bridge,
    /// a player of recordings. The next message has them among those that were [missed](crate::Message::missed).
    ///
    /// ```
    /// # let mut publisher = sealane::Builder::default().publisher()?;
    /// # let (mut source, mut here) = sealane::Channel::pair()?;
    /// # source.send(b"reading 7")?;
    /// # let message = here.recv()?;
    /// // A bridge passes on what it gets, and what it did not get.
    /// publisher.lost(message.missed());
    /// publisher.epoch(message.epoch());
    /// publisher.send(message.control())?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn lost(&mut self, count: u64) {
        self.lanes.source.lost = self.lanes.source.lost.saturating_add(count);
    }

    /// Says which run of the source the messages come from, from the next one on ([`Message::epoch`](crate::Message::epoch)). Another
    /// number tells the subscribers that the source was started again.
    pub fn epoch(&mut self, epoch: u64) {
        self.lanes.source.epoch = epoch;
    }

    /// Says that the next message has this `number` at its source, for a publisher that passes on a stream. Those after it count up, and
    /// what was [lost](Self::lost) counts too. A publisher that does not say it numbers its messages from 0.
    ///
    /// Subscribers see it in [`Subscriber::number`](crate::Subscriber::number). Numbers wrap behind `u64::MAX`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sealane::{Publisher, Subscriber};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("relayed");
    /// let mut publisher = Publisher::bind(&path)?;
    /// # let joining = std::thread::spawn(|| Subscriber::connect(path));
    /// # while publisher.subscribers().is_empty() {
    /// #     publisher.wait_event(Duration::from_secs(5))?;
    /// # }
    /// # let mut subscriber = joining.join().unwrap()?;
    /// // A bridge begins in the middle of a stream.
    /// publisher.number(1000);
    /// publisher.send(b"reading 1000")?;
    /// // The readings 1001 and 1002 were lost on the way.
    /// publisher.lost(2);
    /// publisher.send(b"reading 1003")?;
    ///
    /// subscriber.recv()?;
    /// assert_eq!(subscriber.number(), 1001);
    /// assert_eq!(subscriber.recv()?.missed(), 2);
    /// assert_eq!(subscriber.number(), 1004);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn number(&mut self, number: u64) {
        self.lanes.source.set_number(self.lanes.sequence, number);
    }
}

/// Subscribers.
impl Publisher {
    /// The next thing that subscribers have brought about; never blocks. Call it until `None`: only then does the descriptor say when
    /// there is more. One packet of each subscriber is received in turn, so that none keeps others from being heard.
    ///
    /// # Errors
    /// [`Error::Io`]. A fault of one subscriber ends that one: [`Event::Left`].
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        match self.lanes.find_event(&mut self.writer.producer)? {
            Outcome::Done(event) => Ok(Some(event)),
            _ => Ok(None),
        }
    }

    /// Waits for the next event, for at most `timeout`. `None` if there was none. For programs without an event loop.
    ///
    /// # Errors
    /// Those of [`next_event`](Self::next_event).
    pub fn wait_event(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let deadline = Deadline::after(timeout);
        loop {
            let event = self.next_event()?;
            if event.is_some() || deadline.passed() {
                return Ok(event);
            }
            sleep([(self.as_fd(), PollFlags::IN)], deadline, None)?;
        }
    }

    /// Takes a connected `SOCK_SEQPACKET` socket, whose other end becomes a subscriber
    /// ([`Builder::subscribe_on`]). Does not block: [`Event::Joined`] says when it has joined, or [`Event::Left`] why it has
    /// not. Nobody asks [`admit`](Self::admit).
    ///
    /// ```
    /// use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    /// use sealane::{Builder, Event};
    /// use std::time::Duration;
    ///
    /// let (ours, theirs) =
    ///     socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    /// let mut publisher = Builder::default().publisher()?;
    /// let id = publisher.add(ours)?;
    /// let subscriber = std::thread::spawn(|| Builder::default().subscribe_on(theirs));
    /// let event = publisher.wait_event(Duration::from_secs(5))?;
    /// assert!(matches!(event, Some(Event::Joined(joined)) if joined == id));
    /// # subscriber.join().unwrap()?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`HandshakeError::NotSeqpacket`](crate::HandshakeError::NotSeqpacket), [`Error::Io`].
    pub fn add(&mut self, socket: OwnedFd) -> Result<SubscriberId> {
        self.lanes.claim();
        let handshake = self.lanes.joining.begin(Socket::from_fd(socket)?)?;
        self.lanes.introduce(handshake, true)
    }

    /// Starts a child process that subscribes ([`Subscriber::inherited`](crate::Subscriber::inherited)), and waits until it has joined.
    /// The same time limits hold as for [`Builder::spawn`]. Nobody asks [`admit`](Self::admit).
    ///
    /// # Errors
    /// Those of [`Builder::spawn`]; a child that does not join is ended.
    pub fn spawn(&mut self, mut command: impl BorrowMut<Command>) -> Result<(SubscriberId, Child)> {
        self.lanes.claim();
        let (ours, childs) = Socket::pair()?;
        let prepared = Prepared::new(self.lanes.joining.begin(Socket::from_fd(ours)?)?, childs)?;
        let mut child = child::spawn(command.borrow_mut(), &prepared)?;
        let handshake = prepared.started();
        let deadline = handshake.deadline();
        let joined =
            self.lanes.introduce(handshake, true).and_then(|id| self.wait_for(id, deadline).map(|()| id));
        match joined {
            Ok(id) => Ok((id, child)),
            Err(error) => Err(child::kill_and_reap(&mut child, deadline, error)),
        }
    }

    /// Waits until a subscriber has joined. Other events are told later.
    fn wait_for(&mut self, id: SubscriberId, deadline: std::time::Instant) -> Result<()> {
        let deadline = Deadline::At(deadline);
        loop {
            self.lanes.turn(&mut self.writer.producer, false)?;
            let events = &mut self.lanes.events;
            let at = events.iter().position(|event| event.subscriber() == id);
            if let Some(event) = at.and_then(|at| events.remove(at)) {
                return match event {
                    Event::Left(_, error) => Err(error),
                    _ => Ok(()),
                };
            }
            if deadline.passed() {
                return Err(Error::Timeout);
            }
            // Only this one's socket: others may have sent messages, which stay where they are.
            let socket = self.lanes.joining.socket(id);
            let fds = [(socket.unwrap_or(self.lanes.poll.as_fd()), PollFlags::IN)];
            sleep(fds, deadline, Some(PAUSE))?;
        }
    }

    /// Replies to a request of a subscriber, and to it alone; never waits. The token stays open if the reply was not sent.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`]: try again after some milliseconds. [`Error::UnknownRequest`] if the subscriber is
    /// gone, or the request is not its own, or was answered; [`Error::ControlTooLarge`], [`Error::TooManyFds`].
    pub fn reply<'c>(
        &mut self,
        to: SubscriberId,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
    ) -> Result<()> {
        self.lanes.claim();
        self.lanes.lane(to).ok_or(Error::UnknownRequest)?.reply(token, &control.into())
    }

    /// All subscribers, as they stand now.
    pub fn subscribers(&mut self) -> &[SubscriberInfo] {
        let _ = self.writer.producer.refresh_tail();
        self.lanes.refresh_infos(self.writer.producer.head())
    }

    /// Decides who may subscribe, and with which policy, in place of the publisher's rule; `None` refuses. The newcomer gets no more
    /// than it wishes. Without this all are admitted who can reach the path, up to
    /// [`max_subscribers`](Builder::max_subscribers).
    ///
    /// The decision comes before the newcomer has cost memory, or seen anything. A subscriber that was admitted once can read the ring for as long
    /// as that exists.
    pub fn admit(&mut self, decide: impl FnMut(&Newcomer<'_>) -> Option<Slow> + Send + 'static) {
        self.lanes.joining.admit = Some(Box::new(decide));
    }

    /// Ends a subscription. The subscriber still reads what was published. False if there is no such subscriber.
    ///
    /// It is no revocation: who has mapped the ring can look into it as long as it exists.
    pub fn disconnect(&mut self, id: SubscriberId) -> bool {
        self.lanes.claim();
        let Some(lane) = self.lanes.lane(id) else { return false };
        lane.end = Some(Error::Disconnected);
        self.lanes.sweep(&mut self.writer.producer)
    }

    /// Ends all subscriptions for which `keep` says no, as [`disconnect`](Self::disconnect) does.
    pub fn retain(&mut self, mut keep: impl FnMut(&SubscriberInfo) -> bool) {
        self.lanes.claim();
        self.subscribers();
        for info in &self.lanes.infos {
            if !keep(info)
                && let Some(lane) = self.lanes.list.iter_mut().find(|lane| lane.id == info.id)
            {
                lane.end = Some(Error::Disconnected);
            }
        }
        self.lanes.sweep(&mut self.writer.producer);
    }

    /// The counts of this publisher.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lanes.stats
    }

    /// How large a message may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.lanes.limits
    }

    /// Wakes the subscribers for what a batch has published.
    pub(super) fn wake(&mut self) {
        // A fork drops the copy of a batch, too.
        if self.lanes.is_ours() {
            self.lanes.flush();
        }
    }
}

/// Ends all subscriptions: the subscribers receive what was published, as far as the ring still has it.
impl Drop for Publisher {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

impl AsFd for Publisher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lanes.poll.as_fd()
    }
}

impl AsRawFd for Publisher {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("next_sequence", &self.lanes.sequence)
            .field("subscribers", &self.lanes.list.len())
            .field("ring_capacity", &self.writer.capacity())
            .finish_non_exhaustive()
    }
}
