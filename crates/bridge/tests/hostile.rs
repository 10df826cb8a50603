//! Hostile samples and tokens at an importer: bounded, refused by name, and the honest source goes on.

mod common;
mod foe;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use common::{LONG, quick, wait_until};
use foe::{Bed, foreign};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealane_bridge::{
    Notice, Received,
    wire::{
        Head, Keys, Kind, Place,
        beat::{self, Ended},
        pack,
    },
};
use zenoh::Wait;

/// Attachments and payloads that are not what a bridge writes.
fn malformed(run: u64) -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
    let head = |kind| Head::new(kind, Place { run, number: 1 << 40, source: 0 }).to_bytes().to_vec();
    let with = |at: usize, value: u8| {
        let mut bytes = head(Kind::Message);
        bytes[at] = value;
        Some(bytes)
    };
    let without_payload =
        Head { without_payload: true, ..Head::new(Kind::Message, Place { run, number: 1 << 40, source: 0 }) };
    let mut entry = Vec::new();
    assert!(pack::push_lens(&mut entry, 4, Some(6), false));
    entry.extend_from_slice(b"gainpixel");
    let mut lies = vec![0xff; 8];
    lies.extend_from_slice(b"gain");
    let many: Vec<_> = (1..=17).map(|run| Ended { run, end: 1 }).collect();
    vec![
        (None, b"no attachment".to_vec()),
        (Some(Vec::new()), Vec::new()),
        (Some(head(Kind::Message)[..31].to_vec()), Vec::new()),
        (with(0, b'x'), Vec::new()),
        (with(3, 2), Vec::new()),
        (with(4, 3), Vec::new()),
        (with(5, 4), Vec::new()),
        (with(5, 0x80), Vec::new()),
        (with(6, 1), Vec::new()),
        (with(7, 1), Vec::new()),
        (Some(foreign(Kind::Message, 0, 1)), Vec::new()),
        (Some(foreign(Kind::Message, run, 1 << 63)), Vec::new()),
        (Some(foreign(Kind::Beat, run, u64::MAX)), Vec::new()),
        (Some(without_payload.to_bytes().to_vec()), b"a payload".to_vec()),
        (Some([head(Kind::Message), vec![0; (64 << 10) + 1]].concat()), Vec::new()),
        (Some(head(Kind::Message)), vec![0; 3 << 20]),
        (Some(head(Kind::Pack)), Vec::new()),
        (Some(head(Kind::Pack)), entry),
        (Some(head(Kind::Pack)), lies),
        (Some(head(Kind::Pack)), vec![0; (64 << 10) + 8]),
        (Some([head(Kind::Pack), vec![0]].concat()), vec![0; 8]),
        (Some([head(Kind::Beat), vec![0]].concat()), Vec::new()),
        (Some(head(Kind::Beat)), vec![1; 15]),
        (Some(head(Kind::Beat)), vec![1; 17]),
        (Some(head(Kind::Beat)), beat::to_bytes(&many)),
        (Some(head(Kind::Beat)), beat::to_bytes(&[Ended { run: 0, end: 1 }])),
        (Some(head(Kind::Beat)), beat::to_bytes(&[Ended { run, end: u64::MAX }])),
    ]
}

#[test]
fn malformed_samples_are_counted_and_change_nothing() {
    let mut bed = Bed::new(&quick(), &quick());
    let before = bed.count();
    let mut count = 0;
    for key in [bed.keys.messages().to_owned(), bed.keys.beats()] {
        for (attachment, payload) in malformed(bed.run) {
            bed.put(&key, attachment.as_deref(), &payload);
            count += 1;
            wait_until(&format!("sample {count} is refused: {attachment:?}"), || {
                bed.count().malformed == before.malformed + count
            });
        }
        let head = Head::new(Kind::Message, bed.honest(1 << 40)).to_bytes();
        bed.foe.delete(&key).attachment(&head[..]).wait().unwrap();
        count += 1;
        wait_until("a deletion is refused", || bed.count().malformed == before.malformed + count);
    }
    bed.works();
    let after = bed.count();
    assert_eq!((after.foreign, after.stale, after.missed), (before.foreign, before.stale, before.missed));
}

#[test]
fn other_runs_are_foreign_and_end_nothing() {
    let mut bed = Bed::new(&quick(), &quick());
    let before = bed.count();
    let list = beat::to_bytes(&[Ended { run: bed.run, end: (1 << 63) - 1 }, Ended { run: 5, end: 7 }]);
    for number in 0..1000 {
        bed.put(bed.keys.messages(), Some(&foreign(Kind::Message, 1 + number, (1 << 63) - 1)), b"");
        let ended = Head { ended: true, ..Head::new(Kind::Beat, Place { run: 99, number, source: 0 }) };
        bed.put(&bed.keys.beats(), Some(&ended.to_bytes()), &list);
        if number % 100 == 0 {
            bed.publish(20);
            assert_eq!(bed.receive(), 0);
        }
    }
    wait_until("all are counted", || bed.count().foreign == before.foreign + 2000);
    bed.works();
    assert_eq!(bed.count().runs, before.runs);
}

#[test]
fn readers_are_woken_although_the_next_message_does_not_follow_at_once() {
    let place = common::Place::new();
    // Nothing else wakes the importer: there are no beats, and no silence.
    let source = foe::open(&[&common::endpoint(place.port)], &[]);
    let mut import = quick();
    (import.silence, import.notices) = (LONG * 10, false);
    let _importer = place.importer(&import);
    let mut subscriber = sealane::Subscriber::connect(place.remote()).unwrap();
    let keys = Keys::new("stats");
    let send = |number| {
        let head = Head { more: true, ..Head::new(Kind::Message, Place { run: 1, number, source: 0 }) };
        foe::put(&source, keys.messages(), Some(&head.to_bytes()), b"pixels");
    };
    // Messages before Zenoh's declarations have arrived reach nobody.
    let first = (0..1000).find(|&number| {
        send(number);
        subscriber.recv_timeout(Duration::from_millis(100)).is_ok()
    });
    let first = first.expect("the first messages arrive");
    for number in first + 1..first + 200 {
        // The last look has armed the descriptor, which is all that is waited for.
        while subscriber.try_recv().unwrap().is_some() {}
        send(number);
        while subscriber.try_recv().unwrap().is_none() {
            let mut fds = [PollFd::new(&subscriber, PollFlags::IN)];
            let timeout = Timespec::try_from(LONG).unwrap();
            assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "message {number} wakes nobody");
        }
    }
}

#[test]
fn a_forged_end_does_not_let_another_run_in() {
    let mut bed = Bed::new(&quick(), &quick());
    let before = bed.count();
    for _ in 0..100 {
        let ended = Head { ended: true, ..Head::new(Kind::Beat, bed.honest(bed.sent)) };
        bed.put(&bed.keys.beats(), Some(&ended.to_bytes()), &[]);
        bed.put(bed.keys.messages(), Some(&foreign(Kind::Message, 99, 0)), b"");
        bed.publish(5);
        assert_eq!(bed.receive(), 0);
    }
    wait_until("the other run is counted", || bed.count().foreign == before.foreign + 100);
    assert_eq!(bed.count().runs, before.runs);
}

#[test]
fn packs_with_controls_that_are_too_large_keep_their_numbers() {
    let mut import = quick();
    import.max_control = 64;
    import.silence = Duration::from_mins(1);
    let mut bed = Bed::new(&quick(), &import);
    let mut bytes = Vec::new();
    for len in [8, 65, 8, 65] {
        assert!(pack::push_lens(&mut bytes, len, None, false));
        bytes.resize(bytes.len() + len, 7);
    }
    bed.put(bed.keys.messages(), Some(&Head::new(Kind::Pack, bed.honest(bed.sent)).to_bytes()), &bytes);
    for missed in [0, 1] {
        let Some(Received::Message(message)) = bed.subscriber.recv(LONG).unwrap() else { panic!() };
        assert_eq!((message.control(), message.missed()), (&[7; 8][..], missed));
        let number = bed.subscriber.inner().unwrap().number();
        assert_eq!(number, bed.sent + 1 + 2 * missed);
    }
    let Some(Received::Notice(Notice::Missed, 1)) = bed.subscriber.recv(LONG).unwrap() else { panic!() };
    assert_eq!(bed.count().refused, 2);
}

#[test]
fn a_flood_of_another_run_costs_messages_but_no_numbers() {
    let mut import = quick();
    import.memory = 1 << 20;
    let mut bed = Bed::new(&quick(), &import);
    let (foe, keys, stop) = (bed.foe.clone(), bed.keys.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let flood = thread::spawn(move || {
        let (head, payload) = (foreign(Kind::Message, 99, 1), vec![0; 100_000]);
        while !stopped.load(Relaxed) {
            foe::put(&foe, keys.messages(), Some(&head), &payload);
        }
    });
    wait_until("the flood has come", || bed.count().foreign > 0);
    for _ in 0..50 {
        bed.publish(100);
        bed.receive();
        assert!(bed.importer.status()[0].waiting <= 1 << 20);
    }
    stop.store(true, Relaxed);
    flood.join().unwrap();
    // Behind the last of the flood comes a sample that is counted on its arrival.
    let malformed = bed.count().malformed;
    bed.put(bed.keys.messages(), None, b"the end");
    wait_until("all of it has arrived", || bed.count().malformed > malformed);
    wait_until("nothing waits", || bed.importer.status()[0].waiting == 0);
    bed.works();
}

#[test]
fn tokens_without_end_are_refused_and_wrong_ones_too() {
    let mut bed = Bed::new(&quick(), &quick());
    let before = bed.count();
    let names = ["fe", "00000000000000FE", "zzzzzzzzzzzzzzzz", "0000000000000000"];
    let declare = |name: &str| {
        let token = format!("{}/@alive/{name}", bed.keys.messages());
        bed.foe.liveliness().declare_token(token).wait().unwrap()
    };
    let wrong = names.map(declare);
    wait_until("they are refused", || bed.count().malformed == before.malformed + 4);
    let keys = Keys::new("stats");
    let tokens: Vec<_> = (1..=2_000_u64)
        .map(|run| bed.foe.liveliness().declare_token(keys.token(run)).wait().unwrap())
        .collect();
    // 64 are remembered, and that of the honest run is one of them.
    wait_until("they are refused", || bed.count().malformed == before.malformed + 4 + 2_000 - 63);
    bed.works();
    drop((wrong, tokens));
    bed.works();
}
