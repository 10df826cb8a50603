//! [`Chunk`]: messages that go into one sample.

use sealane::Payload;

use crate::wire::{Place, pack::MAX_PACK};

/// Bytes that a chunk counts for besides its own, so that many small ones are bounded too.
const OVERHEAD: usize = 128;

/// Messages that go into one sample of Zenoh.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The first message's place.
    pub(super) place: Place,
    pub(super) count: u64,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// One message.
    Message { control: Vec<u8>, payload: Option<Bytes>, without_fds: bool },
    /// A pack's bytes.
    Pack(Vec<u8>),
}

/// A payload on its way.
#[derive(Debug)]
pub(super) enum Bytes {
    Copied(Vec<u8>),
    /// Still in the ring, which has no room for others meanwhile: where the publisher waits for us anyway. So it is read once, by the thread
    /// that needs it.
    Held(Payload),
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Held(payload) => payload.len(),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`sealane::Error::Overrun`] if the publisher has ended us, and written over them since.
    pub(super) fn into_vec(self) -> sealane::Result<Vec<u8>> {
        match self {
            Self::Copied(bytes) => Ok(bytes),
            Self::Held(payload) => payload.try_to_vec(),
        }
    }
}

impl Chunk {
    /// Bytes of messages, and of their lengths.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Message { control, payload, .. } => {
                control.len().saturating_add(payload.as_ref().map_or(0, Bytes::len))
            }
            Body::Pack(bytes) => bytes.len(),
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.len().saturating_add(OVERHEAD)
    }

    /// Whether it is a pack whose numbers go on at `place`, with room for `len` bytes more.
    pub(super) fn takes(&self, place: Place, len: usize) -> bool {
        let next = Place { number: self.place.number.saturating_add(self.count), ..self.place };
        matches!(&self.body, Body::Pack(bytes) if bytes.len().saturating_add(len) <= MAX_PACK)
            && next == place
    }

    /// Appends the messages of another pack, if it takes them.
    pub(super) fn append(&mut self, next: &Self) -> bool {
        let takes = self.takes(next.place, next.len());
        match (&mut self.body, &next.body) {
            (Body::Pack(bytes), Body::Pack(more)) if takes => {
                bytes.extend_from_slice(more);
                self.count += next.count;
                true
            }
            _ => false,
        }
    }
}
