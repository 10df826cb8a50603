//! An exporting bridge that the publisher ends as too slow comes back, and what it has missed is told exactly.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::{LONG, Pair, number, quick, waiting};
use sealane::{Builder, Control, Slow};
use sealane_bridge::{Notice, Received, Subscriber};

/// Receives until `end` is known and all before it was received or told missing. Returns how many were missed.
fn receive(subscriber: &mut Subscriber, end: &AtomicU64) -> u64 {
    let (mut due, mut missed) = (0, 0);
    let deadline = Instant::now() + LONG * 2;
    while due < end.load(Relaxed) {
        assert!(Instant::now() < deadline, "{due} of {}", end.load(Relaxed));
        let lost = match subscriber.recv(Duration::from_millis(100)).unwrap() {
            Some(Received::Message(message)) => {
                due += message.missed();
                assert_eq!(number(message.control()), due);
                due += 1;
                message.missed()
            }
            Some(Received::Notice(Notice::Missed, lost)) => {
                due += lost;
                lost
            }
            Some(other) => panic!("{other:?}"),
            None => 0,
        };
        missed += lost;
    }
    assert_eq!(due, end.load(Relaxed));
    missed
}

#[test]
fn a_bridge_that_was_ended_as_too_slow_comes_back_and_numbers_stay_exact() {
    let mut import = quick();
    import.ring = 16 << 20;
    let publisher = Builder::default().slow(Slow::Wait(Duration::from_millis(1))).ring_capacity(256 << 10);
    let Pair { place: _place, mut publisher, exporter, importer: _importer, mut subscriber } =
        Pair::with(&waiting(), &import, &publisher);
    let exporter = exporter.unwrap();
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let known = Arc::clone(&end);
    let far = thread::spawn(move || receive(&mut subscriber, &known));
    let deadline = Instant::now() + LONG;
    let mut sent = 0_u64;
    // The first subscription counts as a run, and so does each after it.
    while exporter.status()[0].count.runs < 4 {
        assert!(Instant::now() < deadline, "{:?}", exporter.status());
        let mut loan = publisher.loan(32 << 10).unwrap();
        loan.fill(7);
        loan.send_with(Control::of(&sent)).unwrap();
        sent += 1;
    }
    for _ in 0..10 {
        common::publish(&mut publisher, sent);
        sent += 1;
    }
    end.store(sent, Relaxed);
    let missed = far.join().unwrap();
    assert!(missed > 0, "nothing was missed of {sent}");
}
