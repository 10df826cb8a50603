//! The path of a listener that was killed is taken over by the next; that of a living listener never is.

use std::{
    env, fs,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with},
};
use sealane::{Channel, Error, Listener, Result};

use crate::support::{
    hostile::{LONG, address, seqpacket},
    role, short_or_long, socket_path,
    threads::{bounded, bounded_by},
};

const PATH: &str = "SEALANE_TEST_PATH";
const SHORT: Duration = Duration::from_millis(50);

/// Leaves a socket's file behind, as a killed listener does.
fn abandon(path: &Path) {
    let socket = seqpacket();
    bind(&socket, &address(path)).unwrap();
    listen(&socket, 1).unwrap();
}

/// The reason for which a path is in use.
#[track_caller]
fn in_use(path: &Path, result: Result<Listener>) -> String {
    let text = result.as_ref().unwrap_err().to_string();
    match result {
        Err(Error::Io { operation: "bind", path: Some(found), source }) => {
            assert_eq!((&*found, source.kind()), (path, ErrorKind::AddrInUse), "{text}");
            text
        }
        other => panic!("{other:?}"),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[test]
fn a_server_that_was_killed_is_started_again_at_its_path() {
    let _guard = bounded();
    let (_directory, path) = socket_path();
    let builder = Channel::builder().handshake_timeout(LONG).ring_capacity(4096);
    for _ in 0..3 {
        let mut server = role(serves).env(PATH, &path).spawn().unwrap();
        let mut channel = loop {
            match builder.connect(&path) {
                Ok(channel) => break channel,
                // No server listens at the moment.
                Err(Error::Io { operation: "connect", .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(channel.recv_timeout(LONG).unwrap().control(), server.id().to_string().as_bytes());
        assert!(in_use(&path, Listener::bind(&path)).contains("another process uses the socket"));
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(path.exists(), "it could not remove its file");
    }
    // A service that ends by itself removes its file after that too.
    drop(Listener::bind(&path).unwrap());
    assert!(!path.exists());
}

/// The child listens until it is killed.
#[test]
#[ignore = "the child of another test"]
fn serves() {
    let listener = Listener::bind(env::var_os(PATH).unwrap()).unwrap();
    let mut clients = Vec::new();
    while let Ok(mut channel) = listener.accept() {
        channel.send(&std::process::id().to_string()).unwrap();
        clients.push(channel);
    }
}

#[test]
fn concurrent_take_overs_have_one_winner_and_the_others_get_an_error() {
    const AT_ONCE: usize = 4;
    let _guard = bounded_by(20 * LONG);
    let (_directory, path) = socket_path();
    for round in 0..short_or_long(50, 1000) {
        abandon(&path);
        let begin = Barrier::new(AT_ONCE);
        let results: Vec<_> = thread::scope(|scope| {
            let bind = || {
                begin.wait();
                Listener::bind(&path)
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        for lost in lost {
            in_use(&path, lost);
        }
        let client = Channel::builder().try_connect(&path).unwrap();
        assert!(won[0].as_ref().unwrap().try_accept().unwrap().is_some());
        drop(client);
    }
}

#[test]
fn a_file_that_is_in_use_or_not_ours_is_left_alone() {
    let _guard = bounded();
    let (directory, path) = socket_path();
    let stays = |why: &str| {
        let before = identity(&path).unwrap();
        let text = in_use(&path, Listener::bind(&path));
        assert!(text.contains(why), "{text}");
        assert_eq!(identity(&path).unwrap(), before);
        fs::remove_file(&path).unwrap();
    };
    fs::write(&path, "mine").unwrap();
    stays("no socket");
    std::os::unix::fs::symlink(directory.path().join("other"), &path).unwrap();
    abandon(&directory.path().join("other"));
    stays("no socket");
    fs::create_dir(&path).unwrap();
    assert!(in_use(&path, Listener::bind(&path)).contains("no socket"));
    fs::remove_dir(&path).unwrap();
    abandon(&path);
    match std::os::unix::fs::chown(&path, Some(65534), None) {
        Ok(()) => stays("another user (uid 65534)"),
        Err(error) => {
            println!("left out: a socket of another user ({error})");
            fs::remove_file(&path).unwrap();
        }
    }
    // A socket of any type is in use, whether it listens or not yet.
    for kind in [SocketType::SEQPACKET, SocketType::STREAM, SocketType::DGRAM] {
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &address(&path)).unwrap();
        if kind == SocketType::SEQPACKET {
            in_use(&path, Listener::bind(&path));
            listen(&socket, 1).unwrap();
        }
        stays("another process uses the socket");
    }
    // A listener whose socket is open only in a forked helper.
    let listener = Listener::bind(&path).unwrap();
    let _copy = rustix::io::fcntl_dupfd_cloexec(&listener, 0).unwrap();
    std::mem::forget(listener);
    stays("another process uses the socket");
    // An abandoned socket of another type is taken over.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Listener::bind(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_directory_that_cannot_be_locked_prevents_a_take_over() {
    let _guard = bounded();
    let (directory, path) = socket_path();
    abandon(&path);
    let before = identity(&path).unwrap();
    let locked = fs::File::open(&directory).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    let builder = Channel::builder().handshake_timeout(SHORT);
    let text = in_use(&path, builder.listen(&path));
    assert!(text.contains("nobody listens there") && text.contains("remove the file"), "{text}");
    assert_eq!(identity(&path).unwrap(), before);
    // The call waits for the lock.
    let binding = thread::spawn({
        let path = path.clone();
        move || Channel::builder().handshake_timeout(LONG).listen(path).unwrap()
    });
    flock(&locked, FlockOperation::Unlock).unwrap();
    drop(binding.join().unwrap());
    // The lock is free afterwards. A path without a file needs none.
    flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop(builder.listen(&path).unwrap());
}

const ROUNDS: &str = "SEALANE_TEST_ROUNDS";

/// Listeners come and go, and leave dead sockets behind as killed ones do. A living one keeps its file until it
/// ends itself.
#[test]
fn a_living_listeners_file_is_never_removed() {
    const PROCESSES: usize = 8;
    let _guard = bounded_by(30 * LONG);
    let (_directory, path) = socket_path();
    let rounds = short_or_long(100, 2000).to_string();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| role(comes_and_goes).env(PATH, &path).env(ROUNDS, &rounds).spawn().unwrap())
        .collect();
    for mut child in children {
        let status = child.wait().unwrap();
        assert!(status.success(), "a living listener's file was removed, or another error came: {status}");
    }
}

/// The order of a listener's end, turned round, step by step: its file is dead before it is removed, so that another one may
/// have taken it over meanwhile.
#[test]
fn closing_before_removing_would_remove_a_living_listeners_file() {
    let _guard = bounded();
    let (_directory, path) = socket_path();
    abandon(&path);
    let mine = identity(&path).unwrap();
    assert_eq!(identity(&path).unwrap(), mine, "the look whether the file is still its own");
    let living = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(Channel::builder().try_connect(&path).is_err(), "a living listener that nobody finds");
    drop(living);
}

#[test]
#[ignore = "the child of another test"]
fn comes_and_goes() {
    let path = PathBuf::from(env::var_os(PATH).unwrap());
    let rounds: u32 = env::var(ROUNDS).unwrap().parse().unwrap();
    let builder = Channel::builder().handshake_timeout(LONG).ring_capacity(4096);
    let mut bound = 0;
    for round in 0.. {
        let listener = match builder.listen(&path) {
            Ok(listener) => listener,
            result => {
                drop(in_use(&path, result));
                continue;
            }
        };
        let mine = identity(&path).unwrap();
        thread::yield_now();
        assert_eq!(identity(&path).ok(), Some(mine), "round {round}: its file is gone, or another's");
        bound += 1;
        if bound == rounds {
            break;
        }
        drop(listener);
        if round % 3 == 0 {
            // This stands for a killed listener, if the path is still free.
            let socket = seqpacket();
            if bind(&socket, &address(&path)).is_ok() {
                listen(&socket, 1).unwrap();
            }
        }
    }
}
