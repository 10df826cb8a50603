//! [`Receiver`]: the receiving half, which awaits messages.

use std::{
    ops::Deref,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{Attempt, Readiness};
use crate::{
    channel::{Message, RecvBatch, RequestId, receiver::item},
    error::{Error, Result},
};

/// The receiving half of a [`Channel`](super::Channel): a [`sealane::Receiver`](crate::Receiver) that awaits instead of
/// blocking. Messages arrive whole, in the order in which they were sent, and all that were committed before
/// [`Error::Disconnected`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (a, b) = sealane::Channel::pair()?;
/// let (mut sender, mut answers) = sealane::tokio::Channel::try_from(a)?.split();
/// # let mut b = sealane::tokio::Channel::try_from(b)?;
/// # tokio::spawn(async move { b.send(b"1").await?; b.send(b"2").await });
/// loop {
///     match answers.recv().await {
///         Ok(message) => println!("{:?}", message.control()),
///         Err(sealane::Error::Disconnected) => break Ok(()),
///         Err(error) => break Err(error),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Receiver {
    inner: crate::Receiver,
    readiness: Readiness,
    /// The stream has ended.
    ended: bool,
}

/// Registers it with the runtime.
impl TryFrom<crate::Receiver> for Receiver {
    type Error = Error;

    fn try_from(inner: crate::Receiver) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Ok(Self::new(inner, readiness))
    }
}

impl Receiver {
    /// `readiness` is that of its descriptor.
    pub(super) fn new(inner: crate::Receiver, readiness: Readiness) -> Self {
        Self { inner, readiness, ended: false }
    }

    /// Waits for the next message, as long as the peer lives. Cancel-safe: if the future is dropped before it is ready, no
    /// message was taken.
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::recv`](crate::Receiver::recv).
    pub async fn recv(&mut self) -> Result<Message> {
        let attempt = || self.inner.find().map(Attempt::from);
        self.readiness.until(attempt).await
    }

    /// Takes the next message if there is one; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::try_recv`](crate::Receiver::try_recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.inner.try_recv()
    }

    /// Waits for the next message, and gives out all that have arrived, one by one: see
    /// [`sealane::Receiver::recv_batch`](crate::Receiver::recv_batch). Cancel-safe, as [`recv`](Self::recv) is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> sealane::Result<()> {
    /// # let (mut a, b) = sealane::Channel::pair()?;
    /// # let mut channel = sealane::tokio::Channel::try_from(b)?;
    /// # (0..3).try_for_each(|n| a.loan(n)?.send())?;
    /// let mut batch = channel.receiver.recv_batch().await?;
    /// let mut bytes = 0;
    /// while let Some(message) = batch.next() {
    ///     bytes += message.payload().map_or(0, |payload| payload.len());
    /// }
    /// assert_eq!(bytes, 0 + 1 + 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::recv_batch`](crate::Receiver::recv_batch).
    pub async fn recv_batch(&mut self) -> Result<RecvBatch<'_>> {
        let first = self.recv().await?;
        Ok(self.inner.batch_after(first))
    }

    /// Like [`recv_batch`](Self::recv_batch) if there is a message; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::try_recv_batch`](crate::Receiver::try_recv_batch).
    pub fn try_recv_batch(&mut self) -> Result<Option<RecvBatch<'_>>> {
        self.inner.try_recv_batch()
    }

    /// Waits for the reply to a request; messages that come meanwhile are kept, in order, for [`recv`](Self::recv).
    ///
    /// Cancel-safe: if the future is dropped before it is ready, the request is still open. It can be waited for again or
    /// [cancelled](crate::Receiver::cancel); otherwise its reply arrives as a message.
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::wait_reply`](crate::Receiver::wait_reply), but the timeouts.
    pub async fn wait_reply(&mut self, request: RequestId) -> Result<Message> {
        let attempt = || self.inner.find_reply(request).map(Attempt::from);
        self.readiness.until(attempt).await
    }

    /// The half that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Receiver {
        self.inner
    }
}

/// The methods of the [receiver that blocks](crate::Receiver) that take `&self`, none of which waits: its peer, limits,
/// counters, held payloads, and [`cancel`](crate::Receiver::cancel).
impl Deref for Receiver {
    type Target = crate::Receiver;

    fn deref(&self) -> &crate::Receiver {
        &self.inner
    }
}

/// The messages, one after the other. The stream ends when the peer is gone and all of its messages were delivered, and after
/// a [fatal](Error::is_fatal) error.
///
/// ```
/// use futures_util::StreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (mut a, b) = sealane::Channel::pair()?;
/// # let mut channel = sealane::tokio::Channel::try_from(b)?;
/// # for word in ["to", "be"] { a.send(word)?; }
/// # drop(a);
/// let mut words = Vec::new();
/// while let Some(message) = channel.receiver.next().await {
///     words.push(message?.control().to_vec());
/// }
/// assert_eq!(words, [b"to", b"be"]);
/// # Ok(())
/// # }
/// ```
impl Stream for Receiver {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Self { inner, readiness, ended } = &mut *self;
        readiness.poll_until(cx, || inner.find().map(Attempt::from)).map(|received| item(received, ended))
    }
}
