//! The steps of a [`Handshake`]: both sides send `Hello`, look at the other's offer, and answer `Ready` or `Reject`.
//!
//! | | caller | listener |
//! |---|---|---|
//! | 1 | creates its offer, sends `Hello` | awaits `Hello` |
//! | 2 | awaits `Hello` | examines the offer, and gives the application its turn |
//! | 3 | examines the offer | creates its offer, sends `Hello` |
//! | 4 | sends `Ready` | awaits `Ready` |
//! | 5 | awaits `Ready` | sends `Ready` |

use std::{io, mem, time::Instant};

use rustix::{io::Errno, net::Shutdown};
use zerocopy::IntoBytes;

use crate::{
    connect::{
        Handshake, Offer, PeerOffer, Role,
        offer::{REFLECTED, Region, awaited},
    },
    error::{Error, HandshakeError, Reason, Refusal, Result},
    memory::region::{Offered, Unfit},
    protocol::{HELLO_MAX, Kind, PacketHeader, Part, Ready, Reject, Terms, Word, to_u64},
    socket::seqpacket::{PacketBuffer, Received, ReceivedPacket, SendFailure},
    sys::peer_region::PeerRegion,
    wait::Deadline,
};

/// The next step of a handshake, with everything that the steps before have brought.
pub(super) enum State {
    /// A caller's offer is to be created.
    CreateOffer,
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
pub(super) enum Progress {
    /// The next step can follow at once.
    Again,
    /// The peer has not sent the awaited packet yet.
    Waiting,
    /// The next step belongs to the next call.
    Paused,
    /// The packet could not be sent for the moment: the same step is tried again in another call.
    Later(Error),
}

impl Handshake {
    pub(super) fn create_offer(&self) -> Result<Offer> {
        match &self.shared {
            Some(shared) => Offer::of(Region::Shared(shared.clone())),
            None => Offer::create(&self.settings, self.origin, Deadline::At(self.deadline)),
        }
    }

    /// Takes one step.
    pub(super) fn step(&mut self) -> Result<Progress> {
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
        let mut buffer = PacketBuffer::take();
        Ok(match state {
            State::CreateOffer => (State::SendHello(self.create_offer()?, None), Progress::Again),
            State::SendHello(mut offer, peer) => {
                // A client's time may end during the application's turn. Nothing is given to it then.
                if peer.is_some() && Deadline::At(self.deadline).passed() {
                    return Err(Error::Timeout.into());
                }
                if let Err(error) = offer.send(&self.socket, &self.settings.limits(self.role)) {
                    return Ok((State::SendHello(offer, peer), later(error)?));
                }
                // The peer can look at the region meanwhile.
                if self.settings.prefault {
                    offer.populate(Deadline::At(self.deadline))?;
                }
                let state = match peer {
                    None => State::AwaitHello(Some(offer)),
                    Some(peer) => State::AwaitReady(offer, peer),
                };
                (state, Progress::Again)
            }
            State::AwaitHello(offer) => match self.socket.peek(&mut buffer, HELLO_MAX)? {
                Received::Nothing => (State::AwaitHello(offer), Progress::Waiting),
                Received::End => return Err(closed_before("Hello")),
                Received::Packet(packet) => {
                    let limits = self.settings.limits(self.role);
                    let peer = PeerOffer::examine(packet, &limits, offer.as_ref()).inspect_err(|_| {
                        // The packet was only peeked at, and would be read as the next one. An error would come back there.
                        let _ = self.socket.receive(&mut PacketBuffer::take(), HELLO_MAX);
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
                self.socket.receive(&mut buffer, HELLO_MAX)?;
                let state = match offer {
                    Some(offer) => State::SendReady(offer, peer),
                    None if Deadline::At(self.deadline).passed() => return Err(Error::Timeout.into()),
                    None => State::SendHello(self.create_offer()?, Some(peer)),
                };
                (state, Progress::Again)
            }
            // A publisher says its last word when it is at a place where a subscriber may join.
            State::SendReady(..) if self.shared.is_some() && self.terms.is_none() => {
                (state, Progress::Waiting)
            }
            State::SendReady(offer, peer) => {
                let terms = self.terms.map(Ready::new);
                let body = terms.as_ref().map_or(&[][..], Ready::as_bytes);
                match (self.socket.send(PacketHeader::plain(Kind::Ready, 0), body, &[]), self.role) {
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
            State::AwaitReady(offer, peer) => match self.socket.receive(&mut buffer, HELLO_MAX)? {
                Received::Nothing => (State::AwaitReady(offer, peer), Progress::Waiting),
                Received::End => return Err(closed_before("Ready")),
                Received::Packet(packet) => {
                    self.terms = self.terms.or(self.terms_of(&awaited(packet, Kind::Ready)?)?);
                    // Both sides have sent their credentials.
                    self.socket.pass_credentials(false)?;
                    let state = match self.role {
                        Role::Caller => State::Complete(offer, peer),
                        Role::Listener => State::SendReady(offer, peer),
                    };
                    (state, Progress::Again)
                }
            },
            // No step follows: `advance` asks for none.
            State::Complete(..) => (state, Progress::Again),
            State::Refused(refusal) => match self.socket.receive(&mut buffer, HELLO_MAX)? {
                Received::End => return Err(Error::from(HandshakeError::Refused(refusal)).into()),
                Received::Packet(_) if Instant::now() < self.deadline => {
                    (State::Refused(refusal), Progress::Again)
                }
                // `advance` gives up after the deadline, whatever else the peer has sent.
                Received::Packet(_) | Received::Nothing => (State::Refused(refusal), Progress::Waiting),
            },
            State::Failed(error) => return Err(error.into()),
        })
    }

    /// What a publisher's `Ready` grants. Others grant nothing.
    ///
    /// UNTRUSTED: the packet is of its kind, and no more is known of it.
    fn terms_of(&self, ready: &ReceivedPacket<'_>) -> Result<Option<Terms>, Unfit> {
        let refuse = |reason, found| Err(Refusal { reason, expected: 0, found: to_u64(found) }.into());
        if ready.packet.fd_count > 0 {
            return refuse(Reason::Descriptors, ready.packet.fd_count);
        }
        match self.settings.part {
            Part::Subscriber(_) => Ok(Some(Ready::parse(ready.body)?)),
            _ if ready.body.is_empty() => Ok(None),
            _ => refuse(Reason::ReadyLength, ready.body.len()),
        }
    }

    /// Ends the handshake by `error`. After a failure of our own the peer reads that it has done nothing wrong.
    pub(super) fn failed_by(&mut self, error: Error) -> Error {
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
    pub(super) fn reject(&mut self, refusal: Refusal) {
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
pub(super) fn again(error: &Error) -> Error {
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
