//! The program around the library: its command line, its file, its status.

mod args;
mod file;
mod options;
mod plan;
mod run;
mod status;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use self::{
    args::{Args, Command},
    plan::Plan,
};

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr();
    let result = match args.command {
        Command::Export { topics, options, network } => {
            Plan::of_line(topics, Vec::new(), &options, &network).and_then(|plan| run::run(&plan))
        }
        Command::Import { topics, options, network } => {
            Plan::of_line(Vec::new(), topics, &options, &network).and_then(|plan| run::run(&plan))
        }
        Command::Run { network } => {
            Plan::of_line(Vec::new(), Vec::new(), &options::TopicOptions::default(), &network)
                .and_then(|plan| run::run(&plan))
        }
        Command::Router { network } => Plan::of_router(&network).and_then(|plan| run::run(&plan)),
        Command::Status { json, interval } => status::show(json, interval.0),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "sealane-bridge: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs of this program from `info` on, others' from `warn` on, unless `RUST_LOG` says otherwise. That gossip is off, Zenoh need not say.
fn log_to_stderr() {
    let environment = env_logger::Env::default()
        .default_filter_or("warn,zenoh::net::routing::hat=error,sealane_bridge=info");
    env_logger::Builder::from_env(environment).init();
}
