//! Batches: the peer is woken once for many payloads, and gets the space of many messages back at once; nothing else changes.

use std::{
    fs::File,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use sealane::{Channel, Control, Error, Message, Receiver, Result, Sender};
use threads::{SOON, start};

#[path = "support/threads.rs"]
mod threads;

/// Bytes of a ring, and of it what a record with 64 bytes takes.
const RING: usize = 64 << 10;
const RECORD: usize = 128;

fn channel() -> ((Sender, Receiver), (Sender, Receiver)) {
    let (a, b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    (a.split(), b.split())
}

/// Sends the number as a payload of 64 bytes.
fn send(sender: &mut Sender, number: u64) -> Result<()> {
    let mut loan = sender.loan_slice::<u64>(8)?;
    loan.fill(number);
    loan.send()
}

fn number(message: &Message) -> u64 {
    let words = message.payload().unwrap().shared::<u64>().unwrap().to_vec();
    assert_eq!(words, [words[0]; 8]);
    words[0]
}

/// What the batch that begins now has, each released as it is over.
fn numbers(receiver: &mut Receiver) -> Vec<u64> {
    let mut batch = receiver.recv_batch().unwrap();
    let mut numbers = Vec::new();
    while let Some(message) = batch.advance() {
        numbers.push(number(message));
    }
    numbers
}

#[test]
fn a_receiver_is_woken_once_for_a_batch() {
    let ((mut sender, _a), (_b, receiver)) = channel();
    assert_eq!(receiver.stats().doorbells_received, 0, "a new receiver is armed");
    sender.batch(|sender| {
        (0..10).for_each(|n| send(sender, n).unwrap());
        assert_eq!(sender.stats().doorbells_sent, 0);
        // A batch within a batch ends with the outer one.
        sender.batch(|sender| send(sender, 10).unwrap());
        assert_eq!(sender.stats().doorbells_sent, 0);
    });
    assert_eq!(sender.stats().doorbells_sent, 1);
    // After it all is as before.
    let ((mut sender, _a), _peer) = channel();
    sender.batch(|_| ());
    assert_eq!(sender.stats().doorbells_sent, 0, "there was nothing to wake it for");
    send(&mut sender, 0).unwrap();
    assert_eq!(sender.stats().doorbells_sent, 1);
}

#[test]
fn a_sleeping_receiver_gets_a_batch() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    for round in 0..100 {
        let sleeper = start(move || (receiver.recv_timeout(SOON).map(|message| number(&message)), receiver));
        let sleeper = if round == 0 { sleeper.asleep() } else { sleeper };
        sender.batch(|sender| send(sender, round).unwrap());
        let (result, back) = sleeper.result();
        assert_eq!(result.unwrap(), round);
        receiver = back;
    }
}

#[test]
fn a_batch_that_panics_wakes_the_receiver() {
    let ((mut sender, _a), _peer) = channel();
    let panicking = AssertUnwindSafe(|| {
        sender.batch(|sender| {
            send(sender, 1).unwrap();
            panic!("on purpose");
        });
    });
    assert!(catch_unwind(panicking).is_err());
    assert_eq!(sender.stats().doorbells_sent, 1);
}

#[test]
fn a_batch_that_meets_a_full_ring_or_socket_wakes_the_receiver() {
    let ((mut sender, _a), _peer) = channel();
    sender.batch(|sender| {
        while let Some(loan) = sender.try_loan(1000).unwrap() {
            assert_eq!(loan.send().map(drop).ok(), Some(()));
        }
        assert_eq!(sender.stats().doorbells_sent, 1);
    });
    let ((mut sender, _a), _peer) = channel();
    sender.batch(|sender| {
        send(sender, 0).unwrap();
        while sender.try_send(b"").is_ok() {}
        assert!(matches!(sender.try_send(b""), Err(Error::Full)));
        assert_eq!(sender.stats().doorbells_sent, 1);
    });
    // A blocking call too: else both would sleep.
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let count = 3 * RING / RECORD;
    let reader = start(move || {
        let all: Result<Vec<_>> =
            (0..count).map(|_| receiver.recv_timeout(SOON).map(|message| number(&message))).collect();
        (all, receiver)
    })
    .asleep();
    let writer = start(move || {
        sender.batch(|sender| (0..count as u64).try_for_each(|n| send(sender, n)).unwrap());
        sender
    });
    drop(writer.result());
    assert_eq!(reader.result().0.unwrap(), (0..count as u64).collect::<Vec<_>>());
}

#[test]
fn messages_of_a_batch_are_whole_and_in_order() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let file = File::open("/dev/null").unwrap();
    for n in 0..3 {
        send(&mut sender, n).unwrap();
    }
    sender.send(b"alone").unwrap();
    sender.loan(1).unwrap().send_with(b"rides").unwrap();
    sender.loan(2).unwrap().send_with(Control::new(b"with a file").fd(&file)).unwrap();
    sender.loan(3).unwrap().request(b"?").unwrap();
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let mut batch = receiver.recv_batch().unwrap();
        while let Some(message) = batch.advance() {
            let len = message.payload().map(sealane::Payload::len);
            let token = message.reply_token();
            seen.push((message.sequence(), len, message.control().to_vec(), message.fds().len(), token));
        }
    }
    let expected = [
        (0, Some(64), &b""[..], 0),
        (1, Some(64), b"", 0),
        (2, Some(64), b"", 0),
        (3, None, b"alone", 0),
        (4, Some(1), b"rides", 0),
        (5, Some(2), b"with a file", 1),
        (6, Some(3), b"?", 0),
    ];
    for (found, (sequence, len, control, fds)) in seen.iter().zip(expected) {
        assert_eq!((found.0, found.1, &*found.2, found.3), (sequence, len, control, fds));
        assert_eq!(found.4.is_some(), sequence == 6, "only the request wants a reply");
    }
    assert!(receiver.try_recv_batch().unwrap().is_none());
    assert_eq!(receiver.stats().messages_received, 7);
    assert_eq!(receiver.stats().fds_received, 1);
    assert_eq!(receiver.stats().bytes_received, 3 * 64 + 5 + 6 + 13 + 4);
}

#[test]
fn a_batch_gives_its_space_back_at_the_end() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    for n in 0..4 {
        send(&mut sender, n).unwrap();
    }
    let mut batch = receiver.recv_batch().unwrap();
    for n in 0..3 {
        assert_eq!(number(batch.advance().unwrap()), n);
    }
    drop(batch);
    assert_eq!(receiver.held().count, 0);
    assert_eq!(numbers(&mut receiver), [3]);
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    // As large as it can be: all of the ring is free.
    assert!(sender.has_space(RING - 64).unwrap());
}

/// Fills the ring with payloads of `len` bytes, and says how many there was room for.
fn full(sender: &mut Sender, len: usize) -> usize {
    let mut count = 0;
    while let Some(loan) = sender.try_loan(len).unwrap() {
        loan.send().unwrap();
        count += 1;
    }
    count
}

#[test]
fn a_long_batch_gives_its_space_back_bit_by_bit() {
    // 32 records, or an eighth of the ring, whichever comes first: and the one that is given out is not over.
    for (len, over) in [(64, 32), (RING / 32 - 64, 4)] {
        let ((mut sender, _a), (_b, mut receiver)) = channel();
        let count = RING / (len + 64);
        // As many as there are, but nobody has said no.
        for _ in 0..count {
            sender.loan(len).unwrap().send().unwrap();
        }
        let mut batch = receiver.recv_batch().unwrap();
        for _ in 0..=over {
            batch.advance().unwrap();
        }
        assert_eq!(full(&mut sender, len), over);
        // A sender that has been told "no" gets what is over with the next message.
        batch.advance().unwrap();
        assert_eq!(full(&mut sender, len), 1);
        drop(batch);
        assert_eq!(receiver.held().count, 0);
    }
}

#[test]
fn what_is_taken_out_of_a_batch_stays() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    for n in 0..100 {
        send(&mut sender, n).unwrap();
    }
    let mut batch = receiver.recv_batch().unwrap();
    let mut taken = Vec::new();
    let mut n = 0;
    while let Some(message) = batch.advance() {
        assert_eq!(number(message), n);
        if n % 3 == 1 {
            taken.push((n, message.take_payload().unwrap()));
        }
        n += 1;
    }
    assert_eq!(n, 100);
    drop(batch);
    assert_eq!(receiver.held().count, taken.len() as u64);
    assert!(receiver.held().oldest.is_some());
    // All but the first record, which is before the oldest that was taken, is held: what goes on cannot overwrite it.
    let mut sent = 0;
    while sender.has_space(64).unwrap() {
        send(&mut sender, 1000 + sent).unwrap();
        sent += 1;
    }
    assert_eq!(sent, (RING / RECORD) as u64 - 99);
    for (n, payload) in taken {
        assert_eq!(payload.shared::<u64>().unwrap().to_vec(), [n; 8]);
    }
    assert_eq!(numbers(&mut receiver), (1000..1000 + sent).collect::<Vec<_>>());
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
}

#[test]
fn a_batch_that_was_not_asked_for_anything_loses_nothing() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    for n in 0..3 {
        send(&mut sender, n).unwrap();
    }
    drop(receiver.recv_batch().unwrap());
    drop(receiver.try_recv_batch().unwrap());
    assert_eq!(number(&receiver.recv_timeout(Duration::ZERO).unwrap()), 0);
    assert_eq!(numbers(&mut receiver), [1, 2]);
}

#[test]
fn messages_that_change_places_are_released_where_they_came_from() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let ((mut other_sender, _c), (_d, mut other)) = channel();
    for n in 0..4 {
        send(&mut sender, n).unwrap();
        send(&mut other_sender, 100 + n).unwrap();
    }
    let (mut one, mut two) = (receiver.recv_batch().unwrap(), other.recv_batch().unwrap());
    for n in 0..4 {
        let (left, right) = (one.advance().unwrap(), two.advance().unwrap());
        assert_eq!((number(left), number(right)), (n, 100 + n));
        mem::swap(left, right);
        assert_eq!((number(left), number(right)), (100 + n, n));
    }
    drop((one, two));
    for receiver in [&receiver, &other] {
        assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    }
    assert!(sender.has_space(RING - 64).unwrap() && other_sender.has_space(RING - 64).unwrap());
}

#[test]
fn the_end_comes_after_the_batch() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    sender.batch(|sender| (0..2).for_each(|n| send(sender, n).unwrap()));
    drop(sender);
    assert_eq!(numbers(&mut receiver), [0, 1]);
    assert!(matches!(receiver.recv_batch(), Err(Error::Disconnected)));
}
