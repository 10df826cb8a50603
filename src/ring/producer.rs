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
    protocol::layout::{LINE, Word, to_u64},
    sys::mapping::{OwnWords, PeerRegion},
};

/// What is worth a look at what has been released: so many bytes, so many records, but no more than this part of the ring.
const PLENTY: u64 = 16 << 10;
const MANY: u64 = 16;
const PART: u64 = 4;
/// Records of so many bytes begin at the ring's start again rather than go round its end.
const LARGE: u64 = 4 << 20;
/// Pauses between two looks.
const PAUSES: u32 = 64;

/// Counts what was committed and what the peer has released. The bytes are written through the
/// [`RingWriter`](crate::sys::mapping::RingWriter) beside it.
#[derive(Debug)]
pub(crate) struct Producer {
    words: OwnWords,
    peer: PeerRegion,
    capacity: u64,
    /// Always in sync with the word: nobody else writes it.
    head: u64,
    /// Bytes from there to the end of the ring that the next record leaves out.
    padding: u64,
    /// May be stale, that is, too low.
    tail: u64,
    /// Up to here `high_water` does not look again.
    content: u64,
}

impl Producer {
    pub(crate) fn new(words: OwnWords, peer: PeerRegion, capacity: usize) -> Self {
        Self { words, peer, capacity: to_u64(capacity), head: 0, padding: 0, tail: 0, content: 0 }
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where the next record begins; behind the [padding](Self::padding), if there is some.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head.wrapping_add(self.padding)
    }

    /// Bytes that are left out before the next record. They are published with it, and begin with a header.
    #[inline]
    pub(crate) fn padding(&self) -> u64 {
        self.padding
    }

    /// Decides where the next record begins, for whose `size` bytes there is [room](Self::has_room).
    #[inline]
    pub(crate) fn place(&mut self, size: u64) -> Result<(), ProtocolError> {
        self.padding = 0;
        if size < LARGE { Ok(()) } else { self.restart(size) }
    }

    /// Begins at the ring's start, if there is room for that, and `rest`, the bytes up to its end, are few enough. So records
    /// of one size meet the same lines and pages again, which are at hand, and large ones the same memory, which may be in
    /// the cache still.
    ///
    /// A record that would go round the end leaves out less than its own size. So the receiver may keep as many payloads as
    /// without padding, if there is room for two more: the padding, which is released behind the oldest of them, stands for
    /// one. Where the ring has room for three at most, no more than one is kept, so there may be more padding: the records on
    /// both sides of it are there already. But there should always be room for all but one.
    #[cold]
    fn restart(&mut self, size: u64) -> Result<(), ProtocolError> {
        let rest = self.capacity.wrapping_sub(self.head & self.capacity.wrapping_sub(1));
        let records = self.capacity.checked_div(size).unwrap_or(0);
        let most = match records {
            2 | 3 => self.capacity.wrapping_sub(records.wrapping_sub(1).wrapping_mul(size)),
            _ => size.wrapping_sub(1),
        };
        // From the start of the ring on nothing is left out.
        if rest == self.capacity || rest > most {
            return Ok(());
        }
        if self.has_room(rest.saturating_add(size))? {
            self.padding = rest;
        }
        Ok(())
    }

    /// Committed, or left out, and not yet seen released, in bytes.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.head.wrapping_sub(self.tail)
    }

    /// Whether `size` bytes have room now. Looks at the peer's `tail` only if it seems not.
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
        // ORDERING: pairs with the Release store in `Intake::move_tail`: the peer has read what it released
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

    /// Publishes the record of `size` bytes that has been written at [`head`](Self::head), and the padding before it.
    #[inline]
    pub(crate) fn publish(&mut self, size: u64) {
        self.head = self.head().wrapping_add(size);
        self.padding = 0;
        // ORDERING: Release pairs with the Acquire fence in `Consumer::look`: a peer that sees this head sees the record.
        self.words.word(Word::Head).store(self.head, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, os::fd::AsFd};

    use super::*;
    use crate::memory::region::{OwnRegion, adopt};

    /// The producer of a ring of 4 KiB, and the region whose words say what was released.
    fn producer() -> (Producer, OwnRegion) {
        let [ours, theirs] = [4096, 0]
            .map(|capacity| OwnRegion::create(capacity, true, false, crate::wait::Deadline::Never).unwrap());
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

    /// A producer that has the numbers of a larger ring, but not its bytes.
    fn producer_of(capacity: u64) -> (Producer, OwnRegion) {
        let (mut producer, theirs) = producer();
        producer.capacity = capacity;
        (producer, theirs)
    }

    #[test]
    fn large_records_begin_at_the_start_again() {
        // A ring for seven, of which the rest, less than one, is left out. For three: the first's memory is used again as soon
        // as it is released. For one.
        for (capacity, records, expected) in [
            (8 * LARGE, 7, [0, 1, 2, 3, 4, 5, 6, 0]),
            (4 * LARGE, 3, [0, 1, 0, 1, 0, 1, 0, 1]),
            (2 * LARGE, 1, [0; 8]),
        ] {
            let size = LARGE + 64;
            let (mut producer, theirs) = producer_of(capacity);
            let places = expected.map(|_| {
                let before = producer.head;
                assert_eq!(producer.has_room(size), Ok(true));
                producer.place(size).unwrap();
                let place = producer.head() % capacity;
                producer.publish(size);
                assert_eq!(producer.padding(), 0);
                // The receiver is at the last one.
                theirs
                    .words
                    .word(Word::Tail)
                    .store(if records == 1 { producer.head } else { before }, Release);
                place
            });
            assert_eq!(places, expected.map(|n| n * size % capacity), "{records} records");
        }
        // What is smaller goes round the end.
        let (mut producer, _theirs) = producer_of(8 * LARGE);
        producer.publish(8 * LARGE - 64);
        for size in [64, LARGE - 64] {
            producer.place(size).unwrap();
            assert_eq!(producer.padding(), 0);
        }
    }

    #[test]
    fn nothing_is_left_out_while_the_start_is_in_use() {
        let (mut producer, theirs) = producer_of(4 * LARGE);
        let size = LARGE + 64;
        let place = |producer: &mut Producer| {
            producer.place(size).unwrap();
            producer.padding()
        };
        producer.publish(size);
        producer.publish(size);
        assert_eq!(place(&mut producer), 0);
        theirs.words.word(Word::Tail).store(1, Release);
        assert_eq!(producer.place(size), Err(ProtocolError::Misaligned { found: 1 }));
        theirs.words.word(Word::Tail).store(size, Release);
        assert_eq!(place(&mut producer), 4 * LARGE - 2 * size);
        // A smaller record may be sent in its place.
        producer.place(64).unwrap();
        assert_eq!((producer.padding(), producer.head()), (0, 2 * size));
    }

    /// What the docs of `Payload` promise: who keeps `kept` payloads, and has a ring for two more of the largest, is never
    /// stuck. What is left out is released together with the record before it.
    #[test]
    fn padding_leaves_room_for_what_is_kept() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut random = |below: u64| rng.u64(..below);
        let (mut padded, mut most_kept) = (0, 0);
        for _ in 0..300 {
            let capacity = LARGE << random(6);
            let largest = (capacity / (2 + random(7))).max(64) / 64 * 64;
            let kept = usize::try_from(capacity / largest - 2).unwrap();
            most_kept = kept.max(most_kept);
            let (mut producer, theirs) = producer_of(capacity);
            // Where records begin and end that were published and not released; the first have been received.
            let mut records = VecDeque::<(u64, u64)>::new();
            let mut received = 0;
            for _ in 0..200 {
                let size = if random(2) == 0 { largest } else { (1 + random(largest / 64)) * 64 };
                // The receiver is behind, or takes what there is.
                while !producer.has_room(size).unwrap() || (received < records.len() && random(3) > 0) {
                    assert!(
                        received < records.len(),
                        "stuck: {size} of {largest} in {capacity}, {kept} kept"
                    );
                    received += 1;
                    // It waits for the next with no more than it keeps.
                    let mut tail = records[0].0;
                    while received > kept {
                        received -= 1;
                        let (_, end) = records.pop_front().unwrap();
                        // Padding is released when the record behind it has been received.
                        tail = if received > 0 { records[0].0 } else { end };
                    }
                    theirs.words.word(Word::Tail).store(tail, Release);
                }
                producer.place(size).unwrap();
                padded += u64::from(producer.padding() > 0);
                let start = producer.head();
                producer.publish(size);
                records.push_back((start, producer.head));
            }
        }
        assert!(padded > 1000 && most_kept >= 6, "{padded} {most_kept}");
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
