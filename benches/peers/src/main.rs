//! The same work between two pinned processes, over sealane, over its peers, and over bare memory, which is the limit.
//!
//! `cargo run --release -p peers` measures everything; `--help` says how to measure less. A *cell* is a transport, a work
//! and a size: two processes of this program, one on each of two cores, that are connected anew for each round. Rounds are
//! interleaved over all cells of a work, so that other load on the machine affects all of them alike.
//!
//! This file owns the command line and the rounds. The modules stand in layers, from the ground up: each imports only from
//! layers above its own in this list.

// Data: what is measured.
mod cell;
mod size;

// How two processes agree, and which bytes they send.
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

// The two processes of a cell; the machine that they run on.
mod child;
mod machine;

// The figures of many cells.
mod report;

// Rounds, the best depths, requirements and pictures, all made of figures.
mod plots;
mod requirements;
mod rounds;

// All figures of a run: printed, kept in files, read again.
mod run;

// Fan-out, with processes of its own: what is measured; the ends; what is done; over what; by which processes; the figures.
mod fan_cell;

mod fan_ends;

mod fan_work;

mod fan_carriers;

mod fan_child;

mod fan_report;

mod fan_run;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    cell::{Cell, Side, Transport, Work, Writer},
    fan_cell::{FanCell, Place},
    machine::Machine,
    run::Run,
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
    #[arg(long, value_delimiter = ',', value_parser = size::parse)]
    size: Vec<usize>,
    /// Seconds that each measurement takes, after calibration.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How payloads are written [default: both ways for `stream`, fast for the others].
    #[arg(long, value_delimiter = ',')]
    writer: Vec<Writer>,
    /// Payloads that shared memory has room for in each direction, for all transports that have some. Several make a sweep
    /// [default: the default ring for sealane if it holds such payloads; else the best of a short sweep].
    #[arg(long, value_delimiter = ',')]
    depth: Vec<usize>,
    /// Both processes on one core.
    #[arg(long)]
    one_core: bool,
    /// Tries whether everything works: one short round, without a sweep.
    #[arg(long)]
    quick: bool,
    /// Fails if a cell could not be measured, instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Writes the machine and each measurement as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the machine, the tables and the requirements as a section of Markdown.
    #[arg(long, global = true)]
    markdown: Option<PathBuf>,
    /// Draws a picture of each work into this directory.
    #[arg(long, global = true)]
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
    /// One of the processes of a cell of fan-out; started by this program itself.
    #[command(hide = true)]
    FanChild { place: String, cell: String },
    /// One process sends the same messages to many.
    Fanout(fan_run::Options),
    /// Prints what earlier runs on this machine have measured, from their files of JSON.
    Report {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// The works that were asked for.
fn works(options: &Options) -> &[Work] {
    if options.work.is_empty() { Work::value_variants() } else { &options.work }
}

/// The cells of one work.
fn cells(work: Work, options: &Options) -> Vec<Cell> {
    let sizes = match options.size.as_slice() {
        [] if options.quick => &work.sizes()[..work.sizes().len().min(2)],
        [] => work.sizes(),
        asked => asked,
    };
    let writers = if options.writer.is_empty() { work.writers() } else { &options.writer };
    let mut cells = Vec::new();
    for (&size, &writer) in sizes.iter().flat_map(|size| writers.iter().map(move |writer| (size, writer))) {
        for &transport in Transport::value_variants() {
            let asked = match options.transport.as_slice() {
                [] => transport.is_default(work),
                asked => asked.contains(&transport),
            };
            if !asked || !transport.does(work, size) {
                continue;
            }
            let cell = Cell {
                transport,
                work,
                size,
                writer,
                depth: work.default_depth(size),
                seconds: if options.quick { 0.01 } else { options.seconds },
                one_core: options.one_core,
            };
            match options.depth.as_slice() {
                asked @ [_, ..] if transport.has_depth() => {
                    cells.extend(asked.iter().map(|depth| cell.with_depth(*depth)));
                }
                _ => cells.push(cell.with_depth(cell.depth)),
            }
        }
    }
    cells
}

/// Measures, and prints what is found, work by work.
fn measure(options: &Options) -> Result<Run> {
    ensure!(
        options.seconds > 0.0 && Duration::try_from_secs_f64(options.seconds).is_ok(),
        "expected some seconds, found {}",
        options.seconds
    );
    ensure!(!options.depth.contains(&0), "expected room for a payload, found none");
    let count = if options.quick { 1 } else { options.rounds };
    let mut run = Run::new(Machine::read(options.one_core), options.json.as_deref())?;
    for (index, &work) in works(options).iter().enumerate() {
        run.add_crossing(rounds::crossing(options.one_core)?)?;
        if index == 0 {
            println!("{}", run.head());
        }
        let mut cells = cells(work, options);
        if !options.quick && options.depth.is_empty() {
            cells = rounds::with_best_depths(cells, options.verbose);
        }
        let report = rounds::measure(&cells, count, options.verbose);
        print!("{}", report.table());
        ensure!(!(options.strict && report.has_failures()), "some cells could not be measured: see above");
        run.add(report)?;
    }
    Ok(run)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let run = match &options.command {
        Some(Command::Child { side, cell }) => return child::run(*side, &serde_json::from_str(cell)?),
        Some(Command::FanChild { place, cell }) => {
            let (place, cell): (Place, FanCell) = (serde_json::from_str(place)?, serde_json::from_str(cell)?);
            return fan_child::run(place, &cell);
        }
        Some(Command::Fanout(fanout)) => return fan_run::run(fanout, options.markdown.as_deref()),
        Some(Command::Report { files }) => {
            let run = Run::read(files)?;
            print!("{}\n{}", run.head(), run.tables());
            run
        }
        None => measure(&options)?,
    };
    // A short round says nothing about speed, and a chosen depth is sealane's too.
    if !options.quick && options.depth.is_empty() {
        print!("{}", run.verdict());
    }
    if let Some(path) = &options.markdown {
        std::fs::write(path, run.section()).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(directory) = &options.plots {
        run.draw(directory)?;
    }
    Ok(())
}
