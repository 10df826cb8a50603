//! A hostile peer: a plain session of Zenoh that is connected to an importer and to its exporter.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use sealane::Publisher;
use sealane_bridge::{
    Bridge, Count, Network, Received, Settings, Subscriber,
    wire::{Head, Keys, Kind, Place},
};
use zenoh::{Session, Wait, qos::CongestionControl};

use crate::common::{self, LONG, endpoint, free_port, publish, wait_until};

/// A topic that is carried, and somebody who would like to stop that.
pub(crate) struct Bed {
    _dir: tempfile::TempDir,
    pub(crate) publisher: Publisher,
    pub(crate) exporter: Bridge,
    pub(crate) importer: Bridge,
    pub(crate) subscriber: Subscriber,
    pub(crate) foe: Session,
    pub(crate) keys: Keys,
    /// The run of the honest publisher.
    pub(crate) run: u64,
    /// The number of the next message.
    pub(crate) sent: u64,
    /// The number that the subscriber expects.
    pub(crate) expected: u64,
}

impl Bed {
    pub(crate) fn new(export: &Settings, import: &Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, remote) = (dir.path().join("source"), dir.path().join("remote"));
        let (at, there) = (endpoint(free_port()), endpoint(free_port()));
        let mut publisher = Publisher::bind(&source).unwrap();
        let network = Network::default().listen(&at);
        let exporter = Bridge::open(&network).unwrap().export("stats", &source, export).unwrap();
        let network = Network::default().connect(&at).listen(&there);
        let importer = Bridge::open(&network).unwrap().import("stats", &remote, import).unwrap();
        common::wait_for_subscribers(&mut publisher, 1);
        let mut subscriber = Subscriber::connect(&remote, LONG).unwrap();
        let foe = connect(&[&at, &there]);
        let keys = Keys::new("stats");
        let run = run(&foe, &keys);
        let mut sent = 0;
        // Messages before Zenoh's declarations have arrived reach nobody.
        let expected = loop {
            publish(&mut publisher, sent);
            sent += 1;
            if let Some(Received::Message(message)) = subscriber.recv(Duration::from_millis(100)).unwrap() {
                break common::number(message.control()) + 1;
            }
        };
        let mut bed =
            Self { _dir: dir, publisher, exporter, importer, subscriber, foe, keys, run, sent, expected };
        bed.works();
        bed
    }

    /// A place of the honest run.
    pub(crate) fn honest(&self, number: u64) -> Place {
        Place { run: self.run, number, source: 0 }
    }

    pub(crate) fn count(&self) -> Count {
        self.importer.status()[0].count
    }

    /// Puts a sample on a key, and waits if Zenoh has to.
    pub(crate) fn put(&self, key: &str, attachment: Option<&[u8]>, payload: &[u8]) {
        put(&self.foe, key, attachment, payload);
    }

    /// Messages of the honest publisher.
    pub(crate) fn publish(&mut self, count: u64) {
        for _ in 0..count {
            publish(&mut self.publisher, self.sent);
            self.sent += 1;
        }
    }

    /// Receives what was published: each number is the one that is due. Returns how many were missed.
    pub(crate) fn receive(&mut self) -> u64 {
        let mut lost = 0;
        while self.expected < self.sent {
            match self.subscriber.recv(LONG).unwrap().expect("a message") {
                Received::Message(message) => {
                    let due = self.expected + message.missed();
                    assert_eq!(common::number(message.control()), due);
                    lost += message.missed();
                    self.expected = due + 1;
                }
                Received::Notice(_, missed) => {
                    lost += missed;
                    self.expected += missed;
                }
                other => panic!("{other:?}"),
            }
        }
        lost
    }

    /// Messages arrive, all and in order.
    pub(crate) fn works(&mut self) {
        for _ in 0..10 {
            self.publish(20);
            assert_eq!(self.receive(), 0);
        }
    }
}

/// A session that is connected to some bridges.
pub(crate) fn connect(to: &[&str]) -> Session {
    let foe = open(&[], to);
    wait_until("the hostile peer is connected", || foe.info().peers_zid().wait().count() == to.len());
    foe
}

/// A session that finds nobody by itself.
pub(crate) fn open(listen: &[&str], connect: &[&str]) -> Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "'peer'").unwrap();
    config.insert_json5("listen/endpoints", &format!("{listen:?}")).unwrap();
    config.insert_json5("connect/endpoints", &format!("{connect:?}")).unwrap();
    config.insert_json5("scouting/multicast/enabled", "false").unwrap();
    config.insert_json5("scouting/gossip/enabled", "false").unwrap();
    zenoh::open(config).wait().unwrap()
}

pub(crate) fn put(foe: &Session, key: &str, attachment: Option<&[u8]>, payload: &[u8]) {
    let put = foe.put(key, payload).congestion_control(CongestionControl::Block).express(true);
    match attachment {
        Some(bytes) => put.attachment(bytes).wait().unwrap(),
        None => put.wait().unwrap(),
    }
}

/// The run that the exporter's beats tell.
fn run(foe: &Session, keys: &Keys) -> u64 {
    let beats = foe.declare_subscriber(keys.beats()).wait().unwrap();
    let beat = beats.recv_timeout(LONG).unwrap().expect("a beat");
    Head::parse(&beat.attachment().unwrap().to_bytes()).unwrap().0.place.run
}

/// The head of a message of another run than the honest one.
pub(crate) fn foreign(kind: Kind, run: u64, number: u64) -> Vec<u8> {
    Head::new(kind, Place { run, number, source: 0 }).to_bytes().to_vec()
}
