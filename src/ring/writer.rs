//! [`Writer`]: the owner's side of a ring, bytes and counters. It reserves room for a record, and publishes it.
//!
//! Invariant: bytes that are published and not released are not written. A [`Place`] is reserved behind them, and lends
//! its bytes only as long as nothing else was published there.

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    error::ProtocolError,
    protocol::{
        layout::{LINE, RecordSize},
        record::{Record, RecordHeader},
    },
    ring::producer::{Place, Producer},
    sys::{
        own_region::{Around, OwnRing, OwnWords, Slot},
        peer_region::PeerRegion,
    },
};

/// The one writer of a ring.
#[derive(Debug)]
pub(crate) struct Writer {
    ring: OwnRing,
    pub(crate) producer: Producer,
    /// The shortest payload that the ring does not take.
    too_long: usize,
}

impl Writer {
    pub(crate) fn new(ring: OwnRing, words: OwnWords, peer: PeerRegion) -> Self {
        let geometry = ring.geometry();
        let producer = Producer::new(words, peer, geometry.capacity);
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

    /// Chooses the place of a record of `size` bytes, for which there is [room](Producer::has_room). Shows the peer nothing,
    /// and keeps nothing: a place that is not used is forgotten.
    #[inline]
    pub(crate) fn reserve(&mut self, size: RecordSize) -> Result<Place, ProtocolError> {
        self.producer.place(size)
    }

    /// Lends the bytes of a place for a payload of `count` values. `None` if a record was published since the place was
    /// reserved, or if the payload reaches past the ring's end.
    #[inline]
    pub(crate) fn lend<T: FromBytes + IntoBytes>(
        &mut self,
        place: Place,
        count: usize,
    ) -> Option<Reservation<'_, T>> {
        if !self.producer.is_reserved(place) {
            return None;
        }
        let payload = self.ring.slot(place.at.wrapping_add(Record::PAYLOAD), count)?;
        Some(Reservation { payload, producer: &mut self.producer })
    }
}

/// Room for a record whose payload is being written. Nothing of it is published until it is committed.
pub(crate) struct Reservation<'w, T> {
    /// The values.
    pub(crate) payload: Slot<'w, T>,
    producer: &'w mut Producer,
}

impl<T> Reservation<'_, T> {
    /// What is to be written around the payload.
    #[inline]
    pub(crate) fn frame(&mut self) -> Frame<'_> {
        Frame { ring: self.payload.around(), producer: self.producer }
    }
}

/// The record around a payload that is written, to be committed.
pub(crate) struct Frame<'w> {
    ring: Around<'w>,
    pub(crate) producer: &'w mut Producer,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl Frame<'_> {
    /// Whether `record`, with its control bytes, has room at the reserved place now.
    #[inline]
    pub(crate) fn fits(&mut self, record: Record) -> Result<bool, ProtocolError> {
        self.producer.fits(record.size())
    }

    /// Writes what stands around the payload: the header of padding, the control bytes, and the record's own header. Then it
    /// publishes all of that by one store of `Head`. After that the reservation is good for nothing but to be dropped.
    #[inline(always)]
    pub(crate) fn commit(&mut self, record: Record, control: &[u8]) {
        let Place { at, padding, .. } = self.producer.reserved();
        if padding > 0 {
            pad(self.ring.reborrow(), self.producer.capacity(), padding);
        }
        let written = (control.is_empty() || self.ring.write(at.wrapping_add(record.control()), control))
            && self.ring.put(at, RecordHeader::new(record));
        debug_assert!(written, "the record fits where its place is");
        self.producer.publish(record.size());
    }
}

/// Writes the header of the last `padding` bytes of a ring.
///
/// No method: the frame stays in registers where it does not leave its function.
#[cold]
fn pad(mut ring: Around<'_>, capacity: u64, padding: u64) {
    let header = RecordHeader::padding(padding.wrapping_sub(LINE));
    let written = ring.put(capacity.wrapping_sub(padding), header);
    debug_assert!(written, "the rest of the ring has room for a header");
}
