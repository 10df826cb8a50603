//! The messages between the processes.

use std::time::Duration;

use sealane::{Builder, Channel, Wait};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Options;

/// Payloads that a client streams before it asks, and their bytes.
pub(crate) const STREAMED: u64 = 8;
pub(crate) const PAYLOAD: usize = 256;

/// The settings of both ends: all that one client can cost the hub.
pub(crate) fn settings(options: &Options) -> Builder {
    let ring = usize::try_from(options.ring_capacity).unwrap_or(usize::MAX);
    Channel::builder()
        .ring_capacity(ring)
        .max_peer_ring_capacity(ring)
        .max_control(size_of::<Counters>())
        .max_fds(0)
        .handshake_timeout(Duration::from_millis(500))
        .wait(Wait::Block)
}

/// The answer to an empty request: the hub's count of this client's stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    /// Sum of all bytes.
    pub(crate) sum: u64,
}

/// A request for [`Counters`].
pub(crate) const COUNTERS: &[u8] = b"counters";

/// The hub's counters over all clients.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Counters {
    /// Messages of all clients.
    pub(crate) messages: u64,
    /// Connected now, handshakes under way included.
    pub(crate) guests: u64,
    /// Were clients, and went or broke the protocol.
    pub(crate) left: u64,
    /// Did not come to the end of their handshake in time.
    pub(crate) timed_out: u64,
    /// Were refused: their user has too many already.
    pub(crate) refused: u64,
    /// Broke the protocol, or went away, during their handshake.
    pub(crate) failed: u64,
}

/// An order to the clients: a round.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Order {
    pub(crate) millis: u64,
    /// Rate of all clients together; 0 is as fast as they can.
    pub(crate) calls_per_second: u64,
}

/// The result of a round. The payload beside it has the latencies: nanoseconds and how often, in pairs.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Outcome {
    /// Until the last answer.
    pub(crate) nanos: u64,
    pub(crate) messages: u64,
    /// Calls that were not made, because the last one of the same client had not ended.
    pub(crate) missed: u64,
}

/// Longer calls count as this long.
pub(crate) const MAX_NANOS: u64 = 60_000_000_000;
