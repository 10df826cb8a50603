//! [`Network`]: how a bridge reaches others. Zenoh's own options, with other defaults: nothing is heard or found by itself.
//!
//! # Zenoh's mode
//!
//! A router of Zenoh passes nothing on between two *peers* that are connected to it: it takes for granted that all peers reach each other.
//! Two bridges behind a router would hear nothing of each other. A *client* does not have that problem, but its start waits until it is
//! connected. So a bridge's mode depends on its endpoints:
//!
//! - It listens, or connects to several others: peer. It passes nothing on.
//! - It listens nowhere and connects to one other: router, at the end of a network. As nobody connects to it, it has nobody to pass
//!   anything on to. It reaches all others, through routers or directly.
//! - With [`Network::router`] it is a router.
//!
//! Two bridges that both listen, both are connected to the same router, and are not connected to each other, still hear nothing of each
//! other: one of them must be a router, or connect to the other.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    counts::Role,
    error::{Error, Result, without_places},
    settings::{Settings, WhenBehind},
};

/// How a bridge reaches others.
///
/// By default it listens nowhere and looks for nobody. Endpoints are Zenoh's: `tcp/host-a:7700`, `tls/host-a:7700`, `quic/host-a:7700`.
///
/// ```
/// use std::time::Duration;
/// use sealane_bridge::Network;
///
/// let network = Network::default()
///     .listen("tcp/0.0.0.0:7700")
///     .lease(Duration::from_secs(60))
///     .zenoh(r#"{ transport: { link: { tx: { queue: { size: { data: 8 } } } } } }"#);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Network {
    listen: Vec<String>,
    connect: Vec<String>,
    router: bool,
    lease: Option<Duration>,
    zenoh: Option<String>,
    max_message: Option<usize>,
    wait: Option<Duration>,
}

impl Network {
    /// Adds an endpoint at which others connect.
    #[must_use]
    pub fn listen(mut self, endpoint: &str) -> Self {
        self.listen.push(endpoint.to_owned());
        self
    }

    /// Adds an endpoint to connect to. It is tried again until the bridge is dropped.
    #[must_use]
    pub fn connect(mut self, endpoint: &str) -> Self {
        self.connect.push(endpoint.to_owned());
        self
    }

    /// Passes on what others send each other: Zenoh's router mode. Two bridges that both listen, and are not connected to each other, hear nothing
    /// of each other through it.
    #[must_use]
    pub fn router(mut self) -> Self {
        self.router = true;
        self
    }

    /// After how long without a sign of life *the other side* takes the link for dead. Default: 10 s, which is Zenoh's. A link that is cut
    /// for longer loses what was under way.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Zenoh's own configuration, as JSON5: TLS, access control, queues. What it says goes before what is said here.
    #[must_use]
    pub fn zenoh(mut self, json5: &str) -> Self {
        self.zenoh = Some(json5.to_owned());
        self
    }

    /// The longest message that is put together from its parts; longer ones are dropped by Zenoh, and count as missed. Default: 64 MiB.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = Some(self.max_message.unwrap_or(0).max(bytes));
        self
    }

    /// How long a link that takes nothing more is waited for, before it is closed: for [`WhenBehind::Wait`].
    /// Default: 5 s, which is Zenoh's. The lease is at least as long.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(self.wait.unwrap_or_default().max(wait));
        self
    }

    /// What a topic with these settings needs of the network: an import, its longest message ([`max_message`](Self::max_message)); an
    /// export that waits, as long a [`wait`](Self::wait).
    #[must_use]
    pub fn carries(self, role: Role, settings: &Settings) -> Self {
        match (role, settings.when_behind) {
            (Role::Import, _) => self.max_message(settings.max_message()),
            (Role::Export, WhenBehind::Wait(wait)) => self.wait(wait),
            (Role::Export, WhenBehind::DropOldest | WhenBehind::DropNewest) => self,
        }
    }

    /// Zenoh's configuration.
    pub(crate) fn config(&self) -> Result<zenoh::Config> {
        let refuse = |why: zenoh::Error| Error::Config(without_places(&why.to_string()));
        let theirs = self.theirs()?;
        let mut config = match &self.zenoh {
            Some(text) => zenoh::Config::from_json5(text).map_err(refuse)?,
            None => zenoh::Config::default(),
        };
        for (path, value) in self.ours(&theirs) {
            if theirs.pointer(&format!("/{path}")).is_none() {
                config.insert_json5(path, &value.to_string()).map_err(|why| {
                    Error::Config(format!("{path} = {value}: {}", without_places(&why.to_string())))
                })?;
            }
        }
        if theirs.pointer("/transport/unicast/compression/enabled") == Some(&Value::Bool(true)) {
            return Err(Error::Config(
                "transport/unicast/compression/enabled: compression is not built in, as the library behind it has an open \
                 advisory"
                    .into(),
            ));
        }
        Ok(config)
    }

    /// Zenoh's own configuration as it was given.
    fn theirs(&self) -> Result<Value> {
        let text = self.zenoh.as_deref().unwrap_or("null");
        json5::from_str(text).map_err(|error| Error::Config(error.to_string()))
    }

    /// Whether Zenoh's own configuration says which identifier the bridge has.
    pub(crate) fn has_id(&self) -> Result<bool> {
        Ok(self.theirs()?.get("id").is_some())
    }

    /// Whether it is the end of a network, see the module. `theirs` is Zenoh's own configuration.
    fn is_leaf(&self, theirs: &Value) -> bool {
        // Endpoints that depend on the mode do not say it.
        let count = |kind: &str, ours: usize| match theirs.pointer(&format!("/{kind}/endpoints")) {
            None => ours,
            Some(Value::Array(endpoints)) => endpoints.len(),
            Some(Value::String(_)) => 1,
            Some(_) => usize::MAX,
        };
        !self.router && count("listen", self.listen.len()) == 0 && count("connect", self.connect.len()) == 1
    }

    /// What is set unless Zenoh's own configuration has it.
    fn ours(&self, theirs: &Value) -> Vec<(&'static str, Value)> {
        let is_leaf = self.is_leaf(theirs);
        let lease = self.lease.unwrap_or(Duration::from_secs(10)).max(self.wait.unwrap_or_default());
        // UNTRUSTED: Zenoh's own default is 1 GiB, for each peer. A router puts together what others send each other, too.
        let usual = 64 << 20;
        let max_message =
            self.max_message.map_or(usual, |bytes| if self.router { bytes.max(usual) } else { bytes });
        let mut ours = vec![
            ("mode", json!(if self.router || is_leaf { "router" } else { "peer" })),
            ("listen/endpoints", json!(self.listen)),
            ("connect/endpoints", json!(self.connect)),
            ("connect/timeout_ms", json!(-1)),
            ("connect/exit_on_failure", json!(false)),
            (
                "connect/retry",
                json!({ "period_init_ms": 100, "period_max_ms": 1000, "period_increase_factor": 2 }),
            ),
            ("scouting/multicast/enabled", json!(false)),
            ("scouting/gossip/enabled", json!(false)),
            ("transport/link/tx/lease", json!(millis(lease))),
            // Batches of 64 KiB for each link, where Zenoh has 2: a burst is not dropped at once.
            ("transport/link/tx/queue/size/data", json!(16)),
            ("transport/link/rx/max_message_size", json!(max_message.saturating_add(64 << 10))),
        ];
        if is_leaf {
            // A router's default, which would add 8 bytes and a clock's reading to each sample.
            ours.push(("timestamping/enabled", json!(false)));
        }
        if let Some(wait) = self.wait {
            let path = "transport/link/tx/queue/congestion_control/block/wait_before_close";
            ours.push((path, json!(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))));
        }
        ours
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(network: &Network, path: &str) -> String {
        network.config().unwrap().get_json(path).unwrap()
    }

    #[test]
    fn nothing_is_heard_or_found_by_itself() {
        let network = Network::default();
        assert_eq!(get(&network, "listen/endpoints"), "[]");
        assert_eq!(get(&network, "scouting/multicast/enabled"), "false");
        assert_eq!(get(&network, "scouting/gossip/enabled"), "false");
    }

    #[test]
    fn the_mode_follows_from_the_endpoints() {
        let at = "tcp/127.0.0.1:1";
        let (none, router) = (Network::default(), Network::default().router());
        for (network, mode) in [
            (none.clone(), "peer"),
            (none.clone().listen(at), "peer"),
            (none.clone().listen(at).connect(at), "peer"),
            (none.clone().connect(at).connect("tcp/127.0.0.1:2"), "peer"),
            (none.clone().connect(at), "router"),
            (router.listen(at), "router"),
        ] {
            assert_eq!(get(&network, "mode"), format!("\"{mode}\""), "{network:?}");
        }
        for (zenoh, mode) in [
            ("{ mode: 'client' }", "client"),
            ("{ listen: { endpoints: ['tcp/127.0.0.1:1'] } }", "peer"),
            ("{ listen: { endpoints: { router: ['tcp/127.0.0.1:1'] } } }", "peer"),
            ("{ connect: { endpoints: ['tcp/127.0.0.1:1', 'tcp/127.0.0.1:2'] } }", "peer"),
            ("{ connect: { endpoints: ['tcp/127.0.0.1:2'] } }", "router"),
        ] {
            let network = none.clone().connect(at).zenoh(zenoh);
            assert_eq!(get(&network, "mode"), format!("\"{mode}\""), "{zenoh}");
        }
    }

    #[test]
    fn topics_say_what_they_need() {
        let wait = Settings { when_behind: WhenBehind::Wait(Duration::from_secs(20)), ..Settings::default() };
        let exports = Network::default().carries(Role::Export, &wait);
        assert_eq!(get(&exports, "transport/link/tx/lease"), "20000");
        let imports = Network::default().carries(Role::Import, &Settings::default());
        let longest = |network: &Network| get(network, "transport/link/rx/max_message_size");
        assert_eq!(longest(&imports), ((2 << 20) + (128 << 10)).to_string());
        assert_eq!(longest(&imports.router()), longest(&Network::default()));
    }

    #[test]
    fn zenohs_own_options_go_first() {
        let network = Network::default()
            .listen("tcp/127.0.0.1:1")
            .wait(Duration::from_mins(1))
            .zenoh("{ mode: 'router', scouting: { gossip: { enabled: true } } }");
        assert_eq!(get(&network, "mode"), "\"router\"");
        assert_eq!(get(&network, "scouting/gossip/enabled"), "true");
        assert_eq!(get(&network, "scouting/multicast/enabled"), "false");
        assert_eq!(get(&network, "transport/link/tx/lease"), "60000");
        let wait = "transport/link/tx/queue/congestion_control/block/wait_before_close";
        assert_eq!(get(&network, wait), "60000000");
    }

    #[test]
    fn wrong_options_are_named() {
        let wrong = |zenoh: &str| Network::default().zenoh(zenoh).config().unwrap_err().to_string();
        assert!(wrong("{ mode: 'nonsense' }").contains("nonsense"), "{}", wrong("{ mode: 'nonsense' }"));
        assert!(wrong("{").contains("Zenoh's configuration"));
        let compression = "{ transport: { unicast: { compression: { enabled: true } } } }";
        assert!(wrong(compression).contains("compression"));
        let endpoint = Network::default().listen("nowhere").config().unwrap_err().to_string();
        assert!(endpoint.contains("nowhere"), "{endpoint}");
    }
}
