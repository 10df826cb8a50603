//! [`Publisher`]: one ring for many subscribers, whose publisher awaits room and events.

use std::{
    ops::Deref,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use zerocopy::{FromBytes, IntoBytes};

use super::{Attempt, PublisherLoan, Readiness};
use crate::{
    channel::{Control, ReplyToken},
    error::{Error, Result},
    fanout::{Event, Newcomer, SubscriberId, SubscriberInfo},
    protocol::Slow,
    wait::Outcome,
};

/// One writer of a ring that any number of subscribers read: a [`sealane::Publisher`](crate::Publisher) that awaits instead of
/// blocking.
///
/// Subscribers join at the start of a call that publishes, while such a call waits, and in [`next_event`](Self::next_event). A
/// task that publishes seldom awaits `next_event` in the meantime. A call that waits for room leaves the messages of subscribers
/// unread, for `next_event`.
///
/// All futures are cancel-safe: one that is dropped before it is ready has published nothing, and taken no event. The subscribers
/// for which it waited are charged for the time until they have released enough, as after a `try_loan` that was refused.
///
/// ```
/// use sealane::{Event, tokio::{Publisher, Subscriber}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("frames");
/// let mut publisher = Publisher::bind(&path)?;
/// let viewer = tokio::spawn(async move {
///     let mut subscriber = Subscriber::connect(path).await?;
///     let frame = subscriber.recv().await?;
///     subscriber.send(b"thank you").await?;
///     Ok::<_, sealane::Error>(frame.control().to_vec())
/// });
///
/// assert!(matches!(publisher.next_event().await?, Event::Joined(_)));
/// let mut frame = publisher.loan(1 << 20).await?;
/// frame.fill(7);
/// frame.send_with(b"frame 0").await?;
/// match publisher.next_event().await? {
///     Event::Message(_, message) => assert_eq!(message.control(), b"thank you"),
///     other => panic!("{other:?}"),
/// }
/// assert_eq!(viewer.await.unwrap()?, b"frame 0");
/// # Ok(())
/// # }
/// ```
///
/// A task that publishes at a pace of its own, and answers its subscribers:
///
/// ```
/// use sealane::{Event, tokio::Publisher};
///
/// async fn serve(mut publisher: Publisher, readings: u32) -> sealane::Result<()> {
///     let mut clock = tokio::time::interval(std::time::Duration::from_millis(1));
///     let mut reading = 0_u32;
///     while reading < readings {
///         tokio::select! {
///             event = publisher.next_event() => {
///                 if let Event::Message(id, question) = event?
///                     && let Some(token) = question.reply_token()
///                 {
///                     // A subscriber that does not read its replies gets no further ones.
///                     let _ = publisher.reply(id, token, &reading.to_le_bytes());
///                 }
///             }
///             _ = clock.tick() => {
///                 publisher.send(&reading.to_le_bytes()).await?;
///                 reading += 1;
///             }
///         }
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("readings");
/// # let publisher = Publisher::bind(&path)?;
/// let serving = tokio::spawn(serve(publisher, 10));
/// # let mut subscriber = sealane::tokio::Subscriber::connect(&path).await?;
/// # while let Ok(message) = subscriber.recv().await { assert_eq!(message.control().len(), 4); }
/// serving.await.unwrap()
/// # }
/// ```
#[derive(Debug)]
pub struct Publisher {
    inner: crate::Publisher,
    readiness: Readiness,
}

/// Registers it with the runtime.
impl TryFrom<crate::Publisher> for Publisher {
    type Error = Error;

    fn try_from(mut inner: crate::Publisher) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        inner.announce_events(false);
        Ok(Self { inner, readiness })
    }
}

/// One attempt of a call that publishes. `attend` does what else is ready, `call` must not wait.
///
/// The runtime reports each change once. So nothing may stay ready, but messages of subscribers, when the attempt finds no room:
/// an expired timer that was not read would never expire again. The second call is the one that arms the descriptor, because
/// attending reads doorbells.
pub(super) fn attempt<P, T>(
    publisher: &mut P,
    attend: impl FnOnce(&mut P) -> Result<bool>,
    mut call: impl FnMut(&mut P) -> Result<T>,
) -> Result<Attempt<T>> {
    match call(publisher) {
        Err(Error::Full | Error::FdsInFlight) => {}
        called => return called.map(Attempt::Done),
    }
    let is_attended = attend(publisher)?;
    match Attempt::to_send(call(publisher))? {
        // A listener without descriptors for another client stays readable, so this does not try again at once.
        Attempt::Wait if !is_attended => Ok(Attempt::Pause),
        attempt => Ok(attempt),
    }
}

/// Publishing.
impl Publisher {
    /// Publishes at a path with the default settings; does not block. A publisher with other settings is made by `try_from` of
    /// [`Builder::publish`](crate::Builder::publish).
    ///
    /// # Errors
    /// Those of [`Builder::publish`](crate::Builder::publish), and [`Error::Io`] if the runtime cannot watch it.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        crate::Publisher::bind(path)?.try_into()
    }

    /// Lends `len` bytes of the ring, to be written and published, see [`sealane::Publisher::loan`](crate::Publisher::loan). Waits
    /// for room, until the time of slow subscribers is used up. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::loan`](crate::Publisher::loan).
    pub async fn loan(&mut self, len: usize) -> Result<PublisherLoan<'_>> {
        self.loan_slice(len).await
    }

    /// Lends room for `count` values of `T`, as [`loan`](Self::loan) does for bytes. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::loan_slice`](crate::Publisher::loan_slice).
    pub async fn loan_slice<'p, T: FromBytes + IntoBytes + 'p>(
        &'p mut self,
        count: usize,
    ) -> Result<PublisherLoan<'p, T>> {
        let Self { inner, readiness } = self;
        // A loan cannot leave the closure, so the place is reserved first. Nothing else can reserve one in between.
        let reserve = || attempt(inner, crate::Publisher::attend, |inner| inner.try_reserve::<T>(count));
        readiness.until(reserve).await?;
        Ok(PublisherLoan::new(inner.lend_now(count)?, readiness))
    }

    /// Like [`loan`](Self::loan), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::try_loan`](crate::Publisher::try_loan).
    pub fn try_loan(&mut self, len: usize) -> Result<Option<PublisherLoan<'_>>> {
        self.try_loan_slice(len)
    }

    /// Like [`loan_slice`](Self::loan_slice), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::try_loan_slice`](crate::Publisher::try_loan_slice).
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
    ) -> Result<Option<PublisherLoan<'_, T>>> {
        let Self { inner, readiness } = self;
        Ok(inner.try_loan_slice(count)?.map(|loan| PublisherLoan::new(loan, readiness)))
    }

    /// Publishes a message without a payload; waits for room as [`loan`](Self::loan) does, and for room for descriptors.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::send`](crate::Publisher::send), but [`Error::FdsInFlight`], for which it waits.
    pub async fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        let (Self { inner, readiness }, control) = (self, control.into());
        let send = || attempt(inner, crate::Publisher::attend, |inner| inner.try_send(control.clone()));
        readiness.until(send).await
    }

    /// Like [`send`](Self::send), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::try_send`](crate::Publisher::try_send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.inner.try_send(control)
    }

    /// See [`sealane::Publisher::lost`](crate::Publisher::lost).
    pub fn lost(&mut self, count: u64) {
        self.inner.lost(count);
    }

    /// See [`sealane::Publisher::epoch`](crate::Publisher::epoch).
    pub fn epoch(&mut self, epoch: u64) {
        self.inner.epoch(epoch);
    }

    /// See [`sealane::Publisher::number`](crate::Publisher::number).
    pub fn number(&mut self, number: u64) {
        self.inner.number(number);
    }

    /// The publisher that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(mut self) -> crate::Publisher {
        self.inner.announce_events(true);
        self.inner
    }
}

/// Subscribers.
impl Publisher {
    /// Waits for the next thing that subscribers bring about, see
    /// [`sealane::Publisher::next_event`](crate::Publisher::next_event). Handshakes go on, and subscribers that are too slow
    /// are ended, while it waits. Cancel-safe: if the future is dropped before it is ready, no event was taken.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::next_event`](crate::Publisher::next_event).
    pub async fn next_event(&mut self) -> Result<Event> {
        let Self { inner, readiness } = self;
        let find = || {
            Ok(match inner.find_event()? {
                Outcome::Done(event) => Attempt::Done(event),
                Outcome::Empty => Attempt::Wait,
                // Something stays ready and brings no event, for instance a listener without descriptors for another client.
                Outcome::Spent | Outcome::Changed => Attempt::Pause,
            })
        };
        readiness.until(find).await
    }

    /// Like [`next_event`](Self::next_event), if there is an event; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::next_event`](crate::Publisher::next_event).
    pub fn try_next_event(&mut self) -> Result<Option<Event>> {
        self.inner.next_event()
    }

    /// Takes a connected socket, whose other end becomes a subscriber: see [`sealane::Publisher::add`](crate::Publisher::add).
    /// Does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::add`](crate::Publisher::add).
    pub fn add(&mut self, socket: OwnedFd) -> Result<SubscriberId> {
        self.inner.add(socket)
    }

    /// Replies to a request of a subscriber, and to it alone: see [`sealane::Publisher::reply`](crate::Publisher::reply). Does
    /// not wait, so that a subscriber that does not read its replies holds up nobody.
    ///
    /// # Errors
    /// Those of [`sealane::Publisher::reply`](crate::Publisher::reply).
    pub fn reply<'c>(
        &mut self,
        to: SubscriberId,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
    ) -> Result<()> {
        self.inner.reply(to, token, control)
    }

    /// See [`sealane::Publisher::subscribers`](crate::Publisher::subscribers).
    pub fn subscribers(&mut self) -> &[SubscriberInfo] {
        self.inner.subscribers()
    }

    /// See [`sealane::Publisher::admit`](crate::Publisher::admit).
    pub fn admit(&mut self, decide: impl FnMut(&Newcomer<'_>) -> Option<Slow> + Send + 'static) {
        self.inner.admit(decide);
    }

    /// See [`sealane::Publisher::disconnect`](crate::Publisher::disconnect).
    pub fn disconnect(&mut self, id: SubscriberId) -> bool {
        self.inner.disconnect(id)
    }

    /// See [`sealane::Publisher::retain`](crate::Publisher::retain).
    pub fn retain(&mut self, keep: impl FnMut(&SubscriberInfo) -> bool) {
        self.inner.retain(keep);
    }
}

/// The methods of the [publisher that blocks](crate::Publisher) that take `&self`, none of which waits: its path, limits and
/// counters.
impl Deref for Publisher {
    type Target = crate::Publisher;

    fn deref(&self) -> &crate::Publisher {
        &self.inner
    }
}
