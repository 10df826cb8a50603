//! Readiness with real event loops: a loop that waits for its descriptors only misses nothing, and is not woken endlessly.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    iter,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sealane::{Builder, Channel, Control, Error, Handshake, Message, Payload, Receiver, Sender};

use crate::support::{
    loops::{Calloop, EpollEdge, EpollLevel, EventLoop, Mio, Polling},
    may_open, role, socket_path,
    threads::SOON,
};

const NOW: Duration = Duration::ZERO;

/// Runs every promise on every kind of event loop.
macro_rules! on_every_loop {
    ($($promise:ident)*) => {
        on_every_loop! { @ epoll_level EpollLevel $($promise)* }
        on_every_loop! { @ epoll_edge EpollEdge $($promise)* }
        on_every_loop! { @ calloop Calloop $($promise)* }
        on_every_loop! { @ mio Mio $($promise)* }
        on_every_loop! { @ polling Polling $($promise)* }
    };
    (@ $name:ident $make:ident $($promise:ident)*) => {
        mod $name {
            $(#[test] fn $promise() { super::$promise::<super::$make>(); })*
        }
    };
}

on_every_loop! {
    a_receiver_is_told_of_everything
    a_sender_is_told_when_trying_again_is_worthwhile
    ring_and_socket_hide_no_room_from_each_other
    late_replies_hide_nothing
    two_ends_on_one_loop_keep_each_other_going
    the_death_of_the_peer_is_seen_by_both_halves
    silent_clients_hold_up_nobody
}

/// Rings of two pages, so that they are soon full.
fn small() -> Builder {
    Channel::builder().ring_capacity(8192)
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// One message of a stream that both ends can compute.
struct Item {
    control: Vec<u8>,
    payload: Option<Vec<u8>>,
    files: usize,
    /// The sender tries again only when its descriptor is readable.
    pause: bool,
}

impl Item {
    const COUNT: u32 = 3000;

    /// The first message is a payload alone, to a loop that has never looked. Then come control bytes, a payload,
    /// both, or neither; one in six with descriptors; one in ten with a pause after it.
    fn stream(seed: u64) -> impl Iterator<Item = Self> {
        let mut random = Random(seed);
        let first = Self { control: Vec::new(), payload: Some(vec![1]), files: 0, pause: true };
        let others = (1..Self::COUNT).map(move |number| {
            let parts = random.below(4);
            let bytes = |len: usize| number.to_le_bytes().into_iter().cycle().take(len).collect();
            let control = if parts & 1 == 0 { 0 } else { random.below(300) };
            let payload = (parts & 2 == 0).then(|| bytes(random.below(3000)));
            let files = random.below(6).saturating_sub(4) * random.below(4);
            Self { control: bytes(control), payload, files, pause: random.below(10) == 0 }
        });
        iter::once(first).chain(others)
    }

    fn send(&self, channel: &mut Channel, file: &File) {
        let control = Control::new(&self.control).fds(vec![file; self.files]);
        let loan = self.payload.as_ref().map(|payload| {
            let mut loan = channel.loan(payload.len()).unwrap();
            loan.copy_from_slice(payload);
            loan
        });
        match (loan, self.pause) {
            (Some(loan), false) => loan.send_with(control).unwrap(),
            (None, false) => channel.send(control).unwrap(),
            (loan, true) => {
                let asked = match loan {
                    Some(loan) => loan.request(control).unwrap(),
                    None => channel.request(control).unwrap(),
                };
                channel.receiver.wait_reply(asked, SOON).unwrap();
            }
        }
    }

    fn check(&self, message: &Message) {
        assert_eq!(message.control(), self.control);
        assert_eq!(message.payload().map(Payload::to_vec), self.payload);
        assert_eq!(message.fds().len(), self.files);
    }
}

fn a_receiver_is_told_of_everything<L: EventLoop>() {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    let mut command = role(sends_all_kinds_of_messages);
    command.env("SEED", seed.to_string());
    let (mut channel, mut child) = small().spawn(command).unwrap();
    let mut events = L::new();
    events.add(channel.receiver.as_fd(), 0);

    let (mut stream, mut random) = (Item::stream(seed), Random(!seed));
    let (mut received, mut vain, mut idle) = (0, 0, 0);
    'waiting: loop {
        assert_eq!(events.wait(SOON), [0], "what came after {received} messages was not announced");
        let before = received;
        let mut pausing = None;
        loop {
            match channel.try_recv() {
                Ok(Some(message)) => {
                    stream.next().unwrap().check(&message);
                    received += 1;
                    pausing = message.reply_token();
                }
                Ok(None) => break,
                Err(Error::Disconnected) => break 'waiting,
                Err(error) => panic!("{error}"),
            }
            if let Some(token) = pausing.take_if(|_| random.below(2) == 0) {
                // The next messages come while we are still busy.
                channel.try_send(Control::default().in_reply_to(token)).unwrap();
            }
            if random.below(4) == 0 {
                // A loop that stops early continues without waiting, whichever descriptors are readable.
                events.wait(NOW);
            }
        }
        vain += u32::from(received == before);
        assert!(vain <= Item::COUNT / 2, "woken in vain {vain} times for {received} messages");
        if let Some(token) = pausing {
            // The sender waits for us, and everything was received. Only the last message's doorbell may still come.
            let late = (0..3).take_while(|_| {
                let woken = !events.wait(NOW).is_empty();
                assert!(!woken || channel.try_recv().unwrap().is_none());
                woken
            });
            assert!(late.count() <= 1, "an idle loop is not left alone");
            idle += 1;
            channel.try_send(Control::default().in_reply_to(token)).unwrap();
        }
    }
    assert_eq!(received, Item::COUNT);
    assert!(idle > Item::COUNT / 50, "the loop was busy all the time: idle {idle} times");
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn sends_all_kinds_of_messages() {
    let seed = std::env::var("SEED").unwrap().parse().unwrap();
    let file = File::open("/dev/null").unwrap();
    let mut channel = small().inherited().unwrap();
    let mut random = Random(seed);
    for item in Item::stream(seed) {
        item.send(&mut channel, &file);
        if item.pause {
            // Sometimes the loop sleeps by then, sometimes it is about to.
            (0..random.below(20_000)).for_each(|_| std::hint::spin_loop());
        }
    }
}

/// Concurrent streams of one sender, each of which is stopped by another limit.
struct Streams {
    sent: [u32; 3],
    of_each: u32,
    file: File,
}

impl Streams {
    fn new(of_each: u32) -> Self {
        Self { sent: [0; 3], of_each, file: File::open("/dev/null").unwrap() }
    }

    fn are_done(&self) -> bool {
        self.sent == [self.of_each; 3]
    }

    /// Sends as much of each as there is space for. True if it sent anything.
    fn advance(&mut self, sender: &mut Sender) -> bool {
        let before = self.sent;
        for stream in 0..3 {
            while self.sent[stream] < self.of_each && self.send_one(stream, sender) {
                self.sent[stream] += 1;
            }
        }
        self.sent != before
    }

    /// The first stream needs room in the ring, the second in the socket, the third in both.
    fn send_one(&self, stream: usize, sender: &mut Sender) -> bool {
        let number = self.sent[stream];
        let name = [u32::try_from(stream).unwrap(), number];
        let control = Control::of(&name);
        let len = 1 + usize::try_from(number).unwrap() * 17 % 2000;
        let sent = match stream {
            0 if number.is_multiple_of(2) && !sender.has_space(len).unwrap() => return false,
            1 => sender.try_send(control),
            _ => {
                let Some(loan) = sender.try_loan(len).unwrap() else { return false };
                let control = if stream == 2 { control.fd(&self.file) } else { control };
                loan.try_send_with(control).map_err(Error::from)
            }
        };
        match sent {
            Ok(()) => true,
            Err(Error::Full) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes a message of the three streams: each is in order.
fn take_note(message: &Message, received: &mut [u32; 3]) {
    let [stream, number] = *message.control_as::<[u32; 2]>().unwrap();
    let next = &mut received[usize::try_from(stream).unwrap()];
    assert_eq!(number, *next);
    *next += 1;
}

fn a_sender_is_told_when_trying_again_is_worthwhile<L: EventLoop>() {
    const OF_EACH: u32 = 2000;
    let (a, b) = small().pair().unwrap();
    let (mut sender, _receiver) = a.split();
    let (tell, told) = mpsc::channel();
    // The receiver is so slow that it receives only when the sender can do nothing more.
    let receiving = thread::spawn(move || {
        let (_sender, mut receiver) = b.split();
        let mut notes = [0; 3];
        for () in told {
            while let Some(message) = receiver.try_recv().unwrap() {
                take_note(&message, &mut notes);
            }
        }
        notes
    });

    let mut events = L::new();
    events.add(sender.as_fd(), 0);
    let mut streams = Streams::new(OF_EACH);
    let (mut waits, mut vain) = (0, 0);
    loop {
        vain += u32::from(!streams.advance(&mut sender));
        if streams.are_done() {
            break;
        }
        assert!(vain <= OF_EACH, "woken in vain {vain} times of {waits}");
        waits += 1;
        tell.send(()).unwrap();
        assert_eq!(events.wait(SOON), [0], "room was not announced after {:?} messages", streams.sent);
    }
    tell.send(()).unwrap();
    drop(tell);
    assert_eq!(receiving.join().unwrap(), [OF_EACH; 3]);
    assert!(waits >= 20, "the receiver was not slow: {waits} waits");
}

/// Fills an empty ring whose head is at byte `at`: with the longest payload, and control bytes up to the ring's end.
fn fill(channel: &mut Channel, at: usize) {
    let len = channel.limits().max_payload;
    channel.try_loan(len).unwrap().unwrap().try_send_with(&vec![0; 8192 - at - 64 - len]).unwrap();
}

/// One descriptor signals two kinds of space: an answer for one kind does not cancel the signal for the other.
fn ring_and_socket_hide_no_room_from_each_other<L: EventLoop>() {
    let (mut a, mut b) = small().pair().unwrap();
    let mut events = L::new();
    events.add(a.sender.as_fd(), 0);
    let mut receive_all = || -> Vec<_> { iter::from_fn(|| b.try_recv().unwrap()).collect() };
    let most = a.limits().max_payload;
    for _ in 0..3 {
        fill(&mut a, 0);
        assert!(!a.sender.has_space(1).unwrap());
        a.try_send(b"passes a full ring").unwrap();
        drop(receive_all());
        assert_eq!(events.wait(SOON), [0], "room in the ring was not announced");
        assert!(a.sender.has_space(most).unwrap());

        while a.try_send(b"until the socket is full").is_ok() {}
        a.try_loan(1).unwrap().unwrap().send().unwrap();
        let held = receive_all();
        assert_eq!(events.wait(SOON), [0], "room in the socket was not announced");
        a.try_send(b"").unwrap();
        drop(held);

        // Behind the record of one byte.
        fill(&mut a, 128);
        assert!(!a.sender.has_space(1).unwrap());
        drop(receive_all());
        while a.try_send(b"until the socket is full").is_ok() {}
        assert_eq!(events.wait(SOON), [0], "room in the ring, before the socket was full, was not announced");
        assert!(a.sender.has_space(most).unwrap());
        drop(receive_all());
    }
}

/// However many replies come too late, the message behind them is announced.
fn late_replies_hide_nothing<L: EventLoop>() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut events = L::new();
    events.add(a.receiver.as_fd(), 0);
    for _ in 0..200 {
        assert!(matches!(a.call(b"?", NOW), Err(Error::Timeout)));
    }
    for _ in 0..200 {
        let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
        b.try_send(Control::new(b"too late").in_reply_to(token)).unwrap();
    }
    b.try_send(b"news").unwrap();
    // Reading them all may take some looks.
    let looks = (0..10).find_map(|_| {
        assert_eq!(events.wait(SOON), [0], "the message was not announced");
        a.try_recv().unwrap()
    });
    assert_eq!(looks.unwrap().control(), b"news");
    assert_eq!(a.stats().late_replies, 200);
}

/// One end of a channel, on a loop with the other one.
struct End {
    sender: Sender,
    receiver: Receiver,
    streams: Streams,
    received: [u32; 3],
}

fn two_ends_on_one_loop_keep_each_other_going<L: EventLoop>() {
    const OF_EACH: u32 = 1000;
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    let mut random = Random(seed);
    let (a, b) = small().pair().unwrap();
    let mut ends = [a, b].map(|channel| {
        let (sender, receiver) = channel.split();
        End { sender, receiver, streams: Streams::new(OF_EACH), received: [0; 3] }
    });
    // Keys 0 and 1: something to receive. Keys 2 and 3: room; watched only while an end waits for it.
    let mut events = L::new();
    for (key, end) in ends.iter().enumerate() {
        events.add(end.receiver.as_fd(), key);
        events.add(end.sender.as_fd(), key + 2);
    }
    let mut ready = vec![2, 3];
    let (mut woken, mut vain) = (0, 0);
    while ends.iter().any(|end| end.received != [OF_EACH; 3]) {
        if ready.is_empty() {
            ready = events.wait(SOON);
            woken += ready.len();
            assert!(vain <= 10 + woken / 2, "woken in vain {vain} times of {woken}");
            assert!(!ready.is_empty(), "nothing was announced; received {:?}", ends.map(|end| end.received));
        }
        let key = ready.swap_remove(random.below(ready.len()));
        let end = &mut ends[key % 2];
        if key >= 2 {
            events.remove(key);
            vain += usize::from(!end.streams.advance(&mut end.sender));
            if !end.streams.are_done() {
                events.add(end.sender.as_fd(), key);
            }
            continue;
        }
        let mut most = 1 + random.below(300);
        let before = end.received;
        while most > 0
            && let Some(message) = end.receiver.try_recv().unwrap()
        {
            take_note(&message, &mut end.received);
            most -= 1;
        }
        vain += usize::from(end.received == before);
        if most == 0 {
            // The loop stopped early, so it does not wait.
            ready.push(key);
        }
    }
}

fn the_death_of_the_peer_is_seen_by_both_halves<L: EventLoop>() {
    let (mut channel, mut child) = small().spawn(role(keeps_what_it_gets)).unwrap();
    fill(&mut channel, 0);
    let (mut sender, mut receiver) = channel.split();
    let mut events = L::new();
    events.add(receiver.as_fd(), 0);
    events.add(sender.as_fd(), 1);
    assert!(!sender.has_space(1).unwrap());
    let mut heard = 0;
    while heard < 3 {
        assert_eq!(events.wait(SOON), [0]);
        while let Some(message) = receiver.try_recv().unwrap() {
            assert_eq!(message.control(), b"alive");
            heard += 1;
        }
    }
    child.kill().unwrap();
    let (mut open, mut vain) = ([true, true], 0);
    while open.contains(&true) {
        let ready = events.wait(SOON);
        assert!(!ready.is_empty(), "not told; still open: {open:?}");
        for key in ready {
            let ended = match key {
                0 => receiver.try_recv().map(|message| assert!(message.is_none())),
                _ => sender.has_space(1).map(|space| assert!(!space)),
            };
            match ended {
                Ok(()) => {
                    vain += 1;
                    assert!(vain <= 1, "only the bell of the last message may come late");
                }
                Err(Error::Disconnected) => {
                    events.remove(key);
                    open[key] = false;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    child.wait().unwrap();
}

#[test]
#[ignore = "the child of another test"]
fn keeps_what_it_gets() {
    let mut channel = small().inherited().unwrap();
    let kept = channel.recv().unwrap();
    channel.loan(5).unwrap().send_with(b"alive").unwrap();
    channel.send(b"alive").unwrap();
    channel.loan(5).unwrap().send_with(b"alive").unwrap();
    // The child lives until it is killed, or its parent is gone.
    assert!(matches!(channel.recv(), Err(Error::Disconnected)));
    drop(kept);
}

/// A client, or a server's end of one, on its way.
#[expect(clippy::large_enum_variant, reason = "there are few")]
enum Stage {
    Handshake(Handshake),
    Channel(Channel),
    Over,
}

fn silent_clients_hold_up_nobody<L: EventLoop>() {
    const TALKING: usize = 50;
    const SILENT: usize = 5;
    const LISTENER: usize = 1 << 20;
    // Both ends of each handshake, which has up to eight, on all loops at the same time.
    if !may_open(5 * 2 * 8 * 60) {
        return;
    }
    let (_dir, path) = socket_path();
    let builder = small().handshake_timeout(Duration::from_secs(2));
    let listener = builder.listen(&path).unwrap();
    let mut events = L::new();
    events.add(listener.as_fd(), LISTENER);

    // The first clients in the backlog: one never sends anything, one sends `Hello` and nothing more.
    let _silent = [(); SILENT].map(|()| connect_and_say_nothing(&path));
    let _half_silent = [(); SILENT].map(|()| builder.try_connect(&path).unwrap());
    let clients = (0..TALKING).map(|_| Stage::Handshake(builder.try_connect(&path).unwrap()));
    // The clients' ends, then the server's.
    let mut ends: Vec<Stage> = clients.collect();
    for (key, end) in ends.iter().enumerate() {
        let Stage::Handshake(handshake) = end else { unreachable!() };
        events.add(handshake.as_fd(), key);
    }
    let (mut served, mut waits) = (0, 0);
    while served < TALKING {
        let ready = events.wait(SOON);
        assert!(!ready.is_empty(), "nothing was announced; served {served}");
        waits += 1;
        assert!(waits < 100 * TALKING, "woken in vain; served {served}");
        for key in ready {
            if key != LISTENER {
                served += usize::from(go_on(&mut ends[key], key < TALKING, L::EDGE));
                continue;
            }
            while let Some(handshake) = listener.try_accept().unwrap() {
                events.add(handshake.as_fd(), ends.len());
                ends.push(Stage::Handshake(handshake));
            }
        }
    }
    let is_waiting = |end: &&mut Stage| matches!(end, Stage::Handshake(_));
    let mut waiting: Vec<_> = ends.iter_mut().filter(is_waiting).collect();
    assert_eq!(waiting.len(), 2 * SILENT, "everybody else was served, and nobody given up");

    let end_of_test = Instant::now() + SOON;
    while !waiting.is_empty() && Instant::now() < end_of_test {
        waiting.retain_mut(|end| {
            let Stage::Handshake(handshake) = end else { unreachable!() };
            let early = Instant::now() < handshake.deadline();
            match handshake.advance() {
                Ok(complete) => return !complete,
                Err(Error::Timeout) => assert!(!early || Instant::now() >= handshake.deadline()),
                Err(error) => panic!("{error}"),
            }
            false
        });
        let deadline = waiting.iter().map(|end| match end {
            Stage::Handshake(handshake) => handshake.deadline(),
            _ => unreachable!(),
        });
        events.wait(deadline.min().map_or(NOW, |at| at.saturating_duration_since(Instant::now())));
    }
    assert!(waiting.is_empty(), "they time out");
}

fn connect_and_say_nothing(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// Advances as far as possible without blocking; a handshake in a level-triggered loop takes one step. True if a
/// client got its reply.
fn go_on(end: &mut Stage, is_client: bool, edge: bool) -> bool {
    if let Stage::Handshake(handshake) = end {
        while !handshake.advance().unwrap() {
            if !(edge && handshake.needs_advance()) {
                return false;
            }
        }
        let Stage::Handshake(handshake) = std::mem::replace(end, Stage::Over) else { unreachable!() };
        let mut channel = handshake.finish().unwrap();
        if is_client {
            channel.sender.try_request(b"?").unwrap();
        }
        *end = Stage::Channel(channel);
    }
    // Messages behind the last packet of the handshake were announced with it.
    let mut served = false;
    if let Stage::Channel(channel) = end {
        while let Some(message) = channel.try_recv().unwrap() {
            served = message.in_reply_to().is_some();
            if let Some(token) = message.reply_token() {
                channel.try_send(Control::new(b"!").in_reply_to(token)).unwrap();
            }
        }
    }
    served
}
