//! `sealane record`: a subscriber that writes what it receives to a file, and never holds its publisher up.

mod batch;
mod files;
mod joining;
mod output;
mod repair;
mod salvage;
mod session;
mod summary;
mod tally;
mod target;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use bytesize::ByteSize;
use sealane::Subscriber;

use self::{
    joining::{source, subscribe},
    output::Heading,
    session::{Bounds, Report, Session},
    target::Target,
};
use crate::{
    output::line,
    progress::{Progress, say},
    recording::layout::MAX_PAYLOAD,
    stop::Stop,
    units::{duration, size},
};

/// Records what a publisher publishes into an MCAP file.
///
/// The recorder never holds its publisher up: where it is too slow it misses messages, and the file says how many. Descriptors are
/// counted, and not recorded.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Path of the publisher, or its abstract name (`@name`).
    #[arg(required_unless_present = "repair")]
    path: Option<PathBuf>,
    /// File to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE", required_unless_present = "repair")]
    output: Option<PathBuf>,
    /// Ends the file before it is larger than this (1GiB, 500MB). With `--split` it is the limit of each file, not of all.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "repair")]
    max_size: Option<ByteSize>,
    /// Ends the file after this time (10m, 1h 30m). With `--split` it is the limit of each file, not of all.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "repair")]
    max_duration: Option<Duration>,
    /// Begins another file (FILE-0001.mcap …) at `--max-size` or `--max-duration`, in place of an end. The recording goes on until
    /// the publisher ends, Ctrl-C, or `--total-duration`.
    #[arg(long, conflicts_with = "repair")]
    split: bool,
    /// With `--split`: keeps the last COUNT files, and deletes the oldest one when another begins, for ever.
    #[arg(long, value_name = "COUNT", requires = "split", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Ends the whole recording after this time, however many files it has.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "repair")]
    total_duration: Option<Duration>,
    /// Overwrites files that exist.
    #[arg(long)]
    force: bool,
    /// Waits for a publisher that is not there yet, for this time at most.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "repair")]
    wait: Option<Duration>,
    /// Waits for the disk at each flush, once a second or more often, so that a power cut loses no more than a kill.
    #[arg(long, conflicts_with = "repair")]
    sync: bool,
    /// Makes a whole file of one whose recorder was killed: the same, or the one that `-o` names.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    repair: Option<PathBuf>,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  sealane record /run/user/1000/frames -o frames.mcap
  sealane record @readings -o day.mcap --split --max-size 1GiB --total-duration 24h --wait 1m
  sealane record @readings -o last.mcap --split --max-duration 1m --keep 10
  sealane record /run/user/1000/frames -o - | ssh host 'cat > frames.mcap'
  sealane record --repair frames.mcap";

/// The shortest time of a file that another one follows.
const SHORTEST_PART: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(file) = &options.repair {
        return repair::run(file, options.output.as_deref(), options.force, options.json);
    }
    let (Some(path), Some(output)) = (&options.path, &options.output) else {
        bail!("a path and -o FILE expected");
    };
    let target = Target::new(output.clone(), options.force);
    target.check()?;
    let bounds = Bounds {
        max_size: options.max_size.map(|size| size.as_u64()),
        max_duration: options.max_duration,
        split: options.split,
        keep: options.keep.map(usize::try_from).transpose()?,
        total_duration: options.total_duration,
    };
    if bounds.split && bounds.max_size.is_none() && bounds.max_duration.is_none() {
        bail!("--split: --max-size or --max-duration expected, neither found");
    }
    if bounds.split && bounds.max_duration.is_some_and(|duration| duration < SHORTEST_PART) {
        bail!("--split: --max-duration of 1s or more expected, as each time ends a file");
    }
    if bounds.split && target.is_stdout() {
        bail!("--split: a file expected (-o FILE), standard output found");
    }
    let stop = Stop::on_signals()?;
    let Some(subscriber) = subscribe(path, options, &stop)? else {
        bail!("ended by a signal before a publisher was there: {}", path.display());
    };
    let heading = heading(path, &subscriber);
    let to_stdout = target.is_stdout();
    let begin = format!(
        "recording from {} to {}; Ctrl-C ends it",
        source(path, &subscriber),
        name(output, to_stdout)
    );
    let progress = Progress::begin("missed", options.json);
    let session = Session::begin(subscriber, target, bounds, heading, options.sync, progress)?;
    say(&begin, options.json);
    let (report, error) = session.run(&stop);
    let text = if options.json { serde_json::to_string(&report)? } else { describe(&report) };
    let told = line(&text, to_stdout);
    match error {
        None => told.map(|()| ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

fn name(output: &Path, to_stdout: bool) -> String {
    if to_stdout { "standard output".to_owned() } else { output.display().to_string() }
}

fn heading(path: &Path, subscriber: &Subscriber) -> Heading {
    let path = path.to_string_lossy();
    let separator = if path.starts_with('/') { "" } else { "/" };
    let credentials = subscriber.peer().credentials();
    let limits = subscriber.limits();
    let values = [
        ("version", Some("1".to_owned())),
        ("publisher", Some(path.clone().into_owned())),
        ("publisher_pid", credentials.pid.map(|pid| pid.to_string())),
        ("publisher_uid", Some(credentials.uid.to_string())),
        ("begun", Some(humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string())),
        (MAX_PAYLOAD, Some(limits.max_payload.to_string())),
        ("part", Some("0".to_owned())),
    ];
    let about: BTreeMap<_, _> =
        values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Heading { topic: format!("/sealane{separator}{path}"), about }
}

fn describe(report: &Report) -> String {
    let Report { reason, tally, missed_at_end, seconds, files } = report;
    let missed = tally.missed.saturating_add(*missed_at_end);
    let mut parts = vec![format!(
        "recorded {} messages ({} of payloads, {} of control bytes) in {seconds:.1} s, missed {missed}",
        tally.messages,
        ByteSize(tally.payload_bytes),
        ByteSize(tally.control_bytes),
    )];
    if tally.descriptors > 0 {
        parts.push(format!("{} descriptors came along, and were not recorded", tally.descriptors));
    }
    parts.push(format!("the end: {}", reason.describe()));
    [vec![parts.join("; ")], files.lines()].concat().join("\n")
}
