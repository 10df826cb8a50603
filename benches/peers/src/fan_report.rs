//! The figures of fan-out: medians as a table, and the list of what must hold.
//!
//! A ratio is the median over rounds of the ratios of one round, since the cells of a round share the state of the machine.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use crate::{
    fan_cell::{Carrier, FIGURES, FanCell, FanFigure, FanSample},
    report::{show, spread},
    size,
};

/// The cells that were measured, in the order in which they were.
fn cells(samples: &[FanSample]) -> Vec<&FanCell> {
    let mut cells: Vec<&FanCell> = Vec::new();
    for FanSample { cell, .. } in samples {
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    cells
}

/// A payload's size, and how many there are in a second.
fn payload(size: usize, pace: Option<u32>) -> String {
    let pace = pace.map_or_else(String::new, |pace| format!(", {pace}/s"));
    format!("{}{pace}", size::show(size))
}

/// The medians, in Markdown.
pub(crate) fn table(samples: &[FanSample]) -> String {
    let mut header = vec!["payloads".to_owned(), "subscribers".into(), "carrier".into()];
    for (index, (name, _)) in FIGURES.iter().enumerate() {
        header.push((*name).into());
        if index == 0 {
            header.push("range".into());
        }
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    for cell in cells(samples) {
        let mut row =
            vec![payload(cell.size, cell.pace), cell.subscribers.to_string(), cell.carrier.to_string()];
        for (index, (_, figure)) in FIGURES.iter().enumerate() {
            let values = samples.iter().filter(|sample| sample.cell == *cell).map(figure).collect();
            let [low, median, high] = spread(values);
            row.push(show(median));
            if index == 0 {
                row.push(format!("{}–{}", show(low), show(high)));
            }
        }
        table.add_row(row);
    }
    aligned(table, 3)
}

fn aligned(mut table: Table, texts: usize) -> String {
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// A ratio of two cells' figures, and its limit.
struct Requirement {
    name: &'static str,
    size: usize,
    pace: Option<u32>,
    figure: FanFigure,
    /// The carrier and the number of subscribers of both cells.
    ours: (Carrier, usize),
    theirs: (Carrier, usize),
    limit: f64,
    /// Whether the ratio may not be above its limit, instead of below.
    at_most: bool,
}

/// Bytes of a camera's frame, and frames a second.
pub(crate) const FRAME: usize = 3 << 20;
pub(crate) const PACE: u32 = 60;

fn requirements() -> Vec<Requirement> {
    let (gating, channels) = (Carrier::SealaneGating, Carrier::SealaneChannels);
    let frames = |pace, name, figure, ours, theirs| Requirement {
        name,
        size: FRAME,
        pace,
        figure,
        ours,
        theirs,
        limit: 1.1,
        at_most: true,
    };
    let mut list = Vec::new();
    // At a camera's pace every frame finds cold caches. Flat out one subscriber may find all of the ring in a cache, and eight do
    // not: that is a bound of the machine.
    for pace in [Some(PACE), None] {
        let (one, eight, copies) = ((gating, 1), (gating, 8), (channels, 8));
        let name = "publisher's CPU a frame, 8 subscribers / 1";
        list.push(frames(pace, name, FanSample::publisher_cpu as FanFigure, eight, one));
        let name = "a subscriber's CPU a frame, 8 subscribers / 8 channels";
        list.push(frames(pace, name, FanSample::subscriber_cpu, eight, copies));
    }
    for size in [64, 4 << 10, 64 << 10, 1 << 20, FRAME] {
        let one = |name, figure: FanFigure, limit, at_most| Requirement {
            name,
            size,
            pace: None,
            figure,
            ours: (gating, 1),
            theirs: (channels, 1),
            limit,
            at_most,
        };
        list.push(one("messages/s, 1 subscriber / a channel", FanSample::rate, 0.95, false));
        list.push(one("CPU of both, 1 subscriber / a channel", FanSample::cpu, 1.05, true));
    }
    list
}

impl Requirement {
    /// The ratios of all rounds in which both cells were measured.
    fn ratios(&self, samples: &[FanSample]) -> Vec<f64> {
        let of = |(carrier, subscribers): (Carrier, usize), round: usize| {
            let found = samples.iter().find(|FanSample { round: of_round, cell, .. }| {
                *of_round == round
                    && (cell.carrier, cell.subscribers) == (carrier, subscribers)
                    && (cell.size, cell.pace) == (self.size, self.pace)
            });
            found.map(self.figure)
        };
        let rounds = samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
        let ratio = |round| Some(of(self.ours, round)? / of(self.theirs, round)?);
        (0..rounds).filter_map(ratio).collect()
    }
}

/// The comparison with what must hold, in Markdown.
pub(crate) fn verdict(samples: &[FanSample]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["must hold", "payloads", "limit", "ratio", "range", ""]);
    for requirement in requirements() {
        let ratios = requirement.ratios(samples);
        if ratios.is_empty() {
            continue;
        }
        let Requirement { name, size, pace, limit, at_most, .. } = requirement;
        let [low, ratio, high] = spread(ratios);
        let holds = if at_most { ratio <= limit } else { ratio >= limit };
        table.add_row([
            name.to_owned(),
            payload(size, pace),
            format!("{} {}", if at_most { "≤" } else { "≥" }, show(limit)),
            show(ratio),
            format!("{}–{}", show(low), show(high)),
            if holds { "held" } else { "not held" }.into(),
        ]);
    }
    aligned(table, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Part;

    fn sample(round: usize, carrier: Carrier, subscribers: usize, cpu_seconds: f64) -> FanSample {
        let part = Part { messages: 10, seconds: 1.0, cpu_seconds, ..Part::default() };
        let cell = FanCell { carrier, subscribers, size: FRAME, seconds: 1.0, pace: None };
        FanSample { round, cell, publisher: part, received: vec![part; subscribers] }
    }

    #[test]
    fn the_median_of_the_ratios_of_a_round_is_judged() {
        let rounds = [(1.0, 1.0), (1.0, 3.0), (2.0, 2.1)].into_iter().enumerate();
        let samples: Vec<FanSample> = rounds
            .flat_map(|(round, (one, eight))| {
                [(1, one), (8, eight)]
                    .map(|(subscribers, cpu)| sample(round, Carrier::SealaneGating, subscribers, cpu))
            })
            .collect();
        let text = verdict(&samples);
        let row =
            text.lines().find(|line| line.contains("8 subscribers / 1 ") && !line.contains("/s")).unwrap();
        assert!(row.contains(" 1.05 ") && row.contains(" held "), "{row}");
    }
}
