//! Releases: the space of records returns to the peer in order, whatever order they are released in, by any thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use crate::{
    error::Result,
    protocol::{Position, Record, Word, to_u64},
    socket::{doorbell::PeerHalf, link::Link},
    sys::{foreign::VolatileBytes, own_region::ControlPage, peer_region::PeerRegion},
    wait::{Notifier, lock_unless_lost},
};

/// The part that payloads share with the receiver: the peer's ring, and what of it has been released.
#[derive(Debug)]
pub(crate) struct Releases {
    pub(crate) peer: PeerRegion,
    pub(crate) link: Arc<Link>,
    /// The `tail` word is moved by who releases the record that begins there, so by one thread at a time.
    words: ControlPage,
    /// Records before `tail`; written by who moves that.
    count: AtomicU64,
    /// How many entries of the ledger are early; written under its lock.
    early: AtomicU64,
    ledger: Mutex<Pending>,
}

/// State under a lock: an epoch is rung once, and one thread moves `tail` past ranges that were released early.
#[derive(Debug)]
struct Pending {
    /// Released before an older one: where it begins; its end, and how many records it is. Those that touch are one, so there
    /// are no more entries than payloads that are held.
    early: BTreeMap<Position, (Position, u64)>,
    notifier: Notifier,
}

impl Pending {
    /// Notes `records` records that are released early, together with those that they touch. Where all that begins.
    fn note(&mut self, mut start: Position, end: Position, records: u64) -> Position {
        let mut all = (end, records);
        if let Some((behind, more)) = self.early.remove(&end) {
            all = (behind, all.1.wrapping_add(more));
        }
        // As a rule, what was released before it ends here: that entry grows.
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
    /// Where `start` is in the ring: the ring's byte.
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
        let ledger = Pending { early: BTreeMap::new(), notifier: Notifier::default() };
        let (count, early) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { peer, link, words, count, early, ledger: Mutex::new(ledger) })
    }

    /// Goes on at a later position of an empty ring.
    #[cfg(test)]
    pub(super) fn start_at(&self, position: Position) {
        self.words.word(Word::Tail).store(position.get(), Relaxed);
    }

    /// A panic of another thread cannot leave the ledger half-changed: nothing in its critical sections panics.
    fn ledger(&self) -> MutexGuard<'_, Pending> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for who lets go of a payload. `None` in a fork that has not used the channel, if another thread was in the ledger
    /// when it was forked: nobody there ever leaves it.
    fn ledger_for_a_note(&self) -> Option<MutexGuard<'_, Pending>> {
        if self.link.is_ours() { Some(self.ledger()) } else { lock_unless_lost(&self.ledger) }
    }

    /// Gives the space of `records` records, one behind the other, or of padding, back to the peer, as soon as all older ones
    /// are given back too. A fork that has not used the channel only makes a note of it.
    #[inline]
    pub(crate) fn release(&self, span: Span, records: u64) {
        self.release_all(span.start, span.end, records);
    }

    /// Releases what is between two positions. They are passed in registers, and this is not inlined: a payload that is
    /// dropped stays in registers too.
    #[inline(never)]
    fn release_all(&self, start: Position, end: Position, records: u64) {
        // ORDERING: Acquire pairs with the Release store in `move_tail`: the reading of those who moved it before is done
        // before we move it on, and so is their count.
        if !self.link.is_ours_at_a_glance() || self.words.word(Word::Tail).load(Acquire) != start.get() {
            return self.release_out_of_order(start, end, records);
        }
        self.move_tail(end, records);
        // ORDERING: pairs with the fence in `release_out_of_order`, and in `SleepWord::rearm`: a thread that releases early sees our `tail`, or
        // we see it; and so does a peer that is about to sleep.
        fence(SeqCst);
        if self.early.load(Relaxed) > 0 || self.is_needed(end) {
            self.release_pending(&mut self.ledger());
        }
    }

    /// Moves `tail` from the beginning of `records` records to their end. For who releases what begins there.
    #[inline]
    fn move_tail(&self, end: Position, records: u64) {
        self.count.store(self.count.load(Relaxed).wrapping_add(records), Relaxed);
        // ORDERING: Release pairs with the Acquire fence in `Producer::refresh_tail`: our reads of these bytes are done before
        // the peer writes there again.
        self.words.word(Word::Tail).store(end.get(), Release);
    }

    #[cold]
    fn release_out_of_order(&self, start: Position, end: Position, records: u64) {
        let Some(mut ledger) = self.ledger_for_a_note() else { return };
        ledger.note(start, end, records);
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        // ORDERING: pairs with the fence in `release`: who has moved `tail` to where we begin sees that we are early, or we
        // see that we are not.
        fence(SeqCst);
        if self.link.is_ours() && ledger.early.contains_key(&self.tail()) {
            self.release_pending(&mut ledger);
        }
    }

    /// This process uses the channel, and gives back the space of payloads that it dropped before that. An error if it is
    /// closed here.
    pub(crate) fn take_over(&self) -> Result<()> {
        self.link.check()?;
        if self.early.load(Relaxed) > 0 {
            let mut ledger = self.ledger();
            if ledger.early.contains_key(&self.tail()) {
                self.release_pending(&mut ledger);
            }
        }
        Ok(())
    }

    /// Moves `tail` on, as far as what comes next was released early, and wakes the peer if it waits.
    #[cold]
    fn release_pending(&self, ledger: &mut Pending) {
        // ORDERING: as in `release`.
        let tail = || Position::new(self.words.word(Word::Tail).load(Acquire));
        while let Some((end, records)) = ledger.early.remove(&tail()) {
            self.move_tail(end, records);
        }
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        // After the last move: only all of it may be what the peer needs.
        self.notify(ledger, Some(self.tail().get()));
    }

    /// Wakes the peer's sender, if it sleeps, and if what is `released` is what it needs.
    fn notify(&self, ledger: &mut Pending, released: Option<u64>) {
        let sender =
            PeerHalf { region: &self.peer, word: Word::SenderEpoch, socket: &self.link.space_tx, released };
        // If the peer is gone there is nobody to tell.
        let _ = ledger.notifier.notify(&sender);
    }

    /// Tells a peer whose sender waits that there is room in the socket.
    pub(crate) fn notify_space(&self) {
        // ORDERING: pairs with the fence in `SleepWord::rearm`: we see the odd epoch, or its owner's next attempt finds the room
        // that our reading made. The bell, which only one thread may ring, has a fence of its own.
        fence(SeqCst);
        // Whatever the sender needs of the ring: it may wait for the socket.
        if self.needed().is_some() {
            self.notify(&mut self.ledger(), None);
        }
    }

    /// The `tail` that the peer's sender waits for, if it waits, as far as one can see: it may not yet, or not any more.
    ///
    /// UNTRUSTED: it is only compared.
    #[inline]
    pub(crate) fn needed(&self) -> Option<Position> {
        let waits = self.peer.load(Word::SenderEpoch) & 1 == 1;
        waits.then(|| Position::new(self.peer.load(Word::SenderNeeds)))
    }

    /// Whether the peer's sender waits for no more than what is released up to `end`.
    #[inline]
    pub(crate) fn is_needed(&self, end: Position) -> bool {
        self.needed().is_some_and(|needs| needs <= end)
    }

    /// Records and bytes released so far.
    pub(crate) fn released(&self) -> (u64, u64) {
        let ledger = self.ledger();
        let so_far = (self.count.load(Relaxed), self.tail().get());
        ledger.early.iter().fold(so_far, |(count, bytes), (start, (end, records))| {
            (count.wrapping_add(*records), bytes.wrapping_add(end.since(*start)))
        })
    }

    /// End of the oldest space that was given back.
    #[inline]
    pub(crate) fn tail(&self) -> Position {
        Position::new(self.words.word(Word::Tail).load(Relaxed))
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
        // In every order.
        for order in (0..256_usize).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]) {
            if (0..4).any(|n| !order.contains(&n)) {
                continue;
            }
            let mut ledger = Pending { early: BTreeMap::new(), notifier: Notifier::default() };
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
