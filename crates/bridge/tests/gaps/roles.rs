//! The programs that the scenarios start and kill: a publisher, and bridges.

use std::{
    any::type_name,
    env,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use sealane::{Builder, Event, Publisher, Slow};
use sealane_bridge::{Bridge, Network, Settings, WhenBehind};
use serde::{Deserialize, Serialize};

use crate::{
    common::LONG,
    hosts::Running,
    times::{is_nightly, secs},
};

/// What a role is to do, as JSON.
const PART: &str = "SEALANE_TEST_PART";

/// A bridge that exports or imports one topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Carrier {
    pub(crate) listen: Option<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) path: PathBuf,
    pub(crate) imports: bool,
    pub(crate) behind: Behind,
    /// `None`: overrun.
    pub(crate) slow: Option<Duration>,
    pub(crate) memory: usize,
    pub(crate) ring: usize,
    pub(crate) lease: Duration,
}

/// [`WhenBehind`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Behind {
    Oldest,
    Newest,
    Wait(Duration),
}

/// A publisher of numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) progress: PathBuf,
    pub(crate) run: u64,
    /// Between two messages; zero is as fast as it can.
    pub(crate) interval: Duration,
    pub(crate) max_payload: usize,
    pub(crate) slow: Option<Duration>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Carrier(Carrier),
    Source(Source),
}

/// Starts this test program again, as one of its roles.
fn start<Test: Fn()>(_: Test, part: &Part) -> Running {
    // A function's type is named by its path: the crate, then libtest's name.
    let (_, name) = type_name::<Test>().split_once("::").expect("a path");
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([name, "--exact", "--ignored", "--nocapture"]);
    command.env(PART, serde_json::to_string(part).unwrap()).stdin(Stdio::piped()).stdout(Stdio::null());
    Running::start(&mut command)
}

impl Carrier {
    pub(crate) fn start(&self) -> Running {
        start(role, &Part::Carrier(self.clone()))
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.slow = slow(self.slow);
        settings.memory = self.memory;
        settings.ring = self.ring;
        settings.beat = secs(0.2);
        settings.silence = secs(2.0);
        settings.when_behind = match self.behind {
            Behind::Oldest => WhenBehind::DropOldest,
            Behind::Newest => WhenBehind::DropNewest,
            Behind::Wait(time) => WhenBehind::Wait(time),
        };
        settings
    }

    fn run(&self) {
        let mut network = Network::default().lease(self.lease).max_message(1 << 20);
        // What is waited for between two attempts to connect is scaled too.
        if !is_nightly() {
            network = network.zenoh(
                "{ connect: { retry: { period_init_ms: 10, period_max_ms: 50, period_increase_factor: 2 } } }",
            );
        }
        if let Behind::Wait(time) = self.behind {
            network = network.wait(time);
        }
        if let Some(endpoint) = &self.listen {
            network = network.listen(endpoint);
        }
        network = self.connect.iter().fold(network, |network, endpoint| network.connect(endpoint));
        let settings = self.settings();
        let open = || {
            let bridge = Bridge::open(&network)?;
            if self.imports {
                bridge.import("numbers", &self.path, &settings)
            } else {
                bridge.export("numbers", &self.path, &settings)
            }
        };
        // The port of a bridge that was killed may still be taken.
        let deadline = Instant::now() + LONG;
        let bridge = loop {
            match open() {
                Ok(bridge) => break bridge,
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        if env::var_os("SEALANE_TEST_STATUS").is_some() {
            thread::spawn(move || {
                loop {
                    thread::sleep(Duration::from_secs(2));
                    eprintln!("{:?} {:?}", bridge.peers(), bridge.status());
                }
            });
        }
        wait_for_end();
    }
}

/// Blocks until the test lets go of this program.
fn wait_for_end() {
    for line in std::io::stdin().lines() {
        drop(line);
    }
}

fn slow(patience: Option<Duration>) -> Slow {
    patience.map_or(Slow::Overrun, Slow::Wait)
}

/// The length of the payload of message `number`: none for some, and all lengths up to the largest.
pub(crate) fn payload_len(number: u64, max: usize) -> Option<usize> {
    if max == 0 || number.is_multiple_of(3) {
        return None;
    }
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    // Most are short.
    let max = if number.is_multiple_of(5) { max } else { max.min(256) };
    Some(usize::try_from(mixed).unwrap() % (max + 1))
}

impl Source {
    fn publish(&self, publisher: &mut Publisher, number: u64, progress: &Progress) {
        let control = [self.run.to_le_bytes(), number.to_le_bytes()].concat();
        progress.note(0, number + 1);
        match payload_len(number, self.max_payload) {
            None => publisher.send(&control).unwrap(),
            Some(len) => {
                let mut loan = publisher.loan(len).unwrap();
                loan.fill(number.to_le_bytes()[0]);
                loan.send_with(&control).unwrap();
            }
        }
        progress.note(8, number + 1);
    }

    fn run(&self) {
        let builder = Builder::default().slow(slow(self.slow)).ring_capacity(1 << 20).max_subscribers(8);
        let deadline = Instant::now() + LONG;
        let mut publisher = loop {
            match builder.publish(&self.path) {
                Ok(publisher) => break publisher,
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
            thread::sleep(Duration::from_millis(1));
        };
        let progress = Progress(File::options().write(true).open(&self.progress).unwrap());
        let (stopped, extra) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, more) = (Arc::clone(&stopped), Arc::clone(&extra));
        thread::spawn(move || {
            for line in std::io::stdin().lines() {
                match line.unwrap().as_str() {
                    "stop" => stop.store(true, Relaxed),
                    line => _ = more.fetch_add(line.parse().unwrap(), Relaxed),
                }
            }
            std::process::exit(0);
        });
        let mut next = Instant::now();
        let mut number = 0;
        loop {
            let is_stopped = stopped.load(Relaxed);
            if is_stopped {
                progress.note(16, 1);
            }
            while let Some(event) = publisher.next_event().unwrap() {
                if let Event::Joined(_) = event {
                    progress.note(24, 1);
                }
            }
            if !is_stopped || extra.load(Relaxed) > 0 {
                self.publish(&mut publisher, number, &progress);
                number += 1;
                if is_stopped {
                    extra.fetch_sub(1, Relaxed);
                }
                next += self.interval;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            } else {
                publisher.wait_event(Duration::from_millis(1)).unwrap();
            }
        }
    }
}

/// How far a publisher is, in a file: the messages that it began, and those that it ended, to publish; whether it has stopped, and
/// whether a bridge has joined.
struct Progress(File);

impl Progress {
    fn note(&self, at: u64, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), at).unwrap();
    }
}

/// A publisher that runs.
pub(crate) struct RunningSource {
    process: Running,
    progress: PathBuf,
}

impl RunningSource {
    pub(crate) fn start(source: &Source) -> Self {
        File::create(&source.progress).unwrap().write_all(&[0; 32]).unwrap();
        Self { process: start(role, &Part::Source(source.clone())), progress: source.progress.clone() }
    }

    fn read(progress: &Path) -> [u64; 4] {
        let bytes = std::fs::read(progress).unwrap();
        [0, 8, 16, 24].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
    }

    /// Messages that were published.
    pub(crate) fn sent(&self) -> u64 {
        Self::read(&self.progress)[1]
    }

    /// Waits until a bridge has joined.
    pub(crate) fn wait_for_bridge(&self) {
        crate::common::wait_until("a bridge joins", || Self::read(&self.progress)[3] == 1);
    }

    fn say(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Publishes no more, and stays. Returns the messages that were published.
    pub(crate) fn stop(&mut self) -> u64 {
        self.say("stop");
        let progress = self.progress.clone();
        crate::common::wait_until("the publisher stops", || Self::read(&progress)[2] == 1);
        self.sent()
    }

    /// Publishes some more, after a stop.
    pub(crate) fn more(&mut self, count: u64) {
        self.say(&count.to_string());
    }

    /// Kills it. Returns the messages that were published: two numbers, if it was killed while it published one.
    pub(crate) fn kill(mut self) -> (u64, u64) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let [began, ended, ..] = Self::read(&self.progress);
        (ended, began)
    }
}

/// What a child of a scenario does.
#[test]
#[ignore = "a process that other tests start"]
fn role() {
    let Ok(part) = env::var(PART) else { return };
    match serde_json::from_str(&part).unwrap() {
        Part::Carrier(carrier) => carrier.run(),
        Part::Source(source) => source.run(),
    }
}
