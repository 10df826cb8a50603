//! [`Releases`]: payloads are released in any order and by any thread; their space returns to the peer in the ring's order.
//!
//! Invariant: `tail` is moved by the thread that releases the record which begins there, so by one thread at a time.
//!
//! `tests/models/loom_room.rs` compiles this file on loom's atomics. Therefore these come from [`wait`](crate::wait).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst},
    },
};

use crate::{
    error::Result,
    protocol::{Position, Record, Word, to_u64},
    socket::{doorbell::PeerHalf, link::Link},
    sys::{foreign::VolatileBytes, own_region::ControlPage, peer_region::PeerRegion},
    wait::{AtomicU64, Mutex, MutexGuard, Notifier, fence, lock, lock_unless_lost},
};

/// The state that payloads share with the receiver: the peer's ring, and its released records.
#[derive(Debug)]
pub(crate) struct Releases {
    pub(crate) peer: PeerRegion,
    pub(crate) link: Arc<Link>,
    /// Our control page, which has the `tail` word.
    words: ControlPage,
    /// Where the `tail` word begins to count: a subscriber joins later.
    base: Position,
    /// The peer is a publisher, which may end us and go on: then it writes over what we hold.
    pub(crate) is_subscription: bool,
    /// Records before `tail`. Written only by the thread that moves `tail`.
    count: AtomicU64,
    /// The number of ranges in the ledger. Written under its lock.
    early: AtomicU64,
    ledger: Mutex<Pending>,
}

/// The ledger, under a lock: one doorbell for an epoch, and one thread that moves `tail` past ranges in it.
#[derive(Debug, Default)]
struct Pending {
    /// Ranges that were released before an older record: start → (end, number of records). Ranges that touch are one entry, so
    /// there are at most as many entries as held payloads.
    early: BTreeMap<Position, (Position, u64)>,
    notifier: Notifier,
}

impl Pending {
    /// Adds a range of `records` records, joined with the ranges that it touches. Returns the start of the whole range.
    fn note(&mut self, mut start: Position, end: Position, records: u64) -> Position {
        let mut all = (end, records);
        if let Some((behind, more)) = self.early.remove(&end) {
            all = (behind, all.1.wrapping_add(more));
        }
        // Usually the range before it ends at `start`, and grows.
        if let Some((before, (its_end, its_records))) = self.early.range_mut(..start).next_back()
            && *its_end == start
        {
            start = *before;
            (*its_end, *its_records) = (all.0, its_records.wrapping_add(all.1));
        } else {
            self.early.insert(start, all);
        }
        start
    }
}

/// Bytes of the ring that are released together: a record, several that touch, or padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: Position,
    pub(crate) end: Position,
    /// The place of `start` in the ring, in bytes.
    pub(crate) at: u64,
}

impl Span {
    /// Bytes.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        self.end.since(self.start)
    }
}

impl Releases {
    pub(crate) fn new(peer: PeerRegion, link: Arc<Link>, words: ControlPage) -> Arc<Self> {
        let (count, early, ledger) = Default::default();
        let (base, is_subscription) = (Position::default(), false);
        Arc::new(Self { peer, link, words, base, is_subscription, count, early, ledger })
    }

    /// Those of a subscriber that joined at the position `base`.
    pub(crate) fn of_subscription(
        peer: PeerRegion,
        link: Arc<Link>,
        words: ControlPage,
        base: Position,
    ) -> Arc<Self> {
        let (count, early, ledger) = Default::default();
        Arc::new(Self { peer, link, words, base, is_subscription: true, count, early, ledger })
    }

    /// Continues at a later position of an empty ring.
    #[cfg(test)]
    pub(super) fn start_at(&self, position: Position) {
        self.words.word(Word::Tail).store(position.get(), Relaxed);
    }

    /// The ledger for a range that is added. `None` in a fork that has not used the channel, if another thread had the lock when
    /// the process was forked: the fork has no copy of that thread.
    fn ledger_for_a_note(&self) -> Option<MutexGuard<'_, Pending>> {
        if self.link.is_ours() { Some(lock(&self.ledger)) } else { lock_unless_lost(&self.ledger) }
    }

    /// Releases the space of `records` adjacent records, or of padding, to the peer as soon as all older space is released. In a
    /// fork that has not used the channel this only adds the range to the ledger.
    #[inline]
    pub(crate) fn release(&self, span: Span, records: u64) {
        self.release_all(span.start, span.end, records);
    }

    /// Releases the space between two positions. It is not inlined, and its arguments are passed in registers, so that a
    /// dropped payload stays in registers too.
    #[inline(never)]
    fn release_all(&self, start: Position, end: Position, records: u64) {
        // ORDERING: Acquire pairs with the Release store in `move_tail`. The threads that moved `tail` before have finished
        // reading, and have stored `count`, before we move it.
        if !self.link.is_ours_at_a_glance() || self.tail_with(Acquire) != start {
            return self.release_out_of_order(start, end, records);
        }
        self.move_tail(end, records);
        // ORDERING: pairs with the fences in `release_out_of_order` and in `SleepWord::rearm`. A thread that adds a range sees
        // our `tail`, or we see its range. The same goes for a peer that is about to sleep.
        fence(SeqCst);
        if self.early.load(Relaxed) > 0 || self.is_needed(end) {
            self.release_pending(&mut lock(&self.ledger));
        }
    }

    /// Moves `tail` past `records` records. Only for the thread that releases the record which begins at `tail`.
    #[inline]
    fn move_tail(&self, end: Position, records: u64) {
        self.count.store(self.count.load(Relaxed).wrapping_add(records), Relaxed);
        // ORDERING: Release pairs with the Acquire fence in `Producer::refresh_tail`. Our reads of these bytes are finished
        // before the peer writes there again.
        self.words.word(Word::Tail).store(end.since(self.base), Release);
    }

    #[inline]
    fn tail_with(&self, ordering: Ordering) -> Position {
        self.base.after(self.words.word(Word::Tail).load(ordering))
    }

    #[cold]
    fn release_out_of_order(&self, start: Position, end: Position, records: u64) {
        let Some(mut ledger) = self.ledger_for_a_note() else { return };
        ledger.note(start, end, records);
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        // ORDERING: pairs with the fence in `release_all`. A thread that has moved `tail` to our start sees our range, or we see
        // its `tail`.
        fence(SeqCst);
        if self.link.is_ours() && ledger.early.contains_key(&self.tail()) {
            self.release_pending(&mut ledger);
        }
    }

    /// Marks the channel as used by this process, and releases payloads that it dropped before. An error if the channel is
    /// closed here.
    pub(crate) fn take_over(&self) -> Result<()> {
        self.link.check()?;
        if self.early.load(Relaxed) > 0 {
            let mut ledger = lock(&self.ledger);
            if ledger.early.contains_key(&self.tail()) {
                self.release_pending(&mut ledger);
            }
        }
        Ok(())
    }

    /// Moves `tail` past the ranges that begin there, and wakes the peer if it waits.
    #[cold]
    fn release_pending(&self, ledger: &mut Pending) {
        // ORDERING: Acquire for the same reason as in `release_all`.
        while let Some((end, records)) = ledger.early.remove(&self.tail_with(Acquire)) {
            self.move_tail(end, records);
        }
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        // This follows the last move, since the peer may need all of that space.
        self.notify(ledger, Some(self.tail().get()));
    }

    /// Wakes the peer's sender if it sleeps, and if it needs no more than `released`.
    fn notify(&self, ledger: &mut Pending, released: Option<u64>) {
        let sender =
            PeerHalf { region: &self.peer, word: Word::SenderEpoch, socket: &self.link.space_tx, released };
        // A peer that is gone needs no doorbell.
        let _ = ledger.notifier.notify(&sender);
    }

    /// Wakes a peer whose sender waits for the socket: a packet was read from it.
    pub(crate) fn notify_space(&self) {
        // ORDERING: pairs with the fence in `SleepWord::rearm`. We see the odd epoch, or its owner's next attempt finds the space
        // that our read made. The notifier, under the lock, has a fence of its own.
        fence(SeqCst);
        // This does not depend on what the sender needs of the ring, since it may wait for the socket.
        if self.needed().is_some() {
            self.notify(&mut lock(&self.ledger), None);
        }
    }

    /// The `tail` that the peer's sender waits for, if its epoch shows that it waits. A snapshot: it may change at once.
    ///
    /// UNTRUSTED: it is only compared.
    #[inline]
    pub(crate) fn needed(&self) -> Option<Position> {
        let waits = self.peer.load(Word::SenderEpoch) & 1 == 1;
        waits.then(|| Position::new(self.peer.load(Word::SenderNeeds)))
    }

    /// True if the peer's sender waits for no more than the space up to `end`.
    #[inline]
    pub(crate) fn is_needed(&self, end: Position) -> bool {
        self.needed().is_some_and(|needs| needs <= end)
    }

    /// Whether the peer's sender waits for space that it had if all up to `position` were released.
    pub(crate) fn holds_up_peer(&self, position: Position) -> bool {
        self.needed().is_some_and(|needs| self.tail() < needs && needs <= position)
    }

    /// Of `taken` records up to `position`, those that are not released, and their bytes.
    pub(crate) fn held(&self, taken: u64, position: Position) -> (u64, u64) {
        let (count, bytes) = self.released();
        (taken.wrapping_sub(count), position.get().wrapping_sub(bytes))
    }

    /// Records released so far, and the position that their bytes make up.
    fn released(&self) -> (u64, u64) {
        let ledger = lock(&self.ledger);
        let so_far = (self.count.load(Relaxed), self.tail().get());
        ledger.early.iter().fold(so_far, |(count, bytes), (start, (end, records))| {
            (count.wrapping_add(*records), bytes.wrapping_add(end.since(*start)))
        })
    }

    /// The end of the released space.
    #[inline]
    pub(crate) fn tail(&self) -> Position {
        self.tail_with(Relaxed)
    }

    /// Shows how far a subscriber has read that nobody waits for.
    pub(crate) fn show(&self, position: Position) {
        self.words.word(Word::Tail).store(position.since(self.base), Relaxed);
    }

    /// Shows how many messages a subscriber has missed.
    pub(crate) fn show_missed(&self, missed: u64) {
        self.words.word(Word::Missed).store(missed, Relaxed);
    }

    /// The `len` bytes of a record's payload.
    #[inline]
    pub(crate) fn payload(&self, span: Span, len: usize) -> VolatileBytes<'_> {
        self.peer.bytes(span.at.wrapping_add(Record::PAYLOAD), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::CACHE_LINE;

    #[test]
    fn spans_that_touch_are_one() {
        let at = |line: u64| Position::new(line * CACHE_LINE);
        let span = |start: u64, end: u64| Span { start: at(start), end: at(end), at: start * CACHE_LINE };
        let spans = [span(1, 2), span(2, 4), span(4, 5), span(5, 8)];
        // The orders are all permutations of the four.
        for order in (0..256_usize).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]) {
            if (0..4).any(|n| !order.contains(&n)) {
                continue;
            }
            let mut ledger = Pending::default();
            for (n, next) in order.into_iter().enumerate() {
                let start = ledger.note(spans[next].start, spans[next].end, 1);
                let (end, _) = ledger.early[&start];
                assert!(start <= spans[next].start && end >= spans[next].end, "{order:?}");
                let all = ledger.early.iter().map(|(_, (_, records))| records).sum::<u64>();
                assert_eq!(all, n as u64 + 1, "{order:?}");
            }
            let whole = BTreeMap::from([(at(1), (at(8), 4))]);
            assert_eq!(ledger.early, whole, "{order:?}");
        }
    }
}
