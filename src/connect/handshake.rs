//! [`Handshake`]: a channel that is being established, as its users see it. `connect/steps.rs` has the state machine.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use crate::{
    channel::{Channel, Credentials},
    connect::{
        Parts, Progress, Role, Settings, SharedRegion, State, connect, establish, settings::random,
        steps::again,
    },
    error::{Error, HandshakeError, Reason, Refusal, Result},
    protocol::{HELLO_MAX, Terms, Wish},
    socket::seqpacket::{PacketBuffer, Socket},
    wait::{Budget, Deadline, sleep},
};

/// Pause before another attempt at a send for which the kernel announces no room.
const PAUSE: Duration = Duration::from_millis(5);

/// A channel that is being established.
///
/// A program that may block calls [`finish`](Self::finish), and nothing else. An event loop calls
/// [`advance`](Self::advance) once, and again whenever the descriptor is readable or the [`deadline`](Self::deadline) has
/// passed, until it returns true. Each call does a bounded piece of work: a large region of the peer's takes several.
///
/// The peer's `Hello` stays in the socket until all of its region has been looked at, so that a level-triggered loop comes
/// back by itself. An edge-triggered one (mio, tokio's `AsyncFd`) also calls `advance` again, without waiting, as long as
/// [`needs_advance`](Self::needs_advance) is true.
///
/// A handshake that is dropped after its first `advance` ends the connection for all copies of its descriptor
/// (`shutdown(2)`). One that has not advanced is only closed, so that a server may fork, and let the fork complete it.
///
/// A listener's handshake gives the client no memory before the application has had its turn. `advance` returns false when
/// the [`peer_credentials`](Self::peer_credentials) are known, and the next call continues.
/// [Refuse](Self::refuse) or drop the handshake instead, and the client has cost nothing.
///
/// A client may connect long before it sends its credentials. A server for strangers therefore calls `advance` until the
/// credentials are known, and waits for the descriptor in between; it neither finishes nor establishes a handshake before.
///
/// ```
/// use sealane::Channel;
///
/// let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
/// assert!(Channel::builder().handshake(ours.into()).is_err(), "it must be a SOCK_SEQPACKET socket");
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("socket");
/// let listener = sealane::Listener::bind(&path)?;
/// let mut client = Channel::builder().try_connect(&path)?;
/// let mut server = listener.try_accept()?.expect("somebody has connected");
/// while !(client.advance()? & server.advance()?) {
///     // An event loop would wait for `client` and `server` here.
/// }
/// let client_pid = server.peer_credentials().unwrap().pid;
/// assert_eq!(client_pid.map(u32::from), Some(std::process::id()));
/// let server = server.finish()?;
/// let client = client.finish()?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a handshake that is dropped ends the connection"]
pub struct Handshake {
    pub(super) socket: Socket,
    pub(super) settings: Settings,
    pub(super) role: Role,
    /// The mark of our regions, by which they are recognised when a peer sends them back. A client may connect twice, so a
    /// listener's handshakes share one. Others do not, as a process may connect to itself.
    pub(super) origin: u64,
    pub(super) deadline: Instant,
    pub(super) state: State,
    /// Stays when the state ends: an application may want to know whom it refused.
    pub(super) credentials: Option<Credentials>,
    pub(super) needs_advance: bool,
    /// The region of a publisher, which takes no other part.
    pub(super) shared: Option<SharedRegion>,
    /// What a publisher grants: ours in the end, or the peer's.
    pub(super) terms: Option<Terms>,
}

impl Handshake {
    /// Begins a handshake: a caller creates its offer and sends `Hello`.
    pub(crate) fn new(socket: Socket, settings: Settings, role: Role) -> Result<Self> {
        let mut handshake = Self::prepared(socket, settings, role)?;
        if role == Role::Caller {
            // A `Hello` for which there is no room yet is sent by `advance`.
            if let Err(error) = handshake.step().and_then(|_| handshake.step()) {
                return Err(handshake.failed_by(error));
            }
        }
        Ok(handshake)
    }

    /// Prepares a handshake: a caller creates and sends nothing before the first [`advance`](Self::advance).
    pub(crate) fn prepared(socket: Socket, settings: Settings, role: Role) -> Result<Self> {
        // `Instant` may end before the timeout does: no handshake takes a year.
        let now = Instant::now();
        let year = Duration::from_hours(365 * 24);
        let deadline = now.checked_add(settings.timeout.min(year)).unwrap_or(now);
        let mut handshake = Self {
            socket,
            settings,
            role,
            origin: if role == Role::Listener { settings.origin } else { random() },
            deadline,
            state: if role == Role::Caller { State::CreateOffer } else { State::AwaitHello(None) },
            credentials: None,
            needs_advance: false,
            shared: None,
            terms: None,
        };
        // The options come before our `Hello`, so that the kernel attaches credentials to it and to whatever answers it.
        match handshake.socket.pass_credentials(true) {
            Ok(()) => {
                handshake.socket.pass_pidfd(settings.peer_pidfd);
                Ok(handshake)
            }
            Err(error) => Err(handshake.failed_by(error)),
        }
    }

    /// Connects, and begins the handshake of a caller. One deadline covers both.
    pub(crate) fn connect(path: &Path, settings: Settings) -> Result<Self> {
        let deadline = Deadline::after(settings.timeout);
        let socket = connect(path, Some(deadline))?;
        let timeout = deadline.left().unwrap_or(settings.timeout);
        Self::new(socket, Settings { timeout, ..settings }, Role::Caller)
    }

    /// Begins the handshake of a publisher, which speaks second.
    pub(crate) fn of_publisher(socket: Socket, settings: Settings, shared: SharedRegion) -> Result<Self> {
        let handshake = Self::prepared(socket, settings, Role::Listener)?;
        Ok(Self { shared: Some(shared), ..handshake })
    }

    /// What a subscriber asks for, once its `Hello` has been looked at, and before it is given anything.
    pub(crate) fn wish(&self) -> Option<Wish> {
        match &self.state {
            State::Examine(_, peer) => Some(peer.negotiated.wish),
            _ => None,
        }
    }

    /// Whether all is done but for the publisher's last word: [`join`](Self::join).
    pub(crate) fn awaits_terms(&self) -> bool {
        matches!(self.state, State::SendReady(..)) && self.terms.is_none()
    }

    /// Says the publisher's last word. Nothing has changed if the socket has no room for it ([`Error::Full`]).
    pub(crate) fn join(&mut self, terms: Terms) -> Result<()> {
        self.terms = Some(terms);
        match self.advance() {
            Ok(true) => Ok(()),
            result => {
                self.terms = None;
                result.and(Err(Error::Full))
            }
        }
    }

    /// Refuses a subscriber for a reason of its publisher's.
    pub(crate) fn refuse_for(mut self, refusal: Refusal) {
        self.take_hello();
        self.reject(refusal);
    }

    /// A `Hello` left in the socket would give the peer `ECONNRESET`, ahead of the reason.
    fn take_hello(&self) {
        if matches!(self.state, State::Examine(..)) {
            let _ = self.socket.receive(&mut PacketBuffer::take(), HELLO_MAX);
        }
    }

    /// Takes the steps that are possible at once; never blocks. True when [`finish`](Self::finish) will not block.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::FdsInFlight`] pass: call again after some milliseconds. Every other error is the
    /// handshake's end, and later calls return it again: [`Error::Handshake`] with the reason, [`Error::Timeout`] after the
    /// deadline, [`Error::Io`] and [`Error::FdsLost`] for failures of this process, which the peer reads as
    /// [`Reason::OwnFailure`].
    pub fn advance(&mut self) -> Result<bool> {
        if let State::Failed(error) = &self.state {
            return Err(again(error));
        }
        self.socket.own();
        let mut budget = Budget::once();
        let progress = loop {
            if let State::Complete(..) = self.state {
                self.needs_advance = false;
                return Ok(true);
            }
            if !budget.spend()? {
                break Progress::Paused;
            }
            match self.step() {
                Ok(Progress::Again) => {}
                Ok(progress) => break progress,
                Err(error) => return Err(self.failed_by(error)),
            }
        };
        if Instant::now() >= self.deadline {
            let error = match self.state {
                State::Refused(refusal) => HandshakeError::Refused(refusal).into(),
                _ => Error::Timeout,
            };
            return Err(self.failed_by(error));
        }
        self.needs_advance = matches!(progress, Progress::Paused);
        if let Progress::Later(error) = progress { Err(error) } else { Ok(false) }
    }

    /// True if [`advance`](Self::advance) has more to do at once. An edge-triggered loop then calls it again, without waiting
    /// for the descriptor, after a look at the [credentials](Self::peer_credentials), if it wants one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("socket");
    /// # let listener = sealane::Listener::bind(&path)?;
    /// let client = sealane::Channel::builder().try_connect(&path)?;
    /// let mut server = listener.try_accept()?.expect("somebody has connected");
    /// assert!(!server.advance()?);
    /// // The client has sent its credentials, and waits for us.
    /// assert!(server.peer_credentials().is_some() && server.needs_advance());
    /// # drop(client);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn needs_advance(&self) -> bool {
        self.needs_advance
    }

    /// Refuses the peer, for instance for its [credentials](Self::peer_credentials). The peer gets
    /// [`HandshakeError::Rejected`] with [`Reason::Application`]. Does not block.
    ///
    /// The time to refuse a listener's client is when [`advance`](Self::advance) has returned false and the credentials are
    /// known: only a later call gives the client anything. `advance` returns false as well while they are unknown; then wait
    /// for the descriptor, and call it again.
    pub fn refuse(mut self) {
        self.take_hello();
        self.reject(Refusal { reason: Reason::Application, expected: 0, found: 0 });
    }

    /// Completes the handshake; blocks until the deadline at most.
    ///
    /// The receiving half has this descriptor, so that its registration in an event loop stays. Receive until `None` at
    /// once.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn finish(self) -> Result<Channel> {
        establish::channel(self.parts()?)
    }

    /// Completes the handshake, for what is no channel.
    pub(crate) fn parts(mut self) -> Result<Parts> {
        let deadline = Deadline::At(self.deadline);
        loop {
            if let State::Complete(offer, peer) = self.state {
                return Parts::new(self.socket, &self.settings, offer, *peer, self.terms);
            }
            match self.advance() {
                Ok(complete) if complete || self.needs_advance => {}
                Ok(_) => drop(sleep([(self.socket.as_fd(), PollFlags::IN)], deadline, None)?),
                Err(Error::Full | Error::FdsInFlight) => drop(sleep([], deadline, Some(PAUSE))?),
                Err(error) => return Err(error),
            }
        }
    }

    /// The time at which the handshake fails. An event loop calls [`advance`](Self::advance) then, since a silent peer makes
    /// no descriptor readable.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The peer's identity, once [`advance`](Self::advance) has looked at its `Hello`. `None` for a client that has only
    /// connected.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        self.credentials
    }
}

impl AsFd for Handshake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Handshake {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("peer", &self.credentials)
            .finish_non_exhaustive()
    }
}
