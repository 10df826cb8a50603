//! The same work between two pinned processes, over sealane, over its peers, and over bare memory, which is the limit.
//!
//! `cargo run --release -p peers` measures everything; `--help` says how to measure less. A *cell* is a transport, a work
//! and a size: two processes of this program, one on each of two cores, that are connected anew for each round. Rounds are
//! interleaved over all cells of a work, so that other load on the machine affects all of them alike.
//!
//! This file owns the command line and the rounds. The modules stand in layers, from the ground up: each imports only from
//! layers above its own in this list.

// Data: what is measured, how its two processes agree, which bytes they send.
mod cell;
mod link;
mod payload;

// Tools: shared memory, sockets, what a process has used; and what a transport has to offer.
mod end;
mod mapping;
mod socket;
mod usage;

// What is done over a transport, whichever it is.
mod work;

// The transports, and the table of them.
mod transports;

// The two processes of a cell; the figures of many.
mod child;
mod report;

// Pictures of the figures.
mod plots;

use std::{fs::File, io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    cell::{Cell, Side, Transport, Work},
    report::Report,
};

/// The same work between two pinned processes, over sealane and over its peers.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to measure [default: all].
    #[arg(long, value_delimiter = ',')]
    work: Vec<Work>,
    /// Over what [default: all that can do the work].
    #[arg(long, value_delimiter = ',')]
    transport: Vec<Transport>,
    /// Bytes of a payload, such as 64, 4K, 1M; a multiple of 8 [default: those of the work].
    #[arg(long, value_delimiter = ',', value_parser = parse_size)]
    size: Vec<usize>,
    /// Seconds that each measurement takes, after calibration.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of shared memory in each direction; where four payloads need more, they get it.
    #[arg(long, default_value = "4M", value_parser = parse_size)]
    ring: usize,
    /// Both processes on one core.
    #[arg(long)]
    one_core: bool,
    /// Tries whether everything works: one short round.
    #[arg(long)]
    quick: bool,
    /// Fails if a cell could not be measured, instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Writes each measurement as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws a picture of each work into this directory.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Says what is measured while it is measured.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the two processes of a cell; started by this program itself.
    #[command(hide = true)]
    Child { side: Side, cell: String },
}

/// `64`, `4K`, `1M`, and the same with `iB`.
fn parse_size(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim_end_matches("iB") {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        unit => anyhow::bail!("expected no unit, K or M, found {unit:?}"),
    };
    let size =
        digits.parse::<usize>().with_context(|| format!("expected a number, found {digits:?}"))? * factor;
    ensure!(size > 0 && size.is_multiple_of(8), "expected a multiple of 8, found {size}");
    Ok(size)
}

/// The options' cells, work by work.
fn cells(options: &Options) -> Vec<Vec<Cell>> {
    let mut works = options.work.clone();
    if works.is_empty() {
        works = Work::value_variants().to_vec();
    }
    works.into_iter().map(|work| cells_of(work, options)).collect()
}

fn cells_of(work: Work, options: &Options) -> Vec<Cell> {
    let mut sizes = options.size.clone();
    if sizes.is_empty() {
        sizes = work.sizes().to_vec();
        sizes.truncate(if options.quick { 2 } else { usize::MAX });
    }
    let mut cells = Vec::new();
    for size in sizes {
        for &transport in Transport::value_variants() {
            let asked = match options.transport.as_slice() {
                [] => transport.is_default(work),
                asked => asked.contains(&transport),
            };
            if asked && transport.does(work, size) {
                cells.push(Cell {
                    transport,
                    work,
                    size,
                    ring: options.ring.max((work.depth() * size).next_power_of_two()),
                    seconds: if options.quick { 0.01 } else { options.seconds },
                    one_core: options.one_core,
                });
            }
        }
    }
    cells
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Command::Child { side, cell }) = &options.command {
        return child::run(*side, &serde_json::from_str(cell)?);
    }
    ensure!(
        options.seconds > 0.0 && Duration::try_from_secs_f64(options.seconds).is_ok(),
        "expected some seconds, found {}",
        options.seconds
    );
    let mut json = options.json.as_ref().map(File::create).transpose()?;
    let rounds = if options.quick { 1 } else { options.rounds };
    for cells in cells(&options) {
        let mut report = Report::default();
        for round in 0..rounds {
            for cell in &cells {
                // Idle work takes long, and one round suffices.
                if cell.work == Work::Idle && round > 0 {
                    continue;
                }
                if options.verbose {
                    eprintln!("round {round}: {cell}");
                }
                if report.failed(cell) {
                    continue;
                }
                match child::measure(cell, round) {
                    Ok(sample) => {
                        if let Some(json) = &mut json {
                            writeln!(json, "{}", serde_json::to_string(&sample)?)?;
                        }
                        report.add(sample);
                    }
                    Err(error) => report.fail(cell, &error),
                }
            }
        }
        print!("{}", report.table());
        ensure!(!(options.strict && report.has_failures()), "some cells could not be measured: see above");
        if let Some(directory) = &options.plots {
            plots::draw(&report.summaries(), directory)?;
        }
    }
    Ok(())
}
