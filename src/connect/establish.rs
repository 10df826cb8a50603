//! The end of a handshake: a channel is built of both sides' offers.

use std::sync::Arc;

use crate::{
    channel::{Channel, Limits, Peer, Receiver, Sender},
    connect::{Offer, PeerOffer, Settings},
    error::Result,
    memory::region::OwnRegion,
    protocol::to_usize,
    ring::Releases,
    socket::{link::Link, seqpacket::Socket},
    sys::peer_region::PeerRegion,
    wait::{Spinner, pinned_to_same_cpu},
};

/// Builds the channel. Our copies of the memfd and of the peer's end of our space socket are closed here.
pub(super) fn channel(
    socket: Socket,
    settings: &Settings,
    offer: Offer,
    peer: PeerOffer<PeerRegion>,
) -> Result<Channel> {
    let PeerOffer { region: peer_region, space_tx, negotiated, credentials, pidfd } = peer;
    let Offer { region: OwnRegion { ring, words, geometry, .. }, space_rx, .. } = offer;
    if settings.max_fds == 0 {
        socket.refuse_fds();
    }
    let sending = Limits {
        max_payload: geometry.max_payload(),
        max_control: socket.reserve(negotiated.max_control)?,
        max_fds: negotiated.max_fds,
        max_requests: negotiated.max_requests,
    };
    let receiving = Limits {
        max_payload: negotiated.geometry.max_payload(),
        max_control: settings.max_control,
        max_fds: to_usize(settings.max_fds.into()),
        max_requests: to_usize(settings.max_requests.into()),
    };
    let id = Socket::cookie(&socket)?;
    // The link shuts the connection from now on, direction by direction.
    socket.disown();
    let link = Arc::new(Link::new(id, socket, space_rx, space_tx));
    let peer = Peer::new(credentials, pidfd, negotiated.version);
    let spinner = Spinner::new(settings.wait, pinned_to_same_cpu(credentials.pid));
    let intake = Releases::new(peer_region, link, words.clone());
    let sender =
        Sender::new(Arc::clone(&intake), ring, words.clone(), sending, peer.clone(), spinner.clone());
    let receiver = Receiver::new(intake, words, receiving, peer, spinner);
    Ok(Channel::new(sender, receiver))
}
