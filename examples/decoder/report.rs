//! The report: a line for each file when it is done, and a summary.

use std::{
    io::{IsTerminal, stderr},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::{
    Result,
    files::shown,
    output::{Lost, note, print},
    pool::{Outcome, Workers},
    sandbox::Sandbox,
    usage::{Usage, descriptors},
};

/// How files ended, and what of this process grew meanwhile.
#[derive(Debug, Default)]
struct Counts {
    decoded: u64,
    /// Decoded, but not at the first attempt.
    again: u64,
    refused: u64,
    not_opened: u64,
    not_saved: u64,
    lost: u64,
    not_tried: u64,
    first_descriptors: Option<usize>,
    most_descriptors: usize,
    /// The first line that could not be printed. The rest is decoded all the same.
    unprinted: Option<Lost>,
}

/// The report of a run.
pub(crate) struct Report {
    json: bool,
    bar: ProgressBar,
    begin: Instant,
    counts: Mutex<Counts>,
}

impl Report {
    pub(crate) fn new(files: u64, json: bool) -> Result<Self> {
        let bar = ProgressBar::new(files);
        if json || !stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files, {per_sec}, {eta} left")?);
        Ok(Self { json, bar, begin: Instant::now(), counts: Mutex::default() })
    }

    /// Prints what happened to a file.
    pub(crate) fn file(&self, path: &Path, outcome: &Outcome, took: Duration) {
        let (word, details) = match outcome {
            Outcome::Decoded(shape, 1) => ("decoded", format!("{} x {}", shape.width, shape.height)),
            Outcome::Decoded(shape, attempt) => {
                ("decoded", format!("{} x {}, at attempt {attempt}", shape.width, shape.height))
            }
            Outcome::Refused(reason) => ("refused", reason.clone()),
            Outcome::NotOpened(error) => ("not opened", error.to_string()),
            Outcome::NotSaved(reason) => ("not saved", reason.clone()),
            Outcome::Lost(failure, 1) => ("lost", failure.to_string()),
            Outcome::Lost(failure, attempts) => ("lost", format!("{failure}, {attempts} times")),
            Outcome::NotTried => ("not tried", "there is no worker left".into()),
        };
        let milliseconds = took.as_secs_f64() * 1000.0;
        // Names and reasons come from strangers: nothing of them is obeyed by a terminal.
        let (name, details) = (shown(path), details.escape_debug().to_string());
        let line = if self.json {
            json!({ "file": name, "outcome": word, "details": details, "milliseconds": milliseconds })
                .to_string()
        } else {
            format!("{word:10} {name}  {details}  ({milliseconds:.1} ms)")
        };
        let descriptors = descriptors();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(outcome, descriptors);
        if counts.unprinted.is_none() {
            counts.unprinted = self.bar.suspend(|| print(line)).err();
        }
        self.bar.inc(1);
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// If there are files that were neither decoded nor refused, or if the report could not be printed.
    pub(crate) fn end(self, workers: &Workers) -> Result<()> {
        self.bar.finish_and_clear();
        let took = self.begin.elapsed().as_secs_f64();
        let mut counts = self.counts.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(lost) = counts.unprinted.take() {
            return Err(lost.into());
        }
        print_summary(self.json, &counts, workers, took)?;
        if let Some(reason) = &workers.gave_up {
            note(format_args!("decoder: {}", reason.escape_debug()));
        }
        match (counts.lost, counts.not_tried, counts.not_saved) {
            (0, 0, 0) => Ok(()),
            (lost, not_tried, not_saved) => {
                Err(format!("{lost} files lost, {not_tried} not tried, {not_saved} thumbnails not saved")
                    .into())
            }
        }
    }
}

fn print_summary(json: bool, counts: &Counts, workers: &Workers, took: f64) -> Result<()> {
    let mut starts = workers.starts.clone();
    starts.sort_unstable();
    let start = starts.get(starts.len() / 2).map(|start| start.as_secs_f64() * 1000.0);
    let (here, children) = (Usage::here()?, Usage::children()?);
    let (cpu, workers_cpu) = (here.cpu.as_secs_f64(), children.cpu.as_secs_f64());
    let (memory, workers_memory) = (here.memory, children.memory);
    let all = counts.decoded
        + counts.refused
        + counts.not_opened
        + counts.not_saved
        + counts.lost
        + counts.not_tried;
    if json {
        return Ok(print(json!({
            "files": all, "decoded": counts.decoded, "decoded_again": counts.again, "refused": counts.refused,
            "not_opened": counts.not_opened, "not_saved": counts.not_saved, "lost": counts.lost,
            "not_tried": counts.not_tried, "seconds": took,
            "workers": {
                "started": starts.len(), "ended": workers.ended, "hung": workers.hung,
                "misbehaved": workers.misbehaved, "milliseconds_to_start": start,
                "acts_tried": workers.acts_tried, "acts_refused": workers.acts_refused,
            },
            "cpu_seconds": { "pool": cpu, "workers": workers_cpu },
            "most_memory_kib": { "pool": memory, "worker": workers_memory },
            "descriptors": { "first": counts.first_descriptors, "most": counts.most_descriptors, "last": descriptors() },
        }))?);
    }
    print(format_args!(
        "\n{all} files in {took:.2} s: {} decoded ({} of them at another attempt), {} refused, {} not opened, {} lost.",
        counts.decoded, counts.again, counts.refused, counts.not_opened, counts.lost
    ))?;
    if counts.not_saved + counts.not_tried > 0 {
        print(format_args!(
            "{} thumbnails were not saved; {} files were not tried.",
            counts.not_saved, counts.not_tried
        ))?;
    }
    if let Some(start) = start {
        print(format_args!(
            "{} workers were started, in {start:.1} ms (median); {} ended by themselves, {} did not answer, {} misbehaved.",
            starts.len(),
            workers.ended,
            workers.hung,
            workers.misbehaved
        ))?;
    }
    if workers.acts_tried > 0 {
        print(format_args!(
            "Workers tried {} forbidden acts ({}); {} were refused.",
            workers.acts_tried,
            Sandbox::ACTS_IN_WORDS,
            workers.acts_refused
        ))?;
    }
    print(format_args!(
        "CPU time: {cpu:.2} s here, {workers_cpu:.2} s in workers. Memory: {memory} KiB here, {workers_memory} KiB in the largest worker, at most."
    ))?;
    Ok(())
}

impl Counts {
    fn add(&mut self, outcome: &Outcome, descriptors: Option<usize>) {
        match outcome {
            Outcome::Decoded(_, attempt) => {
                self.decoded += 1;
                self.again += u64::from(*attempt > 1);
            }
            Outcome::Refused(_) => self.refused += 1,
            Outcome::NotOpened(_) => self.not_opened += 1,
            Outcome::NotSaved(_) => self.not_saved += 1,
            Outcome::Lost(..) => self.lost += 1,
            Outcome::NotTried => self.not_tried += 1,
        }
        if let Some(open) = descriptors {
            self.first_descriptors.get_or_insert(open);
            self.most_descriptors = self.most_descriptors.max(open);
        }
    }
}
