//! The end of a handshake: what both sides' offers make up, and the channel that is built of it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    channel::{Channel, Limits, Peer, Receiver, Sender},
    connect::{Offer, PeerOffer, Region, Settings},
    error::{Error, Result},
    memory::region::OwnRegion,
    protocol::{Owner, Slow, Terms, Word, to_usize},
    ring::Releases,
    socket::{link::Link, seqpacket::Socket},
    sys::peer_region::PeerRegion,
    wait::{Spinner, pinned_to_same_cpu},
};

/// What a handshake has established.
pub(crate) struct Parts {
    pub(crate) link: Arc<Link>,
    /// Our region.
    pub(crate) region: Region,
    pub(crate) peer_region: PeerRegion,
    pub(crate) peer: Peer,
    /// The limits of messages to the peer, and from it.
    pub(crate) sending: Limits,
    pub(crate) receiving: Limits,
    pub(crate) spinner: Spinner,
    /// Those of a subscription.
    pub(crate) terms: Option<Terms>,
}

impl Parts {
    /// Our copy of the peer's end of our space socket is closed here.
    pub(super) fn new(
        socket: Socket,
        settings: &Settings,
        offer: Offer,
        peer: PeerOffer<PeerRegion>,
        terms: Option<Terms>,
    ) -> Result<Self> {
        let PeerOffer { region: peer_region, space_tx, negotiated, credentials, pidfd } = peer;
        let Offer { region, space_rx, .. } = offer;
        if let Region::Own(region) = &region {
            describe(region, &peer_region, terms);
        }
        let max_fds = settings.max_fds();
        if max_fds == 0 {
            socket.refuse_fds();
        }
        let sending = Limits {
            max_payload: region.geometry().max_payload(),
            max_control: socket.reserve(negotiated.max_control)?,
            max_fds: negotiated.max_fds,
            max_requests: negotiated.max_requests,
        };
        let receiving = Limits {
            max_payload: negotiated.geometry.max_payload(),
            max_control: settings.max_control,
            max_fds: to_usize(max_fds.into()),
            max_requests: to_usize(settings.max_requests.into()),
        };
        let id = Socket::cookie(&socket)?;
        // The link shuts the connection from now on, direction by direction.
        socket.disown();
        let link = Arc::new(Link::new(id, socket, space_rx, space_tx));
        let peer = Peer::new(credentials, pidfd, negotiated.version);
        let spinner = Spinner::new(settings.wait, pinned_to_same_cpu(credentials.pid));
        Ok(Self { link, region, peer_region, peer, sending, receiving, spinner, terms })
    }
}

/// Writes into our control page what tools cannot know otherwise: which region is the peer's, and what we are to it.
fn describe(region: &OwnRegion, peer: &PeerRegion, terms: Option<Terms>) {
    let (owner, base) = match terms {
        None => (Owner::Channel, 0),
        Some(terms) if terms.slow == Slow::Overrun => (Owner::Overrunning, terms.first_position.get()),
        Some(terms) => (Owner::Gating, terms.first_position.get()),
    };
    region.words.word(Word::Peer).store(peer.load(Word::Origin), Relaxed);
    region.words.word(Word::Base).store(base, Relaxed);
    region.describe(owner);
}

/// Builds the channel. Our copy of the memfd is closed here.
pub(super) fn channel(parts: Parts) -> Result<Channel> {
    let Parts { link, region, peer_region, peer, sending, receiving, spinner, .. } = parts;
    // Only a publisher's region is shared, and it establishes no channel.
    let Region::Own(region) = region else { return Err(Error::Disconnected) };
    let intake = Releases::new(peer_region, link, region.words.clone());
    let sender = Sender::new(
        Arc::clone(&intake),
        region.ring,
        region.words.clone(),
        sending,
        peer.clone(),
        spinner.clone(),
    );
    let receiver = Receiver::new(intake, region.words, receiving, peer, spinner);
    Ok(Channel::new(sender, receiver))
}
