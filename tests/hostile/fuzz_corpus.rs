//! The fuzzer's corpus as an ordinary test: each file of fuzz/corpus/ runs through the body of its target.
//!
//! A binary of its own, because it is not in the published package.

#[path = "../support/mod.rs"]
mod support;

#[path = "../../fuzz/bodies/handshake.rs"]
mod handshake;
#[path = "../../fuzz/bodies/lanes.rs"]
mod lanes;
#[path = "../../fuzz/bodies/packets.rs"]
mod packets;
#[path = "../../fuzz/bodies/parts.rs"]
mod parts;
#[path = "../../fuzz/bodies/receiver.rs"]
mod receiver;
#[path = "../../fuzz/bodies/subscriber.rs"]
mod subscriber;

use std::{fs, path::Path};

use support::hostile;

fn replay(target: &str, run: fn(&[u8])) {
    let _guard = support::threads::bounded();
    run(&[]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn handshakes_replay() {
    replay("handshake", handshake::run);
}

#[test]
fn lanes_replay() {
    replay("lanes", lanes::run);
}

#[test]
fn packets_replay() {
    replay("packets", packets::run);
}

#[test]
fn receivers_replay() {
    replay("receiver", receiver::run);
}

#[test]
fn subscribers_replay() {
    replay("subscriber", subscriber::run);
}
