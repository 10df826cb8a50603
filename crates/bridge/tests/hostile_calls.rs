//! Hostile requests at an exporter, and hostile replies to an importer: bounded, refused by name.

mod common;
mod foe;

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use common::{Echo, LONG, endpoint, free_port, quick, wait_until};
use foe::{Bed, connect};
use sealane_bridge::{
    Bridge, CallError, Error, Network, Subscriber,
    wire::{Keys, call::Ask},
};
use zenoh::{
    Wait,
    query::{ConsolidationMode, Query},
};

#[test]
fn malformed_requests_are_refused_by_name() {
    let mut bed = Bed::new(&quick(), &quick());
    let ask = Ask { wants_reply: true, timeout: LONG }.to_bytes();
    let mut two = ask.clone();
    two[4] = 2;
    let cases: [(Option<&[u8]>, usize, &str, u64); 6] = [
        (None, 3, "refused: a request's or reply's head of 0 bytes", 1),
        (None, 8 << 20, "refused: a request's or reply's head of 0 bytes", 1),
        (Some(&ask[..11]), 3, "refused: a request's or reply's head of 11 bytes", 1),
        (Some(&[0; 12]), 3, "refused: a request's or reply's head of 12 bytes", 1),
        (Some(&two), 3, "refused: a request's or reply's head of 12 bytes", 1),
        (Some(&ask), (64 << 10) + 1, "request or reply too large", 0),
    ];
    let mut malformed = 0;
    for (attachment, len, words, counts) in cases {
        let get = bed.foe.get(bed.keys.calls()).payload(vec![0; len]).timeout(LONG);
        let get = match attachment {
            Some(bytes) => get.attachment(bytes),
            None => get,
        };
        let replies = get.wait().unwrap();
        let reply = replies.recv_timeout(LONG).unwrap().expect("a reply");
        let text = reply.result().unwrap_err().payload().try_to_string().unwrap().into_owned();
        assert!(text.starts_with(&format!("sealane-bridge: call failed: {words}")), "{text}");
        malformed += counts;
        assert_eq!(bed.exporter.status()[0].count.malformed, malformed);
    }
    bed.works();
}

#[test]
fn ten_thousand_requests_do_not_hold_up_messages_or_later_calls() {
    let mut export = quick();
    export.call_timeout = Duration::from_millis(300);
    let mut bed = Bed::new(&export, &quick());
    // The exporter waits for no longer than its own settings say.
    let ask = Ask { wants_reply: true, timeout: Duration::from_hours(1000) }.to_bytes();
    let errors = Arc::new(AtomicU64::new(0));
    for index in 0..10_000 {
        let counted = Arc::clone(&errors);
        let get = bed.foe.get(bed.keys.calls()).payload(vec![0; 1000]).consolidation(ConsolidationMode::None);
        let get = get.timeout(Duration::from_mins(10)).attachment(&ask[..]).callback(move |reply| {
            counted.fetch_add(u64::from(reply.result().is_err()), Relaxed);
        });
        get.wait().unwrap();
        if index % 1000 == 0 {
            bed.works();
        }
    }
    wait_until("all requests are over", || Arc::strong_count(&errors) == 1);
    let count = bed.exporter.status()[0].count;
    assert!(errors.load(Relaxed) <= count.failed_calls, "{count:?}");
    bed.works();
    let (mut publisher, mut subscriber) = (bed.publisher, bed.subscriber);
    // Requests that nobody waits for any more.
    while publisher.wait_event(Duration::ZERO).unwrap().is_some() {}
    let _echo = Echo::start(publisher);
    assert_eq!(subscriber.call(b"gain?", LONG).unwrap().control(), b"echo gain?");
}

type Answer = Box<dyn Fn(&Query) + Send>;

/// An importer whose requests a hostile peer answers.
#[test]
fn hostile_replies_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (there, remote) = (endpoint(free_port()), dir.path().join("remote"));
    let network = Network::default().listen(&there);
    let mut import = quick();
    import.call_timeout = Duration::from_millis(300);
    let _importer = Bridge::open(&network).unwrap().import("stats", &remote, &import).unwrap();
    let foe = connect(&[&there]);
    let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(|_| {})));
    let asked = Arc::clone(&answer);
    let _queryable = foe
        .declare_queryable(Keys::new("stats").calls())
        .complete(true)
        .callback(move |query| asked.lock().unwrap()(&query))
        .wait()
        .unwrap();
    let mut subscriber = Subscriber::connect(&remote, LONG).unwrap();
    let mut call = |with: Answer| {
        *answer.lock().unwrap() = with;
        match subscriber.call(b"gain?", LONG) {
            Ok(reply) => Ok(reply.control().to_vec()),
            Err(Error::Call(why)) => Err(why),
            Err(why) => panic!("{why}"),
        }
    };
    let reply = |bytes: Vec<u8>| -> Answer {
        Box::new(move |query| query.reply(query.key_expr(), bytes.clone()).wait().unwrap())
    };
    let error =
        |bytes: Vec<u8>| -> Answer { Box::new(move |query| query.reply_err(bytes.clone()).wait().unwrap()) };
    wait_until("the declaration has arrived", || call(reply(b"2.0".to_vec())) == Ok(b"2.0".to_vec()));
    assert_eq!(call(reply(vec![0; (64 << 10) + 1])), Err(CallError::TooLarge));
    assert_eq!(call(reply(vec![0; 8 << 20])), Err(CallError::TooLarge));
    for prefix in ["", "sealane-bridge: call failed: refused: "] {
        let text = [prefix.as_bytes(), &vec![b'x'; 8 << 20]].concat();
        let Err(CallError::Refused(why)) = call(error(text)) else { panic!("{prefix:?}") };
        assert!(why.len() <= 256 && why.ends_with('x'), "{} bytes", why.len());
    }
    let Err(CallError::Refused(why)) = call(error(vec![0xff; 8 << 20])) else { panic!() };
    assert!(why.len() <= 1024, "{} bytes", why.len());
    let many: Answer = Box::new(|query| {
        for number in 0..10_000 {
            query.reply(query.key_expr(), format!("{number}")).wait().unwrap();
        }
    });
    assert_eq!(call(many), Ok(b"0".to_vec()));
    assert_eq!(call(Box::new(|_| {})), Err(CallError::NobodyThere));
    assert_eq!(call(reply(b"2.0".to_vec())), Ok(b"2.0".to_vec()));
}
