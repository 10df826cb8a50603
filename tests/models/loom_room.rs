//! The other direction under loom: space that is released. An event loop is refused again and again while it is armed, and
//! several threads release payloads. The library's own wait (src/wait), eventcount and releases (src/ring/release.rs) run on
//! loom's atomics. Each twin leaves out one access, order or lock, which is named by the function that has it.

#![expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the signatures are those of the library's types"
)]
#![expect(
    clippy::arc_with_non_send_sync,
    reason = "loom's cells are not `Sync`, and its threads need not be `Send`"
)]

use std::{cell::Cell, panic::Location};

use layout::Position;
use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
            fence,
        },
    },
    thread,
};
use model_wait::{
    deadline::{Budget, Deadline},
    engine::{News, Outcome, SpinResult, WaitState, Waiter, run},
    eventcount::{OwnWord, SleepWord},
};
use release::{Releases, Span};

#[expect(dead_code, reason = "the model moves positions only")]
#[path = "../../src/protocol/layout.rs"]
mod layout;
#[expect(dead_code, reason = "what the exhaustive models use")]
#[path = "wait.rs"]
mod model_wait;
#[expect(dead_code, reason = "the model releases and does not read")]
#[path = "../../src/ring/release.rs"]
mod release;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}
mod protocol {
    pub(crate) use crate::layout::{CACHE_LINE, Position, Word, to_u64};

    pub(crate) struct Record;

    impl Record {
        pub(crate) const PAYLOAD: u64 = CACHE_LINE;
    }
}
mod sys {
    pub(crate) mod foreign {
        pub(crate) struct VolatileBytes<'a>(pub(crate) std::marker::PhantomData<&'a ()>);
    }
    pub(crate) mod own_region {
        pub(crate) use crate::ControlPage;
    }
    pub(crate) mod peer_region {
        pub(crate) use crate::PeerRegion;
    }
}
mod socket {
    pub(crate) mod doorbell {
        pub(crate) use crate::PeerHalf;
    }
    pub(crate) mod link {
        pub(crate) use crate::Link;
    }
}
/// Locks and atomics of the library's files. Each call can be left out, by the name of the function that makes it.
mod wait {
    use std::{
        mem,
        ops::{Deref, DerefMut},
        panic::Location,
        sync,
        sync::atomic::Ordering,
    };

    use loom::cell::UnsafeCell;

    pub(crate) use super::model_wait::eventcount::Notifier;
    use super::{Without, site, without};

    /// A word that one thread at a time writes: loom sees whether that is so.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64 {
        pub(crate) value: loom::sync::atomic::AtomicU64,
        writer: UnsafeCell<()>,
    }

    impl AtomicU64 {
        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> u64 {
            match (site(Location::caller()), order) {
                ("release_all", Ordering::Relaxed) if without(Without::LookAtEarly) => 0,
                ("tail_with", Ordering::Relaxed) if without(Without::LookAtTail) => u64::MAX,
                (_, Ordering::Acquire) if without(Without::Acquire) => self.value.load(Ordering::Relaxed),
                _ => self.value.load(order),
            }
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            if !without(Without::LockedRing) {
                self.writer.with_mut(|_| ());
            }
            self.value.store(value, order);
        }
    }

    #[track_caller]
    pub(crate) fn fence(order: Ordering) {
        let left_out = match site(Location::caller()) {
            "release_all" => Without::RingersFence,
            "release_out_of_order" => Without::EarlyFence,
            "notify_space" => Without::AnnouncersFence,
            other => panic!("a fence in {other}, for which there is no twin"),
        };
        if !without(left_out) {
            loom::sync::atomic::fence(order);
        }
    }

    /// A lock of loom's. The value beside it can be had without the lock, for the twins.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        lock: loom::sync::Mutex<()>,
        owner: UnsafeCell<()>,
        value: sync::Mutex<T>,
        /// Uses without the lock, as loom tries other orders of those only that it sees.
        uses: loom::sync::atomic::AtomicU64,
    }

    pub(crate) struct MutexGuard<'m, T: Default> {
        value: T,
        mutex: &'m Mutex<T>,
        lock: Option<loom::sync::MutexGuard<'m, ()>>,
    }

    pub(crate) fn lock<T: Default>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        let is_free = without(Without::Lock) || without(Without::LockedRing);
        let lock = (!is_free).then(|| mutex.lock.lock().unwrap());
        if !without(Without::LockedRing) {
            mutex.owner.with_mut(|_| ());
        }
        if is_free {
            mutex.uses.fetch_add(1, Ordering::Relaxed);
        }
        let value = mem::take(&mut *mutex.value.lock().unwrap());
        MutexGuard { value, mutex, lock }
    }

    pub(crate) fn lock_unless_lost<T: Default>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        Some(lock(mutex))
    }

    impl<T: Default> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            if self.lock.is_none() {
                self.mutex.uses.fetch_add(1, Ordering::Relaxed);
            }
            *self.mutex.value.lock().unwrap() = mem::take(&mut self.value);
        }
    }

    impl<T: Default> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.value
        }
    }

    impl<T: Default> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.value
        }
    }
}

/// The access, order or lock that a twin leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The waiter's fence, in `SleepWord::rearm`.
    WaitersFence,
    /// The same, but only where it was armed before.
    SecondFence,
    /// The fences of the releasing side, in `Notifier::notify` and in `Releases::release_all`.
    RingersFence,
    /// The new epoch of a second refusal: the old one is kept, as `SleepWord::arm` does.
    Renewal,
    /// The second attempt, after the epoch is new.
    SecondLook,
    /// The count of earlier doorbells: all doorbells are read.
    Count,
    /// The Acquire of the loads of `tail` by the thread that moves it.
    Acquire,
    /// The look at the ledger, by the thread that has moved `tail`.
    LookAtEarly,
    /// The look at `tail`, by the thread that has added a range to the ledger.
    LookAtTail,
    /// The fence in `Releases::release_out_of_order`.
    EarlyFence,
    /// The lock of the ledger.
    Lock,
    /// The lock around the notifier.
    LockedRing,
    /// The fence in `Releases::notify_space`, before the look that spares the lock.
    AnnouncersFence,
    /// The order of the needs and the waiter's fence: the needs are stored after it.
    NeedsBeforeFence,
    /// The comparison with the last `tail`: the needs are compared with the `tail` before the last move.
    LastTail,
}

thread_local! {
    /// The twin of this test. loom runs all threads of a model in the thread of its test.
    static WITHOUT: Cell<Without> = const { Cell::new(Without::Nothing) };
}

fn without(left_out: Without) -> bool {
    WITHOUT.get() == left_out
}

/// The name of the function in src/ring/release.rs that has this line.
fn site(at: &Location<'_>) -> &'static str {
    let lines = include_str!("../../src/ring/release.rs").lines().take(usize::try_from(at.line()).unwrap());
    let names =
        lines.filter_map(|line| line.trim_start().trim_start_matches("pub(crate) ").strip_prefix("fn "));
    names.last().and_then(|name| name.split(['(', '<']).next()).unwrap()
}

/// The words and the socket that both sides see.
#[derive(Debug, Default)]
struct Shared {
    /// The words, each its owner's.
    tail: wait::AtomicU64,
    epoch: AtomicU64,
    needs: AtomicU64,
    /// Doorbells in the space socket. The kernel orders its sending and receiving.
    socket: AtomicU64,
}

impl Shared {
    /// `Producer::refresh_tail`
    fn look(&self) -> u64 {
        let tail = self.tail.value.load(Relaxed);
        fence(Acquire);
        tail
    }
}

/// The receiver's control page.
#[derive(Debug)]
struct ControlPage(Arc<Shared>);

impl ControlPage {
    fn word(&self, word: layout::Word) -> &wait::AtomicU64 {
        assert_eq!(word, layout::Word::Tail);
        &self.0.tail
    }
}

/// The sender's region, of which the receiver reads two words.
#[derive(Debug)]
struct PeerRegion(Arc<Shared>);

impl PeerRegion {
    fn load(&self, word: layout::Word) -> u64 {
        match word {
            layout::Word::SenderEpoch => self.0.epoch.load(Relaxed),
            layout::Word::SenderNeeds => self.0.needs.load(Relaxed),
            _ => unreachable!("a receiver that releases reads no other word"),
        }
    }

    fn bytes(&self, _: u64, _: usize) -> sys::foreign::VolatileBytes<'_> {
        unreachable!("nothing is read here")
    }
}

/// The connection, which this process uses.
#[derive(Debug)]
struct Link {
    space_tx: Arc<Shared>,
}

impl Link {
    fn is_ours(&self) -> bool {
        true
    }

    fn is_ours_at_a_glance(&self) -> bool {
        true
    }

    fn check(&self) -> sealane::Result<()> {
        Ok(())
    }
}

/// The sender, as the library's notifier sees it.
struct PeerHalf<'c> {
    region: &'c PeerRegion,
    word: layout::Word,
    socket: &'c Arc<Shared>,
    released: Option<u64>,
}

impl model_wait::eventcount::Sleeper for PeerHalf<'_> {
    fn fence(&self) {
        if !without(Without::RingersFence) {
            fence(SeqCst);
        }
    }

    fn epoch(&self) -> u64 {
        self.region.load(self.word)
    }

    fn is_reached(&self) -> bool {
        let last = u64::from(without(Without::LastTail));
        self.released.is_none_or(|tail| self.region.load(layout::Word::SenderNeeds) <= tail - last)
    }

    fn ring(&self) -> model_wait::eventcount::Sent {
        self.socket.socket.fetch_add(1, AcqRel);
        model_wait::eventcount::Sent::Yes
    }
}

/// Both sides at the beginning.
fn sides() -> (Arc<Shared>, std::sync::Arc<Releases>) {
    let shared = Arc::new(Shared::default());
    let link = std::sync::Arc::new(Link { space_tx: Arc::clone(&shared) });
    let releases = Releases::new(PeerRegion(Arc::clone(&shared)), link, ControlPage(Arc::clone(&shared)));
    (shared, releases)
}

/// The record from `start` to `start + 1`.
fn record(start: u64) -> Span {
    Span { start: Position::new(start), end: Position::new(start + 1), at: start }
}

/// The sender's sleep word.
struct Word<'m> {
    shared: &'m Shared,
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
        if without(Without::NeedsBeforeFence) {
            self.late.set(Some(needs));
        } else {
            self.shared.needs.store(needs, Relaxed);
        }
    }

    fn fence(&self) {
        if !(without(Without::WaitersFence) || without(Without::SecondFence) && self.again) {
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
    /// The `tail` that it needs.
    needs: u64,
    /// Whether there is space.
    attempt: A,
}

impl<'m, A: FnMut(&Shared) -> bool> Half<'m, A> {
    fn new(shared: &'m Shared, needs: u64, attempt: A) -> Self {
        let word = SleepWord::new(Word { shared, again: false, late: Cell::new(None) });
        Self { shared, word, needs, attempt }
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
        let left_out = without(Without::SecondLook) && self.word.word.again;
        Ok((!left_out && (self.attempt)(self.shared)).then_some(()))
    }

    fn stale_doorbells(&mut self) -> sealane::Result<u64> {
        Ok(self.shared.socket.load(Acquire))
    }

    fn rearm(&mut self) {
        if without(Without::Renewal) {
            self.word.arm(self.needs);
        } else {
            self.word.rearm(self.needs);
        }
    }

    fn has_other_news(&mut self) -> sealane::Result<bool> {
        if without(Without::Count) && self.word.word.again {
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
fn check(without: Without, preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    WITHOUT.set(without);
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// An event loop whose sender was refused records of both sizes, so the smaller one is announced. It tries the larger one
/// after each doorbell, which needs the space of two releases, and so is refused again while it is armed.
fn event_loop(without: Without) {
    const WANTED: u64 = 2;
    check(without, None, || {
        let (shared, releases) = sides();
        let peer = thread::spawn(move || (0..WANTED).for_each(|start| releases.release(record(start), 1)));
        let mut sender = Half::new(&shared, 1, |shared| shared.look() == WANTED);
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
    check(without, None, || {
        let (shared, releases) = sides();
        let peer = thread::spawn(move || releases.release(record(0), 1));
        let mut sender = Half::new(&shared, 2, |shared: &Shared| shared.look() == 2);
        assert!(!sender.try_now());
        let Half { word, .. } = sender;
        let mut sender =
            Half { shared: &shared, word, needs: 1, attempt: |shared: &Shared| shared.look() >= 1 };
        let awake = sender.try_now();
        peer.join().unwrap();
        assert!(awake || shared.socket.load(Acquire) > 0, "asleep, and no bell");
    });
}

/// Two threads read a record each and release it; a sender waits for both.
fn two_threads(without: Without) {
    check(without, Some(4), || {
        let (shared, releases) = sides();
        let records = Arc::new([UnsafeCell::new(0_u64), UnsafeCell::new(0_u64)]);
        let threads = [0, 1].map(|start| {
            let (releases, records) = (std::sync::Arc::clone(&releases), Arc::clone(&records));
            thread::spawn(move || {
                records[usize::try_from(start).unwrap()].with(|_| ());
                releases.release(record(start), 1);
            })
        });
        let mut seen = 0;
        let awake = Half::new(&shared, 2, |shared| {
            seen = shared.look();
            seen == 2
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
        assert_eq!(shared.look(), 2, "a release is lost");
        let bells = shared.socket.load(Acquire);
        assert!(bells <= 1, "{bells} bells for one epoch");
        assert!(awake || bells > 0, "asleep with {seen} of 2 seen, and no bell");
    });
}

/// One thread reads a packet while another releases a record; a sender waits for room in the socket and in the ring.
fn packet_and_record(without: Without) {
    check(without, Some(4), || {
        let (shared, releases) = sides();
        // Packets in the socket. The kernel orders its sending and receiving.
        let unread = Arc::new(AtomicU64::new(1));
        let reading = {
            let (releases, unread) = (std::sync::Arc::clone(&releases), Arc::clone(&unread));
            thread::spawn(move || {
                unread.fetch_sub(1, AcqRel);
                releases.notify_space();
            })
        };
        let dropping = thread::spawn(move || releases.release(record(0), 1));
        // Both kinds were refused.
        let awake = Half::new(&shared, 1, |shared| shared.look() == 1 && unread.load(Acquire) == 0).try_now();
        reading.join().unwrap();
        dropping.join().unwrap();
        let bells = shared.socket.load(Acquire);
        assert!(bells <= 1, "{bells} bells for one epoch");
        assert!(awake || bells > 0, "asleep, and no bell");
    });
}

#[test]
fn packet_and_record_ring_once() {
    packet_and_record(Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn reader_of_a_packet_needs_its_fence() {
    packet_and_record(Without::AnnouncersFence);
}

#[test]
#[should_panic(expected = "2 bells for one epoch")]
fn reader_of_a_packet_needs_the_lock() {
    packet_and_record(Without::LockedRing);
}

#[test]
fn event_loop_is_signalled_after_each_refusal() {
    event_loop(Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn second_refusal_needs_its_fence() {
    event_loop(Without::SecondFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn second_refusal_needs_the_receivers_fence() {
    event_loop(Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn second_refusal_needs_an_epoch_of_its_own() {
    event_loop(Without::Renewal);
}

#[test]
#[should_panic(expected = "and no bell")]
fn second_refusal_needs_a_second_look() {
    event_loop(Without::SecondLook);
}

#[test]
#[should_panic(expected = "and no bell")]
fn second_refusal_leaves_the_doorbell_of_its_own_epoch() {
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
fn two_threads_release_records_after_reading() {
    two_threads(Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mover_of_tail_waits_for_earlier_reads() {
    two_threads(Without::Acquire);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn mover_of_tail_looks_at_the_ledger() {
    two_threads(Without::LookAtEarly);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn early_release_looks_at_tail_again() {
    two_threads(Without::LookAtTail);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn early_release_needs_its_fence() {
    two_threads(Without::EarlyFence);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn ledger_needs_its_lock() {
    two_threads(Without::Lock);
}

#[test]
#[should_panic(expected = "2 bells for one epoch")]
fn notifier_needs_the_lock() {
    two_threads(Without::LockedRing);
}

#[test]
#[should_panic(expected = "a release is lost")]
fn two_threads_need_their_fence() {
    two_threads(Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn sender_that_waits_for_two_threads_needs_its_fence() {
    two_threads(Without::WaitersFence);
}
