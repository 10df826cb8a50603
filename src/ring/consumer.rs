//! The peer's ring, read: records come out in order.
//!
//! Invariant: a record that comes out was compared with what is published and with the ring's end, after its header was
//! copied out once.

use std::sync::{
    Arc,
    atomic::{Ordering::Acquire, fence},
};

use crate::{
    error::ProtocolError,
    protocol::{
        layout::{CACHE_LINE, Position, Word, to_u64},
        record::Record,
    },
    ring::{
        cursor::Cursor,
        pacing::Pacer,
        release::{Releases, Span},
    },
    sys::foreign::VolatileBytes,
    wait::Deadline,
};

/// The receiver's place in the peer's ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    intake: Arc<Releases>,
    cursor: Cursor,
    pace: Pacer,
    /// Records taken.
    taken: u64,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
impl Consumer {
    pub(crate) fn new(intake: Arc<Releases>) -> Self {
        let pace = Pacer::new(intake.peer.capacity());
        Self { cursor: Cursor::new(intake.peer.clone(), Position::default()), intake, pace, taken: 0 }
    }

    /// Goes on at a later position of an empty ring.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, position: u64) {
        (self.cursor.position, self.cursor.head) = (Position::new(position), Position::new(position));
        self.intake.start_at(self.cursor.position);
    }

    #[inline]
    pub(crate) fn intake(&self) -> &Arc<Releases> {
        &self.intake
    }

    /// See [`Cursor::head_moved`].
    pub(crate) fn head_moved(&self) -> bool {
        self.cursor.head_moved()
    }

    /// The number of sequenced packets that the peer says that it has sent.
    pub(crate) fn packets(&self) -> u64 {
        self.cursor.peer.load(Word::Packets)
    }

    /// The next record, if it has been published and nothing is wrong: else [`next`](Self::next) says why. A record fits
    /// into registers.
    #[inline(always)]
    pub(crate) fn try_next(&mut self) -> Option<Record> {
        if self.has_more().ok()? { self.read().ok() } else { None }
    }

    /// Whether padding stands here: then it is passed, and a record follows.
    #[cold]
    pub(crate) fn passes_padding(&mut self) -> bool {
        self.cursor.available > 0 && self.pass_padding(ProtocolError::RecordReserved).is_ok()
    }

    /// The next record, if it has been published.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ProtocolError> {
        if !self.has_more()? {
            return Ok(None);
        }
        loop {
            match self.read() {
                Ok(record) => return Ok(Some(record)),
                Err(violation) => self.pass_padding(violation)?,
            }
        }
    }

    /// Whether a record, or padding, is published; looks at the peer's `head` only if it seems not.
    #[inline(always)]
    fn has_more(&mut self) -> Result<bool, ProtocolError> {
        if self.cursor.available == 0 {
            self.refresh_head()?;
        }
        Ok(self.cursor.available > 0)
    }

    /// Sees what the peer has published.
    ///
    /// UNTRUSTED: the peer's `head` may only grow, and not past a ring's length from what we have released.
    #[inline(always)]
    fn refresh_head(&mut self) -> Result<(), ProtocolError> {
        let found = self.cursor.peer.load(Word::Head);
        if found == self.cursor.head.get() && self.cursor.is_at_head() {
            return Ok(());
        }
        // ORDERING: pairs with the Release store in `Producer::publish`: the record is there if the head says so.
        fence(Acquire);
        let (head, from) = (Position::new(found), self.cursor.head);
        let limit = self.intake.tail().after(to_u64(self.cursor.peer.capacity()));
        if head < from || head > limit {
            return Err(ProtocolError::Head { from: from.get(), limit: limit.get(), found });
        }
        if !found.is_multiple_of(CACHE_LINE) {
            return Err(ProtocolError::Misaligned { found });
        }
        if head != from {
            self.pace.on_poll(head.since(from));
        }
        self.cursor.see(head);
        Ok(())
    }

    /// Whether we have read all that we know of, [close](Pacer) behind a peer that seems to go on.
    #[inline]
    pub(crate) fn is_close(&self) -> bool {
        self.pace.close && self.cursor.is_at_head()
    }

    /// Waits a moment, 10 µs at most, for as long as the peer goes on, until it has a lead.
    #[cold]
    pub(crate) fn back_off(&mut self, deadline: Deadline) {
        self.pace.rest(&self.cursor.peer, self.cursor.head, deadline);
    }

    /// Reads the next record's header.
    ///
    /// UNTRUSTED: the header is copied out once; then its lengths must fit into what is available.
    #[inline(always)]
    fn read(&self) -> Result<Record, ProtocolError> {
        // The payload is looked at next, as a rule: its line comes together with the header's.
        self.cursor.prefetch_payload();
        self.cursor.header()?.check(self.cursor.available)
    }

    /// Releases the padding that stands here, so that the record behind it is next. `violation` is the error if no padding
    /// stands here.
    ///
    /// UNTRUSTED: its header is copied out once more, and all of it judged.
    #[cold]
    fn pass_padding(&mut self, violation: ProtocolError) -> Result<(), ProtocolError> {
        let padding = self.cursor.check_padding(self.cursor.header()?, violation)?;
        self.cursor.pass(padding);
        self.intake.release(padding, 0);
        Ok(())
    }

    /// The control bytes that ride behind the payload of `record`, which [`next`](Self::next) gave.
    pub(crate) fn control(&self, record: Record) -> VolatileBytes<'_> {
        self.cursor.control(record)
    }

    /// Moves past `record`, which [`next`](Self::next) gave. Its space is held until the span is released.
    #[inline]
    pub(crate) fn advance(&mut self, record: Record) -> Span {
        self.taken = self.taken.wrapping_add(1);
        // `read` has compared the size with what is available.
        self.cursor.advance(record.size())
    }

    /// Whether the peer's sender waits for space that it had if all that was taken were released.
    pub(crate) fn holds_up_peer(&self) -> bool {
        self.intake.holds_up_peer(self.cursor.position)
    }

    /// Records taken and not released, and their bytes.
    pub(crate) fn held(&self) -> (u64, u64) {
        self.intake.held(self.taken, self.cursor.position)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, sync::atomic::Ordering::Release, time::Duration};

    use zerocopy::IntoBytes;

    use super::*;
    use crate::{
        memory::region,
        protocol::{
            layout::to_usize,
            record::{MessageHeader, RecordHeader},
        },
        socket::{link::Link, seqpacket::Socket},
    };

    fn record(payload_len: usize, control_len: usize) -> Record {
        Record::new(MessageHeader::new(0, false, None), payload_len).with_control(control_len).unwrap()
    }

    /// Writes a record's header.
    fn put(own: &mut region::OwnRegion, at: u64, header: RecordHeader) {
        assert!(own.ring.write(at, header.as_bytes()));
    }

    /// A consumer of our own ring, as if we were our own peer.
    fn consumer(own: &region::OwnRegion) -> Consumer {
        let peer = region::map_peer(own.memfd.as_fd(), own.geometry, true).unwrap();
        let [a, b, c] = [(); 3].map(|()| Socket::from_fd(Socket::pair().unwrap().0));
        // The other ends are closed, so nobody is told of anything.
        let link = Link::new(1, a.unwrap(), b.unwrap(), c.unwrap());
        Consumer::new(Releases::new(peer, Arc::new(link), own.words.clone()))
    }

    #[test]
    fn a_header_is_read_once() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let record = |payload_len| record(payload_len, 3);
        put(&mut own, 0, RecordHeader::new(record(64)));
        assert!(own.ring.write(2 * CACHE_LINE, b"abc"));
        own.words.word(Word::Head).store(3 * CACHE_LINE, Release);
        assert_eq!(consumer.next(), Ok(Some(record(64))));
        let checked = consumer.try_next().unwrap();
        assert_eq!(checked, record(64));
        // From now on it is too long. What was checked is not: the header is not looked at again.
        put(&mut own, 0, RecordHeader::new(record(usize::MAX)));
        assert_eq!(consumer.try_next(), None);
        consumer.next().unwrap_err();
        let control = consumer.control(checked);
        assert_eq!(control.to_vec::<u8>().unwrap(), b"abc");
        assert_eq!(
            consumer.advance(checked),
            Span { start: Position::new(0), end: Position::new(3 * CACHE_LINE), at: 0 }
        );
        assert_eq!(consumer.next(), Ok(None));
    }

    #[test]
    fn rest_ends_when_the_peer_has_a_lead_or_does_not_go_on() {
        let mut own = region::OwnRegion::create(16 << 10, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let enough = own.geometry.capacity / 4 / to_usize(CACHE_LINE);
        let mut head = 0;
        let mut publish = |consumer: &mut Consumer, records: u64| {
            for _ in 0..records {
                put(&mut own, head, RecordHeader::new(record(0, 0)));
                head += CACHE_LINE;
            }
            own.words.word(Word::Head).store(head, Release);
            own.words.word(Word::Tail).store(consumer.cursor.position.get(), Release);
        };
        let take_all = |consumer: &mut Consumer| {
            while let Some(record) = consumer.try_next() {
                consumer.advance(record);
                if consumer.cursor.is_at_head() {
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
        consumer.back_off(Deadline::Never);
        assert_eq!((consumer.is_close(), consumer.pace.attempts.skip), (false, 0), "there is a lead");
        take_all(&mut consumer);
        publish(&mut consumer, 1);
        take_all(&mut consumer);
        assert!(consumer.is_close());
        consumer.back_off(Deadline::after(Duration::ZERO));
        assert_eq!(
            (consumer.is_close(), consumer.pace.attempts.skip),
            (false, 0),
            "there is no time to rest"
        );
        publish(&mut consumer, 1);
        take_all(&mut consumer);
        assert!(consumer.is_close());
        consumer.back_off(Deadline::Never);
        assert_eq!((consumer.is_close(), consumer.pace.attempts.skip), (false, 8), "nobody goes on");
    }

    #[test]
    fn space_is_given_back_once_all_before_it_is() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let record = record(64, 0);
        for n in 0..4 {
            put(&mut own, n * 2 * CACHE_LINE, RecordHeader::new(record));
        }
        assert!(!consumer.head_moved());
        own.words.word(Word::Head).store(8 * CACHE_LINE, Release);
        assert!(consumer.head_moved());
        let spans = [(); 4].map(|()| {
            assert_eq!(consumer.next(), Ok(Some(record)));
            assert!(!consumer.head_moved(), "it has been seen");
            consumer.advance(record)
        });
        let intake = Arc::clone(consumer.intake());
        let mut release = |n: usize| {
            intake.release(spans[n], 1);
            (intake.tail().get() / CACHE_LINE, consumer.held().0)
        };
        assert_eq!([2, 1, 0, 3].map(&mut release), [(0, 3), (0, 2), (6, 1), (8, 0)]);
        assert_eq!(consumer.held(), (0, 0));
    }

    #[test]
    fn a_record_ends_at_the_head_at_the_latest() {
        let mut own = region::OwnRegion::create(4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        own.words.word(Word::Head).store(3 * CACHE_LINE, Release);
        put(&mut own, 0, RecordHeader::new(record(64, 65)));
        let too_long = ProtocolError::RecordLength { available: 3 * CACHE_LINE, payload: 64, control: 65 };
        assert_eq!(consumer.next(), Err(too_long));
        put(&mut own, 0, RecordHeader::new(record(64, 64)));
        assert_eq!(consumer.next(), Ok(Some(record(64, 64))));
    }

    /// A ring of three pages: no power of two.
    #[test]
    fn records_end_within_the_ring_and_begin_at_its_start_again() {
        let mut own = region::OwnRegion::create(3 * 4096, true, false, Deadline::Never).unwrap();
        let mut consumer = consumer(&own);
        let capacity = to_u64(own.geometry.capacity);
        let publish = |own: &region::OwnRegion, head: u64| own.words.word(Word::Head).store(head, Release);
        put(&mut own, 0, RecordHeader::new(record(to_usize(capacity) - 192, 0)));
        publish(&own, capacity - 128);
        let first = consumer.next().unwrap().unwrap();
        let span = consumer.advance(first);
        assert_eq!(span.end.get(), capacity - 128);
        consumer.intake().release(span, 1);
        // More than that is published, but behind the ring's end.
        put(&mut own, capacity - 128, RecordHeader::new(record(65, 0)));
        publish(&own, 2 * capacity - 128);
        let past_the_end = ProtocolError::RecordLength { available: 128, payload: 65, control: 0 };
        assert_eq!(consumer.next(), Err(past_the_end));
        put(&mut own, capacity - 128, RecordHeader::new(record(0, 64)));
        assert!(own.ring.write(capacity - 64, &[7; 64]));
        let last = consumer.next().unwrap().unwrap();
        assert_eq!(consumer.control(last).to_vec::<u8>().unwrap(), [7; 64]);
        let span = consumer.advance(last);
        consumer.intake().release(span, 1);
        // Exactly at the end: the next one is at the start, and what is seen there was published already.
        put(&mut own, 0, RecordHeader::new(record(64, 0)));
        let next = consumer.try_next().unwrap();
        assert_eq!((next, consumer.cursor.at, consumer.cursor.position.get()), (record(64, 0), 0, capacity));
        assert_eq!(consumer.cursor.available, capacity - 128);
    }
}
