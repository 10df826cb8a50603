//! The peer's ring, read: records come out in order, their bytes are released in any order, by any thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            Ordering::{Acquire, Relaxed, Release},
            fence,
        },
    },
};

use crate::{
    doorbell::Bell,
    error::ProtocolError,
    layout::{LINE, Word, padded, record_size, to_u64, to_usize},
    link::Link,
    raw::{
        foreign::Foreign,
        mapping::{OwnWords, PeerRegion},
    },
    wire::{Record, RecordHeader},
};

/// The part that payloads share with the receiver: the peer's ring, and what of it has been released.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) peer: PeerRegion,
    pub(crate) link: Arc<Link>,
    words: OwnWords,
    ledger: Mutex<Ledger>,
}

/// What has been released. Everything that depends on its order happens under its lock: the `tail` word never goes
/// backwards, and an epoch is rung once.
#[derive(Debug)]
struct Ledger {
    /// Always in sync with the word.
    tail: u64,
    /// Records released before an older one: start to end.
    early: BTreeMap<u64, u64>,
    /// Records and their bytes, released.
    count: u64,
    bytes: u64,
    bell: Bell,
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
        let bell = Bell::new(Word::SenderEpoch);
        let ledger = Ledger { tail: 0, early: BTreeMap::new(), count: 0, bytes: 0, bell };
        Arc::new(Self { peer, link, words, ledger: Mutex::new(ledger) })
    }

    /// A panic of another thread cannot leave the ledger half-changed: nothing in its critical sections panics.
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the space of `records` records, one behind the other, or of padding, back to the peer, as soon as all older ones are given
    /// back too.
    pub(crate) fn release(&self, span: Span, records: u64) {
        let mut ledger = self.ledger();
        ledger.count = ledger.count.wrapping_add(records);
        ledger.bytes = ledger.bytes.wrapping_add(span.len());
        if span.start != ledger.tail {
            ledger.early.insert(span.start, span.end);
            return;
        }
        let mut tail = span.end;
        if !ledger.early.is_empty() {
            while let Some(end) = ledger.early.remove(&tail) {
                tail = end;
            }
        }
        ledger.tail = tail;
        // ORDERING: Release pairs with the Acquire fence in `Producer::look`: our reads of these bytes are done before
        // the peer writes there again.
        self.words.word(Word::Tail).store(tail, Release);
        // If the peer is gone there is nobody to tell.
        let _ = ledger.bell.ring(&self.peer, &self.link.credit_out);
    }

    /// Tells a peer whose sender waits that there is room in the socket.
    pub(crate) fn announce_room(&self) {
        let _ = self.ledger().bell.ring(&self.peer, &self.link.credit_out);
    }

    /// Whether the peer's sender waits for room, as far as one can see: it may not yet, or not any more.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.peer.load(Word::SenderEpoch) & 1 == 1
    }

    /// Records and bytes released so far.
    pub(crate) fn released(&self) -> (u64, u64) {
        let ledger = self.ledger();
        (ledger.count, ledger.bytes)
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

/// The receiver's place in the peer's ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    intake: Arc<Intake>,
    /// Where the next record begins.
    position: u64,
    /// May be stale, that is, too low.
    head: u64,
    /// The header at `position`, read once and checked.
    next: Option<Record>,
    /// Records taken.
    taken: u64,
}

impl Consumer {
    pub(crate) fn new(intake: Arc<Intake>) -> Self {
        Self { intake, position: 0, head: 0, next: None, taken: 0 }
    }

    #[inline]
    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Whether something was published since the last look.
    pub(crate) fn head_moved(&self) -> bool {
        self.intake.peer.load(Word::Head) != self.head
    }

    /// The next record, if it has been published.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<&Record>, ProtocolError> {
        if self.next.is_none() {
            if self.position == self.head {
                self.look()?;
                if self.position == self.head {
                    return Ok(None);
                }
            }
            self.next = Some(match self.read() {
                Ok(record) => record,
                Err(violation) => self.skip(violation)?,
            });
        }
        Ok(self.next.as_ref())
    }

    /// What [`peek`](Self::peek) gave.
    #[inline]
    pub(crate) fn next(&self) -> Option<Record> {
        self.next
    }

    /// UNTRUSTED: the peer's `head` may only grow, and not past a ring's length from what we have released.
    #[inline]
    fn look(&mut self) -> Result<(), ProtocolError> {
        let head = self.intake.peer.load(Word::Head);
        // ORDERING: pairs with the Release store in `Producer::publish`: the record is there if the head says so.
        fence(Acquire);
        let tail = self.intake.tail();
        let limit = tail.wrapping_add(to_u64(self.intake.peer.capacity()));
        if head.wrapping_sub(self.head) > limit.wrapping_sub(self.head) {
            return Err(ProtocolError::Head { from: self.head, limit, found: head });
        }
        if !head.is_multiple_of(LINE) {
            return Err(ProtocolError::Misaligned { found: head });
        }
        self.head = head;
        Ok(())
    }

    /// UNTRUSTED: the header is copied out once; then its lengths must fit between here and `head`, before and after they
    /// are rounded up.
    #[inline]
    fn read(&self) -> Result<Record, ProtocolError> {
        let available = self.head.wrapping_sub(self.position);
        // The payload is looked at next, as a rule: its line comes together with the header's.
        self.intake.peer.expect_read(self.position.wrapping_add(LINE));
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
        self.intake.peer.bytes(self.position, to_usize(LINE)).and_then(|at| at.load(0))
    }

    /// Releases the padding that stands here, and reads the record behind it. `violation` is what it is if it is none.
    ///
    /// UNTRUSTED: its header is copied out once more, and all of it judged. Padding must end where the ring does, and a record
    /// must follow before `head`, so that a peer cannot keep us busy with nothing.
    #[cold]
    fn skip(&mut self, violation: ProtocolError) -> Result<Record, ProtocolError> {
        let Some(header) = self.header().filter(RecordHeader::is_padding) else {
            return Err(violation);
        };
        let (start, available) = (self.position, self.head.wrapping_sub(self.position));
        let capacity = to_u64(self.intake.peer.capacity());
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
        self.read()
    }

    /// The control bytes that ride behind the payload of `record`, which [`peek`](Self::peek) gave.
    pub(crate) fn control(&self, record: &Record) -> Foreign<'_> {
        let start =
            padded(record.payload_len).map(|payload| self.position.wrapping_add(LINE).wrapping_add(payload));
        start
            .and_then(|start| self.intake.peer.bytes(start, to_usize(record.control_len.into())))
            .unwrap_or(Foreign::private(&[]))
    }

    /// Moves past `record`, which [`peek`](Self::peek) gave. Its space is held until the span is released.
    #[inline]
    pub(crate) fn take(&mut self, record: &Record) -> Span {
        let start = self.position;
        // `read` has seen that it does not overflow.
        let size = record_size(record.payload_len, record.control_len.into()).unwrap_or(0);
        self.position = start.wrapping_add(size);
        self.next = None;
        self.taken = self.taken.wrapping_add(1);
        if self.position != self.head {
            self.intake.peer.expect_read(self.position);
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
    use crate::{region, socket::Socket, wire::Heading};

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
        let mut own = region::OwnRegion::create(4096, true, false).unwrap();
        let mut consumer = consumer(&own);
        let record =
            |payload_len| Record { heading: Heading::new(0, false, None), payload_len, control_len: 3 };
        assert!(own.ring.put(0, RecordHeader::new(record(64))));
        assert!(own.ring.write(2 * LINE, b"abc"));
        own.words.word(Word::Head).store(3 * LINE, Release);
        assert_eq!(consumer.peek(), Ok(Some(&record(64))));
        // From now on it is too long.
        assert!(own.ring.put(0, RecordHeader::new(record(u64::MAX))));
        assert_eq!(consumer.next(), Some(record(64)));
        assert_eq!(consumer.peek(), Ok(Some(&record(64))));
        assert_eq!(consumer.control(&record(64)).to_vec::<u8>().unwrap(), b"abc");
        assert_eq!(consumer.take(&record(64)), Span { start: 0, end: 3 * LINE });
        assert_eq!(consumer.peek(), Ok(None));
    }

    #[test]
    fn space_is_given_back_once_all_before_it_is() {
        let mut own = region::OwnRegion::create(4096, true, false).unwrap();
        let mut consumer = consumer(&own);
        let record = Record { heading: Heading::new(0, false, None), payload_len: 64, control_len: 0 };
        for n in 0..4 {
            assert!(own.ring.put(n * 2 * LINE, RecordHeader::new(record)));
        }
        assert!(!consumer.head_moved());
        own.words.word(Word::Head).store(8 * LINE, Release);
        assert!(consumer.head_moved());
        let spans = [(); 4].map(|()| {
            assert_eq!(consumer.peek(), Ok(Some(&record)));
            assert!(!consumer.head_moved(), "it has been seen");
            consumer.take(&record)
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
    fn a_record_ends_at_the_head_at_the_latest() {
        let mut own = region::OwnRegion::create(4096, true, false).unwrap();
        let mut consumer = consumer(&own);
        let record =
            |control_len| Record { heading: Heading::new(0, false, None), payload_len: 64, control_len };
        own.words.word(Word::Head).store(3 * LINE, Release);
        assert!(own.ring.put(0, RecordHeader::new(record(65))));
        let too_long = ProtocolError::RecordLength { available: 3 * LINE, payload: 64, control: 65 };
        assert_eq!(consumer.peek(), Err(too_long));
        assert!(own.ring.put(0, RecordHeader::new(record(64))));
        assert_eq!(consumer.peek(), Ok(Some(&record(64))));
    }
}
