//! Slow subscribers: the publisher is held up by no more than their accounts have, and others receive everything.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use sealane::{
    Builder, Control, Error, Event, HandshakeError, Publisher, Reason, Slow, Start, Subscriber,
    SubscriberInfo, Wait,
};

use crate::{
    fan::{OVERRUN, join, pair},
    support::{
        hostile::{
            LONG, Packet, Player, READY,
            fanout::{DESCRIPTORS, FOREVER, NEVER, RawSubscriber, greet, subscriber_hello},
            memory::TAIL,
            readable,
        },
        role,
        threads::{SOON, bounded, start},
    },
};

const RING: usize = 16 << 10;
const PAYLOAD: usize = 500;
/// The time for which a subscriber is waited for: long, so that a busy machine changes nothing.
const PATIENCE: Duration = Duration::from_millis(400);

fn builder() -> Builder {
    Builder::default().ring_capacity(RING).max_fds(4).slow(Slow::Wait(PATIENCE))
}

fn publish(publisher: &mut Publisher, honest: &mut Subscriber) {
    let mut loan = publisher.loan(PAYLOAD).unwrap();
    loan.fill(3);
    loan.send().unwrap();
    let message = honest.recv_timeout(LONG).unwrap();
    assert_eq!((message.missed(), message.payload().unwrap().to_vec()), (0, vec![3; PAYLOAD]));
}

/// Publishes some rings full.
fn publish_rings(publisher: &mut Publisher, honest: &mut Subscriber) {
    (0..3 * RING / PAYLOAD).for_each(|_| publish(publisher, honest));
}

fn info(publisher: &mut Publisher, raw: &RawSubscriber) -> Option<SubscriberInfo> {
    publisher.subscribers().iter().find(|info| info.id() == raw.id).cloned()
}

/// Hears that a subscriber has left for slowness.
fn assert_too_slow(publisher: &mut Publisher, raw: &RawSubscriber) {
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Left(id, Error::TooSlow)) if id == raw.id => {}
        other => panic!("{other:?}"),
    }
}

/// What a subscriber has to keep.
type Kept = (vm_memory::MmapRegion, Player);

/// Joins, or is refused for the time that its user has used up.
fn try_join(publisher: &mut Publisher, patience: u64) -> Option<(Player, Kept)> {
    let (socket, ours) = Player::pair();
    publisher.add(ours).unwrap();
    let kept = greet(&socket, &subscriber_hello(patience));
    socket.send(Packet::new(READY));
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Joined(_)) => Some((socket, kept)),
        Some(Event::Left(_, Error::Handshake(HandshakeError::Refused(refusal)))) => {
            assert_eq!(refusal.reason, Reason::Patience);
            None
        }
        other => panic!("{other:?}"),
    }
}

/// Each of the subscribers rings when it has released enough. The publisher needs them all, and sleeps until the last has.
#[test]
fn publisher_sleeps_once_for_all_that_it_waits_for() {
    let _guard = bounded();
    let builder = builder().slow(Slow::Wait(Duration::MAX)).wait(Wait::Block);
    let mut publisher = builder.publisher().unwrap();
    let mut subscribers: Vec<_> = (0..8).map(|_| join(&mut publisher, &builder).1).collect();
    let mut messages = 0;
    while let Some(loan) = publisher.try_loan(PAYLOAD).unwrap() {
        loan.send().unwrap();
        messages += 1;
    }
    let sleeps = publisher.stats().sleeps;
    let waiting = start(move || {
        publisher.loan(PAYLOAD).unwrap().send().unwrap();
        publisher
    });
    let waiting = waiting.asleep();
    for subscriber in &mut subscribers {
        for _ in 0..messages {
            subscriber.recv_timeout(LONG).unwrap();
        }
        // A publisher that was woken too early would have its chance to run, and to sleep again.
        (0..1000).for_each(|_| thread::yield_now());
    }
    assert_eq!(waiting.result().stats().sleeps, sleeps + 1);
}

#[test]
fn silent_one_is_ended_and_its_user_comes_back_later() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let raw = RawSubscriber::join(&mut publisher, FOREVER);
    publish_rings(&mut publisher, &mut honest);
    assert_too_slow(&mut publisher, &raw);
    assert!(try_join(&mut publisher, FOREVER).is_none(), "its time is used up");
    assert!(try_join(&mut publisher, NEVER).is_none());
    // A tenth of the time that passes comes back.
    let deadline = Instant::now() + LONG;
    let _joined = loop {
        if let Some(joined) = try_join(&mut publisher, FOREVER) {
            break joined;
        }
        assert!(Instant::now() < deadline);
        publish(&mut publisher, &mut honest);
    };
    let account = publisher.subscribers().last().unwrap().account();
    assert!(account < PATIENCE / 2, "{account:?} of {PATIENCE:?}");
}

#[test]
fn newcomer_for_which_nobody_waits_needs_no_time() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder().max_fds(0));
    let raw = RawSubscriber::join(&mut publisher, FOREVER);
    publish_rings(&mut publisher, &mut honest);
    assert_too_slow(&mut publisher, &raw);
    assert!(try_join(&mut publisher, FOREVER).is_none(), "its time is used up");
    assert!(try_join(&mut publisher, NEVER).is_some());
}

/// Whoever joins for a moment with a short time of its own does not get the long time back, also if another one of the user leaves.
#[test]
fn short_wish_gives_no_time_back() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let spare = RawSubscriber::join(&mut publisher, NEVER);
    let raw = RawSubscriber::join(&mut publisher, FOREVER);
    publish_rings(&mut publisher, &mut honest);
    assert_too_slow(&mut publisher, &raw);
    let deadline = Instant::now() + LONG;
    // 1,000 microseconds.
    let short = loop {
        if let Some(joined) = try_join(&mut publisher, 1001) {
            break joined;
        }
        assert!(Instant::now() < deadline);
    };
    publish_rings(&mut publisher, &mut honest);
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Left(_, Error::TooSlow)) => {}
        other => panic!("{other:?}"),
    }
    drop(short);
    // It would be full again by now.
    thread::sleep(Duration::from_millis(15));
    assert!(publisher.disconnect(spare.id));
    assert!(matches!(publisher.next_event().unwrap(), Some(Event::Left(..))));
    if let Some(_joined) = try_join(&mut publisher, FOREVER) {
        let account = publisher.subscribers().last().unwrap().account();
        assert!(account < PATIENCE / 2, "{account:?} of {PATIENCE:?}");
    }
}

#[test]
fn releasing_in_the_last_moment_works_once() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let raw = RawSubscriber::join(&mut publisher, FOREVER);
    let mut lowest = PATIENCE;
    let mut times = 0;
    'all: loop {
        while let Some(loan) = publisher.try_loan(PAYLOAD).unwrap() {
            loan.send().unwrap();
            honest.recv_timeout(LONG).unwrap();
            // Without it there is always room.
            if info(&mut publisher, &raw).is_none() {
                break 'all;
            }
        }
        // It waits until 30 percent of the first account are left, or of what was left the last time.
        let before = lowest;
        loop {
            let Some(info) = info(&mut publisher, &raw) else { break 'all };
            assert!(info.account() <= PATIENCE);
            lowest = info.account();
            if lowest < before * 3 / 10 {
                break;
            }
            // It was ended, or there is no room.
            if publisher.try_loan(PAYLOAD).unwrap().is_some() {
                break 'all;
            }
            publisher.next_event().unwrap();
        }
        raw.raw.set(TAIL, raw.published());
        times += 1;
        if times > 20 {
            break;
        }
    }
    // 0.3 to the power of 20 of the time is nothing.
    assert!(lowest < PATIENCE / 100 || times < 20, "{times} times, {lowest:?} left");
    assert!(publisher.stats().waits_for_space > 0);
}

/// An event loop has no clock of its own: the publisher's descriptor says when the time is over.
#[test]
fn time_runs_in_an_event_loop() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let raw = RawSubscriber::join(&mut publisher, FOREVER);
    while let Some(loan) = publisher.try_loan(PAYLOAD).unwrap() {
        loan.send().unwrap();
        honest.recv_timeout(LONG).unwrap();
    }
    while publisher.next_event().unwrap().is_some() {}
    let waits = info(&mut publisher, &raw).unwrap().waits();
    assert_eq!(waits, 1);
    let event = loop {
        assert_eq!(readable([std::os::fd::AsFd::as_fd(&publisher)], LONG), [true]);
        if let Some(event) = publisher.next_event().unwrap() {
            break event;
        }
    };
    assert!(matches!(event, Event::Left(id, Error::TooSlow) if id == raw.id), "{event:?}");
    publish_rings(&mut publisher, &mut honest);
}

#[test]
fn nobody_waits_for_those_who_may_be_overrun() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let raws: Vec<_> = (0..5).map(|_| RawSubscriber::join(&mut publisher, NEVER)).collect();
    publish_rings(&mut publisher, &mut honest);
    assert_eq!(publisher.stats().waits_for_space, 0);
    for raw in &raws {
        assert_eq!(info(&mut publisher, raw).unwrap().waits(), 0);
    }
}

/// A subscriber that releases the ring but leaves its socket unread: descriptors wait for it within its account.
#[test]
fn unread_descriptors_hold_up_for_the_same_time() {
    let _guard = bounded();
    let file = std::fs::File::open("/dev/null").unwrap();
    for patience in [FOREVER, NEVER] {
        let (mut publisher, mut honest) = pair(&builder());
        let raw = RawSubscriber::join(&mut publisher, patience);
        for n in 0..60_u8 {
            publisher.send(Control::new(&[n]).fds([&file; 4])).unwrap();
            raw.raw.set(TAIL, raw.published());
            let message = honest.recv_timeout(LONG).unwrap();
            assert_eq!((message.control(), message.fds().len(), message.missed()), (&[n][..], 4, 0));
        }
        if patience == FOREVER {
            assert_too_slow(&mut publisher, &raw);
            assert!(try_join(&mut publisher, FOREVER).is_none(), "its user holds descriptors unread");
        } else {
            assert!(info(&mut publisher, &raw).is_some(), "it is left out, and missed some");
            assert_eq!(info(&mut publisher, &raw).unwrap().waits(), 0);
        }
        // It was sent few.
        drop(publisher);
        let packets = raw.raw.socket.hear_all();
        let sent = packets.iter().filter(|packet| packet.kind == DESCRIPTORS).count();
        assert!((1..=8).contains(&sent), "{sent}");
    }
}

#[test]
fn stopped_process_is_ended_and_learns_why() {
    let _guard = bounded();
    let (mut publisher, mut honest) = pair(&builder());
    let (id, mut child) = publisher.spawn(role(learns_that_it_was_too_slow)).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    publish_rings(&mut publisher, &mut honest);
    match publisher.wait_event(LONG).unwrap() {
        Some(Event::Left(left, Error::TooSlow)) if left == id => {}
        other => panic!("{other:?}"),
    }
    kill_process(pid, Signal::CONT).unwrap();
    publish_rings(&mut publisher, &mut honest);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn learns_that_it_was_too_slow() {
    let mut subscriber = builder().subscribe_inherited().unwrap();
    let error = loop {
        match subscriber.recv_timeout(SOON) {
            Ok(message) => {
                if let Some(payload) = message.payload()
                    && let Ok(bytes) = payload.try_to_vec()
                {
                    assert_eq!(bytes, [3; PAYLOAD]);
                }
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooSlow), "{error:?}");
}

#[test]
fn slowness_is_told_also_without_control_bytes() {
    let _guard = bounded();
    let builder = builder().max_control(0).slow(Slow::Wait(Duration::from_millis(20)));
    let (mut publisher, mut slow) = pair(&builder);
    let mut sent = 0;
    while let Some(loan) = publisher.try_loan(PAYLOAD).unwrap() {
        loan.send().unwrap();
        sent += 1;
    }
    // Its time is over, and nothing of the ring is claimed meanwhile.
    match publisher.wait_event(SOON).unwrap() {
        Some(Event::Left(_, Error::TooSlow)) => {}
        other => panic!("{other:?}"),
    }
    for _ in 0..sent {
        slow.recv_timeout(SOON).unwrap();
    }
    let error = slow.recv_timeout(SOON).unwrap_err();
    assert!(matches!(error, Error::TooSlow), "{error:?}");
}

/// A latecomer was not sent the descriptors of earlier messages: it begins behind them.
#[test]
fn latecomers_begin_behind_messages_with_descriptors() {
    let _guard = bounded();
    let file = std::fs::File::open("/dev/null").unwrap();
    for slow in [Slow::default(), OVERRUN] {
        for others in 0..2 {
            let mut publisher = builder().publisher().unwrap();
            let _others: Vec<_> =
                (0..others).map(|_| join(&mut publisher, &builder().slow(OVERRUN))).collect();
            publisher.loan(100).unwrap().send_with(Control::new(b"old").fd(&file)).unwrap();
            let mut late = join(&mut publisher, &builder().slow(slow).start(Start::Latest)).1;
            publisher.loan(100).unwrap().send_with(Control::new(b"new").fd(&file)).unwrap();
            let message = late.recv_timeout(SOON).unwrap();
            assert_eq!((message.control(), message.fds().len(), message.missed()), (&b"new"[..], 1, 0));
            // A message behind that one, whose descriptors would be missing too.
            let mut publisher = builder().publisher().unwrap();
            publisher.loan(100).unwrap().send().unwrap();
            publisher.send(Control::new(b"old").fd(&file)).unwrap();
            let mut late = join(&mut publisher, &builder().slow(slow).start(Start::Latest)).1;
            publisher.send("new").unwrap();
            assert_eq!(late.recv_timeout(SOON).unwrap().control(), b"new");
        }
    }
}

/// Messages whose descriptors were left out are missed, and those behind them are not, also behind the end.
#[test]
fn messages_left_out_before_the_end_are_counted() {
    let _guard = bounded();
    let (mut publisher, mut subscriber) = pair(&builder().ring_capacity(256 << 10).slow(OVERRUN));
    let file = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..20 {
        publisher.send(Control::new(b"with").fd(&file)).unwrap();
    }
    for _ in 0..5 {
        publisher.send("without").unwrap();
    }
    drop(publisher);
    let (mut received, mut missed, mut without) = (0, 0, 0);
    let error = loop {
        match subscriber.recv_timeout(SOON) {
            Ok(message) => {
                received += 1;
                missed += message.missed();
                without += usize::from(message.control() == b"without");
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Disconnected), "{error:?}");
    assert_eq!((received + missed, subscriber.missed(), without), (25, missed, 5), "{received} received");
    assert!(missed > 0, "the test would show nothing");
}

#[test]
fn newest_is_a_message_with_a_payload() {
    let _guard = bounded();
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&builder().slow(slow));
        publisher.send("a word").unwrap();
        assert!(subscriber.try_recv_latest().unwrap().is_none());
        publisher.loan(0).unwrap().send().unwrap();
        let newest = subscriber.recv_latest_timeout(SOON).unwrap();
        assert_eq!((newest.sequence(), newest.missed(), newest.payload().is_some()), (1, 1, true));
    }
}

/// Messages that were kept while a reply was awaited are not received behind newer ones.
#[test]
fn messages_stay_in_order_behind_a_call() {
    let _guard = bounded();
    for in_place in [false, true] {
        let (mut publisher, mut subscriber) = pair(&builder());
        for _ in 0..3 {
            publisher.loan(10).unwrap().send().unwrap();
        }
        assert!(matches!(subscriber.call("?", Duration::ZERO), Err(Error::Timeout)));
        publisher.loan(10).unwrap().send().unwrap();
        let mut last = None;
        let mut see = |sequence: u64| {
            assert!(last.is_none_or(|last| last < sequence), "{sequence} behind {last:?}");
            last = Some(sequence);
        };
        if in_place {
            let read = subscriber.recv_with_timeout(SOON, |message| Some(message.sequence())).unwrap();
            see(read.flatten().unwrap());
        } else {
            see(subscriber.recv_latest_timeout(SOON).unwrap().sequence());
        }
        while let Some(message) = subscriber.try_recv().unwrap() {
            see(message.sequence());
        }
        assert_eq!(last, Some(3));
    }
}

/// A call that does not wait finds a message behind any number of messages that were left out: nothing would say that it is there.
#[test]
fn a_message_behind_many_that_were_left_out_is_found_at_once() {
    let _guard = bounded();
    let (mut publisher, mut subscriber) = pair(&builder().ring_capacity(256 << 10).slow(OVERRUN));
    let file = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..1000 {
        publisher.send(Control::new(b"with").fd(&file)).unwrap();
    }
    publisher.send("behind").unwrap();
    let mut received = Vec::new();
    while let Some(message) = subscriber.try_recv().unwrap() {
        received.push(message);
    }
    assert!(received.len() < 500, "{} of 1000 were not left out", received.len());
    let last = received.last().unwrap();
    assert_eq!(last.control(), b"behind");
    assert_eq!(subscriber.missed(), 1001 - u64::try_from(received.len()).unwrap());
}
