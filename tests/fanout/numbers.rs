//! Messages have a number at their source, which counts what is received and what is missed; a publisher's run has one of its own.

use std::time::Duration;

use sealane::{Builder, Control, Error, Publisher, Slow, Start, Subscriber};

use crate::{
    fan::{OVERRUN, join, pair},
    support::threads::SOON,
};

const POLICIES: [Slow; 2] = [Slow::Wait(Duration::from_millis(100)), OVERRUN];

fn small() -> Builder {
    Builder::default().ring_capacity(64 << 10)
}

fn publish(publisher: &mut Publisher) {
    publisher.loan(100).unwrap().send().unwrap();
}

/// Messages received and missed so far.
fn count(subscriber: &Subscriber) -> u64 {
    subscriber.stats().messages_received + subscriber.missed()
}

#[test]
fn next_message_has_the_number_that_the_publisher_says() {
    for slow in POLICIES {
        let mut publisher = small().publisher().unwrap();
        publish(&mut publisher);
        publisher.lost(4);
        let mut subscriber = join(&mut publisher, &Builder::default().slow(slow)).1;
        assert_eq!(subscriber.number(), 5, "what the handshake said");
        let mut number_behind = |publish: &dyn Fn(&mut Publisher)| {
            publish(&mut publisher);
            publisher.loan(100).unwrap().send().unwrap();
            subscriber.recv_timeout(SOON).unwrap();
            subscriber.number()
        };
        assert_eq!(number_behind(&|_| ()), 6, "the publisher's own");
        assert_eq!(number_behind(&|publisher| publisher.number(1000)), 1001);
        assert_eq!(number_behind(&|_| ()), 1002);
        assert_eq!(number_behind(&|publisher| publisher.lost(3)), 1006);
        let both = |publisher: &mut Publisher| {
            publisher.number(50);
            publisher.lost(2);
        };
        assert_eq!(number_behind(&both), 53, "losses count behind the number");
        let other = |publisher: &mut Publisher| {
            publisher.lost(2);
            publisher.number(70);
        };
        assert_eq!(number_behind(&other), 71, "and not before it");
        assert_eq!(number_behind(&|publisher| publisher.number(u64::MAX)), 0, "numbers wrap");
        assert_eq!(number_behind(&|publisher| publisher.number(0)), 1);
        // The publisher's own numbers once more: nine messages are published, and eleven were lost.
        assert_eq!(number_behind(&|publisher| publisher.number(20)), 21);
        assert_eq!(number_behind(&|_| ()), 22);
    }
}

#[test]
fn number_of_a_message_that_was_refused_is_the_next_ones() {
    let (mut publisher, mut subscriber) = pair(&small().slow(Slow::Wait(Duration::MAX)));
    publisher.number(7);
    let mut next = 7;
    while publisher.try_send(&[0; 4096]).is_ok() {
        next += 1;
    }
    publisher.number(100);
    assert!(matches!(publisher.try_send(&[0; 4096]), Err(Error::Full)));
    while subscriber.try_recv().unwrap().is_some() {}
    assert_eq!(subscriber.number(), next);
    publisher.send("").unwrap();
    subscriber.recv_timeout(SOON).unwrap();
    assert_eq!(subscriber.number(), 101);
}

#[test]
fn number_grows_by_what_is_received_and_missed_whatever_the_call() {
    for slow in POLICIES {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        publisher.number(1 << 40);
        publish(&mut publisher);
        subscriber.recv_timeout(SOON).unwrap();
        let first = subscriber.number() - count(&subscriber);
        for round in 0..200_u32 {
            // One that may be overrun is, now and then, in each kind of call.
            let burst = if slow == OVERRUN && round % 5 == 0 { 500 } else { 10 };
            for n in 0..burst {
                if n % 7 == round % 7 {
                    publisher.lost(u64::from(n));
                    publisher.send("a word").unwrap();
                }
                publish(&mut publisher);
            }
            match round % 4 {
                0 => drop(subscriber.recv_latest_timeout(SOON).unwrap()),
                1 => drop(subscriber.recv_with_timeout(SOON, |_| ()).unwrap()),
                2 => drop(subscriber.try_recv().unwrap().unwrap()),
                _ => while subscriber.try_recv().unwrap().is_some() {},
            }
            assert_eq!(subscriber.number() - count(&subscriber), first, "{slow:?}: {round}");
        }
        assert!(subscriber.missed() > 1000, "{}", subscriber.missed());
    }
}

#[test]
fn number_counts_the_messages_that_were_overrun_at_the_end() {
    let (mut publisher, mut subscriber) = pair(&small().slow(OVERRUN));
    publisher.number(5000);
    publish(&mut publisher);
    subscriber.recv_timeout(SOON).unwrap();
    // The bytes of the last loan, which is not sent, are over all that was published.
    for _ in 0..300 {
        publish(&mut publisher);
    }
    for _ in 0..3 {
        publisher.send(&vec![0; 20_000]).unwrap();
        drop(publisher.loan(30_000).unwrap());
    }
    drop(publisher);
    while subscriber.recv_timeout(SOON).is_ok() {}
    assert_eq!(count(&subscriber), 304);
    assert!(subscriber.missed() >= 300);
    assert_eq!(subscriber.number(), 5000 + 304);
}

#[test]
fn number_counts_a_message_that_was_overrun_while_it_was_read() {
    let (mut publisher, mut subscriber) = pair(&small().slow(OVERRUN));
    publisher.number(30);
    publish(&mut publisher);
    let read = subscriber.recv_with_timeout(SOON, |_| (0..1000).for_each(|_| publish(&mut publisher)));
    assert_eq!(read.unwrap(), None);
    assert_eq!((subscriber.number(), subscriber.missed()), (31, 1));
    subscriber.recv_latest_timeout(SOON).unwrap();
    assert_eq!((subscriber.number(), subscriber.missed()), (30 + 1001, 1000));
}

#[test]
fn number_counts_messages_whose_descriptors_were_left_out() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let (mut publisher, mut subscriber) = pair(&small().max_fds(1).slow(OVERRUN));
    publisher.number(400);
    // Nobody reads meanwhile: the publisher leaves this subscriber out.
    for _ in 0..100 {
        publisher.send(Control::new(b"x").fd(&file)).unwrap();
    }
    publisher.send("last").unwrap();
    while subscriber.recv_timeout(SOON).unwrap().control() != b"last" {
        assert_eq!(subscriber.number() - count(&subscriber), 400);
    }
    assert!(subscriber.missed() > 50, "{} were left out", subscriber.missed());
    assert_eq!((subscriber.number(), count(&subscriber)), (501, 101));
}

#[test]
fn number_counts_what_is_kept_during_a_call_already() {
    for slow in POLICIES {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        publisher.number(10);
        (0..4).for_each(|_| publish(&mut publisher));
        let question = subscriber.request("?").unwrap();
        assert!(subscriber.take_reply(question).unwrap().is_none());
        assert_eq!(subscriber.number(), 14);
        subscriber.recv_timeout(SOON).unwrap();
        subscriber.recv_latest_timeout(SOON).unwrap();
        assert_eq!((subscriber.number(), count(&subscriber)), (14, 4));
    }
}

#[test]
fn latecomer_that_begins_with_the_newest_has_its_number() {
    for slow in POLICIES {
        let mut publisher = small().publisher().unwrap();
        publisher.number(500);
        (0..5).for_each(|_| publish(&mut publisher));
        let mut late = join(&mut publisher, &Builder::default().slow(slow).start(Start::Latest)).1;
        assert_eq!(late.number(), 4, "the publisher's number is not known yet");
        late.recv_timeout(SOON).unwrap();
        assert_eq!((late.number(), late.missed()), (505, 0));
    }
}

#[test]
fn run_is_the_same_for_all_of_a_publishers_subscribers_and_another_for_each_publisher() {
    let builder = small();
    let mut one = builder.publisher().unwrap();
    let mut two = builder.publisher().unwrap();
    let runs = [&mut one, &mut two].map(|publisher| {
        let [first, second] = POLICIES.map(|slow| join(publisher, &builder.clone().slow(slow)).1);
        assert_eq!(first.run(), second.run());
        first.run()
    });
    assert_ne!(runs[0], runs[1]);
    assert!(!runs.contains(&0));
}
