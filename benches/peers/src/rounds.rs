//! Rounds over many cells, interleaved, so that other load on the machine affects all cells alike; and the search for the
//! depth at which each transport is fastest, which is made of short rounds.

use anyhow::Result;

use crate::{
    cell::{Cell, Transport, Work, Writer},
    child,
    report::{Report, Summary},
};

/// Seconds for which each depth is tried in a round, and the number of these rounds.
const TRIAL: f64 = 0.02;
const TRIALS: usize = 5;
/// Seconds for which a cache line goes there and back.
const CROSSING: f64 = 0.02;

/// Measures each cell once a round.
pub(crate) fn measure(cells: &[Cell], count: usize, is_verbose: bool) -> Report {
    let mut report = Report::default();
    for round in 0..count {
        for cell in cells {
            // Idle work takes long, and one round suffices.
            if cell.work == Work::Idle && round > 0 || report.failed(cell) {
                continue;
            }
            if is_verbose {
                eprintln!("round {round}: {cell}");
            }
            match child::measure(cell, round) {
                Ok(sample) => report.add(sample),
                Err(error) => report.fail(cell, &error),
            }
        }
    }
    report
}

/// The cells with the depth at which each is fastest, where that is to be found.
pub(crate) fn with_best_depths(cells: Vec<Cell>, is_verbose: bool) -> Vec<Cell> {
    let candidates = |cell: &Cell| -> Vec<Cell> {
        if !cell.transport.is_tuned(cell.size) {
            return Vec::new();
        }
        let short = Cell { seconds: cell.seconds.min(TRIAL), ..cell.clone() };
        let mut candidates: Vec<Cell> =
            cell.work.depths(cell.size).into_iter().map(|depth| short.with_depth(depth)).collect();
        candidates.dedup();
        if candidates.len() > 1 { candidates } else { Vec::new() }
    };
    let trials = measure(&cells.iter().flat_map(candidates).collect::<Vec<_>>(), TRIALS, is_verbose);
    let summaries = trials.summaries();
    let figure = |summary: &&Summary<'_>| {
        let [_, median, _] = summary.spreads[0];
        if summary.cell.work.is_rate() { median } else { -median }
    };
    let with_best_depth = |cell: Cell| {
        let same = |summary: &&Summary<'_>| {
            Cell { seconds: cell.seconds, ..summary.cell.with_depth(cell.depth) } == cell
        };
        let best = summaries.iter().filter(same).max_by(|a, b| figure(a).total_cmp(&figure(b)));
        best.map_or_else(|| cell.clone(), |best| cell.with_depth(best.cell.depth))
    };
    cells.into_iter().map(with_best_depth).collect()
}

/// Microseconds that a cache line takes from one CPU to the other and back: the round trip of bare slots.
pub(crate) fn crossing(one_core: bool) -> Result<f64> {
    let (transport, work, size) = (Transport::LimitHybrid, Work::Roundtrip, 64);
    let depth = work.default_depth(size);
    let cell = Cell { transport, work, size, writer: Writer::Fast, depth, seconds: CROSSING, one_core };
    Ok(child::measure(&cell, 0)?.first.p50 as f64 / 1e3)
}
