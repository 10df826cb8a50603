//! `sealane doctor`.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Examines what of this machine matters to sealane, and tries a channel between two processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Prints JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(_options: &Options) -> Result<ExitCode> {
    bail!("not there yet")
}
