//! Batches wake the peer once for many payloads, and release the space of many messages at once. They change nothing else.

use std::{
    fs::File,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealane::{Channel, Control, Error, Loan, Message, Receiver, RecvBatch, Result, SendBatch, Sender, Wait};

use crate::support::threads::{SOON, start};

/// Bytes of a ring, and of a record with 64 bytes of payload.
const RING: usize = 64 << 10;
/// The longest payload.
const MOST: usize = RING / 2 - 1088;
/// Bytes that a loan reserves for control bytes: at the end of a full ring they are free.
const RESERVE: usize = 1024;
const RECORD: usize = 128;

fn channel() -> ((Sender, Receiver), (Sender, Receiver)) {
    let (a, b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    (a.split(), b.split())
}

/// True if the sender's descriptor is readable.
fn readable(sender: &Sender) -> bool {
    let mut fds = [PollFd::new(sender, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
}

/// Sends the number as a payload of 64 bytes.
fn send(sender: &mut Sender, number: u64) -> Result<()> {
    fill(sender.loan_slice(8)?, number)
}

/// Sends the number in a batch.
fn send_in(batch: &mut SendBatch<'_>, number: u64) -> Result<()> {
    fill(batch.loan_slice(8)?, number)
}

fn fill(mut loan: Loan<'_, u64>, number: u64) -> Result<()> {
    loan.fill(number);
    loan.send()
}

fn number(message: &Message) -> u64 {
    let words = message.payload().unwrap().shared::<u64>().unwrap().to_vec();
    assert_eq!(words, [words[0]; 8]);
    words[0]
}

/// The numbers of the next batch's messages, each released before the next one.
fn numbers(receiver: &mut Receiver) -> Vec<u64> {
    let mut batch = receiver.recv_batch().unwrap();
    let mut numbers = Vec::new();
    while let Some(message) = batch.next() {
        numbers.push(number(&message));
    }
    numbers
}

#[test]
fn a_receiver_is_woken_once_for_a_batch() {
    let ((mut sender, _a), (_b, receiver)) = channel();
    assert_eq!(receiver.stats().doorbells_received, 0, "a new receiver is armed");
    let mut batch = sender.batch();
    (0..10).for_each(|n| send_in(&mut batch, n).unwrap());
    assert_eq!(batch.stats().doorbells_sent, 0);
    drop(batch);
    assert_eq!(sender.stats().doorbells_sent, 1);
    // The batch changes nothing after its end.
    let ((mut sender, _a), _peer) = channel();
    drop(sender.batch());
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
        send_in(&mut sender.batch(), round).unwrap();
        let (result, back) = sleeper.result();
        assert_eq!(result.unwrap(), round);
        receiver = back;
    }
}

/// Writing large payloads takes longer than a look at the receiver's epoch.
#[test]
fn a_receiver_is_woken_within_a_batch_for_many_bytes() {
    let (mut sender, _peer) = Channel::pair().unwrap();
    let mut batch = sender.sender.batch();
    let send = |len| {
        batch.loan(len).unwrap().send().unwrap();
        batch.stats().doorbells_sent
    };
    // Records of 64 KiB, header included: of 256 KiB together.
    assert_eq!([(64 << 10) - 64; 4].map(send), [0, 0, 0, 1]);
    drop(batch);
    assert_eq!(sender.stats().doorbells_sent, 1, "it has been rung for all");
    sender.sender.batch().loan((256 << 10) - 64).unwrap().send().unwrap();
    assert_eq!(sender.stats().doorbells_sent, 1, "it has not slept since");
}

#[test]
fn a_batch_that_panics_wakes_the_receiver() {
    let ((mut sender, _a), _peer) = channel();
    let panicking = AssertUnwindSafe(|| {
        let mut batch = sender.batch();
        send_in(&mut batch, 1).unwrap();
        panic!("on purpose");
    });
    assert!(catch_unwind(panicking).is_err());
    assert_eq!(sender.stats().doorbells_sent, 1);
}

#[test]
fn a_batch_that_is_flushed_wakes_the_receiver_and_stays_open() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let mut batch = sender.batch();
    for round in 0..3 {
        let sleeper = start(move || (receiver.recv_timeout(SOON).map(|message| number(&message)), receiver));
        let sleeper = if round == 0 { sleeper } else { sleeper.asleep() };
        send_in(&mut batch, round).unwrap();
        assert_eq!(batch.stats().doorbells_sent, round, "it is not woken yet");
        batch.flush();
        let (result, back) = sleeper.result();
        assert_eq!(result.unwrap(), round);
        receiver = back;
        assert_eq!(batch.stats().doorbells_sent, round + 1);
    }
}

#[test]
fn a_forgotten_batch_is_announced_by_the_next_send() {
    let ((mut sender, _a), _peer) = channel();
    let mut batch = sender.batch();
    send_in(&mut batch, 1).unwrap();
    mem::forget(batch);
    assert_eq!(sender.stats().doorbells_sent, 0);
    send(&mut sender, 2).unwrap();
    assert_eq!(sender.stats().doorbells_sent, 1, "a loan outside of a batch wakes at once");
}

#[test]
fn owned_loans_that_are_sent_later_wake_the_receiver_once() {
    let ((mut sender, _), (_, mut receiver)) = channel();
    for round in 1..=3 {
        let count = std::iter::from_fn(|| receiver.try_recv().unwrap()).count();
        assert_eq!(count, if round == 1 { 0 } else { 5 });
        assert!(receiver.arm().unwrap());
        for _ in 0..5 {
            let loan = sender.into_loan(8, SOON).unwrap();
            sender = loan.try_send_later("x").unwrap();
            assert_eq!(sender.stats().doorbells_sent, round - 1, "it is not woken yet");
        }
        let mut loan = sender.into_loan(8, SOON).unwrap();
        match round {
            1 => {
                loan.flush();
                sender = loan.discard();
            }
            2 => {
                sender = loan.discard();
                sender.batch().flush();
            }
            _ => sender = loan.send().unwrap(),
        }
        assert_eq!(sender.stats().doorbells_sent, round);
    }
    assert_eq!(std::iter::from_fn(|| receiver.try_recv().unwrap()).count(), 6);
    // Somebody waits for a reply.
    assert!(receiver.arm().unwrap());
    let unsent = sender.into_loan(8, SOON).unwrap().try_send_later(&vec![0; 1 << 20]).unwrap_err();
    let loan = unsent.into_loan();
    sender = loan.try_request("?").unwrap().0;
    assert_eq!(sender.stats().doorbells_sent, 4);
}

#[test]
fn requests_and_replies_of_a_batch_wake_the_receiver_at_once() {
    let ((mut sender, mut answers), (mut replies, mut questions)) = channel();
    let sleeper = start(move || (questions.recv(), questions)).asleep();
    let mut batch = sender.batch();
    let request = batch.loan(8).unwrap().request(b"?").unwrap();
    let (question, mut questions) = sleeper.result();
    let token = question.unwrap().reply_token().unwrap();
    let sleeper = start(move || (answers.recv(), answers)).asleep();
    let mut batch_of_replies = replies.batch();
    batch_of_replies.loan(8).unwrap().reply(token, b"!").unwrap();
    assert_eq!(sleeper.result().0.unwrap().in_reply_to(), Some(request));
    assert!(questions.try_recv().unwrap().is_none());
}

/// The peer is woken for what was sent before, however the batch ends and whatever it refused.
#[test]
fn a_batch_in_which_something_fails_wakes_the_receiver() {
    let file = File::open("/dev/null").unwrap();
    let fails: [fn(&mut SendBatch<'_>, &File) -> Error; 6] = [
        |batch, _| batch.try_loan(RING).unwrap_err(),
        |batch, _| batch.loan(8).unwrap().send_with(&[0; 2000]).unwrap_err(),
        |batch, _| batch.send(&[0; 2000]).unwrap_err(),
        |batch, _| batch.request(&[0; 2000]).unwrap_err(),
        |batch, file| {
            let control = (0..300).fold(Control::new(b""), |control, _| control.fd(file));
            batch.loan(8).unwrap().try_send_with(control).unwrap_err().into_error()
        },
        |batch, file| {
            while batch.loan(8).unwrap().try_send_with(Control::new(b"").fd(file)).is_ok() {}
            batch.loan(8).unwrap().try_send_with(Control::new(b"").fd(file)).unwrap_err().into_error()
        },
    ];
    for (at, fails) in fails.into_iter().enumerate() {
        let (a, b) = Channel::builder().ring_capacity(RING).max_control(1000).pair().unwrap();
        let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
        let mut fails_in_the_middle = || {
            let mut batch = sender.batch();
            send_in(&mut batch, 7)?;
            Err::<(), _>(fails(&mut batch, &file))
        };
        let error = fails_in_the_middle().unwrap_err();
        assert_eq!(sender.stats().doorbells_sent, 1, "{at}: {error:?}");
        assert_eq!(number(&receiver.recv_timeout(SOON).unwrap()), 7);
    }
}

/// A packet is sent at once in a batch too; records that were published before it are read before it.
#[test]
fn packets_and_requests_of_a_batch_are_in_order() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let sleeper = start(move || (receiver.recv(), receiver)).asleep();
    let mut batch = sender.batch();
    send_in(&mut batch, 0).unwrap();
    // It wakes the receiver, which finds the record first.
    batch.request(b"?").unwrap();
    let (first, mut receiver) = sleeper.result();
    assert_eq!(number(&first.unwrap()), 0);
    assert!(receiver.recv_timeout(SOON).unwrap().reply_token().is_some());
    // The receiver sleeps again: the next record is not announced before the batch ends.
    let sleeper = start(move || (receiver.recv(), receiver)).asleep();
    send_in(&mut batch, 2).unwrap();
    drop(batch);
    let (message, receiver) = sleeper.result();
    assert_eq!(number(&message.unwrap()), 2);
    assert_eq!((receiver.stats().messages_received, receiver.held().count), (3, 0));
}

#[test]
fn a_batch_to_nobody_says_so() {
    let ((mut sender, _a), (_b, receiver)) = channel();
    let mut batch = sender.batch();
    send_in(&mut batch, 0).unwrap();
    drop(receiver);
    // The sender learns of the peer's end at the latest when it notifies.
    drop(batch);
    assert!(matches!(send(&mut sender, 1), Err(Error::Disconnected)));
}

#[test]
fn a_batch_that_meets_a_full_ring_or_socket_wakes_the_receiver() {
    let ((mut sender, _a), _peer) = channel();
    let mut batch = sender.batch();
    while let Some(loan) = batch.try_loan(1000).unwrap() {
        assert_eq!(loan.send().map(drop).ok(), Some(()));
    }
    assert_eq!(batch.stats().doorbells_sent, 1);
    drop(batch);
    let file = File::open("/dev/null").unwrap();
    let ((mut sender, _a), _peer) = channel();
    let mut batch = sender.batch();
    send_in(&mut batch, 0).unwrap();
    let mut try_send = || Ok(batch.loan(0)?.try_send_with(Control::new(b"").fd(&file))?);
    let error = std::iter::repeat_with(&mut try_send).find_map(Result::err);
    assert!(matches!(error, Some(Error::Full | Error::FdsInFlight)));
    assert_eq!(batch.stats().doorbells_sent, 1);
    drop(batch);
    // A blocking call wakes the receiver too, since both would sleep otherwise.
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let count = 3 * RING / RECORD;
    let reader = start(move || {
        let all: Result<Vec<_>> =
            (0..count).map(|_| receiver.recv_timeout(SOON).map(|message| number(&message))).collect();
        (all, receiver)
    })
    .asleep();
    let writer = start(move || {
        let mut batch = sender.batch();
        (0..count as u64).try_for_each(|n| send_in(&mut batch, n)).unwrap();
        drop(batch);
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
        while let Some(message) = batch.next() {
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
        assert_eq!(number(&batch.next().unwrap()), n);
    }
    drop(batch);
    assert_eq!(receiver.held().count, 0);
    assert_eq!(numbers(&mut receiver), [3]);
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    // The largest record fits: all of the ring is free.
    assert!(sender.has_space(MOST).unwrap());
}

/// Fills the ring with payloads of `len` bytes, and returns their number.
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
    // The batch releases after 32 records or an eighth of the ring, whichever comes first. The lent message does not
    // count.
    for (len, over) in [(64, 32), (RING / 32 - 64, 4)] {
        for short in [true, false] {
            let ((mut sender, _a), (_b, mut receiver)) = channel();
            let lost = RESERVE.div_ceil(len + 64);
            let count = RING / (len + 64) - lost;
            // The ring is full, but no call was refused.
            for _ in 0..count {
                sender.loan(len).unwrap().send().unwrap();
            }
            let mut batch = receiver.recv_batch().unwrap();
            for _ in usize::from(short)..=over {
                batch.next().unwrap();
            }
            if short {
                assert_eq!(full(&mut sender, len), 0, "one less is kept");
                continue;
            }
            assert_eq!(full(&mut sender, len), over - lost);
            // A sender that was refused gets the space of the previous message with the next one.
            batch.next().unwrap();
            assert_eq!(full(&mut sender, len), 1);
            drop(batch);
            assert_eq!(receiver.held().count, 0);
        }
    }
}

#[test]
fn payloads_taken_out_of_a_batch_stay() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    for n in 0..100 {
        send(&mut sender, n).unwrap();
    }
    let mut batch = receiver.recv_batch().unwrap();
    let mut taken = Vec::new();
    let mut n = 0;
    while let Some(mut message) = batch.next() {
        assert_eq!(number(&message), n);
        if n % 3 == 1 {
            taken.push((n, message.take_payload().unwrap()));
        }
        n += 1;
    }
    assert_eq!(n, 100);
    drop(batch);
    assert_eq!(receiver.held().count, taken.len() as u64);
    assert!(receiver.held().oldest.is_some());
    // All records are held but the first, which is before the oldest that was taken: later records cannot overwrite
    // them.
    let mut sent = 0;
    while sender.has_space(64).unwrap() {
        send(&mut sender, 1000 + sent).unwrap();
        sent += 1;
    }
    assert_eq!(sent, ((RING - RESERVE) / RECORD) as u64 - 100);
    for (n, payload) in taken {
        assert_eq!(payload.shared::<u64>().unwrap().to_vec(), [n; 8]);
    }
    assert_eq!(numbers(&mut receiver), (1000..1000 + sent).collect::<Vec<_>>());
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    assert!(sender.has_space(MOST).unwrap());
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
fn the_end_comes_after_the_batch() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let mut batch = sender.batch();
    (0..2).for_each(|n| send_in(&mut batch, n).unwrap());
    drop(batch);
    drop(sender);
    assert_eq!(numbers(&mut receiver), [0, 1]);
    assert!(matches!(receiver.recv_batch(), Err(Error::Disconnected)));
}

/// The next call then backs off, unless it never spins or does not wait.
#[test]
fn a_batch_ends_where_it_is_close_behind_a_sender_that_goes_on() {
    type Begin = fn(&mut Receiver) -> RecvBatch<'_>;
    let waits: Begin = |receiver| receiver.recv_batch().unwrap();
    let tries: Begin = |receiver| receiver.try_recv_batch().unwrap().unwrap();
    for (wait, begin, rests) in
        [(Wait::Spin, waits, true), (Wait::Spin, tries, false), (Wait::Block, waits, false)]
    {
        let (a, b) = Channel::builder().ring_capacity(RING).wait(wait).pair().unwrap();
        let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
        let (mut next, mut ended_early) = (0, 0);
        for _ in 0..100 {
            send(&mut sender, next).unwrap();
            let mut batch = begin(&mut receiver);
            assert_eq!(batch.next().map(|message| number(&message)), Some(next));
            send(&mut sender, next + 1).unwrap();
            let more = batch.next().map(|message| number(&message));
            drop(batch);
            ended_early += u32::from(more.is_none());
            let second = more.unwrap_or_else(|| number(&receiver.recv_timeout(SOON).unwrap()));
            assert_eq!(second, next + 1);
            next += 2;
        }
        assert_eq!(ended_early > 0, rests, "{wait:?}");
    }
}

#[test]
fn a_batch_does_not_overtake_what_was_kept() {
    let (mut a, mut b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    let request = a.request(b"?").unwrap();
    let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
    let send = |b: &mut Channel, n| send(&mut b.sender, n).unwrap();
    (0..3).for_each(|n| send(&mut b, n));
    b.reply(token, b"!").unwrap();
    assert_eq!(a.receiver.wait_reply(request, SOON).unwrap().control(), b"!");
    (3..6).for_each(|n| send(&mut b, n));
    let (_sender, mut receiver) = a.split();
    let mut all = Vec::new();
    while all.len() < 6 {
        all.extend(numbers(&mut receiver));
    }
    assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
}

/// A message that was kept and copied out of the ring, one that came first, and later ones: each is released once.
#[test]
fn messages_taken_out_of_batches_are_released_once() {
    let (mut a, mut b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    let request = a.request(b"?").unwrap();
    let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
    send(&mut b.sender, 0).unwrap();
    b.reply(token, b"!").unwrap();
    assert_eq!(a.receiver.wait_reply(request, SOON).unwrap().control(), b"!");
    (1..20).for_each(|n| send(&mut b.sender, n).unwrap());
    let mut kept = Vec::new();
    let mut n = 0;
    while n < 20 {
        let mut batch = a.receiver.recv_batch().unwrap();
        while let Some(message) = batch.next() {
            assert_eq!((number(&message), message.sequence()), (n, n + u64::from(n > 0)));
            if [0, 1, 4, 8, 19].contains(&n) {
                kept.push((n, message.take()));
            }
            n += 1;
        }
    }
    assert!(format!("{:?}", kept[0].1).contains("detached: true"), "it was kept while the reply was awaited");
    for (n, message) in &kept {
        assert_eq!(number(message), *n, "it holds still");
    }
    assert_eq!((a.receiver.held().count, a.receiver.held().bytes), (4, 4 * RECORD as u64));
    // The space before the oldest of the four is released, and no more.
    let mut sent = 0;
    while b.sender.has_space(64).unwrap() {
        send(&mut b.sender, 100).unwrap();
        sent += RECORD;
    }
    assert_eq!(sent, RING - RESERVE - 20 * RECORD);
    drop(kept);
    while a.try_recv().unwrap().is_some() {}
    assert_eq!((a.receiver.held().count, a.receiver.held().bytes), (0, 0));
    assert!(b.sender.has_space(MOST).unwrap());
}

#[test]
fn messages_of_a_batch_are_of_its_channel_whatever_was_taken() {
    let ((mut sender, mut replies), (mut answers, mut receiver)) = channel();
    send(&mut sender, 0).unwrap();
    let request = sender.loan(8).unwrap().request(b"?").unwrap();
    let mut batch = receiver.recv_batch().unwrap();
    assert_eq!(number(&batch.next().unwrap().take()), 0);
    let token = batch.next().unwrap().reply_token().unwrap();
    drop(batch);
    answers.reply(token, b"!").unwrap();
    assert_eq!(replies.recv_timeout(SOON).unwrap().in_reply_to(), Some(request));
}

#[test]
fn descriptors_are_taken_out_of_a_batch() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    let file = File::open("/dev/null").unwrap();
    sender.send(Control::new(b"").fd(&file).fd(&file)).unwrap();
    let mut batch = receiver.recv_batch_timeout(SOON).unwrap();
    let mut message = batch.next().unwrap();
    assert!(message.take_fd().is_some());
    let fds = message.take_fds();
    assert_eq!((fds.len(), message.fds().len()), (1, 0));
}

#[test]
fn batches_give_space_back_when_it_is_what_the_sender_needs() {
    // Records of 1,088 bytes: 32 of them leave too little space for the loan that is refused.
    const LEN: usize = 1000;
    for refused in [LEN, 3 * LEN] {
        let ((mut sender, _a), (_b, mut receiver)) = channel();
        // The ring is full, but no call was refused.
        let count = 59;
        for _ in 0..count {
            sender.loan(LEN).unwrap().send().unwrap();
        }
        let mut batch = receiver.recv_batch().unwrap();
        assert!(!sender.has_space(refused).unwrap());
        batch.next().unwrap();
        let mut over = 0;
        while !readable(&sender) {
            batch.next().unwrap();
            over += 1;
            assert!(over < count, "nothing is given back");
        }
        // A loan takes room for its record and for 1,024 bytes of control, here at the ring's start.
        let record = |len: usize| len.next_multiple_of(64) + 64;
        assert_eq!(over, (record(refused) + 1024).div_ceil(record(LEN)), "{refused}");
        assert!(sender.has_space(refused).unwrap());
    }
}

#[test]
fn a_batch_that_is_forgotten_holds_its_space_and_no_more() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    (0..10).for_each(|n| send(&mut sender, n).unwrap());
    let mut batch = receiver.recv_batch().unwrap();
    for n in 0..4 {
        assert_eq!(number(&batch.next().unwrap()), n);
    }
    mem::forget(batch);
    assert_eq!((receiver.held().count, receiver.held().bytes), (4, 4 * RECORD as u64));
    assert_eq!(numbers(&mut receiver), [4, 5, 6, 7, 8, 9]);
    assert_eq!(receiver.held().count, 4);
    // The ring can be filled up to its end, and no further.
    let mut sent = 10;
    while sender.has_space(64).unwrap() {
        send(&mut sender, sent).unwrap();
        sent += 1;
    }
    assert_eq!(sent, ((RING - RESERVE) / RECORD) as u64);
    assert_eq!(numbers(&mut receiver), (10..sent).collect::<Vec<_>>());
    sender.send(b"by the socket").unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap().control(), b"by the socket");
    drop(receiver);
    assert!(matches!(sender.loan(64), Err(Error::Disconnected)));
}

#[test]
fn panic_in_batch_keeps_messages() {
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    (0..6).for_each(|n| send(&mut sender, n).unwrap());
    for n in 0..2 {
        let panicking = AssertUnwindSafe(|| {
            let mut batch = receiver.recv_batch().unwrap();
            assert_eq!(number(&batch.next().unwrap()), 2 * n);
            assert_eq!(number(&batch.next().unwrap()), 2 * n + 1);
            panic!("on purpose");
        });
        assert!(catch_unwind(panicking).is_err());
        assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    }
    assert_eq!(numbers(&mut receiver), [4, 5]);
    assert!(sender.has_space(MOST).unwrap());
}

#[test]
fn a_batch_may_be_gone_through_in_another_thread() {
    const fn is_send<T: Send>() {}
    const { is_send::<RecvBatch<'static>>() };
    let ((mut sender, _a), (_b, mut receiver)) = channel();
    (0..10).for_each(|n| send(&mut sender, n).unwrap());
    let mut batch = receiver.recv_batch().unwrap();
    assert_eq!(number(&batch.next().unwrap()), 0);
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..10 {
                assert_eq!(number(&batch.next().unwrap()), n);
            }
            assert!(batch.next().is_none());
        });
    });
    assert_eq!(receiver.held().count, 0);
}

/// Three threads: one sends through a ring that is sometimes full, one receives batches, one drops payloads that were
/// taken.
#[test]
fn taken_payloads_may_be_dropped_while_the_batch_gives_space_back() {
    const COUNT: u64 = 100_000;
    let (a, b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
    let (give, taken) = mpsc::channel::<(u64, sealane::Payload)>();
    let dropping = start(move || {
        for (n, payload) in taken {
            assert_eq!(payload.shared::<u64>().unwrap().to_vec(), [n; 8]);
        }
    });
    let sending = start(move || {
        for first in (0..COUNT).step_by(50) {
            let mut batch = sender.batch();
            (first..first + 50).try_for_each(|n| send_in(&mut batch, n)).unwrap();
        }
        sender
    });
    let receiving = start(move || {
        let mut n = 0;
        while n < COUNT {
            let mut batch = receiver.recv_batch().unwrap();
            while let Some(mut message) = batch.next() {
                assert_eq!(number(&message), n);
                if n.is_multiple_of(3) {
                    give.send((n, message.take_payload().unwrap())).unwrap();
                }
                n += 1;
            }
        }
        receiver
    });
    let (receiver, mut sender) = (receiving.result(), sending.result());
    dropping.result();
    assert_eq!((receiver.held().count, receiver.held().bytes), (0, 0));
    assert!(sender.has_space(4096 / 2 - 1088).unwrap());
}
