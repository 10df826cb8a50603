//! Messages cross the network as they are.

mod common;

use std::time::Duration;

use common::{Echo, LONG, Pair, next, quick, waiting};
use sealane::{Builder, Control};
use sealane_bridge::{CallError, Error, Fds, Gone, Notice, Received};

#[test]
fn messages_arrive_as_they_were() {
    let mut import = quick();
    import.ring = 16 << 20;
    let mut pair = Pair::with(&waiting(), &import, &Builder::default().ring_capacity(16 << 20));
    let sizes = [0, 1, 63, 64, 1000, 16 << 10, 64 << 10, (64 << 10) + 1, 1 << 20, 3 << 20];
    for (index, &size) in sizes.iter().enumerate() {
        let mut loan = pair.publisher.loan(size).unwrap();
        loan.fill(u8::try_from(index).unwrap());
        loan.send_with(&[u8::try_from(index).unwrap()]).unwrap();
        pair.publisher.send(b"no payload").unwrap();
    }
    for (index, &size) in sizes.iter().enumerate() {
        let Some(Received::Message(message)) = pair.subscriber.recv(LONG).unwrap() else { panic!("{index}") };
        assert_eq!((message.control(), message.missed()), (&[u8::try_from(index).unwrap()][..], 0));
        let payload = message.payload().unwrap().to_vec();
        assert_eq!(payload.len(), size);
        assert!(payload.iter().all(|&byte| usize::from(byte) == index));
        let (control, missed) = next(&mut pair.subscriber);
        assert_eq!((&control[..], missed), (&b"no payload"[..], 0));
    }
    let status = &pair.importer.as_ref().unwrap().status()[0];
    assert_eq!((status.count.malformed, status.count.refused, status.count.dropped), (0, 0, 0));
}

#[test]
fn plain_samples_carry_the_same() {
    let mut plain = waiting();
    plain.plain = true;
    let mut pair = Pair::new(&plain, &quick());
    for number in 0..100_u64 {
        pair.publisher.loan(7).unwrap().send_with(Control::of(&number)).unwrap();
    }
    for number in 0..100_u64 {
        assert_eq!(next(&mut pair.subscriber), (number.to_le_bytes().to_vec(), 0));
    }
    let exported = pair.exporter.as_ref().unwrap().status()[0].count;
    assert_eq!(exported.samples, exported.messages);
}

#[test]
fn small_messages_share_samples() {
    let mut pair = Pair::new(&waiting(), &quick());
    let before = pair.exporter.as_ref().unwrap().status()[0].count;
    for _ in 0..10 {
        let mut batch = pair.publisher.batch();
        for number in 0..1000_u64 {
            batch.loan(8).unwrap().send_with(Control::of(&number)).unwrap();
        }
    }
    for _ in 0..10 {
        for number in 0..1000_u64 {
            assert_eq!(next(&mut pair.subscriber), (number.to_le_bytes().to_vec(), 0));
        }
    }
    // A sample is counted when Zenoh has taken it, which may be after it has arrived.
    let exporter = pair.exporter.as_ref().unwrap();
    common::wait_until("all are counted", || exporter.status()[0].count.messages - before.messages >= 10_000);
    let samples = exporter.status()[0].count.samples - before.samples;
    assert!(samples < 5_000, "{samples} samples");
}

#[test]
fn calls_reach_the_publisher_and_come_back() {
    let mut pair = Pair::new(&quick(), &quick());
    let echo = Echo::start(pair.publisher);
    for _ in 0..20 {
        let reply = pair.subscriber.call(b"gain?", LONG).unwrap();
        assert_eq!(reply.control(), b"echo gain?");
    }
    drop(echo.stop());
    // The publisher is gone: an error, not silence.
    common::wait_until("the exporter knows", || !pair.exporter.as_ref().unwrap().status()[0].is_here);
    let Err(Error::Call(why)) = pair.subscriber.call(b"gain?", LONG) else { panic!() };
    assert_eq!(why, CallError::NoPublisher);
    drop(pair.exporter.take());
    common::wait_until("Zenoh knows", || {
        matches!(pair.subscriber.call(b"gain?", LONG), Err(Error::Call(CallError::NobodyThere)))
    });
}

#[test]
fn messages_of_far_subscribers_reach_the_publisher() {
    let mut pair = Pair::new(&quick(), &quick());
    pair.subscriber.send(b"buffer 7 is free", LONG).unwrap();
    loop {
        match pair.publisher.wait_event(LONG).unwrap() {
            Some(sealane::Event::Message(_, message)) => {
                assert_eq!(message.control(), b"buffer 7 is free");
                break;
            }
            Some(_) => {}
            None => panic!("no message"),
        }
    }
}

#[test]
fn a_publisher_that_does_not_answer_is_timed_out() {
    let mut import = quick();
    import.call_timeout = Duration::from_millis(100);
    let mut pair = Pair::new(&quick(), &import);
    let Err(Error::Call(why)) = pair.subscriber.call(b"gain?", LONG) else { panic!() };
    assert_eq!(why, CallError::TimedOut);
}

#[test]
fn a_source_that_ends_and_begins_again_is_told() {
    let mut pair = Pair::new(&quick(), &quick());
    drop(pair.publisher);
    let notice = |pair: &mut sealane_bridge::Subscriber| loop {
        match pair.recv(LONG).unwrap() {
            Some(Received::Notice(notice, _)) => return notice,
            Some(_) => {}
            None => panic!("no notice"),
        }
    };
    assert_eq!(notice(&mut pair.subscriber), Notice::Gone(Gone::Ended));
    let mut publisher = sealane::Publisher::bind(pair.place.source()).unwrap();
    common::wait_for_subscribers(&mut publisher, 1);
    assert_eq!(notice(&mut pair.subscriber), Notice::Here);
    common::publish(&mut publisher, 0);
    assert_eq!(next(&mut pair.subscriber), (0_u64.to_le_bytes().to_vec(), 0));
    drop(pair.exporter.take());
    assert_eq!(notice(&mut pair.subscriber), Notice::Gone(Gone::Unreachable));
}

#[test]
fn descriptors_do_not_cross() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let builder = Builder::default().max_fds(1);
    for fds in [Fds::Refuse, Fds::LeaveOut] {
        let mut export = quick();
        export.fds = fds;
        let mut pair = Pair::with(&export, &quick(), &builder);
        pair.publisher.send(Control::new(b"with").fd(&file)).unwrap();
        pair.publisher.send(b"without").unwrap();
        if fds == Fds::LeaveOut {
            assert_eq!(next(&mut pair.subscriber), (b"with".to_vec(), 0));
            assert_eq!(next(&mut pair.subscriber), (b"without".to_vec(), 0));
            assert_eq!(pair.importer.as_ref().unwrap().status()[0].count.without_fds, 1);
        } else {
            assert_eq!(next(&mut pair.subscriber), (b"without".to_vec(), 1));
            assert_eq!(pair.exporter.as_ref().unwrap().status()[0].count.refused, 1);
        }
    }
}

#[test]
fn messages_that_are_too_large_for_the_far_side_are_missed_in_their_place() {
    let mut import = quick();
    // Not even the bridge's own notices fit.
    import.max_control = 16;
    let mut pair = Pair::new(&quick(), &import);
    let mut batch = pair.publisher.batch();
    for number in 0..30_u64 {
        batch.send(Control::of(&number)).unwrap();
        batch.send(&[0; 17]).unwrap();
    }
    drop(batch);
    for number in 0..30_u64 {
        assert_eq!(next(&mut pair.subscriber), (number.to_le_bytes().to_vec(), u64::from(number > 0)));
    }
    let first = pair.subscriber.inner().unwrap().number();
    pair.publisher.send(b"after").unwrap();
    assert_eq!(next(&mut pair.subscriber), (b"after".to_vec(), 1));
    assert_eq!(pair.subscriber.inner().unwrap().number(), first + 2, "numbers at the source");
}

#[test]
fn messages_that_come_during_a_call_are_counted_once() {
    let Pair { place, mut publisher, exporter, importer, mut subscriber } = Pair::new(&quick(), &quick());
    let caller = std::thread::spawn(move || {
        let reply = subscriber.call(b"gain?", LONG).unwrap();
        assert_eq!(reply.control(), b"2.0");
        for number in 0..10_u64 {
            assert_eq!(next(&mut subscriber), (number.to_le_bytes().to_vec(), 0));
        }
        subscriber
    });
    let (id, token) = loop {
        if let Some(sealane::Event::Message(id, message)) = publisher.wait_event(LONG).unwrap() {
            break (id, message.reply_token().unwrap());
        }
    };
    for number in 0..10_u64 {
        common::publish(&mut publisher, number);
    }
    std::thread::sleep(Duration::from_millis(100));
    publisher.reply(id, token, b"2.0").unwrap();
    let mut subscriber = caller.join().unwrap();
    // The bridge is started again, and messages are lost meanwhile.
    drop(importer);
    common::publish(&mut publisher, 10);
    let _importer = place.importer(&quick());
    let mut missed = 0;
    for number in 11.. {
        common::publish(&mut publisher, number);
        match subscriber.recv(Duration::from_millis(50)).unwrap() {
            Some(Received::Notice(_, count)) => missed += count,
            Some(Received::Message(message)) => {
                missed += message.missed();
                assert_eq!(common::number(message.control()), 10 + missed);
                break;
            }
            _ => {}
        }
    }
    assert!(missed > 0);
    drop(exporter);
}
