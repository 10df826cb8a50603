//! Who holds payloads that its peer needs the room of is told so, instead of waiting for nothing.

#[path = "support/threads.rs"]
mod threads;

use std::{io, time::Duration};

use sealane::{Channel, Error, Result, Wait};
use threads::{SOON, start};

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);

fn pair(wait: Wait) -> (Channel, Channel) {
    Channel::builder().ring_capacity(64 << 10).wait(wait).pair().unwrap()
}

/// Sends so much that there is no more room, and says so to the peer.
fn fill(sender: &mut Channel) {
    while let Some(loan) = sender.try_loan(1000).unwrap() {
        loan.send().unwrap();
    }
}

fn assert_holding<T: std::fmt::Debug>(result: Result<T>, expected: (u64, u64)) {
    match result {
        Err(Error::TimeoutHolding { count, bytes }) => assert_eq!((count, bytes), expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deadline_says_that_what_is_held_here_keeps_the_peer_from_sending() {
    for wait in [Wait::default(), Wait::Block, Wait::Spin] {
        let (mut sender, mut receiver) = pair(wait);
        fill(&mut sender);
        let mut payload = || receiver.recv().unwrap().take_payload().unwrap();
        let held = [payload(), payload(), payload()];
        while receiver.try_recv().unwrap().is_some() {}
        fill(&mut sender);
        let size = held.iter().map(|payload| payload.len().next_multiple_of(64) as u64 + 64).sum();
        for timeout in [NOW, SHORT] {
            assert_holding(receiver.recv_timeout(timeout), (3, size));
            assert_holding(receiver.call(b"?", timeout), (3, size));
            let request = receiver.request(b"?").unwrap();
            assert_holding(receiver.receiver.wait_reply(request, timeout), (3, size));
            // It was given up, as at any other timeout.
            assert!(matches!(receiver.receiver.wait_reply(request, timeout), Err(Error::UnknownRequest)));
        }
        // The newest is given back: that makes no room behind the oldest.
        let [first, second, third] = held;
        drop(third);
        assert_holding(receiver.recv_timeout(NOW), (2, size / 3 * 2));
        drop((first, second));
        // Nothing is held: the peer is merely silent, though it has not tried again yet.
        assert!(matches!(receiver.recv_timeout(NOW), Err(Error::Timeout)));
        fill(&mut sender);
        receiver.recv_timeout(SOON).unwrap();
    }
}

#[test]
fn a_peer_that_does_not_wait_is_not_held_up() {
    let (mut sender, mut receiver) = pair(Wait::Block);
    sender.loan(1000).unwrap().send().unwrap();
    let held = receiver.recv().unwrap();
    assert!(matches!(receiver.recv_timeout(NOW), Err(Error::Timeout)));
    assert!(matches!(receiver.call(b"?", NOW), Err(Error::Timeout)));
    drop(held);
}

#[test]
fn a_peer_that_sleeps_for_room_is_seen_too() {
    let (mut sender, mut receiver) = pair(Wait::Block);
    // Half of the ring, behind which as much has no room: a line of control bytes is more than is reserved.
    let len = (32 << 10) - 1088;
    sender.loan(len).unwrap().send_with(&[0; 1025]).unwrap();
    let held = receiver.recv().unwrap();
    let sending = start(move || sender.sender.loan_timeout(len, SOON).and_then(sealane::Loan::send)).asleep();
    assert_holding(receiver.recv_timeout(SHORT), (1, (32 << 10) + 64));
    drop(held);
    sending.result().unwrap();
    receiver.recv_timeout(SOON).unwrap();
}

#[test]
fn the_error_says_what_to_do_about_it() {
    let error = Error::TimeoutHolding { count: 3, bytes: 4_100_000 };
    assert!(!error.is_fatal());
    assert_eq!(
        error.to_string(),
        "the deadline passed, while the peer waits for room in its ring: 3 payloads of 4100000 bytes are held here"
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
}
