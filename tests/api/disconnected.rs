//! A channel whose peer is gone has ended in both halves, whichever notices it; a channel whose peer has dropped a half has
//! not.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use sealane::{Channel, Error, Result};

use crate::support::{role, threads::SOON};

fn assert_disconnected<T: std::fmt::Debug>(what: &str, result: Result<T>) {
    match result {
        Err(Error::Disconnected) => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Sending and receiving fail in every form.
fn assert_ended(mut channel: Channel) {
    assert_disconnected("loan", channel.loan(1).map(drop));
    assert_disconnected("try_loan", channel.try_loan(1).map(drop));
    assert_disconnected("has_space", channel.sender.has_space(1));
    assert_disconnected("send", channel.send(b""));
    assert_disconnected("try_send", channel.try_send(b""));
    assert_disconnected("request", channel.request(b""));
    assert_disconnected("call", channel.call(b"", SOON));
    assert_disconnected("recv", channel.recv());
    assert_disconnected("try_recv", channel.try_recv());
    assert_disconnected("recv_timeout", channel.recv_timeout(SOON));
    assert_disconnected("recv_batch", channel.receiver.recv_batch().map(drop));
}

type Notice = fn(&mut Channel) -> Result<()>;

const RECEIVING: [(&str, Notice); 5] = [
    ("recv", |channel| channel.recv().map(drop)),
    ("recv_timeout", |channel| channel.recv_timeout(SOON).map(drop)),
    ("try_recv", |channel| {
        loop {
            channel.try_recv()?;
        }
    }),
    ("recv_batch", |channel| channel.receiver.recv_batch().map(drop)),
    ("call", |channel| channel.call(b"", SOON).map(drop)),
];

#[test]
fn a_peer_that_was_killed_is_gone_for_both_halves() {
    for (name, notice) in RECEIVING {
        let (mut channel, mut child) = Channel::spawn(role(dies_when_it_is_told)).unwrap();
        channel.send(b"die").unwrap();
        assert!(!child.wait().unwrap().success());
        assert_disconnected(name, notice(&mut channel));
        assert_ended(channel);
    }
}

#[test]
#[ignore = "the child of another test"]
fn dies_when_it_is_told() {
    Channel::inherited().unwrap().recv().unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[test]
fn a_peer_that_dropped_its_channel_is_gone_for_both_halves() {
    for (name, notice) in RECEIVING {
        let (mut channel, peer) = Channel::pair().unwrap();
        drop(peer);
        assert_disconnected(name, notice(&mut channel));
        assert_ended(channel);
    }
}

/// No caller sees the moment between the ends of the two halves.
#[test]
fn a_peer_that_drops_its_channel_goes_at_once() {
    for _ in 0..300 {
        let (mut channel, peer) = Channel::builder().ring_capacity(4096).pair().unwrap();
        let dropping = std::thread::spawn(move || drop(peer));
        assert_disconnected("recv", channel.recv());
        assert_disconnected("loan", channel.loan(1).map(drop));
        dropping.join().unwrap();
    }
}

#[test]
fn committed_messages_arrive_where_the_sending_half_notices_the_end_first() {
    let (mut channel, mut peer) = Channel::pair().unwrap();
    let mut loan = peer.loan(3).unwrap();
    loan.copy_from_slice(b"one");
    loan.send().unwrap();
    peer.send(b"two").unwrap();
    drop(peer);
    assert_disconnected("send", channel.send(b""));
    assert_disconnected("loan", channel.loan(1).map(drop));
    let kept = channel.recv().unwrap().take_payload().unwrap();
    assert_eq!(channel.recv().unwrap().control(), b"two");
    assert_ended(channel);
    assert_eq!(kept.to_vec(), b"one", "a payload outlives its channel");
}

#[test]
fn a_peer_that_dropped_only_its_sender_is_still_sent_to() {
    let (mut channel, peer) = Channel::pair().unwrap();
    let (sender, mut receiver) = peer.split();
    drop(sender);
    assert_disconnected("recv", channel.recv());
    channel.loan(1).unwrap().send_with(b"one").unwrap();
    channel.send(b"two").unwrap();
    assert_eq!([(); 2].map(|()| receiver.recv().unwrap().control().to_vec()), [b"one", b"two"]);
    drop(receiver);
    assert_disconnected("recv", channel.recv());
    assert_ended(channel);
}

#[test]
fn a_peer_that_dropped_only_its_receiver_is_still_heard() {
    let (mut channel, peer) = Channel::pair().unwrap();
    let (mut sender, receiver) = peer.split();
    drop(receiver);
    assert_disconnected("send", channel.send(b""));
    sender.loan(1).unwrap().send().unwrap();
    sender.send(b"two").unwrap();
    assert_eq!(channel.recv().unwrap().sequence(), 0);
    assert_eq!(channel.recv().unwrap().control(), b"two");
    assert!(matches!(channel.recv_timeout(Duration::ZERO), Err(Error::Timeout)));
    drop(sender);
    assert_disconnected("recv", channel.recv());
    assert_ended(channel);
}
