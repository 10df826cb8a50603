//! A run of fan-out: the rounds over all cells, interleaved, their figures printed and kept.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    fan_cell::{Carrier, FanCell, FanSample},
    fan_child,
    fan_report::{self, FRAME, PACE},
    machine::Machine,
    size,
};

/// The sizes with every number of subscribers, and those with one.
const SIZES: [usize; 3] = [64, 64 << 10, 3 << 20];
const SIZES_OF_ONE: [usize; 2] = [4 << 10, 1 << 20];

/// One process sends the same messages to many: sealane's publisher, a channel for each, and iceoryx2.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Over what [default: all].
    #[arg(long, value_delimiter = ',')]
    carrier: Vec<Carrier>,
    /// Processes that receive.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = subscribers)]
    subscribers: Vec<usize>,
    /// Bytes of a payload, such as 64, 64K, 3M; a multiple of 8 [default: 64, 64K and 3M; 4K and 1M for one subscriber].
    #[arg(long, value_delimiter = ',', value_parser = size::parse)]
    size: Vec<usize>,
    /// Messages a second [default: as many as possible].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pace: Option<u32>,
    /// Seconds that each measurement takes, after calibration.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    rounds: usize,
    /// Tries whether everything moved is right: one short round with 1 and 3 subscribers.
    #[arg(long)]
    quick: bool,
    /// Fails if a cell could not be measured, instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Writes the machine and each measurement as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Says what is measured while it is measured.
    #[arg(long, short)]
    verbose: bool,
}

fn within(text: &str, max: usize) -> Result<usize, String> {
    let found = text.parse().ok().filter(|count| (1..=max).contains(count));
    found.ok_or_else(|| format!("expected a number from 1 to {max}, found {text:?}"))
}

/// Each has a link with a descriptor at the publisher.
fn subscribers(text: &str) -> Result<usize, String> {
    within(text, 64)
}

fn rounds(text: &str) -> Result<usize, String> {
    within(text, 1000)
}

impl Options {
    fn cells(&self) -> Vec<FanCell> {
        let carriers = if self.carrier.is_empty() { Carrier::value_variants() } else { &self.carrier };
        let counts = if self.quick { &[1, 3] } else { self.subscribers.as_slice() };
        let mut sizes: Vec<(usize, usize)> = Vec::new();
        for &count in counts {
            let asked = if self.size.is_empty() { SIZES.as_slice() } else { &self.size };
            sizes.extend(asked.iter().map(|&size| (size, count)));
        }
        if self.size.is_empty() && counts.contains(&1) {
            sizes.extend(SIZES_OF_ONE.map(|size| (size, 1)));
        }
        sizes.sort_unstable();
        sizes.dedup();
        let mut all: Vec<_> = sizes.into_iter().map(|(size, count)| (size, count, self.pace)).collect();
        // Frames are measured at a camera's pace as well.
        if self.size.is_empty() && self.pace.is_none() && !self.quick {
            let frames = counts.iter().filter(|count| [1, 8].contains(*count));
            all.extend(frames.map(|&count| (FRAME, count, Some(PACE))));
        }
        let cell = |(size, subscribers, pace), carrier| FanCell {
            carrier,
            subscribers,
            size,
            seconds: if self.quick { 0.01 } else { self.seconds },
            pace,
        };
        all.iter().flat_map(|&case| carriers.iter().map(move |&carrier| cell(case, carrier))).collect()
    }
}

/// Measures each cell once a round, and prints what is found.
pub(crate) fn run(options: &Options, markdown: Option<&Path>) -> Result<()> {
    let seconds = options.seconds;
    ensure!(seconds > 0.0 && seconds <= 60.0, "expected up to 60 seconds, found {seconds}");
    let (machine, cells) = (Machine::read(false), options.cells());
    println!("{}", machine.list());
    let (mut samples, mut failures): (Vec<FanSample>, Vec<(&FanCell, String)>) = (Vec::new(), Vec::new());
    for round in 0..if options.quick { 1 } else { options.rounds } {
        for cell in &cells {
            if failures.iter().any(|(failed, _)| *failed == cell) {
                continue;
            }
            if options.verbose {
                eprintln!("round {round}: {cell}");
            }
            match fan_child::measure(cell, round) {
                Ok(sample) => samples.push(sample),
                Err(error) => failures.push((cell, format!("{error:#}"))),
            }
        }
    }
    if let Some(path) = &options.json {
        let mut lines = format!("{}\n", serde_json::json!({ "machine": machine }));
        for sample in &samples {
            let _ = writeln!(lines, "{}", serde_json::json!({ "sample": sample }));
        }
        fs::write(path, lines).with_context(|| format!("writing {}", path.display()))?;
    }
    let mut text = fan_report::table(&samples);
    for (cell, reason) in &failures {
        let _ = writeln!(text, "left out: {cell}: {reason}");
    }
    // A short round says nothing about speed.
    if !options.quick {
        text = format!("{}\n{text}", fan_report::verdict(&samples));
    }
    print!("{text}");
    if let Some(path) = markdown {
        let section = format!("## Fan-out: {}\n\n{}\n{text}", machine.processor(), machine.list());
        fs::write(path, section).with_context(|| format!("writing {}", path.display()))?;
    }
    ensure!(!options.strict || failures.is_empty(), "some cells could not be measured: see above");
    Ok(())
}
