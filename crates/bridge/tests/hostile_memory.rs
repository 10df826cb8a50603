//! The memory of an importer that a hostile peer floods, in a process of its own.

mod common;
mod foe;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{LONG, endpoint, free_port, quick};
use foe::{connect, foreign};
use sealane::{Builder, Slow};
use sealane_bridge::{Bridge, Network, Subscriber, wire::Kind};

const ENDPOINT: &str = "SEALANE_TEST_ENDPOINT";
const MEMORY: usize = 4 << 20;

/// An importer whose subscriber reads nothing, so that all that comes has to wait. Says, for each line, what was dropped and refused.
#[test]
#[ignore = "a process that other tests start"]
fn importer() {
    let Ok(endpoint) = env::var(ENDPOINT) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remote");
    let mut settings = quick();
    (settings.memory, settings.ring, settings.slow) = (MEMORY, 64 << 10, Slow::Wait(Duration::MAX));
    let network = Network::default().listen(&endpoint);
    let bridge = Bridge::open(&network).unwrap().import("stats", &path, &settings).unwrap();
    let patient = Builder::default().slow(settings.slow);
    let _subscriber = Subscriber::connect_with(&patient, &path, LONG).unwrap();
    for _ in io::stdin().lines() {
        let status = &bridge.status()[0];
        assert!(status.waiting <= u64::try_from(MEMORY).unwrap(), "{status:?}");
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "\ncounts {} {}", status.count.dropped, status.count.malformed).unwrap();
        stdout.flush().unwrap();
    }
}

struct Importer {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Importer {
    fn start(endpoint: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["importer", "--exact", "--ignored", "--nocapture"]).env(ENDPOINT, endpoint);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut importer = Self { process, lines };
        importer.counts();
        importer
    }

    /// Messages that were dropped, and samples that were malformed.
    fn counts(&mut self) -> (u64, u64) {
        writeln!(self.process.stdin.as_mut().unwrap()).unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the importer has ended");
            if let Some((dropped, malformed)) =
                line.strip_prefix("counts ").and_then(|counts| counts.trim().split_once(' '))
            {
                return (dropped.parse().unwrap(), malformed.parse().unwrap());
            }
        }
    }

    /// The most memory that it has had, in bytes.
    fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Zenoh has its own buffers besides: for each peer, and for one message that is being put together.
const ZENOHS: usize = 32 << 20;

#[test]
fn what_waits_in_an_importer_takes_the_memory_that_was_set() {
    let there = endpoint(free_port());
    let mut importer = Importer::start(&there);
    let foe = connect(&[&there]);
    let before = importer.peak();
    let mut number = 0;
    let mut flood = |kind: Kind, len: usize, count: u64| {
        for _ in 0..count {
            foe::put(&foe, "stats", Some(&foreign(kind, 7, number)), &vec![0; len]);
            number += 1;
        }
    };
    // Small messages each come in a buffer of 64 KiB of Zenoh's.
    flood(Kind::Message, 100, 40_000);
    flood(Kind::Message, 70_000, 500);
    // Neither fits into half of the ring, or into a pack.
    flood(Kind::Message, 1_500_000, 100);
    flood(Kind::Pack, 65_529, 500);
    common::wait_until("the malformed are counted", || importer.counts().1 == 600);
    assert!(importer.counts().0 > 20_000);
    let grown = importer.peak() - before;
    println!("{} KiB more", grown >> 10);
    assert!(grown < MEMORY * 2 + ZENOHS, "{grown} bytes more");
}
