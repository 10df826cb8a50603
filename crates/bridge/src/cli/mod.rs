//! The command line: what it says, and what each subcommand does.
//!
//! ```text
//! args, options ─┐
//!                ├─► plan ─► run ─► status::server
//! config ────────┘                        ▲
//!                          status::run ───┘
//! ```

mod args;
mod config;
mod log;
mod options;
mod output;
mod plan;
mod run;
mod status;
mod stop;
mod units;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use self::{
    args::{Args, Command},
    plan::{Plan, Usage},
};

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    match dispatch(Args::parse().command) {
        Ok(status) => status,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Status(options) => status::run(&options),
        other => run::run(&Plan::of(other)?),
    }
}
