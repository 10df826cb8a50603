//! The peer's ring, read: records come out in order.

use std::sync::{
    Arc,
    atomic::{Ordering::Acquire, fence},
};

use crate::{
    error::ProtocolError,
    protocol::{
        layout::{LINE, Word, padded, record_size, to_u64, to_usize},
        packet::{Record, RecordHeader},
    },
    ring::{
        pacing::Pace,
        release::{Intake, Span},
    },
    sys::{foreign::Foreign, mapping::PeerRegion},
    wait::Deadline,
};

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
        self.pace.rest(&self.peer, self.head, deadline);
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
    use std::{os::fd::AsFd, sync::atomic::Ordering::Release, time::Duration};

    use super::*;
    use crate::{
        memory::region,
        protocol::packet::Heading,
        socket::{link::Link, seqpacket::Socket},
    };

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
