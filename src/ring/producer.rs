//! The owner's counters of a ring: how much room there is, where the next record stands, and publishing.
//!
//! Whose `tail` counts is the type parameter's: that of one peer, or the least of a publisher's subscribers.

use std::{
    hint::spin_loop,
    sync::atomic::{
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

use crate::{
    error::ProtocolError,
    protocol::layout::{CACHE_LINE, Position, RecordSize, Word, to_u64},
    ring::{claim::Claim, window::Window},
    sys::{own_region::ControlPage, peer_region::PeerRegion},
    wait::Deadline,
};

/// Free bytes, and free records, from which on a waiting sender looks no longer for more; at most this part of the ring.
const PLENTY: u64 = 16 << 10;
const MANY: u64 = 16;
const PART: u64 = 4;
/// Bytes of a record from which on it begins at the ring's start early.
const LARGE: u64 = 4 << 20;
/// Pauses between two looks, and looks.
const PAUSES: u32 = 32;
const LOOKS: u32 = 2;

/// Where a record stands that is being written: chosen, and not published.
///
/// Only the producer that chose it takes it, and only until a record is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the record begins: the ring's byte.
    pub(super) at: u64,
    /// Bytes that are left out before it, up to the ring's end.
    pub(super) padding: u64,
    /// Bytes that are reserved from `at` on.
    size: RecordSize,
    /// The position of the padding, or of the record if there is none.
    head: Position,
}

/// Those who read a ring, as its producer sees them.
pub(crate) trait Readers {
    /// Whether some read on while they are overrun. Then what is about to be written is [claimed](Claim), and nothing is left out
    /// that has room: the ring is its readers' history.
    const MAY_BE_OVERRUN: bool;

    /// The end of what all have released, from `from` to `head`.
    ///
    /// UNTRUSTED: all of their words.
    fn refresh(&mut self, from: Position, head: Position) -> Result<Position, ProtocolError>;

    /// The same as it seems, to be compared only.
    fn peek(&self, head: Position) -> Position;
}

/// The one peer of a channel.
impl Readers for PeerRegion {
    const MAY_BE_OVERRUN: bool = false;

    /// UNTRUSTED: the peer's `tail` must lie between where it was and our own `head`.
    #[inline]
    fn refresh(&mut self, from: Position, head: Position) -> Result<Position, ProtocolError> {
        let found = self.load(Word::Tail);
        // ORDERING: pairs with the Release store in `Releases::move_tail`: the peer has read what it released
        // before we write there again.
        fence(Acquire);
        check_tail(found, Position::new(found), from, head)
    }

    #[inline]
    fn peek(&self, _: Position) -> Position {
        Position::new(self.load(Word::Tail))
    }
}

/// Checks a `tail` that was `found`, and stands for the position `tail`.
#[inline]
pub(crate) fn check_tail(
    found: u64,
    tail: Position,
    from: Position,
    head: Position,
) -> Result<Position, ProtocolError> {
    if tail < from || tail > head {
        return Err(ProtocolError::Tail { from: from.get(), limit: head.get(), found: tail.get() });
    }
    if !found.is_multiple_of(CACHE_LINE) {
        return Err(ProtocolError::Misaligned { found });
    }
    Ok(tail)
}

/// The counters of a ring at its owner. The bytes are written by the [`Writer`](super::writer::Writer).
#[derive(Debug)]
pub(crate) struct Producer<R = PeerRegion> {
    words: ControlPage,
    pub(crate) readers: R,
    /// Bytes of the ring.
    capacity: u64,
    /// The end of what is published. Always in sync with the word: nobody else writes it.
    head: Position,
    /// Where `head` stands in the ring: the ring's byte, before its end.
    at: u64,
    /// The end of what the readers have released. May be stale, that is, too low.
    tail: Position,
    claim: Claim,
    window: Window,
    /// Bytes that may be in flight before something is to be decided: the window, or all of the ring.
    limit: u64,
    /// Bytes from `at` on for which nothing is to be decided: within the limit, before the ring's end, and not [`LARGE`]. May
    /// be stale, that is, too low.
    free: u64,
    /// The padding and the size of the place that was reserved last.
    padding: u64,
    reserved: RecordSize,
    /// The head up to which `high_water` does not look again.
    next_refresh: Position,
}

impl<R: Readers> Producer<R> {
    pub(super) fn new(words: ControlPage, readers: R, capacity: usize) -> Self {
        let (capacity, head) = (to_u64(capacity), Position::default());
        let (padding, reserved) = (0, RecordSize::NONE);
        // The first record finds out what is free.
        Self {
            words,
            readers,
            capacity,
            head,
            at: 0,
            tail: head,
            claim: Claim::new(capacity),
            window: Window::new(capacity),
            limit: capacity,
            free: 0,
            padding,
            reserved,
            next_refresh: head,
        }
    }

    /// Goes on at a later position of an empty ring.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, position: u64) {
        (self.head, self.tail) = (Position::new(position), Position::new(position));
        self.recount();
    }

    /// The next reservation looks at what is free.
    #[cfg(test)]
    pub(crate) fn forget_free(&mut self) {
        self.free = 0;
    }

    /// Bytes of the ring.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where `head` stands in the ring: the ring's byte, or its end.
    #[inline]
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that are published, or left out, and not yet seen released.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.head.since(self.tail)
    }

    /// Bytes of the ring that are not used.
    fn unused(&self) -> u64 {
        self.capacity.saturating_sub(self.used())
    }

    /// Bytes from the head to the ring's end.
    fn rest(&self) -> u64 {
        self.capacity.wrapping_sub(self.at)
    }

    /// Whether positions have come so near to their end that the channel has to end.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.head.after(self.capacity).after(self.capacity) >= Position::END
    }

    /// Computes `free` anew; the ring's end is its start. Nothing is free at the end of all positions.
    fn recount(&mut self) {
        if self.at == self.capacity {
            self.at = 0;
        }
        let free =
            self.limit.saturating_sub(self.used()).min(self.rest()).min(LARGE.saturating_sub(CACHE_LINE));
        self.free = if self.is_exhausted() { 0 } else { free };
    }

    /// Bytes that are left out before a record of `size` bytes: the rest of the ring, if the record does not fit there.
    fn padding_before(&self, size: RecordSize) -> u64 {
        let rest = self.rest();
        if size.bytes() > rest { rest } else { 0 }
    }

    /// Whether `size` bytes have room now, with their padding. Looks at the peer's `tail` only if it seems not.
    #[inline]
    pub(crate) fn has_room(&mut self, size: RecordSize) -> Result<bool, ProtocolError> {
        if size.bytes() <= self.free { Ok(true) } else { self.finds_room(self.padding_before(size), size) }
    }

    /// Whether `size` bytes have room behind `padding`.
    #[cold]
    fn finds_room(&mut self, padding: u64, size: RecordSize) -> Result<bool, ProtocolError> {
        let all = padding.saturating_add(size.bytes());
        if all > self.limit.saturating_sub(self.used()) {
            self.refresh_tail()?;
        }
        // The caller decides about a record beyond the window. Those behind it need no decision.
        let in_flight = self.used().saturating_add(all);
        self.limit = if in_flight <= self.window.len { self.window.len } else { self.capacity };
        self.recount();
        Ok(all <= self.unused() && !self.is_exhausted())
    }

    /// Reserves the place of the next record, of `size` bytes, if that can be told at a glance. The peer sees nothing of it.
    #[inline]
    pub(crate) fn reserve_at_a_glance(&mut self, size: RecordSize) -> bool {
        let fits = size.bytes() <= self.free;
        if fits {
            (self.padding, self.reserved) = (0, size);
            self.claim(self.head.after(size.bytes()));
        }
        fits
    }

    /// Marks the bytes up to `end` as about to be written, where readers may be overrun.
    #[inline]
    fn claim(&mut self, end: Position) {
        if R::MAY_BE_OVERRUN {
            self.claim.up_to(end, self.tail.after(self.capacity), &self.words);
        }
    }

    /// The `tail` of the peer from which on a record of `size` bytes has room, with its padding.
    pub(crate) fn needed_tail(&self, size: RecordSize) -> u64 {
        let end = self.head.after(self.padding_before(size)).after(size.bytes());
        end.get().saturating_sub(self.capacity)
    }

    /// Reserves the place of the next record, for whose `size` bytes there is [room](Self::has_room). The peer sees nothing
    /// of it.
    pub(crate) fn reserve(&mut self, size: RecordSize) -> Result<(), ProtocolError> {
        (self.padding, self.reserved) = (self.choose_padding(size)?, size);
        self.claim(self.head.after(self.padding).after(size.bytes()));
        Ok(())
    }

    /// The padding before a record of `size` bytes. A large one begins at the ring's start early, if padding and record have
    /// room now: then it meets memory again that may still be in the cache.
    ///
    /// Where the ring has room for two or three such records, no more than one is kept, so that more than one may be left
    /// out: the records on both sides are there already. But there should always be room for all but one.
    fn choose_padding(&mut self, size: RecordSize) -> Result<u64, ProtocolError> {
        let (bytes, rest, padding) = (size.bytes(), self.rest(), self.padding_before(size));
        let records = |n: u64| bytes.saturating_mul(n);
        if R::MAY_BE_OVERRUN
            || padding > 0
            || bytes < LARGE
            || rest == self.capacity
            || records(4) <= self.capacity
        {
            return Ok(padding);
        }
        let others = if records(3) <= self.capacity { 2 } else { 1 };
        if rest <= self.capacity.saturating_sub(records(others)) && self.finds_room(rest, size)? {
            return Ok(rest);
        }
        Ok(0)
    }

    /// Whether the peer should catch up before a record of `size` bytes is written, for which there is room.
    pub(crate) fn should_pace(&mut self, size: RecordSize) -> bool {
        self.window.should_wait(size, self.used().saturating_add(size.bytes()))
    }

    /// Lets the peer catch up, for 150 µs at most.
    pub(crate) fn pace(&mut self, size: RecordSize, deadline: Deadline) -> Result<(), ProtocolError> {
        let in_flight = || self.head.since(self.readers.peek(self.head));
        let limit = self.window.wait(in_flight, size, deadline);
        self.refresh_tail()?;
        self.limit = limit.unwrap_or(self.capacity).min(self.capacity);
        self.recount();
        Ok(())
    }

    /// The place that was reserved last. A place that was published is another one.
    #[inline]
    pub(super) fn reserved(&self) -> Place {
        let (padding, size, head) = (self.padding, self.reserved, self.head);
        // Padding reaches to the ring's end.
        Place { at: if padding > 0 { 0 } else { self.at }, padding, size, head }
    }

    /// Whether a record of `size` bytes has room at the place that was reserved last.
    #[inline]
    pub(super) fn fits(&mut self, size: RecordSize) -> Result<bool, ProtocolError> {
        if size <= self.reserved {
            return Ok(true);
        }
        let Place { at, padding, .. } = self.reserved();
        let fits = size.bytes() <= self.capacity.wrapping_sub(at) && self.finds_room(padding, size)?;
        if fits {
            self.claim(self.head.after(padding).after(size.bytes()));
        }
        Ok(fits)
    }

    /// Whether anything was released since the last look.
    pub(crate) fn tail_moved(&self) -> bool {
        self.readers.peek(self.head) != self.tail
    }

    /// Waits a moment, some microseconds at most, unless many records of `size` bytes have room already, or the ring is too
    /// short for many.
    ///
    /// A sender that meets a full ring waits for the peer in any case. Each look at its `tail` takes the cache line away from
    /// it, so a look for each record would slow it down.
    pub(crate) fn back_off(&self, size: RecordSize) {
        let enough = size.bytes().saturating_mul(MANY).max(PLENTY).min(self.capacity / PART);
        for _ in 0..LOOKS {
            let tail = self.readers.peek(self.head);
            if self.capacity.wrapping_sub(self.head.since(tail)) >= enough {
                break;
            }
            for _ in 0..PAUSES {
                spin_loop();
            }
        }
    }

    /// Sees what was released.
    pub(crate) fn refresh_tail(&mut self) -> Result<(), ProtocolError> {
        self.tail = self.readers.refresh(self.tail, self.head)?;
        Ok(())
    }

    /// The most bytes that were in use at once, which was `before` until now, and may be more.
    ///
    /// The cached `tail` may be old, so the peer's word is loaded. If it shows that no more was in use, the next load comes after a
    /// 16th of the capacity: each fetches a cache line that the peer is writing.
    pub(crate) fn high_water(&mut self, before: u64) -> u64 {
        if self.head < self.next_refresh {
            return before;
        }
        // If the peer's word is not even sound, the next call reports it.
        let _ = self.refresh_tail();
        let used = self.used();
        if used <= before {
            self.next_refresh = self.head.after(self.capacity / 16);
            return before;
        }
        self.words.word(Word::HighWater).store(used, Relaxed);
        used
    }

    /// Does what [`publish`](Self::publish) does for a publisher's message, which is the `number`th. Those who go to the newest record
    /// find it if it `has_payload`.
    #[inline]
    pub(super) fn publish_to_all(&mut self, size: RecordSize, has_payload: bool, number: u64) {
        let start = self.next_start();
        self.publish(size, number);
        if has_payload {
            // ORDERING: Release pairs with the Acquire fences in `Newest::of`: a reader that sees this sees the head behind it.
            self.words.word(Word::Latest).store(start.get(), Release);
        }
    }

    /// The end of what is published.
    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// Where the record begins whose place was reserved last.
    #[inline]
    pub(crate) fn next_start(&self) -> Position {
        self.head.after(self.padding)
    }

    /// Whether a record that begins at `start` is whole until more is claimed.
    pub(crate) fn is_whole(&self, start: Position) -> bool {
        self.claimed() <= self.end_of_ring_from(start)
    }

    /// The end of what may be written at any time.
    pub(crate) fn claimed(&self) -> Position {
        self.claim.claimed()
    }

    /// The end of what can be written while a reader that has released all up to `tail` holds the rest.
    pub(crate) fn end_of_ring_from(&self, tail: Position) -> Position {
        tail.after(self.capacity)
    }

    /// Takes back what was seen released: a reader begins at a position before that.
    pub(crate) fn read_again_from(&mut self, position: Position) {
        self.tail = self.tail.min(position);
        self.recount();
    }

    /// Publishes the record of `size` bytes that has been written at the place reserved last, and the padding before it. It is the
    /// owner's message `number`, counted from 1.
    #[inline]
    pub(super) fn publish(&mut self, size: RecordSize, number: u64) {
        let Place { at, padding, .. } = self.reserved();
        let all = padding.wrapping_add(size.bytes());
        self.head = self.head.after(all);
        self.at = at.wrapping_add(size.bytes());
        // ORDERING: Release pairs with the Acquire fence in `Consumer::refresh_head`: a peer that sees this head sees the record.
        self.words.word(Word::Head).store(self.head.get(), Release);
        self.words.word(Word::Messages).store(number, Relaxed);
        // Padding, large records, control bytes beyond the reserve, and the ring's last byte end what is free.
        match self.free.checked_sub(all) {
            Some(left) if left > 0 => self.free = left,
            _ => self.recount(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, os::fd::AsFd};

    use super::*;
    use crate::{
        memory::region::{OwnRegion, map_peer},
        protocol::{
            layout::{Geometry, LONG, RESERVE, to_usize},
            record::{MessageHeader, Record},
        },
    };

    /// The producer of a ring of `capacity` bytes, which are not there, and the region whose words say what was released.
    fn producer(capacity: u64) -> (Producer, OwnRegion) {
        let [ours, theirs] =
            [4096, 0].map(|capacity| OwnRegion::create(capacity, true, false, Deadline::Never).unwrap());
        let peer = map_peer(theirs.memfd.as_fd(), theirs.geometry, true).unwrap();
        (Producer::new(ours.words, peer, to_usize(capacity)), theirs)
    }

    /// A record of so many bytes in all.
    fn size(bytes: u64) -> RecordSize {
        let reserve = if bytes > LONG + CACHE_LINE { RESERVE } else { 0 };
        let record = Record::new(MessageHeader::new(0, false, None), to_usize(bytes - CACHE_LINE - reserve));
        assert_eq!(record.size().bytes(), bytes);
        record.size()
    }

    /// Reserves and publishes a record of so many bytes. Where it stands, and the padding before it.
    fn publish(producer: &mut Producer, bytes: u64) -> (u64, u64) {
        assert_eq!(producer.has_room(size(bytes)), Ok(true), "{bytes} bytes");
        let Place { at, padding, .. } = place(producer, bytes);
        producer.publish(size(bytes), 0);
        (at, padding)
    }

    fn place(producer: &mut Producer, bytes: u64) -> Place {
        producer.reserve(size(bytes)).unwrap();
        producer.reserved()
    }

    fn release(theirs: &OwnRegion, tail: u64) {
        theirs.words.word(Word::Tail).store(tail, Release);
    }

    #[test]
    fn the_high_water_mark_counts_what_is_released_and_looks_seldom() {
        let (mut producer, theirs) = producer(4096);
        let mut mark = 0;
        let mut publish = |released| {
            release(&theirs, released);
            publish(&mut producer, 64);
            mark = producer.high_water(mark);
            mark
        };
        assert_eq!(publish(0), 64);
        assert_eq!(publish(64), 64, "the first has been released meanwhile");
        // 256 bytes are a 16th.
        assert_eq!([publish(64), publish(64), publish(64)], [64; 3], "no look until then");
        assert_eq!(publish(64), 320);
        // More than before is seen at once.
        assert_eq!([publish(64), publish(64)], [384, 448]);
        assert_eq!(publish(9 * 64), 448);
    }

    #[test]
    fn window_limits_what_needs_no_decision_and_not_what_has_room() {
        let (mut producer, theirs) = producer(64 << 10);
        let (len, small) = (producer.window.len, size(4096));
        let publish = |producer: &mut Producer, bytes: u64| {
            while producer.used() < bytes {
                publish(producer, 4096);
            }
        };
        publish(&mut producer, len);
        assert!(!producer.reserve_at_a_glance(small), "there is a decision at the window");
        assert_eq!((producer.has_room(small), producer.should_pace(small)), (Ok(true), true));
        // The peer does not keep up: all of the ring may be in flight.
        producer.pace(small, Deadline::Never).unwrap();
        assert!(producer.reserve_at_a_glance(small));
        publish(&mut producer, len + 8192);
        assert!(producer.reserve_at_a_glance(small));
        // It does: the limit sinks to where the two are, then to the window.
        release(&theirs, len / 2 + 8192);
        producer.pace(small, Deadline::Never).unwrap();
        assert_eq!(producer.limit, len);
        publish(&mut producer, len);
        assert!(!producer.reserve_at_a_glance(small));
    }

    #[test]
    fn records_that_do_not_fit_before_the_end_begin_at_the_start() {
        // No power of two.
        let (mut producer, theirs) = producer(3 * 4096);
        assert_eq!(publish(&mut producer, 3 * 4096 - 128), (0, 0));
        release(&theirs, 3 * 4096 - 128);
        // It fits exactly, and what comes behind it needs no padding.
        assert_eq!(publish(&mut producer, 128), (3 * 4096 - 128, 0));
        assert_eq!(publish(&mut producer, 64), (0, 0));
        assert_eq!((producer.head, producer.at), (Position::new(3 * 4096 + 64), 64));
        release(&theirs, 3 * 4096 + 64);
        assert_eq!(publish(&mut producer, 3 * 4096 - 256), (64, 0));
        // 192 bytes are left, 64 of them published and released by now.
        release(&theirs, 2 * 3 * 4096 - 192);
        assert_eq!(publish(&mut producer, 256), (0, 192));
        assert_eq!((producer.head, producer.at), (Position::new(2 * 3 * 4096 + 256), 256));
        assert_eq!(producer.used(), 192 + 256);
    }

    #[test]
    fn padding_counts_as_used_and_must_have_room() {
        let (mut producer, theirs) = producer(4096);
        publish(&mut producer, 4096 - 128);
        release(&theirs, 64);
        // 192 bytes are free, of which 128 are the rest of the ring.
        assert_eq!((producer.has_room(size(128)), producer.has_room(size(192))), (Ok(true), Ok(false)));
        release(&theirs, 192);
        assert_eq!((producer.has_room(size(192)), producer.has_room(size(256))), (Ok(true), Ok(false)));
        // A place that is chosen, and not used, changes nothing.
        let place = place(&mut producer, 192);
        assert_eq!((place.at, place.padding), (0, 128));
        assert_eq!((producer.used(), producer.at), (4096 - 128 - 192, 4096 - 128));
        let smaller = self::place(&mut producer, 64);
        assert_eq!((smaller.at, smaller.padding), (4096 - 128, 0));
        assert!(producer.reserved() != place && producer.reserved() == smaller);
        // More than was reserved has room if it does not reach past the end.
        assert_eq!((producer.fits(size(128)), producer.fits(size(192))), (Ok(true), Ok(false)));
        producer.publish(size(64), 0);
        assert!(producer.reserved() != smaller, "it is published");
    }

    #[test]
    fn large_records_begin_at_the_start_again() {
        // A ring for seven, of which the rest, less than one, is left out. For three: the first's memory is used again as soon
        // as it is released. For two.
        for (capacity, records, expected) in [
            (8 * LARGE, 7, [0, 1, 2, 3, 4, 5, 6, 0]),
            (4 * LARGE, 3, [0, 1, 0, 1, 0, 1, 0, 1]),
            (2 * LARGE + 4096, 2, [0; 8]),
        ] {
            let bytes = LARGE + 64;
            let (mut producer, theirs) = producer(capacity);
            let places = expected.map(|_| {
                let before = producer.head;
                let (place, _) = publish(&mut producer, bytes);
                // The receiver is at the last one.
                release(&theirs, if records == 2 { producer.head.get() } else { before.get() });
                place
            });
            assert_eq!(places, expected.map(|n| n * bytes), "{records} records");
        }
        // Smaller ones, and large ones of which many fit, go on up to the end.
        let (mut producer, theirs) = producer(8 * LARGE);
        publish(&mut producer, 4 * LARGE);
        release(&theirs, 4 * LARGE);
        for bytes in [64, LARGE - 64, LARGE, 2 * LARGE] {
            let place = place(&mut producer, bytes);
            assert_eq!((place.at, place.padding), (4 * LARGE, 0));
        }
    }

    #[test]
    fn nothing_is_left_out_while_the_start_is_in_use() {
        let (mut producer, theirs) = producer(4 * LARGE);
        let bytes = LARGE + 64;
        let padding = |producer: &mut Producer| place(producer, bytes).padding;
        publish(&mut producer, bytes);
        publish(&mut producer, bytes);
        assert_eq!(padding(&mut producer), 0);
        release(&theirs, 1);
        assert_eq!(producer.reserve(size(bytes)), Err(ProtocolError::Misaligned { found: 1 }));
        release(&theirs, bytes);
        assert_eq!(padding(&mut producer), 4 * LARGE - 2 * bytes);
        // A smaller record may be sent in its place.
        assert_eq!(publish(&mut producer, 64), (2 * bytes, 0));
    }

    #[test]
    fn long_record_has_room_as_soon_as_the_one_in_its_place_is_released() {
        let payload = to_usize(LONG);
        let (loan, kept) = (RecordSize::of_loan(payload), 0);
        let (mut producer, theirs) = producer(to_u64(Geometry::capacity_for(payload, kept, 4096)));
        let mut released = 0;
        let places = [(); 6].map(|()| {
            assert_eq!(producer.has_room(loan), Ok(true));
            producer.reserve(loan).unwrap();
            let place = producer.reserved();
            let sent = Record::new(MessageHeader::new(0, false, None), payload).size();
            producer.publish(sent, 0);
            // The receiver is one behind.
            release(&theirs, released);
            released = producer.head.get();
            place.at / loan.bytes()
        });
        assert_eq!(places, [0, 1, 0, 1, 0, 1]);
    }

    /// This is the promise of `Payload`: a sender is never stuck while the receiver keeps the last `kept` payloads, and the ring has
    /// room for two more of the largest, with what is reserved for each. Padding is released together with the record before
    /// it.
    #[test]
    fn padding_leaves_room_for_what_is_kept() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut random = |below: u64| rng.u64(..below);
        let (mut padded, mut early, mut most_kept) = (0, 0, 0);
        for round in 0..1500 {
            // Any multiple of the page: small ones, and those in which records are large.
            let pages = if round % 2 == 0 { 1 + random(200) } else { 2048 + random(40_000) };
            let capacity = pages * 4096;
            let most = Geometry { offset: 4096, capacity: to_usize(capacity) }.max_payload();
            let largest = (most / to_usize(1 + random(8))).max(1);
            let kept = to_usize(capacity / RecordSize::of_loan(largest).bytes() - 2);
            assert!(Geometry::capacity_for(largest, kept, 4096) <= to_usize(capacity));
            most_kept = kept.max(most_kept);
            let (mut producer, theirs) = producer(capacity);
            // Where records begin and end that were published and not released; the first have been received.
            let mut records = VecDeque::<(u64, u64)>::new();
            let mut received = 0;
            for _ in 0..200 {
                let payload = if random(2) == 0 { largest } else { to_usize(random(to_u64(largest) + 1)) };
                let reserved = RecordSize::of_loan(payload);
                // The receiver is behind, or takes what there is.
                while !producer.has_room(reserved).unwrap() || (received < records.len() && random(3) > 0) {
                    assert!(
                        received < records.len(),
                        "stuck: {payload} of {largest} in {capacity}, {kept} kept"
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
                    release(&theirs, tail);
                }
                producer.reserve(reserved).unwrap();
                let place = producer.reserved();
                padded += u64::from(place.padding > 0);
                early += u64::from(place.padding >= reserved.bytes());
                let start = producer.head.after(place.padding).get();
                assert!(place.at + reserved.bytes() <= capacity, "past the end");
                assert_eq!(place.at, start % capacity, "the place and the position are the same byte");
                // Less may be committed than was reserved.
                let sent = to_usize(random(to_u64(payload) + 1));
                let record = Record::new(
                    MessageHeader::new(0, false, None),
                    if random(3) == 0 { sent } else { payload },
                );
                let size = record.with_control(to_usize(random(1025))).unwrap().size();
                assert_eq!(producer.fits(size), Ok(true), "a kilobyte of control bytes always rides");
                producer.publish(size, 0);
                records.push_back((start, producer.head.get()));
            }
        }
        assert!(padded > 10_000 && early > 1000 && most_kept >= 6, "{padded} {early} {most_kept}");
    }

    #[test]
    fn room_is_what_is_free_and_what_is_seen_released() {
        let (mut producer, theirs) = producer(4096);
        let release = |tail| release(&theirs, tail);
        publish(&mut producer, 4096 - 128);
        assert_eq!((producer.has_room(size(128)), producer.has_room(size(192))), (Ok(true), Ok(false)));
        publish(&mut producer, 128);
        assert_eq!(
            (producer.head.get(), producer.used(), producer.has_room(size(64))),
            (4096, 4096, Ok(false))
        );
        assert!(!producer.tail_moved());
        release(64);
        assert!(producer.tail_moved());
        assert_eq!((producer.has_room(size(64)), producer.has_room(size(128))), (Ok(true), Ok(false)));
        assert!(!producer.tail_moved(), "it has been seen");
        // Neither more than was sent, nor less than before, nor a part of a line.
        for (tail, violation) in [
            (4160, ProtocolError::Tail { from: 64, limit: 4096, found: 4160 }),
            (0, ProtocolError::Tail { from: 64, limit: 4096, found: 0 }),
            (u64::MAX, ProtocolError::Tail { from: 64, limit: 4096, found: u64::MAX }),
            (65, ProtocolError::Misaligned { found: 65 }),
        ] {
            release(tail);
            assert_eq!(producer.has_room(size(128)), Err(violation));
        }
        release(4096);
        assert_eq!(producer.has_room(size(4096)), Ok(true));
    }

    #[test]
    fn claim_is_a_sixteenth_ahead_but_not_of_what_is_waited_for() {
        let words = OwnRegion::create(0, true, false, Deadline::Never).unwrap().words;
        let mut claim = Claim::new(4096);
        let mut up_to = |end, limit| {
            claim.up_to(Position::new(end), Position::new(limit), &words);
            assert_eq!(words.word(Word::Claimed).load(Relaxed), claim.claimed().get());
            claim.claimed().get()
        };
        assert_eq!(up_to(64, 4096), 64 + 256);
        assert_eq!([128, 320].map(|end| up_to(end, 4096)), [320; 2], "as much is claimed already");
        assert_eq!(up_to(384, 4096), 384 + 256);
        assert_eq!(up_to(704, 768), 768, "the rest is waited for");
        assert_eq!(up_to(832, 768), 832, "what is written is claimed in any case");
    }

    #[test]
    fn positions_end_before_they_overflow() {
        let (mut producer, theirs) = producer(4096);
        producer.start_at(Position::END.get() - 3 * 4096);
        release(&theirs, producer.head.get());
        let mut published = 0;
        while producer.has_room(size(64)).unwrap() {
            assert!(!producer.is_exhausted());
            publish(&mut producer, 64);
            release(&theirs, producer.head.get());
            published += 64;
        }
        assert!(producer.is_exhausted());
        assert_eq!(published, 4096, "two rings before the end");
        assert!(producer.head < Position::END);
    }
}
