//! What the program says of connections that are refused: why, once.

use std::path::Path;

use sealane::Publisher;
use sealane_bridge::Subscriber;
use serde_json::{Value, json};

use crate::{
    authority::{Authority, connecting, listening},
    common::{LONG, free_port, wait_until},
    first_message,
    program::{Program, Site},
};

fn start(site: &Site, name: &str, at: &str, tls: &Value) -> Program {
    let zenoh = json!({
        "connect": { "retry": { "period_init_ms": 20, "period_max_ms": 20, "period_increase_factor": 1 } },
        "transport": { "link": { "tls": tls } },
    });
    let (end, direction, path) = match name {
        "export" => ("listen", "export", "@DIR/stats"),
        _ => ("connect", "import", "@DIR/far-stats"),
    };
    let config = json!({ end: [at], direction: { "stats": path }, "zenoh": zenoh });
    site.start(&["run", "--config", &site.file(&format!("{name}.json5"), &config.to_string())])
}

/// Lines of a log that have all these words.
fn lines(program: &Program, words: &[&str]) -> usize {
    program.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn endpoint() -> String {
    format!("tls/127.0.0.1:{}", free_port())
}

#[test]
fn messages_cross_over_tls() {
    let (site, ours, at) = (Site::new(), Authority::new("ours"), endpoint());
    let export = start(&site, "export", &at, &listening(&ours.root(), &ours.sign("127.0.0.1")));
    let import = start(&site, "import", &at, &connecting(&ours.root(), &ours.sign("importer")));
    let mut publisher = Publisher::bind(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"secret");
    for program in [&export, &import] {
        assert_eq!(lines(program, &["WARN"]), 0, "{}", program.log());
    }
}

/// Sees that both say why, once, whatever the number of attempts.
fn is_told(connecting: &Value, listening: &Value, connects: &str, listens: &str) {
    let (site, at) = (Site::new(), endpoint());
    let export = start(&site, "export", &at, listening);
    let import = start(&site, "import", &at, connecting);
    wait_until("the importer says why", || lines(&import, &["WARN", &at, connects]) > 0);
    wait_until("the exporter says why", || lines(&export, &["WARN", listens]) > 0);
    // Another exporter that refuses, too, says so: so there were more attempts.
    drop(export);
    let export = start(&site, "export", &at, listening);
    wait_until("the exporter says why again", || lines(&export, &["WARN", listens]) > 0);
    assert_eq!(lines(&import, &["WARN", &at, connects]), 1, "{}", import.log());
    assert_eq!(lines(&export, &["WARN", listens]), 1, "{}", export.log());
    assert_eq!(lines(&import, &[".cargo/registry"]), 0, "{}", import.log());
}

fn connecting_without(root: &Path) -> Value {
    json!({ "root_ca_certificate": root })
}

#[test]
fn another_authority_is_told() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let listens = listening(&ours.root(), &theirs.sign("127.0.0.1"));
    let connects = connecting(&ours.root(), &ours.sign("importer"));
    is_told(&connects, &listens, "not in `root_ca_certificate`", "does not know the authority");
}

#[test]
fn a_missing_certificate_is_told() {
    let ours = Authority::new("ours");
    let listens = listening(&ours.root(), &ours.sign("127.0.0.1"));
    is_told(&connecting_without(&ours.root()), &listens, "it wants a certificate", "it has no certificate");
}

#[test]
fn another_name_is_told() {
    let ours = Authority::new("ours");
    let listens = listening(&ours.root(), &ours.sign("elsewhere"));
    let connects = connecting(&ours.root(), &ours.sign("importer"));
    is_told(&connects, &listens, "for another name", "perhaps as that is for another name");
}

#[test]
fn a_certificate_that_has_expired_is_told() {
    let ours = Authority::new("ours");
    let listens = listening(&ours.root(), &ours.sign_expired("127.0.0.1"));
    let connects = connecting(&ours.root(), &ours.sign("importer"));
    is_told(&connects, &listens, "has expired", "has expired");
}

/// It is told again when it had been connected meanwhile.
#[test]
fn what_changes_is_told_again() {
    let (site, at) = (Site::new(), endpoint());
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let wrong = listening(&ours.root(), &theirs.sign("127.0.0.1"));
    let right = listening(&ours.root(), &ours.sign("127.0.0.1"));
    let import = start(&site, "import", &at, &connecting(&ours.root(), &ours.sign("importer")));
    let told = || lines(&import, &["WARN", &at, "not in `root_ca_certificate`"]);
    let export = start(&site, "export", &at, &wrong);
    wait_until("it is told", || told() == 1);
    drop(export);
    let export = start(&site, "export", &at, &right);
    let mut publisher = Publisher::bind(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"secret");
    assert_eq!(told(), 1);
    drop(export);
    let _export = start(&site, "export", &at, &wrong);
    wait_until("it is told again", || told() == 2);
}

/// An importer that waits for a host that is down says so once, and warns of nothing.
#[test]
fn a_host_that_is_down_is_no_warning() {
    let (site, at) = (Site::new(), format!("tcp/127.0.0.1:{}", free_port()));
    let import = site.start(&["import", "stats=@DIR/far-stats", "--connect", &at]);
    wait_until("it is told", || lines(&import, &["INFO", &at, "nobody listens there yet"]) == 1);
    assert_eq!(lines(&import, &["WARN"]), 0, "{}", import.log());
}
