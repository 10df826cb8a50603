//! Replays: at the pace of the recording, again and again, of files that are cut, until a signal comes.

use std::{fs, process::Command, thread, time::Duration};

use rustix::process::Signal;
use sealane::{Builder, Error, Slow, Subscriber};

use crate::support::{Place, SOON, content, fail, publish, report, sealane, signal, succeed, text};

const MAX: usize = 4 << 10;

/// A recording of ten messages.
fn recording() -> Place {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    publisher.epoch(5);
    for number in 0..10 {
        publish(&mut publisher, number, MAX);
    }
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 10);
    place
}

/// Subscribes as soon as somebody publishes there.
fn subscribe(place: &Place) -> Subscriber {
    let builder = Builder::default().slow(Slow::Wait(Duration::MAX));
    let deadline = std::time::Instant::now() + SOON;
    loop {
        match builder.subscribe(place.join("q")) {
            Ok(subscriber) => return subscriber,
            Err(Error::Io { .. }) if std::time::Instant::now() < deadline => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn replay(place: &Place, options: &[&str]) -> Command {
    let mut command = sealane(&["replay", text(&place.file), text(&place.join("q")), "--json"]);
    command.args(options);
    command
}

#[test]
fn each_pass_of_a_loop_is_another_epoch_and_a_signal_ends_it() {
    let place = recording();
    let player = replay(&place, &["--loop", "--rate", "1000"]).spawn().unwrap();
    let mut subscriber = subscribe(&place);
    for pass in 0..3 {
        for number in 0..10 {
            let message = subscriber.recv_timeout(SOON).unwrap();
            assert_eq!((message.epoch(), message.missed()), (5 + pass, 0));
            assert_eq!(message.control(), content(number, MAX).0);
        }
    }
    signal(&player, Signal::TERM);
    // A subscriber that is waited for keeps nobody from ending.
    let report = report(player);
    assert_eq!(report["stopped"], true);
    assert!(report["passes"].as_u64().unwrap() >= 3);
    while subscriber.recv_timeout(SOON).is_ok() {}
}

#[test]
fn subscribers_come_and_are_heard_while_a_message_is_not_due() {
    let place = recording();
    // The second message would be due in years.
    let player = replay(&place, &["--rate", "0.0000000001"]).spawn().unwrap();
    let mut first = subscribe(&place);
    assert_eq!(first.recv_timeout(SOON).unwrap().control(), content(0, MAX).0);
    let mut second = subscribe(&place);
    // More than the sockets hold: somebody has to read it.
    for _ in 0..2000 {
        second.send_timeout(&[0; 1000], SOON).unwrap();
    }
    signal(&player, Signal::TERM);
    assert_eq!(report(player)["messages"], 1);
}

#[test]
fn a_replay_without_subscribers_waits_or_not_as_it_is_told() {
    let place = recording();
    let report: serde_json::Value =
        serde_json::from_str(&succeed(&mut replay(&place, &["--wait-for", "0", "--rate", "max"]))).unwrap();
    assert_eq!((&report["messages"], &report["lost"]), (&10.into(), &0.into()));
    let player = replay(&place, &["--wait-for", "2"]).spawn().unwrap();
    let _only = subscribe(&place);
    signal(&player, Signal::TERM);
    assert_eq!(crate::support::report(player)["messages"], 0);
}

#[test]
fn a_file_that_is_cut_is_played_as_far_as_it_is_whole() {
    let place = recording();
    let whole = fs::read(&place.file).unwrap();
    // The end is gone, and with it the index.
    fs::write(&place.file, &whole[..whole.len() - 1000]).unwrap();
    let player = replay(&place, &["--rate", "max"]).spawn().unwrap();
    let mut subscriber = subscribe(&place);
    for number in 0..10 {
        assert_eq!(subscriber.recv_timeout(SOON).unwrap().control(), content(number, MAX).0);
    }
    let report = report(player);
    assert_eq!(report["damages"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn a_damaged_chunk_is_left_out_and_told_as_lost() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    // Each is larger than a chunk, so that there are three.
    for byte in [1, 2, 3] {
        let mut loan = publisher.loan(5 << 20).unwrap();
        loan.fill(byte);
        loan.send_with(&[byte]).unwrap();
        while publisher.subscribers()[0].lag() > 0 {
            publisher.wait_event(Duration::from_millis(1)).unwrap();
        }
    }
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 3);
    let mut bytes = fs::read(&place.file).unwrap();
    let second = bytes.windows(100).position(|window| window == [2; 100]).unwrap();
    bytes[second + 1000] = 0;
    fs::write(&place.file, bytes).unwrap();

    let play = || {
        let player = replay(&place, &["--rate", "max"]).spawn().unwrap();
        let mut subscriber = subscribe(&place);
        let mut seen = || {
            let message = subscriber.recv_timeout(SOON).unwrap();
            (message.control().to_vec(), message.missed())
        };
        let all = [seen(), seen()];
        (all, report(player))
    };
    let ([first, third], played) = play();
    assert_eq!((first, third), ((vec![1], 0), (vec![3], 1)));
    assert_eq!((&played["messages"], &played["lost"]), (&2.into(), &1.into()));
    let repaired = succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    assert!(repaired.contains("2 messages") && repaired.contains("CRC"), "{repaired}");
    assert_eq!(crate::support::messages(&place.file).len(), 2);
    assert_eq!(play().0[1], (vec![3], 1), "the repaired file tells it too");
}

#[test]
fn a_ring_that_is_too_small_is_named() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    publisher.loan(1 << 20).unwrap().send().unwrap();
    drop(publisher);
    report(recorder);
    let error = fail(&mut replay(&place, &["--wait-for", "0", "--ring", "64KiB"]));
    assert!(error.contains("--ring") && error.contains("1048576 bytes"), "{error}");
}
