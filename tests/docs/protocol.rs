//! Sentences of docs/protocol.md that no attack is about, sent by a peer that is written from that page alone.

use rustix::{io::Errno, net::sockopt};
use sealane::{Channel, Wait};

use crate::support::{
    hostile::{
        DOORBELL, HELLO, Hello, LONG, Packet, Player, SEALS, abstract_name, memfd,
        memory::{Hostile, RECEIVER_EPOCH, Record},
        seqpacket_pair,
    },
    threads::bounded,
};

fn meet() -> (Hostile, Channel) {
    Hostile::meet(&Channel::builder().wait(Wait::Block))
}

#[test]
fn a_bell_may_come_before_its_receiver_has_looked_and_long_after() {
    let _guard = bounded();
    let (peer, mut channel) = meet();
    peer.socket.send(Packet::new(DOORBELL));
    peer.publish(0, Record::default(), 64);
    assert_eq!(channel.recv_timeout(LONG).unwrap().sequence(), 0);
    for _ in 0..3 {
        assert!(channel.try_recv().unwrap().is_none());
    }
    // This doorbell is for the epoch that `try_recv` has shown, which ends when the message is taken.
    peer.publish(64, Record { sequence: 1, ..Record::default() }, 128);
    assert_eq!(channel.recv_timeout(LONG).unwrap().sequence(), 1);
    peer.socket.send(Packet::new(DOORBELL));
    peer.socket.send(Packet::control(2));
    assert_eq!(channel.recv_timeout(LONG).unwrap().sequence(), 2);
}

#[test]
fn a_peer_that_shows_no_odd_epoch_is_not_rung() {
    let _guard = bounded();
    for (epoch, bells) in [(0, 0), (1, 1), (2, 0)] {
        let (peer, mut channel) = meet();
        peer.set(RECEIVER_EPOCH, epoch);
        for _ in 0..3 {
            channel.loan(10).unwrap().send().unwrap();
        }
        drop(channel);
        assert_eq!(peer.socket.hear_all().len(), bells, "epoch {epoch}");
    }
}

#[test]
fn a_sender_ends_its_direction_in_both_of_its_sockets() {
    let _guard = bounded();
    let (peer, channel) = meet();
    let (sender, mut receiver) = channel.split();
    drop(sender);
    assert!(peer.socket.hear().is_none());
    assert_eq!(peer.space.try_send(Packet::new(DOORBELL)), Err(Errno::PIPE));
    peer.socket.send(Packet::control(0));
    assert_eq!(receiver.recv_timeout(LONG).unwrap().sequence(), 0);
}

#[test]
fn a_receiver_ends_the_peers_direction_in_both_of_its_sockets() {
    let _guard = bounded();
    let (peer, channel) = meet();
    let (mut sender, receiver) = channel.split();
    drop(receiver);
    assert_eq!(peer.socket.try_send(Packet::control(0)), Err(Errno::PIPE));
    assert!(peer.own_space.hear().is_none());
    sender.send(b"goes on").unwrap();
    assert_eq!(peer.socket.hear().unwrap().body, b"goes on");
}

#[test]
fn credentials_may_be_attached_by_the_kernel() {
    let _guard = bounded();
    let hello = || {
        let hello = Hello::honest(1);
        let fds = vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0];
        Packet { identified: false, ..Packet::hello(&hello, fds) }
    };
    // The listener's end asks for them.
    let name = abstract_name();
    let listener = Channel::builder().listen(&name).unwrap();
    let peer = Player::connect(&name);
    peer.send(hello());
    let mut handshake = listener.try_accept().unwrap().unwrap();
    while handshake.peer_credentials().is_none() {
        assert!(!handshake.advance().unwrap());
    }
    let credentials = handshake.peer_credentials().unwrap();
    assert_eq!(credentials.uid, rustix::process::getuid().as_raw());

    // The sender's end does.
    let (peer, ours) = Player::pair();
    sockopt::set_socket_passcred(&peer, true).unwrap();
    peer.send(hello());
    let mut handshake = Channel::builder().handshake(ours).unwrap();
    assert!(!handshake.advance().unwrap());
    assert_eq!(handshake.peer_credentials().unwrap().uid, credentials.uid);

    // No credentials were attached to this one.
    let (peer, ours) = Player::pair();
    peer.send(hello());
    let mut handshake = Channel::builder().handshake(ours).unwrap();
    assert!(!handshake.advance().unwrap());
    assert_eq!(peer.hear().unwrap().kind, HELLO);
    let (reason, ..) = peer.hear().unwrap().refusal();
    assert_eq!(reason, 15, "`Credentials`");
}

#[test]
fn both_ends_of_a_socket_pair_are_callers() {
    let _guard = bounded();
    let (peer, ours) = Player::pair();
    let _handshake = Channel::builder().handshake(ours).unwrap();
    assert_eq!(peer.hear().unwrap().kind, HELLO, "nobody has said anything to it");
}
