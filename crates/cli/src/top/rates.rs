//! [`Rates`]: what has changed between two looks.

use std::{cmp::Reverse, collections::HashMap, time::Instant};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    ls::{NOTHING, notes, programs, receivers},
    output::{bytes, count},
    rows::{Kind, Report, Row, escape},
};

/// A column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Both directions of a channel, and a publisher's subscribers, stay together.
    Group,
    /// Messages a second.
    Messages,
    /// Bytes a second.
    Bytes,
    /// Bytes in use, or the lag of a subscriber.
    InUse,
    /// The sending program.
    From,
    State,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|sort| *sort == self).unwrap_or(0);
        all[(at + 1) % all.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Messages => "messages/s",
            Self::Bytes => "bytes/s",
            Self::InUse => "in use",
            Self::From => "from",
            Self::State => "state",
        }
    }
}

/// A row, and how fast its numbers grow.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rated {
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) messages_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    /// Waits for space since the last look.
    pub(crate) new_waits: Option<u64>,
    pub(crate) newly_missed: Option<u64>,
}

/// Rows to be shown, sorted and filtered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown {
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Rated>,
    pub(crate) channels: usize,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) notes: Vec<String>,
    /// The text that all rows contain.
    #[serde(skip)]
    filter: String,
}

/// The last look, and the rates since the one before.
pub(super) struct Rates {
    at: Instant,
    seconds: f64,
    report: Report,
    rated: Vec<Rated>,
}

impl Rates {
    pub(super) fn first(at: Instant, report: Report) -> Self {
        let rated = report.rows.iter().map(|row| rate(row, None, 0.0)).collect();
        Self { at, seconds: 0.0, report, rated }
    }

    pub(super) fn add(&mut self, at: Instant, report: Report) {
        self.seconds = at.duration_since(self.at).as_secs_f64();
        let before: HashMap<u64, &Row> = self.report.rows.iter().map(|row| (row.inode, row)).collect();
        let rated =
            report.rows.iter().map(|row| rate(row, before.get(&row.inode).copied(), self.seconds)).collect();
        (self.at, self.rated, self.report) = (at, rated, report);
    }

    pub(super) fn shown(&self, sort: Sort, reverse: bool, wanted: &str) -> Shown {
        let filter = wanted.to_lowercase();
        let fits = |row: &Row| {
            filter.is_empty()
                || [programs(&row.from), receivers(row), row.kind.name().into(), row.state.name().into()]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&filter))
        };
        let mut rows: Vec<_> = self.rated.iter().filter(|rated| fits(&rated.row)).cloned().collect();
        let falling = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        match sort {
            Sort::Group => rows.sort_by_key(|one| one.row.group),
            Sort::Messages => rows.sort_by(|a, b| falling(a.messages_per_second, b.messages_per_second)),
            Sort::Bytes => rows.sort_by(|a, b| falling(a.bytes_per_second, b.bytes_per_second)),
            Sort::InUse => rows.sort_by_key(|one| Reverse(one.row.fill)),
            Sort::From => rows.sort_by_key(|one| one.row.from.first().map(|one| (one.name.clone(), one.pid))),
            Sort::State => rows.sort_by_key(|one| one.row.state),
        }
        if reverse {
            rows.reverse();
        }
        let kinds = |kinds: &[Kind]| self.report.rows.iter().filter(|row| kinds.contains(&row.kind)).count();
        Shown {
            seconds: self.seconds,
            rows,
            channels: kinds(&[Kind::Channel]) / 2,
            publishers: kinds(&[Kind::Publisher]),
            subscribers: kinds(&[Kind::Gating, Kind::Overrunning]),
            notes: notes(&self.report),
            filter: wanted.to_owned(),
        }
    }
}

/// Numbers that went back are those of another process, which has the same file number by chance: they have no rate.
fn rate(row: &Row, before: Option<&Row>, seconds: f64) -> Rated {
    let grown = |field: fn(&Row) -> Option<u64>| field(row)?.checked_sub(field(before?)?);
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with four digits")]
    let a_second = |grown: Option<u64>| grown.filter(|_| seconds > 0.0).map(|grown| grown as f64 / seconds);
    Rated {
        row: row.clone(),
        messages_per_second: a_second(grown(|row| row.messages)),
        bytes_per_second: a_second(grown(|row| row.bytes)),
        new_waits: grown(|row| row.waits),
        newly_missed: grown(|row| row.missed),
    }
}

pub(super) const HEADER: [&str; 11] =
    ["KIND", "FROM", "TO", "MSG/S", "BYTES/S", "RING", "IN USE", "HIGH", "WAITS", "MISSED", "STATE"];

impl Rated {
    /// The text of each column.
    pub(super) fn cells(&self) -> [String; 11] {
        let row = &self.row;
        [
            row.kind.name().to_owned(),
            programs(&row.from),
            receivers(row),
            self.messages_per_second.map_or_else(|| "–".to_owned(), short),
            self.bytes_per_second.map_or_else(|| "–".to_owned(), bytes_a_second),
            bytes(row.ring),
            bytes(row.fill),
            bytes(row.high_water),
            count(self.new_waits.or(row.waits)),
            count(row.missed),
            row.state.name().to_owned(),
        ]
    }
}

fn bytes_a_second(rate: f64) -> String {
    const UNITS: [&str; 5] = ["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s"];
    let (mut rate, mut unit) = (rate, 0);
    while rate >= 1000.0 && unit + 1 < UNITS.len() {
        (rate, unit) = (rate / 1024.0, unit + 1);
    }
    format!("{rate:.*} {}", usize::from(unit > 0 && rate < 100.0), UNITS[unit])
}

/// A rate with at most four digits.
fn short(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 10e3 => format!("{rate:.0}"),
        rate if rate < 10e6 => format!("{:.0} k", rate / 1e3),
        rate => format!("{:.1} M", rate / 1e6),
    }
}

impl Shown {
    /// The reason why there are no rows.
    pub(super) fn nothing(&self) -> String {
        if self.filter.is_empty() {
            return NOTHING.to_owned();
        }
        format!("no row contains \"{}\"", escape(&self.filter))
    }

    /// A table for a terminal or a file.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(HEADER);
        for column in 3..=9 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &self.rows {
            table.add_row(row.cells());
        }
        let mut text = if self.rows.is_empty() { self.nothing() } else { table.trim_fmt() } + "\n";
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::rows::{Program, State};

    fn program(pid: u32, name: &str) -> Rc<[Program]> {
        [Program { pid, name: name.to_owned(), user: "root".to_owned(), uid: 0, exe: None }].into()
    }

    fn rated(kind: Kind, to: &Rc<[Program]>, state: State) -> Rated {
        let row = Row {
            kind,
            group: 0,
            from: program(22_688, "camera"),
            to: Rc::clone(to),
            inode: 1,
            messages: Some(1),
            bytes: Some(1),
            ring: Some(256 << 10),
            fill: Some(3_000_000),
            high_water: Some(256_123),
            waits: Some(276),
            missed: Some(0),
            state,
            path: None,
            paths: Vec::new(),
        };
        let (messages_per_second, bytes_per_second) = (Some(60.0), Some(1_200_000_000.0));
        Rated { row, messages_per_second, bytes_per_second, new_waits: None, newly_missed: None }
    }

    /// Rows of all widths.
    pub(in crate::top) fn rows() -> Vec<Rated> {
        let to = program(22_690, "algorithm");
        vec![
            rated(Kind::Channel, &to, State::HeldUp),
            rated(Kind::Publisher, &to, State::Unknown),
            rated(Kind::Overrunning, &to, State::Asleep),
        ]
    }

    /// A row of a process with this name.
    pub(in crate::top) fn named(name: &str) -> Rated {
        let mut rated = rows().remove(0);
        rated.row.from = program(1, name);
        rated
    }

    /// The rows, if there is no filter: with one, none.
    pub(in crate::top) fn shown(filter: &str) -> Shown {
        Shown {
            seconds: 1.0,
            rows: if filter.is_empty() { rows() } else { Vec::new() },
            channels: 1,
            publishers: 1,
            subscribers: 1,
            notes: Vec::new(),
            filter: filter.to_owned(),
        }
    }

    #[test]
    fn tables_without_rows_say_why() {
        assert_eq!(shown("pre\x1bview").text(), "no row contains \"pre\\u{1b}view\"\n");
        assert_eq!(Shown { rows: Vec::new(), ..shown("") }.text(), format!("{NOTHING}\n"));
    }
}
