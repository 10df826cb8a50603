//! Ends of a process, of a half, of a channel: committed messages arrive, and no call waits for a dead peer.

use std::{
    fs::File,
    hint::spin_loop,
    io::{BufRead, BufReader, IoSlice, Read, stdin},
    mem::MaybeUninit,
    os::fd::AsFd,
    process::{Child, Stdio},
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, poll},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pipe::pipe,
};
use sealane::{Builder, Channel, Control, Error, Loan, Receiver, Result, Sender, Wait};

use crate::support::{
    WAITS, is_disconnected, role,
    script::{Files, Most, Random, Script},
    threads::{SOON, Started, start},
};

/// The number of messages, which ring and socket can hold together.
const MESSAGES: usize = 40;
const MOST: Most = Most { control: 500, fds: 5, payload: 60_000 };

fn small() -> Builder {
    Channel::builder().ring_capacity(4096)
}

/// A channel to a child that plays `role`, which gets `SEED` and `ENDING`.
fn child(test: impl Fn(), seed: u64, ending: &str) -> (Channel, Child) {
    println!("SEED={seed}");
    let mut command = role(test);
    command.env("SEED", seed.to_string()).env("ENDING", ending).stdout(Stdio::piped());
    Channel::builder().spawn(command).unwrap()
}

fn reap(mut child: Child) {
    start(move || child.wait()).result().unwrap();
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    reap(child);
}

#[test]
fn committed_messages_arrive_although_their_sender_exits() {
    outlived_by_its_messages("exits");
}

#[test]
fn committed_messages_arrive_although_their_sender_closes_at_once() {
    outlived_by_its_messages("closes");
}

#[test]
fn committed_messages_arrive_although_their_sender_is_killed() {
    outlived_by_its_messages("waits");
}

fn outlived_by_its_messages(ending: &str) {
    let seed = Random::seed();
    let (mut channel, mut child) = child(sends_and_ends, seed, ending);
    if ending == "waits" {
        let output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.unwrap().contains("committed")));
        kill(child);
    } else {
        reap(child);
    }
    for item in Script::new(seed, MOST).take(MESSAGES) {
        item.check(&channel.try_recv().unwrap().expect("all is there"));
    }
    assert!(is_disconnected(channel.try_recv()));
    assert!(is_disconnected(channel.recv()));
}

#[test]
#[ignore = "the child of another test"]
fn sends_and_ends() {
    let (mut sender, mut receiver) = Channel::inherited().unwrap().split();
    let files = Files::new();
    for item in Script::new(Random::seed(), MOST).take(MESSAGES) {
        item.send(&mut sender, &files).unwrap();
    }
    match std::env::var("ENDING").unwrap().as_str() {
        "exits" => std::process::exit(0),
        "closes" => drop((sender, receiver)),
        _ => {
            println!("committed");
            let _ = receiver.recv();
        }
    }
}

/// Both may happen between a poll of the ring and a poll of the socket, which then reports the end first.
#[test]
fn a_message_that_was_committed_just_before_the_end_is_not_overlooked() {
    for n in 0..500 {
        let (mut a, mut b) = small().wait(Wait::Spin).pair().unwrap();
        a.send(b"first").unwrap();
        b.recv_timeout(SOON).unwrap();
        let sending = start(move || {
            (0..n % 500).for_each(|_| spin_loop());
            a.loan(1).unwrap().send().unwrap();
            drop(a);
        });
        b.recv_timeout(SOON).unwrap_or_else(|error| panic!("in round {n}: {error:?}"));
        assert!(is_disconnected(b.recv_timeout(SOON)));
        sending.result();
    }
}

/// The sender is killed anywhere: between the halves of a message, in the middle of a payload, asleep.
#[test]
fn a_sender_that_is_killed_at_any_moment_leaves_whole_messages_only() {
    let mut random = Random(Random::seed());
    for _ in 0..20 {
        let seed = random.next();
        let (mut channel, mut child) = child(sends_for_ever, seed, "");
        let mut script = Script::new(seed, MOST);
        for item in script.by_ref().take(random.below(200)) {
            item.check(&channel.recv_timeout(SOON).unwrap());
        }
        child.kill().unwrap();
        loop {
            match channel.recv_timeout(SOON) {
                Ok(message) => script.next().unwrap().check(&message),
                Err(error) => break assert!(matches!(error, Error::Disconnected), "{error}"),
            }
        }
        reap(child);
    }
}

#[test]
#[ignore = "the child of another test"]
fn sends_for_ever() {
    let (mut sender, _receiver) = Channel::inherited().unwrap().split();
    let files = Files::new();
    for item in Script::new(Random::seed(), MOST) {
        if item.send(&mut sender, &files).is_err() {
            break;
        }
    }
}

/// Calls that block on a peer that does not receive.
const BLOCKING: [fn(&mut Sender) -> Result<()>; 3] = [
    |sender| {
        let len = sender.limits().max_payload / 2;
        while let Some(loan) = sender.try_loan(len)? {
            loan.send()?;
        }
        sender.loan(len).map(drop)
    },
    |sender| {
        fill_socket(sender);
        sender.send(b"one more")
    },
    |sender| {
        fill_socket(sender);
        let stdin = stdin();
        sender.loan(1)?.send_with(Control::default().fd(&stdin))
    },
];

fn fill_socket(sender: &mut Sender) {
    while sender.try_send(&[0; 500]).is_ok() {}
}

/// Blocks both halves of a channel, one in `recv` and one in `block`, and expects `end` to end them.
fn both_halves_are_ended_by(
    channel: Channel,
    wait: Wait,
    block: fn(&mut Sender) -> Result<()>,
    end: impl FnOnce(),
) {
    let (mut sender, mut receiver) = channel.split();
    let blocked = [start(move || receiver.recv().map(drop)), start(move || block(&mut sender))];
    // A spinning call never sleeps.
    let blocked = if wait == Wait::Spin { blocked } else { blocked.map(Started::asleep) };
    end();
    for blocked in blocked {
        assert!(is_disconnected(blocked.result()), "{wait:?}");
    }
}

#[test]
fn waiting_calls_end_when_the_peer_is_killed() {
    for wait in WAITS {
        for block in BLOCKING {
            let (mut channel, child) = small().wait(wait).spawn(role(does_nothing)).unwrap();
            // The peer has read all of our handshake by then, and makes no more space in the socket.
            assert_eq!(channel.recv_timeout(SOON).unwrap().control(), b"established");
            both_halves_are_ended_by(channel, wait, block, || kill(child));
        }
    }
}

#[test]
#[ignore = "the child of another test"]
fn does_nothing() {
    let mut channel = Channel::inherited().unwrap();
    channel.send(b"established").unwrap();
    // The child lives until the parent is gone or kills it.
    let mut end = [PollFd::new(&channel.receiver, PollFlags::RDHUP)];
    poll(&mut end, None).unwrap();
}

#[test]
fn waiting_calls_end_when_the_peer_closes() {
    for wait in WAITS {
        for block in BLOCKING {
            let (a, b) = small().wait(wait).pair().unwrap();
            both_halves_are_ended_by(a, wait, block, || drop(b));
        }
    }
}

#[test]
fn a_closer_ends_both_halves_and_the_peer() {
    for wait in WAITS {
        for block in BLOCKING {
            let (a, mut b) = small().wait(wait).pair().unwrap();
            let closer = a.closer();
            both_halves_are_ended_by(a, wait, block, || closer.clone().close());
            while let Ok(message) = b.recv_timeout(SOON) {
                drop(message);
            }
            assert!(is_disconnected(b.recv_timeout(SOON)));
            assert!(is_disconnected(b.send(b"anybody there?")));
            closer.close();
        }
    }
}

/// Sends and receives more than ring and socket hold, by either carrier.
fn still_works(mut sender: Sender, mut receiver: Receiver) {
    let sending = start(move || {
        for n in 0..1000_u32 {
            match n % 3 {
                0 => sender.send(Control::of(&n)).unwrap(),
                1 => sender.loan(500).unwrap().send_with(Control::of(&n)).unwrap(),
                _ => sender.loan(1).unwrap().send_with(Control::of(&n).fd(&stdin())).unwrap(),
            }
        }
    });
    for n in 0..1000_u32 {
        assert_eq!(receiver.recv_timeout(SOON).unwrap().control_as::<u32>().unwrap(), &n);
    }
    sending.result();
    assert!(is_disconnected(receiver.recv_timeout(SOON)));
}

#[test]
fn a_dropped_sender_ends_its_direction_only() {
    for wait in WAITS {
        let (a, b) = small().wait(wait).pair().unwrap();
        let ((mut sender, back), (forth, mut receiver)) = (a.split(), b.split());
        sender.loan(1).unwrap().send().unwrap();
        sender.send(b"last words").unwrap();
        drop(sender);
        assert_eq!(receiver.recv_timeout(SOON).unwrap().payload().unwrap().len(), 1);
        assert_eq!(receiver.recv_timeout(SOON).unwrap().control(), b"last words");
        assert!(is_disconnected(receiver.recv_timeout(SOON)));
        still_works(forth, back);
    }
}

#[test]
fn a_dropped_receiver_ends_its_direction_only() {
    for wait in WAITS {
        for block in BLOCKING {
            let (a, b) = small().wait(wait).pair().unwrap();
            let ((mut sender, back), (forth, receiver)) = (a.split(), b.split());
            let blocked = start(move || (block(&mut sender), sender));
            let blocked = if wait == Wait::Spin { blocked } else { blocked.asleep() };
            drop(receiver);
            let (result, mut sender) = blocked.result();
            assert!(is_disconnected(result));
            assert!(is_disconnected(sender.send(b"")) && is_disconnected(sender.loan(1)));
            still_works(forth, back);
        }
    }
}

#[test]
fn a_sender_learns_from_the_next_packet_that_nobody_receives() {
    let sends: [fn(&mut Sender) -> Result<()>; 2] = [
        |sender| sender.send(b"a packet"),
        |sender| sender.loan(1)?.send_with(Control::default().fd(&stdin())),
    ];
    for send in sends {
        let (a, b) = small().pair().unwrap();
        let ((mut sender, back), (forth, receiver)) = (a.split(), b.split());
        drop(receiver);
        assert!(is_disconnected(send(&mut sender)));
        still_works(forth, back);
    }
}

#[test]
fn a_payload_that_lives_on_does_not_hide_the_end_of_its_channel() {
    for block in BLOCKING {
        let (a, mut b) = small().pair().unwrap();
        let (mut sender, mut receiver) = a.split();
        let mut loan = sender.loan(100).unwrap();
        loan.fill(7);
        loan.send().unwrap();
        let payload = b.recv_timeout(SOON).unwrap().take_payload().unwrap();
        let blocked = start(move || block(&mut sender)).asleep();
        drop(b);
        assert!(is_disconnected(blocked.result()));
        assert!(is_disconnected(receiver.recv_timeout(SOON)));
        drop(receiver);
        assert_eq!(payload.to_vec(), [7; 100], "its memory lives as long as it does");
    }
}

/// The kernel reports packets that the peer did not read as an error of the next call, ahead of the peer's own packets
/// (`ECONNRESET`).
#[test]
fn messages_of_a_peer_that_closed_with_unread_packets_arrive() {
    let first: [fn(&mut Sender); 3] = [
        |_| {},
        |sender| assert!(is_disconnected(sender.send(b"anybody there?"))),
        |sender| drop(sender.loan(1).and_then(Loan::send)),
    ];
    for first in first {
        let seed = Random::seed();
        let (a, b) = Channel::builder().pair().unwrap();
        let ((mut a, mut from_b), (mut b, from_a)) = (a.split(), b.split());
        a.send(b"unread").unwrap();
        a.loan(1).unwrap().send().unwrap();
        let files = Files::new();
        for item in Script::new(seed, MOST).take(MESSAGES) {
            item.send(&mut b, &files).unwrap();
        }
        drop((b, from_a));
        first(&mut a);
        for item in Script::new(seed, MOST).take(MESSAGES) {
            item.check(&from_b.recv_timeout(SOON).unwrap());
        }
        assert!(is_disconnected(from_b.recv_timeout(SOON)));
    }
}

#[test]
fn half_a_message_is_not_delivered_and_its_descriptors_are_closed() {
    let (a, mut b) = Channel::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    // The packet of a message whose record was never published (docs/protocol.md): of kind 4, with flag 2, 1 descriptor.
    let mut packet = [0; 32];
    (packet[0], packet[2], packet[4]) = (4, 2, 1);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [writer.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&a.receiver, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::empty()).unwrap();
    drop((a, writer));
    assert!(is_disconnected(b.recv_timeout(SOON)));
    drop(b);
    let end = start(move || File::from(reader).read(&mut [0]).unwrap()).result();
    assert_eq!(end, 0, "nobody has the pipe's other end");
}
