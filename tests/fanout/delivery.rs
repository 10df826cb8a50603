//! Messages reach all subscribers, whole and in order, and what was missed is told.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sealane::{Builder, Control, Error, Event, Publisher, Slow, Start, Subscriber, Wait};

use crate::{
    fan::{OVERRUN, join, pair},
    support::{hostile::readable, numbers, threads::SOON},
};

/// The lowest byte.
fn byte(n: u64) -> u8 {
    n.to_le_bytes()[0]
}

fn small() -> Builder {
    Builder::default().ring_capacity(64 << 10)
}

#[test]
fn all_subscribers_receive_all_messages_in_order() {
    let mut publisher = Builder::default().max_fds(4).publisher().unwrap();
    let builder = Builder::default().max_fds(4);
    let mut subscribers: Vec<_> = [Slow::default(), OVERRUN, Slow::Wait(Duration::MAX)]
        .into_iter()
        .map(|slow| join(&mut publisher, &builder.clone().slow(slow)).1)
        .collect();
    let file = std::fs::File::open("/dev/null").unwrap();
    for n in 0..100_u32 {
        let control = n.to_le_bytes();
        match n % 4 {
            0 => publisher.send(&control).unwrap(),
            1 => publisher.send(Control::new(&control).fd(&file)).unwrap(),
            _ => {
                let mut loan = publisher.loan(1000).unwrap();
                loan.copy_from_slice(&numbers(1000));
                let control = Control::new(&control);
                loan.send_with(if n % 4 == 2 { control } else { control.fd(&file).fd(&file) }).unwrap();
            }
        }
        for subscriber in &mut subscribers {
            let message = subscriber.recv_timeout(SOON).unwrap();
            assert_eq!((message.sequence(), message.missed()), (n.into(), 0));
            assert_eq!(message.control(), control);
            assert_eq!(message.fds().len(), [0, 1, 0, 2][n as usize % 4]);
            let payload = message.payload().map(|payload| payload.try_to_vec().unwrap());
            assert_eq!(payload, (n % 4 > 1).then(|| numbers(1000)));
        }
    }
    drop(publisher);
    for subscriber in &mut subscribers {
        assert!(matches!(subscriber.recv_timeout(SOON), Err(Error::Disconnected)));
        assert_eq!(subscriber.missed(), 0);
    }
}

#[test]
fn what_was_received_and_missed_is_what_was_published() {
    let (mut publisher, mut subscriber) = pair(&small().slow(OVERRUN));
    let (mut received, mut told) = (0, 0);
    for n in 0..10_000_u64 {
        let mut loan = publisher.loan(600).unwrap();
        loan.fill(byte(n));
        loan.send_with(&n.to_le_bytes()).unwrap();
        if n % 1000 < 10 {
            let message = subscriber.recv_timeout(SOON).unwrap();
            told += message.missed();
            received += 1;
            assert_eq!(message.control(), message.sequence().to_le_bytes());
            assert_eq!(message.payload().unwrap().to_vec(), [byte(message.sequence()); 600]);
            assert_eq!(told + received, message.sequence() + 1);
        }
    }
    drop(publisher);
    while let Ok(message) = subscriber.recv_timeout(SOON) {
        told += message.missed();
        received += 1;
    }
    assert_eq!(received + subscriber.missed(), 10_000);
    assert!(told > 9000 && received > 90, "{told} {received}");
}

#[test]
fn latest_leaves_out_what_is_older() {
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        assert!(subscriber.try_recv_latest().unwrap().is_none());
        for n in 0..10_u8 {
            let mut loan = publisher.loan(100).unwrap();
            loan.fill(n);
            loan.send().unwrap();
        }
        publisher.send("a word").unwrap();
        let newest = subscriber.recv_latest_timeout(SOON).unwrap();
        assert_eq!((newest.sequence(), newest.missed()), (9, 9));
        assert_eq!(newest.payload().unwrap().to_vec(), [9; 100]);
        assert!(subscriber.try_recv_latest().unwrap().is_none(), "it was received");
        assert_eq!(subscriber.recv_timeout(SOON).unwrap().control(), b"a word");
        assert!(subscriber.try_recv().unwrap().is_none());
        assert_eq!(subscriber.missed(), 9);
    }
}

#[test]
fn first_message_without_a_payload_is_not_the_newest() {
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        publisher.send("a word").unwrap();
        assert!(subscriber.try_recv_latest().unwrap().is_none());
        assert_eq!(subscriber.try_recv().unwrap().unwrap().control(), b"a word");
        publisher.loan(1).unwrap().send().unwrap();
        assert_eq!(subscriber.recv_latest_timeout(SOON).unwrap().sequence(), 1);
    }
}

#[test]
fn latecomers_begin_with_the_next_message_or_the_newest() {
    let mut publisher = small().publisher().unwrap();
    for n in 0..5_u8 {
        publisher.loan(100).unwrap().send_with(&[n]).unwrap();
    }
    publisher.send("last").unwrap();
    let mut next = join(&mut publisher, &Builder::default()).1;
    let mut latest = join(&mut publisher, &Builder::default().start(Start::Latest)).1;
    publisher.send("new").unwrap();
    assert_eq!(next.recv_timeout(SOON).unwrap().control(), b"new");
    for control in [&[4][..], b"last", b"new"] {
        let message = latest.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.missed()), (control, 0));
    }
}

/// Messages without a payload have written over the newest message with a payload: a latecomer begins with the next message.
#[test]
fn latecomers_do_not_begin_with_a_message_that_was_written_over() {
    for slow in [Slow::default(), OVERRUN] {
        let mut publisher = small().publisher().unwrap();
        publisher.loan(100).unwrap().send_with(b"newest").unwrap();
        // Each takes a line at least.
        (0..(64 << 10) / 64).for_each(|_| publisher.send("a word").unwrap());
        let mut late = join(&mut publisher, &small().slow(slow).start(Start::Latest)).1;
        publisher.try_send("new").unwrap();
        let message = late.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.missed()), (&b"new"[..], 0));
    }
}

#[test]
fn requests_are_answered_to_the_one_that_asked() {
    let mut publisher = small().publisher().unwrap();
    let (first, mut one) = join(&mut publisher, &Builder::default());
    let (second, mut two) = join(&mut publisher, &Builder::default());
    let questions = [one.request("one?").unwrap(), two.request("two?").unwrap()];
    let mut asked = Vec::new();
    while asked.len() < 2 {
        match publisher.wait_event(SOON).unwrap() {
            Some(Event::Message(id, message)) => asked.push((id, message)),
            other => panic!("{other:?}"),
        }
    }
    publisher.send("to all").unwrap();
    for (id, message) in &asked {
        let token = message.reply_token().unwrap();
        let other = if *id == first { second } else { first };
        assert!(matches!(publisher.reply(other, token, "no"), Err(Error::UnknownRequest)));
        publisher.reply(*id, token, message.control()).unwrap();
        assert!(matches!(publisher.reply(*id, token, "again"), Err(Error::UnknownRequest)));
    }
    for (subscriber, question, text) in [(&mut one, questions[0], "one?"), (&mut two, questions[1], "two?")] {
        assert_eq!(subscriber.wait_reply(question, SOON).unwrap().control(), text.as_bytes());
        assert_eq!(subscriber.recv_timeout(SOON).unwrap().control(), b"to all");
    }
}

#[test]
fn slow_subscriber_is_ended_and_learns_why() {
    let patience = Duration::from_millis(20);
    let (mut publisher, mut slow) = pair(&small().slow(Slow::Wait(patience)));
    let held = {
        publisher.loan(1000).unwrap().send().unwrap();
        slow.recv_timeout(SOON).unwrap()
    };
    for _ in 0..200 {
        publisher.loan(1000).unwrap().send().unwrap();
    }
    match publisher.next_event().unwrap() {
        Some(Event::Left(_, Error::TooSlow)) => {}
        other => panic!("{other:?}"),
    }
    let payload = held.payload().unwrap();
    assert!(!payload.is_whole());
    assert!(matches!(payload.try_to_vec(), Err(Error::Overrun)));
    let end = loop {
        if let Err(error) = slow.recv_timeout(SOON) {
            break error;
        }
    };
    assert!(matches!(end, Error::TooSlow), "{end:?}");
}

#[test]
fn losses_at_the_source_count_as_missed() {
    for slow in [Slow::default(), OVERRUN] {
        let mut publisher = small().publisher().unwrap();
        publisher.lost(1000);
        let mut subscriber = join(&mut publisher, &Builder::default().slow(slow)).1;
        publisher.epoch(7);
        publisher.send("1").unwrap();
        publisher.lost(3);
        publisher.lost(2);
        publisher.send("2").unwrap();
        for missed in [0, 5] {
            let message = subscriber.recv_timeout(SOON).unwrap();
            assert_eq!((message.missed(), message.epoch()), (missed, 7));
        }
        assert_eq!(subscriber.missed(), 5);
    }
}

#[test]
fn control_bytes_of_any_length_ride_wherever_the_loan_stands() {
    let (mut publisher, mut subscriber) = pair(&small());
    for n in 0..500_usize {
        let (len, control) = (n * 37 % 9000, vec![n.to_le_bytes()[0]; n * 101 % 20_000]);
        let mut loan = publisher.loan(len).unwrap();
        loan.copy_from_slice(&numbers(len));
        loan.send_with(&control).unwrap();
        let message = subscriber.recv_timeout(SOON).unwrap();
        assert!(message.control() == control, "control bytes of message {n}");
        assert!(message.payload().unwrap().to_vec() == numbers(len), "payload of message {n}");
    }
    let error = publisher.loan(20_000).unwrap().send_with(&vec![0; 20_000]).unwrap_err();
    assert!(matches!(error, Error::ControlTooLarge { len: 20_000, max: 12_672 }), "{error:?}");
}

#[test]
fn messages_are_read_in_place() {
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow).max_fds(1));
        let file = std::fs::File::open("/dev/null").unwrap();
        publisher.epoch(9);
        for _ in 0..300 {
            let mut loan = publisher.loan(1000).unwrap();
            loan.fill(1);
            loan.send_with(Control::new(b"x").fd(&file)).unwrap();
            let sum = subscriber.recv_with_timeout(SOON, |message| {
                assert_eq!((message.control(), message.missed()), (&b"x"[..], 0));
                assert_eq!((message.epoch(), message.fds().len()), (9, 1));
                message.payload().unwrap().iter().map(u32::from).sum::<u32>()
            });
            assert_eq!(sum.unwrap(), Some(1000));
        }
        let read = subscriber.recv_with_timeout(Duration::ZERO, |_| ());
        assert!(matches!(read, Err(Error::Timeout)));
    }
}

#[test]
fn latecomers_do_not_begin_with_descriptors_that_were_not_sent_to_them() {
    let file = std::fs::File::open("/dev/null").unwrap();
    for slow in [Slow::default(), OVERRUN] {
        let settings = small().max_fds(1).slow(slow);
        let mut publisher = settings.publisher().unwrap();
        for n in 0..3_u8 {
            publisher.loan(100).unwrap().send_with(Control::new(&[n]).fd(&file)).unwrap();
        }
        let mut late = join(&mut publisher, &settings.clone().start(Start::Latest)).1;
        publisher.loan(100).unwrap().send_with(Control::new(&[3]).fd(&file)).unwrap();
        let message = late.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.missed(), message.fds().len()), (&[3][..], 0, 1));
        publisher.loan(100).unwrap().send_with(&[4]).unwrap();
        let mut later = join(&mut publisher, &settings.clone().start(Start::Latest)).1;
        assert_eq!(later.recv_timeout(SOON).unwrap().control(), [4], "the newest has none");
    }
}

#[test]
fn what_came_while_a_reply_was_awaited_is_received_in_its_turn() {
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        let publish = |publisher: &mut Publisher, n: u8| {
            publisher.loan(100).unwrap().send_with(&[n]).unwrap();
        };
        let keep = |subscriber: &mut Subscriber| {
            let question = subscriber.request("?").unwrap();
            let reply = subscriber.wait_reply(question, Duration::ZERO);
            assert!(matches!(reply, Err(Error::Timeout)), "{reply:?}");
        };
        (0..4).for_each(|n| publish(&mut publisher, n));
        keep(&mut subscriber);
        let read = subscriber.recv_with_timeout(SOON, |message| message.control().to_vec()).unwrap();
        assert_eq!(read, Some(vec![0]));
        // The newest is among those that were kept.
        let latest = subscriber.recv_latest_timeout(SOON).unwrap();
        assert_eq!((latest.control(), latest.missed(), subscriber.missed()), (&[3][..], 2, 2));
        assert!(subscriber.try_recv().unwrap().is_none());
        // Those that were kept are older than the newest.
        (4..7).for_each(|n| publish(&mut publisher, n));
        keep(&mut subscriber);
        publish(&mut publisher, 7);
        let latest = subscriber.try_recv_latest().unwrap().unwrap();
        assert_eq!((latest.control(), latest.missed(), subscriber.missed()), (&[7][..], 3, 5));
        assert!(subscriber.try_recv().unwrap().is_none());
        // A message behind the newest stays.
        publish(&mut publisher, 8);
        publisher.send("behind").unwrap();
        keep(&mut subscriber);
        assert_eq!(subscriber.recv_latest_timeout(SOON).unwrap().control(), [8]);
        assert_eq!(subscriber.recv_timeout(SOON).unwrap().control(), b"behind");
    }
}

#[test]
fn reader_that_is_one_message_behind_has_room_for_descriptors() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let (mut publisher, mut subscriber) = pair(&small().max_fds(1));
    publisher.try_send(Control::new(b"first").fd(&file)).unwrap();
    for n in 0..100 {
        publisher
            .try_send(Control::new(b"next").fd(&file))
            .unwrap_or_else(|error| panic!("message {n}: {error}"));
        assert_eq!(subscriber.recv_timeout(SOON).unwrap().fds().len(), 1);
    }
}

#[test]
fn reader_that_was_slow_once_and_reads_again_is_not_ended() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let patience = Duration::from_millis(300);
    let (mut publisher, mut subscriber) = pair(&small().max_fds(1).slow(Slow::Wait(patience)));
    let mut behind = 0;
    while publisher.try_send(Control::new(b"slow").fd(&file)).is_ok() {
        behind += 1;
        assert!(behind < 100, "descriptors that nobody reads");
    }
    (1..behind).for_each(|_| drop(subscriber.recv_timeout(SOON).unwrap()));
    assert!(publisher.next_event().unwrap().is_none());
    // From here on it is always one message behind, for longer than its time.
    let end = Instant::now() + patience / 2 * 3;
    while Instant::now() < end {
        publisher.try_send(Control::new(b"next").fd(&file)).unwrap();
        subscriber.recv_timeout(SOON).unwrap();
        let event = publisher.next_event().unwrap();
        assert!(event.is_none(), "{event:?}");
    }
}

#[test]
fn each_wait_that_spinning_has_ended_counts_by_itself() {
    let count = || {
        let (mut publisher, mut subscriber) = pair(&small().wait(Wait::Spin));
        std::thread::scope(|scope| {
            let receiving = scope.spawn(move || {
                for n in 0..3 {
                    assert_eq!(subscriber.recv_timeout(SOON).unwrap().sequence(), n);
                }
                subscriber.stats()
            });
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(20));
                publisher.loan(100).unwrap().send().unwrap();
            }
            let stats = receiving.join().unwrap();
            (stats.spins_paid, stats.sleeps)
        })
    };
    // On a busy machine a message may be there before its receiver waits, and ends no spin then.
    let counts: Vec<_> = (0..10).map(|_| count()).take_while(|counts| *counts != (3, 0)).collect();
    assert!(counts.len() < 10, "{counts:?}");
}

#[test]
fn last_words_are_heard_although_publishing_notices_the_end_first() {
    let (mut publisher, mut subscriber) = pair(&Builder::default());
    assert!(subscriber.arm().unwrap(), "a doorbell is wanted");
    for word in ["one", "two"] {
        subscriber.send(word).unwrap();
    }
    drop(subscriber);
    // The doorbell finds nobody.
    for _ in 0..3 {
        publisher.send("who is there?").unwrap();
    }
    for word in ["one", "two"] {
        match publisher.next_event().unwrap() {
            Some(Event::Message(_, message)) => assert_eq!(message.control(), word.as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(publisher.next_event().unwrap(), Some(Event::Left(_, Error::Disconnected))));
}

/// There is always news for a subscriber that was ended, as the publisher goes on with others.
#[test]
fn end_is_noticed_although_there_is_always_more() {
    type Receive = fn(&mut Subscriber) -> sealane::Result<()>;
    let receives: [Receive; 3] = [
        |subscriber| subscriber.recv().map(drop),
        |subscriber| subscriber.recv_latest().map(drop),
        |subscriber| subscriber.recv_with(|_| ()).map(drop),
    ];
    for slow in [Slow::default(), OVERRUN] {
        for receive in receives {
            let builder = small().slow(slow);
            let mut publisher = builder.publisher().unwrap();
            let (id, mut subscriber) = join(&mut publisher, &builder);
            let publish = |publisher: &mut Publisher| publisher.loan(100).unwrap().send().unwrap();
            publish(&mut publisher);
            assert!(publisher.disconnect(id));
            let deadline = Instant::now() + SOON;
            let error = loop {
                assert!(Instant::now() < deadline, "{slow:?}: the end is not noticed");
                publish(&mut publisher);
                if let Err(error) = receive(&mut subscriber) {
                    break error;
                }
            };
            assert!(matches!(error, Error::Disconnected), "{error:?}");
            assert!(subscriber.recv().is_err(), "and stays");
        }
    }
}

/// A subscriber that looks for the newest payload reads descriptors of messages that it has not taken.
#[test]
fn looking_for_the_newest_is_no_violation_of_the_publisher() {
    let builder = small().max_fds(1);
    for slow in [Slow::Wait(SOON), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&builder.clone().slow(slow));
        let file = std::fs::File::open("/dev/null").unwrap();
        for n in 0..5_u8 {
            publisher.send(Control::new(&[n]).fd(&file)).unwrap();
        }
        assert!(subscriber.try_recv_latest().unwrap().is_none());
        let mut next = 0;
        while let Some(message) = subscriber.try_recv().unwrap() {
            assert_eq!((message.sequence(), message.fds().len()), (next + message.missed(), 1));
            next = message.sequence() + 1;
        }
        assert_eq!(next, 5, "the last ones are here");
        publisher.loan(10).unwrap().send().unwrap();
        assert_eq!(subscriber.recv_latest().unwrap().sequence(), 5);
    }
}

/// A publisher's descriptor is readable when publishing has noticed the end of a subscriber.
#[test]
fn ends_that_publishing_notices_are_announced() {
    let builder = small().max_fds(1);
    let (mut publisher, subscriber) = pair(&builder);
    drop(subscriber);
    let file = std::fs::File::open("/dev/null").unwrap();
    publisher.send(Control::default().fd(&file)).unwrap();
    assert_eq!(readable([publisher.as_fd()], SOON), [true]);
    assert!(matches!(publisher.next_event().unwrap(), Some(Event::Left(_, Error::Disconnected))));
}

/// The newest message is announced to a subscriber that begins with it.
#[test]
fn newest_message_is_announced_to_a_newcomer() {
    let builder = small().start(Start::Latest);
    let mut publisher = builder.publisher().unwrap();
    publisher.loan(10).unwrap().send().unwrap();
    let (_, mut subscriber) = join(&mut publisher, &builder);
    assert_eq!(readable([subscriber.as_fd()], SOON), [true]);
    assert_eq!(subscriber.try_recv().unwrap().unwrap().sequence(), 0);
}

#[test]
fn replies_are_taken_without_waiting() {
    for slow in [Slow::default(), OVERRUN] {
        let (mut publisher, mut subscriber) = pair(&small().slow(slow));
        let question = subscriber.request("?").unwrap();
        let unanswered = subscriber.request("and?").unwrap();
        let (id, token) = match publisher.wait_event(SOON).unwrap() {
            Some(Event::Message(id, message)) => (id, message.reply_token().unwrap()),
            other => panic!("{other:?}"),
        };
        publisher.loan(100).unwrap().send_with("before").unwrap();
        assert!(subscriber.take_reply(question).unwrap().is_none());
        assert_eq!(readable([subscriber.as_fd()], Duration::ZERO), [false], "what is kept is not announced");
        publisher.reply(id, token, "!").unwrap();
        publisher.send("behind").unwrap();
        assert_eq!(readable([subscriber.as_fd()], SOON), [true], "`None` has armed the descriptor");
        assert_eq!(subscriber.request_id(question.number()), Some(question));
        assert!(subscriber.take_reply(unanswered).unwrap().is_none());
        assert_eq!(subscriber.request_id(question.number()), Some(question), "its reply is kept");
        assert_eq!(subscriber.take_reply(question).unwrap().unwrap().control(), b"!");
        assert!(matches!(subscriber.take_reply(question), Err(Error::UnknownRequest)));
        assert_eq!(subscriber.request_id(question.number()), None);
        for control in ["before", "behind"] {
            let message = subscriber.try_recv().unwrap().unwrap();
            assert_eq!((message.control(), message.missed()), (control.as_bytes(), 0));
        }
        subscriber.cancel(unanswered);
        assert!(matches!(subscriber.take_reply(unanswered), Err(Error::UnknownRequest)));
        let stranger = pair(&small()).1.request("?").unwrap();
        assert!(matches!(subscriber.take_reply(stranger), Err(Error::UnknownRequest)));
    }
}

#[test]
fn loans_that_are_published_later_wake_subscribers_once() {
    let (mut publisher, mut subscriber) = pair(&small());
    for round in 1..=3 {
        while subscriber.try_recv().unwrap().is_some() {}
        assert!(subscriber.arm().unwrap());
        for _ in 0..5 {
            publisher.loan(8).unwrap().try_send_later("x").unwrap();
        }
        assert_eq!(readable([subscriber.as_fd()], Duration::ZERO), [false], "it is not woken yet");
        match round {
            1 => publisher.batch().flush(),
            2 => publisher.loan(8).unwrap().flush(),
            _ => publisher
                .loan(8)
                .unwrap()
                .try_send_later(&vec![0; 1 << 20])
                .unwrap_err()
                .into_loan()
                .send()
                .unwrap(),
        }
        assert_eq!(readable([subscriber.as_fd()], SOON), [true]);
        assert_eq!(publisher.stats().doorbells_sent, round);
    }
}
