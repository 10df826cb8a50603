//! What is published, recorded, replayed and received is the same.

use std::{thread, time::Duration};

use rustix::process::Signal;
use sealane::{Builder, Error, Message, Publisher, Slow};

use crate::support::{Place, Recorded, SOON, messages, metadata, report, sealane, signal, succeed, text};

/// Publishes messages of all kinds, and tells losses and runs of the source.
fn publish_all(publisher: &mut Publisher) -> u64 {
    let mut lost = 0;
    publisher.send(b"control only").unwrap();
    publisher.send(b"").unwrap();
    publisher.loan(0).unwrap().send().unwrap();
    publisher.loan(0).unwrap().send_with(b"an empty payload").unwrap();
    for (at, len) in [64, 1, 4095, 64 << 10, 1 << 20, 3 << 20, 65].into_iter().enumerate() {
        if at % 2 == 1 {
            publisher.lost(at as u64);
            lost += at as u64;
        }
        publisher.epoch(at as u64 / 3);
        let mut loan = publisher.loan(len).unwrap();
        loan.fill(u8::try_from(at).unwrap());
        loan.send_with(&[7; 5000][..at * 700]).unwrap();
    }
    lost
}

/// What a subscriber sees of a message.
fn seen(message: &Message) -> (u64, u64, Vec<u8>, Option<Vec<u8>>) {
    let payload = message.payload().map(|payload| payload.try_to_vec().unwrap());
    (message.missed(), message.epoch(), message.control().to_vec(), payload)
}

fn recorded(message: &Recorded) -> (u64, u64, Vec<u8>, Option<Vec<u8>>) {
    (message.missed, message.epoch, message.control.clone(), message.payload.clone())
}

#[test]
fn messages_of_all_kinds_are_the_same_after_a_replay() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    let mut lost = publish_all(&mut publisher);
    let mut sent = 11;
    // A recorder that is stopped is overrun, and misses messages for good.
    signal(&recorder, Signal::STOP);
    for _ in 0..10 {
        publisher.loan(4 << 20).unwrap().send_with(b"missed").unwrap();
        sent += 1;
    }
    signal(&recorder, Signal::CONT);
    lost += publish_all(&mut publisher);
    sent += 11;
    drop(publisher);
    let report = report(recorder);
    let found = messages(&place.file);
    let missed = found.iter().map(|message| message.missed).sum::<u64>();
    let at_end: u64 = metadata(&place.file, "sealane.end")["missed_at_end"].parse().unwrap();
    assert_eq!(found.len() as u64 + missed + at_end, sent + lost);
    assert!(missed > lost, "the recorder was overrun");
    assert_eq!(report["missed"], missed);

    let path = place.join("q");
    let subscribers = [Slow::Wait(Duration::MAX), Slow::Wait(Duration::ZERO)].map(|slow| {
        let path = path.clone();
        thread::spawn(move || {
            let builder = Builder::default().slow(slow).max_peer_ring_capacity(1 << 30);
            let deadline = std::time::Instant::now() + SOON;
            let mut subscriber = loop {
                match builder.subscribe(&path) {
                    Ok(subscriber) => break subscriber,
                    Err(Error::Io { .. }) if std::time::Instant::now() < deadline => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            };
            let mut all = Vec::new();
            loop {
                match subscriber.recv_timeout(SOON) {
                    Ok(message) => all.push(seen(&message)),
                    Err(Error::Disconnected) => return Some(all),
                    // One that nobody waits for may be ended.
                    Err(Error::TooSlow) => return None,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let arguments = ["replay", text(&place.file), text(&path), "--rate", "max", "--wait-for", "2", "--json"];
    let report: serde_json::Value = serde_json::from_str(&succeed(&mut sealane(&arguments))).unwrap();
    let expected: Vec<_> = found.iter().map(recorded).collect();
    let [waited_for, impatient] = subscribers.map(|subscriber| subscriber.join().unwrap());
    assert!(waited_for.unwrap() == expected, "a subscriber that is waited for gets all");
    assert!(impatient.is_none_or(|all| all == expected));
    assert_eq!((&report["messages"], &report["lost"]), (&found.len().into(), &missed.into()));
    assert_eq!(report["lost_at_end"], at_end);
}
