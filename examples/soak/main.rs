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
#![forbid(unsafe_code)]

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
    time::{Duration, Instant},
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
    /// Be the other process (the first one starts it)
    #[arg(long, hide = true)]
    peer: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.peer { peer(&options) } else { watch(&options) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let who = if options.peer { "soak, the other process" } else { "soak" };
            let status = failed(who, &*error);
            if !options.peer && !error.is::<Lost>() {
                let _ = print("verdict: FAILED");
            }
            status
        }
    }
}

impl Options {
    fn builder(&self) -> Result<sealane::Builder> {
        let capacity = usize::try_from(self.ring_capacity)?;
        Ok(Channel::builder().ring_capacity(capacity).max_fds(script::MOST_FDS))
    }
}

/// The other process: sends until the order to stop comes.
fn peer(options: &Options) -> Result<()> {
    let seed = options.seed.ok_or("the seed of this process expected, none found")?;
    let channel = options.builder()?.inherited()?;
    let before = Reading::of("self")?;
    let progress = Progress::default();
    Traffic { seeds: [script::THERE ^ seed, seed], progress: &progress }.run(channel)?;
    // The channel had three descriptors.
    Reading::of("self")?.settled(before.descriptors.saturating_sub(3))
}

fn watch(options: &Options) -> Result<()> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_nanos() & u128::from(u64::MAX))?,
    };
    print(format_args!("seed {seed}"))?;
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
            for second in 1..=options.seconds {
                let end = begun + Duration::from_secs(second.into());
                while Instant::now() < end && !running.is_finished() {
                    let left = end.saturating_duration_since(Instant::now());
                    thread::sleep(left.min(Duration::from_millis(50)));
                }
                if running.is_finished() {
                    break;
                }
                here.note(Reading::of("self")?);
                there.note(Reading::of(&child.id().to_string())?);
                print(format_args!("{second:>6} s: {progress}; here {here}, there {there}"))?;
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
