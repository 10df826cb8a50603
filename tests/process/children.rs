//! A child with a channel, started in every way, and the descriptors that are left here and there.

use std::{
    env, fs,
    io::{ErrorKind, Read, pipe},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::ExitStatusExt,
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    io::{Errno, FdFlags, fcntl_getfd},
    net::{RecvFlags, recv, sockopt},
};
use sealane::{Builder, Channel, Error, HandshakeError, Reason, Refusal};

use crate::support::{
    forks::{fork, in_fork},
    handshake_error,
    hostile::{LONG, Player, seqpacket_pair},
    is_abandoned, role,
    threads::bounded,
};

/// The name that a child is given for its end.
const NAME: &str = "SEALANE_TEST_NAME";

fn small() -> Builder {
    Channel::builder().ring_capacity(4096).handshake_timeout(LONG)
}

/// Sends a message each way, then drops this end of the channel.
fn assert_answers(mut channel: Channel) {
    channel.send(b"hello").unwrap();
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"hello");
}

/// Numbers of this process's descriptors, but for that of the directory read here.
fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Answers until the peer is gone.
fn answer(mut channel: Channel) {
    while let Ok(message) = channel.recv() {
        channel.send(message.control()).unwrap();
    }
}

#[test]
#[ignore = "the child of another test"]
fn answers() {
    answer(small().inherited().unwrap());
}

#[test]
#[ignore = "the child of another test"]
fn answers_as_named() {
    let name = env::var(NAME).unwrap();
    let channel = small().inherited_as(&name).unwrap();
    assert_eq!(handshake_error(small().inherited_as(&name)), HandshakeError::AlreadyInherited);
    answer(channel);
}

/// Descriptors are counted for the process, so this test is one of its own.
#[test]
fn a_command_that_was_lent_keeps_nothing() {
    let _guard = bounded();
    assert!(role(lends_its_command).status().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn lends_its_command() {
    let mut command = role(answers);
    let before = descriptors();
    for _ in 0..2 {
        let (channel, mut child) = small().spawn(&mut command).unwrap();
        let (handshake, mut second) = small().try_spawn(&mut command).unwrap();
        assert_answers(handshake.finish().unwrap());
        assert_answers(channel);
        assert!(child.wait().unwrap().success() && second.wait().unwrap().success());
        assert_eq!(descriptors(), before);
    }
    // A program that could not be started leaves none either.
    let mut missing = Command::new("/nonexistent/program");
    assert!(matches!(small().spawn(&mut missing), Err(Error::Io { operation: "spawn", .. })));
    assert_eq!(descriptors(), before);
    assert!(missing.get_envs().all(|(_, value)| value.is_none()));
    // The command, used later without sealane, starts a program without a channel, whichever file has that number
    // then.
    let _others: Vec<_> = (0..10).map(|_| seqpacket_pair()).collect();
    command = role(counts_its_sockets);
    let (_handshake, mut child) = small().try_spawn(&mut command).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(command.status().unwrap().success());
    // The command is built in one expression.
    let (channel, mut child) = small().spawn(role(answers).env("ANY", "thing")).unwrap();
    assert_answers(channel);
    child.wait().unwrap();
}

#[test]
#[ignore = "the child of another test"]
fn counts_its_sockets() {
    let is_socket = |fd: &String| {
        let target = fs::read_link(format!("/proc/self/fd/{fd}"));
        fd.parse::<i32>().unwrap() > 2
            && target.is_ok_and(|target| target.to_string_lossy().contains("socket:"))
    };
    let sockets = descriptors().iter().filter(|fd| is_socket(fd)).count();
    assert_eq!(sockets, usize::from(env::var_os("SEALANE_FD").is_some()));
}

#[test]
fn a_prepared_channel_is_attached_to_a_command() {
    let _guard = bounded();
    let before = Instant::now();
    let prepared = small().prepare().unwrap();
    assert!(fcntl_getfd(&prepared).unwrap().contains(FdFlags::CLOEXEC));
    let after = Instant::now();
    let text = format!("{}:{}", prepared.as_fd().as_raw_fd(), sockopt::socket_cookie(&prepared).unwrap());
    assert_eq!(prepared.to_string(), text);
    let mut command = role(answers);
    prepared.attach(&mut command);
    let mut child = command.spawn().unwrap();
    let handshake = prepared.started();
    assert!((before + LONG..=after + LONG).contains(&handshake.deadline()), "its time began with `prepare`");
    assert_answers(handshake.finish().unwrap());
    assert!(child.wait().unwrap().success());
    // The next one takes its place.
    let prepared = small().prepare().unwrap();
    prepared.attach(&mut command);
    let mut child = command.spawn().unwrap();
    assert_answers(prepared.started().finish().unwrap());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_prepared_channel_is_inherited_while_it_is_inheritable() {
    let _guard = bounded();
    let mut prepared = small().prepare().unwrap();
    let mut command = role(answers_as_named);
    command.env(NAME, prepared.to_string());
    let guard = prepared.inheritable();
    let mut child = command.spawn().unwrap();
    drop(guard);
    assert!(fcntl_getfd(&prepared).unwrap().contains(FdFlags::CLOEXEC));
    assert_answers(prepared.started().finish().unwrap());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_prepared_channel_may_be_given_another_number() {
    let _guard = bounded();
    for with_cookie in [false, true] {
        let prepared = small().prepare().unwrap();
        let cookie = prepared.to_string().split_once(':').unwrap().1.to_owned();
        let name = if with_cookie { format!("100:{cookie}") } else { "100".to_owned() };
        let mut command = role(answers_as_named);
        let end = FdMapping { parent_fd: prepared.as_fd().try_clone_to_owned().unwrap(), child_fd: 100 };
        command.env(NAME, name).fd_mappings(vec![end]).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        assert_answers(prepared.started().finish().unwrap());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_name_that_names_no_channel_is_refused() {
    let (socket, _other_end) = seqpacket_pair();
    let (reader, _writer) = pipe().unwrap();
    let number = socket.as_raw_fd();
    let cookie = sockopt::socket_cookie(&socket).unwrap();
    for (name, why) in [
        ("", "\"\""),
        ("x", "\"x\""),
        ("5:x", "\"5:x\""),
        ("0", "no socket at 0"),
        ("2", "no socket at 2"),
        ("-1", "no socket at -1"),
        ("1000000", "no socket at 1000000"),
        (&reader.as_raw_fd().to_string(), "no socket at"),
        (&format!("{number}:{}", cookie + 1), "another socket at"),
    ] {
        let HandshakeError::NotInherited { place: "the name given", found } =
            handshake_error(small().inherited_as(name))
        else {
            panic!("another error");
        };
        assert!(found.contains(why), "{name}: {found}");
    }
    // A socket of another kind is refused as any handshake's is; nothing that was refused was closed.
    let (datagram, _other_end) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let error = handshake_error(small().inherited_as(&datagram.as_raw_fd().to_string()));
    assert!(matches!(error, HandshakeError::NotSeqpacket { .. }));
    assert!(sockopt::socket_cookie(&socket).is_ok() && sockopt::socket_cookie(&datagram).is_ok());
    fcntl_getfd(&reader).unwrap();
}

/// A descriptor that another part of the program owns stays open, under its number.
#[test]
fn an_inherited_descriptor_stays_its_owners() {
    let _guard = bounded();
    let prepared = small().prepare().unwrap();
    let owned = rustix::io::dup(&prepared).unwrap();
    assert!(!fcntl_getfd(&owned).unwrap().contains(FdFlags::CLOEXEC));
    let name = owned.as_raw_fd().to_string();
    let taken = thread::spawn({
        let name = name.clone();
        move || small().inherited_as(&name).unwrap()
    });
    let mut parent = prepared.started().finish().unwrap();
    let mut taken = taken.join().unwrap();
    assert!(fcntl_getfd(&owned).unwrap().contains(FdFlags::CLOEXEC), "no program gets it by accident");
    assert_ne!(taken.receiver.as_raw_fd(), owned.as_raw_fd());
    assert_eq!(handshake_error(small().inherited_as(&name)), HandshakeError::AlreadyInherited);
    taken.send(b"last").unwrap();
    assert_eq!(parent.recv_timeout(LONG).unwrap().control(), b"last");
    // The original, still open, does not hide the end of the channel.
    drop(taken);
    assert!(matches!(parent.recv_timeout(LONG), Err(Error::Disconnected)));
    assert!(sockopt::socket_cookie(&owned).is_ok());
}

/// The original stays open all the same.
#[test]
fn an_inherited_channel_that_fails_is_the_end_for_the_parent() {
    let _guard = bounded();
    let prepared = small().prepare().unwrap();
    let owned = prepared.as_fd().try_clone_to_owned().unwrap();
    let name = owned.as_raw_fd().to_string();
    let mut parent = prepared.started();
    // The parent has said Hello, and does not say yet that it is ready.
    assert!(!parent.advance().unwrap());
    let hasty = small().handshake_timeout(Duration::ZERO).inherited_as(&name);
    assert!(matches!(hasty, Err(Error::Timeout)), "{hasty:?}");
    // All messages that the parent waits for have come, and then the end.
    let mut parent = parent.finish().unwrap();
    assert!(matches!(parent.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(owned);
}

/// The ring is made while the child starts, and not for a child that is never started.
#[test]
fn a_prepared_channel_offers_no_ring_before_its_handshake_advances() {
    let _guard = bounded();
    let prepared = small().prepare().unwrap();
    let player = Player::from(prepared.as_fd().try_clone_to_owned().unwrap());
    let unread = recv(&prepared, &mut [0; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK);
    assert_eq!(unread.unwrap_err(), Errno::AGAIN, "no Hello, and so no region");
    let mut parent = prepared.started();
    assert!(!parent.advance().unwrap());
    assert_eq!(player.hear().unwrap().fds.len(), 2, "a region and a space socket");
}

#[test]
fn rings_beyond_a_limit_are_errors_before_a_child_starts() {
    let _guard = bounded();
    let too_large = Channel::builder().ring_capacity(usize::MAX).prepare();
    assert!(matches!(too_large, Err(Error::RingTooLarge { .. })), "{too_large:?}");
    let beyond_memory = Channel::builder().ring_capacity(1 << 50);
    let mut command = Command::new("/bin/false");
    for refused in [beyond_memory.prepare().map(drop), beyond_memory.try_spawn(&mut command).map(drop)] {
        let Err(Error::Io { source, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(source.kind(), ErrorKind::OutOfMemory);
    }
}

/// This process has no other threads.
#[test]
fn a_fork_takes_a_prepared_channel() {
    let _guard = bounded();
    assert!(role(forks).status().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn forks() {
    // The child keeps the child's end, and the parent the other.
    let prepared = small().prepare().unwrap();
    let text = prepared.to_string();
    let (prepared, child) = fork(prepared, |prepared| {
        let mut channel = small().inherited_as(&text).unwrap();
        drop(prepared);
        let message = channel.recv_timeout(LONG).unwrap();
        channel.send(message.control()).unwrap();
        // The parent is the only one left with the other end.
        assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    });
    assert_answers(prepared.started().finish().unwrap());
    child.wait();

    // Another fork drops its copy, and the parent's stays usable.
    let prepared = in_fork(small().prepare().unwrap(), drop);
    let mut command = role(answers);
    prepared.attach(&mut command);
    let mut child = command.spawn().unwrap();
    assert_answers(prepared.started().finish().unwrap());
    child.wait().unwrap();
}

/// Both ends report a refusal before the child is killed: it has time to report it, and to end as it likes.
#[test]
fn a_refusal_is_reported_by_both_sides() {
    let _guard = bounded();
    let too_large = |found| Refusal { reason: Reason::RingTooLarge, expected: 4096, found };
    for (parent, large, expected) in [
        (small().max_peer_ring_capacity(4096), true, HandshakeError::Refused(too_large(8192))),
        (small().ring_capacity(16384), false, HandshakeError::Rejected(too_large(16384))),
    ] {
        let (mut reader, writer) = pipe().unwrap();
        let mut command = role(reports_its_own_error);
        command.env("LARGE", if large { "1" } else { "0" }).stderr(writer);
        let refused = handshake_error(parent.spawn(&mut command));
        drop(command);
        assert_eq!(refused, expected);
        let mut report = String::new();
        reader.read_to_string(&mut report).unwrap();
        let who = if large { "the peer refused us" } else { "we refused the peer" };
        assert!(report.contains(who) && report.contains("at most 4096 bytes"), "{report}");
        assert!(report.contains("and ends by itself"), "{report}");
    }
}

#[test]
#[ignore = "the child of another test"]
fn reports_its_own_error() {
    let large = env::var("LARGE").unwrap() == "1";
    let builder = if large { small().ring_capacity(8192) } else { small().max_peer_ring_capacity(4096) };
    let error = builder.inherited().unwrap_err();
    eprintln!("{error}");
    // The child does not end at once.
    thread::sleep(Duration::from_millis(100));
    eprintln!("and ends by itself");
}

#[test]
fn a_child_that_ends_too_early_is_reported_with_its_status() {
    let _guard = bounded();
    let status = |script: &str| match handshake_error(small().spawn(Command::new("sh").args(["-c", script])))
    {
        HandshakeError::ChildEnded { awaited: "Hello", status } => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status("exit 3").code(), Some(3));
    assert_eq!(status("kill -9 $$").signal(), Some(9));
    let error = HandshakeError::ChildEnded { awaited: "Hello", status: status("exit 3") };
    assert_eq!(
        error.to_string(),
        "the child ended with exit status: 3 before its Hello: it does not take its channel (Channel::inherited), or could not"
    );
}

/// One child refuses and lives on, and one does nothing at all: both are killed, and reaped.
#[test]
fn a_child_that_does_not_end_is_killed() {
    let _guard = bounded();
    let (reader, writer) = pipe().unwrap();
    let mut command = role(refuses_and_stays);
    let refused = small().spawn(command.stderr(writer));
    drop(command);
    assert!(matches!(handshake_error(refused), HandshakeError::Rejected(_)));
    assert!(is_abandoned(reader), "it lives");
    let (reader, writer) = pipe().unwrap();
    let mut command = Command::new("sleep");
    let silent =
        small().handshake_timeout(Duration::from_millis(100)).spawn(command.arg("1000").stdout(writer));
    drop(command);
    assert!(matches!(silent, Err(Error::Timeout)));
    assert!(is_abandoned(reader), "it lives");
}

#[test]
#[ignore = "the child of another test"]
fn refuses_and_stays() {
    assert!(small().max_peer_ring_capacity(0).inherited().is_err());
    thread::sleep(2 * LONG);
}
