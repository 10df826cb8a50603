//! How fast this machine moves payloads between two processes: over sealane, and over bare sockets.
//!
//! This process writes every payload, and the other adds up its bytes, over each carrier alike. The carriers take turns, so
//! that other load on the machine meets all of them.
//!
//! ```text
//!  sender                                        the same program, started with --reader
//!  ├─ orders, sealane's payloads ══ channel ═══► ├─ adds up, compares
//!  ├─ payloads ─── SOCK_SEQPACKET ─────────────► │
//!  ├─ payloads ─── SOCK_STREAM ────────────────► │
//!  └─ time ◄══════ what a batch took ═══ channel ┘
//! ```
#![forbid(unsafe_code)]

mod carriers;
#[path = "../shared/output.rs"]
mod output;
mod reader;
mod report;
mod sender;

use std::{error::Error, process::ExitCode};

use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures how fast payloads of one size go from process to process, over sealane and over bare sockets.
#[derive(Parser)]
#[command(name = "throughput")]
struct Options {
    /// Bytes of a payload, such as 64, 4KiB, 1MiB: a multiple of 8, 64MiB at most
    #[arg(long, default_value = "64KiB", value_parser = payload_size)]
    size: usize,
    /// How long to measure, in all
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Bytes of sealane's ring, at least four payloads [default: 4MiB, more for bigger payloads]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    ring_capacity: Option<usize>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Be the process that reads (the other one starts it)
    #[arg(long, hide = true)]
    reader: bool,
}

/// A number of bytes such as `64`, `4KiB` or `1MiB`, 1 GiB at most: all of a ring is allocated at once.
fn bytes(text: &str) -> std::result::Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => return Err(format!("expected no unit, KiB or MiB, found {other:?}")),
    };
    let count: usize = digits.parse().map_err(|_| format!("expected a number, found {digits:?}"))?;
    count.checked_mul(unit).filter(|&size| size <= 1 << 30).ok_or_else(|| "expected 1024MiB at most".into())
}

fn payload_size(text: &str) -> std::result::Result<usize, String> {
    let size = bytes(text)?;
    let fits = (8..=64 << 20).contains(&size) && size.is_multiple_of(8);
    fits.then_some(size)
        .ok_or_else(|| format!("expected a multiple of 8 from 8 to 64MiB, found {size} bytes"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (who, result) = if options.reader {
        ("throughput, the reader", reader::run(&options))
    } else {
        ("throughput", sender::run(&options))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failed(who, &*error),
    }
}

/// Keeps this process to a CPU of its own, where there are two: the scheduler takes its time to part two that are busy.
fn keep_to_a_cpu(last: bool) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let cpu = if last { cpus.next_back() } else { cpus.next() };
    let mut own = CpuSet::new();
    own.set(cpu.ok_or("a CPU to run on expected, found none")?);
    Ok(sched_setaffinity(None, &own)?)
}
