//! [`Receiver`]: the receiving half, which awaits messages.

use std::os::fd::AsFd;

use super::readiness::{Attempt, Readiness};
use crate::{
    channel::{
        message::{Message, RequestId},
        peer::Peer,
        stats::{Held, Limits, Stats},
    },
    error::{Error, Result},
    socket::link::Closer,
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
}

/// Registers it with the runtime.
impl TryFrom<crate::Receiver> for Receiver {
    type Error = Error;

    fn try_from(inner: crate::Receiver) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Ok(Self { inner, readiness })
    }
}

impl Receiver {
    /// `readiness` is that of its descriptor.
    pub(super) fn new(inner: crate::Receiver, readiness: Readiness) -> Self {
        Self { inner, readiness }
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

    /// Takes the next message, if there is one.
    ///
    /// # Errors
    /// Those of [`sealane::Receiver::try_recv`](crate::Receiver::try_recv).
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.inner.try_recv()
    }

    /// Waits for the reply to a request, and keeps what else comes.
    pub(super) async fn wait_reply(&mut self, request: RequestId) -> Result<Message> {
        let attempt = || self.inner.find_reply(request).map(Attempt::from);
        self.readiness.until(attempt).await
    }

    pub(super) fn give_up(&self, request: RequestId) {
        self.inner.give_up(request);
    }

    /// The half that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Receiver {
        self.inner
    }

    /// See [`sealane::Receiver::held`](crate::Receiver::held).
    #[must_use]
    pub fn held(&self) -> Held {
        self.inner.held()
    }

    /// See [`sealane::Receiver::peer`](crate::Receiver::peer).
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    /// See [`sealane::Receiver::stats`](crate::Receiver::stats).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// See [`sealane::Receiver::limits`](crate::Receiver::limits).
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits()
    }

    /// See [`sealane::Receiver::closer`](crate::Receiver::closer).
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.inner.closer()
    }
}
