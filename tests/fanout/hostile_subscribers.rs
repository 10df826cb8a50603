//! Subscribers that break the protocol: each ends its own lane, and another subscriber receives everything, in order.

use std::{os::fd::OwnedFd, thread, time::Duration};

use rustix::net::{Shutdown, connect};
use sealane::{
    Builder, Channel, Error, Event, HandshakeError, Listener, ProtocolError, Publisher, Reason, Slow,
    Subscriber, SubscriberId,
};

use crate::{
    fan::{OVERRUN, join},
    support::{
        handshake_error,
        hostile::{
            DOORBELL, HELLO, Hello, LONG, OTHER_HALF, Packet, Player, READY, REJECT, WANTS_REPLY,
            abstract_name, address,
            fanout::{
                CLAIMED, DESCRIPTORS, FOREVER, LATEST, MESSAGES, MISSED, NEVER, RawSubscriber, greet, region,
                subscriber_hello,
            },
            memory::{HEAD, PACKETS, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS, TAIL},
            page, pipe, seqpacket, seqpacket_pair,
        },
        threads::bounded,
    },
};

/// Bytes of the ring, and of each payload.
const RING: usize = 16 << 10;
const PAYLOAD: usize = 500;
/// The time for which a slow subscriber is waited for.
const PATIENCE: Duration = Duration::from_millis(30);
/// Most control bytes and descriptors of a message, and most open requests of a subscriber.
const MAX_CONTROL: usize = 300;
const MAX_FDS: usize = 4;
const MAX_REQUESTS: usize = 3;

fn builder() -> Builder {
    Builder::default()
        .ring_capacity(RING)
        .max_control(MAX_CONTROL)
        .max_fds(MAX_FDS)
        .max_requests(MAX_REQUESTS)
        .slow(Slow::Wait(PATIENCE))
}

/// A publisher with an honest subscriber.
struct Scene {
    publisher: Publisher,
    honest: Subscriber,
    /// Those who have left, and why.
    left: Vec<(SubscriberId, Error)>,
}

impl Scene {
    fn new(builder: &Builder) -> Self {
        let mut publisher = builder.publisher().unwrap();
        // The honest one is this thread, which the publisher cannot wait for in vain: it has received everything.
        let honest = join(&mut publisher, builder).1;
        Self { publisher, honest, left: Vec::new() }
    }

    /// Publishes one message, which the honest subscriber receives.
    fn publish(&mut self) {
        let mut loan = self.publisher.loan(PAYLOAD).unwrap();
        loan.fill(7);
        loan.send_with(b"all").unwrap();
        let message = self.honest.recv_timeout(LONG).unwrap();
        assert_eq!((message.control(), message.missed()), (&b"all"[..], 0));
        assert_eq!(message.payload().unwrap().try_to_vec().unwrap(), [7; PAYLOAD]);
    }

    /// Hears all events. Messages of hostile subscribers are dropped.
    fn hear(&mut self) {
        while let Some(event) = self.publisher.next_event().unwrap() {
            if let Event::Left(id, error) = event {
                self.left.push((id, error));
            }
        }
    }

    /// Publishes some rings full; `after` is called behind each message.
    fn publish_rings(&mut self, mut after: impl FnMut()) {
        for _ in 0..3 * RING / PAYLOAD {
            self.publish();
            after();
            self.hear();
        }
        let sequence = self.honest.stats().messages_received;
        assert_eq!((self.honest.missed(), sequence), (0, self.publisher.stats().messages_sent));
    }

    /// The reason for which a subscriber has left.
    fn reason(&mut self, id: SubscriberId) -> Option<&Error> {
        self.hear();
        self.left.iter().find(|(other, _)| *other == id).map(|(_, error)| error)
    }

    fn is_there(&mut self, id: SubscriberId) -> bool {
        self.publisher.subscribers().iter().any(|info| info.id() == id)
    }
}

/// Checks that a subscriber has left for this violation.
macro_rules! assert_violated {
    ($scene:expr, $raw:expr, $pattern:pat, $name:expr) => {
        match $scene.reason($raw.id) {
            Some(Error::Protocol($pattern)) => {}
            other => panic!("{}: {other:?}", $name),
        }
    };
}

#[test]
fn released_space_that_is_no_position_ends_that_lane() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for (name, first, then) in [
        ("backwards", 128, 64),
        ("backwards to nothing", 640, 0),
        ("before it joined", 0, 0_u64.wrapping_sub(64)),
        ("beyond what is published", 0, 1 << 40),
        ("the last number", 0, u64::MAX),
        ("half of all numbers", 0, 1 << 63),
        ("misaligned", 0, 65),
        ("a little beyond", 0, 4 * 1024),
    ] {
        let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
        scene.publish();
        scene.publish();
        raw.raw.set(TAIL, first);
        // The publisher looks.
        scene.publisher.subscribers();
        raw.raw.set(TAIL, then);
        scene.publish_rings(|| ());
        match scene.reason(raw.id) {
            Some(Error::Protocol(ProtocolError::Tail { .. } | ProtocolError::Misaligned { .. })) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn other_words_of_a_subscriber_mean_nothing_to_others() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for patience in [NEVER, FOREVER] {
        for word in [MISSED, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS, LATEST, MESSAGES, CLAIMED] {
            let raw = RawSubscriber::join(&mut scene.publisher, patience);
            let mut numbers = [1, 0, u64::MAX, 1 << 63, 65, 3, 7].into_iter().cycle();
            scene.publish_rings(|| {
                raw.raw.set(word, numbers.next().unwrap());
                raw.raw.set(TAIL, raw.published());
            });
            assert!(scene.is_there(raw.id), "word {word:#x}: {:?}", scene.left.last());
            assert!(scene.publisher.disconnect(raw.id));
        }
    }
}

#[test]
fn ring_of_a_subscriber_without_one_is_a_violation() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for number in [64, 1, u64::MAX, 1 << 63] {
        let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
        raw.raw.set(HEAD, number);
        raw.raw.socket.send(Packet::control(0));
        scene.hear();
        assert_violated!(scene, raw, ProtocolError::Head { .. }, number);
        let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
        raw.raw.set(PACKETS, number);
        scene.publish_rings(|| ());
        assert!(scene.is_there(raw.id), "announced packets mean nothing");
        scene.publisher.disconnect(raw.id);
    }
}

fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
}

type Judge = fn(&ProtocolError) -> bool;

/// Packets that are wrong on a subscriber's channel socket.
fn wrong_packets() -> Vec<(&'static str, Packet, Judge)> {
    let control = || Packet::control(0);
    let kind = |kind| Packet::new(kind);
    let is_kind: Judge = |error| matches!(error, ProtocolError::PacketKind { .. });
    let is_flags: Judge = |error| matches!(error, ProtocolError::PacketFlags { .. });
    let is_fds: Judge = |error| matches!(error, ProtocolError::FdLimit { .. });
    let is_count: Judge = |error| matches!(error, ProtocolError::FdCount { .. });
    let is_sequence: Judge = |error| matches!(error, ProtocolError::Sequence { .. });
    let is_length: Judge = |error| matches!(error, ProtocolError::PacketLength { .. });
    let is_long: Judge = |error| matches!(error, ProtocolError::PacketTooLong { .. });
    let is_unasked: Judge = |error| matches!(error, ProtocolError::UnaskedReply { .. });
    let is_reserved: Judge = |error| matches!(error, ProtocolError::PacketReserved);
    let is_bells: Judge = |error| matches!(error, ProtocolError::Doorbells { .. });
    vec![
        ("no kind", kind(0), is_kind),
        ("an unknown kind", kind(7), is_kind),
        ("the last kind", kind(u16::MAX), is_kind),
        ("a second Hello", kind(HELLO), is_kind),
        ("a second Ready", kind(READY), is_kind),
        ("a Reject", Packet { body: vec![0; 24], ..kind(REJECT) }, is_kind),
        ("descriptors of a record", Packet { sequence: 1, fds: files(1), ..kind(DESCRIPTORS) }, is_kind),
        ("a doorbell for no epoch", kind(DOORBELL), is_bells),
        ("an unknown flag", Packet { flags: 4, ..control() }, is_flags),
        ("another unknown flag", Packet { flags: 8, ..control() }, is_flags),
        ("all flags", Packet { flags: u16::MAX, ..control() }, is_flags),
        ("a sequence too high", Packet::control(1), is_sequence),
        ("the last sequence", Packet::control(u64::MAX), is_sequence),
        ("a reply to nothing", Packet { reply_to: 1, ..control() }, is_unasked),
        ("a reply to the last number", Packet { reply_to: u64::MAX, ..control() }, is_unasked),
        ("reserved bytes", Packet { reserved: 1, ..control() }, is_reserved),
        ("descriptors that are announced", Packet { announced: Some(1), ..control() }, is_count),
        (
            "descriptors that are not announced",
            Packet { announced: Some(0), fds: files(1), ..control() },
            is_count,
        ),
        ("the last number of descriptors", Packet { announced: Some(u32::MAX), ..control() }, is_count),
        ("too many descriptors", Packet { fds: files(5), ..control() }, is_fds),
        ("most descriptors", Packet { fds: files(253), ..control() }, is_fds),
        ("a body too long", Packet { body: vec![0; MAX_CONTROL + 1], ..control() }, is_long),
        ("a body much too long", Packet { body: vec![0; 60_000], ..control() }, is_long),
        ("one byte", Packet::raw(&[4]), is_length),
        ("half a header", Packet::raw(&[4; 31]), is_length),
        ("a doorbell with a body", Packet { body: vec![0], ..kind(DOORBELL) }, is_length),
    ]
}

#[test]
fn wrong_packets_end_that_lane() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for (name, packet, judge) in wrong_packets() {
        let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
        raw.raw.socket.send(packet);
        match scene.reason(raw.id) {
            Some(Error::Protocol(violation)) if judge(violation) => {}
            other => panic!("{name}: {other:?}"),
        }
        scene.publish();
        assert!(raw.raw.socket.is_over(), "{name}: the lane is shut");
    }
    scene.publish_rings(|| ());
}

#[test]
fn sequences_that_repeat_and_too_many_requests_end_that_lane() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
    raw.raw.socket.send(Packet::control(0));
    raw.raw.socket.send(Packet::control(0));
    assert_violated!(scene, raw, ProtocolError::Sequence { expected: 1, found: 0 }, "a sequence repeats");
    // Half a message waits for a record that never comes: nothing comes behind it.
    let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
    raw.raw.socket.send(Packet { flags: OTHER_HALF, ..Packet::control(0) });
    assert!(scene.reason(raw.id).is_none());
    raw.raw.socket.send(Packet::control(1));
    assert_violated!(scene, raw, ProtocolError::Halves { .. }, "half a message");
    let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
    for sequence in 0..=MAX_REQUESTS as u64 {
        raw.raw.socket.send(Packet { flags: WANTS_REPLY, ..Packet::control(sequence) });
    }
    assert_violated!(scene, raw, ProtocolError::Requests { .. }, "requests");
    scene.publish_rings(|| ());
}

#[test]
fn wrong_doorbells_for_room_end_that_lane() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for (name, packet) in [
        ("nobody waits", Packet::new(DOORBELL)),
        ("no doorbell", Packet::control(0)),
        ("an unknown kind", Packet::new(99)),
        ("a body", Packet { body: vec![1], ..Packet::new(DOORBELL) }),
        ("a descriptor", Packet { fds: files(1), ..Packet::new(DOORBELL) }),
        ("a flag", Packet { flags: 1, ..Packet::new(DOORBELL) }),
        ("half a header", Packet::raw(&[5; 9])),
    ] {
        let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
        // The kernel may refuse a descriptor here by itself.
        if raw.raw.space.try_send(packet).is_err() {
            scene.publisher.disconnect(raw.id);
            continue;
        }
        match scene.reason(raw.id) {
            Some(Error::Protocol(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    scene.publish_rings(|| ());
}

/// Each refused call shows one epoch, for which one doorbell may come.
#[test]
fn second_doorbell_for_an_epoch_ends_that_lane() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder().slow(Slow::Wait(Duration::MAX)));
    let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
    while scene.publisher.try_loan(PAYLOAD).unwrap().map(|loan| loan.send().unwrap()).is_some() {
        scene.honest.recv_timeout(LONG).unwrap();
    }
    let epoch = raw.word(SENDER_EPOCH);
    assert_eq!(epoch & 1, 1, "the publisher has shown an epoch");
    // It still lacks this lane: the bell is in vain, which is no violation.
    raw.raw.space.send(Packet::new(DOORBELL));
    scene.hear();
    assert!(scene.is_there(raw.id));
    assert_eq!(raw.word(SENDER_EPOCH) & 1, 0, "the epoch has ended");
    raw.raw.space.send(Packet::new(DOORBELL));
    assert_violated!(scene, raw, ProtocolError::Doorbells { .. }, "a second bell");
    scene.publish_rings(|| ());
}

#[test]
fn half_closed_lanes_end_alone() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    for how in [Shutdown::Write, Shutdown::Both] {
        let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
        raw.raw.socket.shut(how);
        assert!(matches!(scene.reason(raw.id), Some(Error::Disconnected)), "{how:?}");
    }
    let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
    // It reads nothing more, and says so: its doorbells find nobody.
    raw.raw.socket.shut(Shutdown::Read);
    raw.raw.set(RECEIVER_EPOCH, 3);
    scene.publish();
    scene.publish_rings(|| ());
    assert!(matches!(scene.reason(raw.id), Some(Error::Disconnected | Error::TooSlow)));
    let raw = RawSubscriber::join(&mut scene.publisher, FOREVER);
    raw.raw.space.shut(Shutdown::Both);
    assert!(matches!(scene.reason(raw.id), Some(Error::Disconnected)));
    scene.publish_rings(|| ());
}

/// Bits of a `Hello` that are wrong, and the reason of the `Reject`; `None` if it is good enough.
#[test]
fn odd_hellos_are_refused_by_name_or_mean_less() {
    type Change = fn(&mut Hello);
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let cases: [(&str, Change, Option<u32>); 22] = [
        ("nothing", |_| (), None),
        ("a plain channel", |h| (h.features, h.required) = (0, 0), Some(4)),
        ("a channel with a ring", |h| (h.features, h.required, h.ring_capacity) = (0, 0, page()), Some(4)),
        ("offers nothing", |h| h.features = 0, Some(4)),
        ("requires nothing", |h| h.required = 0, None),
        ("requires more", |h| h.required = 3, Some(4)),
        ("requires everything", |h| h.required = u64::MAX, Some(4)),
        ("offers everything", |h| h.features = u64::MAX, None),
        ("a ring", |h| h.ring_capacity = page(), Some(5)),
        ("the largest ring", |h| h.ring_capacity = u64::MAX, Some(5)),
        ("no page", |h| h.ring_offset = 0, Some(6)),
        ("part of a page", |h| h.ring_offset = 64, Some(6)),
        ("more pages than there are", |h| h.ring_offset = 2 * page(), Some(11)),
        ("more pages than there can be", |h| h.ring_offset = 1 << 62, Some(6)),
        ("fewer control bytes", |h| h.max_control = 299, Some(21)),
        ("fewer descriptors", |h| h.max_fds = 3, Some(22)),
        ("no requests", |h| h.max_requests = 0, None),
        ("a later start", |h| h.first_sequence = 1, Some(7)),
        ("a later position", |h| h.first_position = 64, Some(7)),
        ("an unknown start", |h| h.start = u32::MAX, None),
        ("nearly no patience", |h| h.patience = 1, None),
        ("nearly all patience", |h| h.patience = u64::MAX - 1, None),
    ];
    for (name, change, reason) in cases {
        let (socket, ours) = Player::pair();
        let id = scene.publisher.add(ours).unwrap();
        let mut hello = subscriber_hello(FOREVER);
        change(&mut hello);
        let _kept = greet(&socket, &hello);
        socket.send(Packet::new(READY));
        // The refusal is complete when its reader has closed.
        let mut event = scene.publisher.next_event().unwrap();
        if let Some(reason) = reason {
            assert!(event.is_none(), "{name}: {event:?}");
            assert_eq!(socket.hear().unwrap().refusal().0, reason, "{name}");
            socket.shut(Shutdown::Write);
            event = scene.publisher.wait_event(LONG).unwrap();
        }
        match (event, reason) {
            (Some(Event::Joined(joined)), None) => {
                assert_eq!(joined, id);
                let info = scene.publisher.subscribers().last().unwrap().clone();
                assert!(info.policy() <= Slow::Wait(PATIENCE), "{name}: more than the rule");
                assert!(scene.publisher.disconnect(id));
                scene.hear();
            }
            (Some(Event::Left(left, Error::Handshake(HandshakeError::Refused(_)))), Some(_)) => {
                assert_eq!(left, id);
            }
            other => panic!("{name}: {other:?}"),
        }
        scene.publish();
    }
    scene.publish_rings(|| ());
}

#[test]
fn wrong_packets_in_the_handshake_are_refused() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let hello = || subscriber_hello(FOREVER).bytes();
    let (memory, _kept) = region(page());
    let fds = || vec![memory.try_clone().unwrap(), seqpacket_pair().0];
    let refused = |packets: Vec<Packet>, scene: &mut Scene| {
        let (socket, ours) = Player::pair();
        let id = scene.publisher.add(ours).unwrap();
        for packet in packets {
            socket.send(packet);
        }
        assert!(scene.publisher.next_event().unwrap().is_none());
        scene.publish();
        let reason = socket.hear_all().pop().unwrap().refusal().0;
        drop(socket);
        let error = match scene.publisher.wait_event(LONG).unwrap() {
            Some(Event::Left(left, error)) if left == id => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(error, Error::Handshake(HandshakeError::Refused(_))), "{error:?}");
        reason
    };
    let honest = || Packet { fds: fds(), body: hello(), identified: true, ..Packet::new(HELLO) };
    let packet = 16;
    for (name, packets, reason) in [
        ("Ready first", vec![Packet::new(READY)], packet),
        ("a message first", vec![Packet::control(0)], packet),
        ("bytes", vec![Packet::raw(b"GET / HTTP/1.1")], packet),
        ("a short Hello", vec![Packet { body: hello()[..95].to_vec(), ..honest() }], 3),
        ("no descriptors", vec![Packet { fds: vec![], ..honest() }], 8),
        ("a pipe for memory", vec![Packet { fds: vec![pipe().0, seqpacket_pair().0], ..honest() }], 9),
        ("a pipe for a socket", vec![Packet { fds: vec![fds().remove(0), pipe().1], ..honest() }], 14),
        ("Hello twice", vec![honest(), honest()], packet),
        ("a Ready with terms", vec![honest(), Packet { body: vec![0; 32], ..Packet::new(READY) }], 20),
        ("a Ready with a descriptor", vec![honest(), Packet { fds: files(1), ..Packet::new(READY) }], 8),
    ] {
        assert_eq!(refused(packets, &mut scene), reason, "{name}");
    }
    scene.publish_rings(|| ());
}

#[test]
fn silent_handshakes_delay_nobody_and_time_out() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder().handshake_timeout(Duration::from_millis(100)));
    for silent_after in 0..2 {
        let (socket, ours) = Player::pair();
        let id = scene.publisher.add(ours).unwrap();
        let kept = (silent_after > 0).then(|| greet(&socket, &subscriber_hello(FOREVER)));
        assert!(scene.publisher.next_event().unwrap().is_none());
        scene.publish_rings(|| ());
        let error = match scene.left.pop() {
            Some((left, error)) if left == id => error,
            None => match scene.publisher.wait_event(LONG).unwrap() {
                Some(Event::Left(left, error)) if left == id => error,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert!(matches!(error, Error::Timeout), "silent after {silent_after}: {error:?}");
        drop(kept);
    }
}

/// A reading end that is full takes no last word: then it is tried again later.
#[test]
fn newcomers_that_do_not_read_delay_nobody() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().publish(&name).unwrap();
    let honest = join(&mut publisher, &builder()).1;
    let mut scene = Scene { publisher, honest, left: Vec::new() };
    let raws: Vec<_> = (0..8)
        .map(|_| {
            let socket = Player::connect(&name);
            let kept = greet(&socket, &subscriber_hello(FOREVER));
            socket.send(Packet::new(READY));
            // It is gone before it is heard of, every second time.
            (socket, kept)
        })
        .enumerate()
        .filter_map(|(n, raw)| (n % 2 == 0).then_some(raw))
        .collect();
    scene.publish_rings(|| ());
    drop(raws);
    scene.publish_rings(|| ());
    scene.hear();
    assert_eq!(scene.publisher.subscribers().len(), 1);
}

#[test]
fn sixteen_handshakes_are_kept_and_the_oldest_gives_way() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().publish(&name).unwrap();
    let honest = join(&mut publisher, &builder()).1;
    let mut scene = Scene { publisher, honest, left: Vec::new() };
    let silent: Vec<Player> = (0..100).map(|_| Player::connect(&name)).collect();
    scene.hear();
    let kept: Vec<bool> = silent.iter().map(|player| !player.is_over()).collect();
    assert_eq!(kept, [[false; 84].as_slice(), &[true; 16]].concat());
    scene.publish_rings(|| ());
    // A place is always found for another one.
    let subscribing = thread::spawn({
        let name = name.clone();
        move || builder().subscribe(name)
    });
    match scene.publisher.wait_event(LONG).unwrap() {
        Some(Event::Joined(_)) => {}
        other => panic!("{other:?}"),
    }
    let mut newcomer = subscribing.join().unwrap().unwrap();
    scene.publish();
    assert_eq!(newcomer.recv_timeout(LONG).unwrap().control(), b"all");
    assert_eq!(silent.iter().filter(|player| !player.is_over()).count(), 15);
    // One that the application has asked for is never given up.
    let (asked_for, ours) = Player::pair();
    scene.publisher.add(ours).unwrap();
    let more: Vec<Player> = (0..40).map(|_| Player::connect(&name)).collect();
    scene.hear();
    assert_eq!(more.iter().filter(|player| !player.is_over()).count(), 16);
    assert!(!asked_for.is_over());
}

/// The application decides by those who are there; those who were admitted and have not joined yet are there, too.
#[test]
fn admitted_ones_count_before_they_have_joined() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().publish(&name).unwrap();
    publisher.admit(|newcomer| {
        let uid = newcomer.credentials().uid;
        let others = newcomer.present().iter().filter(|other| other.credentials().uid == uid);
        (others.count() < 3).then(|| newcomer.wish())
    });
    let raws: Vec<_> = (0..10)
        .map(|_| {
            let socket = Player::connect(&name);
            let kept = greet(&socket, &subscriber_hello(FOREVER));
            (socket, kept)
        })
        .collect();
    assert!(publisher.next_event().unwrap().is_none());
    for (socket, _) in &raws {
        // Those who were refused have ended.
        let _ = socket.try_send(Packet::new(READY));
    }
    let mut joined = 0;
    while let Some(event) = publisher.next_event().unwrap() {
        assert!(matches!(event, Event::Joined(_)), "{event:?}");
        joined += 1;
    }
    assert_eq!((joined, publisher.subscribers().len()), (3, 3));
}

#[test]
fn one_too_many_is_refused_by_name() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().max_subscribers(1).publish(&name).unwrap();
    let subscribing = |publisher: &mut Publisher| {
        let name = name.clone();
        let subscribing = thread::spawn(move || builder().subscribe(name));
        while !subscribing.is_finished() {
            publisher.wait_event(Duration::from_millis(20)).unwrap();
        }
        subscribing.join().unwrap()
    };
    let first = subscribing(&mut publisher).unwrap();
    let error = handshake_error(subscribing(&mut publisher));
    let HandshakeError::Rejected(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.reason, refusal.expected, refusal.found), (Reason::Subscribers, 1, 2));
    // Who leaves makes room.
    drop(first);
    while publisher.wait_event(LONG).unwrap().is_some_and(|event| !matches!(event, Event::Left(..))) {}
    subscribing(&mut publisher).unwrap();
}

#[test]
fn channels_and_publishers_refuse_each_other_and_say_so() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().publish(&name).unwrap();
    let calling = thread::spawn({
        let name = name.clone();
        move || Channel::connect(name)
    });
    while !calling.is_finished() {
        assert!(publisher.wait_event(Duration::from_millis(20)).unwrap().is_none());
    }
    let error = handshake_error(calling.join().unwrap());
    let HandshakeError::Rejected(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.reason, refusal.expected, refusal.found), (Reason::Features, 1, 0));
    assert!(refusal.to_string().contains("a publisher or subscriber expected, a channel found"), "{refusal}");

    let name = abstract_name();
    let listener = Listener::bind(&name).unwrap();
    let accepting = thread::spawn(move || listener.accept());
    let error = handshake_error(Subscriber::connect(&name));
    let HandshakeError::Rejected(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.reason, refusal.expected, refusal.found), (Reason::Features, 0, 1));
    assert!(refusal.to_string().contains("a channel expected, a publisher or subscriber found"), "{refusal}");
    assert!(matches!(handshake_error(accepting.join().unwrap()), HandshakeError::Refused(_)));
    // And a subscriber on the other end of a subscriber.
    let (one, other) = seqpacket_pair();
    let first = thread::spawn(|| Builder::default().subscribe_on(one));
    let results = [Builder::default().subscribe_on(other).is_err(), first.join().unwrap().is_err()];
    assert_eq!(results, [true; 2]);
}

#[test]
fn publishers_own_region_is_refused_when_it_comes_back() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
    let whole = page() + RING as u64;
    for (name, hello, reason) in [
        ("as it is", subscriber_hello(FOREVER), 11),
        ("as a ring", Hello { ring_capacity: RING as u64, ..subscriber_hello(FOREVER) }, 5),
        ("as one large control page", Hello { ring_offset: whole, ..subscriber_hello(FOREVER) }, 6),
    ] {
        let (socket, ours) = Player::pair();
        let id = scene.publisher.add(ours).unwrap();
        let (_own_space, for_peer) = seqpacket_pair();
        socket.send(Packet::hello(&hello, vec![raw.copy_of_region(), for_peer]));
        assert!(scene.publisher.next_event().unwrap().is_none());
        assert_eq!(socket.hear().unwrap().refusal().0, reason, "{name}");
        drop(socket);
        match scene.publisher.wait_event(LONG).unwrap() {
            Some(Event::Left(left, Error::Handshake(HandshakeError::Refused(_)))) => assert_eq!(left, id),
            other => panic!("{name}: {other:?}"),
        }
    }
    scene.publish_rings(|| ());
}

/// Two lanes of one process that share a region and a socket for doorbells: they harm themselves.
#[test]
fn lanes_that_share_what_is_theirs_harm_themselves() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let (region, memory) = region(page());
    let (_own_space, for_peer) = seqpacket_pair();
    let players: Vec<_> = (0..3)
        .map(|_| {
            let (socket, ours) = Player::pair();
            let id = scene.publisher.add(ours).unwrap();
            let fds = vec![region.try_clone().unwrap(), for_peer.try_clone().unwrap()];
            socket.send(Packet::hello(&subscriber_hello(FOREVER), fds));
            socket.send(Packet::new(READY));
            assert!(matches!(scene.publisher.wait_event(LONG).unwrap(), Some(Event::Joined(_))));
            (id, socket)
        })
        .collect();
    // What is right for one is right for all of them, as they have joined at one position.
    scene.publish();
    vm_memory::Bytes::store(
        &vm_memory::VolatileMemory::as_volatile_slice(&memory),
        u64::MAX,
        TAIL,
        std::sync::atomic::Ordering::Release,
    )
    .unwrap();
    scene.publish_rings(|| ());
    for (id, _socket) in &players {
        assert!(matches!(scene.reason(*id), Some(Error::Protocol(ProtocolError::Tail { .. }))));
    }
}

/// Messages of a subscriber come in turn with those of others, and none keeps the publisher from publishing.
#[test]
fn floods_of_messages_keep_nobody_from_being_heard() {
    let _guard = bounded();
    let mut scene = Scene::new(&builder());
    let raw = RawSubscriber::join(&mut scene.publisher, NEVER);
    let mut sent = 0;
    while raw.raw.socket.try_send(Packet::control(sent)).is_ok() {
        sent += 1;
    }
    scene.honest.send(b"heard").unwrap();
    let mut before = 0;
    loop {
        match scene.publisher.next_event().unwrap() {
            Some(Event::Message(id, message)) if id != raw.id => {
                break assert_eq!(message.control(), b"heard");
            }
            Some(Event::Message(..)) => before += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(before <= 1, "{before} of {sent} came before");
    scene.publish_rings(|| ());
    assert_eq!(scene.publisher.stats().messages_received, sent + 1);
}

/// A publisher that only publishes, and never asks for events, keeps no memory for those who come and go.
#[test]
fn unread_events_of_those_who_come_and_go_are_few() {
    let _guard = bounded();
    let mut publisher = builder().slow(OVERRUN).publisher().unwrap();
    for _ in 0..400 {
        let (socket, ours) = Player::pair();
        let id = publisher.add(ours).unwrap();
        drop(greet(&socket, &subscriber_hello(NEVER)));
        socket.send(Packet::new(READY));
        let deadline = std::time::Instant::now() + LONG;
        while !publisher.subscribers().iter().any(|info| info.id() == id) {
            publisher.try_send("x").unwrap();
            assert!(std::time::Instant::now() < deadline);
        }
        drop(socket);
        while !publisher.subscribers().is_empty() {
            publisher.try_send("x").unwrap();
            assert!(std::time::Instant::now() < deadline);
        }
    }
    let mut events = 0;
    while publisher.next_event().unwrap().is_some() {
        events += 1;
    }
    assert!(events <= 300, "{events} events were kept");
}

#[test]
fn connections_that_end_at_once_leave_nothing() {
    let _guard = bounded();
    let name = abstract_name();
    let mut publisher = builder().publish(&name).unwrap();
    let honest = join(&mut publisher, &builder()).1;
    let mut scene = Scene { publisher, honest, left: Vec::new() };
    for _ in 0..50 {
        let socket = seqpacket();
        connect(&socket, &address(&name)).unwrap();
        drop(socket);
        scene.publish();
    }
    scene.publish_rings(|| ());
    assert_eq!(scene.publisher.subscribers().len(), 1);
}
