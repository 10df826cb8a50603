//! The table of transports: for each, the file that says how two processes connect and how a message is sent and received.
//!
//! Every transport is used as its documentation says. No transport imports another.

mod bytestream;
mod iceoryx2;
mod ipc_channel;
mod limit;
mod memcpy;
mod sealane;
mod seqpacket;
mod shmem_ipc;

use anyhow::Result;

use self::{
    bytestream::Bytestream,
    iceoryx2::Iceoryx2,
    ipc_channel::{IpcBytes, IpcShared},
    limit::Limit,
    sealane::Sealane,
    seqpacket::Seqpacket,
    shmem_ipc::ShmemIpc,
};
use crate::{
    cell::{Cell, Part, Side, Transport},
    link::Link,
    work,
};

/// Does one process's part of the cell over the cell's transport.
pub(crate) fn run(side: Side, cell: &Cell, link: &Link) -> Result<Part> {
    let run = match cell.transport {
        Transport::LimitMemcpy => return Ok(memcpy::run(side, cell)),
        Transport::LimitSpin => work::run::<Limit<{ limit::SPIN }>>,
        Transport::LimitHybrid => work::run::<Limit<{ limit::HYBRID }>>,
        Transport::LimitSleep => work::run::<Limit<{ limit::SLEEP }>>,
        Transport::Sealane | Transport::SealaneSpin | Transport::SealaneBlock => work::run::<Sealane<false>>,
        Transport::SealaneBatch => work::run::<Sealane<true>>,
        Transport::Iceoryx2 => work::run::<Iceoryx2<false>>,
        Transport::Iceoryx2Event => work::run::<Iceoryx2<true>>,
        Transport::ShmemIpcSpin => work::run::<ShmemIpc<true>>,
        Transport::ShmemIpc => work::run::<ShmemIpc<false>>,
        Transport::Seqpacket => work::run::<Seqpacket<false>>,
        Transport::SeqpacketPoll => work::run::<Seqpacket<true>>,
        Transport::Stream => work::run::<Bytestream<false>>,
        Transport::Pipe => work::run::<Bytestream<true>>,
        Transport::IpcChannel => work::run::<IpcBytes>,
        Transport::IpcChannelShm => work::run::<IpcShared>,
    };
    run(side, cell, link)
}
