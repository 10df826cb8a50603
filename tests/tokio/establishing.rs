//! Listening, connecting and spawning: no peer holds up another, and dropped futures leave nothing.

use std::{
    io::{BufRead, BufReader, pipe},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen,
        recv, socket_with,
    },
};
use sealane::{
    Error, HandshakeError,
    tokio::{Channel, Listener},
};
use tokio::task::{JoinSet, yield_now};

use crate::{builder, poll_once, polled, role, run, script::Random};

use crate::support::socket_path;

const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(50);

fn socket(flags: SocketFlags) -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | flags, None).unwrap()
}

/// A client that sends nothing.
fn silent(path: &Path) -> OwnedFd {
    let socket = socket(SocketFlags::empty());
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// Waits until the other end is closed.
async fn is_closed(client: &OwnedFd) {
    while recv(client, &mut [0; 100], RecvFlags::DONTWAIT) == Err(Errno::AGAIN) {
        yield_now().await;
    }
    assert!(matches!(recv(client, &mut [0; 100], RecvFlags::DONTWAIT), Ok((0, _))));
}

#[test]
fn silent_clients_hold_up_nobody() {
    run(|| async {
        let (_dir, path) = socket_path();
        let mut listener =
            Listener::try_from(builder().handshake_timeout(HOUR).listen(&path).unwrap()).unwrap();
        assert_eq!(listener.path(), Some(&*path));
        let mut silent: Vec<_> = (0..20).map(|_| silent(&path)).collect();
        // This client stops in the middle.
        let stopped = builder().try_connect(&path).unwrap();
        for n in 0..3_u8 {
            let client = tokio::spawn({
                let path = path.clone();
                async move { Channel::connect(&path).await.unwrap().call(&[n]).await }
            });
            let mut channel = listener.accept().await.unwrap();
            assert_eq!(channel.peer().credentials().pid.map(u32::from), Some(std::process::id()));
            let question = channel.recv().await.unwrap();
            channel.reply(question.reply_token().unwrap(), b"welcome").await.unwrap();
            assert_eq!(client.await.unwrap().unwrap().control(), b"welcome");
        }
        // The failure of one client is reported, and does not harm the listener.
        rustix::io::write(silent.pop().unwrap(), b"no Hello").unwrap();
        assert!(matches!(listener.accept().await, Err(Error::Handshake(HandshakeError::Refused(_)))));
        drop(stopped);
        assert!(matches!(listener.accept().await, Err(Error::Handshake(HandshakeError::Closed { .. }))));
        drop(listener);
        assert!(!path.exists());
        for client in silent {
            is_closed(&client).await;
        }
    });
}

#[test]
fn silent_clients_are_left_at_their_deadline() {
    run(|| async {
        let (_dir, path) = socket_path();
        let mut listener =
            Listener::try_from(builder().handshake_timeout(SHORT).listen(&path).unwrap()).unwrap();
        let start = Instant::now();
        let (mute, stopped) = (silent(&path), builder().try_connect(&path).unwrap());
        for _ in 0..2 {
            assert!(matches!(listener.accept().await, Err(Error::Timeout)));
        }
        assert!(start.elapsed() >= SHORT);
        is_closed(&mute).await;
        let mute = silent(&path);
        assert!(matches!(listener.accept_handshake().await, Err(Error::Timeout)));
        is_closed(&mute).await;
        assert!(matches!(Channel::establish(stopped).await, Err(Error::Handshake(_))));
    });
}

/// Peeks at the socket: a client that was given nothing has nothing to read.
fn was_given_nothing(client: &OwnedFd) -> bool {
    recv(client, &mut [0; 100], RecvFlags::DONTWAIT | RecvFlags::PEEK) == Err(Errno::AGAIN)
}

#[test]
fn clients_are_given_nothing_before_they_were_looked_at() {
    run(|| async {
        let (_dir, path) = socket_path();
        let mut listener =
            Listener::try_from(builder().handshake_timeout(HOUR).listen(&path).unwrap()).unwrap();
        let (silent, slow) = (silent(&path), silent(&path));
        assert!(poll_once(pin!(listener.accept_handshake())).await.is_pending());

        for is_refused in [true, false] {
            let client = builder().try_connect(&path).unwrap();
            let socket = client.as_fd().try_clone_to_owned().unwrap();
            let handshake = listener.accept_handshake().await.unwrap();
            let credentials = handshake.peer_credentials().unwrap();
            assert_eq!(credentials.pid.map(u32::from), Some(std::process::id()));
            assert!(was_given_nothing(&socket));
            if is_refused {
                handshake.refuse();
                let refused = Channel::establish(client).await;
                assert!(matches!(refused, Err(Error::Handshake(HandshakeError::Rejected(_)))), "{refused:?}");
            } else {
                let (server, client) =
                    tokio::join!(Channel::establish(handshake), Channel::establish(client));
                server.unwrap().send(b"welcome").await.unwrap();
                assert_eq!(client.unwrap().recv().await.unwrap().control(), b"welcome");
            }
        }

        // The slow client, which connected first, sends `Hello` at last.
        let slow = tokio::spawn(Channel::establish(builder().handshake(slow).unwrap()));
        let handshake = listener.accept_handshake().await.unwrap();
        let (server, client) = tokio::join!(Channel::establish(handshake), slow);
        assert_eq!(server.unwrap().peer().version(), client.unwrap().unwrap().peer().version());

        assert!(poll_once(pin!(listener.accept_handshake())).await.is_pending());
        assert!(was_given_nothing(&silent));
        drop(listener);
        is_closed(&silent).await;
    });
}

#[test]
fn accepts_that_are_dropped_lose_no_client() {
    const CLIENTS: u32 = 100;
    let seed = Random::seed();
    println!("SEED={seed}");
    for look_first in [false, true] {
        run(move || async move {
            let mut random = Random(seed);
            let (_dir, path) = socket_path();
            let small = builder().ring_capacity(4096);
            let mut listener = Listener::try_from(small.listen(&path).unwrap()).unwrap();
            let mut clients = JoinSet::new();
            for _ in 0..CLIENTS {
                let (path, small) = (path.clone(), small.clone());
                clients.spawn(async move {
                    let mut channel = Channel::connect_with(&small, &path).await.unwrap();
                    channel.recv().await.unwrap().control() == b"welcome"
                });
            }
            let mut accepted = 0;
            while accepted < CLIENTS {
                let times = random.below(4);
                let channel = if look_first {
                    match polled(listener.accept_handshake(), times).await {
                        Some(handshake) => Some(Channel::establish(handshake.unwrap()).await),
                        None => None,
                    }
                } else {
                    polled(listener.accept(), times).await
                };
                if let Some(channel) = channel {
                    channel.unwrap().send(b"welcome").await.unwrap();
                    accepted += 1;
                }
                yield_now().await;
            }
            assert!(clients.join_all().await.into_iter().all(|welcome| welcome));
            assert!(poll_once(pin!(listener.accept())).await.is_pending());
            assert!(poll_once(pin!(listener.accept_handshake())).await.is_pending());
        });
    }
}

#[test]
fn a_place_in_a_full_backlog_is_waited_for() {
    run(|| async {
        let (_dir, path) = socket_path();
        let listener = socket(SocketFlags::NONBLOCK);
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let in_the_way = silent(&path);
        let hasty = builder().handshake_timeout(SHORT);
        assert!(matches!(Channel::connect_with(&hasty, &path).await, Err(Error::Timeout)));

        let mut connecting = pin!(Channel::connect(&path));
        assert!(poll_once(connecting.as_mut()).await.is_pending());
        drop((in_the_way, accept(&listener).unwrap()));
        let client = loop {
            match accept(&listener) {
                Ok(client) => break client,
                Err(error) => assert_eq!(error, Errno::AGAIN),
            }
            assert!(polled(connecting.as_mut(), 1).await.is_none());
        };
        let server = Channel::establish(builder().handshake(client).unwrap());
        let (server, client) = tokio::join!(server, connecting);
        server.unwrap().send(b"welcome").await.unwrap();
        assert_eq!(client.unwrap().recv().await.unwrap().control(), b"welcome");
    });
}

#[test]
fn connecting_to_nobody_is_an_error_at_once() {
    run(|| async {
        let path = Path::new("/nowhere/socket");
        assert!(matches!(Channel::connect(path).await, Err(Error::Io { operation: "connect", .. })));
        assert!(matches!(
            Channel::inherited().await,
            Err(Error::Handshake(HandshakeError::NotInherited { .. }))
        ));
    });
}

#[test]
fn a_child_that_gets_no_channel_is_killed_and_reaped() {
    run(|| async {
        for (timeout, is_dropped) in [(HOUR, true), (10 * SHORT, false)] {
            let (reader, writer) = pipe().unwrap();
            let mut command = role(never_takes_its_channel);
            command.stderr(writer);
            let builder = builder().handshake_timeout(timeout);
            let mut spawning = Box::pin(Channel::spawn_with(&builder, command));
            assert!(poll_once(spawning.as_mut()).await.is_pending());

            let mut id = String::new();
            let mut reader = BufReader::new(reader);
            reader.read_line(&mut id).unwrap();
            let child = Path::new("/proc").join(id.trim_end());
            assert!(child.exists());
            if is_dropped {
                drop(spawning);
            } else {
                assert!(matches!(spawning.await, Err(Error::Timeout)));
            }
            assert!(!child.exists());
        }
    });
}

#[test]
fn a_socket_that_was_given_is_awaited_on() {
    run(|| async {
        let (_dir, path) = socket_path();
        let given = socket(SocketFlags::empty());
        bind(&given, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&given, 10).unwrap();
        let mut listener = Listener::try_from(builder().listen_on(given).unwrap()).unwrap();
        assert_eq!(listener.path(), None);
        let client = tokio::spawn({
            let path = path.clone();
            async move { Channel::connect(&path).await.unwrap().recv().await }
        });
        listener.accept().await.unwrap().send(b"welcome").await.unwrap();
        assert_eq!(client.await.unwrap().unwrap().control(), b"welcome");
        drop(listener);
        assert!(path.exists());
    });
}

/// A server that pauses only for its own shortages is not delayed by bad clients, however many they are.
#[test]
fn clients_that_talk_nonsense_hold_up_nobody() {
    const NONSENSE: usize = 200;
    run(|| async {
        let (_dir, path) = socket_path();
        let mut listener = Listener::bind(&path).unwrap();
        for _ in 0..NONSENSE {
            rustix::io::write(silent(&path), b"no Hello").unwrap();
        }
        let client = tokio::spawn(async move { Channel::connect(&path).await.unwrap().recv().await });
        let mut refused = 0;
        let mut channel = loop {
            match listener.accept().await {
                Ok(channel) => break channel,
                Err(error @ Error::Io { .. }) => panic!("not this server's affair: {error}"),
                Err(_) => refused += 1,
            }
        };
        channel.send(b"welcome").await.unwrap();
        assert_eq!(client.await.unwrap().unwrap().control(), b"welcome");
        assert!(refused <= NONSENSE);
    });
}

#[test]
fn a_child_that_is_refused_reports_it_before_it_ends() {
    run(|| async {
        let (reader, writer) = pipe().unwrap();
        let mut command = role(reports_its_refusal);
        command.stderr(writer);
        // The command is borrowed.
        let strict = builder().max_peer_ring_capacity(4096);
        let refused = Channel::spawn_with(&strict, &mut command).await;
        drop(command);
        assert!(matches!(refused, Err(Error::Handshake(HandshakeError::Refused(_)))), "{refused:?}");
        let report = std::io::read_to_string(reader).unwrap();
        assert!(report.contains("the peer refused us") && report.contains("by itself"), "{report}");

        let exits = Channel::spawn(tokio::process::Command::new("sh").args(["-c", "exit 3"])).await;
        let Err(Error::Handshake(HandshakeError::ChildEnded { awaited: "Hello", status })) = exits else {
            panic!("{exits:?}");
        };
        assert_eq!(status.code(), Some(3));
    });
}

#[test]
#[ignore = "the child of another test"]
fn reports_its_refusal() {
    eprintln!("{}", sealane::Channel::inherited().unwrap_err());
    std::thread::sleep(SHORT);
    eprintln!("ended by itself");
}

#[test]
#[ignore = "the child of another test"]
fn never_takes_its_channel() {
    eprintln!("{}", std::process::id());
    // The child lives until it is killed.
    std::thread::park();
}
