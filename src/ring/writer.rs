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
        own_region::{OwnRing, OwnWords, Slot},
        peer_region::PeerRegion,
    },
};

/// The one writer of a ring.
#[derive(Debug)]
pub(crate) struct Writer {
    ring: OwnRing,
    pub(crate) producer: Producer,
}

impl Writer {
    pub(crate) fn new(ring: OwnRing, words: OwnWords, peer: PeerRegion) -> Self {
        let producer = Producer::new(words, peer, ring.capacity());
        Self { ring, producer }
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Bytes that are reserved for a loan of `len` bytes. `None` if that is more than half of the ring, see
    /// [`Geometry::max_payload`](crate::protocol::layout::Geometry::max_payload).
    #[inline]
    pub(crate) fn loan_size(&self, len: usize) -> Option<RecordSize> {
        RecordSize::of_loan(len).filter(|size| size.bytes() <= self.producer.capacity() / 2)
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
    pub(crate) producer: &'w mut Producer,
}

impl<T> Reservation<'_, T> {
    /// Whether `record`, with its control bytes, has room at this place now.
    #[inline]
    pub(crate) fn fits(&mut self, record: Record) -> Result<bool, ProtocolError> {
        self.producer.fits(record.size())
    }

    /// Writes what stands around the payload: the header of padding, the control bytes, and the record's own header. Then it
    /// publishes all of that by one store of `Head`. Once it is committed, all that is left is to drop it.
    #[inline]
    pub(crate) fn commit(&mut self, record: Record, control: &[u8]) {
        let Place { at, padding, .. } = self.producer.reserved();
        if padding > 0 {
            self.pad(padding);
        }
        let written = (control.is_empty() || self.payload.write(at.wrapping_add(record.control()), control))
            && self.payload.write(at, RecordHeader::new(record).as_bytes());
        debug_assert!(written, "the record fits where its place is");
        self.producer.publish(record.size());
    }

    /// Writes the header of the padding, which reaches to the ring's end.
    #[cold]
    fn pad(&mut self, padding: u64) {
        let at = self.producer.capacity().wrapping_sub(padding);
        let header = RecordHeader::padding(padding.wrapping_sub(LINE));
        let written = self.payload.write(at, header.as_bytes());
        debug_assert!(written, "the rest of the ring has room for a header");
    }
}
