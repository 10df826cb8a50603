//! `sealane-bridge status`: how the bridges of this user on this machine do.

mod folder;
pub(crate) mod server;
mod snapshot;
mod table;

use std::{io::IsTerminal, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use sealane::Builder;

use self::snapshot::{Report, Snapshot};
use super::{
    output::{complain, write},
    units::Time,
};

/// Shows the topics, peers, rates, lags and losses of this user's bridges on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sealane-bridge status
  sealane-bridge status --json | jq '.[].topics[] | {topic, missed: .count.missed}'")]
pub(crate) struct Options {
    /// Prints a JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Time over which rates are measured; 0 for no rates
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Time,
    /// Shows it again and again, after this time each, until Ctrl-C. With --json each is a line
    #[arg(long, value_name = "TIME", conflicts_with = "interval")]
    watch: Option<Time>,
}

/// The longest time that a bridge is waited for. Other clients may come first, each with the time that the bridge gives it.
const PATIENCE: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"status";

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let interval = options.watch.unwrap_or(options.interval).0;
    let mut before = ask_all()?;
    if before.is_empty() && options.watch.is_none() {
        bail!("no bridge of this user runs on this machine");
    }
    loop {
        let now = if interval.is_zero() {
            before.clone()
        } else {
            std::thread::sleep(interval);
            ask_all()?
        };
        let report = Report::new(&before, now.clone());
        if !write(&show(options, &report)?)? || options.watch.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

fn show(options: &Options, report: &Report) -> Result<String> {
    if options.json {
        let text = if options.watch.is_some() {
            serde_json::to_string(report)
        } else {
            serde_json::to_string_pretty(report)
        };
        return Ok(text.context("writing JSON")? + "\n");
    }
    let text = table::text(report);
    let is_new_page = options.watch.is_some() && std::io::stdout().is_terminal();
    Ok(if is_new_page { format!("\x1b[H\x1b[2J{text}") } else { text })
}

/// Asks all bridges. Those that do not answer are complained about.
fn ask_all() -> Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    for (pid, path) in folder::sockets()? {
        match ask(&path) {
            Ok(snapshot) => snapshots.push(snapshot),
            // It has ended, perhaps just now.
            Err(_) if folder::remove_if_dead(pid, &path) => {}
            Err(why) => complain(&format!("the bridge with process id {pid} does not answer: {why:#}")),
        }
    }
    Ok(snapshots)
}

fn ask(path: &Path) -> Result<Snapshot> {
    let builder = Builder::default().ring_capacity(0).handshake_timeout(PATIENCE);
    let reply = builder.connect(path)?.call(REQUEST, PATIENCE)?;
    let json = reply.payload().ok_or_else(|| anyhow!("a payload expected, none found"))?.try_to_vec()?;
    serde_json::from_slice(&json).context("it is of another version")
}
