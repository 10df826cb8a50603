//! Doorbells: the packets that wake a sleeping peer.
//!
//! Owns how [the eventcount](crate::wait::SleepWord) of a channel is laid out in the control pages, how it rings, and which
//! packets are doorbells.

use std::sync::atomic::{
    Ordering::{Relaxed, SeqCst},
    fence,
};

use crate::{
    error::ProtocolError,
    protocol::{
        layout::Word,
        packet::{Kind, PacketHeader},
    },
    socket::seqpacket::{ReceivedPacket, SendFailure, Socket},
    sys::{own_region::ControlPage, peer_region::PeerRegion},
    wait::{OwnWord, Sent, Sleeper},
};

/// One of our own control words.
#[derive(Debug)]
pub(crate) struct ControlWord {
    words: ControlPage,
    word: Word,
}

impl ControlWord {
    pub(crate) fn new(words: ControlPage, word: Word) -> Self {
        Self { words, word }
    }
}

impl OwnWord for ControlWord {
    fn load(&self) -> u64 {
        self.words.word(self.word).load(Relaxed)
    }

    fn store(&mut self, value: u64) {
        self.words.word(self.word).store(value, Relaxed);
    }

    fn fence(&self) {
        fence(SeqCst);
    }
}

/// The sender's sleep word, with the word beside it for what it needs.
#[derive(Debug)]
pub(crate) struct SenderWord(ControlWord);

impl SenderWord {
    pub(crate) fn new(words: ControlPage) -> Self {
        Self(ControlWord::new(words, Word::SenderEpoch))
    }
}

impl OwnWord for SenderWord {
    fn load(&self) -> u64 {
        self.0.load()
    }

    fn store(&mut self, value: u64) {
        self.0.store(value);
    }

    fn store_needs(&mut self, needs: u64) {
        self.0.words.word(Word::SenderNeeds).store(needs, Relaxed);
    }

    fn fence(&self) {
        self.0.fence();
    }
}

/// The peer's half that waits with the control word `word`, and is woken through `socket`.
#[derive(Debug)]
pub(crate) struct PeerHalf<'c> {
    pub(crate) region: &'c PeerRegion,
    pub(crate) word: Word,
    pub(crate) socket: &'c Socket,
    /// Our `tail`, if that is the news: a sender is woken when it has all the space that it needs.
    pub(crate) released: Option<u64>,
}

impl Sleeper for PeerHalf<'_> {
    #[inline]
    fn fence(&self) {
        fence(SeqCst);
    }

    #[inline]
    fn epoch(&self) -> u64 {
        self.region.load(self.word)
    }

    fn is_reached(&self) -> bool {
        self.released.is_none_or(|tail| self.region.load(Word::SenderNeeds) <= tail)
    }

    fn ring(&self) -> Sent {
        match self.socket.send(PacketHeader::plain(Kind::Doorbell, 0), &[], &[]) {
            // A full socket is readable.
            Ok(()) | Err(SendFailure::Full) => Sent::Yes,
            Err(SendFailure::Gone) => Sent::Gone,
            Err(SendFailure::FdsInFlight | SendFailure::NoMemory(_) | SendFailure::Other(_)) => Sent::NotNow,
        }
    }
}

/// Whether a packet is a doorbell. If not, it must be of the `expected` kind.
///
/// # Errors
/// If it is of another kind, or a doorbell with descriptors.
///
/// UNTRUSTED: the packet's format was checked by [`Socket::receive`]; this checks what it is good for here.
#[inline]
pub(crate) fn is_doorbell(incoming: &ReceivedPacket<'_>, expected: Kind) -> Result<bool, ProtocolError> {
    let (kind, found) = (incoming.packet.kind, incoming.packet.fd_count);
    match kind {
        Kind::Doorbell if found > 0 => Err(ProtocolError::FdLimit { max: 0, found }),
        Kind::Doorbell => Ok(true),
        kind if kind == expected => Ok(false),
        kind => Err(ProtocolError::PacketKind { expected: expected.code(), found: kind.code() }),
    }
}
