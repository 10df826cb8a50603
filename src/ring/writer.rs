//! [`Writer`]: the owner's side of a ring, bytes and counters. It reserves room for a record, and publishes it.
//!
//! Invariant: bytes that are published and not released are not written. A [`Place`] is reserved behind them, and lends
//! its bytes only as long as nothing else was published there.

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    error::ProtocolError,
    protocol::{CACHE_LINE, PublishedRecord, Record, RecordHeader, RecordSize, to_usize},
    ring::{FAR, Place, Producer, Readers},
    sys::{
        own_region::{Around, ControlPage, OwnRing, RingSlot},
        peer_region::PeerRegion,
    },
};

/// The one writer of a ring.
#[derive(Debug)]
pub(crate) struct Writer<R = PeerRegion> {
    ring: OwnRing,
    pub(crate) producer: Producer<R>,
    /// The shortest payload that the ring does not take.
    too_long: usize,
}

impl<R: Readers> Writer<R> {
    pub(crate) fn new(ring: OwnRing, words: ControlPage, readers: R) -> Self {
        let geometry = ring.geometry();
        let producer = Producer::new(words, readers, geometry.capacity);
        let too_long = if geometry.capacity == 0 { 0 } else { geometry.max_payload().saturating_add(1) };
        Self { ring, producer, too_long }
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.geometry().capacity
    }

    /// Bytes that are reserved for a loan of `len` bytes. `None` if the ring takes no payload of that length, see
    /// [`Geometry::max_payload`](crate::protocol::layout::Geometry::max_payload).
    #[inline]
    pub(crate) fn loan_size(&self, len: usize) -> Option<RecordSize> {
        (len < self.too_long).then(|| RecordSize::of_loan(len))
    }

    /// Lends the bytes of the place that was reserved last, for a payload of `count` values. `None` if they reach past the
    /// ring's end.
    #[inline]
    pub(crate) fn lend<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Option<Reservation<'_, T, R>> {
        let Place { at, .. } = self.producer.reserved();
        let payload = self.ring.slot(at.wrapping_add(Record::PAYLOAD), count)?;
        Some(Reservation { payload, producer: &mut self.producer })
    }

    /// The place that was reserved last, for a reservation without a lifetime.
    pub(crate) fn place(&self) -> Place {
        self.producer.reserved()
    }

    /// Like [`lend`](Self::lend), if `place` is still the one that was reserved last: `None` if another was, or if a
    /// record was published since.
    pub(crate) fn lend_again<T: FromBytes + IntoBytes>(
        &mut self,
        place: Place,
        count: usize,
    ) -> Option<Reservation<'_, T, R>> {
        if place == self.place() { self.lend(count) } else { None }
    }
}

/// A place whose loan is kept as a value, and lent anew each time.
impl Writer {
    /// The bytes of a place's payload. `None` where [`lend`](Self::lend) says `None`.
    pub(crate) fn bytes(&self, place: Place, len: usize) -> Option<&[u8]> {
        let at = place.at.wrapping_add(Record::PAYLOAD);
        (place == self.place()).then(|| self.ring.bytes(at, len))?
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self, place: Place, len: usize) -> Option<&mut [u8]> {
        let at = place.at.wrapping_add(Record::PAYLOAD);
        (place == self.place()).then(|| self.ring.bytes_mut(at, len))?
    }
}

/// Room for a record whose payload is being written. Nothing of it is published until it is committed.
pub(crate) struct Reservation<'w, T, R = PeerRegion> {
    /// The values.
    pub(crate) payload: RingSlot<'w, T>,
    producer: &'w mut Producer<R>,
}

impl<T, R> Reservation<'_, T, R> {
    /// The parts of the record around the payload.
    #[inline]
    pub(crate) fn frame(&mut self) -> Frame<'_, R> {
        Frame { ring: self.payload.around(), producer: self.producer }
    }
}

/// The record around a payload that is written, to be committed.
pub(crate) struct Frame<'w, R = PeerRegion> {
    ring: Around<'w>,
    pub(crate) producer: &'w mut Producer<R>,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl<R: Readers> Frame<'_, R> {
    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> usize {
        to_usize(self.producer.capacity())
    }

    /// The place that was reserved last.
    pub(crate) fn place(&self) -> Place {
        self.producer.reserved()
    }

    /// Takes the `len` bytes of a payload along to the place that was reserved last, if that is another one than `before`.
    pub(crate) fn move_payload(&mut self, before: Place, len: usize) {
        let [before, now] = [before, self.place()].map(|place| place.at.wrapping_add(Record::PAYLOAD));
        if now != before {
            let moved = self.ring.copy_within(before, now, len);
            debug_assert!(moved, "the record fits where its place is");
        }
    }

    /// Whether `record`, with its control bytes, has room at the reserved place now.
    #[inline]
    pub(crate) fn fits(&mut self, record: Record) -> Result<bool, ProtocolError> {
        self.producer.fits(record.size())
    }

    /// Writes the parts around the payload: the header of padding, the control bytes, and the record's own header. Then it
    /// publishes all of that by one store of `Head`. After that the reservation is good for nothing but to be dropped.
    #[inline(always)]
    pub(crate) fn commit(&mut self, record: Record, control: &[u8]) {
        self.write(record, RecordHeader::new(record), control);
        self.producer.publish(record.size(), record.heading.sequence.wrapping_add(1));
        self.prefetch_next(record.size());
    }

    /// Like [`commit`](Self::commit), for a publisher's record.
    #[inline(always)]
    pub(crate) fn publish(&mut self, published: PublishedRecord, control: &[u8]) {
        let PublishedRecord { record, has_payload, .. } = published;
        self.write(record, RecordHeader::published(published), control);
        self.producer.publish_to_all(record.size(), has_payload, record.heading.sequence.wrapping_add(1));
        self.prefetch_next(record.size());
    }

    /// Writes the parts around the payload.
    #[inline(always)]
    fn write(&mut self, record: Record, header: RecordHeader, control: &[u8]) {
        let Place { at, padding, .. } = self.producer.reserved();
        if padding > 0 {
            pad(self.ring.reborrow(), self.producer.capacity(), padding);
        }
        let written = (control.is_empty() || self.ring.write(at.wrapping_add(record.control()), control))
            && self.ring.put(at, header);
        debug_assert!(written, "the record fits where its place is");
    }

    /// Prefetches the first lines of the next record. They arrive while the full fence after a publication waits for what the
    /// caller wrote. Short records follow each other faster than that.
    #[inline(always)]
    fn prefetch_next(&self, size: RecordSize) {
        if size.bytes() >= FAR {
            let at = self.producer.at();
            self.ring.prefetch(at);
            self.ring.prefetch(at.wrapping_add(CACHE_LINE));
        }
    }
}

/// Writes the header of the last `padding` bytes of a ring.
///
/// No method: the frame stays in registers where it does not leave its function.
#[cold]
fn pad(mut ring: Around<'_>, capacity: u64, padding: u64) {
    let header = RecordHeader::padding(padding.wrapping_sub(CACHE_LINE));
    let written = ring.put(capacity.wrapping_sub(padding), header);
    debug_assert!(written, "the rest of the ring has room for a header");
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, sync::atomic::Ordering::Relaxed};

    use super::*;
    use crate::{
        memory::region::{OwnRegion, map_peer},
        protocol::{MessageHeader, Word},
        wait::Deadline,
    };

    /// The writer of a ring of three pages, the ring as its peer has it, and the region whose words say what was released.
    fn writer() -> (Writer, PeerRegion, OwnRegion) {
        let [ours, theirs] =
            [3 * 4096, 0].map(|capacity| OwnRegion::create(capacity, true, false, Deadline::Never).unwrap());
        let seen = map_peer(ours.memfd.as_fd(), ours.geometry, true).unwrap();
        let peer = map_peer(theirs.memfd.as_fd(), theirs.geometry, true).unwrap();
        (Writer::new(ours.ring, ours.words, peer), seen, theirs)
    }

    fn record(len: usize, control: &[u8]) -> Record {
        Record::new(MessageHeader::new(0, false, None), len).with_control(control.len()).unwrap()
    }

    fn place(writer: &mut Writer, len: usize) -> Place {
        let size = writer.loan_size(len).unwrap();
        assert_eq!(writer.producer.has_room(size), Ok(true));
        writer.producer.reserve(size).unwrap();
        writer.place()
    }

    #[test]
    fn reservations_show_nothing_until_they_are_committed_whole() {
        let (mut writer, seen, theirs) = writer();
        // Up to 1,088 bytes before the end.
        for (len, control) in [(5056, 1024), (4096, 896)] {
            let place = place(&mut writer, len);
            let mut reservation = writer.lend_again::<u8>(place, len).unwrap();
            reservation.frame().commit(record(len, &vec![0; control]), &vec![0; control]);
        }
        let head = 2 * 6144 - 1088;
        assert_eq!(seen.load(Word::Head), head);
        theirs.words.word(Word::Tail).store(head, Relaxed);
        let place = place(&mut writer, 65);
        let mut reservation = writer.lend_again::<u8>(place, 65).unwrap();
        reservation.payload.as_mut_slice().fill(7);
        assert_eq!(seen.load(Word::Head), head, "nothing is published yet");
        assert_eq!(seen.bytes(head, 64).to_vec::<u8>().unwrap(), [0; 64], "nor is padding written");
        reservation.frame().commit(record(65, b"abc"), b"abc");
        // The padding up to the end, and the record at the start.
        assert_eq!(seen.load(Word::Head), 3 * 4096 + 64 + 128 + 64);
        let padding = seen.bytes(head, 64).load::<RecordHeader>(0).unwrap();
        assert_eq!((padding.is_padding(), padding.check_padding()), (true, Ok(1024)));
        let header = seen.bytes(0, 64).load::<RecordHeader>(0).unwrap();
        assert_eq!(header.check(256), Ok(record(65, b"abc")));
        assert_eq!(seen.bytes(Record::PAYLOAD, 65).to_vec::<u8>().unwrap(), [7; 65]);
        assert_eq!(seen.bytes(64 + 128, 3).to_vec::<u8>().unwrap(), b"abc");
    }

    #[test]
    fn places_are_lent_until_something_is_published_and_by_their_writer_only() {
        let (mut writer, ..) = writer();
        let first = place(&mut writer, 100);
        // The place is lent as often as the caller asks.
        for byte in 0..3 {
            writer.lend_again::<u8>(first, 100).unwrap().payload.as_mut_slice().fill(byte);
        }
        assert_eq!(writer.lend_again::<u8>(first, 100).unwrap().payload.as_slice(), [2; 100]);
        assert!(writer.lend_again::<u8>(first, 3 * 4096).is_none(), "past the ring's end");
        let second = place(&mut writer, 200);
        assert!(writer.lend_again::<u8>(first, 100).is_none(), "another place was chosen since");
        writer.lend_again::<u8>(second, 200).unwrap().frame().commit(record(200, b""), b"");
        assert!(writer.lend_again::<u8>(second, 200).is_none(), "it is published");
        let (mut other, ..) = self::writer();
        assert!(other.lend_again::<u8>(second, 200).is_none(), "it is another writer's");
    }

    #[test]
    fn loans_are_as_long_as_half_of_the_ring_allows() {
        let (writer, ..) = writer();
        let size = |len| writer.loan_size(len).map(RecordSize::bytes);
        assert_eq!((size(0), size(5056), size(5057), size(usize::MAX)), (Some(1088), Some(6144), None, None));
        let ours = OwnRegion::create(0, true, false, Deadline::Never).unwrap();
        let peer = map_peer(ours.memfd.as_fd(), ours.geometry, true).unwrap();
        assert!(Writer::new(ours.ring, ours.words, peer).loan_size(0).is_none(), "there is no ring");
    }
}
