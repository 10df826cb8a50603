//! `sealane ls`: the channels and publishers of this machine.

use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};

use crate::{
    look::{Looker, Rights, Unseen},
    output::{bytes, count, print},
    rows::{Kind, Namer, Program, Report, Row, State},
};

/// Lists the channels and publishers of this machine, each with both ends, ring and state.
///
/// The processes are not changed, and do not notice. What the kernel does not show to this user is counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sealane ls
  sealane ls --json | jq -r '.rows[] | select(.kind == \"publisher\") | .path'")]
pub(crate) struct Options {
    /// Prints JSON instead of a table: docs/tools.md has its fields.
    #[arg(long)]
    json: bool,
}

/// The text for a machine without channels.
pub(crate) const NOTHING: &str = "No channel and no publisher was seen.";

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
    let has_publisher = report.rows.iter().any(|row| row.kind == Kind::Publisher);
    let titles = ["KIND", "FROM", "TO", "RING", "IN USE", "HIGH", "MESSAGES", "WAITS", "MISSED", "STATE"];
    table.set_header(titles.into_iter().chain(has_publisher.then_some("PATH")));
    for column in 3..=8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in &report.rows {
        let cells = [
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
        ];
        table.add_row(cells.into_iter().chain(has_publisher.then(|| path(row))));
    }
    let mut text = if report.rows.is_empty() { format!("{NOTHING}\n") } else { table.trim_fmt() + "\n" };
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

/// The same without users: `1234 camera`.
pub(crate) fn processes(programs: &[Program]) -> String {
    match programs {
        [] => "–".to_owned(),
        [one] => format!("{} {}", one.pid, one.name),
        [one, more @ ..] => format!("{} {} +{}", one.pid, one.name, more.len()),
    }
}

/// The receiving end of a row, without users.
pub(crate) fn receiving_processes(row: &Row) -> String {
    if row.kind == Kind::Publisher { "all below".to_owned() } else { processes(&row.to) }
}

/// The path at which a publisher's subscribers join, or those that it may be.
fn path(row: &Row) -> String {
    match &row.paths[..] {
        [] if row.kind == Kind::Publisher => "–".to_owned(),
        paths => paths.join(" or "),
    }
}

/// The receiving end of a row. A publisher's are in rows of their own.
pub(crate) fn receivers(row: &Row) -> String {
    if row.kind == Kind::Publisher { "all below".to_owned() } else { programs(&row.to) }
}

/// Notes about what was not seen, with the reason and the remedy.
pub(crate) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let Unseen { processes, cut, hidden } = report.unseen;
    if hidden {
        notes.push(
            "Processes of other users are hidden here (/proc is mounted with hidepid): they are not even counted. Root sees \
             them (sudo)."
                .into(),
        );
    }
    if processes > 0 {
        notes.push(format!(
            "Not seen, as the kernel does not show its mappings: {processes} process(es). {}",
            remedy(report.rights)
        ));
    }
    if cut > 0 {
        notes.push(format!("{cut} process(es) have more mappings than are read: 4 MiB of /proc/PID/maps, 100,000 regions or two seconds a user."));
    }
    let forbidden = report.rows.iter().filter(|row| row.state == State::Forbidden).count();
    if forbidden > 0 {
        let (why, remedy) = match report.rights.ptrace_scope {
            0 => (String::new(), remedy(report.rights)),
            scope => (
                format!(", where /proc/sys/kernel/yama/ptrace_scope is {scope} (`sealane doctor`)"),
                // The rule concerns memory only, not the mappings.
                if scope > 2 {
                    "Nobody may, until the machine is started again."
                } else {
                    remedy(report.rights)
                },
            ),
        };
        notes.push(format!(
            "{forbidden} region(s) are there, and may not be read: the kernel does not let this process look into that \
             memory{why}. {remedy}"
        ));
    }
    notes
}

/// The remedy for what the kernel does not show.
fn remedy(rights: Rights) -> &'static str {
    if rights.traces_all {
        "A security module (Landlock, SELinux, AppArmor) keeps even root from it: start the command elsewhere."
    } else {
        "Root sees all (sudo): the right is CAP_SYS_PTRACE, which a container may lack (--cap-add SYS_PTRACE)."
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn report(rights: Rights) -> Report {
        let row = Row {
            kind: Kind::Alone,
            group: 0,
            from: Rc::default(),
            to: Rc::default(),
            inode: 1,
            messages: None,
            bytes: None,
            ring: None,
            fill: None,
            high_water: None,
            waits: None,
            missed: None,
            state: State::Forbidden,
            path: None,
            paths: Vec::new(),
        };
        let unseen = Unseen { processes: 5, cut: 0, hidden: rights.hidden };
        Report { rows: vec![row], unseen, unread: 1, rights }
    }

    #[test]
    fn notes_name_the_reason_and_the_remedy() {
        let notes = |rights| notes(&report(rights));
        let ordinary = notes(Rights { hidden: true, ptrace_scope: 1, ..Rights::default() });
        assert!(ordinary[0].contains("hidepid"), "{ordinary:?}");
        assert!(ordinary[1].contains("5 process(es). Root sees all"), "{ordinary:?}");
        assert!(
            ordinary[2].contains("ptrace_scope is 1") && ordinary[2].contains("Root sees all"),
            "{ordinary:?}"
        );
        let strict = notes(Rights { ptrace_scope: 3, ..Rights::default() });
        assert!(strict[0].contains("Root sees all"), "{strict:?}");
        assert!(strict[1].contains("is 3") && strict[1].contains("Nobody may"), "{strict:?}");
        let root = notes(Rights { traces_all: true, ..Rights::default() });
        assert!(root.iter().all(|note| note.contains("keeps even root")), "{root:?}");
        assert!(!root[1].contains("ptrace_scope"), "{root:?}");
    }
}
