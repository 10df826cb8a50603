//! A decoder that may crash: untrusted images are decoded by sandboxed workers, and every file gets its report.
//!
//! The pool opens each file and sends its descriptor as a request. A worker decodes into the loan of its reply, so the pixels are where the
//! pool reads them. A worker that crashes, hangs or misbehaves is ended and started again, and its file is tried once more.
//!
//! ```text
//!  pool (this process)                                    workers (this program again, --worker)
//!  folder ─► files: opened ─► a thread ┄┄ descriptor ┄┄┄► decode ─► loan ─┐  no files, no network,
//!                              │  ▲                                      │  no programs, bounded memory
//!            report ◄──────────┤  └════════════ pixels ◄═════════════════┘
//!            thumbnails ◄──────┘  supervisor: timeout, restart, back-off
//! ```
//!
//! Without `--input`, the files are made here: good ones, and some that are broken in ten ways.
#![forbid(unsafe_code)]

mod decode;
mod files;
mod in_process;
mod measure;
#[path = "../shared/output.rs"]
mod output;
mod pixels;
mod pool;
mod protocol;
mod report;
mod samples;
#[path = "../shared/sandbox.rs"]
mod sandbox;
mod supervisor;
mod usage;
mod worker;

use std::{
    error::Error,
    fs,
    num::{NonZeroU64, NonZeroUsize},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Args, Parser};
use sealane::Builder;

use crate::{files::shown, output::failed, protocol::Trick, report::Report, samples::Samples};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Decodes the untrusted images of a folder in sandboxed processes, and reports what happened to each file.
#[derive(Clone, Parser)]
#[command(name = "decoder")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Options {
    /// Folder of files to decode; folders in it are not entered [default: files that are made for the purpose]
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// How many files to make without --input; every tenth is broken
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "input")]
    samples: usize,
    /// Processes that decode [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Attempts to decode a file whose worker is lost
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// Seconds after which the pool gives up where no worker can be started
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    give_up: Duration,
    /// Replace a worker after N files: one that a file has taken over can falsify what comes after it [default: never]
    #[arg(long, value_name = "N")]
    files_per_worker: Option<NonZeroU64>,
    /// Save a thumbnail of each image in this folder, which is made
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Print the report as JSON: an object a line for each file, and one for the whole
    #[arg(long)]
    json: bool,
    /// Let every Nth request crash its worker
    #[arg(long, value_name = "N")]
    crash_every: Option<NonZeroU64>,
    /// The way in which they crash, or misbehave [default: one of the first four after the other]
    #[arg(long, value_name = "WAY", requires = "crash_every")]
    crash_by: Option<Trick>,
    /// Let every Nth request hang
    #[arg(long, value_name = "N")]
    hang_every: Option<NonZeroU64>,
    /// Let a worker try at every Nth request what its sandbox forbids
    #[arg(long, value_name = "N")]
    escape_every: Option<NonZeroU64>,
    /// Show what workers write to their standard error
    #[arg(long)]
    verbose: bool,
    /// Decode in this process, without workers, to compare
    #[arg(long, conflicts_with_all = ["workers", "attempts", "files_per_worker", "crash_every", "hang_every", "escape_every"])]
    in_process: bool,
    /// Measure what workers cost, with photographs of 12 megapixels, instead
    #[arg(long, conflicts_with_all = ["input", "in_process", "save"])]
    measure: bool,
    #[command(flatten)]
    limits: Limits,
    /// Be a worker (the pool starts it)
    #[arg(long, hide = true)]
    worker: bool,
}

/// What a file may cost. A worker is started with these as its arguments.
#[derive(Clone, Args)]
struct Limits {
    /// Seconds for one file
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// Bytes of a file, at most
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    max_file: u64,
    /// Pixels of an image, at most; a worker's ring has room for two of them, and for those of --keep
    #[arg(long, value_name = "N", default_value_t = 16_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_pixels: u64,
    /// Images that stay in each worker's ring, as a viewer keeps what it shows
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = keep)]
    keep: usize,
}

impl Limits {
    /// Bytes of a worker's ring: the images that are kept, and room for one that is being decoded, wherever the kept ones lie.
    fn ring_capacity(&self) -> usize {
        // Red, green, blue. An image with four channels or 16 bits a sample has fewer pixels, or is refused.
        let image = usize::try_from(self.max_pixels).unwrap_or(usize::MAX).saturating_mul(3);
        Builder::ring_for(image, self.keep)
    }

    fn arguments(&self) -> [String; 4] {
        [
            format!("--timeout={}", self.timeout.as_secs_f64()),
            format!("--max-file={}", self.max_file),
            format!("--max-pixels={}", self.max_pixels),
            format!("--keep={}", self.keep),
        ]
    }
}

impl Options {
    fn workers(&self) -> Result<usize> {
        Ok(self.workers.map_or_else(thread::available_parallelism, Ok)?.get())
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.worker {
        worker::run(&options.limits)
    } else if options.measure {
        measure::run(&options)
    } else {
        run(&options)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(if options.worker { "decoder worker" } else { "decoder" }, &*error),
    }
}

fn run(options: &Options) -> Result<()> {
    if let Some(folder) = &options.save {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", shown(folder)))?;
    }
    let samples = match &options.input {
        Some(_) => None,
        None => Some(Samples::new(options.samples)?),
    };
    let folder = samples.as_ref().map_or(options.input.as_deref(), |samples| Some(samples.folder()));
    let folder = folder.ok_or("a folder expected (--input)")?;
    if options.save.as_deref().is_some_and(|save| is_same(save, folder)) {
        return Err("--save and --input are the same folder: a thumbnail could replace a file".into());
    }
    let listed = |error: std::io::Error| format!("{}: {error}", shown(folder));
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(listed)?;
    files.sort_unstable();

    let report = Report::new(files.len() as u64, options.json)?;
    let workers = if options.in_process {
        in_process::run(options, files.into_iter(), |path, outcome, took| report.file(path, &outcome, took));
        pool::Workers::default()
    } else {
        pool::run(options, files, |path, outcome, took| report.file(path, &outcome, took))?
    };
    report.end(&workers)
}

/// Whether two names are those of one folder.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|about| (about.dev(), about.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let range = 0.001..=3600.0;
    range
        .contains(&seconds)
        .then(|| Duration::from_secs_f64(seconds))
        .ok_or_else(|| "expected 0.001 to 3600".into())
}

fn keep(text: &str) -> std::result::Result<usize, String> {
    let keep: usize = text.parse().map_err(|error| format!("{error}"))?;
    if keep <= 64 { Ok(keep) } else { Err("expected 64 at most".into()) }
}
