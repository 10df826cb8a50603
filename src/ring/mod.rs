//! A direction's ring of records: the producer at its owner, the consumer at the peer.
//!
//! The producer's `head` and the consumer's `tail` are counters in the two control pages; each side keeps the other's as
//! it was last seen, and looks again only when that is not enough.
//!
//! Owns the counters, the room that is left, and the order in which released space returns. Refuses a peer's counter that
//! goes backwards or too far, and a record that ends behind the published `head`.
//!
//! May import: `error`, `protocol`, `wait`, `sys`, `memory`, `socket`.

pub(crate) mod claim;
mod consumer;
mod cursor;
mod follower;
mod pacing;
pub(crate) mod producer;
pub(crate) mod release;
mod window;
mod writer;

pub(crate) use self::{
    consumer::Consumer,
    follower::{Fault, Follower},
    producer::{Place, Producer, Readers, check_tail},
    release::{Releases, Span},
    writer::{Frame, Reservation, Writer},
};

/// Bytes of a record from which on the next one is too far away for the processor to fetch it by itself.
const FAR: u64 = 1024;
