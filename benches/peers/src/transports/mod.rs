//! The transports: for each, how two processes connect and a message is sent and received, as its documentation says.

mod bytestream;
mod iceoryx2;
mod ipc_channel;
mod limit;
mod mapping;
mod memcpy;
mod sealane;
mod seqpacket;
mod shmem_ipc;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Side, Work},
    child::{alone, live},
    link::Link,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// One process that copies from memory to memory.
    LimitMemcpy,
    /// Bare slots in shared memory; who waits spins.
    LimitSpin,
    /// Bare slots in shared memory; who waits spins for 50 µs, then sleeps.
    LimitHybrid,
    /// Bare slots in shared memory; who waits sleeps at once.
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
    /// Whether it can do the work, and does it in a way that tells something.
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

    /// Whether it is measured unless others are asked for: who sleeps at once shows how long waking takes, and no more.
    pub(crate) fn is_default(self, work: Work) -> bool {
        match self {
            Self::LimitSleep | Self::SealaneBlock => {
                matches!(work, Work::Roundtrip | Work::Control | Work::Fd | Work::Idle)
            }
            _ => true,
        }
    }

    /// Whether payloads go through the kernel, or are copied into memory made for them.
    fn copies(self) -> bool {
        use Transport::{IpcChannel, IpcChannelShm, Pipe, Seqpacket, SeqpacketPoll, Stream};
        matches!(self, Seqpacket | SeqpacketPoll | Stream | Pipe | IpcChannel | IpcChannelShm)
    }

    /// Whether who waits never sleeps.
    pub(crate) fn polls(self) -> bool {
        use Transport::{Iceoryx2, LimitSpin, SealaneSpin, SeqpacketPoll, ShmemIpcSpin};
        matches!(self, LimitSpin | SealaneSpin | Iceoryx2 | ShmemIpcSpin | SeqpacketPoll)
    }
}

/// One process of a cell.
pub(crate) fn run(side: Side, cell: &Cell, link: &Link) -> Result<()> {
    let live = match cell.transport {
        Transport::LimitMemcpy => return alone(side, || memcpy::measure(cell)),
        Transport::LimitSpin => live::<limit::Limit<{ limit::SPIN }>>,
        Transport::LimitHybrid => live::<limit::Limit<{ limit::HYBRID }>>,
        Transport::LimitSleep => live::<limit::Limit<{ limit::SLEEP }>>,
        Transport::Sealane | Transport::SealaneSpin | Transport::SealaneBlock => {
            live::<sealane::Sealane<false>>
        }
        Transport::SealaneBatch => live::<sealane::Sealane<true>>,
        Transport::Iceoryx2 => live::<iceoryx2::Iceoryx2<false>>,
        Transport::Iceoryx2Event => live::<iceoryx2::Iceoryx2<true>>,
        Transport::ShmemIpcSpin => live::<shmem_ipc::ShmemIpc<true>>,
        Transport::ShmemIpc => live::<shmem_ipc::ShmemIpc<false>>,
        Transport::Seqpacket => live::<seqpacket::Seqpacket<false>>,
        Transport::SeqpacketPoll => live::<seqpacket::Seqpacket<true>>,
        Transport::Stream => live::<bytestream::Bytestream<false>>,
        Transport::Pipe => live::<bytestream::Bytestream<true>>,
        Transport::IpcChannel => live::<ipc_channel::IpcBytes>,
        Transport::IpcChannelShm => live::<ipc_channel::IpcShared>,
    };
    live(side, cell, link)
}
