//! Local subscribers of an import that ask: none of them holds up another, and what waits for each is bounded.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Echo, LONG, Pair, next, publish, quick, wait_until};
use sealane::{Builder, Error, Slow, Subscriber};
use sealane_bridge::{Bridge, CallError, Settings};

/// A subscriber that asks without waiting for replies.
struct Asker(Subscriber);

impl Asker {
    fn new(pair: &Pair) -> Self {
        let subscriber = Builder::default().slow(Slow::Overrun).subscribe(pair.place.remote()).unwrap();
        Self(subscriber)
    }

    fn ask(&mut self, count: usize, control: &[u8]) {
        for _ in 0..count {
            self.0.request_timeout(control, LONG).unwrap();
        }
    }

    /// The reply that is there within `timeout`, to whichever request.
    fn reply(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok(message) if message.in_reply_to().is_some() => return Some(message.control().to_vec()),
                Ok(_) => {}
                Err(why) if why.is_timeout() => return None,
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// Asks so often, and says how many requests were refused as too many.
    fn refused(&mut self, count: usize, importer: &Bridge) -> usize {
        let before = importer.status()[0].count.calls;
        self.ask(count, b"gain?");
        wait_until("all are heard", || importer.status()[0].count.calls - before == count as u64);
        let mut refused = 0;
        while let Some(reply) = self.reply(Duration::from_millis(300)) {
            assert_eq!(CallError::of(&reply), Some(CallError::Busy));
            refused += 1;
        }
        refused
    }
}

/// Calls last longer than a test.
fn long_calls() -> Settings {
    let mut settings = quick();
    settings.call_timeout = LONG;
    settings
}

#[test]
fn a_subscriber_that_does_not_read_its_replies_holds_up_no_other() {
    let mut pair = Pair::new(&long_calls(), &long_calls());
    let mut lazy = Asker::new(&pair);
    let echo = Echo::start(pair.publisher);
    let control = vec![7; 20_000];
    // Its socket has room for ten.
    lazy.ask(100, &control);
    for _ in 0..50 {
        assert_eq!(pair.subscriber.call(b"gain?", LONG).unwrap().control(), b"echo gain?");
    }
    // All of them come once it reads, without anything else that happens.
    drop((pair.exporter.take(), echo));
    for index in 0..100 {
        let reply = lazy.reply(LONG).unwrap_or_else(|| panic!("reply {index}"));
        assert_eq!(reply, [b"echo ", &control[..]].concat());
    }
}

#[test]
fn refusals_wait_too_are_counted_once_and_end_with_the_requests_that_may_be_open() {
    let mut pair = Pair::new(&long_calls(), &long_calls());
    let importer = pair.importer.take().unwrap();
    drop(pair.exporter.take());
    let mut lazy = Asker::new(&pair);
    lazy.ask(1024, b"gain?");
    let Err(Error::TooManyRequests { max: 1024 }) = lazy.0.try_request(b"gain?") else { panic!() };
    wait_until("all have failed", || importer.status()[0].count.failed_calls == 1024);
    // Those that wait are tried again and again.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(importer.status()[0].count.failed_calls, 1024);
    for index in 0..1024 {
        let reply = lazy.reply(LONG).unwrap_or_else(|| panic!("reply {index}"));
        assert!(CallError::of(&reply).is_some());
    }
}

#[test]
fn one_subscriber_does_not_use_up_the_requests_of_all() {
    let mut pair = Pair::new(&long_calls(), &long_calls());
    let importer = pair.importer.take().unwrap();
    let [mut first, mut second, mut third] = [(); 3].map(|()| Asker::new(&pair));
    // Nobody answers: 256 at most are open, and each subscriber has no more than are free.
    assert_eq!(first.refused(300, &importer), 300 - 128);
    assert_eq!(second.refused(100, &importer), 100 - 64);
    assert_eq!(third.refused(100, &importer), 100 - 32);
    assert_eq!(first.refused(10, &importer), 10);
}

#[test]
fn what_waits_for_a_subscriber_that_leaves_is_forgotten() {
    let mut pair = Pair::new(&long_calls(), &long_calls());
    let importer = pair.importer.take().unwrap();
    let mut lazy = Asker::new(&pair);
    let echo = Echo::start(pair.publisher);
    lazy.ask(128, &vec![7; 20_000]);
    wait_until("all are heard", || importer.status()[0].count.calls == 128);
    pair.publisher = echo.stop();
    drop(lazy);
    wait_until("it is gone", || importer.status()[0].subscribers == 1);
    // Those that the publisher has not answered are open until it does.
    let echo = Echo::start(pair.publisher);
    wait_until("all were answered", || pair.exporter.as_ref().unwrap().status()[0].count.calls == 128);
    assert_eq!(pair.subscriber.call(b"gain?", LONG).unwrap().control(), b"echo gain?");
    pair.publisher = echo.stop();
    assert_eq!(Asker::new(&pair).refused(200, &importer), 200 - 128);
}

#[test]
fn subscribers_that_send_without_end_hold_up_no_messages() {
    let mut pair = Pair::new(&quick(), &quick());
    let stop = Arc::new(AtomicBool::new(false));
    let floods = [(); 3].map(|()| {
        let (mut asker, stop) = (Asker::new(&pair), Arc::clone(&stop));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let _ = asker.0.send_timeout(b"a message", LONG);
            }
        })
    });
    for number in 0..200 {
        publish(&mut pair.publisher, number);
        let (control, missed) = next(&mut pair.subscriber);
        assert_eq!((common::number(&control), missed), (number, 0));
    }
    stop.store(true, Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
}
