//! The transports: for each, how two processes connect and a message is sent and received, as its documentation says.

mod iceoryx2;
mod limit;
mod mapping;
mod sealane;
mod seqpacket;
mod shmem_ipc;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Side, Work},
    child::live,
    link::Link,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Bare slots in shared memory; who waits spins.
    LimitSpin,
    /// Bare slots in shared memory; who waits spins for 50 µs, then sleeps.
    LimitHybrid,
    /// Bare slots in shared memory; who waits sleeps at once.
    LimitSleep,
    Sealane,
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
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

impl Transport {
    /// Whether the work is of interest: a hand-off that copies is a stream, whose time grows with the size.
    pub(crate) fn does(self, work: Work, size: usize) -> bool {
        !(self.copies() && work == Work::Handoff && size > 64 << 10)
    }

    /// Whether payloads go through the kernel.
    fn copies(self) -> bool {
        matches!(self, Self::Seqpacket | Self::SeqpacketPoll)
    }
}

/// One process of a cell.
pub(crate) fn run(side: Side, cell: &Cell, link: &Link) -> Result<()> {
    let live = match cell.transport {
        Transport::LimitSpin => live::<limit::Limit<{ limit::SPIN }>>,
        Transport::LimitHybrid => live::<limit::Limit<{ limit::HYBRID }>>,
        Transport::LimitSleep => live::<limit::Limit<{ limit::SLEEP }>>,
        Transport::Sealane | Transport::SealaneSpin | Transport::SealaneBlock => live::<sealane::Sealane>,
        Transport::Iceoryx2 => live::<iceoryx2::Iceoryx2<false>>,
        Transport::Iceoryx2Event => live::<iceoryx2::Iceoryx2<true>>,
        Transport::ShmemIpcSpin => live::<shmem_ipc::ShmemIpc<true>>,
        Transport::ShmemIpc => live::<shmem_ipc::ShmemIpc<false>>,
        Transport::Seqpacket => live::<seqpacket::Seqpacket<false>>,
        Transport::SeqpacketPoll => live::<seqpacket::Seqpacket<true>>,
    };
    live(side, cell, link)
}
