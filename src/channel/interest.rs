//! [`Interest`]: the space that a sender's descriptor has to signal.

/// Space that a sender needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space<S> {
    /// Space for a record of this size.
    Ring(S),
    /// Space for a packet.
    Socket,
}

/// The space that `try_` calls were refused: of each kind the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Interest<S> {
    ring: Option<S>,
    socket: bool,
}

impl<S: Copy + Ord> Interest<S> {
    pub(crate) const NONE: Self = Self { ring: None, socket: false };

    pub(crate) fn add(&mut self, space: Space<S>) {
        match space {
            Space::Ring(_) => self.ring = self.with(space),
            Space::Socket => self.socket = true,
        }
    }

    /// The least size of a record for which the descriptor has to signal space, if `space` is wanted too.
    pub(crate) fn with(&self, space: Space<S>) -> Option<S> {
        match space {
            Space::Ring(size) => Some(self.ring.map_or(size, |other| other.min(size))),
            Space::Socket => self.ring,
        }
    }

    /// Removes a kind of space. True if none is left.
    pub(crate) fn remove(&mut self, space: Space<S>) -> bool {
        match space {
            Space::Ring(_) => self.ring = None,
            Space::Socket => self.socket = false,
        }
        self.ring.is_none() && !self.socket
    }

    /// The space of the other kind than this, if a call was refused that.
    pub(crate) fn other(&self, space: Space<S>) -> Option<Space<S>> {
        match space {
            Space::Ring(_) => self.socket.then_some(Space::Socket),
            Space::Socket => self.ring.map(Space::Ring),
        }
    }
}
