//! Two processes send each other every kind of message, for as long as you like, and check all of it.
//!
//! Both do the same: one thread sends messages that the other side can compute (`script.rs`), one receives and compares them,
//! one holds payloads for a while and releases them in any order (`traffic.rs`). This process watches both (`process.rs`):
//! neither descriptors nor memory may grow.
//!
//! ```text
//!  soak                                             the same program, started with --peer
//!  ├─ sending ═══ messages, requests, replies ════► receiving ─┬► holding
//!  ├─ holding ◄┬─ receiving ◄═══════════════════════ sending   │
//!  └─ watching ┴───────────────── /proc ───────────────────────┘
//! ```
//!
//! With `--fanout` this process publishes the same messages to eight others at most (`fanout.rs`), which come and go, are stopped
//! and killed.
#![forbid(unsafe_code)]

mod fanout;
#[path = "../shared/output.rs"]
mod output;
mod process;
mod script;
mod traffic;

use std::{
    error::Error,
    process::{Command, ExitCode},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Instant,
};

use clap::Parser;
use output::{Lost, failed, print};
use process::{Reading, Trend};
use sealane::Channel;
use traffic::{Progress, Traffic};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Sends everything both ways between two processes, checks all of it, and watches descriptors and memory.
#[derive(Parser)]
#[command(name = "soak")]
struct Options {
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Bytes of each ring
    #[arg(long, default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(4096..))]
    ring_capacity: u32,
    /// Seed of the messages; the same seed makes the same messages, but for replies [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Publish to subscribers that join, leave, are stopped and killed, instead
    #[arg(long)]
    fanout: bool,
    /// Be the other process (the first one starts it)
    #[arg(long, hide = true)]
    peer: bool,
    /// Be a subscriber with this policy (the publisher starts it)
    #[arg(long, hide = true)]
    subscriber: Option<String>,
    /// Most messages that a subscriber receives
    #[arg(long, hide = true, default_value_t = u64::MAX)]
    messages: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let is_child = options.peer || options.subscriber.is_some();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let who = if is_child { "soak, the other process" } else { "soak" };
            let status = failed(who, &*error);
            if !is_child && !error.is::<Lost>() {
                let _ = print("verdict: FAILED");
            }
            status
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.peer || options.subscriber.is_some() {
        let seed = options.seed.ok_or("the seed of this process expected, none found")?;
        return match &options.subscriber {
            Some(policy) => fanout::subscribe(options, seed, policy),
            None => peer(options, seed),
        };
    }
    let seed = match options.seed {
        Some(seed) => seed,
        None => u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_nanos() & u128::from(u64::MAX))?,
    };
    print(format_args!("seed {seed}"))?;
    if options.fanout { fanout::publish(options, seed) } else { watch(options, seed) }
}

impl Options {
    /// How often both processes are read.
    fn readings(&self) -> u32 {
        self.seconds.saturating_mul(process::A_SECOND)
    }

    fn builder(&self) -> Result<sealane::Builder> {
        let capacity = usize::try_from(self.ring_capacity)?;
        Ok(Channel::builder().ring_capacity(capacity).max_fds(script::MOST_FDS))
    }
}

/// The other process: sends until the order to stop comes.
fn peer(options: &Options, seed: u64) -> Result<()> {
    let channel = options.builder()?.inherited()?;
    let before = Reading::of("self")?;
    let progress = Progress::default();
    Traffic { seeds: [script::THERE ^ seed, seed], progress: &progress }.run(channel)?;
    // The channel had three descriptors.
    Reading::of("self")?.settled(before.descriptors.saturating_sub(3))
}

fn watch(options: &Options, seed: u64) -> Result<()> {
    let before = Reading::of("self")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "--peer",
        "--seed",
        &seed.to_string(),
        "--ring-capacity",
        &options.ring_capacity.to_string(),
    ]);
    let (channel, mut child) = options.builder()?.spawn(command)?;
    let progress = Progress::default();
    let traffic = Traffic { seeds: [seed, script::THERE ^ seed], progress: &progress };
    let (mut here, mut there) = (Trend::default(), Trend::default());
    let result = thread::scope(|scope| {
        let running = scope.spawn(move || traffic.run(channel));
        let begun = Instant::now();
        let mut observe = || {
            for reading in 1..=options.readings() {
                let end = begun + reading * process::EVERY;
                thread::sleep(end.saturating_duration_since(Instant::now()));
                if running.is_finished() {
                    break;
                }
                here.note(Reading::of("self")?);
                there.note(Reading::of(&child.id().to_string())?);
                if let Some(second) = process::second(reading) {
                    print(format_args!("{second:>6} s: {progress}; here {here}, there {there}"))?;
                }
            }
            Ok(())
        };
        let observed = observe();
        // The traffic ends first, also after a failure.
        progress.stop.store(true, Relaxed);
        running.join().map_err(|_| "a thread has panicked")?.and(observed)
    });
    // A peer that has failed has reported it; this process does not wait for it.
    let status = child.wait()?;
    result?;
    if !status.success() {
        return Err(format!("the other process has failed: {status}").into());
    }
    Reading::of("self")?.settled(before.descriptors)?;
    here.judge("here")?;
    there.judge("there")?;
    print(format_args!("in all: {progress}"))?;
    Ok(print("verdict: all messages whole and in order, descriptors and memory flat")?)
}
