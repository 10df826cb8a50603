//! The content of each message: a function of its direction's seed and its number, so that the receiver can compute it.

use std::os::fd::OwnedFd;

use sealane::{Control, Message, Payload, SealedBuffer, SealedBufferMut};

use crate::Result;

/// Most descriptors of a message.
pub(crate) const MOST_FDS: usize = 4;
/// Makes of the seed of one direction that of the other.
pub(crate) const THERE: u64 = 0x5ea1_a4e5;
/// The last message of a direction.
pub(crate) const STOP: &[u8] = b"stop";
/// Different buffers that are sent.
const BUFFERS: u64 = 16;
/// Bytes of each.
const BUFFER: usize = 5000;

/// `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The content of a message.
pub(crate) struct Item {
    pub(crate) wants_reply: bool,
    pub(crate) control: Vec<u8>,
    /// Numbers of buffers.
    pub(crate) buffers: Vec<u64>,
    pub(crate) payload: Option<usize>,
    /// Seed of the payload's bytes.
    seed: u64,
}

impl Item {
    /// Message `n` of a direction, whose payloads have `most` bytes at most.
    pub(crate) fn of(seed: u64, n: u64, most: usize) -> Self {
        let mut random = Random(seed ^ n.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let control = match random.below(8) {
            0..3 => 0,
            3..7 => random.below(200),
            _ => random.below(5000),
        };
        let fds = match random.below(32) {
            0 => random.below(MOST_FDS + 1),
            _ => 0,
        };
        let payload = match random.below(8) {
            0..2 => None,
            2..5 => Some(random.below(1000)),
            5..7 => Some(random.below(most / 8)),
            _ => Some(random.below(most + 1)),
        };
        let mut bytes = vec![0; control];
        random.fill(&mut bytes);
        Self {
            wants_reply: random.below(16) == 0,
            control: bytes,
            buffers: (0..fds).map(|_| random.next() % BUFFERS).collect(),
            payload,
            seed: random.next(),
        }
    }

    /// Message `n` of a publisher, which asks for nothing.
    pub(crate) fn published(seed: u64, n: u64, most: usize) -> Self {
        Self { wants_reply: false, ..Self::of(seed, n, most) }
    }

    /// Whether it is a payload that asks for nothing.
    pub(crate) fn is_plain(&self) -> bool {
        self.payload.is_some() && !self.wants_reply
    }

    /// The control bytes and descriptors that go with the payload, if there is one; `buffers` are all that there are.
    pub(crate) fn control<'a>(&'a self, buffers: &'a [SealedBuffer]) -> Control<'a> {
        let fds = self.buffers.iter().map(|number| &buffers[usize::try_from(*number).unwrap_or(0)]);
        Control::new(&self.control).fds(fds)
    }

    /// Writes the payload.
    pub(crate) fn fill(&self, payload: &mut [u8]) {
        Random(self.seed).fill(payload);
    }

    /// Compares all of a message but its payload. Its descriptors may have been taken out.
    pub(crate) fn check(&self, message: &Message, taken: Vec<OwnedFd>) -> Result<()> {
        if message.control() != self.control {
            return Err("other control bytes expected".into());
        }
        if message.payload().map(Payload::len) != self.payload {
            let found = message.payload().map(Payload::len);
            return Err(format!("a payload of {:?} bytes expected, {found:?} found", self.payload).into());
        }
        if message.reply_token().is_some() != self.wants_reply || message.in_reply_to().is_some() {
            return Err("a request expected where there is none, or none where there is one".into());
        }
        let found = taken.len() + message.fds().len();
        if found != self.buffers.len() {
            return Err(format!("{} descriptors expected, {found} found", self.buffers.len()).into());
        }
        for (fd, number) in taken.into_iter().zip(&self.buffers) {
            if *SealedBuffer::try_from(fd)? != contents(*number)[..] {
                return Err("another buffer expected".into());
            }
        }
        Ok(())
    }

    /// Compares the payload, in one of the ways in which it can be read.
    pub(crate) fn check_payload(&self, payload: &Payload) -> Result<()> {
        let mut random = Random(self.seed);
        let mut good = true;
        let mut compare = |bytes: &[u8]| {
            for chunk in bytes.chunks(8) {
                good &= *chunk == random.next().to_le_bytes()[..chunk.len()];
            }
        };
        match self.seed % 4 {
            0 => payload.bytes().for_each_block(compare),
            1 => compare(&payload.to_vec()),
            2 => {
                let mut chunks = payload.bytes().array_chunks::<64>();
                chunks.by_ref().for_each(|chunk| compare(&chunk));
                compare(&chunks.remainder().to_vec());
            }
            _ => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut payload.reader(), &mut bytes)?;
                compare(&bytes);
            }
        }
        if good {
            Ok(())
        } else {
            Err(format!("other bytes expected in a payload of {}", payload.len()).into())
        }
    }
}

/// The bytes of the buffer with this number.
fn contents(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; BUFFER];
    Random(number).fill(&mut bytes);
    bytes
}

/// All buffers that messages can bring.
pub(crate) fn buffers() -> Result<Vec<SealedBuffer>> {
    let buffer = |number| {
        let mut buffer = SealedBufferMut::new(BUFFER)?;
        buffer.copy_from_slice(&contents(number));
        Ok(buffer.seal()?)
    };
    (0..BUFFERS).map(buffer).collect()
}
