//! Calls: requests find their replies, whatever else crosses meanwhile, and nobody waits for one in vain.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    fs::File,
    io::{ErrorKind, Read},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    fs::fstat,
    pipe::{PipeFlags, pipe_with},
    process::{Signal, getpid, kill_process},
};
use sealane::{Channel, Control, Error, Message, ProtocolError, ReplyToken, Wait};
use support::role;
use threads::{SOON, start};

mod support;
#[path = "support/threads.rs"]
mod threads;

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_hours(1);
const WAITS: [Wait; 3] = [Wait::Adaptive { max_spin: Duration::from_micros(50) }, Wait::Block, Wait::Spin];

/// The next message, and its token.
fn asked(channel: &mut Channel) -> (Message, ReplyToken) {
    let message = channel.recv_timeout(SOON).unwrap();
    let token = message.reply_token().expect("a request");
    (message, token)
}

/// A request that was given up, and the right to answer it nevertheless.
fn given_up(a: &mut Channel, b: &mut Channel) -> ReplyToken {
    let request = a.request(b"?").unwrap();
    assert!(matches!(a.wait_reply(request, NOW), Err(Error::Timeout)));
    asked(b).1
}

#[test]
fn a_call_sees_what_was_set_before_it() {
    let (mut channel, mut child) = Channel::spawn(role("keeps_a_number")).unwrap();
    for n in 0..1000_u32 {
        if n % 2 == 0 {
            channel.send_timeout(Control::of(&n), SOON).unwrap();
        } else {
            let mut loan = channel.loan_timeout(4, SOON).unwrap();
            loan.copy_from_slice(&n.to_le_bytes());
            loan.send().unwrap();
        }
        let got = channel.call(b"get", SOON).unwrap();
        assert_eq!(got.control_as::<u32>().unwrap(), &n);
    }
    drop(channel);
    assert!(start(move || child.wait()).result().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn keeps_a_number() {
    let mut channel = Channel::inherited().unwrap();
    let mut number = 0_u32;
    loop {
        match channel.recv() {
            Ok(message) => match (message.reply_token(), message.payload()) {
                (Some(token), _) => channel.reply(token, Control::of(&number)).unwrap(),
                (None, Some(payload)) => number = payload.read(0).unwrap(),
                (None, None) => number = *message.control_as().unwrap(),
            },
            Err(Error::Disconnected) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn open_requests_are_answered_in_any_order_by_whatever_a_message_can_hold() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let inode = fstat(&file).unwrap().st_ino;
    let mut requests = Vec::new();
    for n in 0..6_u8 {
        requests.push(if n % 2 == 0 {
            a.request(&[n]).unwrap()
        } else {
            a.loan(8).unwrap().request(Control::new(&[n]).fd(&file)).unwrap()
        });
    }
    let asked: Vec<_> = requests.iter().map(|_| asked(&mut b)).collect();
    for (message, token) in asked.iter().rev() {
        let n = message.control()[0];
        assert_eq!((message.payload().is_some(), message.fds().len()), (n % 2 == 1, usize::from(n % 2)));
        let reply = Control::new(message.control());
        match n % 3 {
            0 => b.reply(*token, reply.fd(&file)).unwrap(),
            1 => b.loan(100).unwrap().send_with(reply.in_reply_to(*token)).unwrap(),
            _ => b.loan(100).unwrap().send_with(reply.fd(&file).in_reply_to(*token)).unwrap(),
        }
    }
    for n in [2, 0, 5, 1, 4, 3_u8] {
        let request = requests[usize::from(n)];
        let reply = a.wait_reply(request, SOON).unwrap();
        assert_eq!((reply.control(), reply.in_reply_to()), (&[n][..], Some(request)));
        assert_eq!(reply.payload().map(|payload| payload.len()), (n % 3 != 0).then_some(100));
        assert_eq!(reply.fds().len(), usize::from(n % 3 != 1));
        assert!(reply.fds().iter().all(|fd| fstat(fd).unwrap().st_ino == inode));
    }
}

const QUESTIONS: u64 = 2000;

/// Asks, and answers the other side, in the order of events, until both are done.
fn converse(mut channel: Channel) {
    let (mut asked, mut answered, mut open) = (0, 0, HashMap::new());
    while asked < QUESTIONS || answered < QUESTIONS || !open.is_empty() {
        while asked < QUESTIONS && open.len() < 10 {
            open.insert(channel.request_timeout(Control::of(&asked), SOON).unwrap(), asked);
            asked += 1;
        }
        let message = channel.recv_timeout(SOON).unwrap();
        let number = *message.control_as::<u64>().unwrap();
        match (message.reply_token(), message.in_reply_to()) {
            (Some(token), None) => {
                let reply = Control::of(&(number * 2)).in_reply_to(token);
                channel.send_timeout(reply, SOON).unwrap();
                answered += 1;
            }
            (None, Some(request)) => assert_eq!(number, open.remove(&request).unwrap() * 2),
            found => panic!("{found:?}"),
        }
    }
    assert_eq!(channel.stats().late_replies, 0);
}

#[test]
fn both_sides_call_at_once_in_answering_loops() {
    let (channel, mut child) = Channel::spawn(role("converses")).unwrap();
    converse(channel);
    assert!(start(move || child.wait()).result().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn converses() {
    converse(Channel::inherited().unwrap());
}

#[test]
fn two_calls_that_wait_for_each_other_time_out_and_can_be_answered_then() {
    for wait in WAITS {
        let (mut a, mut b) = Channel::builder().wait(wait).pair().unwrap();
        let calling = start(move || (a.call(b"from a", SHORT).map(drop), a));
        assert!(matches!(b.call(b"from b", SHORT), Err(Error::Timeout)));
        let (result, mut a) = calling.result();
        assert!(matches!(result, Err(Error::Timeout)));
        let (message, token) = asked(&mut b);
        assert_eq!(message.control(), b"from a");
        b.reply(token, b"late").unwrap();
        assert_eq!(asked(&mut a).0.control(), b"from b");
        assert!(a.try_recv().unwrap().is_none());
        assert_eq!((a.stats().late_replies, b.stats().late_replies), (1, 0));
    }
}

#[test]
fn replies_are_messages_to_an_event_loop_and_to_the_halves_of_a_channel() {
    let (a, b) = Channel::pair().unwrap();
    let ((mut asking, mut replies), (mut answering, mut questions)) = (a.split(), b.split());
    let request = asking.request(b"how much?").unwrap();
    let token = questions.try_recv().unwrap().unwrap().reply_token().unwrap();
    // A reply may ask back.
    let back =
        answering.loan(1).unwrap().request(Control::new(b"of what?").in_reply_to(token)).unwrap();
    let reply = replies.try_recv().unwrap().unwrap();
    assert_eq!((reply.in_reply_to(), reply.control()), (Some(request), &b"of what?"[..]));
    asking.reply(reply.reply_token().unwrap(), b"of everything").unwrap();
    let last = questions.try_recv().unwrap().unwrap();
    assert_eq!((last.in_reply_to(), last.reply_token()), (Some(back), None));
}

#[test]
fn what_comes_while_a_reply_is_awaited_is_kept_in_order() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let [first, second] = [(); 2].map(|()| a.request(b"?").unwrap());
    let [(_, first_token), (_, second_token)] = [(); 2].map(|()| asked(&mut b));
    let mut send = |n: u8| match n % 3 {
        0 => b.send(&[n]).unwrap(),
        1 => b.loan(usize::from(n)).unwrap().send_with(&[n]).unwrap(),
        _ => b.loan(usize::from(n)).unwrap().send_with(Control::new(&[n]).fd(&null)).unwrap(),
    };
    (0..10).for_each(&mut send);
    b.reply(second_token, b"second").unwrap();
    let mut send = |n: u8| b.send(&[n]).unwrap();
    (10..12).for_each(&mut send);
    b.reply(first_token, b"first").unwrap();
    (12..14).for_each(&mut send);
    drop(b);

    assert_eq!(a.wait_reply(first, SOON).unwrap().control(), b"first");
    assert_eq!(a.recv().unwrap().control(), [0]);
    assert_eq!(a.try_recv().unwrap().unwrap().control(), [1]);
    // It was kept too, and is there though the peer is gone.
    assert_eq!(a.wait_reply(second, NOW).unwrap().control(), b"second");
    assert_eq!(a.recv_timeout(NOW).unwrap().control(), [2]);
    let (_, mut receiver) = a.split();
    for n in 3..14 {
        let message = receiver.recv_timeout(SOON).unwrap();
        assert_eq!(message.control(), [n]);
        let payload = (n < 10 && n % 3 > 0).then_some(usize::from(n));
        assert_eq!(message.payload().map(|payload| payload.len()), payload);
    }
    assert!(matches!(receiver.recv_timeout(SOON), Err(Error::Disconnected)));
}

#[test]
fn what_is_kept_is_bounded_and_the_request_stays_open() {
    let null = File::open("/dev/null").unwrap();
    let (fds, mebibyte) = ([&null; 64], 1 << 20);
    // One more than are kept, of each kind.
    let floods: [(usize, &dyn Fn(&mut Channel)); 3] = [
        (64, &|channel| channel.send(b"").unwrap()),
        (4, &|channel| channel.loan_timeout(mebibyte, SOON).unwrap().send().unwrap()),
        (4, &|channel| channel.send(Control::default().fds(fds)).unwrap()),
    ];
    for (kept, send) in floods {
        let (mut a, mut b) = Channel::builder().ring_capacity(8 * mebibyte).pair().unwrap();
        let request = a.request(b"?").unwrap();
        let (_, token) = asked(&mut b);
        (0..=kept).for_each(|_| send(&mut b));
        for _ in 0..3 {
            assert!(matches!(a.wait_reply(request, SOON), Err(Error::Backlog)));
        }
        assert_eq!(a.stats().messages_received, u64::try_from(kept).unwrap());
        b.reply(token, b"!").unwrap();
        for sequence in 0..kept {
            assert!(matches!(a.wait_reply(request, SOON), Err(Error::Backlog)) == (sequence == 0));
            assert_eq!(a.recv_timeout(SOON).unwrap().sequence(), u64::try_from(sequence).unwrap());
        }
        assert_eq!(a.recv_timeout(SOON).unwrap().sequence(), u64::try_from(kept).unwrap());
        assert!(matches!(a.recv_timeout(NOW), Err(Error::Timeout)));
    }
}
