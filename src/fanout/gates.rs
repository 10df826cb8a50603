//! [`Gates`]: the subscribers for which a publisher waits, as its ring sees them.

use std::sync::atomic::{Ordering::Acquire, fence};

use crate::{
    error::ProtocolError,
    fanout::SubscriberId,
    protocol::{Position, Word},
    ring::{Readers, check_tail},
    sys::peer_region::PeerRegion,
};

/// A subscriber that gates: what it has not released is not written again.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(super) id: SubscriberId,
    region: PeerRegion,
    /// Where its `Tail` begins to count.
    base: Position,
    /// The end of what it has released. May be stale, that is, too low.
    pub(super) tail: Position,
}

impl Gate {
    pub(super) fn new(id: SubscriberId, region: PeerRegion, base: Position) -> Self {
        Self { id, region, base, tail: base }
    }

    fn load(&self) -> (u64, Position) {
        let found = self.region.load(Word::Tail);
        (found, self.base.after(found))
    }
}

/// The gates of a ring. One that breaks the protocol is waited for no more, and ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pub(super) list: Vec<Gate>,
    /// Those that broke the protocol, and are to be ended.
    pub(super) broken: Vec<(SubscriberId, ProtocolError)>,
}

impl Gates {
    pub(super) fn remove(&mut self, id: SubscriberId) {
        self.list.retain(|gate| gate.id != id);
    }

    /// The end of what `id` has released, as it was last seen.
    pub(super) fn tail(&self, id: SubscriberId) -> Option<Position> {
        self.list.iter().find(|gate| gate.id == id).map(|gate| gate.tail)
    }

    /// Whether any that is waited for sleeps.
    pub(super) fn any_sleeps(&self) -> bool {
        self.list.iter().any(|gate| gate.region.load(Word::ReceiverEpoch) & 1 == 1)
    }
}

impl Readers for Gates {
    const MAY_BE_OVERRUN: bool = true;

    /// UNTRUSTED: each `tail` must lie between where it was and our own `head`.
    fn refresh(&mut self, _: Position, head: Position) -> Result<Position, ProtocolError> {
        let Self { list, broken } = self;
        list.retain_mut(|gate| {
            let (found, tail) = gate.load();
            match check_tail(found, tail, gate.tail, head) {
                Ok(tail) => {
                    gate.tail = tail;
                    true
                }
                Err(violation) => {
                    broken.push((gate.id, violation));
                    false
                }
            }
        });
        // ORDERING: pairs with the Release stores in `Releases::move_tail`: the subscribers have read what they released before we
        // write there again.
        fence(Acquire);
        Ok(list.iter().map(|gate| gate.tail).min().unwrap_or(head))
    }

    fn peek(&self, head: Position) -> Position {
        self.list.iter().map(|gate| gate.load().1).min().unwrap_or(head)
    }
}
