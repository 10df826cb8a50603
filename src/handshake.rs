//! [`Handshake`]: both sides say `Hello` at once, look at what they got, and say `Ready` or `Reject`.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    net::{Shutdown, sockopt},
};
use zerocopy::IntoBytes;

use crate::{
    channel::Channel,
    error::{Error, HandshakeError, ProtocolError, Reason, Refusal, Result},
    hello::{Bounds, Terms},
    layout::to_u64,
    link::Link,
    peer::{Credentials, Peer},
    raw::mapping::PeerRegion,
    receiver::Receiver,
    region::{OwnRegion, adopt},
    sender::Sender,
    socket::{Arrival, Incoming, ReceivedFds, SendFailure, Socket, sleep},
    stats::Limits,
    wait::{Deadline, MOST_PACKETS, Spinner, Wait, share_the_only_cpu},
    wire::{HELLO_MAX, Kind, PacketHeader, Reject},
};

/// What a builder asks of a handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) ring_capacity: usize,
    pub(crate) max_peer_ring: usize,
    pub(crate) max_control: usize,
    pub(crate) max_fds: u32,
    pub(crate) max_requests: u32,
    pub(crate) timeout: Duration,
    pub(crate) wait: Wait,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
}

impl Settings {
    fn bounds(&self) -> Bounds {
        let Self { max_peer_ring: ring, max_fds: fds, max_requests: requests, .. } = *self;
        let control = u32::try_from(self.max_control).unwrap_or(u32::MAX);
        Bounds { ring, control, fds, requests }
    }
}

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Says `Hello` at once, and `Ready` when the peer's `Hello` is found good.
    Caller,
    /// Accepted by a listener: says `Hello` after the client's, and `Ready` after the client's. So a client that says
    /// nothing costs no ring, and the application can look at the credentials before the client gets a channel.
    Listener,
}

/// What the peer gets from us with `Hello`.
struct Own {
    region: OwnRegion,
    /// Where the peer will announce room, and the end that it gets for that.
    credit_in: Socket,
    credit_for_peer: OwnedFd,
}

impl Own {
    fn create(settings: &Settings) -> Result<Self> {
        let region = OwnRegion::create(settings.ring_capacity, settings.prefault, settings.huge_pages)?;
        let (credit_in, credit_for_peer) = Socket::pair()?;
        Ok(Self { region, credit_in: Socket::own_credit(credit_in), credit_for_peer })
    }
}

/// A channel that is being established.
///
/// In a program that may block, [`finish`](Self::finish) is all. In an event loop, wait for the descriptor to be readable
/// or the [`deadline`](Self::deadline) to pass, and [`advance`](Self::advance), until that says true.
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
/// assert_eq!(server.peer_credentials().unwrap().pid, std::process::id());
/// let server = server.finish()?;
/// let client = client.finish()?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a handshake that is dropped closes the socket"]
pub struct Handshake {
    socket: Socket,
    settings: Settings,
    role: Role,
    /// From our own `Hello` on.
    own: Option<Own>,
    deadline: Instant,
    said: Said,
    /// From the peer's `Hello` on.
    candidate: Option<Candidate>,
    peer_ready: bool,
    /// Why we refused. Then all that is left is to let the peer read it.
    refused: Option<Refusal>,
    failed: bool,
}

/// A peer whose `Hello` has been found good.
struct Candidate {
    region: PeerRegion,
    credit_out: Socket,
    terms: Terms,
    credentials: Credentials,
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
            own: None,
            deadline,
            said: Said::Nothing,
            candidate: None,
            peer_ready: false,
            refused: None,
            failed: false,
        };
        if role == Role::Caller {
            // If there is no room yet, `advance` says it again. Credentials are asked for only after that: a socket that
            // asks for them is given a name when it first sends (`unix(7)`, autobind).
            match handshake.say_hello() {
                Ok(()) | Err(Error::Full | Error::FdsInFlight) => {}
                Err(error) => return Err(error),
            }
            handshake.socket.pass_credentials(true)?;
        }
        Ok(handshake)
    }

    fn say_hello(&mut self) -> Result<()> {
        if self.said >= Said::Hello {
            return Ok(());
        }
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(Own::create(&self.settings)?),
        };
        let fds = [own.region.memfd.as_fd(), own.credit_for_peer.as_fd()];
        let header = PacketHeader::plain(Kind::Hello, 2);
        let hello = self.settings.bounds().hello(own.region.geometry);
        match self.socket.send_identified(header, hello.as_bytes(), &fds) {
            // A peer that is gone may have left us its reason.
            Ok(()) | Err(SendFailure::Gone) => {}
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

    /// Goes on as far as it can; never blocks. True when [`finish`](Self::finish) will not block.
    ///
    /// # Errors
    /// [`Error::Handshake`] with the reason, [`Error::Timeout`] after the deadline; [`Error::Full`] and
    /// [`Error::FdsInFlight`] are passing: call again after some milliseconds.
    pub fn advance(&mut self) -> Result<bool> {
        if self.failed {
            return Err(Error::Disconnected);
        }
        let mut passing = None;
        for _ in 0..MOST_PACKETS {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::Done) => return Ok(true),
                Ok(Step::Waiting) => break,
                Err(error @ (Error::Full | Error::FdsInFlight)) => {
                    passing = Some(error);
                    break;
                }
                Err(error) => {
                    log::debug!("handshake: {error}");
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        if Instant::now() < self.deadline {
            return passing.map_or(Ok(false), Err);
        }
        self.failed = true;
        Err(self.refused.map_or(Error::Timeout, |refusal| HandshakeError::Refused(refusal).into()))
    }

    fn step(&mut self) -> Result<Step> {
        if self.refused.is_none() {
            let heard_hello = self.candidate.is_some();
            let (hello, ready) = match self.role {
                Role::Caller => (true, heard_hello),
                Role::Listener => (heard_hello, self.peer_ready),
            };
            if hello {
                self.say_hello()?;
            }
            if ready {
                self.say_ready()?;
            }
            if self.candidate.is_some() && self.peer_ready {
                return Ok(Step::Done);
            }
        }
        let awaited = if self.candidate.is_none() { Kind::Hello } else { Kind::Ready };
        let packet = match self.socket.receive(HELLO_MAX)? {
            Arrival::Nothing => return Ok(Step::Waiting),
            Arrival::End => {
                return Err(match self.refused {
                    Some(refusal) => HandshakeError::Refused(refusal),
                    None => HandshakeError::Closed {
                        awaited: if awaited == Kind::Hello { "Hello" } else { "Ready" },
                    },
                }
                .into());
            }
            Arrival::Packet(_) if self.refused.is_some() => return Ok(Step::Again),
            Arrival::Packet(packet) => packet,
        };
        match self.hear(packet, awaited) {
            // Whatever the client answers to our `Hello` comes later, and makes the descriptor readable anew. So the
            // application has its turn here, to look at the credentials.
            Ok(()) if self.role == Role::Listener && awaited == Kind::Hello => {
                self.say_hello()?;
                return Ok(Step::Waiting);
            }
            Ok(()) => {}
            Err(Heard::Rejected(refusal)) => return Err(HandshakeError::Rejected(refusal).into()),
            Err(Heard::Refused(refusal)) => self.reject(refusal),
            Err(Heard::FdsLost { expected, received }) => return Err(Error::FdsLost { expected, received }),
            Err(Heard::Failed(error)) => return Err(error),
        }
        Ok(Step::Again)
    }

    /// Takes in the packet that was read.
    ///
    /// UNTRUSTED: nothing of it is used before it was checked; descriptors that are not wanted are closed.
    fn hear(&mut self, packet: Result<Incoming, ProtocolError>, awaited: Kind) -> Result<(), Heard> {
        let wrong = |found: u16| {
            let expected = awaited.code().into();
            Heard::Refused(Refusal { reason: Reason::Packet, expected, found: found.into() })
        };
        let incoming = packet.map_err(|violation| {
            log::debug!("handshake: {violation}");
            wrong(0)
        })?;
        let kind = incoming.packet.kind;
        if kind == Kind::Reject {
            return Err(Heard::Rejected(Reject::parse(incoming.body.as_slice())));
        }
        if kind != awaited {
            return Err(wrong(kind.code()));
        }
        if kind == Kind::Ready {
            if incoming.packet.fd_count > 0 {
                let found = to_u64(incoming.packet.fd_count);
                return Err(Heard::Refused(Refusal { reason: Reason::Descriptors, expected: 0, found }));
            }
            self.peer_ready = true;
            return Ok(());
        }
        let terms = self.settings.bounds().judge(incoming.body.as_slice()).map_err(Heard::Refused)?;
        if incoming.fds_cut {
            return Err(Heard::FdsLost { expected: incoming.packet.fd_count, received: incoming.fds.len() });
        }
        let credentials = Credentials::of(incoming.credentials).map_err(Heard::Refused)?;
        let candidate =
            examine(terms, incoming.fds, credentials, self.settings.prefault).map_err(Heard::Refused)?;
        log::debug!("handshake: {credentials:?} offers a ring of {} bytes", terms.geometry.capacity);
        self.candidate = Some(candidate);
        self.socket.pass_credentials(false).map_err(Heard::Failed)
    }

    /// Tells the peer why, and that nothing more will come.
    fn reject(&mut self, refusal: Refusal) {
        log::debug!("handshake: refused: {refusal}");
        self.refused = Some(refusal);
        let body = Reject::new(refusal);
        if let Err(failure) = self.socket.send(PacketHeader::plain(Kind::Reject, 0), body.as_bytes(), &[]) {
            log::debug!("handshake: Reject was not sent: {failure:?}");
        }
        self.socket.shut(Shutdown::Write);
    }

    /// Refuses the peer, for instance for its [credentials](Self::peer_credentials). It gets [`HandshakeError::Rejected`]
    /// with [`Reason::Application`]. Does not block.
    ///
    /// A listener's [`advance`](Self::advance) says false when the client's credentials have come, and only the next one
    /// lets the client have its channel: in between is the time to refuse.
    pub fn refuse(mut self) {
        self.reject(Refusal { reason: Reason::Application, expected: 0, found: 0 });
    }

    /// Completes the handshake; blocks until the deadline at most.
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
            sleep([(self.socket.as_fd(), PollFlags::IN)], deadline, None)?;
        }
    }

    fn into_channel(self) -> Result<Channel> {
        let Self { socket, settings, own, candidate, .. } = self;
        let (Some(own), Some(candidate)) = (own, candidate) else {
            return Err(Error::Disconnected);
        };
        let Candidate { region: peer_region, credit_out, terms, credentials } = candidate;
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
            max_fds: crate::layout::to_usize(settings.max_fds.into()),
            max_requests: crate::layout::to_usize(settings.max_requests.into()),
        };
        let id = sockopt::socket_cookie(&socket).map_err(Error::io("getsockopt(SO_COOKIE)"))?;
        let link = Arc::new(Link::new(id, socket, credit_in, credit_out));
        let peer = Peer::new(credentials, terms.version);
        let spinner = Spinner::new(settings.wait, share_the_only_cpu(credentials.pid));
        let (sender_link, region) = (Arc::clone(&link), peer_region.clone());
        let sender = Sender::new(sender_link, ring, words.clone(), region, sending, peer, spinner.clone());
        let receiver = Receiver::new(link, words, peer_region, receiving, peer, spinner);
        Ok(Channel::new(sender, receiver))
    }

    /// When it will have failed. An event loop has to call [`advance`](Self::advance) then: a silent peer makes no
    /// descriptor readable.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Who the peer is, once its `Hello` has come.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        self.candidate.as_ref().map(|candidate| candidate.credentials)
    }
}

/// Why a packet of the peer did not bring the handshake on.
enum Heard {
    Rejected(Refusal),
    Refused(Refusal),
    FdsLost { expected: usize, received: usize },
    Failed(Error),
}

/// Looks at the two descriptors of a `Hello`; a newer peer's surplus is closed.
fn examine(
    terms: Terms,
    mut fds: ReceivedFds,
    credentials: Credentials,
    prefault: bool,
) -> Result<Candidate, Refusal> {
    let found = to_u64(fds.len());
    let [memfd, credit_out, ..] = &*fds else {
        return Err(Refusal { reason: Reason::Descriptors, expected: 2, found });
    };
    let region = adopt(memfd.as_fd(), terms.geometry, prefault)?;
    let no_socket = Refusal { reason: Reason::CreditSocket, expected: 1, found: 0 };
    if !Socket::is_credit(credit_out) {
        return Err(no_socket);
    }
    // What is left in `fds` is closed.
    let credit_out = fds.remove(1).map(Socket::peer_credit).ok_or(no_socket)?;
    Ok(Candidate { region, credit_out, terms, credentials })
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
            .field("hello_received", &self.candidate.is_some())
            .field("ready_received", &self.peer_ready)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}
