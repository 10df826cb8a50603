//! Going to sleep and being woken: one rule, used in both directions.
//!
//! Who waits owns an epoch word, odd while it sleeps or is about to ([`Epoch`]). Who has news reads that word and rings
//! once for each odd value that it meets ([`Bell`]). Both store first, then pass a full fence, then look at what the other
//! stored, so at least one of them sees the other: either the news is seen before sleeping, or the bell is rung.
//! Receivers wait like this for messages, senders for room.

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
    socket::seqpacket::{SendFailure, Socket},
    sys::{own_region::OwnWords, peer_region::PeerRegion},
};

/// Doorbells that may be under way before it is looked how many are.
const MOST_UNDER_WAY: u64 = 64;

/// The waiting side: our own epoch word.
///
/// There are no more doorbells than odd epochs were shown, and they cannot be saved up. All rings of a peer happen one after
/// the other, and the socket is read in the order in which they were sent. So if at some moment `n` bytes wait to be read there
/// and `s` epochs have been shown, an honest peer has sent all its doorbells for these epochs by then, but for two: one that is
/// under way, as it has seen an odd epoch and not sent yet, and the one for the present epoch. When the `n` bytes have been
/// read, whatever was not rung for the others never will be, and `s` - 2 of the epochs count as heard
/// ([`passed`](Self::passed)). An empty socket is the case of no bytes ([`drained`](Self::drained)). A hostile peer has left
/// what the socket holds, `MOST_UNDER_WAY`, and what is shown meanwhile.
#[derive(Debug)]
pub(crate) struct Epoch {
    words: OwnWords,
    word: Word,
    /// What the word holds; always in sync, as nobody else writes it.
    value: u64,
    /// Odd values shown so far.
    shown: u64,
    /// Doorbells that came, or will not come any more.
    heard: u64,
    /// When so many bytes more are read, `.1` of the epochs shown have had their bells, but for two.
    mark: Option<(u64, u64)>,
}

impl Epoch {
    /// Takes up the word as it stands: a receiver's starts armed, so that a loop may wait before it first looks.
    pub(crate) fn new(words: OwnWords, word: Word) -> Self {
        let value = words.word(word).load(Relaxed);
        Self { words, word, value, shown: value & 1, heard: 0, mark: None }
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }

    fn advance(&mut self, by: u64) {
        self.value = self.value.wrapping_add(by);
        self.words.word(self.word).store(self.value, Relaxed);
    }

    /// From now on news is announced. Look again after this, before sleeping.
    pub(crate) fn arm(&mut self) {
        if !self.is_armed() {
            self.renew();
        }
    }

    /// As [`arm`](Self::arm), with a new epoch in any case: what comes from now on has a doorbell of its own.
    pub(crate) fn renew(&mut self) {
        self.advance(if self.is_armed() { 2 } else { 1 });
        self.shown = self.shown.wrapping_add(1);
        // ORDERING: pairs with the fence in `Bell::ring`. Either the other side's look at the epoch sees this value, or our
        // next look at what it publishes sees that.
        fence(SeqCst);
    }

    /// News is not announced any more.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        if self.is_armed() {
            self.advance(1);
        }
    }

    /// The socket is empty: of the bells for the epochs shown two may come still, no more.
    pub(crate) fn drained(&mut self) {
        self.settle(self.shown);
    }

    /// A packet of `bytes` was read, and [heard](Self::heard) if it was a doorbell. `unread` asks how many bytes are still to
    /// be read, if that can be asked here; it is seldom necessary.
    #[inline]
    pub(crate) fn passed(&mut self, bytes: u64, unread: impl FnOnce() -> Option<u64>) {
        self.mark = match self.mark {
            Some((left, shown)) => Some((left.saturating_sub(bytes), shown)),
            None if self.shown.wrapping_sub(self.heard) <= MOST_UNDER_WAY => return,
            None => unread().map(|unread| (unread, self.shown)),
        };
        if let Some((0, shown)) = self.mark {
            self.settle(shown);
        }
    }

    /// All bells for the first `shown` epochs have come, but for two.
    fn settle(&mut self, shown: u64) {
        self.heard = self.heard.max(shown.saturating_sub(2));
        self.mark = None;
    }

    /// A doorbell was read: this epoch has had its bell.
    ///
    /// # Errors
    /// If there were more bells than epochs.
    pub(crate) fn heard(&mut self) -> Result<(), ProtocolError> {
        self.overheard()?;
        self.disarm();
        Ok(())
    }

    /// A doorbell for an earlier epoch was read; the present one goes on.
    ///
    /// # Errors
    /// As of [`heard`](Self::heard).
    pub(crate) fn overheard(&mut self) -> Result<(), ProtocolError> {
        self.heard = self.heard.wrapping_add(1);
        if self.heard > self.shown {
            return Err(ProtocolError::Doorbells { shown: self.shown, heard: self.heard });
        }
        Ok(())
    }
}

/// What ringing came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// The peer is awake, or has been rung before.
    NoNeed,
    Sent,
    /// The peer does not read that socket any more.
    Gone,
}

/// The ringing side: what we know of the peer's epoch word.
#[derive(Debug)]
pub(crate) struct Bell {
    word: Word,
    /// The last epoch that was rung for.
    rung: u64,
}

impl Bell {
    pub(crate) fn new(word: Word) -> Self {
        Self { word, rung: 0 }
    }

    /// Wakes the peer if it sleeps. To be called after each publication.
    ///
    /// UNTRUSTED: the peer's epoch may be anything; all that it can bring about is one more system call.
    #[inline]
    pub(crate) fn ring(&mut self, peer: &PeerRegion, socket: &Socket) -> Rung {
        // ORDERING: pairs with the fence in `Epoch::arm`: what we published before this is seen by a peer whose epoch we
        // do not see.
        fence(SeqCst);
        let epoch = peer.load(self.word);
        if epoch & 1 == 0 || epoch == self.rung { Rung::NoNeed } else { self.ring_for(epoch, socket) }
    }

    #[cold]
    fn ring_for(&mut self, epoch: u64, socket: &Socket) -> Rung {
        match socket.send(PacketHeader::plain(Kind::Doorbell, 0), &[], &[]) {
            // A full socket is as good as a bell: it is readable.
            Ok(()) | Err(SendFailure::Full) => {
                self.rung = epoch;
                Rung::Sent
            }
            Err(SendFailure::Gone) => Rung::Gone,
            // Left unrung, so that the next publication tries again.
            Err(SendFailure::FdsInFlight | SendFailure::NoMemory(_) | SendFailure::Other(_)) => Rung::NoNeed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::memory::region::OwnRegion;

    fn epoch() -> (Epoch, OwnWords) {
        let words = OwnRegion::create(0, true, false, crate::wait::Deadline::Never).unwrap().words;
        (Epoch::new(words.clone(), Word::SenderEpoch), words)
    }

    #[test]
    fn an_epoch_is_odd_while_news_is_announced_and_new_each_time() {
        let (mut epoch, words) = epoch();
        let mut shows = |change: fn(&mut Epoch)| {
            change(&mut epoch);
            words.word(Word::SenderEpoch).load(Relaxed)
        };
        assert_eq!(shows(Epoch::disarm), 0);
        assert_eq!([shows(Epoch::arm), shows(Epoch::arm)], [1, 1]);
        assert_eq!(shows(Epoch::renew), 3);
        assert_eq!(shows(|epoch| epoch.overheard().unwrap()), 3, "the present one goes on");
        assert_eq!(shows(|epoch| epoch.heard().unwrap()), 4);
        assert_eq!([shows(Epoch::disarm), shows(Epoch::arm)], [4, 5]);
    }

    /// An honest peer: it looks at the epoch, and rings later, if it has not rung for that before; others of its packets come
    /// between. What it sends is read in order. `steps` says who does what next.
    fn play(steps: &[u8]) {
        let (mut epoch, words) = epoch();
        // The lengths of packets; of 32 bytes is a doorbell.
        let mut socket: VecDeque<u64> = VecDeque::new();
        let (mut rung, mut seen) = (0, None);
        for step in steps {
            match step {
                0 => seen = Some(words.word(Word::SenderEpoch).load(Relaxed)),
                1 => match seen.take() {
                    Some(odd) if odd & 1 == 1 && odd != rung => {
                        rung = odd;
                        socket.push_back(32);
                    }
                    _ => {}
                },
                2 => socket.push_back(100),
                3 => epoch.renew(),
                4 => epoch.disarm(),
                _ => match socket.pop_front() {
                    Some(bytes) => {
                        if bytes == 32 {
                            let heard = if *step == 5 { epoch.heard() } else { epoch.overheard() };
                            heard.expect("the peer is honest");
                        }
                        epoch.passed(bytes, || Some(socket.iter().sum()));
                    }
                    None => epoch.drained(),
                },
            }
        }
    }

    proptest! {
        #[test]
        fn an_honest_peer_never_rings_too_often(steps in vec(0..7_u8, 0..2000)) {
            play(&steps);
        }

        #[test]
        fn an_honest_peer_with_many_doorbells_in_flight_never_rings_too_often(steps in vec(select(vec![0, 1, 0, 1, 3, 3, 2, 5, 6]), 0..2000)) {
            play(&steps);
        }
    }

    #[test]
    fn stale_doorbells_are_bounded_where_the_socket_is_never_empty() {
        let (mut epoch, _) = epoch();
        let unread = || Some(320);
        for _ in 0..100_000 {
            epoch.renew();
            epoch.passed(32, unread);
        }
        // From now on the peer sends nothing but bells, behind ten packets that are there.
        let mut bells = 0;
        while epoch.overheard().is_ok() {
            bells += 1;
            epoch.passed(32, unread);
        }
        assert!(bells <= MOST_UNDER_WAY + 20, "{bells} bells were saved up");
    }

    #[test]
    fn stale_doorbells_are_bounded() {
        let (mut epoch, _) = epoch();
        for _ in 0..100 {
            epoch.renew();
        }
        epoch.drained();
        // One that was under way, and one for this epoch.
        assert_eq!([epoch.overheard(), epoch.overheard()], [Ok(()); 2]);
        assert_eq!(epoch.heard(), Err(ProtocolError::Doorbells { shown: 100, heard: 101 }));
    }
}
