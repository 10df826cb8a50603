//! The program: what it carries, its files, its status, its errors and its end.

#[path = "../authority/mod.rs"]
mod authority;
#[path = "../common/mod.rs"]
mod common;

mod carrying;
mod mistakes;
mod program;
mod refusals;
mod status;

use std::time::{Duration, Instant};

use common::LONG;
use program::Site;
use sealane::Publisher;
use sealane_bridge::{Received, Subscriber};

/// Publishes `text` until `far` has it.
fn first_message(publisher: &mut Publisher, far: &mut Subscriber, text: &[u8]) {
    let deadline = Instant::now() + LONG;
    loop {
        publisher.send(text).unwrap();
        match far.recv(Duration::from_millis(50)).unwrap() {
            Some(Received::Message(message)) if message.control() == text => return,
            _ => assert!(Instant::now() < deadline, "no message within {LONG:?}"),
        }
    }
}

/// Publishes on two topics, and takes from both at the far paths.
fn both_topics_arrive(site: &Site) {
    for topic in ["stats", "frames"] {
        let mut publisher = Publisher::bind(site.path(topic)).unwrap();
        let mut far = Subscriber::connect(site.path(&format!("far-{topic}")), LONG).unwrap();
        first_message(&mut publisher, &mut far, topic.as_bytes());
    }
}
