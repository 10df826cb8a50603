//! `sealane record`.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Records what a publisher publishes into an MCAP file.
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
