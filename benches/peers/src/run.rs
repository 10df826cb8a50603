//! [`Run`]: the machine and the figures of all works of a run; printed, kept as lines of JSON, and read from them.

use std::{
    fmt::Write as _,
    fs::{File, read_to_string},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Sample, Work},
    machine::Machine,
    plots,
    report::{Report, show},
    requirements,
};

pub(crate) struct Run {
    machine: Machine,
    /// Microseconds that a cache line took from one CPU to the other and back, before each work.
    crossings: Vec<f64>,
    /// One for each work.
    reports: Vec<Report>,
    json: Option<File>,
}

/// A line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Machine(Machine),
    Crossing(f64),
    Sample(Sample),
}

impl Run {
    /// An empty run, whose figures go to the file `json` too.
    pub(crate) fn new(machine: Machine, json: Option<&Path>) -> Result<Self> {
        let json = json.map(File::create).transpose()?;
        let mut run = Self { machine: machine.clone(), crossings: Vec::new(), reports: Vec::new(), json };
        run.write(&Line::Machine(machine))?;
        Ok(run)
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let Some(json) = &mut self.json else { return Ok(()) };
        Ok(writeln!(json, "{}", serde_json::to_string(line)?)?)
    }

    pub(crate) fn add_crossing(&mut self, microseconds: f64) -> Result<()> {
        self.crossings.push(microseconds);
        self.write(&Line::Crossing(microseconds))
    }

    pub(crate) fn add(&mut self, report: Report) -> Result<()> {
        for sample in report.samples() {
            self.write(&Line::Sample(sample.clone()))?;
        }
        self.reports.push(report);
        Ok(())
    }

    /// The runs that were written to these files, as one. Each has its rounds to itself.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self> {
        let (mut machines, mut crossings, mut samples) = (Vec::<Machine>::new(), Vec::new(), Vec::new());
        let mut rounds = 0;
        for path in files {
            let text = read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let first_round = rounds;
            for line in text.lines() {
                match serde_json::from_str(line).with_context(|| format!("reading {}", path.display()))? {
                    Line::Machine(machine) => machines.push(machine),
                    Line::Crossing(microseconds) => crossings.push(microseconds),
                    Line::Sample(mut sample) => {
                        sample.round += first_round;
                        rounds = rounds.max(sample.round + 1);
                        samples.push(sample);
                    }
                }
            }
        }
        machines.dedup();
        ensure!(machines.len() == 1, "expected the runs of one machine, found {}", machines.len());
        let report = |work: &Work| {
            let mut report = Report::default();
            samples
                .iter()
                .filter(|sample| sample.cell.work == *work)
                .cloned()
                .for_each(|sample| report.add(sample));
            report
        };
        let reports = Work::value_variants().iter().map(report).collect();
        Ok(Self { machine: machines.remove(0), crossings, reports, json: None })
    }

    /// The machine, as a list.
    pub(crate) fn head(&self) -> String {
        format!("{}- {}", self.machine.list(), self.crossing())
    }

    /// How far the CPUs are from each other.
    fn crossing(&self) -> String {
        let low = self.crossings.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.crossings.iter().copied().fold(0.0, f64::max);
        let range = if low < high { format!("{}–{}", show(low), show(high)) } else { show(high) };
        format!("a cache line from one CPU to the other and back: {range} µs\n")
    }

    pub(crate) fn tables(&self) -> String {
        self.reports.iter().map(Report::table).collect()
    }

    /// Which requirements hold.
    fn requirements(&self) -> String {
        let samples: Vec<Sample> = self.reports.iter().flat_map(Report::samples).cloned().collect();
        requirements::table(&samples)
    }

    /// Which requirements hold, and how far the CPUs were from each other meanwhile.
    pub(crate) fn verdict(&self) -> String {
        format!("{}\n{}", self.crossing(), self.requirements())
    }

    /// All of it, as a section of a page.
    pub(crate) fn section(&self) -> String {
        let mut text = format!("## {}\n\n{}", self.machine.processor(), self.head());
        let _ = write!(text, "\n### Must hold\n\n{}", self.requirements());
        for (work, report) in self.reports.iter().filter_map(|report| Some((report.work()?, report))) {
            let _ = write!(text, "\n### {work}\n\n{}", report.table().trim_end());
            text.push('\n');
        }
        text
    }

    /// Draws the works into the directory.
    pub(crate) fn draw(&self, directory: &Path) -> Result<()> {
        self.reports.iter().try_for_each(|report| plots::draw(&report.summaries(), directory))
    }
}
