//! What is measured: a [`Cell`] is one [`Transport`] at one [`Work`] and size, and a [`Sample`] is its figures of one round.
//!
//! This is plain data, with the rules on which transport does which work. It knows nothing about how either is done.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use sealane::Builder;
use serde::{Deserialize, Serialize};

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Payloads are written, sent, and read, every byte.
    Stream,
    /// Payloads are sent, and nobody touches them.
    Handoff,
    /// As stream, with payloads of 64 bytes.
    Small,
    /// A payload is written, sent, read, and answered by another.
    Roundtrip,
    /// A message without a payload is sent and answered.
    Control,
    /// As control, with a descriptor each way.
    Fd,
    /// Nothing is sent, and the receiver waits.
    Idle,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

impl Work {
    /// The sizes that are measured unless others are asked for.
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            Self::Stream => &[4 << 10, 64 << 10, 1 << 20, 8 << 20],
            Self::Handoff => &[4 << 10, 64 << 10, 1 << 20, 8 << 20, 16 << 20],
            Self::Small | Self::Roundtrip | Self::Control | Self::Fd | Self::Idle => &[64],
        }
    }

    /// The writers that are measured unless others are asked for.
    pub(crate) fn writers(self) -> &'static [Writer] {
        if self == Self::Stream { &[Writer::Fast, Writer::Slow] } else { &[Writer::Fast] }
    }

    /// Payloads that sealane's default ring has room for, but no fewer than four: the end of a sweep. A hand-over takes no time, so
    /// with few payloads the measurement would show how long it takes to learn that one of them is free.
    pub(crate) fn default_depth(self, size: usize) -> usize {
        (RING / size).max(if self == Self::Handoff { 16 } else { 4 })
    }

    /// Whether the first figure is better if it is higher.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::Stream | Self::Small | Self::Handoff)
    }

    /// Depths among which the best is searched: from 16 KiB, or one payload that is larger, to the default.
    pub(crate) fn depths(self, size: usize) -> Vec<usize> {
        let default = self.default_depth(size);
        if !self.is_rate() && self != Self::Roundtrip {
            return vec![default];
        }
        let of_bytes = [RING / 64, RING / 16, RING / 8, RING / 4, RING / 2].map(|bytes| bytes / size);
        let mut depths: Vec<usize> = [1, 2, 3, 4, 8, 16, default].into_iter().chain(of_bytes).collect();
        depths.retain(|depth| *depth == default || *depth < default && depth * size >= 16 << 10);
        depths.sort_unstable();
        depths.dedup();
        depths
    }
}

/// Bytes of sealane's default ring.
const RING: usize = 4 << 20;

/// How payloads are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Writer {
    /// One byte, everywhere, by `memset(3)`: as fast as memory.
    Fast,
    /// Words that are computed one from another: slower than the reader.
    Slow,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

/// The means by which two processes exchange messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// One process that copies from memory to memory.
    LimitMemcpy,
    /// Bare slots in shared memory; a waiting end spins.
    LimitSpin,
    /// Bare slots in shared memory; a waiting end spins for 50 µs, then sleeps.
    LimitHybrid,
    /// Bare slots in shared memory; a waiting end sleeps at once.
    LimitSleep,
    Sealane,
    /// As sealane, sending and receiving in batches.
    SealaneBatch,
    SealaneSpin,
    SealaneBlock,
    /// iceoryx2, polling.
    #[value(name = "iceoryx2")]
    #[serde(rename = "iceoryx2")]
    Iceoryx2,
    /// iceoryx2, with an event for each message.
    #[value(name = "iceoryx2-event")]
    #[serde(rename = "iceoryx2-event")]
    Iceoryx2Event,
    /// shmem-ipc, polling.
    ShmemIpcSpin,
    /// shmem-ipc, with its event descriptors.
    ShmemIpc,
    /// A sequenced packet socket, blocking.
    Seqpacket,
    /// A sequenced packet socket, polling.
    SeqpacketPoll,
    /// A stream socket, blocking.
    Stream,
    /// A pipe, blocking.
    Pipe,
    /// ipc-channel, sending bytes.
    IpcChannel,
    /// ipc-channel, sending shared memory.
    IpcChannelShm,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

impl Transport {
    /// Whether the transport can do the work, and does it in a way that tells something.
    pub(crate) fn does(self, work: Work, size: usize) -> bool {
        match work {
            Work::Stream => true,
            Work::Small => self != Self::LimitMemcpy,
            Work::Roundtrip => !matches!(self, Self::LimitMemcpy | Self::SealaneBatch),
            // A hand-off that copies is a stream, whose time grows with the size.
            Work::Handoff => self != Self::LimitMemcpy && !(self.copies() && size > 4 << 10),
            Work::Control | Work::Fd => matches!(
                self,
                Self::Sealane
                    | Self::SealaneSpin
                    | Self::SealaneBlock
                    | Self::Seqpacket
                    | Self::SeqpacketPoll
            ),
            Work::Idle => !matches!(self, Self::LimitMemcpy | Self::SealaneBatch) && !self.polls(),
        }
    }

    /// Whether the transport is measured unless others are asked for. One that sleeps at once shows how long waking takes,
    /// and no more.
    pub(crate) fn is_default(self, work: Work) -> bool {
        match self {
            Self::LimitSleep | Self::SealaneBlock => {
                matches!(work, Work::Roundtrip | Work::Control | Work::Fd | Work::Idle)
            }
            _ => true,
        }
    }

    /// Whether payloads lie in shared memory that has room for a chosen number of them.
    pub(crate) fn has_depth(self) -> bool {
        self != Self::LimitMemcpy && !self.copies()
    }

    /// Whether that number is found by trying, for payloads of `size` bytes. sealane keeps its default ring if that can hold
    /// them.
    pub(crate) fn is_tuned(self, size: usize) -> bool {
        use Transport::{Sealane, SealaneBatch, SealaneBlock, SealaneSpin};
        let is_sealane = matches!(self, Sealane | SealaneBatch | SealaneSpin | SealaneBlock);
        self.has_depth() && (!is_sealane || Builder::ring_for(size, 0) > RING)
    }

    /// The most payloads that the transport is given room for.
    fn max_depth(self) -> usize {
        if matches!(self, Self::Iceoryx2 | Self::Iceoryx2Event) { MAX_SAMPLES } else { usize::MAX }
    }

    /// Whether payloads go through the kernel, or are copied into memory made for them.
    fn copies(self) -> bool {
        use Transport::{IpcChannel, IpcChannelShm, Pipe, Seqpacket, SeqpacketPoll, Stream};
        matches!(self, Seqpacket | SeqpacketPoll | Stream | Pipe | IpcChannel | IpcChannelShm)
    }

    /// Whether a waiting end never sleeps.
    fn polls(self) -> bool {
        use Transport::{Iceoryx2, LimitSpin, SealaneSpin, SeqpacketPoll, ShmemIpcSpin};
        matches!(self, LimitSpin | SealaneSpin | Iceoryx2 | ShmemIpcSpin | SeqpacketPoll)
    }
}

/// The most samples in the buffer of an iceoryx2 subscriber. More only take longer to set up.
pub(crate) const MAX_SAMPLES: usize = 1024;

/// Idle work lasts this many times as long as other work.
const IDLE: f64 = 25.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) transport: Transport,
    pub(crate) work: Work,
    /// Bytes of a payload.
    pub(crate) size: usize,
    pub(crate) writer: Writer,
    /// Payloads that shared memory has room for, in each direction.
    pub(crate) depth: usize,
    pub(crate) seconds: f64,
    pub(crate) one_core: bool,
}

impl Cell {
    /// The same cell with room for another number of payloads.
    pub(crate) fn with_depth(&self, depth: usize) -> Self {
        Self { depth: depth.min(self.transport.max_depth()), ..self.clone() }
    }

    /// The writer of the payloads, if anybody touches them.
    pub(crate) fn touch(&self) -> Option<Writer> {
        (self.work != Work::Handoff).then_some(self.writer)
    }

    /// How long idle work lasts.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs_f64(IDLE * self.seconds)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, work, size, writer, depth, .. } = self;
        write!(f, "{transport} {work} of {size} bytes, {writer} writer, {depth} payloads")
    }
}

/// One of the two processes of a cell: the first sends, or asks; the second receives, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    /// The CPU to which the process is pinned, unless both share the first one's.
    pub(crate) const fn cpu(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// What one process measured.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Messages sent and received; for round trips, those of one direction.
    pub(crate) messages: u64,
    /// From the first message's beginning to the last one's arrival.
    pub(crate) seconds: f64,
    /// CPU time of this process, user and system.
    pub(crate) cpu_seconds: f64,
    /// Times that this process went to sleep.
    pub(crate) sleeps: i64,
    /// Round trips, in nanoseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) first: Part,
    pub(crate) second: Part,
}
