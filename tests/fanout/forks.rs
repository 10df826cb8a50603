//! Forks and daemons: a publisher goes on in the process that uses it, and copies that a fork drops are not noticed.
//!
//! They are apart from other tests, because a fork keeps every descriptor that another test has open until it ends.
#![expect(unsafe_code, reason = "`daemon` has no safe interface here")]

mod fan;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env, io,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sealane::{Builder, Error, Event, Publisher, Slow, Subscriber};

use crate::{
    fan::{OVERRUN, join},
    support::{
        forks::{end, in_fork},
        hostile::{
            LONG, Packet, Player, READY,
            fanout::{FOREVER, greet, subscriber_hello},
        },
        is_abandoned, role, socket_path,
        threads::bounded,
    },
};

const RING: usize = 16 << 10;
const PAYLOAD: usize = 1000;
/// The path at which the daemon publishes.
const PATH: &str = "FANOUT_DAEMON";

/// One test at a time: each fork has a copy of all descriptors.
static TURNS: Mutex<()> = Mutex::new(());

fn builder() -> Builder {
    Builder::default().ring_capacity(RING).max_fds(4).slow(Slow::Wait(Duration::MAX))
}

fn works(publisher: &mut Publisher, subscribers: &mut [Subscriber]) {
    for byte in 0..40 {
        let mut loan = publisher.loan_timeout(PAYLOAD, LONG).unwrap();
        loan.fill(byte);
        loan.send().unwrap();
        for subscriber in &mut *subscribers {
            let message = subscriber.recv_timeout(LONG).unwrap();
            assert_eq!((message.missed(), message.payload().unwrap().to_vec()), (0, vec![byte; PAYLOAD]));
        }
    }
    for subscriber in &mut *subscribers {
        subscriber.send("back").unwrap();
        assert!(matches!(publisher.wait_event(LONG).unwrap(), Some(Event::Message(..))));
    }
    assert!(publisher.next_event().unwrap().is_none());
    assert_eq!(publisher.subscribers().len(), subscribers.len());
}

#[test]
fn fork_that_drops_a_publisher_is_not_noticed() {
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let mut publisher = builder().publish(&path).unwrap();
    let mut subscribers =
        vec![join(&mut publisher, &builder()).1, join(&mut publisher, &builder().slow(OVERRUN)).1];
    works(&mut publisher, &mut subscribers);
    publisher = in_fork(publisher, drop);
    works(&mut publisher, &mut subscribers);
    assert!(path.exists(), "the path is this process's");
    // A handshake on its way, and one that has begun.
    let (one, ours) = Player::pair();
    publisher.add(ours).unwrap();
    let silent = Player::connect(&path);
    let _kept = greet(&one, &subscriber_hello(FOREVER));
    assert!(publisher.next_event().unwrap().is_none());
    publisher = in_fork(publisher, drop);
    one.send(Packet::new(READY));
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Joined(id)) => assert!(publisher.disconnect(id)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(publisher.next_event().unwrap(), Some(Event::Left(..))));
    assert!(!silent.is_over());
    // Loans and batches that a fork drops.
    let mut batch = publisher.batch();
    let mut loan = batch.loan(PAYLOAD).unwrap();
    loan.fill(9);
    let loan = in_fork(loan, drop);
    drop(loan);
    let batch = in_fork(batch, drop);
    drop(batch);
    works(&mut publisher, &mut subscribers);
    drop(publisher);
    for subscriber in &mut subscribers {
        assert!(matches!(subscriber.recv_timeout(LONG), Err(Error::Disconnected)));
    }
    assert!(!path.exists());
}

#[test]
fn fork_that_drops_a_subscriber_is_not_noticed() {
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let _guard = bounded();
    let mut publisher = builder().publisher().unwrap();
    let mut subscribers =
        vec![join(&mut publisher, &builder()).1, join(&mut publisher, &builder().slow(OVERRUN)).1];
    works(&mut publisher, &mut subscribers);
    subscribers = in_fork(subscribers, drop);
    works(&mut publisher, &mut subscribers);
    // Payloads that a fork drops are held here.
    let mut loan = publisher.loan(PAYLOAD).unwrap();
    loan.fill(5);
    loan.send().unwrap();
    let held: Vec<_> =
        subscribers.iter_mut().map(|subscriber| subscriber.recv_timeout(LONG).unwrap()).collect();
    let held = in_fork(held, drop);
    let mut sent = 0;
    while let Some(mut loan) = publisher.try_loan(PAYLOAD).unwrap() {
        loan.fill(6);
        loan.send().unwrap();
        sent += 1;
        assert!(sent < 100, "nothing holds the publisher up");
    }
    for message in &held {
        assert_eq!(message.payload().unwrap().try_to_vec().unwrap(), [5; PAYLOAD]);
    }
    drop(held);
    for _ in 0..sent {
        assert_eq!(subscribers[0].recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), [6; PAYLOAD]);
    }
    drop(subscribers);
    for _ in 0..2 {
        assert!(matches!(publisher.wait_event(LONG).unwrap(), Some(Event::Left(_, Error::Disconnected))));
    }
}

/// A copy in a fork that uses the subscription takes it along.
#[test]
fn subscription_goes_on_in_the_fork_that_uses_it() {
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let _guard = bounded();
    let mut publisher = builder().publisher().unwrap();
    let subscriber = join(&mut publisher, &builder()).1;
    publisher.send("for the fork").unwrap();
    let subscriber = in_fork(subscriber, |mut subscriber| {
        assert_eq!(subscriber.recv_timeout(LONG).unwrap().control(), b"for the fork");
        subscriber.send("from the fork").unwrap();
        drop(subscriber);
    });
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Message(_, message)) => assert_eq!(message.control(), b"from the fork"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(publisher.wait_event(LONG).unwrap(), Some(Event::Left(_, Error::Disconnected))));
    drop(subscriber);
}

#[test]
fn daemon_goes_on_with_its_publisher() {
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let (ended, its) = io::pipe().unwrap();
    let mut command = role(publishes_in_the_background);
    command.env(PATH, &path).stdin(its);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut early = loop {
        match builder().subscribe(&path) {
            Ok(early) => break early,
            // It has not begun yet.
            Err(Error::Io { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    early.send("one").unwrap();
    assert!(child.wait().unwrap().success(), "the process that was started has ended");
    let mut late = builder().subscribe(&path).unwrap();
    late.send("two").unwrap();
    for subscriber in [&mut early, &mut late] {
        for byte in 0..100 {
            let message = subscriber.recv_timeout(LONG).unwrap();
            assert_eq!((message.missed(), message.payload().unwrap().to_vec()), (0, vec![byte; PAYLOAD]));
        }
        assert!(matches!(subscriber.recv_timeout(LONG), Err(Error::Disconnected)));
    }
    assert!(!path.exists(), "the daemon has dropped its publisher, and its listener first");
    assert!(is_abandoned(&ended));
}

#[test]
#[ignore = "the child of another test"]
fn publishes_in_the_background() {
    let path = env::var_os(PATH).unwrap();
    // All that is published until everybody has read it has room.
    let mut publisher = builder().ring_capacity(256 << 10).publish(Path::new(&path)).unwrap();
    let heard = |publisher: &mut Publisher, text: &[u8]| loop {
        match publisher.wait_event(LONG).unwrap() {
            Some(Event::Message(_, message)) => break assert_eq!(message.control(), text),
            Some(Event::Joined(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    heard(&mut publisher, b"one");
    // SAFETY: the fork has this thread only, as in a program with one thread.
    assert_eq!(unsafe { libc::daemon(1, 1) }, 0, "{}", io::Error::last_os_error());
    let body = AssertUnwindSafe(move || {
        heard(&mut publisher, b"two");
        for byte in 0..100 {
            let mut loan = publisher.loan_timeout(PAYLOAD, LONG).unwrap();
            loan.fill(byte);
            loan.send().unwrap();
        }
        drop(publisher);
    });
    end(i32::from(std::panic::catch_unwind(body).is_err()))
}
