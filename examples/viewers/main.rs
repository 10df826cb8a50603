//! A video clip and its viewers: one process publishes frames, and any number of processes watch.
//!
//! The publisher writes each frame once, into one ring that all viewers read. With `--carrier channels` it writes each frame
//! once for every viewer, into a channel of its own, so that both ways can be compared.
//!
//! ```text
//!  publisher (this process)             the same program, started with --viewer
//!  ├─ clip ──► ring ══ frames ═══╦════► viewer 1 ─┐
//!  │                             ╠════► viewer 2 ─┤
//!  │                             ╚════► viewer N ─┤
//!  └─ table ◄──────── counts, latency, CPU ───────┘
//! ```
//! Every viewer reads every byte of every frame it receives, and compares the sum with the one that came with the frame.
#![forbid(unsafe_code)]

mod carriers;
mod clip;
#[path = "../shared/output.rs"]
mod output;
mod publisher;
mod report;
mod usage;
mod viewer;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use sealane::{Builder, Slow};

use crate::clip::LINE;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Publishes the frames of a clip to viewers in processes of their own, and reports what each process paid for it.
#[derive(Clone, Parser)]
#[command(name = "viewers")]
struct Options {
    /// Processes that watch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    viewers: u32,
    /// Bytes of a generated frame, such as 64KiB or 3MiB: a multiple of 64, 64MiB at most
    #[arg(long, default_value = "3MiB", value_parser = frame_size, conflicts_with = "clip")]
    size: usize,
    /// Frames to publish
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    frames: u64,
    /// Treatment of a viewer that is slow
    #[arg(long, default_value = "wait")]
    policy: Policy,
    /// Frames a second [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    fps: Option<u32>,
    /// Clip to play, again and again, in place of the generated one: 8-bit YUV4MPEG2
    #[arg(long, value_name = "FILE.y4m")]
    clip: Option<PathBuf>,
    /// Way of the frames; both of them, separated by a comma, are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "publisher")]
    carrier: Vec<Carrier>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Be a viewer (the publisher starts it)
    #[arg(long, hide = true)]
    viewer: bool,
}

/// Treatment of a viewer that is slow.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// The publisher waits for it, so that it misses nothing
    Wait,
    /// The publisher does not wait, and the viewer learns how many frames it has missed
    Overrun,
    /// The publisher does not wait, and the viewer always takes the newest frame
    Newest,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carrier {
    /// One publisher, and one ring that all viewers read
    Publisher,
    /// A channel for each viewer
    Channels,
}

/// The name of a value of an option.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
}

impl Options {
    /// Settings of both ends, for frames of `size` bytes: the ring has room for four.
    fn builder(&self, size: usize) -> Builder {
        let ring = Builder::ring_for(size, 2).max(1 << 20);
        let slow = if self.policy == Policy::Wait { Slow::Wait(Duration::MAX) } else { Slow::Overrun };
        let viewers = usize::try_from(self.viewers).unwrap_or(usize::MAX);
        Builder::default()
            .ring_capacity(ring)
            .max_peer_ring_capacity(ring)
            .slow(slow)
            .max_subscribers(viewers)
    }
}

fn frame_size(text: &str) -> std::result::Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => {
            return Err(format!("expected no unit, KiB or MiB, found {other:?}: write 3MiB, for instance"));
        }
    };
    let count: usize = digits
        .parse()
        .map_err(|_| format!("expected a number of bytes, found {text:?}: write 3MiB, for instance"))?;
    let size = count.saturating_mul(unit);
    let fits = (LINE..=64 << 20).contains(&size) && size.is_multiple_of(LINE);
    fits.then_some(size).ok_or_else(|| {
        format!("expected a multiple of {LINE} from {LINE} to 64MiB, found {text}: choose another size")
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.policy != Policy::Wait && options.carrier.contains(&Carrier::Channels) {
        let policy = name(&options.policy);
        let message = format!(
            "expected --policy wait with --carrier channels, found {policy}: a channel loses nothing. Leave one of them out"
        );
        Options::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    let (who, result) = if options.viewer {
        ("viewers, a viewer", viewer::run(&options))
    } else {
        ("viewers", publisher::run(&options))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failed(who, &*error),
    }
}
