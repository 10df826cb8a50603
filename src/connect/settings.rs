//! [`Settings`]: the values of a builder, and the role of a process in a handshake.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    time::{Duration, Instant},
};

use crate::{protocol::LocalLimits, wait::Wait};

/// The values of a [`Builder`](crate::Builder).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) ring_capacity: usize,
    /// Bytes, if the builder sets a limit.
    pub(crate) max_peer_ring: Option<usize>,
    pub(crate) max_control: usize,
    pub(crate) max_fds: u32,
    pub(crate) max_requests: u32,
    pub(crate) timeout: Duration,
    pub(crate) wait: Wait,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
    pub(crate) peer_pidfd: bool,
    /// The mark of all regions that listeners of this builder give, see [`random`].
    pub(crate) origin: u64,
}

impl Settings {
    pub(crate) fn limits(&self, role: Role) -> LocalLimits {
        let ring = self.max_peer_ring.unwrap_or(match role {
            Role::Caller => 64 << 20,
            Role::Listener => 8 << 20,
        });
        let control = u32::try_from(self.max_control).unwrap_or(u32::MAX);
        LocalLimits { ring, control, fds: self.max_fds, requests: self.max_requests }
    }
}

/// Draws a number that no other process has, and that is not 0.
pub(crate) fn random() -> u64 {
    // The standard library's hash maps begin with random keys. A fork draws the same keys as its parent and its siblings
    // next, so the process id and the time go in, too.
    RandomState::new().hash_one((process::id(), Instant::now())) | 1
}

/// The role of a process in a handshake, which decides the side that sends `Hello` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends `Hello` at once, and `Ready` when it has found the peer's `Hello` good.
    Caller,
    /// Sends `Hello` after the application's look at the client's credentials, in the next call of
    /// [`Handshake::advance`](crate::Handshake::advance), and `Ready` after the client's. So a client that sends nothing, or
    /// that the application refuses, costs no ring.
    Listener,
}
