//! `sealane ls`: the channels and publishers of this machine.

use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};

use crate::{
    look::{Looker, Unseen},
    output::{bytes, count, print},
    rows::{Kind, Namer, Program, Report, Row, State},
};

/// Lists the channels and publishers of this machine, each with both ends, ring and state.
///
/// The processes are not changed, and do not notice. What the kernel does not show to this user is counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sealane ls
  sudo sealane ls --json | jq '.rows[] | select(.kind == \"publisher\")'")]
pub(crate) struct Options {
    /// Prints JSON instead of a table: docs/tools.md has its fields.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let seen = Looker::new()?.look()?;
    let report = Namer::default().report(&seen);
    if options.json {
        let json = serde_json::to_string_pretty(&report).context("writing JSON")?;
        return print(&format!("{json}\n"));
    }
    print(&text(&report))
}

fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
        .set_header(["KIND", "FROM", "TO", "RING", "IN USE", "HIGH", "MESSAGES", "WAITS", "MISSED", "STATE"]);
    for column in 3..=8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in &report.rows {
        table.add_row([
            row.kind.name().to_owned(),
            programs(&row.from),
            receivers(row),
            bytes(row.ring),
            bytes(row.fill),
            bytes(row.high_water),
            count(row.messages),
            count(row.waits),
            count(row.missed),
            row.state.name().to_owned(),
        ]);
    }
    let mut text = if report.rows.is_empty() {
        "No channel and no publisher was seen.\n".to_owned()
    } else {
        table.trim_fmt() + "\n"
    };
    for note in notes(report) {
        text.push_str(&note);
        text.push('\n');
    }
    text
}

/// The processes of one end: `1234 camera (user)`, `+1` for one that a fork has made.
pub(crate) fn programs(programs: &[Program]) -> String {
    match programs {
        [] => "–".to_owned(),
        [one] => format!("{} {} ({})", one.pid, one.name, one.user),
        [one, more @ ..] => format!("{} {} ({}) +{}", one.pid, one.name, one.user, more.len()),
    }
}

/// The receiving end of a row. A publisher's are in rows of their own.
pub(crate) fn receivers(row: &Row) -> String {
    if row.kind == Kind::Publisher { "all below".to_owned() } else { programs(&row.to) }
}

/// Notes about what was not seen, with the remedy.
pub(crate) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let Unseen { processes, cut, hidden } = report.unseen;
    if hidden {
        notes.push("Processes of other users are hidden here (/proc is mounted with hidepid): they are not even counted.".into());
    }
    if processes > 0 {
        let hint = if rustix::process::geteuid().is_root() { "" } else { " Root sees all." };
        notes.push(format!(
            "Not seen, as the kernel does not show its mappings: {processes} process(es).{hint}"
        ));
    }
    if cut > 0 {
        notes.push(format!("{cut} process(es) have more mappings than are read: 4 MiB of /proc/PID/maps, 100,000 regions or two seconds a user."));
    }
    let forbidden = report.rows.iter().filter(|row| row.state == State::Forbidden).count();
    if forbidden > 0 {
        notes.push(format!(
            "{forbidden} regions are there, and may not be read: the kernel lets only root, or a parent, look into memory where \
             /proc/sys/kernel/yama/ptrace_scope is 1 or more (`sealane doctor`)."
        ));
    }
    notes
}
