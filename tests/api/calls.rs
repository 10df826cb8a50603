//! Calls: requests find their replies among all other messages, and no call waits for a reply that cannot come.

#![forbid(unsafe_code)]

use std::{collections::HashMap, fs::File, io::IoSlice, thread, time::Duration};

use rustix::{
    fs::fstat,
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
    process::{Signal, getpid, kill_process},
};
use sealane::{Channel, Control, Error, Message, Payload, ProtocolError, ReplyToken, Wait};

use crate::support::{
    WAITS, is_abandoned, role,
    threads::{SOON, start},
};

const NOW: Duration = Duration::ZERO;
const SHORT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_hours(1);

/// The next message, and its token.
fn asked(channel: &mut Channel) -> (Message, ReplyToken) {
    let message = channel.recv_timeout(SOON).unwrap();
    let token = message.reply_token().expect("a request");
    (message, token)
}

/// A cancelled request, and the token that could still answer it.
fn given_up(a: &mut Channel, b: &mut Channel) -> ReplyToken {
    let request = a.request(b"?").unwrap();
    assert!(matches!(a.receiver.wait_reply(request, NOW), Err(Error::Timeout)));
    asked(b).1
}

/// Sends a reply that the library would refuse to send, as docs/protocol.md has it.
fn forge_reply(channel: &Channel, sequence: u64, request: u64) {
    let mut header = [0; 32];
    header[0] = 4;
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&(request + 1).to_le_bytes());
    let packet = [IoSlice::new(&header)];
    sendmsg(&channel.receiver, &packet, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT).unwrap();
}

#[test]
fn a_call_sees_what_was_set_before_it() {
    let (mut channel, mut child) = Channel::spawn(role(keeps_a_number)).unwrap();
    for n in 0..1000_u32 {
        if n % 2 == 0 {
            channel.sender.send_timeout(Control::of(&n), SOON).unwrap();
        } else {
            let mut loan = channel.sender.loan_timeout(4, SOON).unwrap();
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
        match channel.recv_timeout(SOON) {
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
    let questions: Vec<_> = requests.iter().map(|_| asked(&mut b)).collect();
    for (message, token) in questions.iter().rev() {
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
        let reply = a.receiver.wait_reply(request, SOON).unwrap();
        assert_eq!((reply.control(), reply.in_reply_to()), (&[n][..], Some(request)));
        assert_eq!(reply.payload().map(Payload::len), (n % 3 != 0).then_some(100));
        assert_eq!(reply.fds().len(), usize::from(n % 3 != 1));
        assert!(reply.fds().iter().all(|fd| fstat(fd).unwrap().st_ino == inode));
    }
}

const QUESTIONS: u64 = 2000;

/// Asks, and answers the other side, as events come, until both are done.
fn converse(mut channel: Channel) {
    let (mut asked, mut answered, mut open) = (0, 0, HashMap::new());
    while asked < QUESTIONS || answered < QUESTIONS || !open.is_empty() {
        while asked < QUESTIONS && open.len() < 10 {
            open.insert(channel.sender.request_timeout(Control::of(&asked), SOON).unwrap(), asked);
            asked += 1;
        }
        let message = channel.recv_timeout(SOON).unwrap();
        let number = *message.control_as::<u64>().unwrap();
        match (message.reply_token(), message.in_reply_to()) {
            (Some(token), None) => {
                let double = number * 2;
                channel.sender.send_timeout(Control::of(&double).in_reply_to(token), SOON).unwrap();
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
    let (channel, mut child) = Channel::spawn(role(converses)).unwrap();
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
    let back = answering.loan(1).unwrap().request(Control::new(b"of what?").in_reply_to(token)).unwrap();
    let reply = replies.try_recv().unwrap().unwrap();
    assert_eq!((reply.in_reply_to(), reply.control()), (Some(request), &b"of what?"[..]));
    asking.reply(reply.reply_token().unwrap(), b"of everything").unwrap();
    let last = questions.try_recv().unwrap().unwrap();
    assert_eq!((last.in_reply_to(), last.reply_token()), (Some(back), None));
}

#[test]
fn messages_before_an_awaited_reply_are_kept_in_order() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let [first, second] = [(); 2].map(|()| a.request(b"?").unwrap());
    let [(_, first_token), (_, second_token)] = [(); 2].map(|()| asked(&mut b));
    for n in 0..14_u8 {
        let len = usize::from(n);
        match n {
            10 => b.reply(second_token, b"second").unwrap(),
            12 => b.reply(first_token, b"first").unwrap(),
            _ if n % 3 == 0 => b.send(&[n]).unwrap(),
            _ if n % 3 == 1 => b.loan(len).unwrap().send_with(&[n]).unwrap(),
            _ => b.loan(len).unwrap().send_with(Control::new(&[n]).fd(&null)).unwrap(),
        }
    }
    drop(b);

    assert_eq!(a.receiver.wait_reply(first, SOON).unwrap().control(), b"first");
    assert_eq!(a.recv_timeout(SOON).unwrap().control(), [0]);
    assert_eq!(a.try_recv().unwrap().unwrap().control(), [1]);
    assert_eq!(a.receiver.request_id(first.number()), None, "its reply was given out");
    assert_eq!(a.receiver.request_id(second.number()), Some(second), "its reply is kept");
    assert_eq!(a.closer().request_id(second.number()), None);
    // This message was kept too, and can be received although the peer is gone.
    assert_eq!(a.receiver.wait_reply(second, NOW).unwrap().control(), b"second");
    assert_eq!(a.recv_timeout(NOW).unwrap().control(), [2]);
    let (_, mut receiver) = a.split();
    for n in [3, 4, 5, 6, 7, 8, 9, 11, 13] {
        let message = receiver.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.sequence()), (&[n][..], u64::from(n)));
        assert_eq!(message.payload().map(Payload::len), (n % 3 > 0).then_some(usize::from(n)));
        assert_eq!(message.fds().len(), usize::from(n % 3 == 2));
    }
    assert!(matches!(receiver.recv_timeout(SOON), Err(Error::Disconnected)));
}

#[test]
fn the_backlog_is_bounded_and_the_request_stays_open() {
    let null = File::open("/dev/null").unwrap();
    // The number of these messages that are kept.
    for (kept, payload, fds) in [(64, None, 0), (4, Some(1 << 20), 0), (4, None, 64)] {
        let send = |channel: &mut Channel| {
            let control = Control::default().fds(vec![&null; fds]);
            match payload {
                Some(len) => channel.sender.loan_timeout(len, SOON).and_then(|loan| loan.send_with(control)),
                None => channel.sender.send_timeout(control, SOON),
            }
        };
        let (mut a, mut b) = Channel::builder().ring_capacity(8 << 20).pair().unwrap();
        let request = a.request(b"?").unwrap();
        let (_, token) = asked(&mut b);
        (0..=kept).for_each(|_| send(&mut b).unwrap());
        for _ in 0..3 {
            assert!(matches!(a.receiver.wait_reply(request, SOON), Err(Error::Backlog)));
        }
        assert_eq!(a.stats().messages_received, u64::try_from(kept).unwrap());
        b.reply(token, b"!").unwrap();
        let mut next = || a.recv_timeout(SOON).unwrap().sequence();
        assert!((0..u64::try_from(kept).unwrap()).all(|sequence| next() == sequence));
        assert_eq!(a.receiver.wait_reply(request, SOON).unwrap().control(), b"!");
        assert_eq!(a.recv_timeout(SOON).unwrap().sequence(), u64::try_from(kept).unwrap());
        assert!(matches!(a.recv_timeout(NOW), Err(Error::Timeout)));
    }
}

/// Answers one request with a payload of `len` bytes, after `before` messages of 1000 bytes.
fn streams_then_answers(mut channel: Channel, before: u8, len: usize) {
    let (_, token) = asked(&mut channel);
    for n in 0..before {
        let mut loan = channel.sender.loan_timeout(1000, SOON).unwrap();
        loan.fill(n);
        loan.send().unwrap();
    }
    let loan = channel.sender.loan_timeout(len, Duration::from_secs(2)).unwrap();
    loan.send_with(Control::default().in_reply_to(token)).unwrap();
}

/// A call, during which the peer [streams, then answers](streams_then_answers).
fn call_a_streaming_peer(before: u8, len: usize) {
    for wait in WAITS {
        let (mut a, b) = Channel::builder().ring_capacity(8192).wait(wait).pair().unwrap();
        let answering = start(move || streams_then_answers(b, before, len));
        let reply = a.call(b"?", SOON).unwrap();
        assert_eq!(reply.payload().unwrap().len(), len);
        answering.result();
        for n in 0..before {
            let payload = a.recv_timeout(NOW).unwrap().take_payload().unwrap();
            assert!(payload.to_vec() == [n; 1000], "payload {n}");
        }
    }
}

#[test]
fn a_peer_that_streams_more_than_its_ring_can_still_answer() {
    call_a_streaming_peer(60, 1000);
}

#[test]
fn the_backlog_leaves_room_for_any_reply() {
    call_a_streaming_peer(3, 8192 / 2 - 1088);
}

#[test]
fn a_late_reply_is_dropped_counted_and_releases_what_it_brought() {
    let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    let most = b.limits().max_payload;
    for (payload, fd) in [(false, true), (true, false), (true, true)] {
        let token = given_up(&mut a, &mut b);
        let (end, other_end) = std::io::pipe().unwrap();
        let mut reply = Control::new(b"").in_reply_to(token);
        if fd {
            reply = reply.fd(&other_end);
        }
        let sent = if payload {
            b.sender.loan_timeout(most, SOON).and_then(|loan| loan.send_with(reply))
        } else {
            b.send(reply)
        };
        sent.unwrap();
        drop(other_end);
        b.send(b"news").unwrap();
        assert_eq!(a.recv_timeout(SOON).unwrap().control(), b"news");
        assert_eq!(a.receiver.held().count, 0);
        assert!(b.sender.has_space(most).unwrap());
        assert!(is_abandoned(&end), "somebody holds the other end");
    }
    assert_eq!(a.stats().late_replies, 3);
}

#[test]
fn late_replies_are_no_more_than_requests_that_were_given_up() {
    const GIVEN_UP: u64 = 100;
    let (mut a, mut b) = Channel::pair().unwrap();
    for _ in 0..GIVEN_UP {
        given_up(&mut a, &mut b);
    }
    for n in 0..=GIVEN_UP {
        forge_reply(&b, n, n % GIVEN_UP);
        match a.recv_timeout(NOW) {
            Err(Error::Timeout) => assert_eq!(a.stats().late_replies, n + 1),
            Err(Error::Protocol(ProtocolError::UnaskedReply { sequence: 0 })) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("it would never have ended");
}

/// The peer may ask again as soon as it has a reply, however late the replying thread runs.
#[test]
fn answered_requests_make_room_before_their_reply_arrives() {
    const ROUNDS: u32 = 20_000;
    let (mut a, b) = Channel::builder().max_requests(1).ring_capacity(4096).pair().unwrap();
    let (mut sender, mut receiver) = b.split();
    let (tokens, asked) = std::sync::mpsc::channel();
    let receiving = start(move || {
        for _ in 0..ROUNDS {
            tokens.send(receiver.recv()?.reply_token().unwrap()).unwrap();
        }
        Ok::<_, Error>(receiver)
    });
    let answering = start(move || {
        for token in asked {
            sender.reply(token, b"!").unwrap();
        }
    });
    for _ in 0..ROUNDS {
        a.call(b"?", SOON).unwrap();
    }
    receiving.result().unwrap();
    answering.result();
}

#[test]
fn a_peer_that_dies_ends_a_call_at_once() {
    for wait in WAITS {
        let builder = Channel::builder().wait(wait);
        let (mut channel, mut child) = builder.spawn(role(dies_when_it_is_asked)).unwrap();
        let calling = start(move || channel.call(b"?", HOUR));
        assert!(matches!(calling.result(), Err(Error::Disconnected)));
        assert!(!start(move || child.wait()).result().unwrap().success());
    }
}

#[test]
#[ignore = "the child of another test"]
fn dies_when_it_is_asked() {
    asked(&mut Channel::inherited().unwrap());
    kill_process(getpid(), Signal::KILL).unwrap();
}

#[test]
fn a_token_of_another_channel_is_an_error_and_nothing_is_sent() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let (mut c, mut d) = Channel::pair().unwrap();
    c.request(b"?").unwrap();
    let (_, foreign) = asked(&mut d);
    a.request(b"?").unwrap();
    asked(&mut b);
    // The token is not valid at the other end of its own channel either.
    for (channel, peer) in [(&mut b, &mut a), (&mut c, &mut d)] {
        let before = channel.stats();
        let reply = || Control::new(b"!").in_reply_to(foreign);
        assert!(matches!(channel.reply(foreign, b"!"), Err(Error::UnknownRequest)));
        assert!(matches!(channel.try_send(reply()), Err(Error::UnknownRequest)));
        let unsent = channel.loan(8).unwrap().try_send_with(reply()).unwrap_err();
        assert!(matches!(unsent.error(), Error::UnknownRequest));
        drop(unsent);
        assert!(matches!(channel.loan(8).unwrap().request(reply()), Err(Error::UnknownRequest)));
        assert_eq!(channel.stats(), before);
        assert!(peer.try_recv().unwrap().is_none());
    }
    d.reply(foreign, b"!").unwrap();
    assert_eq!(c.recv_timeout(SOON).unwrap().control(), b"!");
}

#[test]
fn only_an_open_request_of_this_channel_can_be_waited_for() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let (mut c, mut d) = Channel::pair().unwrap();
    let not_open = |channel: &mut Channel, request| {
        assert!(matches!(channel.receiver.wait_reply(request, SOON), Err(Error::UnknownRequest)));
    };
    let [answered, received, given_up, open] = [(); 4].map(|()| a.request(b"?").unwrap());
    // The other channel's requests have the same numbers.
    for channel in [&mut b, &mut c, &mut d] {
        assert!((0..4).all(|_| channel.request(b"?").is_ok()));
        not_open(channel, open);
    }
    assert!(matches!(a.receiver.wait_reply(given_up, NOW), Err(Error::Timeout)));
    not_open(&mut a, given_up);
    for _ in 0..2 {
        let (_, token) = asked(&mut b);
        b.reply(token, b"!").unwrap();
    }
    a.receiver.wait_reply(answered, SOON).unwrap();
    not_open(&mut a, answered);
    assert!((0..4).all(|_| a.recv_timeout(SOON).unwrap().reply_token().is_some()));
    assert_eq!(a.recv_timeout(SOON).unwrap().in_reply_to(), Some(received));
    not_open(&mut a, received);
}

#[test]
fn a_request_is_answered_once() {
    let (mut a, mut b) = Channel::pair().unwrap();
    a.send(b"so that its number is not 0").unwrap();
    let request = a.request(b"?").unwrap();
    b.recv_timeout(SOON).unwrap();
    let (_, token) = asked(&mut b);
    // A reply that is not sent answers nothing.
    while b.try_send(b"fills the socket").is_ok() {}
    assert!(matches!(b.try_send(Control::new(b"!").in_reply_to(token)), Err(Error::Full)));
    while a.try_recv().unwrap().is_some() {}
    b.reply(token, b"!").unwrap();
    let before = b.stats();
    assert!(matches!(b.reply(token, b"!"), Err(Error::UnknownRequest)));
    let loan = b.loan(8).unwrap();
    assert!(matches!(loan.send_with(Control::new(b"!").in_reply_to(token)), Err(Error::UnknownRequest)));
    assert_eq!(b.stats(), before);
    a.receiver.wait_reply(request, SOON).unwrap();

    // A peer that answers again nevertheless has broken the protocol.
    forge_reply(&b, before.messages_sent, 1);
    let violation = ProtocolError::UnaskedReply { sequence: 1 };
    assert!(matches!(a.recv_timeout(SOON), Err(Error::Protocol(found)) if found == violation));
    assert!(matches!(a.try_send(b""), Err(Error::Protocol(found)) if found == violation));
    assert!(matches!(b.recv_timeout(SOON), Err(Error::Disconnected)));
}

#[test]
fn calls_on_two_channels_are_stopped_from_two_threads() {
    for wait in WAITS {
        let builder = Channel::builder().wait(wait);
        let [(a, mut peer_of_a), (b, mut peer_of_b)] = [(); 2].map(|()| builder.pair().unwrap());
        let closers = [a.closer(), b.closer()];
        let calls = [a, b].map(|mut channel| {
            let call = start(move || channel.call(b"?", HOUR));
            if wait == Wait::Spin { call } else { call.asleep() }
        });
        // The calls that spin have been made too.
        asked(&mut peer_of_a);
        asked(&mut peer_of_b);
        let mut backwards = closers.clone();
        backwards.reverse();
        let stops = [closers, backwards]
            .map(|closers| thread::spawn(move || closers.iter().for_each(sealane::Closer::close)));
        for call in calls {
            assert!(matches!(call.result(), Err(Error::Disconnected)));
        }
        for stop in stops {
            stop.join().unwrap();
        }
        assert!(matches!(peer_of_a.recv_timeout(SOON), Err(Error::Disconnected)));
        assert!(matches!(peer_of_b.recv_timeout(SOON), Err(Error::Disconnected)));
    }
}

#[test]
fn any_timeout_will_do() {
    for wait in WAITS {
        let (mut a, mut b) = Channel::builder().wait(wait).pair().unwrap();
        assert!(matches!(a.call(b"in no time", NOW), Err(Error::Timeout)));
        let (message, token) = asked(&mut b);
        assert_eq!(message.control(), b"in no time");
        b.reply(token, b"late").unwrap();
        // A call whose reply is there needs no deadline.
        let request = a.request(b"?").unwrap();
        let (_, token) = asked(&mut b);
        b.reply(token, b"in time").unwrap();
        assert_eq!(a.receiver.wait_reply(request, NOW).unwrap().control(), b"in time");
        assert_eq!(a.stats().late_replies, 1);

        let calling = start(move || a.call(b"?", Duration::MAX).map(|reply| reply.control().to_vec()));
        let (_, token) = asked(&mut b);
        b.reply(token, b"at last").unwrap();
        assert_eq!(calling.result().unwrap(), b"at last");
    }
}

#[test]
fn requests_beyond_the_limit_are_refused_and_nothing_is_sent() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut sent = 0_usize;
    let error = loop {
        match a.request(b"?") {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        b.recv().unwrap();
    };
    assert!(matches!(error, Error::TooManyRequests { max } if max == sent), "{error:?} after {sent}");
    assert!(b.try_recv().unwrap().is_none());
}
