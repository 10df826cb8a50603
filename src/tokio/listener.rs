//! [`Listener`]: accepts clients, and drives their handshakes one beside the other.

use std::{
    future::{Future as _, poll_fn},
    os::fd::AsFd,
    path::Path,
    pin::pin,
    task::{Poll, ready},
};

use ::tokio::task::JoinSet;

use super::{
    channel::Channel,
    readiness::{Attempt, Readiness},
};
use crate::error::{Error, Result};

/// Accepts clients: a [`sealane::Listener`](crate::Listener) that awaits instead of blocking.
///
/// ```
/// use sealane::tokio::{Channel, Listener};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("service");
/// let mut listener = Listener::bind(&path)?;
/// tokio::spawn(async move {
///     loop {
///         match listener.accept().await {
///             Ok(mut channel) => {
///                 tokio::spawn(async move { channel.send(b"welcome").await });
///             }
///             // A shortage of our own, for instance of descriptors: the next attempt would fail at once, too.
///             Err(error @ sealane::Error::Io { .. }) => {
///                 eprintln!("not accepted: {error}");
///                 tokio::time::sleep(std::time::Duration::from_millis(10)).await;
///             }
///             // A bad client, which costs its own turn only.
///             Err(error) => eprintln!("a client was not accepted: {error}"),
///         }
///     }
/// });
/// let mut client = Channel::connect(&path).await?;
/// assert_eq!(client.recv().await?.control(), b"welcome");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    inner: crate::Listener,
    readiness: Readiness,
    handshakes: JoinSet<Result<Channel>>,
}

/// Registers it with the runtime.
impl TryFrom<crate::Listener> for Listener {
    type Error = Error;

    fn try_from(inner: crate::Listener) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Ok(Self { inner, readiness, handshakes: JoinSet::new() })
    }
}

impl Listener {
    /// Listens with the default settings. For others, `try_from` what
    /// [`Builder::listen`](crate::Builder::listen) returns. Does not block.
    ///
    /// # Errors
    /// Those of [`Builder::listen`](crate::Builder::listen), and [`Error::Io`] if the runtime cannot watch it.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        crate::Listener::bind(path)?.try_into()
    }

    /// Waits for the next client whose handshake is complete. Each handshake is a task of its own, until its own deadline:
    /// a client that says nothing holds up nobody. Dropping the listener ends them.
    ///
    /// Nobody is asked whether the client may have a ring, which it can keep for as long as it lives. A server for strangers
    /// takes them from [`sealane::Listener::try_accept`](crate::Listener::try_accept), advances each handshake once, looks at its
    /// [credentials](crate::Handshake::peer_credentials), and then [establishes](Channel::establish) it.
    ///
    /// Cancel-safe: handshakes go on if the future is dropped, and their channels are returned by the next.
    ///
    /// An [`Error::Handshake`], [`Error::Timeout`] or [`Error::FdsLost`] is about one client: take the next one at once. A
    /// server that pauses for it is one that bad clients can keep from honest ones. After an [`Error::Io`] pause: it is
    /// about this process, for instance its limit of open files, and the next call may fail as well.
    ///
    /// # Errors
    /// Those of [`sealane::Listener::accept`](crate::Listener::accept).
    pub async fn accept(&mut self) -> Result<Channel> {
        let Self { inner, readiness, handshakes } = self;
        let client = || readiness.until(|| Ok(inner.try_accept()?.map_or(Attempt::Wait, Attempt::Done)));
        let mut next = pin!(client());
        poll_fn(|cx| {
            loop {
                // `None` is ready too: nothing is under way.
                if let Poll::Ready(Some(ended)) = handshakes.poll_join_next(cx) {
                    return Poll::Ready(ended.map_err(Error::io("a handshake's task"))?);
                }
                let handshake = ready!(next.as_mut().poll(cx))?;
                handshakes.spawn(Channel::establish(handshake));
                next.set(client());
            }
        })
        .await
    }

    /// The path that will be removed on drop; `None` for an abstract name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
}
