//! Descriptors, mappings, files and children are all gone, however a channel ends.
//!
//! Descriptors and mappings are counted for the whole process, so this binary has one test only.

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use rustix::{
    io::{Errno, FdFlags, fcntl_getfd},
    net::Shutdown,
    process::{Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid},
};
use sealane::{
    Builder, Channel, Control, Error, HandshakeError, Listener, ProtocolError, SealedBuffer, SealedBufferMut,
};

use crate::support::{
    hostile::{
        HELLO, Hello, LONG, OTHER_HALF, Packet, Player, READY, SEALS, abstract_name, memfd, pipe,
        seqpacket_pair,
    },
    is_abandoned, left_over, socket_path,
    threads::bounded,
};

#[test]
fn channels_leave_nothing_over() {
    let scenarios: [(&str, fn()); 23] = [
        ("a pair", a_pair),
        ("halves", halves),
        ("messages nobody received", messages_nobody_received),
        ("messages with descriptors", messages_with_descriptors),
        ("payloads that outlive their channel", payloads_that_outlive_their_channel),
        ("messages kept for later", messages_kept_for_later),
        ("sealed buffers", sealed_buffers),
        ("a closer that outlives its channel", a_closer_that_outlives_its_channel),
        ("a listener", a_listener),
        ("a listener with clients that wait", a_listener_with_clients_that_wait),
        ("a client that says nothing", a_client_that_says_nothing),
        ("a client that is refused", a_client_that_is_refused),
        ("nobody to connect to", nobody_to_connect_to),
        ("handshakes that are dropped", handshakes_that_are_dropped),
        ("a handshake without an answer", a_handshake_without_an_answer),
        ("a handshake over the wrong thing", a_handshake_over_the_wrong_thing),
        ("a ring that is too large", a_ring_that_is_too_large),
        ("hostile handshakes", hostile_handshakes),
        ("violations", violations),
        ("a peer that ends with descriptors", a_peer_that_ends_with_descriptors),
        ("descriptors lost to our limit", descriptors_lost_to_our_limit),
        ("handshakes at our limit", handshakes_at_our_limit),
        ("children that fail", children_that_fail),
    ];
    let _guard = bounded();
    for (name, scenario) in scenarios {
        let before = left_over();
        scenario();
        assert_eq!(left_over(), before, "{name}: descriptors, regions mapped");
    }
}

fn builder() -> Builder {
    Channel::builder().ring_capacity(1).max_fds(253)
}

fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect()
}

fn a_pair() {
    let (descriptors, regions) = left_over();
    let (a, b) = builder().pair().unwrap();
    // Each end keeps its socket, the end of its own space socket and the end of the other's; and maps the two regions.
    assert_eq!(left_over(), (descriptors + 6, regions + 4));
    drop(a);
    drop(b);
}

fn halves() {
    let (a, b) = builder().pair().unwrap();
    let ((sender, receiver), (peer_sender, peer_receiver)) = (a.split(), b.split());
    drop(sender);
    drop(peer_sender);
    drop(peer_receiver);
    drop(receiver);
}

fn messages_nobody_received() {
    let (mut a, b) = builder().pair().unwrap();
    a.send(Control::default().fds(&files(253))).unwrap();
    a.loan(1).unwrap().send_with(Control::default().fds(&files(3))).unwrap();
    drop(b);
}

fn messages_with_descriptors() {
    let (mut a, mut b) = builder().pair().unwrap();
    for take in [false, true] {
        a.send(Control::default().fds(&files(253))).unwrap();
        a.loan(1).unwrap().send_with(Control::default().fds(&files(3))).unwrap();
        for count in [253, 3] {
            let mut message = b.recv_timeout(LONG).unwrap();
            assert_eq!(message.fds().len(), count);
            for fd in message.fds() {
                assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
            }
            if take {
                drop(message.take_fds());
            }
        }
    }
}

fn payloads_that_outlive_their_channel() {
    let (mut a, mut b) = builder().pair().unwrap();
    for _ in 0..3 {
        a.loan(1).unwrap().send().unwrap();
    }
    let [first, second, third] = [(); 3].map(|()| b.recv_timeout(LONG).unwrap().take_payload().unwrap());
    let detached = first.detach();
    drop((a, b));
    drop(third);
    drop(second);
    assert_eq!(detached.len(), 1);
}

fn messages_kept_for_later() {
    let (mut a, mut b) = builder().pair().unwrap();
    let request = a.request(b"?").unwrap();
    b.send(Control::default().fds(&files(3))).unwrap();
    b.loan(100).unwrap().send().unwrap();
    assert!(matches!(a.receiver.wait_reply(request, Duration::ZERO), Err(Error::Timeout)));
}

fn sealed_buffers() {
    drop(SealedBufferMut::new(5).unwrap());
    let buffer = SealedBufferMut::new(5).unwrap().seal().unwrap();
    let (mut a, mut b) = builder().pair().unwrap();
    a.send(Control::default().fd(&buffer)).unwrap();
    let received = b.recv_timeout(LONG).unwrap().take_fds().remove(0);
    let received = SealedBuffer::try_from(received).unwrap();
    assert_eq!(received.clone().len(), 5);
    assert!(SealedBuffer::try_from(files(1).remove(0)).is_err());
}

fn a_closer_that_outlives_its_channel() {
    let (a, mut b) = builder().pair().unwrap();
    let closer = a.closer();
    drop(a);
    closer.close();
    assert!(matches!(b.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(b);
    closer.close();
}

fn a_listener() {
    let (directory, path) = socket_path();
    let listener = builder().listen(&path).unwrap();
    let client = thread::spawn({
        let path = path.clone();
        move || builder().connect(path).unwrap()
    });
    let server = listener.accept().unwrap();
    drop((client.join().unwrap(), server));
    assert!(Listener::bind(&path).is_err());
    drop(listener);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "a file is left");
}

fn a_listener_with_clients_that_wait() {
    let name = abstract_name();
    let listener = builder().listen(&name).unwrap();
    let clients = [(); 3].map(|()| builder().try_connect(&name).unwrap());
    drop(listener);
    for client in clients {
        assert!(matches!(client.finish(), Err(Error::Handshake(HandshakeError::Closed { .. }))));
    }
}

fn a_client_that_says_nothing() {
    let name = abstract_name();
    let listener = builder().listen(&name).unwrap();
    let _silent = Player::connect(&name);
    let before = left_over();
    let handshake = listener.try_accept().unwrap().unwrap();
    let (descriptors, regions) = before;
    assert_eq!(left_over(), (descriptors + 1, regions), "it costs its socket, and no ring");
    drop(handshake);
}

fn a_client_that_is_refused() {
    let name = abstract_name();
    let listener = builder().listen(&name).unwrap();
    let client = builder().try_connect(&name).unwrap();
    let mut server = listener.try_accept().unwrap().unwrap();
    server.advance().unwrap();
    server.refuse();
    assert!(matches!(client.finish(), Err(Error::Handshake(HandshakeError::Rejected(_)))));
}

fn nobody_to_connect_to() {
    let name = abstract_name();
    assert!(builder().connect(&name).is_err());
    assert!(builder().try_connect(&name).is_err());
}

fn handshakes_that_are_dropped() {
    let (ours, theirs) = seqpacket_pair();
    let a = builder().handshake(ours).unwrap();
    let mut b = builder().handshake(theirs).unwrap();
    assert!(!b.advance().unwrap());
    drop(a);
    drop(b);
    let (handshake, mut child) = builder().try_spawn(Command::new("true")).unwrap();
    drop(handshake);
    child.wait().unwrap();
}

fn a_handshake_without_an_answer() {
    let (_silent, ours) = Player::pair();
    let handshake = builder().handshake_timeout(Duration::from_millis(5)).handshake(ours).unwrap();
    assert!(matches!(handshake.finish(), Err(Error::Timeout)));
}

fn a_handshake_over_the_wrong_thing() {
    let (reader, writer) = pipe();
    assert!(builder().handshake(writer).is_err());
    assert!(is_abandoned(&reader), "what was given is closed");
}

fn a_ring_that_is_too_large() {
    assert!(builder().max_peer_ring_capacity(0).pair().is_err());
}

/// The first packet of an honest peer, with some descriptors more.
fn hello(surplus: usize) -> Packet {
    let hello = Hello::honest(1);
    let mut fds = vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0];
    fds.extend(files(surplus));
    Packet::hello(&hello, fds)
}

fn hostile_handshakes() {
    let cases: [fn() -> Vec<Packet>; 8] = [
        || vec![hello(0)],
        || vec![hello(251), Packet::new(READY)],
        || vec![hello(0), Packet { fds: files(3), ..Packet::new(READY) }],
        || vec![hello(0), hello(5), hello(0)],
        || vec![Packet { announced: Some(2), ..hello(3) }],
        || vec![Packet { fds: files(2), ..hello(0) }],
        || vec![Packet { fds: files(253), ..Packet::raw(b"garbage") }],
        || vec![Packet { fds: files(253), ..Packet::raw(b"") }],
    ];
    for packets in cases {
        let (player, ours) = Player::pair();
        let handshake = builder().handshake(ours).unwrap();
        for packet in packets() {
            player.send(packet);
        }
        player.shut(Shutdown::Write);
        drop(handshake.finish());
        let name = abstract_name();
        let listener = builder().listen(&name).unwrap();
        let player = Player::connect(&name);
        for packet in packets() {
            player.send(packet);
        }
        player.shut(Shutdown::Write);
        drop(listener.accept());
    }
}

/// A peer on an established channel, and our side.
fn established() -> (Player, Channel) {
    let (player, ours) = Player::pair();
    let handshake = builder().handshake(ours).unwrap();
    player.send(hello(0));
    player.send(Packet::new(READY));
    let channel = handshake.finish().unwrap();
    assert_eq!(player.hear().unwrap().kind, HELLO);
    assert_eq!(player.hear().unwrap().kind, READY);
    (player, channel)
}

fn violations() {
    let half = || Packet { flags: OTHER_HALF, fds: files(100), ..Packet::control(0) };
    let (player, mut channel) = established();
    // The first is held for its record when the second comes.
    player.send(half());
    assert!(channel.try_recv().unwrap().is_none());
    player.send(Packet { sequence: 1, ..half() });
    let violation = ProtocolError::Halves { sequence: 0 };
    let result = channel.try_recv();
    assert!(matches!(&result, Err(Error::Protocol(found)) if *found == violation), "{result:?}");
    // Malformed packets, with descriptors.
    let (player, mut channel) = established();
    player.send(Packet { fds: files(253), ..Packet::raw(b"garbage") });
    assert!(matches!(channel.try_recv(), Err(Error::Protocol(ProtocolError::PacketLength { .. }))));
}

fn a_peer_that_ends_with_descriptors() {
    let (player, mut channel) = established();
    let (reader, writer) = pipe();
    player.send(Packet { fds: vec![writer], ..Packet::raw(b"") });
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    assert!(is_abandoned(&reader), "nobody will ever ask for them");
}

/// Does something while this process can open `spare` more descriptors and no more.
fn with_spare_descriptors<T>(spare: usize, action: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    // Descriptors are numbered from the lowest free number on: this is the first that would exceed the limit.
    let first = u64::try_from(files(spare + 1)[spare].as_raw_fd()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(first), ..limit }).unwrap();
    let result = action();
    setrlimit(Resource::Nofile, limit).unwrap();
    result
}

fn descriptors_lost_to_our_limit() {
    let (mut a, mut b) = builder().pair().unwrap();
    let five = files(5);
    let max = a.limits().max_payload;
    for spare in 0..5 {
        a.send(Control::new(b"lost").fds(&five)).unwrap();
        // The longest payload is lost too, and its space is released.
        a.sender.loan_timeout(max, LONG).unwrap().send_with(Control::new(b"lost").fds(&five)).unwrap();
        a.send(b"not lost").unwrap();
        with_spare_descriptors(spare, || {
            for _ in 0..2 {
                let result = b.recv_timeout(LONG);
                let Err(Error::FdsLost { expected: 5, received }) = result else { panic!("{result:?}") };
                assert_eq!(received, spare);
            }
            assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"not lost");
        });
        a.send(Control::default().fds(&five)).unwrap();
        assert_eq!(b.recv_timeout(LONG).unwrap().fds().len(), 5);
    }
}

fn handshakes_at_our_limit() {
    let name = abstract_name();
    let listener = builder().listen(&name).unwrap();
    let client = builder().try_connect(&name).unwrap();
    with_spare_descriptors(0, || {
        assert!(matches!(builder().connect(&name), Err(Error::Io { operation: "socket", .. })));
        assert!(matches!(listener.try_accept(), Err(Error::Io { operation: "accept", .. })));
        assert!(builder().pair().is_err());
    });
    // The client waited. There is room for its socket, and for one of its two descriptors.
    with_spare_descriptors(2, || {
        let result = listener.accept();
        assert!(matches!(result, Err(Error::FdsLost { expected: 2, received: 1 })), "{result:?}");
    });
    assert!(client.finish().is_err());
    // All three fit, but not our own memfd and space socket: one of the three is closed.
    for spare in [3, 4] {
        let client = builder().try_connect(&name).unwrap();
        let result = with_spare_descriptors(spare, || listener.accept());
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
        assert!(client.finish().is_err());
    }
}

fn children_that_fail() {
    let builder = builder().handshake_timeout(LONG);
    assert!(matches!(builder.spawn(Command::new("/nonexistent/program")), Err(Error::Io { .. })));
    assert!(matches!(builder.try_spawn(Command::new("/nonexistent/program")), Err(Error::Io { .. })));
    assert!(matches!(builder.spawn(Command::new("true")), Err(Error::Handshake(_))));
    assert_eq!(waitpid(None, WaitOptions::NOHANG).unwrap_err(), Errno::CHILD);
}
