//! The other direction under loom, room given back: an event loop that says no again and again while it is armed, and
//! payloads that are released by several threads. Waiting and waking are the library's own (src/wait), on loom's atomics.
//! As in tests/models/loom.rs the functions of `Releases` have the loads, stores and fences of the one that their comment
//! names, in its order; a change there is to be made here too. All twins leave something out.

use std::cell::Cell;

use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread,
};
use wait::{
    deadline::{Budget, Deadline},
    engine::{News, Outcome, SpinResult, WaitState, Waiter, run},
    eventcount::{Notifier, OwnWord, Sent, SleepWord, Sleeper},
};

#[expect(dead_code, reason = "what the exhaustive models use")]
#[path = "wait.rs"]
mod wait;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}

/// The access, order or lock that a twin leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The waiter's fence, in `SleepWord::rearm`.
    WaitersFence,
    /// The same, but only where it was armed before.
    SecondFence,
    /// The ringer's fence, in `Notifier::notify`.
    RingersFence,
    /// The new epoch of a second no: the old one is kept, as `SleepWord::arm` does.
    Renewal,
    /// The second attempt, after the epoch is new.
    SecondLook,
    /// The count of earlier bells: all are read that are there.
    Count,
    /// The Acquire of the load of `tail` by who moves it on.
    Acquire,
    /// The look at what is early, by who has moved `tail`.
    LookAtEarly,
    /// The look at `tail` by who is early, after it has said so.
    LookAtTail,
    /// The fence of who is early, in `Releases::release_out_of_order`.
    EarlyFence,
    /// The lock of the ledger.
    Lock,
    /// The lock around the ring.
    LockedRing,
    /// The fence in `Releases::notify_space`, before the look that spares the lock.
    AnnouncersFence,
    /// The order of what is needed and the waiter's fence: it is stored after that.
    NeedsBeforeFence,
    /// The comparison with the last `tail`: what is needed is compared with the `tail` before it is moved on.
    LastTail,
}

/// The words and the socket that both sides see.
#[derive(Debug, Default)]
struct Shared {
    /// The words, each its owner's.
    tail: AtomicU64,
    epoch: AtomicU64,
    needs: AtomicU64,
    /// Doorbells in the space socket. The kernel orders its sending and receiving.
    socket: AtomicU64,
}

impl Shared {
    /// The store in `Releases::move_tail`.
    fn release(&self, tail: u64) {
        self.tail.store(tail, Release);
    }

    /// `Producer::refresh_tail`
    fn look(&self) -> u64 {
        let tail = self.tail.load(Relaxed);
        fence(Acquire);
        tail
    }

    /// The library's notifier, with what was rung for before. Returns what has been rung for by now.
    fn notify(&self, last: u64, released: Option<u64>, without: Without) -> u64 {
        let mut notifier = Notifier { notified: last };
        notifier.notify(&Peer(self, released, without));
        notifier.notified
    }
}

/// The sender, as the library's notifier sees it.
struct Peer<'m>(&'m Shared, Option<u64>, Without);

impl Sleeper for Peer<'_> {
    fn fence(&self) {
        if self.2 != Without::RingersFence {
            fence(SeqCst);
        }
    }

    fn epoch(&self) -> u64 {
        self.0.epoch.load(Relaxed)
    }

    fn is_reached(&self) -> bool {
        self.1.is_none_or(|tail| self.0.needs.load(Relaxed) <= tail)
    }

    fn ring(&self) -> Sent {
        self.0.socket.fetch_add(1, AcqRel);
        Sent::Yes
    }
}

/// The sender's sleep word.
struct Word<'m> {
    shared: &'m Shared,
    without: Without,
    /// It was armed before it was stored last.
    again: bool,
    /// The needs that are stored late, with [`Without::NeedsBeforeFence`].
    late: Cell<Option<u64>>,
}

impl OwnWord for Word<'_> {
    fn load(&self) -> u64 {
        self.shared.epoch.load(Relaxed)
    }

    fn store(&mut self, value: u64) {
        self.again = value > 1;
        self.shared.epoch.store(value, Relaxed);
    }

    fn store_needs(&mut self, needs: u64) {
        if self.without == Without::NeedsBeforeFence {
            self.late.set(Some(needs));
        } else {
            self.shared.needs.store(needs, Relaxed);
        }
    }

    fn fence(&self) {
        let left_out = match self.without {
            Without::WaitersFence => true,
            Without::SecondFence => self.again,
            _ => false,
        };
        if !left_out {
            fence(SeqCst);
        }
        if let Some(needs) = self.late.take() {
            self.shared.needs.store(needs, Relaxed);
        }
    }
}

/// A sender that tries by the library's own loop, and never blocks.
struct Half<'m, A> {
    shared: &'m Shared,
    word: SleepWord<Word<'m>>,
    without: Without,
    /// The `tail` that it needs.
    needs: u64,
    /// Whether there is space.
    attempt: A,
}

impl<'m, A: FnMut(&Shared) -> bool> Half<'m, A> {
    fn new(shared: &'m Shared, needs: u64, without: Without, attempt: A) -> Self {
        let word = SleepWord::new(Word { shared, without, again: false, late: Cell::new(None) });
        Self { shared, word, without, needs, attempt }
    }

    /// True if there is space; else the word is armed.
    fn try_now(&mut self) -> bool {
        let mut state = WaitState::trying(News::Space);
        matches!(run(self, &mut state, &mut Budget::once()), Ok(Outcome::Done(())))
    }
}

impl<A: FnMut(&Shared) -> bool> Waiter for Half<'_, A> {
    type Item = ();

    fn attempt(&mut self, _: &mut Budget) -> sealane::Result<Option<()>> {
        let left_out = self.without == Without::SecondLook && self.word.word.again;
        Ok((!left_out && (self.attempt)(self.shared)).then_some(()))
    }

    fn stale_doorbells(&mut self) -> sealane::Result<u64> {
        Ok(self.shared.socket.load(Acquire))
    }

    fn rearm(&mut self) {
        if self.without == Without::Renewal {
            self.word.arm(self.needs);
        } else {
            self.word.rearm(self.needs);
        }
    }

    fn has_other_news(&mut self) -> sealane::Result<bool> {
        if self.without == Without::Count && self.word.word.again {
            self.shared.socket.swap(0, AcqRel);
        }
        Ok(false)
    }

    fn read_stale(&mut self) -> sealane::Result<bool> {
        let is_there = self.shared.socket.load(Acquire) > 0;
        if is_there {
            self.shared.socket.fetch_sub(1, AcqRel);
            self.word.on_stale_doorbell().expect("a doorbell for each epoch at most");
        }
        Ok(is_there)
    }

    fn spin(&mut self, _: Deadline) -> SpinResult {
        unreachable!("a call that must not block does not spin")
    }

    fn poll_socket(&mut self) -> sealane::Result<()> {
        unreachable!("nor does it poll")
    }

    fn arm(&mut self) -> bool {
        unreachable!("it takes a new epoch")
    }

    fn has_news(&mut self) -> sealane::Result<bool> {
        unreachable!("it tries again")
    }

    fn read(&mut self) -> sealane::Result<bool> {
        unreachable!("it reads stale doorbells only")
    }

    fn sleep(&mut self, _: Deadline) -> sealane::Result<bool> {
        unreachable!("it does not sleep")
    }
}

/// Runs the executions of `model` in which threads are preempted so many times, or any number of times.
fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// An event loop whose sender needs the space of two releases. It tries after each doorbell, and so is refused again
/// while it is armed.
fn event_loop(without: Without) {
    const WANTED: u64 = 2;
    check(None, move || {
        let shared = Arc::new(Shared::default());
        let peer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut notified = 0;
                for released in 1..=WANTED {
                    shared.release(released);
                    notified = shared.notify(notified, Some(released), without);
                }
            })
        };
        let mut sender = Half::new(&shared, WANTED, without, |shared| shared.look() == WANTED);
        let asleep = loop {
            // `Outbox::wait_for_space`
            if shared.look() == WANTED || sender.try_now() {
                break false;
            }
            if shared.socket.load(Acquire) == 0 {
                break true;
            }
        };
        peer.join().unwrap();
        assert!(!asleep || shared.socket.load(Acquire) > 0, "asleep, and no bell");
    });
}

/// An event loop that is refused a large record and then a small one, by a receiver that gives back room for the small one
/// only.
fn changed_needs(without: Without) {
    check(None, move || {
        let shared = Arc::new(Shared::default());
        let peer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.release(1);
                shared.notify(0, Some(1), without);
            })
        };
        let mut sender = Half::new(&shared, 2, without, |shared: &Shared| shared.look() == 2);
        assert!(!sender.try_now());
        let Half { word, .. } = sender;
        let mut sender =
            Half { shared: &shared, word, without, needs: 1, attempt: |shared: &Shared| shared.look() >= 1 };
        let awake = sender.try_now();
        peer.join().unwrap();
        assert!(awake || shared.socket.load(Acquire) > 0, "asleep, and no bell");
    });
}

/// `Releases`, of two records. The cells have no values: loom sees whether one thread at a time touches them.
#[derive(Debug, Default)]
struct Releases {
    /// How many records are before `tail`.
    count: UnsafeCell<()>,
    /// Whether the record from 1 to 2 was released before the one from 0 to 1; also what the ledger says.
    early: AtomicU64,
    lock: Mutex<()>,
    ledger: UnsafeCell<()>,
    rung: AtomicU64,
}

impl Releases {
    fn tail(shared: &Shared, without: Without) -> u64 {
        shared.tail.load(if without == Without::Acquire { Relaxed } else { Acquire })
    }

    /// `Releases::release` of the record from `start` to `start + 1`.
    fn release(&self, start: u64, shared: &Shared, without: Without) {
        if Self::tail(shared, without) != start {
            return self.release_early(shared, without);
        }
        self.move_tail(start + 1, shared);
        // In `Peer::fence` this is left out for the peer's sake, here for who is early.
        if without != Without::RingersFence {
            fence(SeqCst);
        }
        let early = without != Without::LookAtEarly && self.early.load(Relaxed) > 0;
        let awaited = shared.epoch.load(Relaxed) & 1 == 1 && shared.needs.load(Relaxed) <= start + 1;
        if early || awaited {
            let guard = (without != Without::Lock).then(|| self.lock.lock().unwrap());
            self.settle(shared, guard, without);
        }
    }

    /// `Releases::move_tail`
    fn move_tail(&self, end: u64, shared: &Shared) {
        self.count.with_mut(|_| ());
        shared.release(end);
    }

    /// `Releases::release_out_of_order`, of the second record.
    fn release_early(&self, shared: &Shared, without: Without) {
        let guard = (without != Without::Lock).then(|| self.lock.lock().unwrap());
        self.ledger.with_mut(|_| ());
        self.early.store(1, Relaxed);
        if without != Without::EarlyFence {
            fence(SeqCst);
        }
        if without != Without::LookAtTail && shared.tail.load(Relaxed) == 1 {
            self.settle(shared, guard, without);
        }
    }

    /// `Releases::notify_space`
    fn announce_room(&self, shared: &Shared, without: Without) {
        if without != Without::AnnouncersFence {
            fence(SeqCst);
        }
        if shared.epoch.load(Relaxed) & 1 == 1 {
            let guard = (without != Without::LockedRing).then(|| self.lock.lock().unwrap());
            self.rung.store(shared.notify(self.rung.load(Relaxed), None, without), Relaxed);
            drop(guard);
        }
    }

    /// `Releases::release_pending`
    fn settle(&self, shared: &Shared, mut guard: Option<MutexGuard<'_, ()>>, without: Without) {
        self.ledger.with_mut(|_| ());
        let before = shared.tail.load(Relaxed);
        if self.early.load(Relaxed) == 1 && Self::tail(shared, without) == 1 {
            self.early.store(0, Relaxed);
            self.move_tail(2, shared);
        }
        if without == Without::LockedRing {
            guard = None;
        }
        let after = shared.tail.load(Relaxed);
        let released = if without == Without::LastTail { before } else { after };
        self.rung.store(shared.notify(self.rung.load(Relaxed), Some(released), without), Relaxed);
        drop(guard);
    }
}

/// Two threads read a record each and release it; a sender waits for both.
fn two_threads(without: Without) {
    check(Some(4), move || {
        let (shared, intake) = (Arc::new(Shared::default()), Arc::new(Releases::default()));
        let records = Arc::new([UnsafeCell::new(0_u64), UnsafeCell::new(0_u64)]);
        let threads = [0, 1].map(|start| {
            let (shared, intake, records) = (Arc::clone(&shared), Arc::clone(&intake), Arc::clone(&records));
            thread::spawn(move || {
                records[usize::try_from(start).unwrap()].with(|_| ());
                intake.release(start, &shared, without);
            })
        });
        let mut released = 0;
        let awake = Half::new(&shared, 2, without, |shared| {
            released = shared.look();
            released == 2
        })
        .try_now();
        if awake {
            // It writes there again: loom sees whether somebody may still be reading.
            for record in records.iter() {
                record.with_mut(|_| ());
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.tail.load(Relaxed), 2, "a release is lost");
        let bells = shared.socket.load(Acquire);
        assert!(bells <= 1, "{bells} bells for one epoch");
        assert!(awake || bells > 0, "asleep with {released} of 2 seen, and no bell");
    });
}

/// One thread reads a packet while another releases a record; a sender waits for room in the socket and in the ring.
fn packet_and_record(without: Without) {
    check(Some(4), move || {
        let (shared, intake) = (Arc::new(Shared::default()), Arc::new(Releases::default()));
        // Packets in the socket. The kernel orders its sending and receiving.
        let unread = Arc::new(AtomicU64::new(1));
        let reader = {
            let (shared, intake, unread) = (Arc::clone(&shared), Arc::clone(&intake), Arc::clone(&unread));
            thread::spawn(move || {
                unread.fetch_sub(1, AcqRel);
                intake.announce_room(&shared, without);
            })
        };
        let releaser = {
            let (shared, intake) = (Arc::clone(&shared), Arc::clone(&intake));
            thread::spawn(move || intake.release(0, &shared, without))
        };
        // Both kinds were refused.
        let awake = Half::new(&shared, 1, without, |shared| shared.look() == 1 && unread.load(Acquire) == 0)
            .try_now();
        reader.join().unwrap();
        releaser.join().unwrap();
        let bells = shared.socket.load(Acquire);
        assert!(bells <= 1, "{bells} bells for one epoch");
        assert!(awake || bells > 0, "asleep, and no bell");
    });
}

#[test]
fn a_packet_that_is_read_and_a_record_that_is_released_ring_once() {
    packet_and_record(Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn who_has_read_a_packet_needs_a_fence() {
    packet_and_record(Without::AnnouncersFence);
}

#[test]
#[should_panic(expected = "2 bells for one epoch")]
fn who_has_read_a_packet_needs_the_lock() {
    packet_and_record(Without::LockedRing);
}

#[test]
fn an_event_loop_is_told_of_room_after_each_no() {
    event_loop(Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_second_no_needs_its_fence() {
    event_loop(Without::SecondFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_second_no_needs_the_receivers_fence() {
    event_loop(Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_second_no_needs_an_epoch_of_its_own() {
    event_loop(Without::Renewal);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_second_no_needs_a_second_look() {
    event_loop(Without::SecondLook);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_second_no_leaves_the_bell_of_its_own_epoch() {
    event_loop(Without::Count);
}

#[test]
fn needs_that_change_are_met() {
    changed_needs(Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn needs_are_stored_before_the_fence() {
    changed_needs(Without::NeedsBeforeFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn needs_are_compared_with_the_last_tail() {
    two_threads(Without::LastTail);
}

#[test]
fn two_threads_release_what_they_have_read() {
    two_threads(Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_moves_the_tail_on_needs_the_reading_before_it() {
    two_threads(Without::Acquire);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn who_moves_the_tail_looks_at_what_is_early() {
    two_threads(Without::LookAtEarly);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn who_is_early_looks_at_the_tail_again() {
    two_threads(Without::LookAtTail);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn who_is_early_needs_its_fence() {
    two_threads(Without::EarlyFence);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_lock_two_threads_are_in_the_ledger() {
    two_threads(Without::Lock);
}

#[test]
#[should_panic(expected = "2 bells for one epoch")]
fn a_bell_that_is_rung_after_the_lock_rings_twice() {
    two_threads(Without::LockedRing);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn two_threads_need_their_fence() {
    two_threads(Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn who_waits_for_two_threads_needs_its_fence() {
    two_threads(Without::WaitersFence);
}
