//! What a [`TcpRelay`] promises. It is a part of `hosts_work.rs`.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{hosts::TcpRelay, stream};

/// A listener with a relay in front of it.
fn relayed() -> (TcpListener, TcpRelay) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = TcpRelay::new(listener.local_addr().unwrap());
    (listener, relay)
}

/// A connection through `relay`: the client's and the server's end.
fn connection(listener: &TcpListener, relay: &TcpRelay) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(relay.address()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Reads exactly the bytes `from..to` of the stream.
fn expect(mut socket: &TcpStream, from: usize, to: usize) {
    let mut got = vec![0; to - from];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got, stream(from, to));
}

/// Whether there is nothing to read now.
fn is_silent(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let result = socket.peek(&mut [0]);
    socket.set_nonblocking(false).unwrap();
    matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_relay_carries_many_connections_both_ways() {
    let (listener, relay) = relayed();
    let pairs: Vec<_> = (0..20).map(|_| connection(&listener, &relay)).collect();
    thread::scope(|scope| {
        for (client, server) in &pairs {
            for (mut from, to) in [(client, server), (server, client)] {
                scope.spawn(move || {
                    from.write_all(&stream(0, 1_000_000)).unwrap();
                    from.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    expect(to, 0, 1_000_000);
                    assert_eq!((&*to).read(&mut [0]).unwrap(), 0);
                });
            }
        }
    });
    assert_eq!(relay.accepted(), 20);
}

#[test]
fn a_cut_relay_carries_nothing_and_then_the_rest() {
    let (listener, relay) = relayed();
    let (mut client, server) = connection(&listener, &relay);
    client.write_all(&stream(0, 10)).unwrap();
    expect(&server, 0, 10);

    relay.cut();
    client.set_nonblocking(true).unwrap();
    let mut sent = 10;
    // Bounded buffers: at some time the sender has to wait.
    while let Ok(len) = client.write(&stream(sent, sent + 100_000)) {
        sent += len;
        assert!(sent < 100 << 20, "no back-pressure");
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(is_silent(&server));

    // Who connects now is served later.
    let late = TcpStream::connect(relay.address()).unwrap();
    (&late).write_all(&stream(0, 10)).unwrap();

    relay.restore();
    expect(&server, 10, sent);
    assert_eq!((&server).read(&mut [0]).unwrap(), 0);
    expect(&listener.accept().unwrap().0, 0, 10);
}

#[test]
fn a_reset_ends_all_connections_and_no_others() {
    let (listener, relay) = relayed();
    for cut in [false, true] {
        let pairs = [connection(&listener, &relay), connection(&listener, &relay)];
        if cut {
            relay.cut();
        }
        relay.reset();
        for (client, server) in &pairs {
            assert!(matches!((&*client).read(&mut [0]), Ok(0) | Err(_)));
            assert!(matches!((&*server).read(&mut [0]), Ok(0) | Err(_)));
        }
        relay.restore();
    }
    let (mut client, server) = connection(&listener, &relay);
    client.write_all(&stream(0, 10)).unwrap();
    expect(&server, 0, 10);
    assert_eq!((relay.accepted(), relay.connections()), (5, 1));
}

#[test]
fn a_limited_relay_takes_its_time() {
    let (listener, relay) = relayed();
    let (client, server) = connection(&listener, &relay);
    relay.limit(Some(1_000_000));
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&stream(0, 200_000)).unwrap());
        expect(&server, 0, 200_000);
    });
    // Less what the bucket holds.
    assert!(begin.elapsed() >= Duration::from_millis(180));

    relay.limit(None);
    relay.delay(Duration::from_millis(50));
    let begin = Instant::now();
    (&client).write_all(&[1]).unwrap();
    (&server).read_exact(&mut [0]).unwrap();
    (&server).write_all(&[1]).unwrap();
    (&client).read_exact(&mut [0]).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_relay_without_its_target_ends_connections() {
    // Port 1 is tcpmux's, and nobody's.
    let relay = TcpRelay::new((Ipv4Addr::LOCALHOST, 1).into());
    let client = TcpStream::connect(relay.address()).unwrap();
    assert!(matches!((&client).read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn a_dropped_relay_hangs_nowhere() {
    for cut in [false, true] {
        let (listener, relay) = relayed();
        let (idle, (client, server)) = (connection(&listener, &relay), connection(&listener, &relay));
        if cut {
            relay.cut();
        }
        // The server does not read, so the relay's threads wait for it.
        client.set_nonblocking(true).unwrap();
        while (&client).write(&stream(0, 100_000)).is_ok() {}
        drop(relay);
        assert!(matches!((&idle.0).read(&mut [0]), Ok(0) | Err(_)));
        drop(server);
    }
}
