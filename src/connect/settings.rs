//! [`Settings`]: what a builder asks of a handshake, and which side of it a process is.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    time::{Duration, Instant},
};

use crate::{protocol::negotiation::Bounds, wait::Wait};

/// What a builder asks of a handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) ring_capacity: usize,
    /// What the builder says, if anything.
    pub(crate) max_peer_ring: Option<usize>,
    pub(crate) max_control: usize,
    pub(crate) max_fds: u32,
    pub(crate) max_requests: u32,
    pub(crate) timeout: Duration,
    pub(crate) wait: Wait,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
    pub(crate) peer_pidfd: bool,
    /// See [`random`]: of all regions that listeners of this builder give.
    pub(crate) origin: u64,
}

impl Settings {
    pub(crate) fn bounds(&self, role: Role) -> Bounds {
        let ring = self.max_peer_ring.unwrap_or(match role {
            Role::Caller => 64 << 20,
            Role::Listener => 8 << 20,
        });
        let control = u32::try_from(self.max_control).unwrap_or(u32::MAX);
        Bounds { ring, control, fds: self.max_fds, requests: self.max_requests }
    }
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    // The standard library's hash maps begin with random keys. A fork draws the keys that its parent, and its siblings, draw
    // next: so what tells them apart goes in, too.
    RandomState::new().hash_one((process::id(), Instant::now())) | 1
}

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Says `Hello` at once, and `Ready` when the peer's `Hello` is found good.
    Caller,
    /// Accepted by a listener: says `Hello` when the application, which could look at the client's credentials, has called
    /// [`Handshake::advance`](crate::Handshake::advance) again, and `Ready` after the client's. So a client that says nothing costs no ring, nor does
    /// one that the application refuses.
    Listener,
}
