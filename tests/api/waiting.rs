//! Waiting: how long calls block, which events wake them, and when a descriptor says that trying again is worthwhile.

use std::{
    collections::VecDeque,
    hint::spin_loop,
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    fs::{OFlags, fcntl_setfl},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, recv, sendmsg,
        socketpair, sockopt,
    },
};
use sealane::{Channel, Control, Error, Payload, Wait};

use crate::support::{
    WAITS, role,
    threads::{SOON, start},
};

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);

/// A channel with rings of one page, so that they are soon full.
fn small(wait: Wait) -> (Channel, Channel) {
    Channel::builder().ring_capacity(4096).wait(wait).pair().unwrap()
}

/// Fills an empty ring, whose head is at its start, with one record.
fn fill_ring(channel: &mut Channel) {
    fill_ring_from(channel, 0);
}

/// Fills an empty ring whose head is at byte `at`: the record reaches to the ring's end. Half of it, or less, is
/// payload; the rest is control bytes, which ride where they fit.
fn fill_ring_from(channel: &mut Channel, at: usize) {
    let len = channel.limits().max_payload;
    channel.loan(len).unwrap().send_with(&vec![0; 4096 - at - 64 - len]).unwrap();
}

/// Fills the socket, and returns the number of messages.
fn fill_socket(channel: &mut Channel) -> usize {
    let mut count = 0;
    loop {
        match channel.try_send(&[1; 500]) {
            Ok(()) => count += 1,
            Err(Error::Full) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

/// True if a descriptor is readable now or within `time`.
fn readable(fd: impl AsFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(time).unwrap())).unwrap() > 0
}

#[test]
fn a_deadline_passes_and_nothing_is_lost() {
    for wait in WAITS {
        let (mut a, mut b) = small(wait);
        assert!(matches!(b.recv_timeout(SHORT), Err(Error::Timeout)));
        fill_ring(&mut a);
        assert!(matches!(a.sender.loan_timeout(1, SHORT), Err(Error::Timeout)));
        let packets = fill_socket(&mut a);
        assert!(matches!(a.sender.send_timeout(b"", SHORT), Err(Error::Timeout)));
        assert!(b.recv_timeout(SOON).unwrap().payload().is_some());
        for _ in 0..packets {
            assert_eq!(b.recv_timeout(SOON).unwrap().control().len(), 500);
        }
        a.sender.loan_timeout(1, SOON).unwrap().send().unwrap();
        a.sender.send_timeout(b"last", SOON).unwrap();
        assert_eq!(b.recv_timeout(SOON).unwrap().payload().unwrap().len(), 1);
        assert_eq!(b.recv_timeout(SOON).unwrap().control(), b"last");
        assert!(matches!(b.recv_timeout(SHORT), Err(Error::Timeout)));
    }
}

#[test]
fn trying_never_blocks() {
    let (mut a, mut b) = small(Wait::default());
    assert!(b.try_recv().unwrap().is_none());
    fill_ring(&mut a);
    assert!(a.try_loan(0).unwrap().is_none());
    assert!(!a.sender.has_space(0).unwrap());
    drop(b.try_recv().unwrap().unwrap());
    fill_socket(&mut a);
    assert!(matches!(a.try_send(b""), Err(Error::Full)));
    assert!(matches!(a.sender.try_request(b""), Err(Error::Full)));
    let file = std::fs::File::open("/dev/null").unwrap();
    let unsent = a.try_loan(8).unwrap().unwrap().try_send_with(Control::new(b"").fd(&file)).unwrap_err();
    assert!(matches!(unsent.error(), Error::Full));
}

#[test]
fn a_zero_timeout_polls_once() {
    for wait in WAITS {
        let (mut a, mut b) = small(wait);
        for _ in 0..3 {
            assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout)));
            // The record brings a doorbell, and the packet stands behind it.
            a.loan(1).unwrap().send().unwrap();
            a.send(b"a packet").unwrap();
            assert!(b.recv_timeout(NOW).unwrap().payload().is_some());
            assert_eq!(b.recv_timeout(NOW).unwrap().control(), b"a packet");
            assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout)));
            fill_ring_from(&mut a, 128);
            assert!(matches!(a.sender.loan_timeout(1, NOW), Err(Error::Timeout)));
            drop(b.recv_timeout(NOW).unwrap());
            drop(a.sender.loan_timeout(1, NOW).unwrap());
        }
    }
}

#[test]
fn a_fresh_channel_is_armed() {
    for send in SENDS {
        let (mut a, mut b) = small(Wait::default());
        assert!(!readable(&b.receiver, NOW));
        send(&mut a);
        assert!(readable(&b.receiver, SOON), "before anybody has tried to receive");
        assert!(b.try_recv().unwrap().is_some());
    }
}

/// The three ways in which a message comes: in the ring, in a packet, in both.
const SENDS: [fn(&mut Channel); 3] = [
    |channel| channel.loan(8).unwrap().send_with(b"control").unwrap(),
    |channel| channel.send(b"control").unwrap(),
    |channel| {
        let file = std::fs::File::open("/dev/null").unwrap();
        channel.loan(8).unwrap().send_with(Control::new(b"control").fd(&file)).unwrap();
    },
];

#[test]
fn an_armed_receiver_becomes_readable_and_stays_so_until_it_is_drained() {
    let (mut a, mut b) = small(Wait::default());
    for round in 0..30 {
        assert!(b.try_recv().unwrap().is_none());
        assert!(!readable(&b.receiver, NOW), "nothing to receive");
        for i in 0..=round % 3 {
            SENDS[(round + i) % 3](&mut a);
        }
        assert!(readable(&b.receiver, SOON));
        assert!(readable(&b.receiver, NOW), "it is level-triggered");
        for _ in 0..=round % 3 {
            assert_eq!(b.try_recv().unwrap().unwrap().control(), b"control");
        }
    }
}

#[test]
fn a_sender_that_was_told_no_becomes_readable_when_there_is_space() {
    let (mut a, mut b) = small(Wait::default());
    let asks: [fn(&mut Channel) -> bool; 3] = [
        |channel| channel.sender.has_space(1).unwrap(),
        |channel| channel.try_loan(1).unwrap().is_some(),
        |channel| !matches!(channel.sender.loan_timeout(1, SHORT), Err(Error::Timeout)),
    ];
    for ask in asks {
        fill_ring(&mut a);
        let message = b.recv_timeout(SOON).unwrap();
        assert!(!ask(&mut a) && !readable(&a.sender, NOW));
        drop(message);
        assert!(readable(&a.sender, SOON));
        assert!(ask(&mut a));
    }
}

#[test]
fn a_sender_that_was_told_no_becomes_readable_when_the_socket_has_room() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let (mut a, mut b) = small(Wait::default());
    for _ in 0..3 {
        let count = fill_socket(&mut a);
        assert!(!readable(&a.sender, NOW));
        let loan = a.try_loan(8).unwrap().unwrap();
        let unsent = loan.try_send_with(Control::default().fd(&file)).unwrap_err();
        drop(unsent);
        assert!(!readable(&a.sender, NOW));
        b.recv_timeout(SOON).unwrap();
        assert!(readable(&a.sender, SOON));
        a.try_send(b"one more").unwrap();
        for _ in 1..count {
            b.recv_timeout(SOON).unwrap();
        }
        assert_eq!(b.recv_timeout(SOON).unwrap().control(), b"one more");
    }
}

#[test]
fn both_descriptors_are_readable_when_the_peer_is_gone() {
    let (mut a, b) = small(Wait::default());
    assert!(!readable(&a.receiver, NOW) && !readable(&a.sender, NOW));
    drop(b);
    assert!(readable(&a.receiver, SOON) && readable(&a.sender, SOON));
    assert!(matches!(a.try_recv(), Err(Error::Disconnected)));
    assert!(matches!(a.try_send(b""), Err(Error::Disconnected)));
    assert!(readable(&a.receiver, NOW), "for ever");
}

/// Two event loops that never try twice without a wake-up: a missing one hangs them.
#[test]
fn event_loops_are_told_of_everything() {
    const MESSAGES: u64 = 20_000;
    let (a, b) = small(Wait::default());
    let (mut sender, _receiver) = a.split();
    let (_sender, mut receiver) = b.split();
    let wait = |fd: &dyn AsFd| {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&set, fd.as_fd(), epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        move || {
            let mut events =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            let soon = Timespec::try_from(SOON).unwrap();
            assert_eq!(epoll::wait(&set, &mut events, Some(&soon)).unwrap(), 1, "nothing was announced");
        }
    };
    let (room, news) = (wait(&sender), wait(&receiver));
    let sending = start(move || {
        for n in 0..MESSAGES {
            let control = Control::of(&n);
            if n % 5 == 0 {
                while let Err(error) = sender.try_send(control.clone()) {
                    assert!(matches!(error, Error::Full));
                    room();
                }
                continue;
            }
            // From 30 to 960 bytes: room for some records, or for one.
            let len = 30 << (n % 6);
            while !sender.has_space(len).unwrap() {
                room();
            }
            let mut unsent = sender.try_loan(len).unwrap().unwrap().try_send_with(control.clone());
            while let Err(back) = unsent {
                room();
                unsent = back.into_loan().try_send_with(control.clone());
            }
        }
    });
    for n in 0..MESSAGES {
        let message = loop {
            match receiver.try_recv().unwrap() {
                Some(message) => break message,
                None => news(),
            }
        };
        assert_eq!(message.control_as::<u64>().unwrap(), &n);
    }
    sending.result();
}

#[test]
fn control_messages_pass_a_full_ring_in_order() {
    let (mut a, mut b) = small(Wait::default());
    fill_ring(&mut a);
    assert!(!a.sender.has_space(0).unwrap());
    for n in 0..50_u32 {
        a.send(Control::of(&n)).unwrap();
    }
    let held = b.recv_timeout(SOON).unwrap();
    for n in 0..50_u32 {
        assert_eq!(b.recv_timeout(SOON).unwrap().control_as::<u32>().unwrap(), &n);
    }
    assert!(!a.sender.has_space(0).unwrap());
    drop(held);
    assert!(a.sender.has_space(0).unwrap());
}

#[test]
fn loans_pass_a_full_socket_in_order() {
    let (mut a, mut b) = small(Wait::default());
    let packets = fill_socket(&mut a);
    for n in 0..15_u32 {
        a.try_loan(4).unwrap().unwrap().try_send_with(Control::of(&n)).unwrap();
    }
    for _ in 0..packets {
        assert!(b.recv_timeout(SOON).unwrap().payload().is_none());
    }
    for n in 0..15_u32 {
        let message = b.recv_timeout(SOON).unwrap();
        assert_eq!((message.control_as::<u32>().unwrap(), message.payload().unwrap().len()), (&n, 4));
    }
    assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout)));
}

#[test]
fn a_sleeping_receiver_wakes_for_whatever_comes() {
    for wait in [Wait::default(), Wait::Block] {
        for send in SENDS {
            let (mut a, mut b) = small(wait);
            for _ in 0..3 {
                let receiving =
                    start(move || (b.recv().map(|message| message.control().to_vec()), b)).asleep();
                send(&mut a);
                let control;
                (control, b) = receiving.result();
                assert_eq!(control.unwrap(), b"control");
            }
        }
    }
}

/// Both ends of a channel over sockets of our own, the first of which is changed beforehand.
fn adopted(prepare: fn(BorrowedFd<'_>)) -> (Channel, Channel) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    prepare(ours.as_fd());
    let builder = Channel::builder().ring_capacity(4096).wait(Wait::Block);
    let theirs = builder.handshake(theirs).unwrap();
    let theirs = start(move || theirs.finish().unwrap());
    let ours = builder.handshake(ours).unwrap().finish().unwrap();
    (ours, theirs.result())
}

/// A socket that does not block, or not for long, does not keep a receiver without a deadline from sleeping.
#[test]
fn a_receiver_sleeps_once_however_its_socket_waits() {
    let prepare: [fn(BorrowedFd<'_>); 3] = [
        |_| {},
        |socket| fcntl_setfl(socket, OFlags::NONBLOCK).unwrap(),
        |socket| {
            let short = Some(Duration::from_millis(1));
            sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, short).unwrap();
        },
    ];
    for (at, prepare) in prepare.into_iter().enumerate() {
        for send in SENDS {
            let (ours, mut theirs) = adopted(prepare);
            let (_sender, mut receiver) = ours.split();
            let receiving = start(move || (receiver.recv(), receiver)).asleep();
            // The pause exceeds the socket's timeout, so a receiver that returns to it has slept several times.
            assert!(matches!(theirs.recv_timeout(SHORT), Err(Error::Timeout)));
            send(&mut theirs);
            let (message, receiver) = receiving.result();
            assert_eq!(message.unwrap().control(), b"control");
            // Once more, if it is woken by the packet and the record is not there yet.
            let sleeps = receiver.stats().sleeps;
            assert!((1..=2).contains(&sleeps), "{sleeps} sleeps, socket {at}");
            drop(theirs);
            let mut receiver = receiver;
            let ended = start(move || receiver.recv().map(drop)).result();
            assert!(matches!(ended, Err(Error::Disconnected)));
        }
    }
}

/// A sleeping receiver holds no lock that its sender, or another reader of the same socket, would have to wait for.
#[test]
fn a_receiver_that_sleeps_holds_up_nobody() {
    const MESSAGES: u32 = 1000;
    let (a, mut b) = small(Wait::Block);
    let socket = a.receiver.as_fd().try_clone_to_owned().unwrap();
    let (mut sender, mut receiver) = a.split();
    let receiving = start(move || receiver.recv().map(|message| message.control().to_vec())).asleep();
    let looked = start(move || recv(&socket, &mut [0; 32], RecvFlags::DONTWAIT).map(drop));
    assert_eq!(looked.result(), Err(Errno::AGAIN));
    // The messages exceed ring and socket, so the sender sleeps sometimes too.
    let sending = start(move || {
        let file = std::fs::File::open("/dev/null").unwrap();
        for n in 0..MESSAGES {
            match n % 3 {
                0 => sender.send(Control::of(&n)).unwrap(),
                1 => sender.loan(960).unwrap().send_with(Control::of(&n)).unwrap(),
                _ => sender.loan(1).unwrap().send_with(Control::of(&n).fd(&file)).unwrap(),
            }
        }
        sender
    });
    for n in 0..MESSAGES {
        assert_eq!(b.recv_timeout(SOON).unwrap().control_as::<u32>().unwrap(), &n);
    }
    drop(sending.result());
    b.send(b"last").unwrap();
    assert_eq!(receiving.result().unwrap(), b"last");
}

#[test]
fn a_sleeping_sender_wakes_when_there_is_room() {
    for wait in [Wait::default(), Wait::Block] {
        let (mut a, mut b) = small(wait);
        fill_ring(&mut a);
        let held = b.recv_timeout(SOON).unwrap();
        let sending = start(move || (a.loan(960).and_then(|loan| loan.send_with(b"loan")), a)).asleep();
        drop(held);
        let (sent, mut a) = sending.result();
        sent.unwrap();
        assert_eq!(b.recv_timeout(SOON).unwrap().control(), b"loan");

        for with_payload in [false, true] {
            let packets = fill_socket(&mut a);
            let sending = start(move || {
                let file = std::fs::File::open("/dev/null").unwrap();
                let control = Control::new(b"packet").fd(&file);
                let sent = if with_payload { a.loan(1).unwrap().send_with(control) } else { a.send(control) };
                (sent, a)
            })
            .asleep();
            for _ in 0..packets {
                b.recv_timeout(SOON).unwrap();
            }
            let sent;
            (sent, a) = sending.result();
            sent.unwrap();
            let message = b.recv_timeout(SOON).unwrap();
            assert_eq!((message.control(), message.payload().is_some()), (&b"packet"[..], with_payload));
        }
    }
}

/// A ring that is full of payloads of 4,000 bytes, and these payloads. A record with one takes 4,096 bytes.
fn full(wait: Wait) -> (Channel, Channel, VecDeque<Payload>) {
    let (mut a, mut b) = Channel::builder().ring_capacity(64 << 10).wait(wait).pair().unwrap();
    // The ring is full, but no call was refused.
    for _ in 0..15 {
        a.loan(4000).unwrap().send().unwrap();
    }
    let held = (0..15).map(|_| b.recv_timeout(SOON).unwrap().take_payload().unwrap()).collect();
    (a, b, held)
}

#[test]
fn senders_sleep_until_there_is_all_the_space_that_they_need() {
    let (mut a, _b, mut held) = full(Wait::Block);
    let before = a.stats();
    let sending = start(move || (a.sender.loan_timeout(12_000, SOON).map(drop), a.stats())).asleep();
    // The record and its reserve for control bytes take 13,120 bytes at the ring's start: those of four payloads.
    for _ in 0..3 {
        drop(held.pop_front());
    }
    let sending = sending.asleep();
    drop(held.pop_front());
    let (lent, stats) = sending.result();
    lent.unwrap();
    assert_eq!(stats.sleeps - before.sleeps, 1);
    assert_eq!(stats.doorbells_received - before.doorbells_received, 1);
}

#[test]
fn descriptors_signal_space_when_there_is_all_of_it() {
    let (mut a, _b, mut held) = full(Wait::default());
    assert!(a.try_loan(12_000).unwrap().is_none());
    for _ in 0..3 {
        drop(held.pop_front());
        assert!(!readable(a.sender.as_fd(), NOW), "it does not fit yet");
    }
    drop(held.pop_front());
    assert!(readable(a.sender.as_fd(), NOW));
    assert!(a.try_loan(12_000).unwrap().is_some(), "it fits when the descriptor says so");
}

#[test]
fn descriptors_signal_the_least_of_what_was_refused() {
    for sizes in [[20_000, 4000], [4000, 20_000]] {
        let (mut a, _b, mut held) = full(Wait::default());
        for len in sizes {
            assert!(a.try_loan(len).unwrap().is_none());
        }
        assert!(!readable(a.sender.as_fd(), NOW));
        drop(held.pop_front());
        assert!(!readable(a.sender.as_fd(), NOW), "the reserve for control bytes does not fit yet");
        drop(held.pop_front());
        assert!(readable(a.sender.as_fd(), NOW));
        assert!(a.try_loan(4000).unwrap().is_some());
    }
}

#[test]
fn senders_that_were_refused_more_wake_for_less() {
    let (mut a, _b, mut held) = full(Wait::Block);
    assert!(a.try_loan(20_000).unwrap().is_none());
    let sending = start(move || a.sender.loan_timeout(4000, SOON).map(drop)).asleep();
    drop(held.pop_front());
    drop(held.pop_front());
    sending.result().unwrap();
}

/// Each message fills the ring, so each side waits for the other in turn, and is met at every moment of its wait.
#[test]
fn no_wake_up_is_lost_however_the_two_sides_meet() {
    const MESSAGES: usize = 20_000;
    let (a, b) = small(Wait::Block);
    let ((mut sender, _receiver), (_sender, mut receiver)) = (a.split(), b.split());
    let dawdle = |n: usize| (0..n * 7919 % 997).for_each(|_| spin_loop());
    // All calls share one deadline. A call that slept to its own deadline would still find the message that it had
    // missed.
    let end = Instant::now() + 3 * SOON;
    let left = move || end.saturating_duration_since(Instant::now());
    let sending = start(move || {
        for n in 0..MESSAGES {
            dawdle(n);
            let loan = sender.loan_timeout(sender.limits().max_payload, left()).unwrap();
            loan.send_with(&[0; 4096 - 64 - 960]).unwrap();
        }
    });
    for n in 0..MESSAGES {
        let message = receiver.recv_timeout(left()).unwrap();
        dawdle(n / 2);
        drop(message);
        dawdle(n / 3);
    }
    sending.result();
}

#[test]
fn spinning_never_sleeps() {
    let (mut a, mut b) = small(Wait::Spin);
    for _ in 0..5 {
        assert!(matches!(b.recv_timeout(SHORT), Err(Error::Timeout)));
        fill_ring(&mut a);
        assert!(matches!(a.sender.loan_timeout(1, SHORT), Err(Error::Timeout)));
        drop(b.recv_timeout(SOON).unwrap());
    }
    assert_eq!((a.stats().sleeps, b.stats().sleeps), (0, 0));
}

/// A packet that was not sent stays announced. Spinning and sleeping receivers get the next messages all the same.
#[test]
fn a_packet_that_was_announced_in_vain_hides_none() {
    for wait in WAITS {
        let (mut a, mut b) = small(wait);
        for round in 0..20_u32 {
            let mut sent = 0_u32;
            loop {
                match a.try_send(Control::of(&[round, sent])) {
                    Ok(()) => sent += 1,
                    Err(Error::Full) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            for n in 0..sent {
                assert_eq!(b.recv_timeout(SOON).unwrap().control_as::<[u32; 2]>().unwrap(), &[round, n]);
            }
            // The receiver looks for the packet that was not sent.
            assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout)));
            assert!(matches!(b.recv_timeout(SHORT / 10), Err(Error::Timeout)));
            // The next packet is announced by the same number as the one before.
            let receiving = start(move || (b.recv().map(|message| message.control().to_vec()), b));
            let receiving = if wait == Wait::Spin { receiving } else { receiving.asleep() };
            a.try_send(b"alone").unwrap();
            let control;
            (control, b) = receiving.result();
            assert_eq!(control.unwrap(), b"alone");
            a.loan(8).unwrap().send_with(Control::new(b"with a file").fd(&std::io::stdin())).unwrap();
            a.loan(8).unwrap().send_with(b"rides").unwrap();
            a.send(b"last").unwrap();
            for expected in [&b"with a file"[..], b"rides", b"last"] {
                assert_eq!(b.recv_timeout(SOON).unwrap().control(), expected);
            }
        }
    }
}

const STREAMED: u64 = 10_000;

/// A header and a payload in each message, through a ring that is sometimes full, and typed headers.
#[test]
fn streaming_makes_no_system_call_per_message() {
    let builder = Channel::builder().wait(Wait::Spin).ring_capacity(64 << 10);
    let (mut channel, mut child) = builder.spawn(role(streams_back)).unwrap();
    for n in 0..STREAMED {
        let mut loan = channel.sender.loan_timeout(1000, SOON).unwrap();
        loan.fill(1);
        loan.send_with(Control::of(&n)).unwrap();
    }
    for n in 0..STREAMED {
        assert_eq!(channel.recv_timeout(SOON).unwrap().control_as::<u64>().unwrap(), &n);
    }
    let here = channel.stats();
    let there = *channel.recv_timeout(SOON).unwrap().control_as::<u64>().unwrap();
    assert_eq!((here.messages_sent, here.messages_received), (STREAMED, STREAMED));
    let calls = here.packets_sent + here.doorbells_sent + here.sleeps;
    assert!(calls < STREAMED / 100, "{calls} system calls here: {here:?}");
    assert!(there < STREAMED / 100, "{there} system calls there");
    assert!(start(move || child.wait()).result().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn streams_back() {
    let builder = Channel::builder().wait(Wait::Spin).ring_capacity(64 << 10);
    let mut channel = builder.inherited().unwrap();
    for n in 0..STREAMED {
        let message = channel.recv_timeout(SOON).unwrap();
        assert_eq!(message.control_as::<u64>().unwrap(), &n);
        assert_eq!(message.payload().unwrap().bytes().iter().map(usize::from).sum::<usize>(), 1000);
    }
    for n in 0..STREAMED {
        channel.sender.loan_timeout(1000, SOON).unwrap().send_with(Control::of(&n)).unwrap();
    }
    let stats = channel.stats();
    channel.send(Control::of(&(stats.packets_sent + stats.doorbells_sent + stats.sleeps))).unwrap();
}

#[test]
fn late_replies_hide_no_message() {
    // The number of packets is close to the budget of one `try_recv`.
    for late in 60..70 {
        let (mut a, mut b) = Channel::pair().unwrap();
        for _ in 0..late {
            let request = a.request(b"?").unwrap();
            assert!(matches!(a.receiver.wait_reply(request, NOW), Err(Error::Timeout)));
        }
        for _ in 0..late {
            let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
            b.reply(token, b"too late").unwrap();
        }
        b.send(b"news").unwrap();
        let message = loop {
            match a.try_recv().unwrap() {
                Some(message) => break message,
                None => assert!(readable(&a.receiver, NOW), "after {late} late replies"),
            }
        };
        assert_eq!(message.control(), b"news");
        assert_eq!(a.stats().late_replies, late);
    }
}

#[test]
fn a_peer_that_rings_without_end_does_not_hold_up_a_deadline() {
    // A doorbell, as docs/protocol.md has it.
    let mut doorbell = [0; 32];
    doorbell[0] = 5;
    let doorbell = [IoSlice::new(&doorbell)];
    for wait in WAITS {
        let (a, mut b) = small(wait);
        let mut rung = 0;
        while sendmsg(&a.receiver, &doorbell, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT)
            .is_ok()
        {
            rung += 1;
        }
        assert!(matches!(b.recv_timeout(NOW), Err(Error::Timeout | Error::Protocol(_))));
        let heard = b.stats().doorbells_received;
        assert!(heard < rung, "all {rung} doorbells were listened to, and so would be all that followed");
    }
}

#[test]
fn a_side_without_a_ring_sends_control_messages_only() {
    let (mut a, mut b) = Channel::builder().ring_capacity(0).pair().unwrap();
    a.send(b"control").unwrap();
    assert_eq!(b.recv_timeout(SOON).unwrap().control(), b"control");
    assert!(matches!(a.try_loan(1), Err(Error::PayloadTooLarge { len: 1, max: 0 })));
    // Not even an empty payload fits: there is no space for its record's header.
    assert!(matches!(a.try_loan(0), Err(Error::PayloadTooLarge { len: 0, max: 0 })));
    assert!(matches!(a.sender.has_space(0), Err(Error::PayloadTooLarge { len: 0, max: 0 })));
}
