//! The orderings of the shared words under the C++ memory model, by loom, which tries all executions: what is published is
//! there, what is released is done with, and no wake-up is lost. Without any one of the fences something is.
//!
//! The library's own types are handles into mappings of two processes, which loom cannot follow. So each function here has
//! the loads, stores and fences of the one that its comment names, in its order; a change there is to be made here too.

use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread,
};

/// Which fence or ordering is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The waiter's fence, in `Epoch::renew`.
    WaitersFence,
    /// The ringer's fence, in `Bell::ring`.
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
    /// The store in `Producer::publish` and in `Intake::release`.
    fn advance(&self, value: u64, without: Without) {
        self.0.store(value, if without == Without::Release { Relaxed } else { Release });
    }

    /// `Consumer::look` and `Producer::look`.
    fn look(&self, without: Without) -> u64 {
        let value = self.0.load(Relaxed);
        if without != Without::Acquire {
            fence(Acquire);
        }
        value
    }
}

/// Runs all executions of `model`.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
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
            if head.look(without_publishing) == record {
                break;
            }
            bytes.with(|_| ());
            tail.advance(record + 1, without_releasing);
        }
        producer.join().unwrap();
    });
}

/// One side waits, the other has news: for a receiver the counter is `head`, and its epoch is 1 from the start; for a sender
/// that waits for room the counter is `tail`, and its epoch is 0 from the start. The code is the same.
fn sleep_and_ring(first_epoch: u64, without: Without) {
    const NEWS: u64 = 2;
    check(move || {
        let counter = Arc::new(Counter::default());
        let epoch = Arc::new(AtomicU64::new(first_epoch));
        // A doorbell in the socket. The kernel orders its sending and receiving.
        let socket = Arc::new(AtomicBool::new(false));
        let ringer = {
            let (counter, epoch, socket) = (Arc::clone(&counter), Arc::clone(&epoch), Arc::clone(&socket));
            thread::spawn(move || {
                let mut rung = 0;
                for news in 1..=NEWS {
                    counter.advance(news, without);
                    // `Bell::ring`
                    if without != Without::RingersFence {
                        fence(SeqCst);
                    }
                    let seen = epoch.load(Relaxed);
                    if seen & 1 == 1 && seen != rung {
                        socket.store(true, SeqCst);
                        rung = seen;
                    }
                }
            })
        };
        let (mut seen, mut value) = (0, first_epoch);
        let asleep = loop {
            // `Receiver::look`, `Outgoing::has_room`
            let found = counter.look(without);
            if found > seen {
                seen = found;
                if seen == NEWS {
                    break false;
                }
                // `Epoch::disarm`
                if value & 1 == 1 {
                    value += 1;
                    epoch.store(value, Relaxed);
                }
                continue;
            }
            // `Epoch::arm`
            if value & 1 == 0 {
                value += 1;
                epoch.store(value, Relaxed);
                if without != Without::WaitersFence {
                    fence(SeqCst);
                }
            }
            // `Consumer::head_moved`, `Producer::has_room`
            if counter.look(without) != seen {
                continue;
            }
            break true;
        };
        ringer.join().unwrap();
        assert!(!asleep || socket.load(SeqCst), "asleep with {seen} of {NEWS} seen, and no bell");
    });
}

#[test]
fn records_are_there_and_released_ones_are_done_with() {
    ring(Without::Nothing, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_head_without_release_comes_before_its_record() {
    ring(Without::Release, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_head_without_acquire_comes_before_its_record() {
    ring(Without::Acquire, Without::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_tail_without_release_comes_before_the_reading() {
    ring(Without::Nothing, Without::Release);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_tail_without_acquire_comes_before_the_reading() {
    ring(Without::Nothing, Without::Acquire);
}

#[test]
fn a_receiver_is_woken() {
    sleep_and_ring(1, Without::Nothing);
}

#[test]
fn a_sender_that_waits_for_room_is_woken() {
    sleep_and_ring(0, Without::Nothing);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_receiver_needs_its_fence() {
    sleep_and_ring(1, Without::WaitersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_receiver_needs_the_senders_fence() {
    sleep_and_ring(1, Without::RingersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_waiting_sender_needs_its_fence() {
    sleep_and_ring(0, Without::WaitersFence);
}

#[test]
#[should_panic(expected = "and no bell")]
fn a_waiting_sender_needs_the_receivers_fence() {
    sleep_and_ring(0, Without::RingersFence);
}
