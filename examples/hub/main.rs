//! A hub: one thread and one event loop that serve many clients, of which some behave badly.
//!
//! Every client streams payloads and, after some of them, asks for the hub's count, which must be exact. The good clients
//! live in one process, the bad ones in others, which the measurement starts and kills.
//!
//! ```text
//!  measure ──orders──► clients ══ N channels ══► server: the hub
//!     ├────starts────► trouble ══ some more ═══►   │
//!     └────────────── counters ────────────────────┘
//! ```
//! First all clients go as fast as they can. Then come rounds at a steady pace, one without and one with the bad clients in
//! turn: the result is how long the calls of the good ones take in both. Quantiles are medians over the rounds of a kind.
//!
//! Memory per client is the memory that the clients have added, divided by their number. For the hub and for the clients'
//! process it is the proportional set size (`/proc/PID/smaps_rollup`), half of the shared rings each; for the kernel it is slabs
//! and page tables (`/proc/meminfo`), of both ends and of everything else on the machine.
#![forbid(unsafe_code)]

mod clients;
mod measure;
mod misbehaving_clients;
#[path = "../shared/output.rs"]
mod output;
mod protocol;
mod report;
mod server;
mod system;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use sealane::Channel;

use crate::system::{Place, keep_to};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Serves many clients from one thread, and measures their service while other clients misbehave.
#[derive(Parser)]
#[command(name = "hub")]
struct Options {
    /// Clients that behave well
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How long to measure, in all
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Bytes of each ring: every client has two, one in each direction
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1024..))]
    ring_capacity: u32,
    /// Calls per second of all clients together, in the rounds at a steady pace
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pace: u32,
    /// Clients of one user that the hub serves; further ones are refused
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    per_user: u32,
    /// Bad clients that connect and say nothing
    #[arg(long, default_value_t = 0)]
    silent: u32,
    /// Bad clients that ask without end, and hardly ever read an answer
    #[arg(long, default_value_t = 0)]
    slow: u32,
    /// Bad clients that send as much as they can, of everything
    #[arg(long, default_value_t = 0)]
    flooding: u32,
    /// Clients that behave well, but are all killed in the middle of each round
    #[arg(long, default_value_t = 0)]
    dying: u32,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Role of this process
    #[arg(long, hide = true, default_value = "measure")]
    role: Role,
    /// Where the hub listens
    #[arg(long, hide = true, default_value = "hub")]
    socket: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Measure,
    Server,
    Clients,
    Trouble,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.role {
        Role::Measure => measure::run(&options).and_then(|facts| facts.print(options.json)),
        Role::Server => begin(Place::Hub).and_then(|parent| server::run(parent, &options)),
        Role::Clients => begin(Place::Clients).and_then(|parent| clients::run(parent, &options)),
        Role::Trouble => begin(Place::Clients).and_then(|parent| misbehaving_clients::run(parent, &options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let role =
                options.role.to_possible_value().map_or_else(String::new, |role| role.get_name().into());
            output::failed(&format!("hub ({role})"), &*error)
        }
    }
}

/// The channel to the process that measures.
fn begin(place: Place) -> Result<Channel> {
    keep_to(place)?;
    Ok(Channel::inherited()?)
}
