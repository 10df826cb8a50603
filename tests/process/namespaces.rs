//! Two processes in different namespaces have a channel, and know of each other as much as the kernel can name.
//!
//! The sandbox is `unshare(1)`; the cases that this machine forbids are left out.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use rustix::process::{getgid, getuid};
use sealane::{Builder, Channel, Control, Credentials, Error, HandshakeError, Reason};

use crate::support::{hostile::LONG, role, socket_path, threads::bounded};

/// Options of `unshare(1)`, and who the peer outside is in there: whether it has a number, and its user and group if they
/// are others than outside.
const CASES: [(&str, &[&str], Seen); 6] = [
    ("none", &[], Seen { pid: true, ids: None }),
    ("user", &["--user"], Seen { pid: true, ids: Some(65_534) }),
    ("user and net", &["--user", "--net"], Seen { pid: true, ids: Some(65_534) }),
    ("pid", &["--pid", "--fork"], Seen { pid: false, ids: None }),
    ("user and pid", &["--user", "--pid", "--fork"], Seen { pid: false, ids: Some(65_534) }),
    (
        "user and pid, mapped",
        &["--user", "--map-root-user", "--pid", "--fork"],
        Seen { pid: false, ids: Some(0) },
    ),
];
/// The variable with the path at which a role listens, or to which it connects.
const SOCKET: &str = "SOCKET";

#[derive(Debug, Clone, Copy)]
struct Seen {
    pid: bool,
    ids: Option<u32>,
}

/// The process id, or 0 if it has none in this namespace, user and group.
fn numbers(peer: Credentials) -> [u32; 3] {
    [peer.pid.map_or(0, u32::from), peer.uid, peer.gid]
}

fn builder() -> Builder {
    Channel::builder().ring_capacity(4096).handshake_timeout(LONG)
}

/// A command in namespaces of its own; `None` where that is forbidden.
fn inside(case: &str, options: &[&str], role: Command) -> Option<Command> {
    if options.is_empty() {
        return Some(role);
    }
    let mut trial = Command::new("unshare");
    trial.args(options).arg("true").stderr(Stdio::null());
    if !trial.status().is_ok_and(|status| status.success()) {
        eprintln!("left out: {case}: unshare {options:?} is forbidden here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(options).arg(role.get_program()).args(role.get_args()).stdout(Stdio::null());
    Some(command)
}

/// Both sides see as much of each other as the namespaces show.
fn assert_known(case: &str, seen: Seen, channel: &mut Channel, child: &Child) {
    let [pid, uid, gid] = numbers(channel.peer().credentials());
    // Seen from outside, the inner peer has a number of this namespace, and the user who started it.
    assert_ne!(pid, 0, "{case}");
    if case == "none" {
        assert_eq!(pid, child.id());
    }
    assert_eq!([uid, gid], [getuid().as_raw(), getgid().as_raw()], "{case}");
    let message = channel.recv_timeout(LONG).unwrap();
    let [pid, uid, gid] = *message.control_as::<[u32; 3]>().unwrap();
    assert_eq!(pid, if seen.pid { std::process::id() } else { 0 }, "{case}");
    let expected = seen.ids.map_or([getuid().as_raw(), getgid().as_raw()], |id| [id, id]);
    assert_eq!([uid, gid], expected, "{case}");
}

#[test]
fn a_child_in_other_namespaces_has_its_channel() {
    let _guard = bounded();
    for (case, options, seen) in CASES {
        let Some(command) = inside(case, options, role(says_whom_it_inherited)) else { continue };
        let (mut channel, mut child) =
            builder().spawn(command).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_known(case, seen, &mut channel, &child);
        drop(channel);
        child.wait().unwrap();
    }
}

#[test]
#[ignore = "the child of another test"]
fn says_whom_it_inherited() {
    say_who(builder().inherited().unwrap());
}

/// Reports the peer's credentials, and waits for the end.
fn say_who(mut channel: Channel) {
    let peer = numbers(channel.peer().credentials());
    channel.send(Control::of(&peer)).unwrap();
    assert!(matches!(channel.recv(), Err(Error::Disconnected)));
}

#[test]
fn a_client_in_other_namespaces_has_its_channel() {
    let _guard = bounded();
    for (case, options, seen) in CASES {
        let Some(mut command) = inside(case, options, role(says_whom_it_connected_to)) else { continue };
        let (_directory, path) = socket_path();
        let listener = builder().listen(&path).unwrap();
        let mut child = command.env(SOCKET, &path).spawn().unwrap();
        let mut channel = listener.accept().unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_known(case, seen, &mut channel, &child);
        drop(channel);
        child.wait().unwrap();
    }
}

#[test]
#[ignore = "the child of another test"]
fn says_whom_it_connected_to() {
    say_who(builder().connect(env::var_os(SOCKET).unwrap()).unwrap());
}

#[test]
fn a_listener_in_other_namespaces_has_its_clients() {
    let _guard = bounded();
    for (case, options, seen) in CASES {
        let Some(mut command) = inside(case, options, role(says_whom_it_accepted)) else { continue };
        let (_directory, path) = socket_path();
        let mut child = command.env(SOCKET, &path).spawn().unwrap();
        let result = connect(&path);
        if !seen.pid && seen.ids == Some(65_534) {
            // In a namespace without names a stranger is refused.
            assert!(
                matches!(&result, Err(Error::Handshake(HandshakeError::Rejected(refusal)))
                    if refusal.reason == Reason::Credentials),
                "{case}: {result:?}"
            );
        } else {
            let mut channel = result.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_known(case, seen, &mut channel, &child);
        }
        child.wait().unwrap();
    }
}

/// Connects as soon as a listener is there.
fn connect(path: &Path) -> sealane::Result<Channel> {
    let end = Instant::now() + LONG;
    loop {
        match builder().connect(path) {
            Err(Error::Io { .. }) if Instant::now() < end => thread::yield_now(),
            result => return result,
        }
    }
}

#[test]
#[ignore = "the child of another test"]
fn says_whom_it_accepted() {
    match builder().listen(env::var_os(SOCKET).unwrap()).unwrap().accept() {
        Ok(channel) => say_who(channel),
        Err(error) => assert!(error.to_string().contains("credentials"), "{error}"),
    }
}
