//! What is published, recorded, replayed and received is the same.

use std::{thread, time::Duration};

use rustix::process::Signal;
use sealane::{Builder, Error, Message, Publisher, Slow};

use crate::support::{Place, Recorded, SOON, messages, metadata, report, sealane, signal, succeed, text};

/// A publisher that remembers what it published.
struct Source {
    publisher: Publisher,
    epoch: u64,
    lost: u64,
    /// Epoch, control bytes and payload of each message.
    sent: Vec<(u64, Vec<u8>, Option<Vec<u8>>)>,
}

impl Source {
    fn publish(&mut self, control: &[u8], payload: Option<Vec<u8>>) {
        match &payload {
            None => self.publisher.send(control).unwrap(),
            Some(bytes) => {
                let mut loan = self.publisher.loan(bytes.len()).unwrap();
                loan.copy_from_slice(bytes);
                loan.send_with(control).unwrap();
            }
        }
        self.sent.push((self.epoch, control.to_vec(), payload));
    }

    /// Publishes messages of all kinds, and tells losses and runs of the source.
    fn publish_all(&mut self) {
        self.publish(b"control only", None);
        self.publish(b"", None);
        self.publish(b"", Some(Vec::new()));
        self.publish(b"an empty payload", Some(Vec::new()));
        for (at, len) in [64, 1, 4095, 64 << 10, 1 << 20, 3 << 20, 65].into_iter().enumerate() {
            if at % 2 == 1 {
                self.publisher.lost(at as u64);
                self.lost += at as u64;
            }
            self.epoch = at as u64 / 3;
            self.publisher.epoch(self.epoch);
            self.publish(&[7; 5000][..at * 700], Some(vec![u8::try_from(at).unwrap(); len]));
        }
    }
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
    let mut source = Source { publisher, epoch: 0, lost: 0, sent: Vec::new() };
    source.publish_all();
    // A recorder that is stopped is overrun, and misses messages for good.
    signal(&recorder, Signal::STOP);
    for _ in 0..10 {
        source.publish(b"missed", Some(vec![1; 4 << 20]));
    }
    signal(&recorder, Signal::CONT);
    source.publish_all();
    let Source { publisher, lost, sent, .. } = source;
    drop(publisher);
    let report = report(recorder);
    let found = messages(&place.file);
    let missed = found.iter().map(|message| message.missed).sum::<u64>();
    let at_end: u64 = metadata(&place.file, "sealane.end")["missed_at_end"].parse().unwrap();
    assert_eq!(found.len() as u64 + missed + at_end, sent.len() as u64 + lost);
    for message in &found {
        let (epoch, control, payload) = &sent[usize::try_from(message.sequence).unwrap()];
        assert_eq!((message.epoch, &message.control), (*epoch, control));
        assert!(message.payload == *payload, "{}", message.sequence);
    }
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
