//! The example `camera` on one host, its frames' statistics on another: `cargo build --release --example camera`, then
//! `SEALANE_CAMERA=target/release/examples/camera cargo test --test camera`.

mod common;
mod hosts;

use std::{
    env,
    io::{Read, Write},
    path::PathBuf,
    process::Stdio,
};

use common::{LONG, quick};
use hosts::{Hosts, Running};
use sealane_bridge::{Bridge, Fds, Gone, Network, Notice, Received, Subscriber};

/// What a role carries: the path, and for an import the exporter's endpoint.
const PATH: &str = "SEALANE_TEST_PATH";
const PEER: &str = "SEALANE_TEST_PEER";

/// Carries until its input ends.
fn carry(bridge: Bridge) {
    std::io::stdout().write_all(b"ready\n").unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(bridge);
}

#[test]
#[ignore = "a process that other tests start"]
fn exporter() {
    let Some(path) = env::var_os(PATH) else { return };
    let mut settings = quick();
    // The camera takes back buffers of subscribers that it need not wait for: the bridge gives none back.
    settings.slow = sealane::Slow::Overrun;
    settings.fds = Fds::LeaveOut;
    let network = Network::default().listen("tcp/0.0.0.0:7700");
    carry(Bridge::open(&network).unwrap().export("frames", path, &settings).unwrap());
}

#[test]
#[ignore = "a process that other tests start"]
fn importer() {
    let (Some(path), Ok(peer)) = (env::var_os(PATH), env::var(PEER)) else { return };
    carry(
        Bridge::open(&Network::default().connect(&peer)).unwrap().import("frames", path, &quick()).unwrap(),
    );
}

#[test]
fn a_cameras_frames_are_seen_on_another_host() {
    const FRAMES: u64 = 200;
    // Four seconds: the bridge looks for the camera every half second at least.
    const RATE: u64 = 50;
    let Some(camera) = env::var_os("SEALANE_CAMERA").map(PathBuf::from) else {
        let _ = std::io::stderr()
            .write_all(b"SKIPPED: the camera on another host: needs SEALANE_CAMERA, the example's path\n");
        return;
    };
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, (far, _link)) = (hosts.near(), hosts.far());
    let dir = tempfile::tempdir().unwrap();
    let (source, remote) = (dir.path().join("frames"), dir.path().join("remote"));
    let mut command = near.role(exporter);
    let _exporter = Running::start(command.env(PATH, &source).stdin(Stdio::piped()));
    let mut command = far.role(importer);
    let peer = format!("tcp/{}:7700", near.address());
    let _importer = Running::start(command.env(PATH, &remote).env(PEER, peer).stdin(Stdio::piped()));
    let mut subscriber = Subscriber::connect(&remote, LONG).unwrap();
    let mut command = near.command(camera);
    command.arg("--publish").arg(&source).arg("--json").stdout(Stdio::null());
    command.args(["--frames", &FRAMES.to_string(), "--fps", &RATE.to_string()]);
    let mut camera = Running::start(&mut command);
    // What was missed counts from the first message on.
    let (mut messages, mut missed, mut first) = (0, 0, None);
    loop {
        match subscriber.recv(LONG).unwrap() {
            Some(Received::Message(message)) => {
                let number = subscriber.inner().unwrap().number() - 1;
                messages += 1;
                missed += message.missed();
                if first.is_none() {
                    (first, missed) = (Some(number), 0);
                }
                assert!(message.payload().is_some_and(|statistics| !statistics.is_empty()));
                assert!(message.fds().is_empty());
            }
            Some(Received::Notice(Notice::Gone(Gone::Ended), more)) => {
                missed += more;
                break;
            }
            Some(Received::Notice(_, more)) => missed += more,
            _ => panic!("nothing within {LONG:?}, after {messages} messages"),
        }
    }
    assert!(camera.wait().unwrap().success());
    // The first frames were published before the bridge had found the camera.
    let first = first.expect("at least one frame is seen");
    assert_eq!(first + messages + missed, FRAMES, "{messages} messages from {first} on, {missed} missed");
}
