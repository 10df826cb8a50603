//! Peers of other users are known for what they are, and get no further than they may.
//!
//! Only root can play another user: for anybody else these tests have nothing to show.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    os::{
        fd::AsFd,
        unix::{
            fs::PermissionsExt,
            process::{CommandExt, parent_id},
        },
    },
    process,
    time::Duration,
};

use nobody::{Ends, NOBODY, this_program};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Mode,
    process::{getgid, getuid, umask},
};
use sealane::{Channel, Control, Listener};

#[path = "support/nobody.rs"]
mod nobody;

/// In what time anything must happen that must happen at all.
const SOON: Duration = Duration::from_secs(20);
/// Names what the child is to connect to.
const NAME: &str = "NAME";

/// Starts the ignored test `role` as `nobody`; `None` if that is not ours to do.
fn start(role: &str, name: &str) -> Option<(Channel, Ends)> {
    let mut command = this_program(role, &["--ignored"]);
    command.env(NAME, name).uid(NOBODY).gid(NOBODY);
    getuid()
        .is_root()
        .then(|| Channel::spawn(command).map(|(channel, child)| (channel, Ends(child))).unwrap())
}

fn wait_for(fd: impl AsFd) {
    let soon = Timespec::try_from(SOON).unwrap();
    assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&soon)).unwrap(), 1);
}

#[test]
fn a_peer_is_who_said_hello_and_not_who_made_the_socket() {
    let Some((mut channel, child)) = start("tells_whom_it_sees", "") else { return };
    let seen = channel.peer().credentials();
    assert_eq!((seen.pid, seen.uid, seen.gid), (child.0.id(), NOBODY, NOBODY));
    let seen = channel.recv_timeout(SOON).unwrap();
    assert_eq!(seen.control_as::<[u32; 3]>().unwrap(), &[process::id(), 0, getgid().as_raw()]);
}

#[test]
#[ignore = "the child of another test"]
fn tells_whom_it_sees() {
    let mut channel = Channel::inherited().unwrap();
    let seen = channel.peer().credentials();
    assert_eq!(seen.pid, parent_id());
    channel.send(Control::of(&[seen.pid, seen.uid, seen.gid])).unwrap();
}

#[test]
fn the_file_of_a_socket_is_closed_to_other_users() {
    let dir = tempfile::tempdir().unwrap();
    // It is neither the directory nor our mask that refuses.
    umask(Mode::empty());
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::bind(&path).unwrap();
    let Some((mut channel, _child)) = start("knocks", path.to_str().unwrap()) else { return };
    assert_eq!(channel.recv_timeout(SOON).unwrap().control(), b"connect failed (permission denied)");
    assert!(listener.try_accept().unwrap().is_none());
}

#[test]
fn a_listener_refuses_whom_it_does_not_like_before_the_handshake_ends() {
    let name = format!("@sealane-identity-{}", process::id());
    let listener = Listener::bind(&name).unwrap();
    let Some((mut channel, child)) = start("knocks", &name) else { return };
    wait_for(&listener);
    let mut handshake = listener.try_accept().unwrap().unwrap();
    assert!(handshake.peer_credentials().is_none());
    while handshake.peer_credentials().is_none() {
        wait_for(&handshake);
        assert!(!handshake.advance().unwrap());
    }
    let seen = handshake.peer_credentials().unwrap();
    assert_eq!((seen.pid, seen.uid, seen.gid), (child.0.id(), NOBODY, NOBODY));
    handshake.refuse();
    let answer = channel.recv_timeout(SOON).unwrap();
    assert_eq!(answer.control(), b"the peer refused us: refused by the application");
}

#[test]
#[ignore = "the child of another test"]
fn knocks() {
    let mut parent = Channel::inherited().unwrap();
    let error = Channel::connect(env::var(NAME).unwrap()).unwrap_err();
    let text = match &error {
        sealane::Error::Io { source, .. } => format!("{error} ({})", source.kind()),
        error => error.to_string(),
    };
    parent.send(&text).unwrap();
}
