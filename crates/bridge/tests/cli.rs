//! The program as its users run it.

mod common;
mod hosts;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{LONG, Place, endpoint, free_port, wait_for_subscribers, wait_until};
use hosts::Running;
use sealane::Publisher;
use sealane_bridge::{Received, Subscriber};

/// The program, with a folder of its own for its status.
fn program(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane-bridge"));
    command.env("XDG_RUNTIME_DIR", place).env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

fn start(place: &Path, arguments: &[&str]) -> Running {
    Running::start(program(place).args(arguments))
}

fn output(place: &Path, arguments: &[&str]) -> Output {
    program(place).args(arguments).output().unwrap()
}

/// Publishes until the far side has had a message.
fn carries(publisher: &mut Publisher, subscriber: &mut Subscriber, text: &[u8]) {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "nothing within {LONG:?}");
        publisher.send(text).unwrap();
        if let Some(Received::Message(message)) = subscriber.recv(Duration::from_millis(50)).unwrap()
            && message.control() == text
        {
            return;
        }
    }
}

fn terminate(running: &mut Running) {
    let pid = rustix::process::Pid::from_child(running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.wait().unwrap().success());
}

#[test]
fn topics_are_carried_and_status_shows_them() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let peer = endpoint(place.port);
    let mut publishers = ["a", "b"].map(|name| Publisher::bind(at(name)).unwrap());
    let (a, b) = (format!("x/a={}", at("a")), format!("b={}", at("b")));
    let mut exporter = start(dir.path(), &["export", &a, &b, "--listen", &peer, "--beat", "20ms"]);
    let (a, b) = (format!("x/a={}", at("far-a")), format!("b={}", at("far-b")));
    let mut importer = start(dir.path(), &["import", &a, &b, "--connect", &peer]);
    for (publisher, name) in publishers.iter_mut().zip(["far-a", "far-b"]) {
        wait_for_subscribers(publisher, 1);
        let mut subscriber = Subscriber::connect(at(name), LONG).unwrap();
        carries(publisher, &mut subscriber, name.as_bytes());
    }
    let status = || output(dir.path(), &["status", "--json", "--interval", "10ms"]);
    let reports = || -> serde_json::Value { serde_json::from_slice(&status().stdout).unwrap_or_default() };
    wait_until("both bridges answer", || reports().as_array().is_some_and(|reports| reports.len() == 2));
    let reports = reports();
    let topics: Vec<_> =
        reports.as_array().unwrap().iter().flat_map(|it| it["topics"].as_array().unwrap()).collect();
    assert_eq!(topics.len(), 4);
    for topic in topics {
        assert!(topic["count"]["messages"].as_u64().unwrap() > 0, "{topic}");
        assert_eq!(topic["is_here"], true, "{topic}");
        assert!(topic["messages_per_second"].is_number());
    }
    let table = output(dir.path(), &["status", "--interval", "0"]);
    let table = String::from_utf8(table.stdout).unwrap();
    for part in ["TOPIC", "x/a", "export", "import", "the source is there", "far-b"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    // One that is killed leaves a file, which is removed; one that is told to end ends in order.
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    terminate(&mut importer);
    let none = output(dir.path(), &["status"]);
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no bridge of this user"), "{none:?}");
    assert_eq!(fs::read_dir(dir.path().join("sealane-bridge")).unwrap().count(), 0);
}

#[test]
fn a_file_says_the_same_and_a_router_passes_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let peer = endpoint(free_port());
    let _router = start(dir.path(), &["router", "--listen", &peer]);
    let file = |name: &str, text: &str| {
        fs::write(at(name), text).unwrap();
        at(name)
    };
    let export = format!(
        "{{ connect: ['{peer}'], export: {{ stats: {{ path: '{}', when_behind: 'wait=5s', beat: 0.02 }} }} }}",
        at("stats")
    );
    let import = format!("{{ connect: ['{peer}'], import: {{ stats: '{}' }} }}", at("far"));
    let mut publisher = Publisher::bind(at("stats")).unwrap();
    let _exporter = start(dir.path(), &["run", "--config", &file("export.json5", &export)]);
    let _importer = start(dir.path(), &["run", "--config", &file("import.json5", &import)]);
    wait_for_subscribers(&mut publisher, 1);
    let mut subscriber = Subscriber::connect(at("far"), LONG).unwrap();
    carries(&mut publisher, &mut subscriber, b"through a router");
    let echo = common::Echo::start(publisher);
    assert_eq!(subscriber.call(b"gain?", LONG).unwrap().control(), b"echo gain?");
    drop(echo.stop());
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.json5");
    fs::write(&file, "{ export: { a: { path: '/run/a', speed: 1 } } }").unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], &str); 11] = [
        (&["export", "stats"], "TOPIC=PATH expected"),
        (&["export", "a=/run/a", "a=/run/b"], "the topic `a` is named twice"),
        (&["export", "camera/*=/run/a"], "wildcards"),
        (&["export", "@a=/run/a"], "begins with @"),
        (&["export", "a=/run/a", "--memory", "much"], "a size such as"),
        (&["export", "a=/run/a", "--when-behind", "wait"], "wait=TIME"),
        (&["import", "a=/nowhere/a", "--when-behind", "wait=1s"], "would hold up the network"),
        (&["import", "a=/nowhere/a"], "/nowhere/a"),
        (&["export", "a=/run/a", "--listen", "nowhere"], "nowhere"),
        (&["run"], "nothing to carry"),
        (&["run", "--config", file], "known"),
    ];
    for (arguments, said) in cases {
        let output = output(dir.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}
