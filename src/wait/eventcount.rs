//! An eventcount between two processes: going to sleep without missing news, and waking a sleeper once.
//!
//! The waiter owns a word, odd while it sleeps or is about to ([`SleepWord`]). The peer that has news reads that word, and
//! rings once for each odd value ([`Notifier`]). Both store first, then pass a full fence, then look at the other's
//! store. So one of them sees the other: the news is seen before sleeping, or the doorbell is rung. Receivers wait like
//! this for messages, senders for space.
//!
//! A waiter can say how much news it needs, in a second word. The peer rings only when there is that much; so a sender that
//! waits for space for a large record sleeps until there is enough.
//!
//! Words and doorbells are the caller's ([`OwnWord`], [`Sleeper`]): the models bring their own.

use crate::error::ProtocolError;

/// Doorbells that may be under way before the socket is asked for its unread bytes.
const MAX_UNDER_WAY: u64 = 64;

/// Set in the word of a receiver that sleeps on a futex: no doorbell ends that.
const ON_FUTEX: u64 = 1 << 63;

/// The waiter's word, which nobody else writes.
pub(crate) trait OwnWord {
    fn load(&self) -> u64;
    /// Relaxed.
    fn store(&mut self, value: u64);
    /// Stores how much news is needed. Relaxed. A word without that has none of it to store.
    fn store_needs(&mut self, _needs: u64) {}
    /// A full fence.
    fn fence(&self);
}

/// The doorbells of one peer: how many came, and how many it owes.
///
/// There are no more doorbells than odd epochs, and they cannot be saved up. All doorbells of a peer are rung one after
/// the other, and the socket is read in the order in which they were sent. So if at some moment `n` bytes wait to be read
/// and `s` odd epochs were stored, an honest peer has sent all doorbells for these epochs, but for two: one under way, as
/// the peer has seen an odd epoch and not sent yet, and the one for the present epoch. When the `n` bytes are read, no
/// doorbell comes for the others any more, and `s - 2` epochs count as received ([`passed`](Self::passed)). An empty socket
/// is the case of no bytes ([`drained`](Self::drained)). A hostile peer has left what the socket holds, `MAX_UNDER_WAY`,
/// and the epochs stored meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bells {
    /// Doorbells that were read, or will not come any more.
    pub(crate) received: u64,
    /// After this many more bytes, the doorbells of the first `.1` epochs have come, but for two.
    mark: Option<(u64, u64)>,
}

impl Bells {
    /// The bells of a peer that has been shown none of the first `epochs`.
    pub(crate) fn after(epochs: u64) -> Self {
        Self { received: epochs, mark: None }
    }

    /// The socket is empty: at most two doorbells can still come for the `epochs` so far.
    pub(crate) fn drained(&mut self, epochs: u64) {
        self.received = self.received.max(epochs.saturating_sub(2));
        self.mark = None;
    }

    /// A packet of `bytes` was read. `unread` asks how many bytes are still to be read; that is seldom necessary.
    ///
    /// The caller counts a doorbell ([`rang`](Self::rang)) first.
    #[inline]
    pub(crate) fn passed(&mut self, epochs: u64, bytes: u64, unread: impl FnOnce() -> Option<u64>) {
        self.mark = match self.mark {
            Some((left, epochs)) => Some((left.saturating_sub(bytes), epochs)),
            None if epochs.wrapping_sub(self.received) <= MAX_UNDER_WAY => return,
            None => unread().map(|unread| (unread, epochs)),
        };
        if let Some((0, epochs)) = self.mark {
            self.drained(epochs);
        }
    }

    /// A doorbell was read.
    ///
    /// # Errors
    /// If there were more doorbells than `epochs`.
    pub(crate) fn rang(&mut self, epochs: u64) -> Result<(), ProtocolError> {
        self.received = self.received.wrapping_add(1);
        if self.received > epochs {
            return Err(ProtocolError::Doorbells { shown: epochs, heard: self.received });
        }
        Ok(())
    }
}

/// The waiting side: its own sleep word, and the doorbells of its peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SleepWord<W> {
    pub(crate) word: W,
    /// The word's value; always in sync, as nobody else writes it.
    pub(crate) value: u64,
    /// The news that is needed, as it was stored last.
    pub(crate) needs: u64,
    /// Odd values stored so far.
    pub(crate) epochs: u64,
    /// Those of the one peer. Where several share the word, each has its own.
    pub(crate) bells: Bells,
}

impl<W: OwnWord> SleepWord<W> {
    /// Takes up the word as it is. A receiver's starts armed, so that a loop may wait before it first looks.
    pub(crate) fn new(word: W) -> Self {
        let value = word.load();
        Self { word, value, needs: 0, epochs: value & 1, bells: Bells::default() }
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }

    fn advance(&mut self, by: u64, flag: u64) {
        self.value = (self.value.wrapping_add(by) & !ON_FUTEX) | flag;
        self.word.store(self.value);
    }

    /// Arms the word, if it is not armed for these needs: the peer rings when it has published as much. False if it was armed.
    ///
    /// The caller looks again after this, before it sleeps.
    pub(crate) fn arm(&mut self, needs: u64) -> bool {
        let fresh = !self.is_armed() || needs != self.needs || self.value & ON_FUTEX != 0;
        if fresh {
            self.rearm(needs);
        }
        fresh
    }

    /// Arms the word with a new epoch in any case: later news has a doorbell of its own.
    pub(crate) fn rearm(&mut self, needs: u64) {
        // Before the fence: a peer that sees the new epoch behind its own fence sees this too.
        if needs != self.needs {
            self.needs = needs;
            self.word.store_needs(needs);
        }
        self.show_epoch(0);
    }

    /// Arms the word with a new epoch, for a sleep on a futex: the peer sends no doorbell, but wakes it.
    pub(crate) fn rearm_on_futex(&mut self) {
        self.show_epoch(ON_FUTEX);
    }

    fn show_epoch(&mut self, flag: u64) {
        self.advance(if self.is_armed() { 2 } else { 1 }, flag);
        self.epochs = self.epochs.wrapping_add(1);
        // ORDERING: pairs with the fence in `Notifier::notify`. Either the peer's look at the word sees this value, or our
        // next look at its words sees its news. The same goes for the needs.
        self.word.fence();
    }

    /// The peer need not ring any more.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        if self.is_armed() {
            self.advance(1, 0);
        }
    }

    /// See [`Bells::drained`].
    pub(crate) fn drained(&mut self) {
        self.bells.drained(self.epochs);
    }

    /// See [`Bells::passed`].
    #[inline]
    pub(crate) fn passed(&mut self, bytes: u64, unread: impl FnOnce() -> Option<u64>) {
        self.bells.passed(self.epochs, bytes, unread);
    }

    /// A doorbell was read: the word is disarmed.
    ///
    /// # Errors
    /// If there were more doorbells than epochs.
    pub(crate) fn on_doorbell(&mut self) -> Result<(), ProtocolError> {
        self.on_stale_doorbell()?;
        self.disarm();
        Ok(())
    }

    /// A doorbell for an earlier epoch was read: the word stays armed.
    ///
    /// # Errors
    /// Those of [`on_doorbell`](Self::on_doorbell).
    pub(crate) fn on_stale_doorbell(&mut self) -> Result<(), ProtocolError> {
        self.bells.rang(self.epochs)
    }
}

/// The peer that may sleep, as its notifier sees it.
pub(crate) trait Sleeper {
    /// A full fence.
    fn fence(&self);
    /// The peer's sleep word. Relaxed.
    fn epoch(&self) -> u64;
    /// Whether there is as much news as the peer needs. Relaxed.
    fn is_reached(&self) -> bool {
        true
    }
    /// Sends a doorbell, without blocking.
    fn ring(&self) -> Sent;
}

/// The result of sending a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is there, or the socket is full, which is as good: it is readable.
    Yes,
    /// The kernel is short of something for now.
    NotNow,
    /// The peer does not read that socket any more.
    Gone,
}

/// The result of notifying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notified {
    /// The peer is awake, or was rung for before.
    NoNeed,
    Sent,
    /// The peer sleeps on a futex, and is to be woken there.
    OnFutex,
    /// The peer does not read that socket any more.
    Gone,
}

/// The notifying side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Notifier {
    /// The last epoch that was rung for.
    pub(crate) notified: u64,
}

impl Notifier {
    /// Wakes the peer if it sleeps. The caller has published something.
    ///
    /// UNTRUSTED: the peer's epoch may be anything; all that it can bring about is one more system call. Its needs are
    /// only compared: a false value costs the peer its own wake-ups.
    #[inline]
    pub(crate) fn notify(&mut self, peer: &impl Sleeper) -> Notified {
        // ORDERING: pairs with the fence in `SleepWord::rearm`. A peer whose epoch we do not see, sees everything that we
        // published before this.
        peer.fence();
        self.notify_behind_fence(peer)
    }

    /// Like [`notify`](Self::notify), for one of several peers: the caller has passed one full fence for all.
    #[inline]
    pub(crate) fn notify_behind_fence(&mut self, peer: &impl Sleeper) -> Notified {
        let epoch = peer.epoch();
        if epoch & 1 == 0 || epoch == self.notified { Notified::NoNeed } else { self.ring(epoch, peer) }
    }

    #[cold]
    fn ring(&mut self, epoch: u64, peer: &impl Sleeper) -> Notified {
        // The epoch counts as not rung for: more news may reach its needs.
        if !peer.is_reached() {
            return Notified::NoNeed;
        }
        if epoch & ON_FUTEX != 0 {
            self.notified = epoch;
            return Notified::OnFutex;
        }
        match peer.ring() {
            Sent::Yes => {
                self.notified = epoch;
                Notified::Sent
            }
            Sent::Gone => Notified::Gone,
            // The epoch counts as not rung for, so that the next publication tries again.
            Sent::NotNow => Notified::NoNeed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::VecDeque};

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// A word without memory.
    impl OwnWord for &Cell<u64> {
        fn load(&self) -> u64 {
            self.get()
        }

        fn store(&mut self, value: u64) {
            self.set(value);
        }

        fn fence(&self) {}
    }

    #[test]
    fn armed_words_are_odd_and_new_each_time() {
        let cell = Cell::new(0);
        let mut word = SleepWord::new(&cell);
        word.disarm();
        assert_eq!(cell.get(), 0);
        assert_eq!((word.arm(0), cell.get()), (true, 1));
        assert_eq!((word.arm(0), cell.get()), (false, 1));
        word.rearm(0);
        assert_eq!(cell.get(), 3);
        word.on_stale_doorbell().unwrap();
        assert_eq!(cell.get(), 3, "the present epoch stays");
        word.on_doorbell().unwrap();
        assert_eq!(cell.get(), 4);
        word.disarm();
        assert_eq!(cell.get(), 4);
        assert_eq!((word.arm(0), cell.get()), (true, 5));
    }

    #[test]
    fn sleep_on_a_futex_is_an_epoch_of_its_own() {
        let cell = Cell::new(0);
        let mut word = SleepWord::new(&cell);
        word.rearm_on_futex();
        assert_eq!((cell.get(), word.is_armed()), (ON_FUTEX | 1, true));
        // A doorbell is wanted from here on.
        assert_eq!((word.arm(0), cell.get()), (true, 3));
        word.rearm_on_futex();
        word.disarm();
        assert_eq!(cell.get(), 6);
    }

    #[test]
    fn other_needs_are_a_new_epoch() {
        let cell = Cell::new(0);
        let mut word = SleepWord::new(&cell);
        assert_eq!((word.arm(64), cell.get()), (true, 1));
        assert_eq!((word.arm(64), cell.get()), (false, 1));
        assert_eq!((word.arm(0), cell.get()), (true, 3));
    }

    /// An honest peer: it looks at the epoch, and rings later, if it has not rung for that before; others of its packets come
    /// between. What it sends is read in order. `steps` says who does what next.
    fn play(steps: &[u8]) {
        let words = Cell::new(0);
        let mut word = SleepWord::new(&words);
        // The lengths of packets; of 32 bytes is a doorbell.
        let mut socket: VecDeque<u64> = VecDeque::new();
        let (mut rung, mut seen) = (0, None);
        for step in steps {
            match step {
                0 => seen = Some(words.get()),
                1 => match seen.take() {
                    Some(odd) if odd & 1 == 1 && odd != rung => {
                        rung = odd;
                        socket.push_back(32);
                    }
                    _ => {}
                },
                2 => socket.push_back(100),
                3 => word.rearm(0),
                4 => word.disarm(),
                _ => match socket.pop_front() {
                    Some(bytes) => {
                        if bytes == 32 {
                            let heard =
                                if *step == 5 { word.on_doorbell() } else { word.on_stale_doorbell() };
                            heard.expect("the peer is honest");
                        }
                        word.passed(bytes, || Some(socket.iter().sum()));
                    }
                    None => word.drained(),
                },
            }
        }
    }

    proptest! {
        #[test]
        fn honest_peers_never_ring_too_often(steps in vec(0..7_u8, 0..2000)) {
            play(&steps);
        }

        #[test]
        fn honest_peers_with_many_doorbells_under_way_never_ring_too_often(steps in vec(select(vec![0, 1, 0, 1, 3, 3, 2, 5, 6]), 0..2000)) {
            play(&steps);
        }
    }

    #[test]
    fn stale_doorbells_are_bounded_where_the_socket_is_never_empty() {
        let cell = Cell::new(0);
        let mut word = SleepWord::new(&cell);
        let unread = || Some(320);
        for _ in 0..100_000 {
            word.rearm(0);
            word.passed(32, unread);
        }
        // From now on the peer sends nothing but bells, behind ten packets that are there.
        let mut bells = 0;
        while word.on_stale_doorbell().is_ok() {
            bells += 1;
            word.passed(32, unread);
        }
        assert!(bells <= MAX_UNDER_WAY + 20, "{bells} bells were saved up");
    }

    #[test]
    fn stale_doorbells_are_bounded() {
        let cell = Cell::new(0);
        let mut word = SleepWord::new(&cell);
        for _ in 0..100 {
            word.rearm(0);
        }
        word.drained();
        // One that was under way, and one for this word.
        assert_eq!([word.on_stale_doorbell(), word.on_stale_doorbell()], [Ok(()); 2]);
        assert_eq!(word.on_doorbell(), Err(ProtocolError::Doorbells { shown: 100, heard: 101 }));
    }
}
