//! [`Cursor`]: a reader's place in a ring that another process writes.
//!
//! It knows where the next record stands, and how many bytes from there are published. Whether a `head` may be believed, and
//! what becomes of the space, is the business of its owner: the consumer of a channel, or the follower of a publisher.

use crate::{
    error::ProtocolError,
    protocol::{
        layout::{CACHE_LINE, Position, RecordSize, Word, to_u64, to_usize},
        record::{Record, RecordHeader},
    },
    ring::{FAR, Span},
    sys::{foreign::VolatileBytes, peer_region::PeerRegion},
};

/// Records between the next one and the one whose header is prefetched.
const AHEAD: u64 = 2;

#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) peer: PeerRegion,
    /// The position at which the next record begins.
    pub(super) position: Position,
    /// Where that is in the ring: the ring's byte.
    pub(super) at: u64,
    /// Bytes from there that are published and before the ring's end.
    pub(super) available: u64,
    /// The end of what is published. May be stale, that is, too low.
    pub(super) head: Position,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
impl Cursor {
    /// The cursor of a reader that begins at `position`, where nothing is published yet.
    pub(super) fn new(peer: PeerRegion, position: Position) -> Self {
        let mut cursor = Self { peer, position, at: 0, available: 0, head: position };
        cursor.jump(position, position);
        cursor
    }

    /// Goes on at a position, with what is published up to `head`.
    pub(super) fn jump(&mut self, position: Position, head: Position) {
        // No other place is more than a record away, so only this divides.
        self.at = position.get().checked_rem(to_u64(self.peer.capacity())).unwrap_or(0);
        (self.position, self.head) = (position, head);
        self.recount();
    }

    /// Whether something was published since the last look. If so, its first lines are prefetched: a reader that waited for
    /// it takes them next.
    pub(super) fn head_moved(&self) -> bool {
        let moved = self.peer.load(Word::Head) != self.head.get();
        if moved {
            self.prefetch_record();
            self.prefetch_payload();
        }
        moved
    }

    /// Prefetches the header of the next record.
    #[inline(always)]
    fn prefetch_record(&self) {
        self.peer.prefetch(self.at);
    }

    /// Prefetches the header of a later record. Records behind one of `size` bytes often have the same size: then two are
    /// under way at any time, and a header that is nowhere near the last one is here when it is needed.
    #[inline(always)]
    fn prefetch_later(&self, size: u64) {
        let ahead = size.wrapping_mul(AHEAD);
        // Short records are close together, as the processor's own prefetching expects.
        let at = if size >= FAR && ahead < self.available { self.at.wrapping_add(ahead) } else { self.at };
        self.peer.prefetch(at);
    }

    /// Prefetches the first line behind the next record's header.
    #[inline(always)]
    pub(super) fn prefetch_payload(&self) {
        self.peer.prefetch(self.at.wrapping_add(Record::PAYLOAD));
    }

    /// Notes that all up to `head` is published.
    #[inline(always)]
    pub(super) fn see(&mut self, head: Position) {
        self.head = head;
        self.recount();
    }

    /// Computes `available` anew; the ring's end is its start.
    #[inline(always)]
    fn recount(&mut self) {
        let capacity = to_u64(self.peer.capacity());
        if self.at == capacity {
            self.at = 0;
        }
        self.available = self.head.since(self.position).min(capacity.wrapping_sub(self.at));
    }

    /// Whether all that is known to be published has been read.
    #[inline]
    pub(super) fn is_at_head(&self) -> bool {
        self.position == self.head
    }

    /// Copies the header that stands here. At least a line is available.
    #[inline]
    pub(super) fn header(&self) -> Result<RecordHeader, ProtocolError> {
        let header = self.peer.bytes(self.at, to_usize(CACHE_LINE)).load(0);
        header.ok_or(ProtocolError::Misaligned { found: self.head.get() })
    }

    /// The space of the padding that stands here, if `header` is padding's; else the error `violation`.
    ///
    /// UNTRUSTED: all of the header is judged. Padding must end where the ring does, and not begin where it does, and a record must
    /// follow before `head`: so a peer cannot keep us busy with nothing, and no padding follows.
    #[cold]
    pub(super) fn check_padding(
        &self,
        header: RecordHeader,
        violation: ProtocolError,
    ) -> Result<Span, ProtocolError> {
        if !header.is_padding() {
            return Err(violation);
        }
        let (start, available) = (self.position, self.head.since(self.position));
        let rest = to_u64(self.peer.capacity()).wrapping_sub(self.at);
        let (expected, found) = (rest.wrapping_sub(CACHE_LINE), header.check_padding()?);
        if found != expected {
            return Err(ProtocolError::Padding { expected, found });
        }
        if rest >= available {
            return Err(ProtocolError::RecordLength { available, payload: found, control: 0 });
        }
        if self.at == 0 {
            // Every record fits there. With more published than the ring holds, padding around all of the ring could be passed again and again.
            return Err(ProtocolError::Padding { expected: 0, found });
        }
        Ok(Span { start, end: start.after(rest), at: self.at })
    }

    /// Moves past padding, which reaches to the ring's end.
    pub(super) fn pass(&mut self, padding: Span) {
        (self.position, self.at) = (padding.end, 0);
        self.recount();
    }

    /// Moves past a record of `size` bytes, which are available.
    #[inline]
    pub(super) fn advance(&mut self, size: RecordSize) -> Span {
        let size = size.bytes();
        let span = Span { start: self.position, end: self.position.after(size), at: self.at };
        self.position = span.end;
        (self.at, self.available) = (self.at.wrapping_add(size), self.available.wrapping_sub(size));
        if self.available > 0 {
            self.prefetch_later(size);
        }
        span
    }

    /// The control bytes that ride behind the payload of the record that stands here.
    pub(super) fn control(&self, record: Record) -> VolatileBytes<'_> {
        self.peer.bytes(self.at.wrapping_add(record.control()), record.control_len())
    }

    /// The payload of the record that stands here.
    pub(super) fn payload(&self, record: Record) -> VolatileBytes<'_> {
        self.peer.bytes(self.at.wrapping_add(Record::PAYLOAD), record.payload_len())
    }
}
