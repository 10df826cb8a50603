//! `sealane replay`.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Publishes what a file of record holds.
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
