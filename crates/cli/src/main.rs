//! The command `sealane`: looks at the channels and publishers of this machine, records and replays what is published, and
//! examines what of the machine matters.
//!
//! Each subcommand has a module of its own, with its options and a function `run`. docs/tools.md is its manual.

#![deny(unsafe_code)]

mod doctor;
mod look;
mod ls;
mod output;
mod progress;
mod record;
mod recording;
mod replay;
mod rows;
mod stop;
mod top;
mod units;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

/// Looks at, records and replays what programs exchange over sealane.
#[derive(Debug, Parser)]
#[command(name = "sealane", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Options),
    Ls(ls::Options),
    Record(record::Options),
    Replay(replay::Options),
    Top(top::Options),
    /// Reads the memory of other processes for `ls` and `top`, which may hang.
    #[command(hide = true)]
    ReadPages,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Doctor(options) => doctor::run(&options),
        Command::Ls(options) => ls::run(&options),
        Command::Top(options) => top::run(&options),
        Command::ReadPages => look::serve(),
        Command::Record(options) => record::run(&options),
        Command::Replay(options) => replay::run(&options),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            // The standard error may be a pipe that nobody reads any more.
            let _ = writeln!(std::io::stderr(), "sealane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
