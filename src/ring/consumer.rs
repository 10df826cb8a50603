//! The peer's ring, read: records come out in order, their bytes are released in any order, by any thread.

use std::{
    collections::BTreeMap,
    hint::spin_loop,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant},
};

use crate::{
    error::{ProtocolError, Result},
    protocol::{
        layout::{LINE, Word, padded, record_size, to_u64, to_usize},
        packet::{Record, RecordHeader},
    },
    socket::{doorbell::PeerHalf, link::Link},
    sys::{
        foreign::Foreign,
        mapping::{OwnWords, PeerRegion},
    },
    wait::{Backoff, Deadline, Notifier, lock_unless_lost},
};

/// The peer's lead, in bytes, at which its writing and our reading do not meet; but no more than this part of the ring. With
/// 64 KiB, payloads of 4 KiB are a fifth slower; with 1 MiB they are no faster.
const LEAD: u64 = 256 << 10;
const PART: u64 = 4;
/// A peer that goes on writes a byte a nanosecond. It is judged after so long, in which a message of 4 KiB comes even if the
/// two were close.
const JUDGED: Duration = Duration::from_nanos(700);
/// A peer that goes on is never still for so long: a message of 64 KiB takes less.
const STILL: Duration = Duration::from_micros(2);
/// The longest rest: what lead there is by then has to do. 256 KiB take some 8 µs.
const MOST: Duration = Duration::from_micros(10);
/// Pauses between two looks.
const PAUSES: u32 = 16;
/// Looks that find little after a rest in vain, at least and at most.
const SKIPPED: (u32, u32) = (8, 1024);

/// The part that payloads share with the receiver: the peer's ring, and what of it has been released.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) peer: PeerRegion,
    pub(crate) link: Arc<Link>,
    /// The `tail` word is moved by who releases the record that begins there, so by one thread at a time.
    words: OwnWords,
    /// Records before `tail`; written by who moves that.
    count: AtomicU64,
    /// How many entries of the ledger are early; written under its lock.
    early: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What happens under a lock: an epoch is rung once, and one thread moves `tail` past what was released early.
#[derive(Debug)]
struct Ledger {
    /// Released before an older one: where it begins; its end, and how many records it is. Those that touch are one, so there
    /// are no more entries than payloads that are held.
    early: BTreeMap<u64, (u64, u64)>,
    notifier: Notifier,
}

impl Ledger {
    /// Notes `records` records that are released early, together with those that they touch. Where all that begins.
    fn note(&mut self, span: Span, records: u64) -> u64 {
        let Span { mut start, end } = span;
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

/// Bytes of the ring: a record from `start` to `end`, both positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    /// Bytes.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        self.end.wrapping_sub(self.start)
    }
}

impl Intake {
    pub(crate) fn new(peer: PeerRegion, link: Arc<Link>, words: OwnWords) -> Arc<Self> {
        let ledger = Ledger { early: BTreeMap::new(), notifier: Notifier::default() };
        let (count, early) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { peer, link, words, count, early, ledger: Mutex::new(ledger) })
    }

    /// A panic of another thread cannot leave the ledger half-changed: nothing in its critical sections panics.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for who lets go of a payload. `None` in a fork that has not used the channel, if another thread was in the ledger
    /// when it was forked: nobody there ever leaves it.
    fn ledger_for_a_note(&self) -> Option<MutexGuard<'_, Ledger>> {
        if self.link.is_ours() { Some(self.ledger()) } else { lock_unless_lost(&self.ledger) }
    }

    /// Gives the space of `records` records, one behind the other, or of padding, back to the peer, as soon as all older ones
    /// are given back too. A fork that has not used the channel only makes a note of it. Not inlined: what drops a payload
    /// would not keep it in registers.
    #[inline(never)]
    pub(crate) fn release(&self, span: Span, records: u64) {
        // ORDERING: Acquire pairs with the Release store in `move_tail`: the reading of those who moved it before is done
        // before we move it on, and so is their count.
        if !self.link.is_ours_at_a_glance() || self.words.word(Word::Tail).load(Acquire) != span.start {
            return self.release_early(span, records);
        }
        self.move_tail(span.end, records);
        // ORDERING: pairs with the fence in `release_early`, and in `SleepWord::rearm`: who releases early sees our `tail`, or
        // we see it; and so does a peer that is about to sleep.
        fence(SeqCst);
        if self.early.load(Relaxed) > 0 || self.is_wanted() {
            self.settle(&mut self.ledger());
        }
    }

    /// Moves `tail` from the beginning of `records` records to their end. For who releases what begins there.
    #[inline]
    fn move_tail(&self, end: u64, records: u64) {
        self.count.store(self.count.load(Relaxed).wrapping_add(records), Relaxed);
        // ORDERING: Release pairs with the Acquire fence in `Producer::look`: our reads of these bytes are done before
        // the peer writes there again.
        self.words.word(Word::Tail).store(end, Release);
    }

    #[cold]
    fn release_early(&self, span: Span, records: u64) {
        let Some(mut ledger) = self.ledger_for_a_note() else { return };
        ledger.note(span, records);
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        // ORDERING: pairs with the fence in `release`: who has moved `tail` to where we begin sees that we are early, or we
        // see that we are not.
        fence(SeqCst);
        if self.link.is_ours() && ledger.early.contains_key(&self.tail()) {
            self.settle(&mut ledger);
        }
    }

    /// This process uses the channel, and gives back the space of payloads that it dropped before that. An error if it is
    /// closed here.
    pub(crate) fn take_over(&self) -> Result<()> {
        self.link.check()?;
        if self.early.load(Relaxed) > 0 {
            let mut ledger = self.ledger();
            if ledger.early.contains_key(&self.tail()) {
                self.settle(&mut ledger);
            }
        }
        Ok(())
    }

    /// Moves `tail` on, as far as what comes next was released early, and wakes the peer if it waits.
    #[cold]
    fn settle(&self, ledger: &mut Ledger) {
        // ORDERING: as in `release`.
        while let Some((end, records)) = ledger.early.remove(&self.words.word(Word::Tail).load(Acquire)) {
            self.move_tail(end, records);
        }
        self.early.store(to_u64(ledger.early.len()), Relaxed);
        self.notify(ledger);
    }

    /// Wakes the peer's sender, if it sleeps.
    fn notify(&self, ledger: &mut Ledger) {
        let sender = PeerHalf { region: &self.peer, word: Word::SenderEpoch, socket: &self.link.credit_out };
        // If the peer is gone there is nobody to tell.
        let _ = ledger.notifier.notify(&sender);
    }

    /// Tells a peer whose sender waits that there is room in the socket.
    pub(crate) fn announce_room(&self) {
        // ORDERING: pairs with the fence in `SleepWord::rearm`: we see the odd epoch, or its owner's next attempt finds the room
        // that our reading made. The bell, which only one thread may ring, has a fence of its own.
        fence(SeqCst);
        if self.is_wanted() {
            self.notify(&mut self.ledger());
        }
    }

    /// Whether the peer's sender waits for room, as far as one can see: it may not yet, or not any more.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.peer.load(Word::SenderEpoch) & 1 == 1
    }

    /// Records and bytes released so far.
    pub(crate) fn released(&self) -> (u64, u64) {
        let ledger = self.ledger();
        let so_far = (self.count.load(Relaxed), self.tail());
        ledger.early.iter().fold(so_far, |(count, bytes), (start, (end, records))| {
            (count.wrapping_add(*records), bytes.wrapping_add(end.wrapping_sub(*start)))
        })
    }

    /// End of the oldest space that was given back.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.words.word(Word::Tail).load(Relaxed)
    }

    /// The payload of a record.
    #[inline]
    pub(crate) fn payload(&self, span: Span, len: usize) -> Foreign<'_> {
        self.peer.bytes(span.start.wrapping_add(LINE), len).unwrap_or(Foreign::private(&[]))
    }
}

/// How close we read behind what the peer writes.
///
/// Who reads close behind a peer that goes on takes away the lines that it is about to write: the processor fetches some
/// ahead of what it is asked for, and each look fetches the line of `head`. What was written a moment ago comes from the
/// peer's own cache, besides, and not from the one that we share. Both sides have a fraction of the speed then that they have
/// at a distance, and stay close for that. So we rest now and then until the peer has a lead; and seldom if that turns out to
/// be in vain, as it is where all that is small comes one by one.
#[derive(Debug)]
struct Pace {
    /// The lead that is enough, in bytes.
    lead: u64,
    /// It is time to rest, when all that the last look found is read: it was little.
    close: bool,
    /// To rest. Each look that finds little is an occasion.
    attempts: Backoff,
}

impl Pace {
    /// For a ring of so many bytes.
    fn new(capacity: usize) -> Self {
        let lead = LEAD.min(to_u64(capacity) / PART);
        Self { lead, close: false, attempts: Backoff::new(SKIPPED).delayed() }
    }

    /// A look has found so many bytes, and at least some.
    #[inline]
    fn found(&mut self, bytes: u64) {
        self.close = bytes < self.lead && self.attempts.should_try();
    }

    /// We have rested; it `paid` if the peer went on.
    fn rested(&mut self, paid: Option<bool>) {
        self.close = false;
        match paid {
            Some(true) => self.attempts.succeeded(),
            Some(false) => self.attempts.failed(),
            None => {}
        }
    }
}

/// The receiver's place in the peer's ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    intake: Arc<Intake>,
    /// As the intake has it, one step nearer.
    peer: PeerRegion,
    /// Where the next record begins.
    position: u64,
    /// May be stale, that is, too low.
    head: u64,
    pace: Pace,
    /// Records taken.
    taken: u64,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
impl Consumer {
    pub(crate) fn new(intake: Arc<Intake>) -> Self {
        let pace = Pace::new(intake.peer.capacity());
        Self { peer: intake.peer.clone(), intake, position: 0, head: 0, pace, taken: 0 }
    }

    #[inline]
    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Whether something was published since the last look. Then its lines are asked for: who waited for it takes them next.
    pub(crate) fn head_moved(&self) -> bool {
        let moved = self.peer.load(Word::Head) != self.head;
        if moved {
            self.peer.expect_read(self.position);
            self.peer.expect_read(self.position.wrapping_add(LINE));
        }
        moved
    }

    /// How many sequenced packets the peer says that it has sent.
    pub(crate) fn packets(&self) -> u64 {
        self.peer.load(Word::Packets)
    }

    /// The next record, if it has been published and there is nothing wrong: else [`peek`](Self::peek) tells. What comes out
    /// fits into registers.
    #[inline(always)]
    pub(crate) fn ready(&mut self) -> Option<Record> {
        if self.sees_more().ok()? { self.read().ok() } else { None }
    }

    /// Whether padding stands here: then it is passed, and there is more to see.
    #[cold]
    pub(crate) fn passes_padding(&mut self) -> bool {
        self.pass_padding(ProtocolError::RecordReserved).is_ok()
    }

    /// The next record, if it has been published.
    pub(crate) fn peek(&mut self) -> Result<Option<Record>, ProtocolError> {
        if !self.sees_more()? {
            return Ok(None);
        }
        loop {
            match self.read() {
                Ok(record) => return Ok(Some(record)),
                Err(violation) => self.pass_padding(violation)?,
            }
        }
    }

    /// Whether there is something from here on; looks at the peer's `head` only if it seems not.
    #[inline(always)]
    fn sees_more(&mut self) -> Result<bool, ProtocolError> {
        if self.position == self.head {
            self.look()?;
        }
        Ok(self.position != self.head)
    }

    /// UNTRUSTED: the peer's `head` may only grow, and not past a ring's length from what we have released.
    #[inline(always)]
    fn look(&mut self) -> Result<(), ProtocolError> {
        let head = self.peer.load(Word::Head);
        if head == self.head {
            return Ok(());
        }
        // ORDERING: pairs with the Release store in `Producer::publish`: the record is there if the head says so.
        fence(Acquire);
        let tail = self.intake.tail();
        let limit = tail.wrapping_add(to_u64(self.peer.capacity()));
        if head.wrapping_sub(self.head) > limit.wrapping_sub(self.head) {
            return Err(ProtocolError::Head { from: self.head, limit, found: head });
        }
        if !head.is_multiple_of(LINE) {
            return Err(ProtocolError::Misaligned { found: head });
        }
        self.pace.found(head.wrapping_sub(self.head));
        self.head = head;
        Ok(())
    }

    /// Whether we have read all that we know of, [close](Pace) behind a peer that seems to go on.
    #[inline]
    pub(crate) fn is_close(&self) -> bool {
        self.pace.close && self.position == self.head
    }

    /// Waits a moment, 10 µs at most, for as long as the peer goes on, until it has a lead.
    #[cold]
    pub(crate) fn let_more_be_published(&mut self, deadline: Deadline) {
        let paid = self.rest(deadline);
        self.pace.rested(paid);
    }

    /// Rests, and says whether the peer went on, if that can be told.
    fn rest(&self, deadline: Deadline) -> Option<bool> {
        let (start, began) = (self.peer.load(Word::Head), Instant::now());
        let (mut head, mut moved) = (start, Duration::ZERO);
        while head.wrapping_sub(self.head) < self.pace.lead {
            if deadline.passed() {
                return None;
            }
            for _ in 0..PAUSES {
                spin_loop();
            }
            let before = std::mem::replace(&mut head, self.peer.load(Word::Head));
            let rested = began.elapsed();
            if head != before {
                moved = rested;
            }
            let is_slow = rested >= JUDGED && u128::from(head.wrapping_sub(start)) < rested.as_nanos();
            if is_slow || rested.saturating_sub(moved) >= STILL {
                return Some(false);
            }
            if rested >= MOST {
                break;
            }
        }
        (head != start).then_some(true)
    }

    /// UNTRUSTED: the header is copied out once; then its lengths must fit between here and `head`, before and after they
    /// are rounded up.
    #[inline(always)]
    fn read(&self) -> Result<Record, ProtocolError> {
        let available = self.head.wrapping_sub(self.position);
        // The payload is looked at next, as a rule: its line comes together with the header's.
        self.peer.expect_read(self.position.wrapping_add(LINE));
        // The head is a whole line ahead, and no ring is shorter than that.
        let Some(header) = self.header() else {
            return Err(ProtocolError::Misaligned { found: self.head });
        };
        let record = header.check()?;
        let (payload, control) = (record.payload_len, u64::from(record.control_len));
        match record_size(payload, control) {
            Some(size) if size <= available => Ok(record),
            _ => Err(ProtocolError::RecordLength { available, payload, control }),
        }
    }

    #[inline]
    fn header(&self) -> Option<RecordHeader> {
        self.peer.bytes(self.position, to_usize(LINE)).and_then(|at| at.load(0))
    }

    /// Releases the padding that stands here, so that the record behind it is next. `violation` is what it is if it is none.
    ///
    /// UNTRUSTED: its header is copied out once more, and all of it judged. Padding must end where the ring does, and a record
    /// must follow before `head`: so a peer cannot keep us busy with nothing, and what follows is no padding.
    #[cold]
    fn pass_padding(&mut self, violation: ProtocolError) -> Result<(), ProtocolError> {
        let Some(header) = self.header().filter(RecordHeader::is_padding) else {
            return Err(violation);
        };
        let (start, available) = (self.position, self.head.wrapping_sub(self.position));
        let capacity = to_u64(self.peer.capacity());
        let rest = capacity.wrapping_sub(start & capacity.wrapping_sub(1));
        let (expected, found) = (rest.wrapping_sub(LINE), header.check_padding()?);
        if found != expected {
            return Err(ProtocolError::Padding { expected, found });
        }
        if rest >= available {
            return Err(ProtocolError::RecordLength { available, payload: found, control: 0 });
        }
        self.position = start.wrapping_add(rest);
        self.intake.release(Span { start, end: self.position }, 0);
        Ok(())
    }

    /// The control bytes that ride behind the payload of the record whose lengths are these.
    pub(crate) fn control(&self, payload_len: u64, control_len: u32) -> Foreign<'_> {
        let start = padded(payload_len).map(|payload| self.position.wrapping_add(LINE).wrapping_add(payload));
        start
            .and_then(|start| self.peer.bytes(start, to_usize(control_len.into())))
            .unwrap_or(Foreign::private(&[]))
    }

    /// Moves past `record`, which [`peek`](Self::peek) gave. Its space is held until the span is released.
    #[inline]
    pub(crate) fn take(&mut self, record: Record) -> Span {
        let start = self.position;
        // `read` has seen that it does not overflow.
        let size = record_size(record.payload_len, record.control_len.into()).unwrap_or(0);
        self.position = start.wrapping_add(size);
        self.taken = self.taken.wrapping_add(1);
        if self.position != self.head {
            self.peer.expect_read(self.position);
        }
        Span { start, end: self.position }
    }

    /// Records taken and not released, and their bytes.
    pub(crate) fn held(&self) -> (u64, u64) {
        let (count, bytes) = self.intake.released();
        (self.taken.wrapping_sub(count), self.position.wrapping_sub(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{memory::region, protocol::packet::Heading, socket::seqpacket::Socket};

    /// A consumer of our own ring, as if we were our own peer.
    fn consumer(own: &region::OwnRegion) -> Consumer {
        let peer = region::adopt(own.memfd.as_fd(), own.geometry, true).unwrap();
        let [a, b, c] = [(); 3].map(|()| Socket::adopt(Socket::pair().unwrap().0));
        // The other ends are closed, so nobody is told of anything.
        let link = Link::new(1, a.unwrap(), b.unwrap(), c.unwrap());
        Consumer::new(Intake::new(peer, Arc::new(link), own.words.clone()))
    }

    #[test]
    fn a_header_is_read_once() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let record =
            |payload_len| Record { heading: Heading::new(0, false, None), payload_len, control_len: 3 };
        assert!(own.ring.put(0, RecordHeader::new(record(64))));
        assert!(own.ring.write(2 * LINE, b"abc"));
        own.words.word(Word::Head).store(3 * LINE, Release);
        assert_eq!(consumer.peek(), Ok(Some(record(64))));
        let checked = consumer.ready().unwrap();
        assert_eq!(checked, record(64));
        // From now on it is too long. What was checked is not: the header is not looked at again.
        assert!(own.ring.put(0, RecordHeader::new(record(u64::MAX))));
        assert_eq!(consumer.ready(), None);
        consumer.peek().unwrap_err();
        let control = consumer.control(checked.payload_len, checked.control_len);
        assert_eq!(control.to_vec::<u8>().unwrap(), b"abc");
        assert_eq!(consumer.take(checked), Span { start: 0, end: 3 * LINE });
        assert_eq!(consumer.peek(), Ok(None));
    }

    #[test]
    fn who_reads_close_behind_rests_unless_it_is_in_vain() {
        let mut pace = Pace::new(1 << 20);
        let looks = |pace: &mut Pace, found: &[u64]| {
            for bytes in found {
                pace.found(*bytes);
            }
            pace.close
        };
        assert!(!looks(&mut pace, &[LEAD; 100]), "what is much is not close");
        assert!(!looks(&mut Pace::new(4096), &[1024; 100]), "a quarter of a small ring is much");
        assert!(!looks(&mut pace, &[128; 8]), "it may be a few only");
        assert!(looks(&mut pace, &[128]));
        pace.rested(Some(true));
        assert!(!pace.close);
        assert!(looks(&mut pace, &[LEAD - 64]), "it pays");
        // In vain: ever more looks go by.
        for skip in [8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            pace.rested(Some(false));
            assert!(!looks(&mut pace, &vec![128; skip]));
            assert!(looks(&mut pace, &[128]), "{skip}");
        }
        pace.rested(Some(true));
        pace.rested(Some(false));
        assert!(!looks(&mut pace, &[128; 8]) && looks(&mut pace, &[128]), "it has paid meanwhile");
    }

    #[test]
    fn rest_ends_when_the_peer_has_a_lead_or_does_not_go_on() {
        let mut own = region::OwnRegion::create(16 << 10, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let enough = own.geometry.capacity / 4 / to_usize(LINE);
        let mut head = 0;
        let mut publish = |consumer: &mut Consumer, records: u64| {
            for _ in 0..records {
                let heading = Heading::new(0, false, None);
                assert!(
                    own.ring.put(head, RecordHeader::new(Record { heading, payload_len: 0, control_len: 0 }))
                );
                head += LINE;
            }
            own.words.word(Word::Head).store(head, Release);
            own.words.word(Word::Tail).store(consumer.position, Release);
        };
        let take_all = |consumer: &mut Consumer| {
            while let Some(record) = consumer.ready() {
                consumer.take(record);
                if consumer.position == consumer.head {
                    break;
                }
            }
        };
        for _ in 0..8 {
            publish(&mut consumer, 1);
            take_all(&mut consumer);
        }
        assert!(!consumer.is_close(), "not yet");
        publish(&mut consumer, 1);
        take_all(&mut consumer);
        assert!(consumer.is_close());
        publish(&mut consumer, to_u64(enough));
        consumer.let_more_be_published(Deadline::Never);
        assert_eq!((consumer.is_close(), consumer.pace.attempts.skip), (false, 0), "there is a lead");
        take_all(&mut consumer);
        publish(&mut consumer, 1);
        take_all(&mut consumer);
        assert!(consumer.is_close());
        consumer.let_more_be_published(Deadline::after(Duration::ZERO));
        assert_eq!(
            (consumer.is_close(), consumer.pace.attempts.skip),
            (false, 0),
            "there is no time to rest"
        );
        publish(&mut consumer, 1);
        take_all(&mut consumer);
        assert!(consumer.is_close());
        consumer.let_more_be_published(Deadline::Never);
        assert_eq!((consumer.is_close(), consumer.pace.attempts.skip), (false, 8), "nobody goes on");
    }

    #[test]
    fn space_is_given_back_once_all_before_it_is() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let record = Record { heading: Heading::new(0, false, None), payload_len: 64, control_len: 0 };
        for n in 0..4 {
            assert!(own.ring.put(n * 2 * LINE, RecordHeader::new(record)));
        }
        assert!(!consumer.head_moved());
        own.words.word(Word::Head).store(8 * LINE, Release);
        assert!(consumer.head_moved());
        let spans = [(); 4].map(|()| {
            assert_eq!(consumer.peek(), Ok(Some(record)));
            assert!(!consumer.head_moved(), "it has been seen");
            consumer.take(record)
        });
        let intake = Arc::clone(consumer.intake());
        let mut release = |n: usize| {
            intake.release(spans[n], 1);
            (intake.tail() / LINE, consumer.held().0)
        };
        assert_eq!([2, 1, 0, 3].map(&mut release), [(0, 3), (0, 2), (6, 1), (8, 0)]);
        assert_eq!(consumer.held(), (0, 0));
    }

    #[test]
    fn spans_that_touch_are_one() {
        let span = |start: u64, end: u64| Span { start: start * LINE, end: end * LINE };
        let spans = [span(1, 2), span(2, 4), span(4, 5), span(5, 8)];
        // In every order.
        for order in (0..256_usize).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6]) {
            if (0..4).any(|n| !order.contains(&n)) {
                continue;
            }
            let mut ledger = Ledger { early: BTreeMap::new(), notifier: Notifier::default() };
            for (n, at) in order.into_iter().enumerate() {
                let start = ledger.note(spans[at], 1);
                let (end, _) = ledger.early[&start];
                assert!(start <= spans[at].start && end >= spans[at].end, "{order:?}");
                let all = ledger.early.iter().map(|(_, (_, records))| records).sum::<u64>();
                assert_eq!(all, n as u64 + 1, "{order:?}");
            }
            let whole = BTreeMap::from([(LINE, (8 * LINE, 4))]);
            assert_eq!(ledger.early, whole, "{order:?}");
        }
    }

    #[test]
    fn a_record_ends_at_the_head_at_the_latest() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let record =
            |control_len| Record { heading: Heading::new(0, false, None), payload_len: 64, control_len };
        own.words.word(Word::Head).store(3 * LINE, Release);
        assert!(own.ring.put(0, RecordHeader::new(record(65))));
        let too_long = ProtocolError::RecordLength { available: 3 * LINE, payload: 64, control: 65 };
        assert_eq!(consumer.peek(), Err(too_long));
        assert!(own.ring.put(0, RecordHeader::new(record(64))));
        assert_eq!(consumer.peek(), Ok(Some(record(64))));
    }
}
