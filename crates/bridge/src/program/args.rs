//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::options::{Time, TopicOptions};

/// Carries what sealane publishes to other machines, over Zenoh, and tells every gap exactly.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Puts what is published on this machine on the network
    ///
    /// Example: sealane-bridge export stats=/run/camera/stats --listen tcp/0.0.0.0:7700
    Export {
        /// Topics and the publishers' paths; `@` begins an abstract name
        #[arg(value_name = "TOPIC=PATH", required = true)]
        topics: Vec<TopicPath>,
        #[command(flatten)]
        options: TopicOptions,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Publishes on this machine what others export
    ///
    /// Example: sealane-bridge import stats=/run/remote/stats --connect tcp/host-a:7700
    Import {
        /// Topics and the paths at which subscribers join
        #[arg(value_name = "TOPIC=PATH", required = true)]
        topics: Vec<TopicPath>,
        #[command(flatten)]
        options: TopicOptions,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Carries the topics that a file says
    Run {
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Passes on what other bridges send each other: Zenoh's router
    Router {
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Shows the bridges that this user runs on this machine
    Status {
        /// One JSON document instead of tables
        #[arg(long)]
        json: bool,
        /// Time over which rates are measured
        #[arg(long, value_name = "TIME", default_value = "1s")]
        interval: Time,
    },
}

/// How others are reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetworkArgs {
    /// An endpoint at which others connect, as Zenoh writes it [default of an export: tcp/127.0.0.1:7700]
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) listen: Vec<String>,
    /// An endpoint to connect to [default of an import: tcp/127.0.0.1:7700]
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) connect: Vec<String>,
    /// After how long without a sign of life others take this bridge for dead [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(crate) lease: Option<Time>,
    /// Passes on what others send each other, too
    #[arg(long)]
    pub(crate) router: bool,
    /// A file with topics, endpoints and Zenoh's own options (JSON5; docs/bridge.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// A topic, and where it is on this machine.
#[derive(Debug, Clone)]
pub(crate) struct TopicPath {
    pub(crate) topic: String,
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for TopicPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((topic, path)) if !topic.is_empty() && !path.is_empty() => {
                Ok(Self { topic: topic.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err(format!("TOPIC=PATH expected, such as stats=/run/camera/stats; `{text}` found")),
        }
    }
}
