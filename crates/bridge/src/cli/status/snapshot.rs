//! [`Snapshot`]: what a bridge tells of itself, and [`Report`]: what two of them in a row say.

use sealane_bridge::TopicStatus;
use serde::{Deserialize, Serialize};

/// A bridge, without its topics.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Its identifier in Zenoh.
    pub(crate) id: String,
    /// Seconds since it began.
    pub(crate) uptime: f64,
    pub(crate) router: bool,
    pub(crate) listen: Vec<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) peers: Vec<String>,
}

/// A bridge at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) topics: Vec<TopicStatus>,
}

/// The bridges, with rates. JSON has it as it is here.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Report {
    pub(crate) bridges: Vec<BridgeReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BridgeReport {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) topics: Vec<TopicReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TopicReport {
    #[serde(flatten)]
    pub(crate) status: TopicStatus,
    /// None if there was no snapshot before.
    pub(crate) rates: Option<Rates>,
}

/// Rates a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) messages: f64,
    pub(crate) bytes: f64,
}

impl Report {
    /// The bridges of `now`, with rates since `before`.
    pub(crate) fn new(before: &[Snapshot], now: Vec<Snapshot>) -> Self {
        let bridges = now.into_iter().map(|now| {
            let same = |old: &&Snapshot| old.about.pid == now.about.pid && old.about.id == now.about.id;
            let before = before.iter().find(same);
            BridgeReport::new(before, now)
        });
        Self { bridges: bridges.collect() }
    }
}

impl BridgeReport {
    fn new(before: Option<&Snapshot>, now: Snapshot) -> Self {
        let topics = now.topics.into_iter().map(|status| {
            let rates = before.and_then(|before| {
                let same = |old: &&TopicStatus| old.topic == status.topic && old.role == status.role;
                let old = before.topics.iter().find(same)?;
                Rates::between(old, &status, now.about.uptime - before.about.uptime)
            });
            TopicReport { status, rates }
        });
        Self { topics: topics.collect(), about: now.about }
    }
}

impl Rates {
    fn between(old: &TopicStatus, new: &TopicStatus, seconds: f64) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        (seconds > 0.0).then(|| Self {
            messages: rate(old.count.messages, new.count.messages),
            bytes: rate(old.count.bytes, new.count.bytes),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn snapshot(uptime: f64, messages: u64) -> Snapshot {
        let mut count = serde_json::to_value(sealane_bridge::Count::default()).unwrap();
        count["messages"] = messages.into();
        count["bytes"] = (messages * 2048).into();
        serde_json::from_value(serde_json::json!({
            "pid": 7, "version": "0.1.0", "id": "ab", "uptime": uptime, "router": false,
            "listen": ["tcp/127.0.0.1:7700"], "connect": [], "peers": ["cd"],
            "topics": [{
                "topic": "stats", "role": "export", "path": "/run/st\u{1b}ats", "is_here": true, "state": "here",
                "number": messages, "waiting": 0, "lag": 3, "subscribers": 0, "count": count,
            }],
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_differences_over_the_bridges_own_time() {
        let report = Report::new(&[snapshot(10.0, 100)], vec![snapshot(12.0, 300)]);
        let rates = report.bridges[0].topics[0].rates.unwrap();
        assert_eq!(rates, Rates { messages: 100.0, bytes: 204_800.0 });
    }

    #[test]
    fn what_was_not_there_before_has_no_rates() {
        let same = snapshot(10.0, 100);
        assert_eq!(Report::new(&[], vec![same.clone()]).bridges[0].topics[0].rates, None);
        assert_eq!(
            Report::new(std::slice::from_ref(&same), vec![same.clone()]).bridges[0].topics[0].rates,
            None
        );
        let mut other = same.clone();
        other.about.id = "ef".into();
        assert_eq!(Report::new(&[other], vec![snapshot(11.0, 200)]).bridges[0].topics[0].rates, None);
    }
}
