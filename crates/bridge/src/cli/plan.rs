//! [`Plan`]: what a command line and a file say together.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sealane_bridge::{Network, Role, Settings};
use serde_json::Value;

use super::{
    args::{Command, EndpointOptions, NetworkOptions, Topic},
    config::{Config, Topics},
    options::TopicOptions,
};

/// The endpoint at which a bridge listens, and to which one connects, unless others are given: the loopback alone.
const ENDPOINT: &str = "tcp/127.0.0.1:7700";

/// A mistake on the command line, or in a file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Usage {
    fn refuse<T>(why: String) -> Result<T> {
        Err(Self(why).into())
    }
}

/// The topics to carry, and the endpoints to carry them over.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) network: Network,
    pub(crate) listen: Vec<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) router: bool,
    pub(crate) topics: Vec<Carried>,
}

/// A topic in one direction.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) topic: String,
    pub(crate) role: Role,
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
}

impl Plan {
    /// What a subcommand that carries says.
    pub(crate) fn of(command: Command) -> Result<Self> {
        match command {
            Command::Export(export) => {
                let config = network_alone(export.config.as_deref(), "export")?;
                Self::new(config, export.network, same_options(export.topics, &export.options))
            }
            Command::Import(import) => {
                let config = network_alone(import.config.as_deref(), "import")?;
                Self::new(config, import.network, same_options(import.topics, &import.options))
            }
            Command::Run(run) => {
                let mut config = Config::read(&run.config)?;
                let in_file = || run.config.display().to_string();
                let mut topics = of_file(std::mem::take(&mut config.export)).with_context(in_file)?;
                topics.extend(of_file(std::mem::take(&mut config.import)).with_context(in_file)?);
                if topics.is_empty() {
                    return Usage::refuse(format!(
                        "{}: a topic expected under `export` or `import`, none found; `sealane-bridge router` needs none",
                        in_file()
                    ));
                }
                Self::new(config, run.network, topics).with_context(in_file)
            }
            Command::Router(router) => {
                let config = network_alone(router.config.as_deref(), "router")?;
                let network = NetworkOptions { endpoints: router.endpoints, router: true };
                Self::new(config, network, Vec::new())
            }
            Command::Status(_) => Usage::refuse("status carries nothing".into()),
        }
    }

    fn new(config: Config, given: NetworkOptions, topics: Vec<Carried>) -> Result<Self> {
        check(&topics)?;
        let EndpointOptions { listen, connect, lease } = given.endpoints;
        let router = given.router || config.router;
        let zenoh = config.zenoh.unwrap_or_default();
        if router && zenoh.get("mode").is_some_and(|mode| mode != "router") {
            let mode = &zenoh["mode"];
            return Usage::refuse(format!(
                "router: Zenoh's own option `mode` is {mode}: leave out one of them"
            ));
        }
        let mut listen = endpoints("listen", listen, config.listen, &zenoh)?;
        let mut connect = endpoints("connect", connect, config.connect, &zenoh)?;
        if listen.is_empty() && connect.is_empty() {
            let imports_only = !topics.is_empty() && topics.iter().all(|topic| topic.role == Role::Import);
            if imports_only && !router { &mut connect } else { &mut listen }.push(ENDPOINT.to_owned());
        }
        let mut network = Network::default();
        network = listen.iter().fold(network, |network, endpoint| network.listen(endpoint));
        network = connect.iter().fold(network, |network, endpoint| network.connect(endpoint));
        network = topics.iter().fold(network, |network, topic| network.carries(topic.role, &topic.settings));
        if router {
            network = network.router();
        }
        if let Some(lease) = lease.or(config.lease) {
            network = network.lease(lease.0);
        }
        if !zenoh.is_null() {
            network = network.zenoh(&zenoh.to_string());
        }
        Ok(Self { network, listen, connect, router, topics })
    }
}

/// The file of a subcommand whose topics are on the command line.
fn network_alone(path: Option<&Path>, command: &str) -> Result<Config> {
    let Some(path) = path else { return Ok(Config::default()) };
    let config = Config::read(path)?;
    if config.export.0.is_empty() && config.import.0.is_empty() {
        return Ok(config);
    }
    Usage::refuse(format!(
        "{}: options of the network expected, as the command is `{command}`; topics found: \
         `sealane-bridge run --config` carries them",
        path.display()
    ))
}

fn same_options<T: TopicOptions>(topics: Vec<Topic>, options: &T) -> Vec<Carried> {
    let carried =
        |Topic { name, path }| Carried { topic: name, role: T::ROLE, path, settings: options.settings() };
    topics.into_iter().map(carried).collect()
}

fn of_file<T: TopicOptions>(topics: Topics<T>) -> Result<Vec<Carried>> {
    let mut carried = Vec::new();
    for (topic, options) in topics.0 {
        let Some(path) = options.path().filter(|path| !path.as_os_str().is_empty()) else {
            return Usage::refuse(format!("topic `{topic}`: a path expected, none found"));
        };
        carried.push(Carried { topic, role: T::ROLE, path, settings: options.settings() });
    }
    Ok(carried)
}

/// Refuses topics that are there twice, and paths that two of them would write, or that would go round in a circle.
fn check(topics: &[Carried]) -> Result<()> {
    let mut names = HashMap::new();
    let mut paths: HashMap<&Path, &Carried> = HashMap::new();
    for carried in topics {
        let Carried { topic, role, path, .. } = carried;
        match names.insert(topic, role) {
            Some(other) if other == role => {
                return Usage::refuse(format!("topic `{topic}` is there twice: give each topic once"));
            }
            Some(_) => {
                return Usage::refuse(format!(
                    "topic `{topic}` is both exported and imported: give one of them another name"
                ));
            }
            None => {}
        }
        if let Some(other) = paths.insert(path, carried)
            && (other.role == Role::Import || *role == Role::Import)
        {
            return Usage::refuse(format!(
                "{} is the path of `{}` and of `{topic}`: an import needs a path of its own",
                path.display(),
                other.topic
            ));
        }
    }
    Ok(())
}

/// The endpoints of one kind: those of the command line, of the file, or of Zenoh's own configuration in it.
fn endpoints(kind: &str, given: Vec<String>, file: Vec<String>, zenoh: &Value) -> Result<Vec<String>> {
    let ours = if given.is_empty() { file } else { given };
    let Some(theirs) = zenoh.pointer(&format!("/{kind}/endpoints")) else { return Ok(ours) };
    if !ours.is_empty() {
        return Usage::refuse(format!(
            "{kind}: endpoints are in Zenoh's own option `{kind}.endpoints`, too: leave out one of them"
        ));
    }
    let text = |endpoint: &Value| endpoint.as_str().map_or_else(|| endpoint.to_string(), str::to_owned);
    Ok(theirs.as_array().map_or_else(|| vec![text(theirs)], |all| all.iter().map(text).collect()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Args;

    fn plan(line: &str) -> Result<Plan> {
        Plan::of(Args::try_parse_from(line.split(' ').map(str::to_owned))?.command)
    }

    #[test]
    fn the_loopback_is_the_default() {
        let at = |line: &str| {
            let plan = plan(line).unwrap();
            (plan.listen.join(" "), plan.connect.join(" "))
        };
        assert_eq!(at("b export a=/a"), (ENDPOINT.into(), String::new()));
        assert_eq!(at("b import a=/a"), (String::new(), ENDPOINT.into()));
        assert_eq!(at("b router"), (ENDPOINT.into(), String::new()));
        assert_eq!(at("b import a=/a --router"), (ENDPOINT.into(), String::new()));
        assert_eq!(at("b export a=/a --connect tcp/x:1"), (String::new(), "tcp/x:1".into()));
        assert_eq!(
            at("b import a=/a --listen tcp/x:1 --listen tcp/x:2"),
            ("tcp/x:1 tcp/x:2".into(), String::new())
        );
    }

    #[test]
    fn topics_share_the_options_of_a_line() {
        let plan = plan("b import a=/a b=@b --ring 8MiB").unwrap();
        assert_eq!(plan.topics.len(), 2);
        assert!(plan.topics.iter().all(|topic| topic.settings.ring == 8 << 20 && topic.role == Role::Import));
    }

    #[test]
    fn zenohs_endpoints_count() {
        let zenoh = serde_json::json!({ "listen": { "endpoints": ["tls/[::]:7700"] } });
        assert_eq!(endpoints("listen", vec![], vec![], &zenoh).unwrap(), ["tls/[::]:7700"]);
        assert!(endpoints("connect", vec![], vec![], &zenoh).unwrap().is_empty());
        assert!(endpoints("listen", vec!["tcp/x:1".into()], vec![], &zenoh).unwrap_err().is::<Usage>());
    }
}
