//! Measurements of fan-out: a [`FanCell`] is one [`Carrier`] with a number of subscribers and a size of payloads, and a
//! [`FanSample`] has its figures of one round.

use std::fmt;

use clap::ValueEnum;
use sealane::Builder;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{MAX_SAMPLES, Part},
    size,
};

/// The means by which one process sends the same messages to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carrier {
    /// sealane's publisher, which waits for its subscribers.
    SealaneGating,
    /// sealane's publisher, which waits for nobody: subscribers miss messages, and learn how many.
    SealaneOverrunning,
    /// A channel of sealane for each subscriber; each message is written once for each.
    SealaneChannels,
    /// iceoryx2, polling; a subscriber that finds nothing yields its CPU.
    #[value(name = "iceoryx2")]
    #[serde(rename = "iceoryx2")]
    Iceoryx2,
    /// iceoryx2, with an event for each message.
    #[value(name = "iceoryx2-event")]
    #[serde(rename = "iceoryx2-event")]
    Iceoryx2Event,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

/// Bytes of sealane's default ring: the least that each carrier has.
const RING: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FanCell {
    pub(crate) carrier: Carrier,
    pub(crate) subscribers: usize,
    /// Bytes of a payload.
    pub(crate) size: usize,
    pub(crate) seconds: f64,
    /// Messages a second; as many as possible without it.
    pub(crate) pace: Option<u32>,
}

impl FanCell {
    /// Bytes of each ring: the default one, or room for four payloads.
    pub(crate) fn ring(&self) -> usize {
        Builder::ring_for(self.size, 2).max(RING)
    }

    /// Payloads for which an iceoryx2 subscriber has room: as many as the ring.
    pub(crate) fn depth(&self) -> usize {
        (self.ring() / self.size).min(MAX_SAMPLES)
    }
}

impl fmt::Display for FanCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { carrier, subscribers, size, .. } = self;
        write!(f, "{carrier}, {subscribers} subscribers, {}", size::show(*size))
    }
}

/// The place of a process in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    Publisher,
    Subscriber(usize),
}

impl Place {
    /// The CPU of this process: the first for the publisher; the subscribers share the others.
    pub(crate) fn cpu(self, cpus: usize) -> usize {
        match (self, cpus) {
            (Self::Publisher, _) | (_, ..=1) => 0,
            (Self::Subscriber(index), _) => 1 + index % (cpus - 1),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FanSample {
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) cell: FanCell,
    /// Messages published, and the time until the last subscriber was done.
    pub(crate) publisher: Part,
    /// Messages received by each.
    pub(crate) received: Vec<Part>,
}

/// A figure of a sample.
pub(crate) type FanFigure = fn(&FanSample) -> f64;

/// The first figure is shown with its range.
pub(crate) const FIGURES: [(&str, FanFigure); 5] = [
    ("messages/s", FanSample::rate),
    ("publisher's CPU µs/message", FanSample::publisher_cpu),
    ("a subscriber's CPU µs/message", FanSample::subscriber_cpu),
    ("received %", FanSample::received_percent),
    ("sleeps/message", FanSample::sleeps),
];

impl FanSample {
    /// Messages published a second.
    pub(crate) fn rate(&self) -> f64 {
        self.publisher.messages as f64 / self.publisher.seconds
    }

    /// Microseconds of CPU for each message published.
    pub(crate) fn publisher_cpu(&self) -> f64 {
        self.publisher.cpu_seconds / self.publisher.messages as f64 * 1e6
    }

    /// Microseconds of CPU for each message received, on average over the subscribers.
    pub(crate) fn subscriber_cpu(&self) -> f64 {
        let cpu: f64 = self.received.iter().map(|part| part.cpu_seconds).sum();
        cpu / self.all_received() * 1e6
    }

    /// Microseconds of CPU of all processes for each message published.
    pub(crate) fn cpu(&self) -> f64 {
        self.publisher_cpu()
            + self.received.iter().map(|part| part.cpu_seconds).sum::<f64>() / self.publisher.messages as f64
                * 1e6
    }

    fn received_percent(&self) -> f64 {
        self.all_received() / self.received.len() as f64 / self.publisher.messages as f64 * 100.0
    }

    fn sleeps(&self) -> f64 {
        let sleeps: i64 = self.received.iter().map(|part| part.sleeps).sum();
        (sleeps + self.publisher.sleeps) as f64 / self.publisher.messages as f64
    }

    fn all_received(&self) -> f64 {
        self.received.iter().map(|part| part.messages).sum::<u64>() as f64
    }
}
