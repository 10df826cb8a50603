//! The mark by which a reader knows whether what it has read was overwritten meanwhile.
//!
//! A publisher does not wait for every reader. Before it writes, it marks how far it will write: `Claimed`. A record that
//! begins at a position is whole as long as `Claimed` is no more than a ring's length ahead of it. A reader looks at the mark
//! *after* it has read: either it sees the mark, or none of the bytes that it has read were written behind it.
//!
//! `tests/models/loom_claim.rs` compiles this file on loom's atomics. Therefore these come from [`wait`](crate::wait).

use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};

use crate::{
    protocol::{Position, Word, to_u64},
    sys::{own_region::ControlPage, peer_region::PeerRegion},
    wait::fence,
};

/// The part of the ring that is claimed ahead, so that small records need no fence each. It is lost to the readers that may be
/// overrun.
const PART_AHEAD: u64 = 16;

/// The mark of a ring at its owner.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Always in sync with the word: nobody else writes it.
    claimed: Position,
    /// Bytes.
    ahead: u64,
}

impl Claim {
    /// For a ring of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Self { claimed: Position::default(), ahead: (capacity / PART_AHEAD) & !63 }
    }

    /// Marks the bytes up to `end` before they are written, and some behind them, up to `limit`: what is before a ring's length
    /// from there is read by those who are waited for.
    #[inline]
    pub(crate) fn up_to(&mut self, end: Position, limit: Position, words: &ControlPage) {
        if end > self.claimed {
            self.advance(end.max(limit.min(end.after(self.ahead))), words);
        }
    }

    #[cold]
    fn advance(&mut self, to: Position, words: &ControlPage) {
        self.claimed = to;
        // ORDERING: Release pairs with the Acquire fence in `newest`: a reader that sees this mark sees the newest record that was
        // published before.
        words.word(Word::Claimed).store(to.get(), Release);
        // ORDERING: pairs with the Acquire fence in `is_whole`. A reader that has read a byte written behind this fence sees the mark.
        // A release fence would not be enough for what callers write with non-temporal stores.
        fence(SeqCst);
    }

    /// The end of what may be written at any time.
    pub(crate) fn claimed(&self) -> Position {
        self.claimed
    }
}

/// Whether all that was read until now of the record that begins at `start` is as it was published.
///
/// UNTRUSTED: the mark is only compared.
#[inline]
pub(crate) fn is_whole(publisher: &PeerRegion, start: Position) -> bool {
    // ORDERING: pairs with the fence in `Claim::advance`: what was read before this was written before the mark that is seen here, or
    // the mark is seen.
    fence(Acquire);
    Position::new(publisher.load(Word::Claimed)) <= start.after(to_u64(publisher.capacity()))
}

/// The marks of a publisher, for a reader that goes to the newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) claimed: Position,
    /// Where the newest record with a payload begins.
    pub(crate) latest: Position,
    /// The end of what is published.
    pub(crate) head: Position,
}

impl Newest {
    /// Loads the marks in the opposite order in which they are stored. So `head` is at or behind the end of the record at `latest`,
    /// and that record was published before what has been claimed.
    pub(crate) fn of(publisher: &PeerRegion) -> Self {
        let load = |word| {
            let found = Position::new(publisher.load(word));
            // ORDERING: pairs with the Release stores in `Claim::advance` and in `Producer::publish`.
            fence(Acquire);
            found
        };
        Self { claimed: load(Word::Claimed), latest: load(Word::Latest), head: load(Word::Head) }
    }
}
