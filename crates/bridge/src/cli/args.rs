//! The command line's form.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use super::{
    options::{ExportOptions, ImportOptions},
    status,
    units::Time,
};

/// Carries what sealane publishes to other machines, over Zenoh.
#[derive(Debug, Parser)]
#[command(name = "sealane-bridge", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Export(Export),
    Import(Import),
    Run(Run),
    Router(Router),
    Status(status::Options),
}

/// Sends what is published on this machine to the network.
///
/// Listens on tcp/127.0.0.1:7700 unless an endpoint is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sealane-bridge export stats=/run/camera/stats --listen tcp/0.0.0.0:7700
  sealane-bridge export stats=/run/camera/stats frames=@frames --connect tcp/router:7700")]
pub(crate) struct Export {
    /// Topic, and the path of its publisher, or its abstract name (`@name`)
    #[arg(required = true, value_name = "TOPIC=PATH")]
    pub(crate) topics: Vec<Topic>,
    #[command(flatten)]
    pub(crate) options: ExportOptions,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
    /// File with options of the network
    #[arg(long, value_name = "FILE", help_heading = "Network options")]
    pub(crate) config: Option<PathBuf>,
}

/// Publishes on this machine what other bridges export.
///
/// Connects to tcp/127.0.0.1:7700 unless an endpoint is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sealane-bridge import stats=/run/remote/stats --connect tcp/host-a:7700
  sealane-bridge import stats=/run/remote/stats frames=@frames --connect tcp/router:7700")]
pub(crate) struct Import {
    /// Topic, and the path to publish at, or an abstract name (`@name`)
    #[arg(required = true, value_name = "TOPIC=PATH")]
    pub(crate) topics: Vec<Topic>,
    #[command(flatten)]
    pub(crate) options: ImportOptions,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
    /// File with options of the network
    #[arg(long, value_name = "FILE", help_heading = "Network options")]
    pub(crate) config: Option<PathBuf>,
}

/// Carries the topics that a file has.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example of a file:
  {
    listen: [\"tcp/0.0.0.0:7700\"],
    export: {
      stats: \"/run/camera/stats\",
      frames: { path: \"@frames\", when_behind: \"drop-oldest\", memory: \"256MiB\" },
    },
    import: { commands: { path: \"/run/remote/commands\", slow: \"overrun\" } },
    // Zenoh's own options.
    zenoh: { transport: { link: { tls: { root_ca_certificate: \"/etc/bridge/ca.pem\" } } } },
  }")]
pub(crate) struct Run {
    /// File with topics and options, as JSON5
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
}

/// Passes on what bridges send each other, and carries no topic itself.
///
/// Listens on tcp/127.0.0.1:7700 unless an endpoint is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Router {
    #[command(flatten)]
    pub(crate) endpoints: EndpointOptions,
    /// File with options of the network
    #[arg(long, value_name = "FILE", help_heading = "Network options")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Network options")]
pub(crate) struct NetworkOptions {
    #[command(flatten)]
    pub(crate) endpoints: EndpointOptions,
    /// Passes on what others send each other, too: Zenoh's router mode
    #[arg(long)]
    pub(crate) router: bool,
}

/// Options that a file has too. Those of the command line take the place of the file's.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Network options")]
pub(crate) struct EndpointOptions {
    /// Endpoint at which other bridges connect: tcp/0.0.0.0:7700, tls/…, quic/…. May be given several times
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) listen: Vec<String>,
    /// Endpoint to connect to: tcp/host-a:7700. Tried again until it is there. May be given several times
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) connect: Vec<String>,
    /// Time without a sign of life after which the other side takes a link for dead [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(crate) lease: Option<Time>,
}

/// `TOPIC=PATH`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for Topic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None => bail!("TOPIC=PATH expected, as stats=/run/camera/stats; no `=` found"),
            Some(("", _)) => bail!("TOPIC=PATH expected, as stats=/run/camera/stats; no topic found"),
            Some((_, "")) => bail!("TOPIC=PATH expected, as stats=/run/camera/stats; no path found"),
            Some((name, path)) => Ok(Self { name: name.to_owned(), path: path.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use sealane_bridge::Settings;

    use super::{super::options::TopicOptions, *};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_path_may_have_an_equals_sign() {
        let topic: Topic = "a/b=/x=y".parse().unwrap();
        assert_eq!(topic, Topic { name: "a/b".into(), path: "/x=y".into() });
        for wrong in ["stats", "=/path", "stats=", "="] {
            assert!(wrong.parse::<Topic>().unwrap_err().to_string().starts_with("TOPIC=PATH expected"));
        }
    }

    /// The defaults in the help are the library's.
    #[test]
    fn the_help_tells_the_defaults() {
        let defaults = Settings::default();
        assert_eq!(ExportOptions::default().settings().memory, defaults.memory);
        for (command, told) in [
            (
                "export",
                vec!["--slow wait=100ms", "--when-behind drop-newest", "--memory 64MiB", "--fds refuse"],
            ),
            ("export", vec!["--max-control 64KiB", "--beat 200ms"]),
            (
                "import",
                vec!["--slow wait=100ms", "--when-behind drop-newest", "--memory 64MiB", "--ring 4MiB"],
            ),
            (
                "import",
                vec!["--max-control 64KiB", "--max-subscribers 16", "--silence 2s", "--call-timeout 5s"],
            ),
        ] {
            let mut args = Args::command();
            let help = args.find_subcommand_mut(command).unwrap().render_long_help().to_string();
            for option in told {
                let (name, value) = option.split_once(' ').unwrap();
                assert!(help.contains(&format!("[default: {value}]")), "{option}: {help}");
                let given = Args::parse_from(["sealane-bridge", command, "a=/b", name, value]);
                let settings = match given.command {
                    Command::Export(export) => export.options.settings(),
                    Command::Import(import) => import.options.settings(),
                    _ => unreachable!(),
                };
                assert_eq!(format!("{settings:?}"), format!("{defaults:?}"), "{option}");
            }
        }
    }
}
