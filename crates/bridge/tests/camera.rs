//! The example `camera` on one host, its frames' statistics on another, for a subscriber and for the command `sealane`:
//! `cargo build --release --example camera --package sealane-cli`, then `SEALANE_CAMERA=target/release/examples/camera
//! SEALANE_TOOL=target/release/sealane cargo test --test camera`, with whole paths.

mod common;
mod hosts;

use std::{
    collections::BTreeMap,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
};

use common::{LONG, quick, wait_until};
use hosts::{Host, Hosts, Link, Running};
use sealane::Message;
use sealane_bridge::{Bridge, Fds, Gone, Network, Notice, Received, Subscriber};
use serde_json::{Value, json};

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

/// A program of sealane's, of which the variable has the path. Without it the test is skipped.
fn program(variable: &str) -> Option<PathBuf> {
    let program = env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        let why = format!("\nSKIPPED: the camera on another host: needs {variable}, a program's path\n");
        let _ = std::io::stderr().write_all(why.as_bytes());
    }
    program
}

/// Two hosts with a bridge each. Paths are the machine's, and each of them could see the other's.
struct Scene {
    dir: tempfile::TempDir,
    near: Host,
    far: Host,
    importer: Running,
    _exporter: Running,
    _network: (Hosts, Link),
}

impl Scene {
    fn new() -> Option<Self> {
        let mut hosts = Hosts::new_or_skip()?;
        let (near, (far, link)) = (hosts.near(), hosts.far());
        let dir = tempfile::tempdir().unwrap();
        let mut command = near.role(exporter);
        let exporter = Running::start(command.env(PATH, dir.path().join("frames")).stdin(Stdio::piped()));
        let mut command = far.role(importer);
        command.env(PATH, dir.path().join("remote")).env(PEER, format!("tcp/{}:7700", near.address()));
        let importer = Running::start(command.stdin(Stdio::piped()));
        Some(Self { dir, near, far, importer, _exporter: exporter, _network: (hosts, link) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A camera on the near host, with four seconds of frames at least: the bridge looks for it every half second.
    fn film(&self, camera: &Path, frames: u64) -> Running {
        let mut command = self.near.command(camera);
        command.arg("--publish").arg(self.path("frames")).arg("--json").stdout(Stdio::null());
        Running::start(command.args(["--frames", &frames.to_string(), "--fps", "50"]))
    }
}

#[test]
fn a_cameras_frames_are_seen_on_another_host() {
    const FRAMES: u64 = 200;
    let Some(camera) = program("SEALANE_CAMERA") else { return };
    let Some(scene) = Scene::new() else { return };
    let mut subscriber = Subscriber::connect(scene.path("remote"), LONG).unwrap();
    let mut camera = scene.film(&camera, FRAMES);
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

/// What `sealane top` says of the publisher that is the process `publisher`: its row, and those of its subscribers.
fn top(host: &Host, tool: &Path, publisher: u32) -> Option<(Value, Vec<Value>)> {
    let mut command = host.command(tool);
    let output = command.args(["top", "--once", "--json", "--interval", "200ms"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut rows: Vec<_> = shown["rows"].as_array_mut().unwrap().drain(..).collect();
    rows.retain(|row| row["from"][0]["pid"] == publisher);
    let at = rows.iter().position(|row| row["kind"] == "publisher")?;
    Some((rows.remove(at), rows))
}

/// Frames that somebody has had, with a sum of their statistics.
#[derive(Default)]
struct Frames {
    sums: BTreeMap<u64, u64>,
    /// The number that comes next. `None` before the first frame.
    next: Option<u64>,
}

impl Frames {
    /// Adds a frame, whose number is right only if all that were missed were told: `Published` in `examples/camera/protocol.rs`.
    fn add(&mut self, message: &Message, missed: u64) {
        assert_eq!(message.control().len(), 72, "{:?}", message.control());
        let number = u64::from_le_bytes(message.control()[16..24].try_into().unwrap());
        assert_eq!(self.next.map_or(number, |next| next + missed), number);
        let mut hasher = DefaultHasher::new();
        message.payload().expect("statistics").to_vec().hash(&mut hasher);
        self.sums.insert(number, hasher.finish());
        self.next = Some(number + 1);
    }

    fn lose(&mut self, missed: u64) {
        self.next = self.next.map(|next| next + missed);
    }
}

/// All frames at a bridge's path, up to the camera's end.
fn watch(mut subscriber: Subscriber) -> Frames {
    let mut frames = Frames::default();
    loop {
        match subscriber.recv(LONG).unwrap() {
            Some(Received::Message(message)) => frames.add(&message, message.missed()),
            Some(Received::Notice(notice, missed)) => {
                frames.lose(missed);
                if notice == Notice::Gone(Gone::Ended) {
                    return frames;
                }
            }
            _ => panic!("nothing within {LONG:?}"),
        }
    }
}

/// All frames that a file has, and its messages, as its replay has them.
fn replay(scene: &Scene, tool: &Path, file: &Path) -> (Frames, u64) {
    let path = scene.path("again");
    let mut command = scene.far.command(tool);
    command.arg("replay").arg(file).arg(&path).args(["--rate", "max", "--json"]).stdout(Stdio::null());
    let mut replaying = Running::start(&mut command);
    let mut connected = None;
    wait_until("the replay begins", || {
        connected = sealane::Subscriber::connect(&path).ok();
        connected.is_some()
    });
    let (mut subscriber, mut frames, mut messages) = (connected.unwrap(), Frames::default(), 0);
    while let Ok(message) = subscriber.recv_timeout(LONG) {
        messages += 1;
        match Notice::of(&message) {
            None => frames.add(&message, message.missed()),
            Some(_) => frames.lose(message.missed()),
        }
    }
    assert!(replaying.wait().unwrap().success());
    (frames, messages)
}

#[test]
fn the_tools_on_another_host_see_a_camera() {
    let (Some(camera), Some(tool)) = (program("SEALANE_CAMERA"), program("SEALANE_TOOL")) else { return };
    let Some(mut scene) = Scene::new() else { return };
    let (remote, file) = (scene.path("remote"), scene.path("frames.mcap"));
    let mut command = scene.far.command(&tool);
    command.arg("record").arg(&remote).arg("-o").arg(&file).args(["--wait", "60s", "--json"]);
    let mut recorder = Running::start(command.stdout(Stdio::piped()));
    // It is waited for: what the ring holds for it is its high water.
    let subscriber = Subscriber::connect(&remote, LONG).unwrap();
    let watcher = thread::spawn(move || watch(subscriber));
    let camera = scene.film(&camera, 1_000_000);

    let is_more = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    let mut seen = None;
    wait_until("top shows the topic's publisher at work, and the recorder", || {
        seen = top(&scene.far, &tool, scene.importer.id()).and_then(|(publisher, rows)| {
            let row = rows.into_iter().find(|row| row["to"][0]["pid"] == recorder.id())?;
            // Notices have some bytes only.
            let has_frames = publisher["bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20);
            (has_frames && is_more(&publisher["messages_per_second"])).then_some((publisher, row))
        });
        seen.is_some()
    });
    let (publisher, recording) = seen.unwrap();
    for field in ["messages", "bytes", "bytes_per_second", "high_water"] {
        assert!(is_more(&publisher[field]), "{field}: {publisher:#}");
    }
    assert_eq!(publisher["ring"], json!(4 << 20));
    assert!(publisher["waits"].is_u64(), "{publisher:#}");
    assert!(publisher["paths"].as_array().unwrap().contains(&json!(remote)), "{publisher:#}");
    assert_eq!(recording["kind"], "overrunning");
    assert!(recording["missed"].is_u64() && recording["fill"].is_u64(), "{recording:#}");

    drop(camera);
    let live = watcher.join().unwrap();
    // The end of its input ends the bridge, and that the recording.
    drop(scene.importer.stdin.take());
    let summary: Value = serde_json::from_reader(recorder.stdout.take().unwrap()).unwrap();
    assert!(recorder.wait().unwrap().success());
    assert_eq!(summary["reason"], "publisher_ended");
    let (mut filed, messages) = replay(&scene, &tool, &file);
    filed.lose(summary["missed_at_end"].as_u64().unwrap());
    assert_eq!(summary["messages"], messages);
    assert_eq!(filed.next, live.next, "both have seen the end");
    assert!(!filed.sums.is_empty());
    for (number, sum) in filed.sums {
        assert!(live.sums.get(&number).is_none_or(|other| *other == sum), "frame {number}");
    }
}
