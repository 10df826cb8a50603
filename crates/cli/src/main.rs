//! The command `sealane`: looks at the channels and publishers of this machine, records and replays what is published, and
//! examines what of the machine matters.
//!
//! Each subcommand has a module of its own, with its options and a function `run`. docs/tools.md is its manual.

#![deny(unsafe_code)]

mod doctor;
mod print;
mod record;
mod recording;
mod replay;
mod stop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at, records and replays what programs exchange over sealane.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Options),
    Record(record::Options),
    Replay(replay::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Doctor(options) => doctor::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Replay(options) => replay::run(&options),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("sealane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
