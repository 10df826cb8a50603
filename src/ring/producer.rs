//! The owner's side of a ring: how much room there is, and publishing.

use std::{
    hint::spin_loop,
    sync::atomic::{
        Ordering::{Acquire, Release},
        fence,
    },
};

use crate::{
    error::ProtocolError,
    layout::{LINE, Word, to_u64},
    raw::mapping::{OwnWords, PeerRegion},
};

/// What is worth a look at what has been released: so many bytes, so many records, but no more than this part of the ring.
const PLENTY: u64 = 16 << 10;
const MANY: u64 = 16;
const PART: u64 = 4;
/// Pauses between two looks.
const PAUSES: u32 = 64;

/// Counts what was committed and what the peer has released. The bytes are written through the
/// [`RingWriter`](crate::raw::mapping::RingWriter) beside it.
#[derive(Debug)]
pub(crate) struct Producer {
    words: OwnWords,
    peer: PeerRegion,
    capacity: u64,
    /// Always in sync with the word: nobody else writes it.
    head: u64,
    /// May be stale, that is, too low.
    tail: u64,
    /// Up to here `high_water` does not look again.
    content: u64,
}

impl Producer {
    pub(crate) fn new(words: OwnWords, peer: PeerRegion, capacity: usize) -> Self {
        Self { words, peer, capacity: to_u64(capacity), head: 0, tail: 0, content: 0 }
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where the next record begins.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Committed and not yet seen released, in bytes.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.head.wrapping_sub(self.tail)
    }

    /// Whether a record of `size` bytes has room now. Looks at the peer's `tail` only if it seems not.
    #[inline]
    pub(crate) fn has_room(&mut self, size: u64) -> Result<bool, ProtocolError> {
        if size <= self.capacity.wrapping_sub(self.used()) {
            return Ok(true);
        }
        self.look()?;
        Ok(size <= self.capacity.wrapping_sub(self.used()))
    }

    /// Whether the peer has released anything since the last look.
    pub(crate) fn tail_moved(&self) -> bool {
        self.peer.load(Word::Tail) != self.tail
    }

    /// Waits a moment, some microseconds at most, unless many records of `size` bytes have room already, or the ring is too
    /// short for many.
    ///
    /// Who meets a full ring waits for the peer in any case. Each look at its `tail` takes the cache line away from it, so it
    /// would be slowed down by a look for each record.
    pub(crate) fn let_more_be_released(&self, size: u64) {
        let room = self.capacity.wrapping_sub(self.head.wrapping_sub(self.peer.load(Word::Tail)));
        if room < size.saturating_mul(MANY).max(PLENTY).min(self.capacity / PART) {
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
    }

    /// Sees what the peer has released.
    ///
    /// UNTRUSTED: the peer's `tail` must lie between where it was and our own `head`.
    pub(crate) fn look(&mut self) -> Result<(), ProtocolError> {
        let tail = self.peer.load(Word::Tail);
        // ORDERING: pairs with the Release store of `tail` in `Ledger::release`: the peer has read what it released
        // before we write there again.
        fence(Acquire);
        if tail.wrapping_sub(self.tail) > self.used() {
            return Err(ProtocolError::Tail { from: self.tail, limit: self.head, found: tail });
        }
        if !tail.is_multiple_of(LINE) {
            return Err(ProtocolError::Misaligned { found: tail });
        }
        self.tail = tail;
        Ok(())
    }

    /// The most bytes that were in use at once, which was `before` until now, and may be more. What we know of the peer's
    /// releases may be old, so it is looked at; if that shows that it was not more, not again for a 16th of the capacity:
    /// each look fetches a cache line that the peer is writing.
    pub(crate) fn high_water(&mut self, before: u64) -> u64 {
        if self.head < self.content {
            return before;
        }
        // If it is not even sound, the next call tells.
        let _ = self.look();
        if self.used() <= before {
            self.content = self.head.wrapping_add(self.capacity / 16);
        }
        before.max(self.used())
    }

    /// Publishes the record of `size` bytes that has been written at [`head`](Self::head).
    #[inline]
    pub(crate) fn publish(&mut self, size: u64) {
        self.head = self.head.wrapping_add(size);
        // ORDERING: Release pairs with the Acquire fence in `Consumer::peek`: a peer that sees this head sees the record.
        self.words.word(Word::Head).store(self.head, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::region::{OwnRegion, adopt};

    /// The producer of a ring of 4 KiB, and the region whose words say what was released.
    fn producer() -> (Producer, OwnRegion) {
        let [ours, theirs] = [4096, 0].map(|capacity| OwnRegion::create(capacity, true, false).unwrap());
        let peer = adopt(theirs.memfd.as_fd(), theirs.geometry, true).unwrap();
        (Producer::new(ours.words, peer, 4096), theirs)
    }

    #[test]
    fn the_high_water_mark_counts_what_is_released_and_looks_seldom() {
        let (mut producer, theirs) = producer();
        let mut mark = 0;
        let mut publish = |released| {
            theirs.words.word(Word::Tail).store(released, Release);
            producer.publish(64);
            mark = producer.high_water(mark);
            mark
        };
        assert_eq!(publish(0), 64);
        assert_eq!(publish(64), 64, "the first has been released meanwhile");
        // 256 bytes are a 16th.
        assert_eq!([publish(64), publish(64), publish(64)], [64; 3], "no look until then");
        assert_eq!(publish(64), 320);
        // And whatever is more than before is seen at once.
        assert_eq!([publish(64), publish(64)], [384, 448]);
        assert_eq!(publish(9 * 64), 448);
    }

    #[test]
    fn room_is_what_is_free_and_what_is_seen_released() {
        let (mut producer, theirs) = producer();
        let release = |tail| theirs.words.word(Word::Tail).store(tail, Release);
        producer.publish(4096 - 128);
        assert_eq!((producer.has_room(128), producer.has_room(192)), (Ok(true), Ok(false)));
        producer.publish(128);
        assert_eq!((producer.head(), producer.used(), producer.has_room(64)), (4096, 4096, Ok(false)));
        assert!(!producer.tail_moved());
        release(64);
        assert!(producer.tail_moved());
        assert_eq!((producer.has_room(64), producer.has_room(128)), (Ok(true), Ok(false)));
        assert!(!producer.tail_moved(), "it has been seen");
        // Neither more than was sent, nor less than before, nor a part of a line.
        for (tail, violation) in [
            (4160, ProtocolError::Tail { from: 64, limit: 4096, found: 4160 }),
            (0, ProtocolError::Tail { from: 64, limit: 4096, found: 0 }),
            (65, ProtocolError::Misaligned { found: 65 }),
        ] {
            release(tail);
            assert_eq!(producer.has_room(128), Err(violation));
        }
        release(4096);
        assert_eq!(producer.has_room(4096), Ok(true));
    }
}
