//! [`Offer`] and [`PeerOffer`]: the region and the descriptors that each side sends with its `Hello`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::{
    channel::Credentials,
    connect::Settings,
    error::{Error, HandshakeError, ProtocolError, Reason, Refusal, Result},
    memory::region::{Offered, OwnRegion, Unfit},
    protocol::{Geometry, Kind, LocalLimits, Negotiated, PacketHeader, Reject, Word, to_u64},
    socket::seqpacket::{ReceivedPacket, SendFailure, Socket, other_kind},
    wait::Deadline,
};

/// The refusal of an offer that is our own.
pub(super) const REFLECTED: Refusal = Refusal { reason: Reason::Reflected, expected: 0, found: 0 };

/// A region that a publisher offers to all of its subscribers.
#[derive(Debug, Clone)]
pub(crate) struct SharedRegion {
    pub(crate) memfd: Arc<OwnedFd>,
    pub(crate) geometry: Geometry,
}

/// Our region in an offer.
pub(crate) enum Region {
    Own(OwnRegion),
    Shared(SharedRegion),
}

impl Region {
    fn memfd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(region) => region.memfd.as_fd(),
            Self::Shared(region) => region.memfd.as_fd(),
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        match self {
            Self::Own(region) => region.geometry,
            Self::Shared(region) => region.geometry,
        }
    }
}

/// Our offer: a region, and a socket for the peer's doorbells.
pub(super) struct Offer {
    pub(super) region: Region,
    /// Our end of our space socket, which we read.
    pub(super) space_rx: Socket,
    space_for_peer: OwnedFd,
    /// The kernel has no name for us that we could give to the peer: see [`Credentials::of`].
    nameless: bool,
}

impl Offer {
    /// Allocates a region, marked with `origin`, and a space socket.
    pub(super) fn create(settings: &Settings, origin: u64, deadline: Deadline) -> Result<Self> {
        let Settings { ring_capacity, prefault, huge_pages, .. } = *settings;
        let region = OwnRegion::create(ring_capacity, prefault, huge_pages, deadline)?;
        region.words.word(Word::Origin).store(origin, Relaxed);
        Self::of(Region::Own(region))
    }

    /// Makes a space socket for a region.
    pub(super) fn of(region: Region) -> Result<Self> {
        let (space_rx, space_for_peer) = Socket::pair()?;
        Ok(Self { region, space_rx: Socket::own_space(space_rx), space_for_peer, nameless: false })
    }

    /// Fills our page tables for the region, if it is new.
    pub(super) fn populate(&self, deadline: Deadline) -> Result<()> {
        match &self.region {
            Region::Own(region) => region.populate(deadline),
            Region::Shared(_) => Ok(()),
        }
    }

    /// Sends the offer with `Hello`.
    ///
    /// A peer that is gone is no error: it may have left its reason in the socket, to be read next.
    pub(super) fn send(&mut self, socket: &Socket, limits: &LocalLimits) -> Result<()> {
        let fds = [self.region.memfd(), self.space_for_peer.as_fd()];
        let header = PacketHeader::plain(Kind::Hello, 2);
        let hello = limits.hello(self.region.geometry());
        match socket.send_identified(header, hello.as_bytes(), &fds) {
            Ok(named) => self.nameless = !named,
            Err(SendFailure::Gone) => {}
            // The peer's socket takes no descriptors (`SO_PASSRIGHTS`, Linux 6.16). The credentials, for which the kernel may
            // answer `EPERM` too, are true.
            Err(SendFailure::Other(error)) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                let refusal = Refusal { reason: Reason::Descriptors, expected: 0, found: to_u64(fds.len()) };
                return Err(HandshakeError::Rejected(refusal).into());
            }
            Err(failure) => return Err(failure.into()),
        }
        log::debug!("handshake: sent Hello with a ring of {} bytes", self.region.geometry().capacity);
        Ok(())
    }
}

/// The peer's offer, found good; its region is `Offered` first, and a `PeerRegion` when all of it has been looked at.
pub(super) struct PeerOffer<R> {
    pub(super) region: R,
    pub(super) space_tx: Socket,
    pub(super) negotiated: Negotiated,
    pub(super) credentials: Credentials,
    pub(super) pidfd: Option<Arc<OwnedFd>>,
}

impl<R> PeerOffer<R> {
    /// The same offer with its region in another state.
    pub(super) fn with_region<S>(self, region: S) -> PeerOffer<S> {
        let Self { region: _, space_tx, negotiated, credentials, pidfd } = self;
        PeerOffer { region, space_tx, negotiated, credentials, pidfd }
    }
}

impl PeerOffer<Offered> {
    /// Checks the packet that should be the peer's `Hello`.
    ///
    /// UNTRUSTED: everything in the packet. Nothing is used before it was checked; surplus descriptors are closed.
    pub(super) fn examine(
        packet: Result<ReceivedPacket<'_>, ProtocolError>,
        limits: &LocalLimits,
        ours: Option<&Offer>,
    ) -> Result<Self, Unfit> {
        let ReceivedPacket { packet, body, mut fds, fds_truncated, credentials, pidfd } =
            awaited(packet, Kind::Hello)?;
        let negotiated = limits.negotiate(body)?;
        if fds_truncated {
            return Err(Error::FdsLost { expected: packet.fd_count, received: fds.len() }.into());
        }
        let credentials = Credentials::of(credentials, ours.is_some_and(|ours| ours.nameless))?;
        let pidfd = match pidfd {
            // A kernel before 6.5, or a sender that has ended already: a channel without a pidfd.
            None => None,
            Some(Err(error)) if Errno::from_io_error(&error).is_some_and(is_gone) => None,
            Some(pidfd) => Some(Arc::new(pidfd.map_err(Error::io("recvmsg(SCM_PIDFD)"))?)),
        };
        // A newer peer may send more than these two.
        let found = to_u64(fds.len());
        let (Some(space_tx), Some(memfd)) = (fds.remove(1), fds.remove(0)) else {
            return Err(Refusal { reason: Reason::Descriptors, expected: 2, found }.into());
        };
        let region = Offered::examine(memfd, negotiated.geometry)?;
        // Any other file might block when a doorbell is written to it.
        if other_kind(&space_tx)?.is_some() {
            return Err(Refusal { reason: Reason::SpaceSocket, expected: 1, found: 0 }.into());
        }
        if let Some(ours) = ours
            && Socket::cookie(&ours.space_for_peer)? == Socket::cookie(&space_tx)?
        {
            return Err(REFLECTED.into());
        }
        Ok(Self { region, space_tx: Socket::from(space_tx), negotiated, credentials, pidfd })
    }
}

/// The packet, if it is of the awaited kind.
pub(super) fn awaited(
    packet: Result<ReceivedPacket<'_>, ProtocolError>,
    kind: Kind,
) -> Result<ReceivedPacket<'_>, Unfit> {
    let wrong = |found: u16| {
        let expected = kind.code().into();
        Unfit::Refused(Refusal { reason: Reason::Packet, expected, found: found.into() })
    };
    let received = packet.map_err(|violation| {
        log::debug!("handshake: {violation}");
        wrong(0)
    })?;
    match received.packet.kind {
        Kind::Reject => {
            let refusal = Reject::parse(received.body);
            Err(Unfit::Failed(HandshakeError::Rejected(refusal).into()))
        }
        found if found == kind => Ok(received),
        other => Err(wrong(other.code())),
    }
}

/// True for the kernel's answers about a process that has ended, when it is to be opened (`pidfd_prepare`, `kernel/fork.c`):
/// `EINVAL` before Linux 6.15.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::SRCH | Errno::INVAL | Errno::NOENT)
}
