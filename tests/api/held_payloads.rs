//! A caller that holds payloads whose space its peer needs gets an error that says so, and not a plain timeout.

use std::{collections::VecDeque, io, time::Duration};

use sealane::{Builder, Channel, Error, Result, Wait};

use crate::support::threads::{SOON, start};

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);

fn pair(wait: Wait) -> (Channel, Channel) {
    Channel::builder().ring_capacity(64 << 10).wait(wait).pair().unwrap()
}

/// Fills the ring until a loan is refused, which the sleep word shows the peer.
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
            // The request was cancelled, as at any other timeout.
            assert!(matches!(receiver.receiver.wait_reply(request, timeout), Err(Error::UnknownRequest)));
        }
        // Dropping the newest payload makes no space behind the oldest.
        let [first, second, third] = held;
        drop(third);
        assert_holding(receiver.recv_timeout(NOW), (2, size / 3 * 2));
        drop((first, second));
        // No payload is held: the peer is merely silent, though it has not tried again yet.
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
fn payloads_that_the_peer_does_not_need_are_not_blamed() {
    // The sender waits for the socket only.
    let (mut sender, mut receiver) = pair(Wait::Block);
    sender.loan(1000).unwrap().send().unwrap();
    let held = receiver.recv().unwrap();
    let mut packets = 0;
    while sender.try_send(&[1; 500]).is_ok() {
        packets += 1;
    }
    for _ in 0..packets {
        receiver.recv().unwrap();
    }
    assert!(matches!(receiver.recv_timeout(NOW), Err(Error::Timeout)));
    drop(held);

    // The sender has the space that it waited for, and has not tried again.
    fill(&mut sender);
    let mut held = Vec::new();
    while let Some(mut message) = receiver.try_recv().unwrap() {
        held.extend(message.take_payload());
    }
    assert!(sender.try_loan(1000).unwrap().is_none());
    let count = held.len() as u64;
    assert!(
        matches!(receiver.recv_timeout(NOW), Err(Error::TimeoutHolding { count: found, .. }) if found == count)
    );
    held.drain(..4);
    assert!(matches!(receiver.recv_timeout(NOW), Err(Error::Timeout)));
    assert!(sender.try_loan(1000).unwrap().is_some());
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

/// Control bytes ride wherever there is space, which is held with the payload.
#[test]
fn control_bytes_beyond_the_reserve_count_as_payload() {
    for (payload, control, kept) in [(1000, 3000, 3), (0, 1025, 1), (63, 5000, 2), (4000, 2000, 0)] {
        let ring = Builder::ring_for(payload + control, kept);
        let (mut sender, mut receiver) = Channel::builder().ring_capacity(ring).pair().unwrap();
        let mut held = VecDeque::new();
        for n in 0..300 {
            let loan = sender.sender.loan_timeout(payload, SOON).unwrap();
            loan.send_with(&vec![7; [control, 0, control / 2][n % 3]]).unwrap();
            held.push_back(receiver.recv().unwrap());
            if held.len() > kept {
                held.pop_front();
            }
        }
    }
}
