//! TLS and access control, by Zenoh's own options: bridges with other certificates exchange nothing, and the log says why.

mod authority;
mod common;

use std::sync::{Mutex, Once, PoisonError};

use authority::{Authority, connecting, listening};

use common::{LONG, free_port, next, publish, quick, wait_until};
use sealane::Publisher;
use sealane_bridge::{Bridge, Network, Subscriber};
use serde_json::{Value, json};

/// What was logged of connections that failed. Zenoh says why as a debug message of this target: not what a program shows by default.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
const TARGET: &str = "zenoh::net::runtime::orchestrator";

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        if self.enabled(record.metadata()) && line.starts_with("Unable to connect") {
            LOG.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    fn flush(&self) {}
}

fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// The lines that name all of `words`.
fn logged(words: &[&str]) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().filter(|line| words.iter().all(|word| line.contains(word))).cloned().collect()
}

fn zenoh(tls: &Value) -> String {
    json!({ "transport": { "link": { "tls": tls } } }).to_string()
}

/// A bridge that exports over TLS, and one that imports.
struct Pair {
    _dir: tempfile::TempDir,
    endpoint: String,
    publisher: Publisher,
    exporter: Bridge,
    importer: Bridge,
    subscriber: Subscriber,
}

impl Pair {
    fn new(scheme: &str, exporter: &str, importer: &str) -> Self {
        start_log();
        let dir = tempfile::tempdir().unwrap();
        let (source, remote) = (dir.path().join("source"), dir.path().join("remote"));
        let endpoint = format!("{scheme}/127.0.0.1:{}", free_port());
        let publisher = Publisher::bind(&source).unwrap();
        let network = Network::default().listen(&endpoint).zenoh(exporter);
        let exporter = Bridge::open(&network).unwrap().export("stats", &source, &quick()).unwrap();
        let network = Network::default().connect(&endpoint).zenoh(importer);
        let importer = Bridge::open(&network).unwrap().import("stats", &remote, &quick()).unwrap();
        let subscriber = Subscriber::connect(&remote, LONG).unwrap();
        Self { _dir: dir, endpoint, publisher, exporter, importer, subscriber }
    }

    fn works(mut self) {
        common::wait_for_subscribers(&mut self.publisher, 1);
        wait_until("the source is seen", || self.importer.status()[0].is_here);
        publish(&mut self.publisher, 7);
        assert_eq!(next(&mut self.subscriber).0, 7_u64.to_le_bytes());
    }

    /// Waits until two attempts have failed, as the log says with these words.
    fn refuses(mut self, words: &[&str]) {
        common::wait_for_subscribers(&mut self.publisher, 1);
        publish(&mut self.publisher, 7);
        let words = [&[self.endpoint.as_str()], words].concat();
        wait_until(&format!("{words:?} in the log"), || logged(&words).len() >= 2);
        assert_eq!((self.importer.peers(), self.exporter.peers()), (vec![], vec![]));
        let status = &self.importer.status()[0];
        assert!(!status.is_here && status.count.samples == 0, "{status:?}");
    }
}

#[test]
fn bridges_of_one_authority_reach_each_other() {
    let ours = Authority::new("ours");
    for scheme in ["tls", "quic"] {
        let listens = zenoh(&listening(&ours.root(), &ours.sign("127.0.0.1")));
        let connects = zenoh(&connecting(&ours.root(), &ours.sign("importer")));
        Pair::new(scheme, &listens, &connects).works();
    }
}

#[test]
fn an_exporter_of_another_authority_refuses() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let listens = zenoh(&listening(&ours.root(), &theirs.sign("127.0.0.1")));
    let connects = zenoh(&connecting(&ours.root(), &ours.sign("importer")));
    Pair::new("tls", &listens, &connects).refuses(&["UnknownIssuer"]);
}

#[test]
fn an_exporter_of_another_name_refuses() {
    let ours = Authority::new("ours");
    let listens = zenoh(&listening(&ours.root(), &ours.sign("elsewhere")));
    let connects = zenoh(&connecting(&ours.root(), &ours.sign("importer")));
    Pair::new("tls", &listens, &connects).refuses(&["not valid for name", "elsewhere"]);
    // Unless names are not looked at.
    let mut tls = connecting(&ours.root(), &ours.sign("importer"));
    tls["verify_name_on_connect"] = json!(false);
    Pair::new("tls", &listens, &zenoh(&tls)).works();
}

#[test]
fn an_importer_of_another_authority_refuses() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let listens = zenoh(&listening(&ours.root(), &ours.sign("127.0.0.1")));
    let connects = zenoh(&connecting(&ours.root(), &theirs.sign("importer")));
    Pair::new("tls", &listens, &connects).refuses(&["UnknownCA"]);
}

#[test]
fn an_importer_without_a_certificate_refuses() {
    let ours = Authority::new("ours");
    let listens = zenoh(&listening(&ours.root(), &ours.sign("127.0.0.1")));
    let connects = zenoh(&json!({ "root_ca_certificate": ours.root() }));
    Pair::new("tls", &listens, &connects).refuses(&["CertificateRequired"]);
}

#[test]
fn access_control_keeps_messages_out_and_lets_beats_in() {
    let deny = json!({ "access_control": {
        "enabled": true, "default_permission": "allow",
        "rules": [{ "id": "no", "permission": "deny", "flows": ["ingress"], "messages": ["put"], "key_exprs": ["stats"] }],
        "subjects": [{ "id": "all" }],
        "policies": [{ "rules": ["no"], "subjects": ["all"] }],
    } });
    let mut pair = Pair::new("tcp", "{}", &deny.to_string());
    common::wait_for_subscribers(&mut pair.publisher, 1);
    wait_until("the source is seen", || pair.importer.status()[0].is_here);
    for number in 0..10 {
        publish(&mut pair.publisher, number);
    }
    // Messages that a rule keeps out are missed: the beats, which it lets in, say so.
    wait_until("they are missed", || pair.importer.status()[0].count.missed == 10);
    assert_eq!(pair.importer.status()[0].count.samples, 0);
}
