//! Publishers that break the protocol: a subscriber gets a typed error within its deadline, whichever call it makes.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use sealane::{Builder, Error, HandshakeError, ProtocolError, Reason, Result, Slow, Subscriber};

use crate::support::{
    WAITS, handshake_error,
    hostile::{
        CONTROL, DOORBELL, HELLO, LONG, OTHER_HALF, Packet, READY, REJECT, WANTS_REPLY,
        fanout::{
            CLAIMED, DESCRIPTORS, FOREVER, LATEST, MESSAGES, NEVER, RawTerms, WITHOUT_PAYLOAD, publish,
            publish_on,
        },
        memory::{HEAD, Hostile, PACKETS, PADDING, Record, SENDER_EPOCH, SENDER_NEEDS},
    },
    script::Random,
    short_or_long,
    threads::bounded,
};

const PAGES: u64 = 2;
const MAX_CONTROL: usize = 300;

fn builder() -> Builder {
    Builder::default().max_control(MAX_CONTROL).max_fds(4).max_requests(3)
}

fn ring() -> u64 {
    PAGES * crate::support::hostile::page()
}

/// All calls that receive. Each returns the number of payload bytes, or the error that it ends with.
type Verb = fn(&mut Subscriber) -> Result<usize>;

/// Time for what must come at once, and for what never comes.
const SHORT: Duration = Duration::from_millis(50);

fn bytes(message: &sealane::Message) -> usize {
    let Some(payload) = message.payload() else { return 0 };
    let copy = payload.try_to_vec().map_or(0, |copy| copy.len());
    assert!(copy as u64 <= ring());
    copy
}

fn try_until(
    subscriber: &mut Subscriber,
    mut call: impl FnMut(&mut Subscriber) -> Result<Option<usize>>,
) -> Result<usize> {
    let deadline = Instant::now() + SHORT;
    loop {
        if let Some(len) = call(subscriber)? {
            return Ok(len);
        }
        if Instant::now() >= deadline {
            return Err(Error::Timeout);
        }
    }
}

const VERBS: [(&str, Verb); 10] = [
    ("recv_timeout", |s| s.recv_timeout(SHORT).map(|message| bytes(&message))),
    ("recv_timeout at once", |s| s.recv_timeout(Duration::ZERO).map(|message| bytes(&message))),
    ("try_recv", |s| try_until(s, |s| Ok(s.try_recv()?.map(|message| bytes(&message))))),
    ("recv_latest", |s| s.recv_latest_timeout(SHORT).map(|message| bytes(&message))),
    ("try_recv_latest", |s| try_until(s, |s| Ok(s.try_recv_latest()?.map(|message| bytes(&message))))),
    ("recv_with", |s| {
        let read = s.recv_with_timeout(SHORT, |message| {
            message.payload().map_or(0, |payload| payload.iter().count())
        });
        read.map(Option::unwrap_or_default)
    }),
    ("call", |s| s.call("?", SHORT).map(|message| bytes(&message))),
    ("wait_reply", |s| {
        let request = s.request_timeout("?", SHORT)?;
        s.wait_reply(request, SHORT).map(|message| bytes(&message))
    }),
    ("take_reply", |s| {
        let request = s.request_timeout("?", SHORT)?;
        try_until(s, |s| Ok(s.take_reply(request)?.map(|message| bytes(&message))))
    }),
    ("arm", |s| {
        s.arm()?;
        s.recv_timeout(SHORT).map(|message| bytes(&message))
    }),
];

/// Both policies, and all ways to receive and to wait.
fn for_all(mut test: impl FnMut(&str, u64, &Builder, Verb)) {
    for (policy, patience) in [("gating", FOREVER), ("overrunning", NEVER)] {
        for (n, (name, verb)) in VERBS.into_iter().enumerate() {
            // `Wait::Spin` would spin through all timeouts on a busy machine.
            let builder = builder().wait(WAITS[n % 2]);
            test(&format!("{policy}, {name}"), patience, &builder, verb);
        }
    }
}

type Judge = fn(&ProtocolError) -> bool;

/// Calls until an error comes, which must be a violation that `judge` knows.
fn assert_violation(name: &str, verb: Verb, subscriber: &mut Subscriber, judge: Judge) {
    let deadline = Instant::now() + LONG;
    loop {
        match verb(subscriber) {
            Err(Error::Protocol(violation)) if judge(&violation) => break,
            // A message before it, or a look that came too early.
            Ok(_) | Err(Error::Timeout) if Instant::now() < deadline => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    // It stays that way.
    assert!(matches!(subscriber.recv_timeout(SHORT), Err(Error::Protocol(_))), "{name}");
    assert!(matches!(subscriber.send("?"), Err(Error::Protocol(_))), "{name}");
}

fn payload(sequence: u64, payload_len: u64) -> Record {
    Record { sequence, payload_len, ..Record::default() }
}

#[test]
fn marks_that_go_wrong_are_violations_in_every_call() {
    let _guard = bounded();
    let is_head: Judge = |error| matches!(error, ProtocolError::Head { .. });
    let is_claimed: Judge = |error| matches!(error, ProtocolError::Claimed { .. });
    let is_latest: Judge = |error| matches!(error, ProtocolError::Latest { .. });
    let is_misaligned: Judge = |error| matches!(error, ProtocolError::Misaligned { .. });
    let first = |raw: &Hostile| raw.publish_honestly(0, payload(0, 64));
    // What was right at first, and what is wrong then; a message was received in between.
    let cases: [(&str, usize, u64, Judge); 14] = [
        ("head backwards", HEAD, 64, is_head),
        ("head at nothing", HEAD, 0, is_head),
        ("the last head", HEAD, u64::MAX, is_head),
        ("the last aligned head", HEAD, u64::MAX - 63, is_head),
        ("the end of all positions", HEAD, 1 << 63, is_head),
        ("head between two lines", HEAD, 129, is_misaligned),
        ("claimed backwards", CLAIMED, 64, is_claimed),
        ("the last claim", CLAIMED, u64::MAX, is_claimed),
        ("claimed more than a ring ahead", CLAIMED, 128 + 2 * 4096 + 64, is_claimed),
        ("claimed between two lines", CLAIMED, 129, is_misaligned),
        ("the newest behind the head", LATEST, 256, is_latest),
        ("the last newest", LATEST, u64::MAX, is_latest),
        ("half of all numbers", LATEST, 1 << 63, is_latest),
        ("the newest between two lines", LATEST, 65, is_misaligned),
    ];
    for (case, word, value, judge) in cases {
        for_all(|name, patience, builder, verb| {
            let (raw, mut subscriber) =
                publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
            let end = first(&raw);
            assert_eq!(subscriber.recv_timeout(LONG).unwrap().payload().unwrap().len(), 64, "{name}");
            assert_eq!(end, 128);
            raw.set(word, value);
            if word != HEAD {
                // News, for which the marks are looked at.
                raw.write(end, payload(1, 0));
                raw.set(HEAD, end + 64);
                if word == CLAIMED && value == 128 + 2 * 4096 + 64 {
                    raw.set(CLAIMED, end + 64 + ring() + 64);
                }
            }
            assert_violation(&format!("{case}: {name}"), verb, &mut subscriber, judge);
        });
    }
}

#[test]
fn newest_that_goes_backwards_is_a_violation() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        let (raw, mut subscriber) = publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
        let mut end = 0;
        for sequence in 0..3 {
            end = raw.publish_honestly(end, payload(sequence, 64));
            subscriber.recv_timeout(LONG).unwrap();
        }
        raw.set(LATEST, 128);
        raw.write(end, payload(3, 0));
        raw.set(HEAD, end + 64);
        assert_violation(name, verb, &mut subscriber, |error| matches!(error, ProtocolError::Latest { .. }));
    });
}

/// A claim within what may be claimed that is over what is held: a gating subscriber was ended, another one goes on.
#[test]
fn claims_over_what_is_held_end_a_gating_subscriber() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        let (raw, mut subscriber) = publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
        let end = raw.publish_honestly(0, payload(0, 64));
        let held = subscriber.recv_timeout(LONG).unwrap();
        raw.write(end, payload(1, 0));
        raw.set(HEAD, end + 64);
        raw.set(CLAIMED, ring() + 128);
        let result = verb(&mut subscriber);
        if patience == FOREVER && name.contains("latest") {
            // There is no newer payload, so that nothing is looked at.
            assert!(matches!(result, Err(Error::Timeout)), "{name}: {result:?}");
        } else if patience == FOREVER {
            assert!(matches!(result, Err(Error::TooSlow)), "{name}: {result:?}");
            assert!(!held.payload().unwrap().is_whole(), "{name}");
        } else {
            // The record at 128 is whole.
            assert!(matches!(result, Ok(0) | Err(Error::Timeout)), "{name}: {result:?}");
            assert_eq!(held.payload().unwrap().try_to_vec().unwrap(), [0; 64]);
        }
    });
}

#[test]
fn wrong_records_are_violations_in_every_call() {
    let _guard = bounded();
    let is_sequence: Judge = |error| matches!(error, ProtocolError::Sequence { .. });
    let is_length: Judge = |error| matches!(error, ProtocolError::RecordLength { .. });
    let is_control: Judge = |error| matches!(error, ProtocolError::ControlLength { .. });
    let is_flags: Judge = |error| matches!(error, ProtocolError::RecordFlags { .. });
    let is_reserved: Judge = |error| matches!(error, ProtocolError::RecordReserved);
    let is_padding: Judge = |error| matches!(error, ProtocolError::Padding { .. });
    let is_lost: Judge = |error| matches!(error, ProtocolError::SourceLost { .. });
    let good = Record { sequence: 5, payload_len: 64, reserved: [10, 0, 0, 0], ..Record::default() };
    let reserved = |at: usize, value: u64| {
        let mut record = good;
        record.reserved[at] = value;
        record
    };
    let cases: Vec<(&str, Record, Judge)> = vec![
        ("the number before", Record { sequence: 4, ..good }, is_sequence),
        ("the number behind", Record { sequence: 6, ..good }, is_sequence),
        ("the first number", Record { sequence: 0, ..good }, is_sequence),
        ("the last number", Record { sequence: u64::MAX, ..good }, is_sequence),
        ("a byte too much", Record { payload_len: 65, ..good }, is_length),
        ("a ring", Record { payload_len: ring(), ..good }, is_length),
        ("all bytes", Record { payload_len: u64::MAX, ..good }, is_length),
        ("bytes that overflow", Record { payload_len: u64::MAX - 127, ..good }, is_length),
        ("control bytes that do not fit", Record { control_len: 1, ..good }, is_length),
        ("all control bytes", Record { control_len: u32::MAX, ..good }, is_length),
        ("wants a reply", Record { flags: 1, ..good }, is_flags),
        ("half a message", Record { flags: 2, ..good }, is_flags),
        ("an unknown flag", Record { flags: 16, ..good }, is_flags),
        ("a high flag", Record { flags: 1 << 16, ..good }, is_flags),
        ("all flags", Record { flags: u32::MAX, ..good }, is_flags),
        ("padding with a number", Record { flags: PADDING, ..good }, is_reserved),
        ("padding too short", Record { flags: PADDING, payload_len: 64, ..Record::default() }, is_padding),
        (
            "padding of all bytes",
            Record { flags: PADDING, payload_len: u64::MAX, ..Record::default() },
            is_padding,
        ),
        (
            "padding around the ring",
            Record { flags: PADDING, payload_len: ring() - 64, ..Record::default() },
            |error| matches!(error, ProtocolError::RecordLength { .. }),
        ),
        (
            "padding without a payload",
            Record { flags: PADDING | WITHOUT_PAYLOAD, ..Record::default() },
            is_flags,
        ),
        ("a payload in a message without one", Record { flags: WITHOUT_PAYLOAD, ..good }, is_reserved),
        ("a reply", Record { reply_to: 1, ..good }, is_reserved),
        ("fewer lost", reserved(0, 9), is_lost),
        ("none lost", reserved(0, 0), is_lost),
    ];
    for (case, record, judge) in cases {
        for_all(|name, patience, builder, verb| {
            let terms = RawTerms { patience, first_sequence: 5, lost: 10, ..RawTerms::default() };
            let (raw, mut subscriber) = publish_on(builder, PAGES, terms);
            raw.set(CLAIMED, 128);
            raw.publish(0, record, 128);
            assert_violation(&format!("{case}: {name}"), verb, &mut subscriber, judge);
        });
    }
    for_all(|name, patience, builder, verb| {
        let (raw, mut subscriber) = publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
        raw.set(CLAIMED, 512);
        raw.publish(0, Record { control_len: 301, ..Record::default() }, 64 + 320);
        assert_violation(name, verb, &mut subscriber, is_control);
    });
}

/// A message of which nobody knows how many were lost before it: the counts stay at their ends.
#[test]
fn numbers_at_their_ends_do_not_overflow() {
    let _guard = bounded();
    for patience in [FOREVER, NEVER] {
        let terms = RawTerms { patience, first_sequence: u64::MAX, ..RawTerms::default() };
        let (raw, mut subscriber) = publish_on(&builder(), PAGES, terms);
        assert_eq!(subscriber.number(), u64::MAX);
        let record = Record { reserved: [u64::MAX, u64::MAX, 0, u64::MAX], ..payload(u64::MAX, 0) };
        raw.set(CLAIMED, 128);
        raw.publish(0, record, 64);
        let message = subscriber.recv_timeout(LONG).unwrap();
        assert_eq!((message.missed(), message.epoch()), (u64::MAX, u64::MAX));
        // The next sequence is 0, and both other parts are at their ends.
        assert_eq!(subscriber.number(), 0_u64.wrapping_sub(2));
        let next = Record { reserved: [u64::MAX, 0, 0, 1 << 63], ..payload(0, 0) };
        raw.publish(64, next, 128);
        assert_eq!(subscriber.recv_timeout(LONG).unwrap().missed(), 0);
        assert_eq!(subscriber.number(), 1 << 63, "any other");
        raw.set(MESSAGES, u64::MAX);
        drop(raw);
        assert!(matches!(subscriber.recv_timeout(LONG), Err(Error::Disconnected)));
        assert_eq!(subscriber.missed(), u64::MAX);
    }
}

#[test]
fn positions_at_their_end_do_not_overflow() {
    let _guard = bounded();
    let start = (1 << 63) - ring();
    for_all(|name, patience, builder, verb| {
        let terms = RawTerms { patience, first_position: start, ..RawTerms::default() };
        let (raw, mut subscriber) = publish_on(builder, PAGES, terms);
        raw.set(CLAIMED, start + ring());
        raw.set(LATEST, start);
        raw.write(start, payload(0, ring() - 128));
        raw.set(HEAD, start + ring() - 64);
        subscriber.recv_timeout(LONG).unwrap();
        raw.set(HEAD, start + ring());
        assert_violation(name, verb, &mut subscriber, |error| matches!(error, ProtocolError::Head { .. }));
    });
}

/// After an overrun the sequence grows by no more than the bytes that were jumped over can hold, and by no less than nothing.
#[test]
fn gaps_that_no_jump_explains_are_violations() {
    let _guard = bounded();
    let jumped = (2048 - 128) / 64;
    for (sequence, missed) in
        [(1 + jumped, Some(jumped)), (1, Some(0)), (2 + jumped, None), (0, None), (u64::MAX, None)]
    {
        let awaits_reply = |name| ["call", "wait_reply", "take_reply"].contains(&name);
        for (verb_name, verb) in VERBS.into_iter().filter(|(name, _)| !awaits_reply(*name)) {
            let terms = RawTerms { patience: NEVER, ..RawTerms::default() };
            let (raw, mut subscriber) = publish_on(&builder(), PAGES, terms);
            raw.publish_honestly(0, payload(0, 64));
            subscriber.recv_timeout(LONG).unwrap();
            // What is at 128 is overrun, and what is at 2,048 is whole.
            raw.write(2048, payload(sequence, 64));
            raw.set(LATEST, 2048);
            raw.set(HEAD, 2176);
            raw.set(CLAIMED, 2048 + ring());
            match missed {
                Some(missed) => {
                    assert_eq!(verb(&mut subscriber).unwrap(), 64, "{verb_name}, {sequence}");
                    assert_eq!(subscriber.missed(), missed, "{verb_name}, {sequence}");
                }
                None => assert_violation(verb_name, verb, &mut subscriber, |error| {
                    matches!(error, ProtocolError::Gap { .. })
                }),
            }
        }
    }
}

fn files(count: usize) -> Vec<std::os::fd::OwnedFd> {
    (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
}

type Packets = Box<dyn Fn() -> Vec<Packet>>;

#[test]
fn wrong_packets_are_violations_in_every_call() {
    let _guard = bounded();
    let kind = |kind| Packet::new(kind);
    let descriptors = |attempt| Packet { sequence: attempt, fds: files(1), ..Packet::new(DESCRIPTORS) };
    let is_kind: Judge = |error| matches!(error, ProtocolError::PacketKind { .. });
    let is_flags: Judge = |error| matches!(error, ProtocolError::PacketFlags { .. });
    let is_attempt: Judge = |error| matches!(error, ProtocolError::Attempt { .. });
    let is_limit: Judge = |error| matches!(error, ProtocolError::FdLimit { .. });
    let is_count: Judge = |error| matches!(error, ProtocolError::FdCount { .. });
    let is_reserved: Judge = |error| matches!(error, ProtocolError::PacketReserved);
    let is_length: Judge = |error| matches!(error, ProtocolError::PacketLength { .. });
    let is_long: Judge = |error| matches!(error, ProtocolError::PacketTooLong { .. });
    let is_sequence: Judge = |error| matches!(error, ProtocolError::Sequence { .. });
    let is_unasked: Judge = |error| matches!(error, ProtocolError::UnaskedReply { .. });
    let is_bells: Judge = |error| matches!(error, ProtocolError::Doorbells { .. });
    let many = |count: usize, packet: fn() -> Packet| (0..count).map(|_| packet()).collect::<Vec<_>>();
    let cases: Vec<(&str, Packets, Judge)> = vec![
        ("no kind", Box::new(move || vec![kind(0)]), is_kind),
        ("an unknown kind", Box::new(move || vec![kind(7)]), is_kind),
        ("a second Hello", Box::new(move || vec![kind(HELLO)]), is_kind),
        ("a second Ready", Box::new(move || vec![kind(READY)]), is_kind),
        ("a message", Box::new(move || vec![kind(CONTROL)]), is_kind),
        ("an attempt that repeats", Box::new(move || vec![descriptors(1), descriptors(1)]), is_attempt),
        ("an attempt before", Box::new(move || vec![descriptors(9), descriptors(8)]), is_attempt),
        ("attempt none", Box::new(move || vec![descriptors(0)]), is_attempt),
        (
            "behind the last attempt",
            Box::new(move || vec![descriptors(u64::MAX), descriptors(1)]),
            is_attempt,
        ),
        (
            "too many descriptors",
            Box::new(move || vec![Packet { fds: files(5), ..descriptors(1) }]),
            is_limit,
        ),
        (
            "too many in a doorbell",
            Box::new(move || vec![Packet { fds: files(1), ..kind(DOORBELL) }]),
            is_limit,
        ),
        (
            "fewer descriptors than announced",
            Box::new(move || vec![Packet { announced: Some(2), ..descriptors(1) }]),
            is_count,
        ),
        ("descriptors with a flag", Box::new(move || vec![Packet { flags: 1, ..descriptors(1) }]), is_flags),
        (
            "descriptors that are a reply",
            Box::new(move || vec![Packet { reply_to: 1, ..descriptors(1) }]),
            is_reserved,
        ),
        (
            "descriptors with a body",
            Box::new(move || vec![Packet { body: vec![1], ..descriptors(1) }]),
            is_length,
        ),
        ("a body too long", Box::new(move || vec![Packet { body: vec![1; 301], ..kind(CONTROL) }]), is_long),
        (
            "a reply with a number of its own",
            Box::new(move || vec![Packet { reply_to: 1, ..Packet::control(1) }]),
            is_sequence,
        ),
        (
            "a reply to nothing",
            Box::new(move || vec![Packet { reply_to: 77, ..Packet::control(0) }]),
            is_unasked,
        ),
        (
            "a reply to the last number",
            Box::new(move || vec![Packet { reply_to: u64::MAX, ..Packet::control(0) }]),
            is_unasked,
        ),
        (
            "a reply that asks",
            Box::new(move || vec![Packet { reply_to: 1, flags: WANTS_REPLY, ..Packet::control(0) }]),
            is_flags,
        ),
        (
            "half a reply",
            Box::new(move || vec![Packet { reply_to: 1, flags: OTHER_HALF, ..Packet::control(0) }]),
            is_flags,
        ),
        ("doorbells without end", Box::new(move || many(200, || Packet::new(DOORBELL))), is_bells),
        ("half a header", Box::new(|| vec![Packet::raw(&[6; 20])]), is_length),
    ];
    for (case, packets, judge) in cases {
        for_all(|name, patience, builder, verb| {
            // Each of these calls shows an epoch, and reads one packet.
            if case == "doorbells without end" && !name.contains("recv_timeout,") {
                return;
            }
            let (raw, mut subscriber) =
                publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
            for packet in packets() {
                raw.socket.send(packet);
            }
            assert_violation(&format!("{case}: {name}"), verb, &mut subscriber, judge);
        });
    }
}

/// Records whose descriptors were never sent: a violation to those who lose nothing, a message missed to others.
#[test]
fn descriptors_that_are_missing() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        let (raw, mut subscriber) = publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
        let record = Record { reserved: [0, 0, 7, 0], ..payload(0, 64) };
        // That of a later attempt does not stand for it.
        raw.socket.send(Packet { sequence: 8, fds: files(1), ..Packet::new(DESCRIPTORS) });
        raw.publish_honestly(0, record);
        if patience == FOREVER {
            assert_violation(name, verb, &mut subscriber, |error| {
                matches!(error, ProtocolError::NoDescriptors { sequence: 0 })
            });
        } else {
            let result = verb(&mut subscriber);
            assert!(matches!(result, Err(Error::Timeout)), "{name}: {result:?}");
            assert_eq!(subscriber.missed(), 1, "{name}");
            raw.publish_honestly(128, Record { reserved: [0, 0, 8, 0], ..payload(1, 64) });
            let message = subscriber.recv_timeout(LONG).unwrap();
            assert_eq!((message.missed(), message.fds().len()), (1, 1), "{name}");
        }
    });
}

#[test]
fn wrong_last_words_are_refused_by_name() {
    let _guard = bounded();
    // A subscriber that has refused waits until the publisher has closed, for this time.
    let builder = builder().handshake_timeout(Duration::from_millis(200));
    let body = |terms: RawTerms| terms.bytes();
    let at = |first_position| body(RawTerms { first_position, ..RawTerms::default() });
    let whole = body(RawTerms::default());
    for (name, body, reason) in [
        ("nothing", vec![], Reason::ReadyLength),
        ("a byte less", whole[1..].to_vec(), Reason::ReadyLength),
        ("a byte more", [&whole[..], &[0]].concat(), Reason::ReadyLength),
        ("twice as much", [&whole[..], &whole[..]].concat(), Reason::ReadyLength),
        ("between two lines", at(1), Reason::Start),
        ("the end of all positions", at(1 << 63), Reason::Start),
        ("the last position", at(u64::MAX), Reason::Start),
        ("the last line", at(u64::MAX - 63), Reason::Start),
    ] {
        let (raw, result) = publish(&builder, PAGES, Packet { body, ..Packet::new(READY) });
        let HandshakeError::Refused(refusal) = handshake_error(result) else { panic!("{name}") };
        assert_eq!(refusal.reason, reason, "{name}");
        assert_eq!(
            (raw.socket.hear().unwrap().kind, raw.socket.hear().unwrap().kind),
            (READY, REJECT),
            "{name}"
        );
    }
    let ready = Packet { body: whole.clone(), fds: files(1), ..Packet::new(READY) };
    let (_raw, result) = publish(&builder, PAGES, ready);
    assert!(
        matches!(handshake_error(result), HandshakeError::Refused(refusal) if refusal.reason == Reason::Descriptors)
    );
    for (kind, reason) in [(CONTROL, Reason::Packet), (DOORBELL, Reason::Packet), (HELLO, Reason::Packet)] {
        let (_raw, result) = publish(&builder, PAGES, Packet::new(kind));
        assert!(
            matches!(handshake_error(result), HandshakeError::Refused(refusal) if refusal.reason == reason)
        );
    }
}

/// A position far behind all that is published, or a ring of no bytes, is a subscription in which nothing comes.
#[test]
fn odd_terms_are_harmless() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        let terms = RawTerms { patience, first_position: 1 << 62, ..RawTerms::default() };
        let (_raw, mut subscriber) = publish_on(builder, PAGES, terms);
        let result = verb(&mut subscriber);
        assert!(matches!(result, Err(Error::Timeout | Error::Protocol(_))), "{name}: {result:?}");
        let (raw, mut subscriber) = publish_on(builder, 0, RawTerms { patience, ..RawTerms::default() });
        raw.set(HEAD, 64);
        let result = verb(&mut subscriber);
        assert!(matches!(result, Err(Error::Timeout | Error::Protocol(_))), "{name}: {result:?}");
    });
}

#[test]
fn padding_is_passed_once() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        for (start, far) in [(0, 1 << 62), (ring() - 64, 1 << 62), (ring() - 64, ring())] {
            let terms = RawTerms { patience, first_position: start, ..RawTerms::default() };
            let (raw, mut subscriber) = publish_on(builder, PAGES, terms);
            raw.pad(0);
            raw.pad(ring() - 64);
            raw.set(LATEST, start);
            raw.set(HEAD, far);
            assert_violation(name, verb, &mut subscriber, |error| {
                matches!(error, ProtocolError::Padding { .. } | ProtocolError::RecordLength { .. })
            });
        }
    });
}

/// Stops another thread, also when the test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What is claimed moves on and on, so that nothing is ever whole. Calls with a deadline end, and those that do not wait do not.
#[test]
fn endless_jumps_pass_no_deadline() {
    let _guard = bounded();
    for (name, verb) in [VERBS; 5].concat() {
        let terms = RawTerms { patience: NEVER, ..RawTerms::default() };
        let (raw, mut subscriber) = publish_on(&builder(), PAGES, terms);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut head = 0;
                while !stop.load(Relaxed) {
                    head += ring();
                    raw.set(HEAD, head);
                    raw.set(LATEST, head - 64);
                    raw.set(CLAIMED, head + ring());
                }
            });
            let _stops = Stops(&stop);
            let result = verb(&mut subscriber);
            // Between two of its stores something may seem whole, and then be wrong.
            assert!(matches!(result, Ok(_) | Err(Error::Timeout | Error::Protocol(_))), "{name}: {result:?}");
            let result = subscriber.try_recv();
            assert!(matches!(result, Ok(_) | Err(Error::Protocol(_))), "{name}: {result:?}");
        });
    }
}

/// Reasons for an end without end, doorbells, and epochs: a call spends its budget, and ends.
#[test]
fn floods_of_packets_pass_no_deadline() {
    let _guard = bounded();
    for_all(|name, patience, builder, verb| {
        let (raw, mut subscriber) = publish_on(builder, PAGES, RawTerms { patience, ..RawTerms::default() });
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut epoch = 1;
                while !stop.load(Relaxed) {
                    let reject = Packet { body: vec![0; 24], ..Packet::new(REJECT) };
                    if raw.socket.try_send(reject).is_err() {
                        thread::yield_now();
                    }
                    epoch += 2;
                    raw.set(SENDER_NEEDS, epoch * 64);
                    raw.set(SENDER_EPOCH, epoch);
                    raw.set(PACKETS, epoch);
                }
            });
            let _stops = Stops(&stop);
            let result = verb(&mut subscriber);
            assert!(matches!(result, Err(Error::Timeout)), "{name}: {result:?}");
        });
    });
}

#[test]
fn end_counts_no_more_than_was_jumped_over() {
    let _guard = bounded();
    for (messages, skipped, missed) in
        [(u64::MAX, 0, 0), (1, 0, 0), (0, 0, 0), (u64::MAX, 1024, 0), (17, 1024, 16)]
    {
        let (raw, mut subscriber) =
            publish_on(&builder(), PAGES, RawTerms { patience: NEVER, ..RawTerms::default() });
        raw.publish_honestly(0, payload(0, 64));
        subscriber.recv_timeout(LONG).unwrap();
        if skipped > 0 {
            raw.set(HEAD, 128 + skipped);
            raw.set(CLAIMED, 128 + skipped + ring());
        }
        raw.set(MESSAGES, messages);
        drop(raw);
        assert!(matches!(subscriber.recv_timeout(LONG), Err(Error::Disconnected)));
        assert_eq!(subscriber.missed(), missed, "{messages} {skipped}");
    }
}

/// All words, the ring, and packets at random, while all calls are made: typed errors, and nothing else.
#[test]
fn random_bytes_give_typed_errors() {
    let _guard = bounded();
    let seed = Random::seed();
    println!("SEED={seed}");
    let mut random = Random(seed);
    for round in 0..short_or_long(300, 20_000) {
        let patience = [FOREVER, NEVER][round % 2];
        let (raw, mut subscriber) =
            publish_on(&builder(), PAGES, RawTerms { patience, ..RawTerms::default() });
        let words = [HEAD, LATEST, CLAIMED, MESSAGES, SENDER_EPOCH, SENDER_NEEDS, PACKETS];
        let (mut position, mut sequence, mut attempt) = (0, 0, 0);
        for _ in 0..40 {
            match random.below(10) {
                // Mostly what is right, so that the wrong comes at any point.
                0..6 => {
                    let len = random.below(300) as u64;
                    let end = position + 64 + u64::next_multiple_of(len, 64);
                    if end / ring() == position / ring() || end.is_multiple_of(ring()) {
                        if random.below(3) == 0 {
                            attempt += 1;
                            let fds = files(random.below(4));
                            // The subscriber may have closed after what was wrong.
                            let sent = Packet { sequence: attempt, fds, ..Packet::new(DESCRIPTORS) };
                            let _ = raw.socket.try_send(sent);
                            let record = Record { reserved: [0, 0, attempt, 0], ..payload(sequence, len) };
                            raw.publish_honestly(position, record);
                        } else {
                            raw.publish_honestly(position, payload(sequence, len));
                        }
                        (position, sequence) = (end, sequence + 1);
                    }
                }
                6 => {
                    let word = random.one_of(&words);
                    let (near, any) = (random.below(64) as u64 * 64, random.next());
                    let near = position.wrapping_add(near).wrapping_sub(1024);
                    raw.set(word, random.one_of(&[near, any, u64::MAX, 0, near & !63, 1 << 62]));
                }
                7 => {
                    let at = random.next() % (ring() - 64) / 8 * 8;
                    let len = 8 * (1 + random.below(8));
                    let bytes = random.bytes(len);
                    raw.scribble(at, &bytes);
                }
                8 if random.below(4) == 0 => {
                    let len = random.below(100);
                    let (kind, bytes) = (random.one_of(&[0, 1, 2, 3, 4, 5, 6, 7]), random.bytes(len));
                    let _ = raw.socket.try_send(Packet::raw(&[&[kind, 0][..], &bytes].concat()));
                }
                _ => {}
            }
            let result = match random.below(6) {
                0 => subscriber.try_recv().map(|message| message.map_or(0, |message| bytes(&message))),
                1 => subscriber.recv_timeout(Duration::ZERO).map(|message| bytes(&message)),
                2 => subscriber.try_recv_latest().map(|message| message.map_or(0, |message| bytes(&message))),
                3 => subscriber
                    .recv_with_timeout(Duration::ZERO, |m| {
                        m.payload().map_or(0, |payload| payload.to_vec().len())
                    })
                    .map(Option::unwrap_or_default),
                4 => subscriber.call("?", Duration::ZERO).map(|message| bytes(&message)),
                _ => subscriber.arm().map(usize::from),
            };
            match result {
                Ok(_)
                | Err(
                    Error::Timeout
                    | Error::TimeoutHolding { .. }
                    | Error::Backlog
                    | Error::TooManyRequests { .. },
                ) => {}
                Err(Error::Protocol(_) | Error::TooSlow | Error::Disconnected) => break,
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
    }
}

#[test]
fn granted_policy_is_what_the_last_word_says() {
    for (patience, granted) in [
        (0, Slow::Overrun),
        (1, Slow::Wait(Duration::ZERO)),
        (1001, Slow::Wait(Duration::from_millis(1))),
        (u64::MAX, Slow::Wait(Duration::MAX)),
    ] {
        let (_raw, subscriber) = publish_on(&builder(), PAGES, RawTerms { patience, ..RawTerms::default() });
        assert_eq!(subscriber.granted(), granted);
    }
}
