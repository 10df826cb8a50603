//! The orderings of the shared words under the C++ memory model, by loom, which tries all executions: published records are
//! visible, released ones are no longer read, and no wake-up is lost. Each fence is needed.
//!
//! Waiting and waking are the library's own (src/wait), on loom's atomics. Counters are handles into mappings of two
//! processes, which loom cannot follow: so each of their functions here has the loads, stores and fences of the one that its
//! comment names, in its order; a change there is to be made here too.

use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread,
};
use sealane::Error;
use wait::{
    deadline::{Budget, Deadline},
    engine::{News, Outcome, SpinResult, WaitState, Waiter, run},
    eventcount::{Notified, Notifier, OwnWord, Sent, SleepWord, Sleeper},
};

#[expect(dead_code, reason = "what the exhaustive models use")]
#[path = "wait.rs"]
mod wait;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}

/// Which fence or ordering is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The waiter's fence, in `SleepWord::rearm`.
    WaitersFence,
    /// The notifying side's fence, in `Notifier::notify`.
    RingersFence,
    /// The Release of the store of `head` or `tail`.
    Release,
    /// The Acquire fence after the load of `head` or `tail`.
    Acquire,
}

/// A counter in a control page: `head` or `tail`.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    /// The store in `Producer::publish` and in `Releases::release`.
    fn advance(&self, value: u64, without: Without) {
        self.0.store(value, if without == Without::Release { Relaxed } else { Release });
    }

    /// `Producer::refresh_tail`
    fn look(&self, without: Without) -> u64 {
        let value = self.0.load(Relaxed);
        if without != Without::Acquire {
            fence(Acquire);
        }
        value
    }

    /// `Consumer::refresh_head`, which has seen `value` before.
    fn has_moved_from(&self, value: u64, without: Without) -> bool {
        if self.0.load(Relaxed) == value {
            return false;
        }
        if without != Without::Acquire {
            fence(Acquire);
        }
        true
    }
}

/// Runs all executions of `model`.
fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(None, model);
}

/// Runs all executions in which a thread is interrupted no more than so often; `LOOM_MAX_PREEMPTIONS` says another number.
fn check_with(interruptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = builder.preemption_bound.or(interruptions);
    builder.check(model);
}

/// A ring with room for one record: the producer writes record after record, the consumer reads each and releases it.
///
/// loom sees whether reading and writing the record's bytes could meet.
fn ring(without_publishing: Without, without_releasing: Without) {
    const RECORDS: u64 = 2;
    check(move || {
        let bytes = Arc::new(UnsafeCell::new(0_u64));
        let (head, tail) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let producer = {
            let (bytes, head, tail) = (Arc::clone(&bytes), Arc::clone(&head), Arc::clone(&tail));
            thread::spawn(move || {
                for record in 0..RECORDS {
                    // No room, no record.
                    if tail.look(without_releasing) < record {
                        return;
                    }
                    bytes.with_mut(|_| ());
                    head.advance(record + 1, without_publishing);
                }
            })
        };
        for record in 0..RECORDS {
            if !head.has_moved_from(record, without_publishing) {
                break;
            }
            bytes.with(|_| ());
            tail.advance(record + 1, without_releasing);
        }
        producer.join().unwrap();
    });
}

/// A sleep word of the library's, in loom's memory.
struct Word<'m>(&'m AtomicU64, Without);

impl OwnWord for Word<'_> {
    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn store(&mut self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn fence(&self) {
        if self.1 != Without::WaitersFence {
            fence(SeqCst);
        }
    }
}

/// The other side, as the library's notifier sees it: its word, and doorbells in its socket.
struct Peer<'m>(&'m AtomicU64, &'m AtomicU64, Without);

impl Sleeper for Peer<'_> {
    fn fence(&self) {
        if self.2 != Without::RingersFence {
            fence(SeqCst);
        }
    }

    fn epoch(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn ring(&self) -> Sent {
        self.1.fetch_add(1, AcqRel);
        Sent::Yes
    }
}

/// A half that waits by the library's own loop until its counter moves. It sleeps with [`Error::Timeout`].
struct Half<'m> {
    counter: &'m Counter,
    word: SleepWord<Word<'m>>,
    /// Without one it leaves the doorbells: a half that is asleep with one there wakes.
    socket: Option<&'m AtomicU64>,
    without: Without,
    seen: u64,
}

impl Waiter for Half<'_> {
    type Item = u64;

    /// `Inbox::poll`, `SpaceWaiter::has_space`
    fn attempt(&mut self, _: &mut Budget) -> sealane::Result<Option<u64>> {
        let found = self.counter.look(self.without);
        if found == self.seen {
            return Ok(None);
        }
        self.seen = found;
        self.word.disarm();
        Ok(Some(found))
    }

    fn spin(&mut self, _: Deadline) -> SpinResult {
        SpinResult::GiveUp
    }

    fn poll_socket(&mut self) -> sealane::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> bool {
        self.word.arm(0)
    }

    /// `Consumer::head_moved`, `Producer::has_room`
    fn has_news(&mut self) -> sealane::Result<bool> {
        Ok(self.counter.look(self.without) != self.seen)
    }

    fn read(&mut self) -> sealane::Result<bool> {
        let Some(socket) = self.socket.filter(|socket| socket.load(Acquire) > 0) else { return Ok(false) };
        socket.fetch_sub(1, AcqRel);
        self.word.on_doorbell().expect("a doorbell for each epoch at most");
        Ok(true)
    }

    fn sleep(&mut self, _: Deadline) -> sealane::Result<bool> {
        Err(Error::Timeout)
    }
}

/// The result of a wait.
#[derive(Debug)]
struct Waited {
    seen: u64,
    /// Not all was seen, and it sleeps.
    asleep: bool,
}

/// Waits until `counter` has come to `wanted`. What it sees is given to `see`.
fn wait_for(
    wanted: u64,
    counter: &Counter,
    epoch: &AtomicU64,
    socket: Option<&AtomicU64>,
    without: Without,
    mut see: impl FnMut(u64),
) -> Waited {
    let mut half = Half { counter, word: SleepWord::new(Word(epoch, without)), socket, without, seen: 0 };
    while half.seen < wanted {
        let (mut state, mut budget) = (WaitState::blocking(News::Message), Budget::until(Deadline::Never));
        match run(&mut half, &mut state, &mut budget) {
            Ok(Outcome::Done(seen)) => see(seen),
            _ => return Waited { seen: half.seen, asleep: true },
        }
    }
    Waited { seen: half.seen, asleep: false }
}

/// One side waits, the other has news: for a receiver the counter is `head`, and its epoch is 1 from the start; for a sender
/// that waits for space the counter is `tail`, and its epoch is 0 from the start. The code is the same.
fn sleep_and_ring(first_epoch: u64, without: Without) {
    const NEWS: u64 = 2;
    check(move || {
        let counter = Arc::new(Counter::default());
        let epoch = Arc::new(AtomicU64::new(first_epoch));
        // Doorbells in the socket. The kernel orders its sending and receiving.
        let socket = Arc::new(AtomicU64::new(0));
        let ringer = {
            let (counter, epoch, socket) = (Arc::clone(&counter), Arc::clone(&epoch), Arc::clone(&socket));
            thread::spawn(move || {
                let mut notifier = Notifier::default();
                for news in 1..=NEWS {
                    counter.advance(news, without);
                    notifier.notify(&Peer(&epoch, &socket, without));
                }
            })
        };
        let Waited { seen, asleep } = wait_for(NEWS, &counter, &epoch, None, without, |_| ());
        ringer.join().unwrap();
        assert!(!asleep || socket.load(Acquire) > 0, "asleep with {seen} of {NEWS} seen, and no bell");
    });
}

/// A half that dozes: it sleeps on a futex, whose queue it is in (`FUTEX_WAIT`, `futex(2)`).
struct Dozer<'m> {
    half: Half<'m>,
    /// The word that the kernel compares, and what it was.
    wakes: &'m AtomicU64,
    before: u64,
    queue: &'m Mutex<bool>,
    /// The next sleep is a doze.
    dozes: bool,
    /// A doze ends by itself, before the peer ends it. The next sleep is on the socket.
    times_out: bool,
}

impl Waiter for Dozer<'_> {
    type Item = u64;

    fn attempt(&mut self, budget: &mut Budget) -> sealane::Result<Option<u64>> {
        self.half.attempt(budget)
    }

    fn spin(&mut self, deadline: Deadline) -> SpinResult {
        self.half.spin(deadline)
    }

    fn poll_socket(&mut self) -> sealane::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> bool {
        if self.dozes {
            // `Follower::wakes`
            self.before = self.wakes.load(Relaxed);
            fence(Acquire);
            self.half.word.rearm_on_futex();
            return true;
        }
        self.half.arm()
    }

    fn has_news(&mut self) -> sealane::Result<bool> {
        self.half.has_news()
    }

    fn read(&mut self) -> sealane::Result<bool> {
        self.half.read()
    }

    fn sleep(&mut self, deadline: Deadline) -> sealane::Result<bool> {
        if !self.dozes {
            return self.half.sleep(deadline);
        }
        // The kernel looks at the word while it holds the queue.
        let mut queue = self.queue.lock().unwrap();
        let has_changed = self.wakes.load(Relaxed) != self.before;
        if !has_changed && !self.times_out {
            *queue = true;
            return Err(Error::Timeout);
        }
        drop(queue);
        self.dozes = has_changed;
        self.half.word.disarm();
        Ok(true)
    }
}

/// One of a publisher's subscribers dozes, and is woken on its futex; or its doze ends by itself, and it sleeps on its socket.
/// A transient wake leaves no trace for those who are about to sleep.
fn doze_and_wake(times_out: bool, is_transient: bool, without: Without) {
    const NEWS: u64 = 2;
    // Without a limit it takes some minutes.
    check_with(Some(4), move || {
        let counter = Arc::new(Counter::default());
        let wakes = Arc::new(AtomicU64::new(0));
        let epoch = Arc::new(AtomicU64::new(0));
        let socket = Arc::new(AtomicU64::new(0));
        let queue = Arc::new(Mutex::new(false));
        let publisher = {
            let (counter, epoch) = (Arc::clone(&counter), Arc::clone(&epoch));
            let (socket, queue, wakes) = (Arc::clone(&socket), Arc::clone(&queue), Arc::clone(&wakes));
            thread::spawn(move || {
                let mut notifier = Notifier::default();
                for news in 1..=NEWS {
                    counter.advance(news, without);
                    if notifier.notify(&Peer(&epoch, &socket, without)) == Notified::OnFutex {
                        // `Lanes::wake_dozing`
                        if !is_transient {
                            wakes.store(news, Release);
                        }
                        *queue.lock().unwrap() = false;
                    }
                }
            })
        };
        let word = SleepWord::new(Word(&epoch, without));
        let half = Half { counter: &counter, word, socket: None, without, seen: 0 };
        let mut dozer = Dozer { half, wakes: &wakes, before: 0, queue: &queue, dozes: true, times_out };
        let mut is_asleep = false;
        while dozer.half.seen < NEWS && !is_asleep {
            let (mut state, mut budget) =
                (WaitState::blocking(News::Message), Budget::until(Deadline::Never));
            is_asleep = !matches!(run(&mut dozer, &mut state, &mut budget), Ok(Outcome::Done(_)));
        }
        publisher.join().unwrap();
        let is_woken = if dozer.dozes { !*queue.lock().unwrap() } else { socket.load(Acquire) > 0 };
        assert!(
            !is_asleep || is_woken,
            "asleep with {} of {NEWS} seen, and nobody wakes it",
            dozer.half.seen
        );
    });
}

/// The moments at which a batch of two publications notifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bells {
    /// When it ends (`Outbox::end_batch`), and before it waits for room (`Outbox::wait_for_space`).
    Owed,
    /// Before the last publication, and not after it.
    TooEarly,
    /// When it ends, but not before it waits.
    NotBeforeWaiting,
}

/// A batch of two records: one ring at the end, however the receiver sleeps before, between and after them. It waits for
/// `room` records, as many as the ring has room for at once: with room for one, the sender waits for the receiver, who waits
/// for it.
fn batch(room: u64, bells: Bells, without: Without) {
    const RECORDS: u64 = 2;
    check(move || {
        let (head, tail) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let epochs = Arc::new([AtomicU64::new(1), AtomicU64::new(0)]);
        // Doorbells in the socket, and in the space socket.
        let sockets = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let sender = {
            let (head, tail) = (Arc::clone(&head), Arc::clone(&tail));
            let (epochs, sockets) = (Arc::clone(&epochs), Arc::clone(&sockets));
            thread::spawn(move || {
                let ([receivers, senders], [socket, space]) = (&*epochs, &*sockets);
                let mut notifier = Notifier::default();
                let receiver = Peer(receivers, socket, without);
                for record in 1..=RECORDS {
                    // `Outbox::wait_for_space`
                    if record > room && tail.look(without) < record - room {
                        // `Outbox::flush_notification`
                        if bells != Bells::NotBeforeWaiting {
                            notifier.notify(&receiver);
                        }
                        if wait_for(record - room, &tail, senders, Some(space), without, |_| ()).asleep {
                            return true;
                        }
                    }
                    if bells == Bells::TooEarly && record == RECORDS {
                        notifier.notify(&receiver);
                    }
                    head.advance(record, without);
                }
                // `Outbox::end_batch`
                if bells != Bells::TooEarly {
                    notifier.notify(&receiver);
                }
                false
            })
        };
        let ([receivers, senders], [socket, space]) = (&*epochs, &*sockets);
        let mut notifier = Notifier::default();
        let Waited { seen, asleep } = wait_for(room, &head, receivers, Some(socket), without, |seen| {
            // `Releases::release`
            tail.advance(seen, without);
            notifier.notify(&Peer(senders, space, without));
        });
        let sender_asleep = sender.join().unwrap();
        let [bell, space] = [socket, space].map(|socket| socket.load(Acquire) > 0);
        // A side with a doorbell continues, and rings for the other.
        assert!(!sender_asleep || space || (asleep && bell), "both sleep, and no bell");
        assert!(
            !asleep || bell || (sender_asleep && space),
            "asleep with {seen} of {room} seen, and no bell"
        );
    });
}

#[test]
fn records_are_published_and_released_in_order() {
    ring(Without::Nothing, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn head_is_stored_with_release() {
    ring(Without::Release, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn head_is_loaded_with_acquire() {
    ring(Without::Acquire, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn tail_is_stored_with_release() {
    ring(Without::Nothing, Without::Release);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn tail_is_loaded_with_acquire() {
    ring(Without::Nothing, Without::Acquire);
}

#[test]
fn receiver_is_woken() {
    sleep_and_ring(1, Without::Nothing);
}

#[test]
fn sender_that_waits_for_space_is_woken() {
    sleep_and_ring(0, Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn receiver_needs_its_fence() {
    sleep_and_ring(1, Without::WaitersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn receiver_needs_the_senders_fence() {
    sleep_and_ring(1, Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn waiting_sender_needs_its_fence() {
    sleep_and_ring(0, Without::WaitersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn waiting_sender_needs_the_receivers_fence() {
    sleep_and_ring(0, Without::RingersFence);
}

#[test]
fn subscriber_that_dozes_is_woken() {
    doze_and_wake(false, false, Without::Nothing);
}

#[test]
fn subscriber_whose_doze_ends_by_itself_hears_a_doorbell() {
    doze_and_wake(true, false, Without::Nothing);
}

#[test]
#[should_panic(expected = "and nobody wakes it")]
fn subscriber_that_dozes_needs_its_fence() {
    doze_and_wake(false, false, Without::WaitersFence);
}

#[test]
#[should_panic(expected = "and nobody wakes it")]
fn subscriber_that_dozes_needs_the_publishers_fence() {
    doze_and_wake(false, false, Without::RingersFence);
}

#[test]
#[should_panic(expected = "and nobody wakes it")]
fn subscriber_that_dozes_needs_wakes_that_last() {
    doze_and_wake(false, true, Without::Nothing);
}

#[test]
fn batch_wakes_its_receiver_at_the_end() {
    batch(2, Bells::Owed, Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn batch_notifies_after_its_last_record() {
    batch(2, Bells::TooEarly, Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn batch_needs_the_senders_fence() {
    batch(2, Bells::Owed, Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn receiver_of_a_batch_needs_its_fence() {
    batch(2, Bells::Owed, Without::WaitersFence);
}

#[test]
fn batch_that_waits_for_space_wakes_its_receiver_first() {
    batch(1, Bells::Owed, Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn batch_notifies_before_it_waits_for_space() {
    batch(1, Bells::NotBeforeWaiting, Without::Nothing);
}
