//! [`Plan`]: what to carry, and over what, from a command line and a file.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, bail};
use sealane_bridge::{Bridge, Network, Settings, WhenBehind};

use super::{
    args::{NetworkArgs, TopicPath},
    file::{File, Topic},
    options::TopicOptions,
};

/// Where a bridge is without being told: nobody beyond this machine reaches it.
const LOOPBACK: &str = "tcp/127.0.0.1:7700";

/// One topic.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) topic: String,
    pub(crate) path: PathBuf,
    settings: Settings,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) exports: Vec<Carried>,
    pub(crate) imports: Vec<Carried>,
    pub(crate) listen: Vec<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) router: bool,
    network: Network,
}

impl Plan {
    /// Topics of a command line, and those of its file.
    pub(crate) fn of_line(
        exports: Vec<TopicPath>,
        imports: Vec<TopicPath>,
        options: &TopicOptions,
        network: &NetworkArgs,
    ) -> Result<Self> {
        let file = network.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let of_line = |topics: Vec<TopicPath>| -> Vec<Carried> {
            let carried = |TopicPath { topic, path }| Carried { topic, path, settings: options.settings() };
            topics.into_iter().map(carried).collect()
        };
        let of_file = |(topic, Topic { path, options }): (String, Topic)| Carried {
            topic,
            path,
            settings: options.settings(),
        };
        let File { listen, connect, lease, router, export, import, zenoh } = file;
        let mut plan = Self {
            exports: of_line(exports).into_iter().chain(export.into_iter().map(of_file)).collect(),
            imports: of_line(imports).into_iter().chain(import.into_iter().map(of_file)).collect(),
            listen: [network.listen.clone(), listen].concat(),
            connect: [network.connect.clone(), connect].concat(),
            router: network.router || router,
            network: Network::default(),
        };
        if plan.exports.is_empty() && plan.imports.is_empty() && !plan.router {
            bail!("nothing to carry: topics in `export` or `import` of --config FILE expected, or --router");
        }
        plan.check()?;
        plan.add_defaults(zenoh.as_ref());
        let lease = network.lease.or(lease);
        plan.network = plan.make_network(zenoh, lease.map(|lease| lease.0));
        Ok(plan)
    }

    /// A router without topics of its own.
    pub(crate) fn of_router(network: &NetworkArgs) -> Result<Self> {
        let network = NetworkArgs { router: true, ..network.clone() };
        Self::of_line(Vec::new(), Vec::new(), &TopicOptions::default(), &network)
    }

    fn check(&self) -> Result<()> {
        for (side, topics) in [("export", &self.exports), ("import", &self.imports)] {
            let mut names = BTreeSet::new();
            for Carried { topic, .. } in topics {
                if !names.insert(topic) {
                    bail!("{side}: the topic `{topic}` is named twice");
                }
            }
        }
        for Carried { topic, path, .. } in &self.imports {
            if let Some(source) = self.exports.iter().find(|export| export.path == *path) {
                bail!(
                    "{}: exported as `{}`, so `{topic}` cannot be imported there",
                    path.display(),
                    source.topic
                );
            }
        }
        Ok(())
    }

    fn add_defaults(&mut self, zenoh: Option<&serde_json::Value>) {
        let has = |path: &str| zenoh.is_some_and(|zenoh| zenoh.pointer(path).is_some());
        let has_endpoints = has("/listen/endpoints") || has("/connect/endpoints");
        if self.listen.is_empty() && self.connect.is_empty() && !has_endpoints {
            let listens = self.router || !self.exports.is_empty();
            if listens { &mut self.listen } else { &mut self.connect }.push(LOOPBACK.to_owned());
        }
    }

    fn make_network(&self, zenoh: Option<serde_json::Value>, lease: Option<std::time::Duration>) -> Network {
        let mut network = Network::default();
        network = self.listen.iter().fold(network, |network, endpoint| network.listen(endpoint));
        network = self.connect.iter().fold(network, |network, endpoint| network.connect(endpoint));
        if self.router {
            network = network.router();
        }
        if let Some(lease) = lease {
            network = network.lease(lease);
        }
        if let Some(zenoh) = zenoh {
            network = network.zenoh(&zenoh.to_string());
        }
        for Carried { settings, .. } in &self.exports {
            if let WhenBehind::Wait(time) = settings.when_behind {
                network = network.wait(time);
            }
        }
        // A router, and whoever exports, takes what others send as Zenoh does.
        if !self.router && !self.imports.is_empty() {
            network = self.imports.iter().fold(network, |network, Carried { settings, .. }| {
                network.max_message(settings.max_message())
            });
        }
        network
    }

    /// Starts all of it.
    pub(crate) fn open(&self) -> sealane_bridge::Result<Bridge> {
        let mut bridge = Bridge::open(&self.network)?;
        for Carried { topic, path, settings } in &self.exports {
            bridge = bridge.export(topic, path, settings)?;
        }
        for Carried { topic, path, settings } in &self.imports {
            bridge = bridge.import(topic, path, settings)?;
        }
        Ok(bridge)
    }
}
