//! Formats and rules of the protocol between two processes.
//!
//! Owns the layout of a region, the headers of records and packets, negotiation, the order of messages over ring and
//! socket, the attempts and policies of publishers, and the table of open requests. The page docs/protocol.md states the same; tests compare the two.
//!
//! Refuses every input that breaks a rule, with an error that names the rule. Does no I/O, touches no shared memory and
//! makes no system call. Therefore each rule is tested and fuzzed by itself.
//!
//! May import: `error`.

pub(crate) mod attempts;
pub(crate) mod hello;
pub(crate) mod layout;
pub(crate) mod negotiation;
pub(crate) mod order;
pub(crate) mod packet;
#[cfg(test)]
mod page;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod requests;

pub use self::policy::{Slow, Start};
pub(crate) use self::{
    attempts::{Attempts, Taken},
    hello::{HELLO_MAX, Hello, Ready, Reject},
    layout::{CACHE_LINE, Geometry, Owner, Position, RecordSize, Word, to_u64, to_usize},
    negotiation::{LocalLimits, Negotiated, Part},
    order::{Next, Sequencer},
    packet::{Kind, PacketHeader, SCM_MAX_FD},
    policy::{Terms, Wish},
    record::{MessageHeader, PublishedRecord, Record, RecordHeader, Source},
    requests::Asked,
};
