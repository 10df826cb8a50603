//! A peer that provokes more work than one call may do: each call returns within its budget, and the rest is not lost.
//!
//! Nothing here is timed: the number of packets read is the work that a call has done.

use std::{os::fd::AsFd, time::Duration};

use rustix::net::sockopt::set_socket_send_buffer_size;
use sealane::{Builder, Channel, Error, Message, ProtocolError, Result};

use crate::support::{
    hostile::{
        self, DOORBELL, LONG, OTHER_HALF, Packet, WANTS_REPLY,
        memory::{HEAD, Hostile, PACKETS, Record, TAIL, head_after},
        readable,
    },
    threads::bounded,
};

/// Packets that a non-blocking call reads.
const BUDGET: u64 = 512;
/// Packets that a call reads between two reads of the clock.
const BETWEEN_LOOKS: u64 = 64;

type Receive = fn(&mut Channel) -> Result<Option<Message>>;

fn builder() -> Builder {
    Channel::builder()
}

/// Gives the peer the longest queue that the kernel allows, and returns the number of packets that it holds; `None`
/// if these are no more than one call reads.
fn long_queue(hostile: &Hostile) -> Option<u64> {
    // The kernel caps it at its own limit.
    set_socket_send_buffer_size(&hostile.socket, 1 << 20).unwrap();
    let (probe, _other) = hostile::seqpacket_pair();
    set_socket_send_buffer_size(&probe, 1 << 20).unwrap();
    let probe = hostile::Player::from(probe);
    let mut packets = 0;
    while probe.try_send(Packet::new(DOORBELL)).is_ok() {
        packets += 1;
    }
    if packets <= BUDGET {
        println!(
            "left out: a socket holds {packets} packets here, which one call may read (net.core.wmem_max)"
        );
        return None;
    }
    Some(packets.min(2 * BUDGET - 1))
}

/// Fills the socket with doorbells, each for an epoch that was shown. There is space for one packet behind them.
fn ring_for_each(hostile: &Hostile, channel: &mut Channel, packets: u64) {
    for sequence in 0..packets {
        hostile.socket.send(Packet::control(sequence));
    }
    for sequence in 0..packets {
        assert_eq!(channel.try_recv().unwrap().unwrap().sequence(), sequence);
        if sequence + 1 < packets {
            hostile.socket.send(Packet::new(DOORBELL));
        }
    }
}

/// The number of packets and doorbells that `call` has read, and its result.
fn read_by<T>(channel: &mut Channel, call: impl FnOnce(&mut Channel) -> T) -> (u64, T) {
    let read = |channel: &Channel| channel.stats().doorbells_received + channel.stats().packets_received;
    let before = read(channel);
    let result = call(channel);
    (read(channel) - before, result)
}

/// A message behind a flood of doorbells: a packet, or a record whose other half is behind them.
fn message_behind(hostile: &Hostile, sequence: u64, half: bool) {
    if half {
        hostile.publish(0, Record { sequence, flags: OTHER_HALF.into(), ..Record::default() }, 64);
    }
    hostile.socket.send(Packet { flags: if half { OTHER_HALF } else { 0 }, ..Packet::control(sequence) });
}

#[test]
fn doorbells_that_come_at_once_do_not_hold_up_a_try() {
    let _guard = bounded();
    for half in [false, true] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        let Some(packets) = long_queue(&hostile) else { return };
        ring_for_each(&hostile, &mut channel, packets);
        message_behind(&hostile, packets, half);
        let (read, result) = read_by(&mut channel, Channel::try_recv);
        assert!(result.unwrap().is_none(), "half: {half}");
        assert!(read <= BUDGET, "half: {half}: {read} packets were read by one call");
        // The descriptor stays readable until the loop has the message.
        let message = loop {
            assert_eq!(readable([channel.receiver.as_fd()], LONG), [true]);
            let (read, result) = read_by(&mut channel, Channel::try_recv);
            assert!(read <= BUDGET, "half: {half}: {read} packets were read by one call");
            if let Some(message) = result.unwrap() {
                break message;
            }
        };
        assert_eq!(message.sequence(), packets);
    }
}

#[test]
fn doorbells_that_come_at_once_move_no_deadline() {
    let _guard = bounded();
    for half in [false, true] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        ring_for_each(&hostile, &mut channel, 200);
        message_behind(&hostile, 200, half);
        // The control word announces packets that never come.
        hostile.set(PACKETS, u64::MAX);
        let (read, result) = read_by(&mut channel, |channel| channel.recv_timeout(Duration::ZERO));
        assert!(matches!(result, Err(Error::Timeout)), "half: {half}: {result:?}");
        assert!(read <= BETWEEN_LOOKS, "half: {half}: {read} packets were read after the deadline");
        assert_eq!(channel.recv_timeout(LONG).unwrap().sequence(), 200);
    }
}

#[test]
fn doorbells_cannot_be_saved_up_by_never_letting_the_socket_run_empty() {
    const EPOCHS: u64 = 5000;
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.socket.send(Packet::control(0));
    for sequence in 1..=EPOCHS {
        hostile.socket.send(Packet::control(sequence));
        assert_eq!(channel.try_recv().unwrap().unwrap().sequence(), sequence - 1);
    }
    // None of these epochs was rung for, and the socket was never empty. Where a record's other half is to be read, there are
    // no new ones.
    while hostile.socket.try_send(Packet::new(DOORBELL)).is_ok() {}
    assert_eq!(channel.try_recv().unwrap().unwrap().sequence(), EPOCHS);
    hostile.publish(0, Record { sequence: EPOCHS + 1, flags: OTHER_HALF.into(), ..Record::default() }, 64);
    while let Err(Error::Timeout) = channel.recv_timeout(Duration::ZERO) {
        let heard = channel.stats().doorbells_received;
        assert!(heard < 1000, "{heard} doorbells had been saved up");
        while hostile.socket.try_send(Packet::new(DOORBELL)).is_ok() {}
    }
    let ended = channel.recv_timeout(LONG);
    assert!(matches!(ended, Err(Error::Protocol(ProtocolError::Doorbells { .. }))), "{ended:?}");
}

/// Cancels this number of requests, none of which the peer has answered.
fn give_up(hostile: &Hostile, channel: &mut Channel, requests: u64) {
    for count in 1..=requests {
        let request = channel.loan(0).unwrap().request(b"").unwrap();
        hostile.set(TAIL, head_after(count));
        channel.receiver.cancel(request);
    }
}

#[test]
fn late_replies_in_packets_do_not_hold_up_a_try() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    let Some(packets) = long_queue(&hostile) else { return };
    give_up(&hostile, &mut channel, packets - 1);
    for sequence in 0..packets - 1 {
        hostile.socket.send(Packet { reply_to: sequence + 1, ..Packet::control(sequence) });
    }
    hostile.socket.send(Packet::control(packets - 1));
    let (read, result) = read_by(&mut channel, Channel::try_recv);
    assert!(result.unwrap().is_none());
    assert!(read <= BUDGET, "{read} packets were read by one call");
    assert_eq!(readable([channel.receiver.as_fd()], LONG), [true]);
    assert_eq!(channel.try_recv().unwrap().unwrap().sequence(), packets - 1);
    assert_eq!(channel.stats().late_replies, packets - 1);
}

#[test]
fn a_hundred_thousand_late_replies_move_no_deadline_and_hide_nothing() {
    const REQUESTS: u64 = 100_000;
    let _guard = bounded();
    let builder = builder().max_requests(REQUESTS.try_into().unwrap());
    let receive: [Receive; 2] = [Channel::try_recv, |channel| channel.recv_timeout(LONG).map(Some)];
    for receive in receive {
        let (hostile, mut channel) = Hostile::meet_with(&builder, 2048);
        give_up(&hostile, &mut channel, REQUESTS);
        for sequence in 0..REQUESTS {
            hostile.write(64 * sequence, Record { sequence, reply_to: sequence + 1, ..Record::default() });
        }
        hostile.write(64 * REQUESTS, Record { sequence: REQUESTS, ..Record::default() });
        hostile.set(HEAD, 64 * (REQUESTS + 1));
        let result = channel.recv_timeout(Duration::ZERO);
        assert!(matches!(result, Err(Error::Timeout)), "{result:?}");
        let late = channel.stats().late_replies;
        assert!(late <= BETWEEN_LOOKS, "{late} replies were dropped after the deadline");
        // No descriptor announces a message in the ring, so a try may not leave it there.
        assert_eq!(receive(&mut channel).unwrap().unwrap().sequence(), REQUESTS);
        assert_eq!(channel.stats().late_replies, REQUESTS);
    }
}

#[test]
fn a_peer_that_answers_none_is_not_asked_more_than_it_said() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder().max_requests(3));
    assert_eq!(channel.limits().max_requests, 3);
    let requests = [(); 3].map(|()| channel.request(b"").unwrap());
    // The peer has the requests, cancelled or not.
    channel.receiver.cancel(requests[0]);
    let refused =
        [channel.request(b""), channel.sender.try_request(b""), channel.loan(1).unwrap().request(b"")];
    for refused in refused {
        assert!(matches!(refused, Err(Error::TooManyRequests { max: 3 })), "{refused:?}");
    }
    assert!(matches!(channel.call(b"", LONG), Err(Error::TooManyRequests { max: 3 })));
    // Other messages can still be sent, and nothing was sent of the refused ones.
    channel.send(b"no request").unwrap();
    let heard: Vec<u16> = (0..4).map(|_| hostile.socket.hear().unwrap().flags).collect();
    assert_eq!(heard, [WANTS_REPLY, WANTS_REPLY, WANTS_REPLY, 0]);
    // Each reply frees a place.
    hostile.socket.send(Packet { reply_to: 1, ..Packet::control(0) });
    hostile.socket.send(Packet { reply_to: 2, ..Packet::control(1) });
    assert_eq!(channel.recv_timeout(LONG).unwrap().in_reply_to(), Some(requests[1]));
    assert_eq!(channel.stats().late_replies, 1);
    assert!(channel.request(b"").is_ok() && channel.request(b"").is_ok());
    assert!(matches!(channel.request(b""), Err(Error::TooManyRequests { max: 3 })));
}
