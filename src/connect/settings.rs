//! [`Settings`]: the values of a builder, and the role of a process in a handshake.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    time::{Duration, Instant},
};

use crate::{
    protocol::{LocalLimits, Part, Slow, Start, Wish},
    wait::Wait,
};

/// The values of a [`Builder`](crate::Builder).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) ring_capacity: usize,
    /// Bytes, if the builder sets a limit.
    pub(crate) max_peer_ring: Option<usize>,
    pub(crate) max_control: usize,
    /// Descriptors, if the builder sets a limit.
    pub(crate) max_fds: Option<u32>,
    pub(crate) max_requests: u32,
    pub(crate) timeout: Duration,
    pub(crate) wait: Wait,
    pub(crate) prefault: bool,
    pub(crate) huge_pages: bool,
    pub(crate) peer_pidfd: bool,
    /// The mark of all regions that listeners of this builder give, see [`random`].
    pub(crate) origin: u64,
    /// A publisher's rule, or a subscriber's wish, if the builder has one.
    pub(crate) slow: Option<Slow>,
    pub(crate) start: Start,
    pub(crate) max_subscribers: usize,
    /// What is established.
    pub(crate) part: Part,
}

/// Descriptors of a message of a channel, where the builder sets no limit. Publishers send none unless they are told.
const MAX_FDS: u32 = 64;

impl Settings {
    pub(crate) fn limits(&self, role: Role) -> LocalLimits {
        let ring = match (self.part, role) {
            // A subscriber has no ring.
            (Part::Publisher, _) => 0,
            (_, Role::Caller) => self.max_peer_ring.unwrap_or(64 << 20),
            (_, Role::Listener) => self.max_peer_ring.unwrap_or(8 << 20),
        };
        let control = u32::try_from(self.max_control).unwrap_or(u32::MAX);
        let Self { max_requests: requests, part, .. } = *self;
        LocalLimits { ring, control, fds: self.max_fds(), requests, part }
    }

    /// Most descriptors of a message.
    pub(crate) fn max_fds(&self) -> u32 {
        self.max_fds.unwrap_or(if self.part == Part::Channel { MAX_FDS } else { 0 })
    }

    /// The same, to publish. Each publisher's region has a mark of its own.
    pub(crate) fn to_publish(self) -> Self {
        Self { part: Part::Publisher, origin: random(), ..self }
    }

    /// The same, to subscribe.
    pub(crate) fn to_subscribe(self) -> Self {
        let wish = Wish { slow: self.slow.unwrap_or(Slow::Wait(Duration::MAX)), start: self.start };
        Self { part: Part::Subscriber(wish), ring_capacity: 0, ..self }
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
