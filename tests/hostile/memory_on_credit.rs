//! A stranger gets no memory of ours before the application has had its turn, and takes little of our time with its own.
//!
//! Memory is counted for the whole process, so this binary has one test only.

#[path = "../support/mod.rs"]
mod support;

use std::{fs, os::fd::AsFd, time::Duration};

use sealane::{Channel, Error, Handshake, Listener};

use crate::support::{
    hostile::{
        HELLO, Hello, Packet, Player, READY, REJECT, SEALS, abstract_name, memfd, readable, seqpacket_pair,
    },
    threads::bounded,
};

/// Bytes of a peer's region that one call may look at.
const PIECE: u64 = 4 << 20;

/// Bytes of regions that this process has mapped, its own or its peers'.
fn mapped() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let regions =
        maps.lines().filter(|line| line.contains("memfd:sealane") || line.contains("memfd:hostile"));
    let sizes = regions.map(|line| {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        u64::from_str_radix(end, 16).unwrap() - u64::from_str_radix(start, 16).unwrap()
    });
    sizes.sum()
}

/// Bytes of shared memory in this process's page tables.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssShmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A client that says a good `Hello`, and nothing else.
fn client(name: &std::path::Path, hello: &Hello) -> Player {
    let player = Player::connect(name);
    player.send(Packet::hello(hello, vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0]));
    player
}

fn is_readable(fd: impl AsFd) -> bool {
    readable([fd.as_fd()], Duration::ZERO) == [true]
}

/// Advances until the client's credentials are there for the application.
fn accept(listener: &Listener) -> Handshake {
    let mut server = listener.try_accept().unwrap().unwrap();
    assert!(!server.advance().unwrap());
    assert!(server.peer_credentials().is_some());
    assert!(is_readable(&server) && server.needs_advance(), "a loop of either kind comes back");
    server
}

#[test]
fn memory_is_given_after_the_applications_turn_and_taken_piece_by_piece() {
    let _guard = bounded();
    clients_that_say_hello_and_no_more_are_given_nothing();
    a_large_region_is_looked_at_in_pieces();
    memory_that_takes_longer_than_there_is_time_is_a_timeout();
}

fn clients_that_say_hello_and_no_more_are_given_nothing() {
    const CLIENTS: usize = 50;
    let name = abstract_name();
    // The ring is so small that it is made in one step.
    let builder = Channel::builder().ring_capacity(1).handshake_timeout(Duration::from_millis(200));
    let listener = builder.listen(&name).unwrap();
    let before = mapped();
    let clients: Vec<Player> = (0..CLIENTS).map(|_| client(&name, &Hello::honest(1))).collect();
    let mut servers: Vec<_> = clients.iter().map(|_| accept(&listener)).collect();
    assert_eq!(mapped(), before);

    // One handshake continues, one is refused, one is dropped, and all others time out.
    let (mut accepted, refused, dropped) = (servers.remove(0), servers.remove(0), servers.remove(0));
    assert!(!accepted.advance().unwrap());
    assert!(mapped() > before, "both regions");
    assert!(!is_readable(&accepted) && !accepted.needs_advance());
    assert_eq!(clients[0].hear().unwrap().kind, HELLO);
    clients[0].send(Packet::new(READY));
    let channel = accepted.finish().unwrap();
    assert_eq!(clients[0].hear().unwrap().kind, READY);
    drop(channel);
    refused.refuse();
    drop(dropped);
    for mut server in servers {
        let left = server.deadline().saturating_duration_since(std::time::Instant::now());
        std::thread::sleep(left);
        assert!(matches!(server.advance(), Err(Error::Timeout)));
        assert!(!server.needs_advance());
    }
    assert_eq!(mapped(), before);
    let heard: Vec<u16> = clients[1].hear_all().iter().map(|heard| heard.kind).collect();
    assert_eq!(heard, [REJECT]);
    for client in &clients[2..] {
        assert!(client.hear().is_none(), "nothing was given");
    }
}

fn a_large_region_is_looked_at_in_pieces() {
    const RING: u64 = 64 << 20;
    let name = abstract_name();
    let builder = Channel::builder().ring_capacity(1).max_peer_ring_capacity(RING.try_into().unwrap());
    let listener = builder.listen(&name).unwrap();
    let client = client(&name, &Hello { ring_capacity: RING, ..Hello::honest(1) });
    let mut server = accept(&listener);
    let (mut calls, mut before) = (0, resident());
    while server.needs_advance() {
        assert!(is_readable(&server));
        assert!(!server.advance().unwrap());
        let after = resident();
        // The kernel counts in batches, by thread; and our own region is made by the last call.
        assert!(after < before + 2 * PIECE, "{} bytes at once", after - before);
        (calls, before) = (calls + 1, after);
    }
    assert!(calls >= RING / PIECE, "{calls} calls");
    assert_eq!(client.hear().unwrap().kind, HELLO);
    client.send(Packet::new(READY));
    assert!(server.advance().unwrap());
}

fn memory_that_takes_longer_than_there_is_time_is_a_timeout() {
    let builder = Channel::builder().ring_capacity(1 << 30);
    for prefault in [false, true] {
        // A rate of 1 TB/s would be enough.
        let builder = builder.clone().prefault(prefault).handshake_timeout(Duration::from_millis(1));
        let (player, ours) = Player::pair();
        assert!(matches!(builder.handshake(ours), Err(Error::Timeout)));
        assert!(player.hear().is_none(), "nothing was given");
    }
    // A listener is asked for its ring later.
    let name = abstract_name();
    let listener = builder.handshake_timeout(Duration::from_millis(50)).listen(&name).unwrap();
    let client = client(&name, &Hello::honest(1));
    let server = listener.try_accept().unwrap().unwrap();
    assert!(matches!(server.finish(), Err(Error::Timeout)));
    assert!(client.hear().is_none(), "nothing was given");
}
