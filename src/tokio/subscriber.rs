//! [`Subscriber`]: a reader of a publisher's ring, which awaits messages.

use std::{
    ops::Deref,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    Attempt, Readiness,
    channel::{advance_until, begin},
};
use crate::{
    channel::{Control, Message, RequestId, receiver::item},
    connect::{Builder, Handshake},
    error::{Error, Result},
};

/// A reader of a publisher's messages: a [`sealane::Subscriber`](crate::Subscriber) that awaits instead of blocking.
///
/// All its futures but [`call`](Self::call) are cancel-safe: one that is dropped before it is ready has taken and sent nothing.
///
/// ```
/// use sealane::{Builder, Slow, tokio::{Publisher, Subscriber}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("readings");
/// let mut publisher = Publisher::bind(&path)?;
/// let reader = tokio::spawn(async move {
///     let builder = Builder::default().slow(Slow::Overrun);
///     let mut subscriber = Subscriber::connect_with(&builder, path).await?;
///     let (mut received, mut missed) = (0, 0);
///     loop {
///         match subscriber.recv().await {
///             Ok(message) => {
///                 received += 1;
///                 missed += message.missed();
///             }
///             Err(sealane::Error::Disconnected) => return Ok((received, missed)),
///             Err(error) => return Err(error),
///         }
///     }
/// });
/// publisher.next_event().await?;
/// for reading in 0..1000_u32 {
///     publisher.send(&reading.to_le_bytes()).await?;
/// }
/// drop(publisher);
/// let (received, missed) = reader.await.unwrap()?;
/// assert!(received + missed <= 1000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscriber {
    inner: crate::Subscriber,
    readiness: Readiness,
    /// Room for messages to the publisher.
    room: Readiness,
    /// The stream has ended.
    ended: bool,
}

/// Registers it with the runtime.
impl TryFrom<crate::Subscriber> for Subscriber {
    type Error = Error;

    fn try_from(inner: crate::Subscriber) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Self::new(inner, readiness)
    }
}

/// Ways to subscribe. What does not name a [`Builder`] uses the default one.
///
/// If a future is dropped before it is ready, the connection is closed.
impl Subscriber {
    /// Subscribes at a publisher's path: see [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// Those of [`Builder::subscribe`].
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(&Builder::default(), path).await
    }

    /// Subscribes at a publisher's path; waits for a place in its backlog, and until it has let the subscriber join; for the
    /// handshake timeout at most.
    ///
    /// # Errors
    /// Those of [`Builder::subscribe`].
    pub async fn connect_with(builder: &Builder, path: impl AsRef<Path>) -> Result<Self> {
        let begin = begin(builder, |builder| builder.try_subscribe(path.as_ref()));
        Self::establish(begin.await?).await
    }

    /// Subscribes over a connected socket, whose other end its publisher [adds](crate::Publisher::add).
    ///
    /// # Errors
    /// Those of [`Builder::subscribe_on`].
    pub async fn connect_on(builder: &Builder, socket: OwnedFd) -> Result<Self> {
        Self::establish(builder.begin_to_subscribe_on(socket)?).await
    }

    /// Subscribes, in a child process, to the parent: see [`inherited_with`](Self::inherited_with).
    ///
    /// # Errors
    /// Those of [`Builder::subscribe_inherited`].
    pub async fn inherited() -> Result<Self> {
        Self::inherited_with(&Builder::default()).await
    }

    /// Subscribes to the parent, in a child that a publisher has [spawned](crate::Publisher::spawn). Works once in a process,
    /// even if the future is dropped.
    ///
    /// # Errors
    /// Those of [`Builder::subscribe_inherited`].
    pub async fn inherited_with(builder: &Builder) -> Result<Self> {
        Self::establish(builder.begin_to_subscribe_inherited()?).await
    }

    async fn establish(mut handshake: Handshake) -> Result<Self> {
        // Its descriptor is that of the subscriber to come.
        let readiness = Readiness::new(handshake.as_fd())?;
        advance_until(&mut handshake, &readiness, |_| false).await?;
        Self::new(crate::Subscriber::of(handshake)?, readiness)
    }

    /// `readiness` is that of its descriptor.
    fn new(inner: crate::Subscriber, readiness: Readiness) -> Result<Self> {
        let room = Readiness::new(inner.room())?;
        Ok(Self { inner, readiness, room, ended: false })
    }
}

/// Receiving.
impl Subscriber {
    /// Waits for the next message, as long as the publisher lives. Cancel-safe: if the future is dropped before it is ready, no
    /// message was taken.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::recv`](crate::Subscriber::recv).
    pub async fn recv(&mut self) -> Result<Message> {
        let Self { inner, readiness, .. } = self;
        readiness.until(|| inner.find().map(Attempt::from)).await
    }

    /// Takes the next message if there is one; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::try_recv`](crate::Subscriber::try_recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.inner.try_recv()
    }

    /// Waits for the newest message with a payload that was not received yet, and leaves out all before it: see
    /// [`sealane::Subscriber::recv_latest`](crate::Subscriber::recv_latest). Cancel-safe, as [`recv`](Self::recv) is.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::recv_latest`](crate::Subscriber::recv_latest).
    pub async fn recv_latest(&mut self) -> Result<Message> {
        let Self { inner, readiness, .. } = self;
        readiness.until(|| inner.find_latest().map(Attempt::from)).await
    }

    /// Like [`recv_latest`](Self::recv_latest), if there is such a message; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::try_recv_latest`](crate::Subscriber::try_recv_latest).
    pub fn try_recv_latest(&mut self) -> Result<Option<Message>> {
        self.inner.try_recv_latest()
    }

    /// The subscriber that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Subscriber {
        self.inner
    }
}

/// The way back.
impl Subscriber {
    /// Sends a control message to the publisher; waits while its socket is full, or too many descriptors are in flight, as long
    /// as the publisher lives. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::send`](crate::Subscriber::send).
    pub async fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        let (Self { inner, room, .. }, control) = (self, control.into());
        room.until(|| Attempt::to_send(inner.try_send(control.clone()))).await
    }

    /// Like [`send`](Self::send), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::try_send`](crate::Subscriber::try_send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.inner.try_send(control)
    }

    /// Sends a request; waits as [`send`](Self::send) does. The reply comes as a message whose
    /// [`in_reply_to`](Message::in_reply_to) is the identifier returned here. Cancel-safe: if the future is dropped before it
    /// is ready, nothing was asked.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::request`](crate::Subscriber::request).
    pub async fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        let (Self { inner, room, .. }, control) = (self, control.into());
        room.until(|| Attempt::to_send(inner.try_request(control.clone()))).await
    }

    /// Like [`request`](Self::request), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::try_request`](crate::Subscriber::try_request).
    pub fn try_request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.inner.try_request(control)
    }

    /// Sends a request and waits for its reply. Published messages that come meanwhile are kept, in order, for
    /// [`recv`](Self::recv), up to 64 messages and 4 MiB. A limit is put around it: `timeout(limit, subscriber.call(question))`.
    ///
    /// If the future is dropped, or fails, the request is cancelled: a late reply is dropped and
    /// [counted](crate::Stats::late_replies). The publisher should answer every request: the call waits as long as it lives.
    ///
    /// ```
    /// use sealane::{Event, tokio::{Publisher, Subscriber}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> sealane::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("frames");
    /// let mut publisher = Publisher::bind(&path)?;
    /// tokio::spawn(async move {
    ///     while let Ok(event) = publisher.next_event().await {
    ///         if let Event::Message(id, question) = event
    ///             && let Some(token) = question.reply_token()
    ///         {
    ///             publisher.reply(id, token, b"YUV420").unwrap();
    ///         }
    ///     }
    /// });
    /// let mut subscriber = Subscriber::connect(&path).await?;
    /// assert_eq!(subscriber.call(b"format?").await?.control(), b"YUV420");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`request`](Self::request) and [`wait_reply`](Self::wait_reply).
    pub async fn call<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<Message> {
        let request = self.request(control).await?;
        let asked = CancelOnDrop { request, subscriber: self };
        asked.subscriber.wait_reply(request).await
    }

    /// Waits for the reply to a request; messages that come meanwhile are kept, in order, for [`recv`](Self::recv).
    ///
    /// Cancel-safe: if the future is dropped before it is ready, the request is still open. It can be waited for again or
    /// [cancelled](crate::Subscriber::cancel); otherwise its reply arrives as a message.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::wait_reply`](crate::Subscriber::wait_reply), but the timeouts.
    pub async fn wait_reply(&mut self, request: RequestId) -> Result<Message> {
        let Self { inner, readiness, .. } = self;
        readiness.until(|| inner.find_reply(request).map(Attempt::from)).await
    }
}

/// A request that is cancelled when its caller no longer waits for the reply.
struct CancelOnDrop<'s> {
    request: RequestId,
    subscriber: &'s mut Subscriber,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.subscriber.cancel(self.request);
    }
}

/// The methods of the [subscriber that blocks](crate::Subscriber) that take `&self`, none of which waits: what it was granted,
/// its lag, limits and counters, [`number`](crate::Subscriber::number), [`run`](crate::Subscriber::run), and
/// [`cancel`](crate::Subscriber::cancel).
impl Deref for Subscriber {
    type Target = crate::Subscriber;

    fn deref(&self) -> &crate::Subscriber {
        &self.inner
    }
}

/// The messages, one after the other. The stream ends when the publisher is gone and all that it published was delivered, and
/// after a [fatal](Error::is_fatal) error. Messages that were [missed](Message::missed) do not end it.
///
/// ```
/// use futures_util::StreamExt;
/// use sealane::tokio::{Publisher, Subscriber};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("words");
/// # let mut publisher = Publisher::bind(&path)?;
/// # tokio::spawn(async move {
/// #     publisher.next_event().await?;
/// #     for word in ["to", "be"] { publisher.send(word).await?; }
/// #     Ok::<(), sealane::Error>(())
/// # });
/// let mut subscriber = Subscriber::connect(&path).await?;
/// let mut words = Vec::new();
/// while let Some(message) = subscriber.next().await {
///     words.push(message?.control().to_vec());
/// }
/// assert_eq!(words, [b"to", b"be"]);
/// # Ok(())
/// # }
/// ```
impl Stream for Subscriber {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Self { inner, readiness, ended, .. } = &mut *self;
        readiness.poll_until(cx, || inner.find().map(Attempt::from)).map(|received| item(received, ended))
    }
}
