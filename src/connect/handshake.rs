//! [`Handshake`]: both sides say `Hello` at once, look at what they got, and say `Ready` or `Reject`.

use std::{
    fmt, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno, net::Shutdown};
use zerocopy::IntoBytes;

use crate::{
    channel::{
        Channel,
        peer::{Credentials, Peer},
        receiver::Receiver,
        sender::Sender,
        stats::Limits,
    },
    connect::settings::{Role, Settings, random},
    error::{Error, HandshakeError, ProtocolError, Reason, Refusal, Result},
    memory::region::{Offered, OwnRegion, Unfit},
    protocol::{
        layout::{Word, to_u64},
        negotiation::Terms,
        packet::{HELLO_MAX, Kind, Packet, PacketHeader, Reject},
    },
    ring::release::Intake,
    socket::{
        link::Link,
        seqpacket::{Arrival, Incoming, SendFailure, Socket},
    },
    sys::peer_region::PeerRegion,
    wait::{Deadline, MAX_PACKETS_PER_CALL, Spinner, pinned_to_same_cpu, sleep},
};

const REFLECTED: Refusal = Refusal { reason: Reason::Reflected, expected: 0, found: 0 };

/// What the peer gets from us with `Hello`.
struct Own {
    region: OwnRegion,
    /// Where the peer will announce room, and the end that it gets for that.
    credit_in: Socket,
    credit_for_peer: OwnedFd,
}

impl Own {
    fn create(settings: &Settings, origin: u64, deadline: Deadline) -> Result<Self> {
        let Settings { ring_capacity, prefault, huge_pages, .. } = *settings;
        let region = OwnRegion::create(ring_capacity, prefault, huge_pages, deadline)?;
        region.words.word(Word::Origin).store(origin, Relaxed);
        let (credit_in, credit_for_peer) = Socket::pair()?;
        Ok(Self { region, credit_in: Socket::own_credit(credit_in), credit_for_peer })
    }
}

/// A channel that is being established.
///
/// In a program that may block, [`finish`](Self::finish) is all. In an event loop, call [`advance`](Self::advance) once, and
/// again whenever the descriptor is readable or the [`deadline`](Self::deadline) has passed, until it says true. Each call
/// does a bounded piece of work: a large region of the peer's takes several.
///
/// A level-triggered loop needs no more than that, as the peer's `Hello` stays in the socket until all of it has been
/// looked at. An edge-triggered one (mio, tokio's `AsyncFd`) hears of it once: it also calls `advance` again, without waiting,
/// as long as [`needs_advance`](Self::needs_advance) is true.
///
/// Dropped before it is complete, a handshake that has advanced ends the connection, whatever copies of its descriptor there
/// are (`shutdown(2)`). One that has not is only closed: a server may fork, and let the fork complete it.
///
/// A listener's handshake gives the client no memory before the application has had its turn: `advance` says false
/// when [`peer_credentials`](Self::peer_credentials) are there, and the next call continues.
/// [Refuse](Self::refuse) or drop the handshake instead, and the client has cost nothing.
/// A client may connect long before it says who it is. So a server for strangers calls `advance` until the credentials are
/// there, and waits for the descriptor in between; it neither finishes nor establishes a handshake before.
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
    /// By which we know a region again that a peer got from us: from this handshake or, as a client may connect twice, from
    /// any of this listener's. Not from any of this process's, as a process may connect to itself.
    origin: u64,
    /// From our own `Hello` on.
    own: Option<Own>,
    deadline: Instant,
    said: Said,
    heard: Heard,
    /// The kernel has no name for us that we could give the peer: see [`Credentials::of`].
    nameless: bool,
    /// The last step stopped although there is more to do.
    unfinished: bool,
    /// Why we refused. Then all that is left is to let the peer read it.
    refused: Option<Refusal>,
    /// What it has ended by.
    failed: Option<Error>,
}

/// How far we have got with what the peer says.
enum Heard {
    Nothing,
    /// A good `Hello`, which is still in the socket, so that this stays readable, while its region is being looked at.
    Offer(Box<Candidate<Offered>>),
    /// All of it was good, and it has been taken out of the socket.
    Hello(Box<Candidate<PeerRegion>>),
    Ready(Box<Candidate<PeerRegion>>),
}

/// A peer whose `Hello` has been found good, but for the region perhaps.
struct Candidate<R> {
    region: R,
    credit_out: Socket,
    terms: Terms,
    credentials: Credentials,
    pidfd: Option<Arc<OwnedFd>>,
}

/// How far we have got with what we say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Said {
    Nothing,
    Hello,
    Ready,
}

/// What one step of the handshake came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    /// Nothing to read yet.
    Waiting,
    /// There is more to do, in the next call.
    Paused,
    Again,
}

impl Handshake {
    pub(crate) fn new(socket: Socket, settings: Settings, role: Role) -> Result<Self> {
        // Longer than the clock can tell is as good as a year.
        let now = Instant::now();
        let year = Duration::from_hours(365 * 24);
        let deadline = now.checked_add(settings.timeout.min(year)).unwrap_or(now);
        let mut handshake = Self {
            socket,
            settings,
            role,
            origin: if role == Role::Listener { settings.origin } else { random() },
            own: None,
            deadline,
            said: Said::Nothing,
            heard: Heard::Nothing,
            nameless: false,
            unfinished: false,
            refused: None,
            failed: None,
        };
        // Before we say anything, so that the kernel notes who sends what answers it, and who we are.
        if let Err(error) = handshake.socket.pass_credentials(true) {
            return Err(handshake.failed_by(error));
        }
        handshake.socket.pass_pidfd(settings.peer_pidfd);
        if role == Role::Caller {
            // If there is no room yet, `advance` says it again.
            match handshake.say_hello() {
                Ok(()) | Err(Error::Full | Error::FdsInFlight) => {}
                Err(error) => return Err(handshake.failed_by(error)),
            }
        }
        Ok(handshake)
    }

    fn say_hello(&mut self) -> Result<()> {
        if self.said >= Said::Hello {
            return Ok(());
        }
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(Own::create(&self.settings, self.origin, Deadline::At(self.deadline))?),
        };
        let fds = [own.region.memfd.as_fd(), own.credit_for_peer.as_fd()];
        let header = PacketHeader::plain(Kind::Hello, 2);
        let hello = self.settings.bounds(self.role).hello(own.region.geometry);
        match self.socket.send_identified(header, hello.as_bytes(), &fds) {
            Ok(named) => self.nameless = !named,
            // A peer that is gone may have left us its reason.
            Err(SendFailure::Gone) => {}
            // The kernel says so of a socket that takes no descriptors (`SO_PASSRIGHTS`, Linux 6.16). The credentials are true.
            Err(SendFailure::Other(error)) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                let refusal = Refusal { reason: Reason::Descriptors, expected: 0, found: to_u64(fds.len()) };
                return Err(HandshakeError::Rejected(refusal).into());
            }
            Err(failure) => return Err(failure.into()),
        }
        log::debug!("handshake: sent Hello with a ring of {} bytes", own.region.geometry.capacity);
        self.said = Said::Hello;
        Ok(())
    }

    fn say_ready(&mut self) -> Result<()> {
        if self.said < Said::Ready {
            match self.socket.send(PacketHeader::plain(Kind::Ready, 0), &[], &[]) {
                Ok(()) | Err(SendFailure::Gone) => self.said = Said::Ready,
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    /// Does what it can in one call; never blocks. True when [`finish`](Self::finish) will not block.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::FdsInFlight`] are passing: call again after some milliseconds. Every other error is the
    /// handshake's end, and later calls return it again: [`Error::Handshake`] with the reason, [`Error::Timeout`] after the
    /// deadline, [`Error::Io`] and [`Error::FdsLost`] for failures of this process's own, which the peer reads as
    /// [`Reason::OwnFailure`].
    pub fn advance(&mut self) -> Result<bool> {
        if let Some(error) = &self.failed {
            return Err(again(error));
        }
        self.socket.own();
        self.unfinished = true;
        let mut passing = None;
        for _ in 0..MAX_PACKETS_PER_CALL {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::Done) => {
                    self.unfinished = false;
                    return Ok(true);
                }
                Ok(Step::Waiting) => {
                    self.unfinished = false;
                    break;
                }
                Ok(Step::Paused) => break,
                Err(error @ (Error::Full | Error::FdsInFlight)) => {
                    self.unfinished = false;
                    passing = Some(error);
                    break;
                }
                Err(error) => return Err(self.failed_by(error)),
            }
        }
        if Instant::now() < self.deadline {
            return passing.map_or(Ok(false), Err);
        }
        Err(self.failed_by(
            self.refused.map_or(Error::Timeout, |refusal| HandshakeError::Refused(refusal).into()),
        ))
    }

    /// Whether [`advance`](Self::advance) has more to do at once: an edge-triggered loop calls it again without waiting for the
    /// descriptor, but after it has looked at the [credentials](Self::peer_credentials), if it wants to.
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
        self.unfinished
    }

    fn step(&mut self) -> Result<Step> {
        if self.refused.is_some() {
            return self.hear_out();
        }
        if self.role == Role::Caller {
            self.say_hello()?;
        }
        match &mut self.heard {
            Heard::Nothing => self.hear_hello(),
            Heard::Offer(offer) => match offer.region.adopt(self.settings.prefault) {
                Ok(Some(region)) if region.load(Word::Origin) == self.origin => {
                    self.turn_down(REFLECTED.into())
                }
                Ok(Some(region)) => self.take_hello(region),
                Ok(None) => Ok(Step::Paused),
                Err(unfit) => self.turn_down(unfit),
            },
            Heard::Hello(_) => {
                // A listener says it here, to who was not refused. After the deadline nobody is given anything.
                if self.said == Said::Nothing && Deadline::At(self.deadline).passed() {
                    return Err(Error::Timeout);
                }
                self.say_hello()?;
                if self.role == Role::Caller {
                    self.say_ready()?;
                }
                self.hear_ready()
            }
            Heard::Ready(_) => {
                self.say_ready()?;
                Ok(Step::Done)
            }
        }
    }

    /// Looks at the packet that should be `Hello`, and leaves it in the socket if it is good.
    fn hear_hello(&mut self) -> Result<Step> {
        let packet = match self.socket.peek(HELLO_MAX)? {
            Arrival::Packet(packet) => packet,
            Arrival::Nothing => return Ok(Step::Waiting),
            Arrival::End => return Err(HandshakeError::Closed { awaited: "Hello" }.into()),
        };
        match self.examine(packet) {
            Ok(candidate) => {
                log::debug!(
                    "handshake: {:?} offers a ring of {} bytes",
                    candidate.credentials,
                    candidate.terms.geometry.capacity
                );
                // The next read would open the process once more.
                self.socket.pass_pidfd(false);
                self.heard = Heard::Offer(Box::new(candidate));
                // The application has its turn here, to look at the credentials.
                Ok(if self.role == Role::Listener { Step::Paused } else { Step::Again })
            }
            Err(unfit) => {
                self.socket.receive(HELLO_MAX)?;
                self.turn_down(unfit)
            }
        }
    }

    /// Takes the `Hello` out of the socket, whose region has been found good.
    fn take_hello(&mut self, region: PeerRegion) -> Result<Step> {
        let Heard::Offer(offer) = mem::replace(&mut self.heard, Heard::Nothing) else {
            return Err(Error::Disconnected);
        };
        let Candidate { region: _, credit_out, terms, credentials, pidfd } = *offer;
        self.heard = Heard::Hello(Box::new(Candidate { region, credit_out, terms, credentials, pidfd }));
        // What it brings is closed: we have had it when we looked.
        self.socket.receive(HELLO_MAX)?;
        Ok(Step::Again)
    }

    /// Reads the packet that should be `Ready`.
    fn hear_ready(&mut self) -> Result<Step> {
        let packet = match self.socket.receive(HELLO_MAX)? {
            Arrival::Packet(packet) => packet,
            Arrival::Nothing => return Ok(Step::Waiting),
            Arrival::End => return Err(HandshakeError::Closed { awaited: "Ready" }.into()),
        };
        match awaited(packet, Kind::Ready) {
            Ok(Incoming { packet: Packet { fd_count: 0, .. }, .. }) => {
                if let Heard::Hello(candidate) = mem::replace(&mut self.heard, Heard::Nothing) {
                    self.heard = Heard::Ready(candidate);
                }
                // Both have said who they are.
                self.socket.pass_credentials(false)?;
                Ok(Step::Again)
            }
            Ok(Incoming { packet, .. }) => {
                let found = to_u64(packet.fd_count);
                self.turn_down(Refusal { reason: Reason::Descriptors, expected: 0, found }.into())
            }
            Err(unfit) => self.turn_down(unfit),
        }
    }

    /// Reads what a peer says that was refused, to the end, so that it can read why.
    fn hear_out(&mut self) -> Result<Step> {
        match (self.socket.receive(HELLO_MAX)?, self.refused) {
            (Arrival::Nothing, _) => Ok(Step::Waiting),
            (Arrival::End, Some(refusal)) => Err(HandshakeError::Refused(refusal).into()),
            _ => Ok(Step::Again),
        }
    }

    /// UNTRUSTED: nothing of the packet is used before it was checked; descriptors that are not wanted are closed.
    fn examine(&self, packet: Result<Incoming, ProtocolError>) -> Result<Candidate<Offered>, Unfit> {
        let Incoming { packet, body, mut fds, fds_cut, credentials, pidfd } = awaited(packet, Kind::Hello)?;
        let terms = self.settings.bounds(self.role).judge(body.as_slice())?;
        if fds_cut {
            return Err(Error::FdsLost { expected: packet.fd_count, received: fds.len() }.into());
        }
        let credentials = Credentials::of(credentials, self.nameless && self.role == Role::Caller)?;
        let pidfd = match pidfd {
            // A kernel without them, or one that cannot open a process that is dead and gone.
            None => None,
            Some(Err(error)) if Errno::from_io_error(&error).is_some_and(is_gone) => None,
            Some(pidfd) => {
                Some(Arc::new(pidfd.map_err(Error::io("opening the peer's process (SCM_PIDFD)"))?))
            }
        };
        // A newer peer's surplus is closed.
        let found = to_u64(fds.len());
        let (Some(credit_out), Some(memfd)) = (fds.remove(1), fds.remove(0)) else {
            return Err(Refusal { reason: Reason::Descriptors, expected: 2, found }.into());
        };
        let region = Offered::examine(memfd, terms.geometry)?;
        if !Socket::is_credit(&credit_out)? {
            return Err(Refusal { reason: Reason::CreditSocket, expected: 1, found: 0 }.into());
        }
        if let Some(own) = &self.own
            && Socket::cookie(&own.credit_for_peer)? == Socket::cookie(&credit_out)?
        {
            return Err(REFLECTED.into());
        }
        let credit_out = Socket::peer_credit(credit_out);
        Ok(Candidate { region, credit_out, terms, credentials, pidfd })
    }

    /// The peer is refused, or it is all over.
    fn turn_down(&mut self, unfit: Unfit) -> Result<Step> {
        match unfit {
            Unfit::Refused(refusal) => {
                self.reject(refusal);
                Ok(Step::Again)
            }
            Unfit::Failed(error) => Err(error),
        }
    }

    /// It is all over by `error`. If that is our own failure the peer learns that it is not its fault.
    fn failed_by(&mut self, error: Error) -> Error {
        log::debug!("handshake: {error}");
        self.failed = Some(again(&error));
        self.unfinished = false;
        let errno = match &error {
            Error::Io { source, .. } => source.raw_os_error().unwrap_or(0),
            Error::FdsLost { .. } => Errno::MFILE.raw_os_error(),
            _ => return error,
        };
        let found = u64::try_from(errno).unwrap_or(0);
        self.say_reject(Refusal { reason: Reason::OwnFailure, expected: 0, found });
        error
    }

    /// Tells the peer why, and that nothing more will come.
    fn reject(&mut self, refusal: Refusal) {
        log::debug!("handshake: refused: {refusal}");
        self.refused = Some(refusal);
        self.say_reject(refusal);
    }

    fn say_reject(&self, refusal: Refusal) {
        let body = Reject::new(refusal);
        if let Err(failure) = self.socket.send(PacketHeader::plain(Kind::Reject, 0), body.as_bytes(), &[]) {
            log::debug!("handshake: Reject was not sent: {failure:?}");
        }
        self.socket.shut(Shutdown::Write);
    }

    /// Refuses the peer, for instance for its [credentials](Self::peer_credentials). It gets [`HandshakeError::Rejected`]
    /// with [`Reason::Application`]. Does not block.
    ///
    /// A listener's [`advance`](Self::advance) says false when the client's credentials have come, and only a later one
    /// gives the client anything: in between is the time to refuse. It says false too as long as they have not come: then
    /// wait for the descriptor, and call it again.
    pub fn refuse(mut self) {
        // A `Hello` that is still in the socket would be an error of the peer's next read when this is closed.
        if matches!(self.heard, Heard::Offer(_)) {
            let _ = self.socket.receive(HELLO_MAX);
        }
        self.reject(Refusal { reason: Reason::Application, expected: 0, found: 0 });
    }

    /// Completes the handshake; blocks until the deadline at most.
    ///
    /// The receiving half has this descriptor: what is registered in an event loop stays registered. Receive until `None`
    /// at once.
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance).
    pub fn finish(mut self) -> Result<Channel> {
        let deadline = Deadline::At(self.deadline);
        let pause = Some(Duration::from_millis(5));
        loop {
            let complete = match self.advance() {
                Ok(complete) => complete,
                Err(Error::Full | Error::FdsInFlight) => {
                    sleep([], deadline, pause)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if complete {
                return self.into_channel();
            }
            if self.needs_advance() {
                continue;
            }
            sleep([(self.socket.as_fd(), PollFlags::IN)], deadline, None)?;
        }
    }

    fn into_channel(self) -> Result<Channel> {
        let Self { socket, settings, own, heard, .. } = self;
        let (Some(own), Heard::Ready(candidate)) = (own, heard) else {
            return Err(Error::Disconnected);
        };
        let Candidate { region: peer_region, credit_out, terms, credentials, pidfd } = *candidate;
        // The memfd and the peer's end of the credit pair are closed here: the peer has mapped, or holds, its own.
        let Own { region: OwnRegion { ring, words, geometry, .. }, credit_in, .. } = own;
        if settings.max_fds == 0 {
            socket.refuse_fds();
        }
        let sending = Limits {
            max_payload: geometry.max_payload(),
            max_control: socket.reserve(terms.max_control)?,
            max_fds: terms.max_fds,
            max_requests: terms.max_requests,
        };
        let receiving = Limits {
            max_payload: terms.geometry.max_payload(),
            max_control: settings.max_control,
            max_fds: crate::protocol::layout::to_usize(settings.max_fds.into()),
            max_requests: crate::protocol::layout::to_usize(settings.max_requests.into()),
        };
        let id = Socket::cookie(&socket)?;
        socket.disown();
        let link = Arc::new(Link::new(id, socket, credit_in, credit_out));
        let peer = Peer::new(credentials, pidfd, terms.version);
        let spinner = Spinner::new(settings.wait, pinned_to_same_cpu(credentials.pid));
        let intake = Intake::new(peer_region, link, words.clone());
        let sender =
            Sender::new(Arc::clone(&intake), ring, words.clone(), sending, peer.clone(), spinner.clone());
        let receiver = Receiver::new(intake, words, receiving, peer, spinner);
        Ok(Channel::new(sender, receiver))
    }

    /// When it will have failed. An event loop has to call [`advance`](Self::advance) then: a silent peer makes no
    /// descriptor readable.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Who the peer is, once [`advance`](Self::advance) has looked at its `Hello`. A client that has only connected has not
    /// said it yet.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        match &self.heard {
            Heard::Nothing => None,
            Heard::Offer(offer) => Some(offer.credentials),
            Heard::Hello(candidate) | Heard::Ready(candidate) => Some(candidate.credentials),
        }
    }
}

/// Whether this is what a kernel says of a process that has ended, when it is to be opened (`pidfd_prepare`, `kernel/fork.c`):
/// `EINVAL` before Linux 6.15.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::SRCH | Errno::INVAL | Errno::NOENT)
}

/// The same error once more.
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

/// The packet, if it is of the kind whose turn it is.
fn awaited(packet: Result<Incoming, ProtocolError>, kind: Kind) -> Result<Incoming, Unfit> {
    let wrong = |found: u16| {
        let expected = kind.code().into();
        Unfit::Refused(Refusal { reason: Reason::Packet, expected, found: found.into() })
    };
    let incoming = packet.map_err(|violation| {
        log::debug!("handshake: {violation}");
        wrong(0)
    })?;
    match incoming.packet.kind {
        Kind::Reject => {
            let refusal = Reject::parse(incoming.body.as_slice());
            Err(Unfit::Failed(HandshakeError::Rejected(refusal).into()))
        }
        found if found == kind => Ok(incoming),
        other => Err(wrong(other.code())),
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
            .field("hello_received", &!matches!(self.heard, Heard::Nothing))
            .field("ready_received", &matches!(self.heard, Heard::Ready(_)))
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}
