//! [`Report`]: the samples of a work, their medians and ranges, as a table.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use crate::{
    cell::{Cell, Sample, Work},
    size,
};

#[derive(Debug, Default)]
pub(crate) struct Report {
    samples: Vec<Sample>,
    failures: Vec<(Cell, String)>,
}

/// What one cell's samples came to.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) cell: &'a Cell,
    /// Lowest, median and highest of each figure of the work.
    pub(crate) spreads: Vec<[f64; 3]>,
}

/// A figure of a sample.
pub(crate) type Figure = fn(&Sample) -> f64;

fn gib(sample: &Sample) -> f64 {
    sample.first.messages as f64 * sample.cell.size as f64 / (1_u64 << 30) as f64
}

fn gib_per_second(sample: &Sample) -> f64 {
    gib(sample) / sample.first.seconds
}

fn millions_per_second(sample: &Sample) -> f64 {
    sample.first.messages as f64 / sample.first.seconds / 1e6
}

fn p50(sample: &Sample) -> f64 {
    sample.first.p50 as f64 / 1e3
}

fn p99(sample: &Sample) -> f64 {
    sample.first.p99 as f64 / 1e3
}

fn cpu_per_gib(sample: &Sample) -> f64 {
    cpu(sample) / gib(sample)
}

fn cpu_per_million(sample: &Sample) -> f64 {
    cpu(sample) / sample.first.messages as f64 * 1e6
}

fn cpu(sample: &Sample) -> f64 {
    sample.first.cpu_seconds + sample.second.cpu_seconds
}

fn sleeps(sample: &Sample) -> f64 {
    (sample.first.sleeps + sample.second.sleeps) as f64 / sample.first.messages as f64
}

impl Work {
    /// The figures of this work: the first is shown with its range.
    pub(crate) fn figures(self) -> &'static [(&'static str, Figure)] {
        match self {
            Self::Stream => {
                &[("GiB/s", gib_per_second), ("CPU s/GiB", cpu_per_gib), ("sleeps/message", sleeps)]
            }
            Self::Handoff | Self::Small => &[
                ("M messages/s", millions_per_second),
                ("CPU s/M messages", cpu_per_million),
                ("sleeps/message", sleeps),
            ],
            Self::Idle => &[
                ("CPU ms, receiver", |sample| sample.second.cpu_seconds * 1e3),
                ("CPU ms, sender", |sample| sample.first.cpu_seconds * 1e3),
                ("sleeps, receiver", |sample| sample.second.sleeps as f64),
                ("seconds", |sample| sample.first.seconds),
            ],
            Self::Roundtrip | Self::Control | Self::Fd => {
                &[("p50 µs", p50), ("p99 µs", p99), ("sleeps/round trip", sleeps)]
            }
        }
    }
}

/// Lowest, median, highest.
pub(crate) fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// Three significant digits, or two for small figures.
pub(crate) fn show(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value if value >= 0.001 => format!("{value:.4}"),
        value => format!("{value:.0e}"),
    }
}

/// A payload's size, and its writer where that makes a difference.
fn show_payload(cell: &Cell) -> String {
    let shown = size::show(cell.size);
    if cell.work.writers().len() > 1 { format!("{shown}, {}", cell.writer) } else { shown }
}

/// How many payloads shared memory has room for.
fn show_depth(cell: &Cell) -> String {
    if cell.transport.has_depth() {
        format!("{} ({})", cell.depth, size::show(cell.depth * cell.size))
    } else {
        "–".into()
    }
}

impl Report {
    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(crate) fn fail(&mut self, cell: &Cell, error: &anyhow::Error) {
        self.failures.push((cell.clone(), format!("{error:#}")));
    }

    pub(crate) fn failed(&self, cell: &Cell) -> bool {
        self.failures.iter().any(|(failed, _)| failed == cell)
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The work of all cells, if any was measured.
    pub(crate) fn work(&self) -> Option<Work> {
        self.samples.first().map(|sample| sample.cell.work)
    }

    /// The cells that were measured, in the order in which they were.
    pub(crate) fn summaries(&self) -> Vec<Summary<'_>> {
        let mut summaries: Vec<Summary<'_>> = Vec::new();
        for Sample { cell, .. } in &self.samples {
            if summaries.iter().any(|summary| summary.cell == cell) {
                continue;
            }
            let spread_of = |(_, figure): &(_, Figure)| {
                spread(self.samples.iter().filter(|sample| sample.cell == *cell).map(figure).collect())
            };
            let spreads = cell.work.figures().iter().map(spread_of).collect();
            summaries.push(Summary { cell, spreads });
        }
        summaries
    }

    /// The medians, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let summaries = self.summaries();
        if let Some(work) = self.work() {
            let mut header = vec![work.to_string(), "transport".into()];
            for (i, (name, _)) in work.figures().iter().enumerate() {
                header.push((*name).into());
                if i == 0 {
                    header.push("range".into());
                }
            }
            header.push("payloads".into());
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            table.set_header(header);
            for Summary { cell, spreads } in summaries {
                let mut row = vec![show_payload(cell), cell.transport.to_string()];
                for (i, [low, median, high]) in spreads.into_iter().enumerate() {
                    row.push(show(median));
                    if i == 0 {
                        row.push(format!("{}–{}", show(low), show(high)));
                    }
                }
                row.push(show_depth(cell));
                table.add_row(row);
            }
            for column in table.column_iter_mut().skip(2) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            let _ = writeln!(text, "{table}\n");
        }
        for (cell, reason) in &self.failures {
            let _ = writeln!(text, "left out: {cell}: {reason}");
        }
        text
    }
}
