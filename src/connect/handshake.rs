//! [`Handshake`]: both sides send `Hello`, look at the other's offer, and answer `Ready` or `Reject`.
//!
//! | | caller | listener |
//! |---|---|---|
//! | 1 | sends `Hello` | awaits `Hello` |
//! | 2 | awaits `Hello` | examines the offer, and gives the application its turn |
//! | 3 | examines the offer | sends `Hello` |
//! | 4 | sends `Ready` | awaits `Ready` |
//! | 5 | awaits `Ready` | sends `Ready` |

use std::{
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno, net::Shutdown};
use zerocopy::IntoBytes;

use crate::{
    channel::{Channel, peer::Credentials},
    connect::{
        establish,
        offer::{Offer, PeerOffer, REFLECTED, awaited},
        settings::{Role, Settings, random},
    },
    error::{Error, HandshakeError, Reason, Refusal, Result},
    memory::region::{Offered, Unfit},
    protocol::{
        hello::{HELLO_MAX, Reject},
        layout::{Word, to_u64},
        packet::{Kind, PacketHeader},
    },
    socket::seqpacket::{Arrival, SendFailure, Socket},
    sys::mapping::PeerRegion,
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
/// A client may connect long before it says who it is. A server for strangers therefore calls `advance` until the
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
    socket: Socket,
    settings: Settings,
    role: Role,
    /// The mark of our regions, by which they are recognised when a peer sends them back. A client may connect twice, so a
    /// listener's handshakes share one. Others do not, as a process may connect to itself.
    origin: u64,
    deadline: Instant,
    state: State,
    /// Stays when the state ends: an application may want to know whom it refused.
    credentials: Option<Credentials>,
    needs_advance: bool,
}

/// The next step of a handshake, with everything that the steps before have brought.
enum State {
    /// Our `Hello` is to be sent: by a caller, or by a listener that has examined the peer's offer.
    SendHello(Offer, Option<Box<PeerOffer<PeerRegion>>>),
    /// The peer's `Hello` is awaited. A listener has no offer of its own yet.
    AwaitHello(Option<Offer>),
    /// The peer's `Hello` is good, but for its region, which is looked at piece by piece. `Hello` stays in the socket
    /// meanwhile, to keep that readable.
    Examine(Option<Offer>, Box<PeerOffer<Offered>>),
    SendReady(Offer, Box<PeerOffer<PeerRegion>>),
    AwaitReady(Offer, Box<PeerOffer<PeerRegion>>),
    Complete(Offer, Box<PeerOffer<PeerRegion>>),
    /// We have refused the peer, and read its packets to the end, so that it can read the reason.
    Refused(Refusal),
    Failed(Error),
}

/// The result of one step.
enum Progress {
    /// The next step can follow at once.
    Again,
    /// The peer has not sent the awaited packet yet.
    Waiting,
    /// The next step belongs to the next call.
    Paused,
    /// The packet could not be sent for the moment: the same step is tried again in another call.
    Later(Error),
    Done,
}

impl Handshake {
    pub(crate) fn new(socket: Socket, settings: Settings, role: Role) -> Result<Self> {
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
            state: State::AwaitHello(None),
            credentials: None,
            needs_advance: false,
        };
        match handshake.begin() {
            // `advance` sends the `Hello` again.
            Ok(()) | Err(Error::Full | Error::FdsInFlight) => Ok(handshake),
            Err(error) => Err(handshake.failed_by(error)),
        }
    }

    fn begin(&mut self) -> Result<()> {
        // The options come before our `Hello`, so that the kernel attaches credentials to it and to whatever answers it.
        self.socket.pass_credentials(true)?;
        self.socket.pass_pidfd(self.settings.peer_pidfd);
        if self.role == Role::Caller {
            self.state = State::SendHello(self.create_offer()?, None);
            self.step()?;
        }
        Ok(())
    }

    fn create_offer(&self) -> Result<Offer> {
        Offer::create(&self.settings, self.origin, Deadline::At(self.deadline))
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
        self.needs_advance = true;
        let mut passing = None;
        while budget.spend()? {
            match self.step() {
                Ok(Progress::Again) => continue,
                Ok(Progress::Done) => {
                    self.needs_advance = false;
                    return Ok(true);
                }
                Ok(Progress::Paused) => {}
                Ok(Progress::Waiting) => self.needs_advance = false,
                Ok(Progress::Later(error)) => {
                    self.needs_advance = false;
                    passing = Some(error);
                }
                Err(error) => return Err(self.failed_by(error)),
            }
            break;
        }
        if Instant::now() < self.deadline {
            return passing.map_or(Ok(false), Err);
        }
        let error = match self.state {
            State::Refused(refusal) => HandshakeError::Refused(refusal).into(),
            _ => Error::Timeout,
        };
        Err(self.failed_by(error))
    }

    /// True if [`advance`](Self::advance) has more to do at once. An edge-triggered loop then calls it again without waiting for
    /// the descriptor, after a look at the [credentials](Self::peer_credentials), if it wants one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("socket");
    /// # let listener = sealane::Listener::bind(&path)?;
    /// let client = sealane::Channel::builder().try_connect(&path)?;
    /// let mut server = listener.try_accept()?.expect("somebody has connected");
    /// assert!(!server.advance()?);
    /// // The client has said who it is, and waits for us.
    /// assert!(server.peer_credentials().is_some() && server.needs_advance());
    /// # drop(client);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn needs_advance(&self) -> bool {
        self.needs_advance
    }

    fn step(&mut self) -> Result<Progress> {
        let state = mem::replace(&mut self.state, State::Failed(Error::Disconnected));
        match self.next(state) {
            Ok((state, progress)) => {
                self.state = state;
                Ok(progress)
            }
            Err(Unfit::Refused(refusal)) => {
                self.reject(refusal);
                Ok(Progress::Again)
            }
            Err(Unfit::Failed(error)) => Err(error),
        }
    }

    /// The state machine: takes one step from `state`.
    fn next(&mut self, state: State) -> Result<(State, Progress), Unfit> {
        Ok(match state {
            State::SendHello(mut offer, peer) => {
                // A client's time may end during the application's turn. Nothing is given to it then.
                if peer.is_some() && Deadline::At(self.deadline).passed() {
                    return Err(Error::Timeout.into());
                }
                match (offer.send(&self.socket, &self.settings.limits(self.role)), peer) {
                    (Ok(()), None) => (State::AwaitHello(Some(offer)), Progress::Again),
                    (Ok(()), Some(peer)) => (State::AwaitReady(offer, peer), Progress::Again),
                    (Err(error), peer) => (State::SendHello(offer, peer), later(error)?),
                }
            }
            State::AwaitHello(offer) => match self.socket.peek(HELLO_MAX)? {
                Arrival::Nothing => (State::AwaitHello(offer), Progress::Waiting),
                Arrival::End => return Err(closed_before("Hello")),
                Arrival::Packet(packet) => {
                    let limits = self.settings.limits(self.role);
                    let peer = PeerOffer::examine(packet, &limits, offer.as_ref()).inspect_err(|_| {
                        // The packet was only peeked at, and would be read as the next one. An error would come back there.
                        let _ = self.socket.receive(HELLO_MAX);
                    })?;
                    let capacity = peer.negotiated.geometry.capacity;
                    log::debug!("handshake: {:?} offers a ring of {capacity} bytes", peer.credentials);
                    // The read that takes `Hello` would open the process once more.
                    self.socket.pass_pidfd(false);
                    self.credentials = Some(peer.credentials);
                    // The application has its turn here, to look at the credentials of a listener's client.
                    let progress = match self.role {
                        Role::Listener => Progress::Paused,
                        Role::Caller => Progress::Again,
                    };
                    (State::Examine(offer, Box::new(peer)), progress)
                }
            },
            State::Examine(offer, mut peer) => {
                let Some(region) = peer.region.map_peer(self.settings.prefault)? else {
                    return Ok((State::Examine(offer, peer), Progress::Paused));
                };
                if region.load(Word::Origin) == self.origin {
                    return Err(REFLECTED.into());
                }
                let peer = Box::new(peer.with_region(region));
                // This read installs the descriptors once more, and closes them.
                self.socket.receive(HELLO_MAX)?;
                let state = match offer {
                    Some(offer) => State::SendReady(offer, peer),
                    None if Deadline::At(self.deadline).passed() => return Err(Error::Timeout.into()),
                    None => State::SendHello(self.create_offer()?, Some(peer)),
                };
                (state, Progress::Again)
            }
            State::SendReady(offer, peer) => {
                match (self.socket.send(PacketHeader::plain(Kind::Ready, 0), &[], &[]), self.role) {
                    // A peer that is gone may have left its reason, to be read next.
                    (Ok(()) | Err(SendFailure::Gone), Role::Caller) => {
                        (State::AwaitReady(offer, peer), Progress::Again)
                    }
                    (Ok(()) | Err(SendFailure::Gone), Role::Listener) => {
                        (State::Complete(offer, peer), Progress::Again)
                    }
                    (Err(failure), _) => (State::SendReady(offer, peer), later(failure.into())?),
                }
            }
            State::AwaitReady(offer, peer) => match self.socket.receive(HELLO_MAX)? {
                Arrival::Nothing => (State::AwaitReady(offer, peer), Progress::Waiting),
                Arrival::End => return Err(closed_before("Ready")),
                Arrival::Packet(packet) => {
                    let found = awaited(packet, Kind::Ready)?.packet.fd_count;
                    if found > 0 {
                        let (reason, found) = (Reason::Descriptors, to_u64(found));
                        return Err(Refusal { reason, expected: 0, found }.into());
                    }
                    // Both sides have said who they are.
                    self.socket.pass_credentials(false)?;
                    let state = match self.role {
                        Role::Caller => State::Complete(offer, peer),
                        Role::Listener => State::SendReady(offer, peer),
                    };
                    (state, Progress::Again)
                }
            },
            State::Complete(offer, peer) => (State::Complete(offer, peer), Progress::Done),
            State::Refused(refusal) => match self.socket.receive(HELLO_MAX)? {
                Arrival::End => return Err(Error::from(HandshakeError::Refused(refusal)).into()),
                Arrival::Packet(_) if Instant::now() < self.deadline => {
                    (State::Refused(refusal), Progress::Again)
                }
                // `advance` gives up after the deadline, whatever else the peer has sent.
                Arrival::Packet(_) | Arrival::Nothing => (State::Refused(refusal), Progress::Waiting),
            },
            State::Failed(error) => return Err(error.into()),
        })
    }

    /// Ends the handshake by `error`. After a failure of our own the peer reads that it has done nothing wrong.
    fn failed_by(&mut self, error: Error) -> Error {
        log::debug!("handshake: {error}");
        self.state = State::Failed(again(&error));
        self.needs_advance = false;
        let errno = match &error {
            Error::Io { source, .. } => source.raw_os_error().unwrap_or(0),
            Error::FdsLost { .. } => Errno::MFILE.raw_os_error(),
            _ => return error,
        };
        let found = u64::try_from(errno).unwrap_or(0);
        self.send_reject(Refusal { reason: Reason::OwnFailure, expected: 0, found });
        error
    }

    /// Refuses the peer: sends it the reason, and the end of file.
    fn reject(&mut self, refusal: Refusal) {
        log::debug!("handshake: refused: {refusal}");
        self.state = State::Refused(refusal);
        self.send_reject(refusal);
    }

    fn send_reject(&self, refusal: Refusal) {
        let body = Reject::new(refusal);
        if let Err(failure) = self.socket.send(PacketHeader::plain(Kind::Reject, 0), body.as_bytes(), &[]) {
            log::debug!("handshake: Reject was not sent: {failure:?}");
        }
        self.socket.shutdown(Shutdown::Write);
    }

    /// Refuses the peer, for instance for its [credentials](Self::peer_credentials). The peer gets
    /// [`HandshakeError::Rejected`] with [`Reason::Application`]. Does not block.
    ///
    /// The time to refuse a listener's client is when [`advance`](Self::advance) has returned false and the credentials are
    /// known: only a later call gives the client anything. `advance` returns false as well while they are unknown; then wait
    /// for the descriptor, and call it again.
    pub fn refuse(mut self) {
        // A `Hello` left in the socket would give the peer `ECONNRESET`, ahead of the reason.
        if matches!(self.state, State::Examine(..)) {
            let _ = self.socket.receive(HELLO_MAX);
        }
        self.reject(Refusal { reason: Reason::Application, expected: 0, found: 0 });
    }

    /// Completes the handshake; blocks until the deadline at most.
    ///
    /// The receiving half has this descriptor, so that its registration in an event loop stays. Receive until `None` at
    /// once.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn finish(mut self) -> Result<Channel> {
        let deadline = Deadline::At(self.deadline);
        loop {
            if let State::Complete(offer, peer) = self.state {
                return establish::channel(self.socket, &self.settings, offer, *peer);
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

/// The end of a handshake whose peer has closed the socket.
fn closed_before(awaited: &'static str) -> Unfit {
    Unfit::Failed(HandshakeError::Closed { awaited }.into())
}

/// A failure to send that passes, as progress; any other as an error.
fn later(error: Error) -> Result<Progress, Unfit> {
    match error {
        Error::Full | Error::FdsInFlight => Ok(Progress::Later(error)),
        error => Err(error.into()),
    }
}

/// A copy of the error that a handshake has ended by.
fn again(error: &Error) -> Error {
    match error {
        Error::Timeout => Error::Timeout,
        Error::Handshake(error) => error.clone().into(),
        Error::Protocol(violation) => (*violation).into(),
        &Error::FdsLost { expected, received } => Error::FdsLost { expected, received },
        &Error::RingTooLarge { capacity, max } => Error::RingTooLarge { capacity, max },
        Error::Io { operation, path, source } => Error::Io {
            operation,
            path: path.clone(),
            source: source.raw_os_error().map_or_else(|| source.kind().into(), io::Error::from_raw_os_error),
        },
        _ => Error::Disconnected,
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
        let state = match &self.state {
            State::SendHello(..) => "SendHello",
            State::AwaitHello(_) => "AwaitHello",
            State::Examine(..) => "Examine",
            State::SendReady(..) => "SendReady",
            State::AwaitReady(..) => "AwaitReady",
            State::Complete(..) => "Complete",
            State::Refused(_) => "Refused",
            State::Failed(_) => "Failed",
        };
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("state", &format_args!("{state}"))
            .field("peer", &self.credentials)
            .finish_non_exhaustive()
    }
}
