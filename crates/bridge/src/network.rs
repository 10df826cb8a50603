//! [`Network`]: how a bridge reaches others. Zenoh's own options, with other defaults: nothing is heard or found by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};

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

    /// Whether it has an endpoint at all.
    #[must_use]
    pub fn has_endpoints(&self) -> bool {
        !self.listen.is_empty() || !self.connect.is_empty() || self.zenoh.is_some()
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

    /// How long a link that takes nothing more is waited for, before it is closed: for [`WhenBehind::Wait`](crate::WhenBehind::Wait).
    /// Default: 5 s, which is Zenoh's. The lease is at least as long.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(self.wait.unwrap_or_default().max(wait));
        self
    }

    /// Zenoh's configuration.
    pub(crate) fn config(&self) -> Result<zenoh::Config> {
        let refuse = |why: zenoh::Error| Error::Config(why.to_string());
        let (mut config, theirs) = match &self.zenoh {
            Some(text) => {
                let theirs: Value =
                    json5::from_str(text).map_err(|error| Error::Config(error.to_string()))?;
                (zenoh::Config::from_json5(text).map_err(refuse)?, theirs)
            }
            None => (zenoh::Config::default(), Value::Null),
        };
        for (path, value) in self.ours() {
            if theirs.pointer(&format!("/{path}")).is_none() {
                config
                    .insert_json5(path, &value.to_string())
                    .map_err(|why| Error::Config(format!("{path} = {value}: {why}")))?;
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

    /// Zenoh's mode. A router passes nothing on between two peers, as it takes for granted that they reach each other; a client waits for its router
    /// before it does anything. So whoever has no more than one link to somebody else is a router at the network's end: it hears all that
    /// are behind that link, and has nothing to pass on.
    fn mode(&self) -> &'static str {
        match (self.router, &self.listen[..], &self.connect[..]) {
            (true, ..) | (false, [], [_]) => "router",
            _ => "peer",
        }
    }

    /// What is set unless Zenoh's own configuration has it.
    fn ours(&self) -> Vec<(&'static str, Value)> {
        let lease = self.lease.unwrap_or(Duration::from_secs(10)).max(self.wait.unwrap_or_default());
        // UNTRUSTED: Zenoh's own default is 1 GiB, for each peer.
        let max_message = self.max_message.unwrap_or(64 << 20);
        let mut ours = vec![
            ("mode", json!(self.mode())),
            ("timestamping/enabled", json!(self.router)),
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
