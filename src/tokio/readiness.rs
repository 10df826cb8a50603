//! [`Readiness`]: the wait of a task until an attempt is worth repeating.
//!
//! tokio watches a duplicate of a descriptor, and never reads it: the half whose descriptor it is does that. tokio is
//! edge-triggered: it keeps a stored readiness until that is cleared. An attempt clears it exactly when it has armed
//! the descriptor and found nothing.

use std::{
    fmt,
    future::Future,
    io,
    os::{fd::BorrowedFd, unix::net::UnixDatagram},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::tokio::{
    io::Interest,
    net,
    task::{coop::consume_budget, yield_now},
    time::timeout,
};

use crate::{
    channel::Message,
    error::{Error, Result},
    sys::{descriptor::close_registered, owner::Owner},
    wait::Outcome,
};

/// First and longest pause between two attempts that no descriptor asks for.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The result of an attempt.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    Done(T),
    /// Not now. The descriptor is armed: it becomes readable when something changes.
    Wait,
    /// Not now, and no descriptor may signal the change: try again after a pause.
    Pause,
    /// Not now, but there is more to look at, which no descriptor signals.
    Again,
}

impl<T> Attempt<T> {
    /// The attempt to send that had this result.
    pub(super) fn to_send(result: Result<T>) -> Result<Self> {
        match result {
            Ok(done) => Ok(Self::Done(done)),
            Err(Error::Full) => Ok(Self::Wait),
            Err(Error::FdsInFlight) => Ok(Self::Pause),
            Err(error) => Err(error),
        }
    }
}

impl From<Outcome<Message>> for Attempt<Message> {
    fn from(found: Outcome<Message>) -> Self {
        match found {
            Outcome::Done(message) => Self::Done(message),
            Outcome::Empty => Self::Wait,
            Outcome::Spent | Outcome::Changed => Self::Again,
        }
    }
}

/// A descriptor that tokio watches.
///
/// To tokio it is a datagram socket, the closest to ours that it knows; none of that type's own reading or writing is used.
pub(super) struct Readiness {
    /// `Some` until it is dropped.
    socket: Option<net::UnixDatagram>,
    owner: Owner,
}

impl Readiness {
    /// Sets `O_NONBLOCK`, on which this library never depends. The standard library makes the duplicate above the standard
    /// streams.
    pub(super) fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let duplicate = fd.try_clone_to_owned().map_err(Error::io("fcntl(F_DUPFD_CLOEXEC)"))?;
        let socket = UnixDatagram::from(duplicate);
        socket.set_nonblocking(true).map_err(Error::io("ioctl(FIONBIO)"))?;
        let socket = net::UnixDatagram::from_std(socket).map_err(Error::io("registering with tokio"))?;
        Ok(Self { socket: Some(socket), owner: Owner::here() })
    }

    /// Tries until it is done or fails. Cancel-safe, if `attempt` leaves nothing behind when it is not done.
    pub(super) async fn until<T>(&self, mut attempt: impl FnMut() -> Result<Attempt<T>>) -> Result<T> {
        consume_budget().await;
        let (mut pause, longest) = PAUSE;
        loop {
            match self.attempt(&mut attempt)? {
                Attempt::Done(done) => return Ok(done),
                Attempt::Wait => self.readable().await?,
                Attempt::Pause => {
                    timeout(pause, self.readable()).await.unwrap_or(Ok(()))?;
                    pause = pause.saturating_mul(2).min(longest);
                }
                Attempt::Again => yield_now().await,
            }
        }
    }

    /// The poll form of [`until`](Self::until). Wakes the task of the latest call only.
    pub(super) fn poll_until<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Result<Attempt<T>>,
    ) -> Poll<Result<T>> {
        ready!(pin!(consume_budget()).poll(cx));
        loop {
            match self.attempt(&mut attempt)? {
                Attempt::Done(done) => return Poll::Ready(Ok(done)),
                Attempt::Wait => {
                    ready!(self.socket()?.poll_recv_ready(cx)).map_err(Error::io("waiting in tokio"))?;
                }
                // No descriptor may signal this, so the task looks again at its next turn.
                Attempt::Again | Attempt::Pause => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Tries even if the descriptor is not readable, since a message in the ring does not make it so. If the attempt has to
    /// wait, tokio's stored readiness is cleared.
    ///
    /// If tokio has no stored readiness there is nothing to clear: the descriptor is armed, so later news is a new edge.
    fn attempt<T>(&self, attempt: &mut impl FnMut() -> Result<Attempt<T>>) -> Result<Attempt<T>> {
        self.owner.claim();
        let mut tried = None;
        // The error that this may return is our own.
        let _ = self.socket()?.try_io(Interest::READABLE, || match tried.insert(attempt()) {
            Ok(Attempt::Wait | Attempt::Pause) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        });
        tried.unwrap_or_else(attempt)
    }

    fn socket(&self) -> Result<&net::UnixDatagram> {
        self.socket.as_ref().ok_or(Error::Disconnected)
    }

    async fn readable(&self) -> Result<()> {
        self.socket()?.readable().await.map_err(Error::io("waiting in tokio"))
    }
}

/// A fork's copy is closed, and not deregistered.
impl Drop for Readiness {
    fn drop(&mut self) {
        if !self.owner.is_here()
            && let Some(socket) = self.socket.take()
        {
            close_registered(socket);
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}
