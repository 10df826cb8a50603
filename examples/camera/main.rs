//! A camera pipeline and an isolated 3A algorithm (auto-exposure, auto-white-balance; focus is only measured).
//!
//! The pipeline process takes frames, computes their statistics in place in a loan and streams them to an algorithm process
//! that it started; the algorithm sends back how to take the next frame. Neither believes the other.
//!
//! ```text
//!  pipeline                                           algorithm (this program again, or --algorithm-program)
//!  simulation: scene | clip → sensor ─┐
//!  device ────────────────────────────┴─► frame buffer ┄┄┄► buffers: checks a few rows
//!    ▲                (memfd or dmabuf) └► statistics ════► isolated → algorithm (pure)
//!    └───────────────────────────────────── controls ◄──────┘
//! ```
//!
//! With `--publish`, the pipeline is a publisher (`publishing`), and its subscribers (`viewers`) are the algorithm, previews and
//! recorders, whose processes `crew` starts, stops and kills. `shares` says when a buffer is free.
//!
//! `progress` plots what happens while it lasts, `report` collects it, and `story` says it at the end.
#![forbid(unsafe_code)]

mod algorithm;
mod buffers;
mod camera;
mod clip;
mod colour;
mod crew;
mod device;
mod isolated;
#[path = "../shared/output.rs"]
mod output;
mod permitted;
mod picture;
mod pipeline;
mod plot;
mod png;
mod progress;
mod protocol;
mod publishing;
mod report;
#[path = "../shared/sandbox.rs"]
mod sandbox;
mod scene;
mod sensor;
mod shares;
mod simulation;
mod statistics;
mod story;
mod temporary;
mod viewers;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Streams camera statistics to an isolated auto-exposure and auto-white-balance process, and back the controls.
#[derive(Parser)]
#[command(name = "camera")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Options {
    /// A YUV4MPEG2 clip to film, - for standard input (ffmpeg -i FILE -f yuv4mpegpipe -); without it, a built-in scene
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A capture device to film with, as /dev/video0, instead of a clip or the scene; it must give YUYV
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    device: Option<PathBuf>,
    /// How many frames to take; a file that has fewer is played again [default: 300; of a clip: all, once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    frames: Option<u32>,
    /// Frames per second [default: as fast as possible; from a device: 30]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    fps: Option<u32>,
    /// Bytes of statistics a frame, at least: the more, the finer the grid of zones
    #[arg(long, value_name = "SIZE", default_value = "128KiB", value_parser = statistics_bytes)]
    stats_size: usize,
    /// Bytes of the ring that carries the statistics [default: 4MiB, more for bigger statistics]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    ring_capacity: Option<usize>,
    /// Save the first frame and the last in this folder, as first.png and last.png
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Print the report as one JSON object, with all figures, and show no progress
    #[arg(long)]
    json: bool,
    /// Lock the algorithm process in (seccomp, landlock), and let it try to get out with every frame
    #[arg(long)]
    sandbox: bool,
    /// A program to start as the algorithm process instead of this one, such as the one in examples/c
    #[arg(long, value_name = "FILE", conflicts_with = "sandbox")]
    algorithm_program: Option<PathBuf>,
    /// Publish the frames at this path, or at a temporary one, to an algorithm, a preview and a recorder, which come and go
    #[arg(long, value_name = "PATH", num_args = 0..=1, conflicts_with = "algorithm_program")]
    #[expect(clippy::option_option, reason = "without the option, without a path, with one")]
    publish: Option<Option<PathBuf>>,
    /// Be a preview of the pipeline that publishes at this path: it looks at the newest frame again and again
    #[arg(long, value_name = "PATH", conflicts_with_all = ["publish", "input", "device"])]
    preview: Option<PathBuf>,
    /// Be a recorder of the pipeline that publishes at this path: it checks all frames, and the pipeline waits for it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["publish", "input", "device", "preview"])]
    record: Option<PathBuf>,
    /// Be killed when the process ends that started this one, even if this one is stopped then
    #[arg(long, hide = true)]
    attached: bool,
    /// Be the algorithm process (the pipeline starts it)
    #[arg(long, hide = true)]
    algorithm: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (role, result) = if options.algorithm {
        let is_subscriber = options.publish.is_some();
        let result = if is_subscriber { viewers::control(&options) } else { isolated::run(&options) };
        ("camera algorithm", result)
    } else if let Some(path) = &options.preview {
        ("camera preview", viewers::preview(path, &options))
    } else if let Some(path) = &options.record {
        ("camera recorder", viewers::record(path, &options))
    } else {
        let facts = match &options.publish {
            None => pipeline::run(&options),
            Some(path) => publishing::run(&options, path.as_deref()),
        };
        ("camera", facts.and_then(|facts| facts.print(options.json)))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failed(role, &*error),
    }
}

/// A number of bytes such as `4096`, `128KiB` or `4MiB`, 4 GiB at most: all of a ring is allocated at once.
fn bytes(text: &str) -> std::result::Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => return Err(format!("unit {other:?}, expected none, KiB or MiB")),
    };
    let count: usize = digits.parse().map_err(|error| format!("{error}"))?;
    count.checked_mul(unit).filter(|&size| size <= 4 << 30).ok_or_else(|| "expected 4096MiB at most".into())
}

fn statistics_bytes(text: &str) -> std::result::Result<usize, String> {
    let range = 128 << 10..=256 << 20;
    bytes(text)
        .and_then(|size| range.contains(&size).then_some(size).ok_or("expected 128KiB to 256MiB".into()))
}

/// The lowest eight bits.
fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}
