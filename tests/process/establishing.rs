//! Channels are established in every way that there is, or a typed error gives the reason in time.

use std::{
    env,
    ffi::OsString,
    fmt::Debug,
    fs,
    io::ErrorKind,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::PermissionsExt},
    },
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    fs::{Mode, OFlags, fcntl_getfl},
    io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
    process::{Resource, Rlimit, WaitOptions, getgid, getrlimit, getuid, setrlimit, umask, waitpid},
};
use sealane::{
    Builder, Channel, Control, Error, Handshake, HandshakeError, Listener, Reason, Refusal, Result,
    SealedBufferMut,
};
use tempfile::tempdir;

use crate::support::{
    handshake_error,
    hostile::{
        Hello, LONG, Packet, Player, SEALS, abstract_name, address, memfd, page, pipe, readable, seqpacket,
        seqpacket_pair,
    },
    role, socket_path,
    threads::bounded,
};

/// The variable with the path that a child uses.
const PATH: &str = "SEALANE_TEST_PATH";
/// A time that is short enough to wait for.
const SHORT: Duration = Duration::from_millis(50);

/// Sends a message each way.
fn assert_established(a: &mut Channel, b: &mut Channel) {
    let one_way = |from: &mut Channel, to: &mut Channel| {
        from.send(b"control").unwrap();
        assert_eq!(to.recv_timeout(LONG).unwrap().control(), b"control");
        let mut loan = from.loan(3).unwrap();
        loan.copy_from_slice(b"abc");
        loan.send().unwrap();
        assert_eq!(to.recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), b"abc");
    };
    one_way(a, b);
    one_way(b, a);
}

/// The operation and the kind of a kernel error.
fn io_error<T: Debug>(result: Result<T>) -> (&'static str, ErrorKind) {
    match result {
        Err(Error::Io { operation, source, .. }) => (operation, source.kind()),
        other => panic!("{other:?}"),
    }
}

/// Both ends of a connection between two builders.
fn establish(a: &Builder, b: &Builder) -> (Result<Channel>, Result<Channel>) {
    let (ours, theirs) = seqpacket_pair();
    let (a, b) = (a.handshake(ours).unwrap(), b.handshake(theirs).unwrap());
    let b = thread::spawn(|| b.finish());
    (a.finish(), b.join().unwrap())
}

#[test]
fn a_pair_is_connected() {
    let _guard = bounded();
    let (mut a, mut b) = Channel::pair().unwrap();
    assert_established(&mut a, &mut b);
    assert_eq!(a.peer().credentials().pid.map(u32::from), Some(std::process::id()));
    assert_eq!((a.peer().version(), b.peer().version()), (1, 1));
}

#[test]
fn a_client_connects_by_path_and_by_abstract_name() {
    let _guard = bounded();
    let (_directory, path) = socket_path();
    for (name, file) in [(path.clone(), Some(&*path)), (abstract_name(), None)] {
        let listener = Listener::bind(&name).unwrap();
        assert_eq!(listener.path(), file);
        let client = thread::spawn(move || Channel::connect(name).unwrap());
        let mut server = listener.accept().unwrap();
        assert_established(&mut server, &mut client.join().unwrap());
    }
}

#[test]
fn a_timeout_without_end_is_no_limit() {
    let _guard = bounded();
    let builder = Channel::builder().handshake_timeout(Duration::MAX);
    let name = abstract_name();
    let listener = builder.listen(&name).unwrap();
    let client = thread::spawn(move || builder.connect(name).unwrap());
    assert_established(&mut listener.accept().unwrap(), &mut client.join().unwrap());
}

#[test]
fn the_socket_file_is_for_its_owner_alone() {
    assert!(role(binds_under_a_permissive_umask).status().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn binds_under_a_permissive_umask() {
    umask(Mode::empty());
    let (_directory, path) = socket_path();
    let _listener = Listener::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn the_socket_file_goes_with_its_listener() {
    let (directory, path) = socket_path();
    drop(Listener::bind(&path).unwrap());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    // The name is free again.
    drop(Listener::bind(&path).unwrap());
}

#[test]
fn a_file_that_replaced_the_socket_stays() {
    let (_directory, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let replacement = Listener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
    drop(replacement);
    assert!(!path.exists());
    let listener = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    drop(listener);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn binding_where_a_file_is_names_the_call_and_leaves_the_file() {
    let (_directory, path) = socket_path();
    fs::write(&path, "mine").unwrap();
    assert_eq!(io_error(Listener::bind(&path)), ("bind", ErrorKind::AddrInUse));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(io_error(Listener::bind(&path)), ("bind", ErrorKind::AddrInUse));
    assert!(path.exists(), "the first listener's");
    drop(listener);
}

#[test]
fn a_name_that_can_be_none_is_refused_and_the_error_says_why() {
    let zero = PathBuf::from(OsString::from_vec(b"a\0b".to_vec()));
    let long = |name: String| (PathBuf::from(name), "of at most 107 bytes expected, one of 108 found");
    let cases = [
        (PathBuf::new(), "found no name"),
        (PathBuf::from("@"), "found no name"),
        (zero, "without zero bytes"),
        long("x".repeat(108)),
        long(format!("@{}", "x".repeat(108))),
    ];
    let builder = Channel::builder();
    for (name, why) in cases {
        let refused = |operation, result: Result<()>| {
            let text = result.as_ref().unwrap_err().to_string();
            assert_eq!(io_error(result), (operation, ErrorKind::InvalidInput), "{name:?}");
            assert!(text.contains(why) && text.contains(&name.display().to_string()), "{text}");
        };
        refused("bind", builder.listen(&name).map(drop));
        refused("connect", builder.connect(&name).map(drop));
        refused("connect", builder.try_connect(&name).map(drop));
    }
    // The longest name is allowed. Its path may be in no directory, so only its length is tried.
    let longest = PathBuf::from("x".repeat(107));
    assert_eq!(io_error(Channel::connect(&longest)), ("connect", ErrorKind::NotFound));
    let name = abstract_name().into_os_string().into_string().unwrap();
    let _listener = Listener::bind(format!("{name:x<108}")).unwrap();
}

#[test]
fn connecting_to_nobody_names_the_call() {
    let _guard = bounded();
    let (directory, path) = socket_path();
    let (abandoned, stream) = (directory.path().join("abandoned"), directory.path().join("stream"));
    bind(seqpacket(), &address(&abandoned)).unwrap();
    let _other_type = std::os::unix::net::UnixListener::bind(&stream).unwrap();
    let wrong_type = std::io::Error::from(Errno::PROTOTYPE).kind();
    for (name, kind) in [
        (path, ErrorKind::NotFound),
        (abandoned, ErrorKind::ConnectionRefused),
        (abstract_name(), ErrorKind::ConnectionRefused),
        (stream, wrong_type),
    ] {
        assert_eq!(io_error(Channel::connect(&name)), ("connect", kind), "{name:?}");
        assert_eq!(io_error(Channel::builder().try_connect(&name)), ("connect", kind), "{name:?}");
    }
}

#[test]
fn a_full_backlog_does_not_hold_up_a_client_for_longer_than_it_said() {
    let _guard = bounded();
    let name = abstract_name();
    let busy = seqpacket();
    bind(&busy, &address(&name)).unwrap();
    listen(&busy, 0).unwrap();
    let builder = Channel::builder().handshake_timeout(SHORT);
    let mut waiting = Vec::new();
    let full = loop {
        match builder.try_connect(&name) {
            Ok(handshake) if waiting.len() < 10 => waiting.push(handshake),
            other => break other,
        }
    };
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    assert!(matches!(builder.connect(&name), Err(Error::Timeout)));
}

#[test]
fn handshakes_go_side_by_side_and_a_silent_client_holds_up_nobody() {
    const CLIENTS: u8 = 5;
    let _guard = bounded();
    let name = abstract_name();
    let builder = Channel::builder().ring_capacity(1 << 16);
    let listener = builder.listen(&name).unwrap();
    assert!(listener.try_accept().unwrap().is_none());
    let _silent = Player::connect(&name);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    let mut pending: Vec<(Handshake, Side)> =
        (0..CLIENTS).map(|_| (builder.try_connect(&name).unwrap(), Side::Client)).collect();
    // An event loop: it advances a handshake only when its descriptor is readable, and calls nothing that blocks.
    while clients.len() + servers.len() < 2 * usize::from(CLIENTS) {
        let mut ready = readable([listener.as_fd()], Duration::ZERO) == [true];
        while let Some(handshake) = listener.try_accept().unwrap() {
            pending.push((handshake, Side::Server));
        }
        let mut rest = Vec::new();
        for (mut handshake, side) in pending {
            ready |= readable([handshake.as_fd()], Duration::ZERO) == [true];
            match (handshake.advance().unwrap(), side) {
                (false, side) => rest.push((handshake, side)),
                (true, Side::Client) => clients.push(handshake.finish().unwrap()),
                (true, Side::Server) => servers.push(handshake.finish().unwrap()),
            }
        }
        pending = rest;
        assert!(ready, "nothing is readable, and {} handshakes are not done", pending.len());
    }
    let [(silent, Side::Server)] = &*pending else { panic!("{pending:?}") };
    assert!(silent.peer_credentials().is_none());
    for (number, server) in (0..).zip(&mut servers) {
        server.send(&[number]).unwrap();
    }
    let mut numbers: Vec<u8> =
        clients.iter_mut().map(|client| client.recv_timeout(LONG).unwrap().control()[0]).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..CLIENTS).collect::<Vec<_>>());
}

#[derive(Debug)]
enum Side {
    Client,
    Server,
}

#[test]
fn a_silent_peer_is_a_timeout_at_the_deadline() {
    let _guard = bounded();
    let builder = Channel::builder().handshake_timeout(SHORT);
    let (_silent, ours) = Player::pair();
    let handshake = builder.handshake(ours).unwrap();
    let deadline = handshake.deadline();
    assert!(matches!(handshake.finish(), Err(Error::Timeout)));
    assert!(Instant::now() >= deadline);

    let (_silent, ours) = Player::pair();
    let mut handshake = builder.handshake(ours).unwrap();
    let timeout = loop {
        let left = handshake.deadline().saturating_duration_since(Instant::now());
        assert_eq!(readable([handshake.as_fd()], left), [false], "silence makes nothing readable");
        match handshake.advance() {
            Ok(false) => assert!(!left.is_zero(), "past the deadline"),
            other => break other,
        }
    };
    assert!(matches!(timeout, Err(Error::Timeout)));
    assert!(Instant::now() >= handshake.deadline());
    assert!(handshake.advance().is_err(), "it stays failed");
}

#[test]
fn a_handshake_that_was_dropped_is_the_end_for_the_other_side() {
    let _guard = bounded();
    let (ours, theirs) = seqpacket_pair();
    let builder = Channel::builder();
    let handshake = builder.handshake(ours).unwrap();
    drop(builder.handshake(theirs).unwrap());
    // The `Hello` had been sent already.
    assert_eq!(handshake_error(handshake.finish()), HandshakeError::Closed { awaited: "Ready" });
}

#[test]
fn a_client_in_another_process_is_known_from_its_hello_on() {
    let _guard = bounded();
    let (_directory, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let mut child = role(connects).env(PATH, &path).spawn().unwrap();
    assert_eq!(readable([listener.as_fd()], LONG), [true]);
    let mut handshake = listener.try_accept().unwrap().unwrap();
    assert_eq!(handshake.peer_credentials(), None);
    while !handshake.advance().unwrap() {
        assert_eq!(readable([handshake.as_fd()], LONG), [true]);
    }
    let credentials = handshake.peer_credentials().unwrap();
    let expected = (Some(child.id()), getuid().as_raw(), getgid().as_raw());
    assert_eq!((credentials.pid.map(u32::from), credentials.uid, credentials.gid), expected);
    let mut channel = handshake.finish().unwrap();
    assert_eq!(channel.peer().credentials(), credentials);
    channel.send(b"welcome").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn connects() {
    let mut channel = Channel::connect(env::var_os(PATH).unwrap()).unwrap();
    assert_eq!(channel.peer().credentials().pid.map(u32::from), Some(std::os::unix::process::parent_id()));
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"welcome");
}

#[test]
fn a_channel_keeps_the_descriptor_of_its_handshake() {
    let _guard = bounded();
    let (ours, theirs) = seqpacket_pair();
    let number = ours.as_raw_fd();
    fcntl_setfd(&ours, FdFlags::empty()).unwrap();
    let builder = Channel::builder();
    let (ours, theirs) = (builder.handshake(ours).unwrap(), builder.handshake(theirs).unwrap());
    assert!(fcntl_getfd(&ours).unwrap().contains(FdFlags::CLOEXEC), "from then on");
    assert_eq!([ours.as_raw_fd(), ours.as_fd().as_raw_fd()], [number; 2]);
    let theirs = thread::spawn(|| theirs.finish());
    let ours = ours.finish().unwrap();
    assert_eq!([ours.receiver.as_raw_fd(), ours.receiver.as_fd().as_raw_fd()], [number; 2]);
    theirs.join().unwrap().unwrap();
}

#[test]
fn a_client_that_is_refused_had_no_channel() {
    let _guard = bounded();
    let refused = HandshakeError::Rejected(Refusal { reason: Reason::Application, expected: 0, found: 0 });
    let name = abstract_name();
    let listener = Listener::bind(&name).unwrap();
    let mut client = Channel::builder().try_connect(&name).unwrap();
    let mut server = listener.try_accept().unwrap().unwrap();
    assert!(!server.advance().unwrap(), "the time to look at the credentials");
    assert!(server.peer_credentials().is_some());
    // The peer sends `Ready`, and gets no answer.
    assert!(!client.advance().unwrap());
    server.refuse();
    assert_eq!(handshake_error(client.advance()), refused);

    // Neither side knows of the other yet.
    let client = Channel::builder().try_connect(&name).unwrap();
    listener.try_accept().unwrap().unwrap().refuse();
    assert_eq!(handshake_error(client.finish()), refused);
}

#[test]
fn a_child_inherits_its_channel_once() {
    let _guard = bounded();
    let (mut channel, mut child) = Channel::spawn(role(answers)).unwrap();
    let credentials = channel.peer().credentials();
    let expected = (Some(child.id()), getuid().as_raw(), getgid().as_raw());
    assert_eq!((credentials.pid.map(u32::from), credentials.uid, credentials.gid), expected);
    channel.send(b"hello").unwrap();
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"hello");
    drop(channel);
    assert!(child.wait().unwrap().success());
}

/// Echoes messages until the end.
#[test]
#[ignore = "the child of another test"]
fn answers() {
    let mut channel = Channel::inherited().unwrap();
    assert_eq!(channel.peer().credentials().pid.map(u32::from), Some(std::os::unix::process::parent_id()));
    assert!(fcntl_getfd(&channel.receiver).unwrap().contains(FdFlags::CLOEXEC));
    assert_eq!(handshake_error(Channel::inherited()), HandshakeError::AlreadyInherited);
    while let Ok(message) = channel.recv() {
        channel.send(message.control()).unwrap();
    }
    drop(channel);
    assert_eq!(handshake_error(Channel::inherited()), HandshakeError::AlreadyInherited);
}

#[test]
fn a_grandchild_inherits_nothing() {
    let _guard = bounded();
    let (mut channel, mut child) = Channel::spawn(role(has_a_child)).unwrap();
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn has_a_child() {
    let _channel = Channel::inherited().unwrap();
    assert!(env::var_os("SEALANE_FD").is_some(), "the grandchild gets the variable");
    assert!(role(inherits_nothing).env("EXPECTED", "socket at ").status().unwrap().success());
}

/// The child cannot inherit a channel, and checks the reason.
#[test]
#[ignore = "the child of another test"]
fn inherits_nothing() {
    let expected = env::var("EXPECTED").unwrap();
    for _ in 0..2 {
        let HandshakeError::NotInherited { place: "the variable SEALANE_FD", found } =
            handshake_error(Channel::inherited())
        else {
            panic!("another error");
        };
        assert!(found.contains(&expected), "{expected} expected, {found} found");
    }
    if let Some(other) = env::var_os("OTHER") {
        assert!(fs::exists(other).unwrap(), "what it names belongs to somebody else");
    }
}

#[test]
fn descriptors_that_the_variable_does_not_name_are_not_adopted() {
    let _guard = bounded();
    let (socket, _other_end) = seqpacket_pair();
    let cookie = sockopt::socket_cookie(&socket).unwrap();
    let cases: [(Option<OsString>, &str); 12] = [
        (None, "no such variable"),
        (Some("".into()), "\"\""),
        (Some("5".into()), "\"5\""),
        (Some("five:six".into()), "\"five:six\""),
        (Some("5:6:7".into()), "\"5:6:7\""),
        (Some("7:99999999999999999999".into()), "\"7:99999999999999999999\""),
        (Some(OsString::from_vec(b"\xff:1".to_vec())), ":1\""),
        (Some("-1:1".into()), "no socket at -1"),
        (Some("1000000:1".into()), "no socket at 1000000"),
        // The socket is the right one, but its number has another owner.
        (Some(format!("0:{cookie}").into()), "no socket at 0"),
        (Some(format!("9:{}", cookie + 1).into()), "another socket at 9"),
        (Some("9:0".into()), "another socket at 9"),
    ];
    let children = cases.map(|(value, expected)| {
        let mut command = role(inherits_nothing);
        command.env_remove("SEALANE_FD").envs(value.map(|value| ("SEALANE_FD", value)));
        command.env("EXPECTED", expected).env("OTHER", "/proc/self/fd/9");
        let at_nine = FdMapping { parent_fd: socket.try_clone().unwrap(), child_fd: 9 };
        command.stdin(socket.try_clone().unwrap()).fd_mappings(vec![at_nine]).unwrap();
        (command.spawn().unwrap(), expected)
    });
    for (mut child, expected) in children {
        assert!(child.wait().unwrap().success(), "{expected}");
    }
}

#[test]
fn a_child_is_started_without_waiting_for_it() {
    let _guard = bounded();
    let (mut handshake, mut child) = Channel::builder().try_spawn(role(answers)).unwrap();
    while !handshake.advance().unwrap() {
        assert_eq!(readable([handshake.as_fd()], LONG), [true]);
    }
    assert_eq!(handshake.peer_credentials().unwrap().pid.map(u32::from), Some(child.id()));
    let mut channel = handshake.finish().unwrap();
    channel.send(b"hello").unwrap();
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"hello");
    drop(channel);
    assert!(child.wait().unwrap().success());
}

#[test]
fn memory_above_the_limit_of_file_sizes_is_an_error() {
    let _guard = bounded();
    assert!(role(is_limited_in_the_size_of_files).status().unwrap().success(), "killed by SIGXFSZ?");
}

/// The test runs in a process of its own, since the limit is a process's.
#[test]
#[ignore = "the child of another test"]
fn is_limited_in_the_size_of_files() {
    let limit = Rlimit { current: Some(2 * page()), ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit).unwrap();
    let too_large = ("ftruncate", ErrorKind::FileTooLarge);
    let page = usize::try_from(page()).unwrap();
    let ring = |bytes| Channel::builder().ring_capacity(bytes).pair();
    // The control page counts too.
    ring(1).unwrap();
    assert_eq!(io_error(ring(4 * page)), too_large);
    let size = 2 * page;
    drop(SealedBufferMut::new(size).unwrap());
    assert_eq!(io_error(SealedBufferMut::new(size + 1)), too_large);
}

#[test]
fn a_child_that_fails_is_killed_and_reaped() {
    let _guard = bounded();
    assert!(role(starts_children_that_fail).status().unwrap().success());
}

/// The test runs in a process of its own, which has no other children.
#[test]
#[ignore = "the child of another test"]
fn starts_children_that_fail() {
    let childless = || assert_eq!(waitpid(None, WaitOptions::NOHANG).unwrap_err(), Errno::CHILD);
    childless();
    let builder = Channel::builder().handshake_timeout(Duration::from_millis(300));
    let missing = Command::new("/nonexistent/program");
    assert_eq!(io_error(builder.spawn(missing)), ("spawn", ErrorKind::NotFound));
    childless();
    let exits = builder.clone().handshake_timeout(LONG).spawn(role(exits));
    let HandshakeError::ChildEnded { awaited: "Hello", status } = handshake_error(exits) else {
        panic!("another error");
    };
    assert!(status.success());
    childless();
    // The program does not use this library.
    let other = builder.clone().handshake_timeout(LONG).spawn(Command::new("sh").args(["-c", "exit 3"]));
    let text = other.unwrap_err().to_string();
    assert!(text.starts_with("the child ended with exit status: 3 before its Hello"), "{text}");
    childless();
    assert!(matches!(builder.spawn(role(is_silent)), Err(Error::Timeout)));
    childless();
    let refuses = builder.clone().handshake_timeout(LONG).spawn(role(refuses));
    assert!(matches!(handshake_error(refuses), HandshakeError::Rejected(_)));
    childless();
}

#[test]
#[ignore = "the child of another test"]
fn exits() {}

#[test]
#[ignore = "the child of another test"]
fn is_silent() {
    // The parent kills the child before this ends; if not, it ends by itself.
    thread::sleep(2 * LONG);
}

#[test]
#[ignore = "the child of another test"]
fn refuses() {
    assert!(Channel::builder().max_peer_ring_capacity(0).inherited().is_err());
}

#[test]
fn a_crashed_child_is_restarted_with_the_same_builder() {
    let _guard = bounded();
    let builder = Channel::builder().ring_capacity(1 << 16);
    for _ in 0..3 {
        let (mut channel, mut child) = builder.spawn(role(answers)).unwrap();
        channel.send(b"hello").unwrap();
        assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"hello");
        child.kill().unwrap();
        assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
        child.wait().unwrap();
    }
}

#[test]
fn only_a_connected_seqpacket_socket_will_do() {
    let (reader, _writer) = pipe();
    let listening = seqpacket();
    bind(&listening, &address(&abstract_name())).unwrap();
    listen(&listening, 1).unwrap();
    let internet = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    let wrong: [(OwnedFd, &str); 7] = [
        (reader, "no socket"),
        (tempfile::tempfile().unwrap().into(), "no socket"),
        (std::os::unix::net::UnixStream::pair().unwrap().0.into(), "an AF_UNIX socket of another type"),
        (std::os::unix::net::UnixDatagram::pair().unwrap().0.into(), "an AF_UNIX socket of another type"),
        (internet, "a socket of another family"),
        (seqpacket(), "a socket that is not connected"),
        (listening, "a socket that is not connected"),
    ];
    for (fd, found) in wrong {
        let error = handshake_error(Channel::builder().handshake(fd));
        assert_eq!(error, HandshakeError::NotSeqpacket { found });
        assert!(error.to_string().contains("SOCK_SEQPACKET") && error.to_string().contains(found));
    }
}

#[test]
fn a_socket_that_was_given_is_listened_on() {
    let _guard = bounded();
    let (_directory, path) = socket_path();
    // The socket has none of the flags that a listener needs.
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).unwrap();
    bind(&socket, &address(&path)).unwrap();
    listen(&socket, 10).unwrap();
    let copy = socket.try_clone().unwrap();
    let listener = Channel::builder().handshake_timeout(LONG).listen_on(socket).unwrap();
    assert!(fcntl_getfd(&listener).unwrap().contains(FdFlags::CLOEXEC));
    assert!(fcntl_getfl(&copy).unwrap().contains(OFlags::NONBLOCK));
    assert!(sockopt::socket_passcred(&copy).unwrap());
    assert_eq!(listener.path(), None);
    assert!(listener.try_accept().unwrap().is_none());
    let client = thread::spawn({
        let path = path.clone();
        move || Channel::connect(path).unwrap()
    });
    let mut server = listener.accept().unwrap();
    assert_established(&mut server, &mut client.join().unwrap());
    drop((listener, copy));
    assert!(path.exists(), "it is not the listener's");
}

#[test]
fn only_a_listening_seqpacket_socket_is_listened_on() {
    let (reader, _writer) = pipe();
    let bound = seqpacket();
    bind(&bound, &address(&abstract_name())).unwrap();
    let stream = std::os::unix::net::UnixListener::bind(tempdir().unwrap().path().join("socket")).unwrap();
    let internet = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    listen(&internet, 1).unwrap();
    let wrong: [(OwnedFd, &str); 6] = [
        (reader, "no socket"),
        (stream.into(), "an AF_UNIX socket of another type"),
        (internet, "a socket of another family"),
        (seqpacket(), "a socket that does not listen"),
        (bound, "a socket that does not listen"),
        (seqpacket_pair().0, "a socket that does not listen"),
    ];
    for (fd, found) in wrong {
        let error = handshake_error(Channel::builder().listen_on(fd));
        assert_eq!(error, HandshakeError::NotListening { found });
        assert!(error.to_string().contains("listening") && error.to_string().contains(found));
    }
}

#[test]
fn a_wait_for_a_client_is_limited_and_a_client_that_comes_has_its_own_time() {
    let _guard = bounded();
    let name = abstract_name();
    let listener = Channel::builder().handshake_timeout(LONG).listen(&name).unwrap();
    let start = Instant::now();
    assert!(matches!(listener.accept_timeout(SHORT), Err(Error::Timeout)));
    assert!(start.elapsed() >= SHORT);
    // The client has connected; its `Hello` comes after the time to wait for a client.
    let mut server = thread::scope(|scope| {
        let client = Player::connect(&name);
        let accepting = scope.spawn(|| listener.accept_timeout(Duration::ZERO));
        let socket = client.as_fd().try_clone_to_owned().unwrap();
        let client = scope.spawn(|| Channel::builder().handshake(socket).unwrap().finish().unwrap());
        let mut server = accepting.join().unwrap().unwrap();
        assert_established(&mut server, &mut client.join().unwrap());
        server
    });
    assert!(server.send(b"").is_err());
    let connecting = thread::spawn(move || Channel::connect(name).unwrap());
    let mut server = listener.accept_timeout(LONG).unwrap();
    assert_established(&mut server, &mut connecting.join().unwrap());
}

/// A server pauses on `Io` only: no client may cause that.
#[test]
fn a_bad_client_is_never_taken_for_a_shortage_of_the_servers_own() {
    let _guard = bounded();
    let name = abstract_name();
    let listener = Channel::builder().handshake_timeout(SHORT).ring_capacity(4096).listen(&name).unwrap();
    let honest = Channel::builder().ring_capacity(4096);
    let memfd = || memfd(2 * page(), 2 * page(), SEALS);
    let good = |player: &Player| {
        player.send(Packet::hello(&Hello::honest(1), vec![memfd(), seqpacket_pair().0]));
    };
    let bad: [&dyn Fn(&Player); 9] = [
        &|_| {},
        &|player| player.send(Packet::raw(b"no Hello")),
        &|player| player.send(Packet::raw(b"")),
        &|player| player.send(Packet::hello(&Hello::honest(1), vec![])),
        &|player| player.send(Packet::hello(&Hello::honest(1), (0..253).map(|_| memfd()).collect())),
        &|player| player.send(Packet { identified: false, ..Packet::hello(&Hello::honest(1), vec![]) }),
        &|player| player.shut(Shutdown::Both),
        &|player| {
            good(player);
            player.shut(Shutdown::Read);
        },
        &good,
    ];
    for (number, bad) in bad.iter().enumerate() {
        // One client is gone when it is accepted, and one stays.
        for stays in [false, true] {
            let player = Player::connect(&name);
            bad(&player);
            let player = stays.then_some(player);
            let result = listener.accept();
            assert!(
                matches!(result, Err(Error::Handshake(_) | Error::Timeout | Error::FdsLost { .. })),
                "{number}, stays: {stays}: {result:?}"
            );
            drop(player);
        }
    }
    // The client leaves our packets unread, at each step.
    for steps in 0..3 {
        let mut client = honest.try_connect(&name).unwrap();
        let mut server = listener.try_accept().unwrap().unwrap();
        for _ in 0..steps {
            let _ = (server.advance().unwrap(), client.advance().unwrap());
        }
        let _ = server.advance();
        drop(client);
        let result = server.finish().map(drop);
        assert!(matches!(result, Ok(()) | Err(Error::Handshake(_))), "{steps}: {result:?}");
    }
    let connecting = thread::spawn(move || honest.connect(name).unwrap());
    assert_established(&mut listener.accept().unwrap(), &mut connecting.join().unwrap());
}

#[test]
fn each_side_sends_what_the_other_receives() {
    let _guard = bounded();
    let a = Channel::builder().ring_capacity(1 << 16).max_control(100).max_fds(3);
    let b = Channel::builder().ring_capacity(1 << 17).max_control(200).max_fds(1000);
    let (a, b) = establish(&a, &b);
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    assert_established(&mut a, &mut b);
    let limits = |limits: sealane::Limits| (limits.max_payload, limits.max_control, limits.max_fds);
    assert_eq!(limits(a.limits()), ((1 << 15) - 1088, 200, 253));
    assert_eq!(limits(b.limits()), ((1 << 16) - 1088, 100, 3));
    let ((a_sender, a_receiver), (b_sender, b_receiver)) = (a.split(), b.split());
    assert_eq!(a_sender.limits(), b_receiver.limits());
    assert_eq!(b_sender.limits(), a_receiver.limits());
}

#[test]
fn messages_beyond_the_limits_are_refused_before_they_are_sent() {
    let _guard = bounded();
    let (file, builder) = (tempfile::tempfile().unwrap(), Channel::builder().ring_capacity(1 << 16));
    let (a, b) = establish(&builder, &builder.clone().max_control(10).max_fds(0));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    assert!(matches!(a.send(&[0; 11]), Err(Error::ControlTooLarge { len: 11, max: 10 })));
    assert!(matches!(a.send(Control::default().fd(&file)), Err(Error::TooManyFds { count: 1, max: 0 })));
    assert!(matches!(a.loan(31681), Err(Error::PayloadTooLarge { len: 31681, max: 31680 })));
    assert!(matches!(a.loan_slice::<u64>(3961), Err(Error::PayloadTooLarge { len: 31688, max: 31680 })));
    assert!(matches!(b.recv_timeout(Duration::ZERO), Err(Error::Timeout)));
    assert_established(&mut a, &mut b);
    b.send(Control::new(&[0; 11]).fd(&file)).unwrap();
    assert_eq!(a.recv_timeout(LONG).unwrap().fds().len(), 1);
}

#[test]
fn a_side_without_a_ring_sends_control_messages_only() {
    let _guard = bounded();
    let (a, b) = establish(&Channel::builder().ring_capacity(0), &Channel::builder());
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.limits().max_payload, 0);
    for len in [0, 1, 64, usize::MAX] {
        let refused = [
            a.sender.loan_timeout(len, SHORT).map(drop),
            a.try_loan(len).map(drop),
            a.sender.has_space(len).map(drop),
        ];
        for result in refused {
            assert!(
                matches!(result, Err(Error::PayloadTooLarge { len: found, max: 0 }) if found == len),
                "a loan of {len} bytes: {result:?}"
            );
        }
    }
    a.send(b"control").unwrap();
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"control");
    b.loan(7).unwrap().send().unwrap();
    assert_eq!(a.recv_timeout(LONG).unwrap().payload().unwrap().len(), 7);
}

#[test]
fn capacity_is_rounded_up_to_a_page() {
    let _guard = bounded();
    let page = usize::try_from(page()).unwrap();
    for (asked, given) in
        [(1, page), (page - 1, page), (page, page), (page + 1, 2 * page), (3 * page, 3 * page)]
    {
        let (mut a, mut b) = Channel::builder().ring_capacity(asked).pair().unwrap();
        let max = a.limits().max_payload;
        assert_eq!(max, given / 2 - 1088, "{asked} bytes");
        // The ring is as long as that: with all control bytes that are reserved, two payloads fill it.
        for _ in 0..2 {
            a.sender.loan_timeout(max, LONG).unwrap().send_with(&[0; 1024]).unwrap();
        }
        assert!(!a.sender.has_space(0).unwrap());
        for _ in 0..2 {
            assert_eq!(b.recv_timeout(LONG).unwrap().payload().unwrap().len(), max);
        }
    }
    assert!(Channel::builder().ring_capacity(usize::MAX).pair().is_err());
}

#[test]
fn control_is_bounded_by_what_one_packet_holds() {
    const MOST: usize = 212_928;
    let _guard = bounded();
    let name = abstract_name();
    let _listener = Listener::bind(&name).unwrap();
    for len in [MOST + 1, usize::MAX] {
        let builder = Channel::builder().max_control(len);
        let refused = |result: Result<()>| {
            let is_refused =
                matches!(result, Err(Error::ControlTooLarge { len: found, max: MOST }) if found == len);
            assert!(is_refused, "{len}: {result:?}");
        };
        refused(builder.pair().map(drop));
        refused(builder.connect(&name).map(drop));
        refused(builder.try_connect(&name).map(drop));
        refused(builder.listen(abstract_name()).map(drop));
        refused(builder.prepare().map(drop));
        refused(builder.spawn(Command::new("true")).map(drop));
        refused(builder.handshake(seqpacket_pair().0).map(drop));
        refused(builder.listen_on(seqpacket()).map(drop));
    }
    let (mut a, mut b) = Channel::builder().max_control(MOST).pair().unwrap();
    let max = a.limits().max_control;
    assert!((100_000..=MOST).contains(&max), "{max}");
    let control = vec![7; max + 1];
    let result = a.send(&control);
    assert!(
        matches!(result, Err(Error::ControlTooLarge { len, max: most }) if (len, most) == (max + 1, max)),
        "{result:?}"
    );
    a.send(&control[..max]).unwrap();
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), &control[..max]);
}

#[test]
fn a_ring_that_is_too_large_is_refused_by_the_same_numbers_at_both_ends() {
    let _guard = bounded();
    let small = Channel::builder().ring_capacity(1 << 16).max_peer_ring_capacity(1 << 18);
    let large = Channel::builder().ring_capacity(1 << 19);
    let refusal = Refusal { reason: Reason::RingTooLarge, expected: 1 << 18, found: 1 << 19 };
    let (small, large) = establish(&small, &large);
    assert_eq!(handshake_error(small), HandshakeError::Refused(refusal));
    assert_eq!(handshake_error(large), HandshakeError::Rejected(refusal));
    // If both refuse each other, each reports its own refusal.
    let mutual = Channel::builder().ring_capacity(1 << 19).max_peer_ring_capacity(1 << 18);
    let (a, b) = establish(&mutual, &mutual);
    assert_eq!(handshake_error(a), HandshakeError::Refused(refusal));
    assert_eq!(handshake_error(b), HandshakeError::Refused(refusal));
    assert_eq!(handshake_error(mutual.pair()), HandshakeError::Refused(refusal));
}

#[test]
fn a_channel_that_was_closed_before_its_first_use_is_disconnected() {
    let _guard = bounded();
    let (mut a, mut b) = Channel::pair().unwrap();
    a.closer().close();
    for channel in [&mut a, &mut b] {
        assert!(matches!(channel.recv(), Err(Error::Disconnected)));
        assert!(matches!(channel.try_recv(), Err(Error::Disconnected)));
        assert!(matches!(channel.send(b"x"), Err(Error::Disconnected)));
    }
    assert!(matches!(a.loan(1).map(drop), Err(Error::Disconnected)));
}

#[test]
fn an_unrelated_child_inherits_nothing() {
    let _guard = bounded();
    // `ls` has its own three, and the directory that it lists.
    let descriptors = || {
        let listing = Command::new("ls").arg("/proc/self/fd").output().unwrap();
        String::from_utf8(listing.stdout).unwrap()
    };
    let before = descriptors();
    let (_directory, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let (mut a, mut b) = Channel::pair().unwrap();
    a.loan(1).unwrap().send_with(Control::default().fd(&listener)).unwrap();
    let message = b.recv_timeout(LONG).unwrap();
    let client = Channel::builder().try_connect(&path).unwrap();
    let server = listener.try_accept().unwrap().unwrap();
    let (spawned, mut child) = Channel::spawn(role(answers)).unwrap();
    assert_eq!(descriptors(), before);
    drop((message, client, server, spawned));
    child.wait().unwrap();
}
