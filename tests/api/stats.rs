//! A channel's counters count each event once.

#![forbid(unsafe_code)]

use std::{fs::File, io::IoSlice, time::Duration};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use sealane::{Channel, Control, Error, Stats, Wait};

use crate::support::threads::{SOON, start};

const NOW: Duration = Duration::ZERO;

/// These counters have these values, and all others are 0.
fn stats(change: impl FnOnce(&mut Stats)) -> Stats {
    let mut stats = Stats::default();
    change(&mut stats);
    stats
}

/// A channel with rings of one page, that does not spin.
fn small() -> (Channel, Channel) {
    Channel::builder().ring_capacity(4096).wait(Wait::Block).pair().unwrap()
}

#[test]
fn each_message_is_counted_once_at_both_ends() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    a.send(b"12345").unwrap();
    a.loan(100).unwrap().send().unwrap();
    a.loan(10).unwrap().send_with(b"123").unwrap();
    a.loan(1).unwrap().send_with(Control::new(b"12").fds([&null; 3])).unwrap();
    a.send(Control::default().fd(&null)).unwrap();
    // Messages that are not sent are not counted.
    drop(a.loan(50).unwrap());
    assert!(matches!(a.loan(1).unwrap().send_with(&vec![0; 100_000]), Err(Error::ControlTooLarge { .. })));
    assert!(matches!(a.send(Control::default().fds([&null; 65])), Err(Error::TooManyFds { .. })));
    let sent = stats(|stats| {
        (stats.messages_sent, stats.bytes_sent) = (5, 5 + 100 + 13 + 3);
        (stats.packets_sent, stats.fds_sent, stats.doorbells_sent) = (3, 4, 1);
        // Headers, payloads and the control bytes behind one of them.
        stats.ring_high_water = (64 + 128) + (64 + 64 + 64) + (64 + 64);
    });
    assert_eq!(a.stats(), sent);
    for _ in 0..5 {
        b.recv_timeout(SOON).unwrap();
    }
    let received = stats(|stats| {
        (stats.messages_received, stats.bytes_received) = (5, 5 + 100 + 13 + 3);
        (stats.packets_received, stats.fds_received, stats.doorbells_received) = (3, 4, 1);
    });
    assert_eq!(b.stats(), received);

    // A channel's counters are those of its halves.
    b.send(b"1").unwrap();
    a.recv_timeout(SOON).unwrap();
    assert_eq!((a.stats().messages_sent, a.stats().messages_received), (5, 1));
    let (one_half, other_half) = a.split();
    assert_eq!(one_half.stats(), sent);
    assert_eq!((other_half.stats().messages_sent, other_half.stats().messages_received), (0, 1));
}

#[test]
fn a_call_counts_what_it_keeps_once_and_what_comes_late_apart() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let late = a.request(b"?").unwrap();
    assert!(matches!(a.receiver.wait_reply(late, NOW), Err(Error::Timeout)));
    let request = a.request(b"?").unwrap();
    let mut token = || b.recv_timeout(SOON).unwrap().reply_token().unwrap();
    let [late, in_time] = [token(), token()];
    b.reply(late, b"too late").unwrap();
    b.send(b"kept").unwrap();
    b.reply(in_time, b"!").unwrap();
    a.receiver.wait_reply(request, SOON).unwrap();
    a.recv_timeout(NOW).unwrap();
    let counted = stats(|stats| {
        (stats.messages_sent, stats.bytes_sent, stats.packets_sent) = (2, 2, 2);
        (stats.messages_received, stats.bytes_received, stats.packets_received) = (2, 5, 3);
        stats.late_replies = 1;
    });
    assert_eq!(a.stats(), counted);
}

#[test]
fn sleeping_peers_are_rung_for_once_and_others_never() {
    let (mut a, mut b) = small();
    for round in 1..4 {
        // The receiver is armed: a fresh channel is, and one that has been drained.
        for _ in 0..3 {
            a.loan(1).unwrap().send().unwrap();
        }
        assert_eq!(a.stats().doorbells_sent, round);
        for _ in 0..3 {
            b.recv_timeout(NOW).unwrap();
        }
        // The receiver is awake.
        a.loan(1).unwrap().send().unwrap();
        assert_eq!(a.stats().doorbells_sent, round);
        b.recv_timeout(NOW).unwrap();
        assert!(b.try_recv().unwrap().is_none());
        assert_eq!(b.stats().doorbells_received, round);
    }
    assert_eq!((a.stats().packets_sent, b.stats().packets_received), (0, 0));
}

/// Fills an empty ring with one record: a payload, and as many control bytes as ride behind it.
fn fill(channel: &mut Channel) {
    channel.loan(960).unwrap().send_with(&[0; 4096 - 64 - 960]).unwrap();
}

#[test]
fn a_call_that_blocks_has_slept() {
    let (mut a, mut b) = small();
    assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout)));
    assert_eq!(b.stats().sleeps, 0);
    let receiving = start(move || (b.recv().map(drop), b)).asleep();
    fill(&mut a);
    let (result, mut b) = receiving.result();
    result.unwrap();
    assert_eq!((b.stats().sleeps, b.stats().spins_paid, b.stats().doorbells_received), (1, 0, 1));

    fill(&mut a);
    let held = b.recv_timeout(SOON).unwrap();
    let lending = start(move || (a.loan(1).map(drop), a)).asleep();
    drop(held);
    let (result, a) = lending.result();
    result.unwrap();
    let Stats { sleeps, waits_for_space, doorbells_received, .. } = a.stats();
    assert_eq!((sleeps, waits_for_space, doorbells_received), (1, 1, 1));
}

#[test]
fn calls_that_find_no_room_count_as_waits_for_space() {
    let (mut a, mut b) = small();
    for round in 1..4 {
        fill(&mut a);
        assert!(a.try_loan(1).unwrap().is_none());
        assert_eq!(a.stats().waits_for_space, round);
        drop(b.recv_timeout(NOW).unwrap());
        assert_eq!(a.stats().waits_for_space, round);
    }
    while a.try_send(&[0; 500]).is_ok() {}
    assert!(matches!(a.sender.try_request(b""), Err(Error::Full)));
    assert_eq!((a.stats().waits_for_space, a.stats().sleeps), (5, 0));
}

#[test]
fn a_spin_that_spares_a_sleep_has_paid() {
    for (wait, paid) in [(Wait::Spin, 1), (Wait::Block, 0)] {
        let (a, mut b) = Channel::builder().wait(wait).pair().unwrap();
        // A message, as docs/protocol.md has it, that no control word announces: the first poll misses it.
        let mut header = [0; 32];
        header[0] = 4;
        sendmsg(
            &a.receiver,
            &[IoSlice::new(&header)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::empty(),
        )
        .unwrap();
        b.recv_timeout(SOON).unwrap();
        assert_eq!((b.stats().spins_paid, b.stats().sleeps), (paid, 0));
    }
}

#[test]
fn the_high_water_mark_is_what_was_in_use_at_once() {
    let (mut a, mut b) = small();
    // Half of the ring each, so that nothing is left out.
    let send = |a: &mut Channel| a.loan(960).unwrap().send_with(&[0; 1024]).unwrap();
    for _ in 0..100 {
        send(&mut a);
        drop(b.recv_timeout(SOON).unwrap());
    }
    assert_eq!(a.stats().ring_high_water, 2048, "each was released before the next was sent");
    for _ in 0..2 {
        send(&mut a);
    }
    assert_eq!(a.stats().ring_high_water, 4096);
    for _ in 0..2 {
        drop(b.recv_timeout(SOON).unwrap());
    }
    a.loan(1).unwrap().send().unwrap();
    assert_eq!(a.stats().ring_high_water, 4096);
}
