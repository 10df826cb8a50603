//! Failed attempts to take an inherited channel, and the state that they leave.

use std::{
    os::fd::{AsFd, AsRawFd},
    thread,
};

use rustix::{
    net::connect,
    process::{Resource, Rlimit, setrlimit},
};
use sealane::{Builder, Channel, Error, HandshakeError};

use crate::support::{
    forks::in_fork,
    hostile::{abstract_name, address, seqpacket},
    threads::bounded,
};

fn small() -> Builder {
    Channel::builder().ring_capacity(4096)
}

#[test]
fn a_builder_that_can_do_nothing_uses_up_no_inherited_channel() {
    let _guard = bounded();
    let prepared = small().prepare().unwrap();
    let end = prepared.as_fd().try_clone_to_owned().unwrap();
    let name = end.as_raw_fd().to_string();
    let mistaken = small().max_control(usize::MAX).inherited_as(&name);
    assert!(matches!(mistaken, Err(Error::ControlTooLarge { .. })), "{mistaken:?}");
    let child = thread::spawn(move || small().inherited_as(&name)?.recv());
    prepared.started().finish().unwrap().send(b"welcome").unwrap();
    assert_eq!(child.join().unwrap().unwrap().control(), b"welcome");
}

#[test]
fn a_socket_that_is_no_channel_yet_is_not_used_up() {
    let _guard = bounded();
    let name = abstract_name();
    let listener = small().listen(&name).unwrap();
    let socket = seqpacket();
    let number = socket.as_raw_fd().to_string();
    let early = small().inherited_as(&number);
    assert!(matches!(early, Err(Error::Handshake(HandshakeError::NotSeqpacket { .. }))), "{early:?}");
    connect(&socket, &address(&name)).unwrap();
    let client = thread::spawn(move || small().inherited_as(&number)?.recv());
    listener.accept().unwrap().send(b"welcome").unwrap();
    assert_eq!(client.join().unwrap().unwrap().control(), b"welcome");
}

#[test]
fn a_limit_of_open_files_is_not_taken_for_a_name_that_names_nothing() {
    let _guard = bounded();
    let prepared = small().prepare().unwrap();
    let name = prepared.to_string();
    in_fork((), |()| {
        // Those that a duplicate could have are open.
        let limit = Some(4);
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
        let result = small().inherited_as(&name);
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    });
}
