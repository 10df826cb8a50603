//! [`Listener`]: accepts clients, and advances their handshakes concurrently.

use std::{
    future::{Future, poll_fn},
    os::fd::AsFd,
    path::Path,
    pin::pin,
    task::{Poll, ready},
};

use ::tokio::task::JoinSet;

use super::{Attempt, Channel, Readiness, channel::advance_until};
use crate::{
    connect::Handshake,
    error::{Error, Result},
};

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
    /// Handshakes until they are complete.
    channels: JoinSet<Result<Channel>>,
    /// Handshakes until their clients have sent their credentials.
    handshakes: JoinSet<Result<Handshake>>,
}

/// Registers the listener with the runtime.
impl TryFrom<crate::Listener> for Listener {
    type Error = Error;

    fn try_from(inner: crate::Listener) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Ok(Self { inner, readiness, channels: JoinSet::new(), handshakes: JoinSet::new() })
    }
}

impl Listener {
    /// Listens with the default settings; does not block. A listener with other settings is made by `try_from` of
    /// [`Builder::listen`](crate::Builder::listen).
    ///
    /// # Errors
    /// Those of [`Builder::listen`](crate::Builder::listen), and [`Error::Io`] if the runtime cannot watch it.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        crate::Listener::bind(path)?.try_into()
    }

    /// Waits for the next client whose handshake is complete. Each handshake is a task of its own with its own deadline, so a
    /// silent client delays no other. Dropping the listener ends all of them.
    ///
    /// The application is not asked whether the client may have a ring, which it can keep for as long as it lives. A
    /// server for strangers uses [`accept_handshake`](Self::accept_handshake) instead.
    ///
    /// Cancel-safe: handshakes continue if the future is dropped, and the next call returns their channels.
    ///
    /// An [`Error::Handshake`], [`Error::Timeout`] or [`Error::FdsLost`] concerns one client: accept the next one at once.
    /// If the server paused for it, bad clients could delay honest ones. Pause after an [`Error::Io`]: it concerns this
    /// process, for instance its limit of open files, and the next call may fail as well.
    ///
    /// # Errors
    /// Those of [`sealane::Listener::accept`](crate::Listener::accept).
    pub async fn accept(&mut self) -> Result<Channel> {
        let Self { inner, readiness, channels, .. } = self;
        next(inner, readiness, channels, Channel::establish).await
    }

    /// Waits for the next client that has sent its credentials, before any memory is given to it. The caller looks at the
    /// [credentials](Handshake::peer_credentials), and [refuses](Handshake::refuse) the client or
    /// [establishes](Channel::establish) the channel. That belongs in a task of its own, since the client decides how long
    /// it takes.
    ///
    /// A client may connect and send nothing. Until it sends its credentials its handshake is a task of its own with its own
    /// deadline, so a silent client delays no other. Dropping the listener ends all of them.
    ///
    /// Cancel-safe: handshakes continue if the future is dropped, and the next call returns them. This method and
    /// [`accept`](Self::accept) each return the clients that they accepted themselves: use one of the two.
    ///
    /// A server that bounds the channels of each user:
    ///
    /// ```
    /// use sealane::tokio::{Channel, Listener};
    /// use std::collections::HashMap;
    /// use std::sync::Arc;
    ///
    /// async fn serve(mut listener: Listener) {
    ///     // Each channel of a user has a copy, so the copies are counted.
    ///     let mut users: HashMap<u32, Arc<()>> = HashMap::new();
    ///     loop {
    ///         let handshake = match listener.accept_handshake().await {
    ///             Ok(handshake) => handshake,
    ///             // A shortage of our own.
    ///             Err(error @ sealane::Error::Io { .. }) => {
    ///                 eprintln!("not accepted: {error}");
    ///                 tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    ///                 continue;
    ///             }
    ///             Err(_) => continue,
    ///         };
    ///         let uid = handshake.peer_credentials().unwrap().uid;
    ///         let user = users.entry(uid).or_default();
    ///         if Arc::strong_count(user) > 8 {
    ///             // The client learns it, and has cost nothing.
    ///             handshake.refuse();
    ///             continue;
    ///         }
    ///         let place = Arc::clone(user);
    ///         tokio::spawn(async move {
    ///             let mut channel = Channel::establish(handshake).await?;
    ///             channel.send(b"welcome").await?;
    ///             // Until the client closes its end. A hostile one may keep its ring after that, until it ends itself.
    ///             while channel.recv().await.is_ok() {}
    ///             drop(place);
    ///             Ok::<(), sealane::Error>(())
    ///         });
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> sealane::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("service");
    /// tokio::spawn(serve(Listener::bind(&path)?));
    /// let mut clients = Vec::new();
    /// for _ in 0..8 {
    ///     clients.push(Channel::connect(&path).await?);
    /// }
    /// assert!(matches!(Channel::connect(&path).await, Err(sealane::Error::Handshake(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    pub async fn accept_handshake(&mut self) -> Result<Handshake> {
        let Self { inner, readiness, handshakes, .. } = self;
        next(inner, readiness, handshakes, introduce).await
    }

    /// The path that will be removed on drop; `None` for an abstract name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
}

/// Advances a handshake until its client has sent its credentials, and no further.
async fn introduce(mut handshake: Handshake) -> Result<Handshake> {
    let readiness = Readiness::new(handshake.as_fd())?;
    advance_until(&mut handshake, &readiness, |handshake| handshake.peer_credentials().is_some()).await?;
    Ok(handshake)
}

/// Waits for the next of `tasks` that has ended. Meanwhile each client that connects becomes one of them.
async fn next<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    listener: &crate::Listener,
    readiness: &Readiness,
    tasks: &mut JoinSet<Result<T>>,
    task: impl Fn(Handshake) -> F,
) -> Result<T> {
    let client = || readiness.until(|| Ok(listener.try_accept()?.map_or(Attempt::Wait, Attempt::Done)));
    let mut coming = pin!(client());
    poll_fn(|cx| {
        loop {
            // `None` is ready too: there are no tasks.
            if let Poll::Ready(Some(ended)) = tasks.poll_join_next(cx) {
                return Poll::Ready(ended.map_err(Error::io("a handshake's task"))?);
            }
            let handshake = ready!(coming.as_mut().poll(cx))?;
            tasks.spawn(task(handshake));
            coming.set(client());
        }
    })
    .await
}
