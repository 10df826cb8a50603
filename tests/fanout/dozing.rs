//! Subscribers that sleep on a futex of their publisher's: all are woken at once, and nobody else can keep messages from them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::futex;
use sealane::{Builder, Control, Error, Publisher, Subscriber, Wait};
use vm_memory::VolatileMemory;

use crate::{
    fan::{join, pair},
    support::{
        hostile::{
            DOORBELL, Packet,
            fanout::{FOREVER, RawSubscriber, RawTerms, publish_on},
            memory::Record,
        },
        threads::{SOON, Started, bounded, start},
    },
};

/// The word that they sleep on.
const WAKES: usize = 0x180;

/// The interval between messages. Only what is measured here depends on it.
const INTERVAL: Duration = Duration::from_millis(5);

fn builder() -> Builder {
    Builder::default().wait(Wait::Block)
}

/// Receives numbers, all and in order, up to `u64::MAX`. The doorbells that came.
fn receive(mut subscriber: Subscriber) -> u64 {
    let mut next = 0;
    loop {
        let message = subscriber.recv().unwrap();
        let number = *message.control_as::<u64>().unwrap();
        if number == u64::MAX {
            return subscriber.stats().doorbells_received;
        }
        assert_eq!(number, next);
        next += 1;
    }
}

/// Publishes numbers at intervals until it is enough.
fn stream(publisher: &mut Publisher, mut is_enough: impl FnMut(&Publisher, u64) -> bool) {
    let mut number = 0;
    while !is_enough(publisher, number) {
        publisher.send(Control::of(&number)).unwrap();
        number += 1;
        thread::sleep(INTERVAL);
    }
    publisher.send(Control::of(&u64::MAX)).unwrap();
}

#[test]
fn subscribers_at_short_intervals_are_woken_without_doorbells() {
    let _guard = bounded();
    let mut publisher = builder().publisher().unwrap();
    let subscribers =
        [(); 3].map(|()| join(&mut publisher, &builder()).1).map(|subscriber| start(|| receive(subscriber)));
    // A busy machine may wake them late for a while. Each wake counts as a doorbell that was sent.
    let begun = Instant::now();
    let is_enough = |publisher: &Publisher, number| {
        number >= 200 && publisher.stats().doorbells_sent >= 20 || begun.elapsed() > SOON / 2
    };
    stream(&mut publisher, is_enough);
    let heard: u64 = subscribers.map(Started::result).iter().sum();
    let sent = publisher.stats().doorbells_sent;
    assert!(heard < sent, "{heard} doorbells heard, {sent} wakes");
}

#[test]
fn publisher_that_wakes_nobody_is_heard_and_its_end_noticed() {
    let _guard = bounded();
    let terms = RawTerms { patience: FOREVER, ..RawTerms::default() };
    let (raw, mut subscriber) = publish_on(&builder(), 2, terms);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let mut received = start(move || {
        loop {
            match subscriber.recv() {
                Ok(message) => assert_eq!(message.sequence(), counted.fetch_add(1, Relaxed)),
                Err(error) => return error,
            }
        }
    });
    // Doorbells at first, so that it learns how often messages come; then nothing rings. It dozes, unless the machine is busy.
    let mut end = 0;
    for sequence in 0..4 {
        received = received.asleep();
        end = raw.publish_honestly(end, Record { sequence, payload_len: 64, ..Record::default() });
        if sequence < 3 {
            raw.socket.send(Packet::new(DOORBELL));
            while count.load(Relaxed) <= sequence {
                thread::yield_now();
            }
        }
    }
    drop(raw);
    let error = received.result();
    assert!(matches!(error, Error::Disconnected), "{error}");
    assert_eq!(count.load(Relaxed), 4);
}

#[test]
fn others_that_wake_and_steal_keep_no_message_away() {
    let _guard = bounded();
    let (mut publisher, subscriber) = pair(&builder().max_fds(0));
    let thief = RawSubscriber::join(&mut publisher, 0);
    let memory = thief.mapped_region();
    let is_over = Arc::new(AtomicBool::new(false));
    let thieves: Vec<_> = [true, true, false]
        .into_iter()
        .map(|steals| {
            let (memory, is_over) = (Arc::clone(&memory), Arc::clone(&is_over));
            thread::spawn(move || {
                let slice = memory.as_volatile_slice();
                let word = slice.get_atomic_ref::<AtomicU32>(WAKES).unwrap();
                while !is_over.load(Relaxed) {
                    if steals {
                        let timeout = Duration::from_millis(20).try_into().unwrap();
                        let _ = futex::wait(word, futex::Flags::empty(), word.load(Relaxed), Some(&timeout));
                    } else {
                        let _ = futex::wake(word, futex::Flags::empty(), 1);
                        thread::sleep(INTERVAL / 2);
                    }
                }
            })
        })
        .collect();
    let received = start(|| receive(subscriber));
    stream(&mut publisher, |_, number| number >= 200);
    received.result();
    is_over.store(true, Relaxed);
    for thief in thieves {
        thief.join().unwrap();
    }
}

#[test]
fn publisher_that_ends_wakes_those_who_doze() {
    let _guard = bounded();
    let (mut publisher, mut subscriber) = pair(&builder());
    let received = start(move || {
        loop {
            if let Err(error) = subscriber.recv() {
                return error;
            }
        }
    });
    for number in 0..20_u64 {
        publisher.send(Control::of(&number)).unwrap();
        thread::sleep(INTERVAL);
    }
    let received = received.asleep();
    drop(publisher);
    assert!(matches!(received.result(), Error::Disconnected));
}
