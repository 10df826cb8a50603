//! What a topic has carried and lost: [`TopicStatus`].

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// From a publisher on this machine to the network.
    Export,
    /// From the network to subscribers on this machine.
    Import,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a topic, since the bridge was started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[non_exhaustive]
        pub struct Count { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        impl Counters {
            fn load(&self) -> Count {
                Count { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Messages that were passed on.
    messages,
    /// Their bytes, control bytes included.
    bytes,
    /// Samples of Zenoh that carried them.
    samples,
    /// Messages that are known to be lost before they came here, or between the bridges.
    missed,
    /// Messages that this bridge dropped, as it was behind.
    dropped,
    /// Messages that were refused: for their descriptors, or as too large for the ring.
    refused,
    /// Messages that were passed on without their descriptors.
    without_fds,
    /// Samples, tokens or requests from the network that were not what this version writes.
    malformed,
    /// Samples of another publisher than the one that is followed.
    foreign,
    /// Samples that came twice, or too late.
    stale,
    /// Requests and messages of subscribers that were passed on.
    calls,
    /// Those that failed.
    failed_calls,
    /// Times that the source was started again, or found for the first time.
    runs,
    /// Times that all of the bridge's topics have entered another session of Zenoh, as this one's source was connected and silent.
    renewals,
}

/// A topic, as `sealane-bridge status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicStatus {
    /// Its name.
    pub topic: String,
    /// Its direction.
    pub role: Role,
    /// The path on this machine.
    pub path: String,
    /// Whether the source is there.
    pub is_here: bool,
    /// What there is to say of it.
    pub state: String,
    /// The number of the next message, at its source.
    pub number: u64,
    /// Bytes that wait in the bridge.
    pub waiting: u64,
    /// Bytes that the exporter's subscription is behind, or the slowest local subscriber.
    pub lag: u64,
    /// Local subscribers of an import.
    pub subscribers: u64,
    /// The counters.
    pub count: Count,
}

/// A topic's counters and state, shared by its threads.
#[derive(Debug)]
pub(crate) struct Counts {
    topic: String,
    role: Role,
    path: String,
    pub(crate) counters: Counters,
    pub(crate) number: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) lag: AtomicU64,
    pub(crate) subscribers: AtomicU64,
    state: Mutex<(bool, String)>,
}

impl Counts {
    pub(crate) fn new(topic: &str, role: Role, path: String, state: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            role,
            path,
            counters: Counters::default(),
            number: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            subscribers: AtomicU64::new(0),
            state: Mutex::new((false, state.to_owned())),
        }
    }

    /// Says whether the source is there. Logs it if that is new.
    pub(crate) fn set_state(&self, is_here: bool, state: &str) {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 != is_here || now.1 != state {
            log::info!("{}: {state}", self.topic);
            *now = (is_here, state.to_owned());
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether its publisher, or its source, is there.
    pub(crate) fn is_here(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn status(&self) -> TopicStatus {
        let (is_here, state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TopicStatus {
            topic: self.topic.clone(),
            role: self.role,
            path: self.path.clone(),
            is_here,
            state,
            number: self.number.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            lag: self.lag.load(Relaxed),
            subscribers: self.subscribers.load(Relaxed),
            count: self.counters.load(),
        }
    }

    /// Counts something from the network that was refused, and logs the first, the second, the fourth … of them.
    pub(crate) fn refuse(&self, counter: &AtomicU64, why: &dyn std::fmt::Display) {
        let count = add(counter, 1);
        if count.is_power_of_two() {
            log::warn!("{}: refused ({count} so far): {why}", self.topic);
        }
    }
}

/// Adds to a counter. Returns the new count.
pub(crate) fn add(counter: &AtomicU64, count: u64) -> u64 {
    counter.fetch_add(count, Relaxed).wrapping_add(count)
}
