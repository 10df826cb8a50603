//! A peer that rewrites headers, words and payloads *while* we read them: each message that we get was checked, and the end
//! is an error by name.
//!
//! Descriptors and mappings are counted for the whole process, so this binary has one test only.

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, Read, stdin},
    mem,
    os::fd::AsFd,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::io::pread;
use sealane::{Channel, Error, Message, Payload, Unsent, Wait};

use crate::support::{
    hostile::{
        DOORBELL, LONG, OTHER_HALF, Packet, Player, WANTS_REPLY,
        memory::{
            HEAD, Hostile, PACKETS, RECEIVER_EPOCH, Record, SENDER_EPOCH, SENDER_NEEDS, TAIL, capacity,
        },
        page, seqpacket_pair,
    },
    left_over, role,
    script::Random,
    short_or_long,
    threads::bounded_by,
};

/// Control bytes that we accept.
const MAX_CONTROL: usize = 10;

/// The time for which each kind of peer runs.
fn time() -> Duration {
    short_or_long(Duration::from_secs(1), Duration::from_mins(3))
}

/// Messages at least whose payloads are rewritten, however long that takes.
const ENOUGH: u32 = 10;
/// Kinds of ends at least that a peer which rewrites headers and words brings about.
const KINDS: usize = 6;

#[test]
fn bytes_rewritten_while_they_are_read_were_checked_or_are_an_error() {
    let _guard = bounded_by(4 * time() + 2 * LONG);
    let seed = Random::seed();
    println!("SEED={seed}");
    // One run before anything is counted: threads and their stacks leave some memory behind, once.
    headers(Random(seed), Duration::ZERO);
    let before = left_over();
    payloads(seed, time());
    let mut ends = headers(Random(seed), time());
    for (end, count) in words(Random(seed), time()) {
        *ends.entry(end).or_default() += count;
    }
    // A peer that has not rewritten much continues until the test's limit.
    while ends.len() < KINDS {
        ends.extend(headers(Random(Random::seed()), time()));
    }
    println!("{ends:#?}");
    assert_eq!(left_over(), before, "descriptors, regions mapped");
}

/// Reads a whole message in every way.
fn read(message: &mut Message) {
    assert!(message.control().len() <= MAX_CONTROL);
    let control = message.control().to_vec();
    if let Some(payload) = message.take_payload() {
        let len = payload.len();
        assert!(len <= usize::try_from(capacity()).unwrap() - 64);
        assert_eq!(payload.to_vec().len(), len);
        let mut copy = vec![0; len];
        payload.copy_to_slice(&mut copy).unwrap();
        let bytes = payload.bytes();
        assert_eq!(bytes.iter().map(u64::from).count(), len);
        let mut seen = 0;
        // Private bytes do not change from one look to the next.
        let sum = |block: &[u8]| block.iter().copied().map(u64::from).sum::<u64>();
        bytes.for_each_block(|block| {
            assert_eq!(sum(block), sum(block));
            seen += block.len();
        });
        let chunks = bytes.array_chunks::<64>();
        assert_eq!((seen, chunks.len() * 64 + chunks.remainder().len()), (len, len));
        std::hint::black_box(chunks.fold(0, |sum, chunk| sum ^ chunk[0] ^ chunk[63]));
        if let Some(last) = len.checked_sub(8) {
            let value = payload.read::<u64>(last).unwrap();
            assert_eq!(value, value.to_be().to_be());
        }
        // A type for which not all bytes are valid is copied, then checked.
        if let Ok(value) = payload.read::<bool>(0) {
            assert!(u8::from(value) <= 1);
        }
        let mut reader = payload.reader();
        while let shown @ [_, ..] = reader.fill_buf().unwrap() {
            assert_eq!(sum(shown), sum(shown));
            let len = shown.len();
            reader.consume(len);
        }
        assert_eq!(payload.reader().read_to_end(&mut Vec::new()).unwrap(), len);
        payload.write_all_to(File::options().write(true).open("/dev/null").unwrap()).unwrap();
        let detached = payload.detach();
        assert_eq!(detached.to_vec(), detached.to_vec());
    }
    assert_eq!(message.control(), control);
}

/// Another process keeps to the protocol and overwrites its payloads all the while: only their bytes change.
fn payloads(seed: u64, time: Duration) {
    let (ours, theirs) = seqpacket_pair();
    let mut child = role(scribbles).stdin(Stdio::from(theirs)).env("SEED", seed.to_string()).spawn().unwrap();
    let builder = Channel::builder().max_control(MAX_CONTROL).wait(Wait::Spin);
    let mut channel = builder.handshake(ours).unwrap().finish().unwrap();
    let end = Instant::now() + time;
    let mut messages = 0;
    // A slow machine takes longer for a useful number of rounds.
    while Instant::now() < end || messages < ENOUGH {
        read(&mut channel.recv_timeout(LONG).unwrap());
        messages += 1;
    }
    println!("{messages} messages whose payloads were rewritten");
    drop(channel);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn scribbles() {
    let mut random = Random(Random::seed());
    let (hostile, region) = Hostile::answer(Player::from(stdin().as_fd().try_clone_to_owned().unwrap()));
    let released = || {
        let mut tail = [0; 8];
        assert_eq!(pread(&region, &mut tail, TAIL.try_into().unwrap()).unwrap(), tail.len());
        u64::from_le_bytes(tail)
    };
    // The place of the payload of the only record.
    let payload = Mutex::new(0..0);
    let done = AtomicBool::new(false);
    let mut noise = Random(random.next());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for position in payload.lock().unwrap().clone().step_by(8) {
                    hostile.scribble(position, &noise.next().to_le_bytes());
                }
                thread::yield_now();
            }
        });
        let mut head = 0_u64;
        for sequence in 0.. {
            // Half of the ring at most, so that it has room behind padding.
            let payload_len = random.next() % (capacity() / 2 - 255);
            let control_len = u32::try_from(random.below(MAX_CONTROL + 1)).unwrap();
            let record = Record { sequence, payload_len, control_len, ..Record::default() };
            let size = 64 + payload_len.next_multiple_of(64) + u64::from(control_len).next_multiple_of(64);
            while released() < head {
                if hostile.socket.is_over() {
                    return done.store(true, Relaxed);
                }
                thread::yield_now();
            }
            let mut payload = payload.lock().unwrap();
            let rest = capacity() - head % capacity();
            if rest < size {
                hostile.pad(head);
                head += rest;
            }
            let end = head + size;
            hostile.publish(head, record, end);
            *payload = head + 64..head + 64 + payload_len / 8 * 8;
            head = end;
        }
    });
}

/// The name of an error that ended a channel.
fn end_of(error: &Error) -> String {
    match error {
        Error::Protocol(violation) => {
            let name = format!("{violation:?}");
            name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
        }
        error => format!("{error:?}"),
    }
}

/// The number of times that each end came.
type Ends = BTreeMap<String, u32>;

/// All headers in a ring, changed back and forth while they are read.
fn headers(mut random: Random, time: Duration) -> Ends {
    const SIZE: u64 = 128;
    const PAGES: u64 = 16;
    let records = PAGES * page() / SIZE;
    let good = |sequence| Record { sequence, payload_len: 64, ..Record::default() };
    let builder = Channel::builder().max_control(MAX_CONTROL);
    let mut ends = Ends::new();
    let end = Instant::now() + time;
    loop {
        let (hostile, mut channel) = Hostile::meet_with(&builder, PAGES);
        for sequence in 0..records {
            hostile.write(sequence * SIZE, good(sequence));
        }
        hostile.set(HEAD, records * SIZE);
        let (done, begun, next) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let mut noise = Random(random.next());
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    // The header is one that is about to be read.
                    let sequence = (next.load(Relaxed) + noise.next() % 2) % records;
                    hostile.write(sequence * SIZE, evil(&mut noise, good(sequence)));
                    hostile.write(sequence * SIZE, good(sequence));
                    begun.store(true, Relaxed);
                }
            });
            while !begun.load(Relaxed) {
                thread::yield_now();
            }
            let error = loop {
                match channel.try_recv() {
                    Ok(Some(message)) => {
                        // A header that was read twice may say something else the second time.
                        assert_eq!(message.sequence(), next.load(Relaxed));
                        let len = message.payload().unwrap().to_vec().len();
                        assert_eq!(message.payload().unwrap().len(), len);
                        assert!(message.control().len() <= MAX_CONTROL);
                        next.fetch_add(1, Relaxed);
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            done.store(true, Relaxed);
            error
        });
        *ends.entry(error.as_ref().map_or("none".to_owned(), end_of)).or_default() += 1;
        assert!(error.is_none_or(|error| matches!(error, Error::Protocol(_))));
        if Instant::now() > end {
            return ends;
        }
    }
}

/// A header with one field changed to a valid or an invalid value.
fn evil(random: &mut Random, good: Record) -> Record {
    let lengths = [0, 1, 63, 65, 128, 1000, capacity() - 64, capacity(), 1 << 32, u64::MAX - 127, u64::MAX];
    let length = lengths[random.below(lengths.len())];
    match random.below(6) {
        0 => Record { sequence: good.sequence.wrapping_add(length), ..good },
        1 => Record { payload_len: length, ..good },
        2 => Record { control_len: u32::try_from(length).unwrap_or(u32::MAX), ..good },
        3 => Record { flags: 1 << random.below(32), ..good },
        4 => Record { reply_to: length, ..good },
        _ => Record { reserved: [0, length, 0, 0], ..good },
    }
}

/// Words, records, packets and doorbells, all at random, while our side does all that it can.
fn words(mut random: Random, time: Duration) -> Ends {
    let waits = [Wait::default(), Wait::Block, Wait::Spin];
    let mut ends = Ends::new();
    let end = Instant::now() + time;
    loop {
        let builder = Channel::builder().max_control(MAX_CONTROL).max_fds(2);
        let (hostile, mut channel) = Hostile::meet(&builder.wait(waits[random.below(waits.len())]));
        let done = AtomicBool::new(false);
        let (mut noise, mut kept) = (Random(random.next()), Vec::new());
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                let mut head = 0;
                while !done.load(Relaxed) {
                    harass(&hostile, &mut noise, &mut head);
                }
            });
            let error = loop {
                // The oldest kept payload is dropped last.
                kept.truncate(random.below(4));
                match act(&mut channel, &mut kept, &mut random) {
                    Ok(()) | Err(Error::Full | Error::Backlog | Error::UnknownRequest) => {}
                    Err(error) if error.is_timeout() => {}
                    Err(error) => break error,
                }
            };
            done.store(true, Relaxed);
            error
        });
        assert!(error.is_fatal(), "{error:?}");
        // A violation ends both halves; a closed direction ends only one.
        if matches!(error, Error::Protocol(_)) {
            // Messages that a call has kept were received before.
            let mut rest = std::iter::from_fn(|| Some(channel.recv()));
            assert!(matches!(rest.find_map(Result::err), Some(Error::Protocol(_))));
            assert!(matches!(channel.send(b""), Err(Error::Protocol(_))));
        }
        *ends.entry(end_of(&error)).or_default() += 1;
        if Instant::now() > end {
            return ends;
        }
    }
}

/// One action of a peer, most of them valid.
fn harass(hostile: &Hostile, noise: &mut Random, head: &mut u64) {
    let any = |noise: &mut Random| match noise.below(4) {
        0 => noise.next(),
        1 => noise.next() % (4 * capacity()),
        _ => noise.next() % 64 * 64,
    };
    let words = [HEAD, PACKETS, TAIL, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS];
    match noise.below(40) {
        // This is rare, as it ends the channel.
        0 => hostile.set(words[noise.below(words.len())], any(noise)),
        1 => _ = hostile.space.try_send(Packet::new(DOORBELL)),
        2 => _ = hostile.socket.try_send(Packet::new(DOORBELL)),
        3 => {
            let flags = [0, 0, OTHER_HALF, WANTS_REPLY][noise.below(4)];
            let packet =
                Packet { flags, body: vec![1; noise.below(13)], ..Packet::control(noise.next() % 8) };
            let _ = hostile.socket.try_send(packet);
        }
        4..10 => {
            let record =
                Record { sequence: noise.next() % 8, payload_len: noise.next() % 500, ..Record::default() };
            let record = if noise.below(4) == 0 { evil(noise, record) } else { record };
            let rest = capacity() - *head % capacity();
            if rest < 640 {
                hostile.pad(*head);
                *head += rest;
            }
            hostile.write(*head, record);
            *head += 64 * (1 + noise.next() % 9);
            hostile.set(HEAD, *head);
        }
        10 => hostile.set(PACKETS, noise.next()),
        11..20 => hostile.set(RECEIVER_EPOCH, noise.next()),
        20..30 => hostile.set(SENDER_EPOCH, noise.next()),
        _ => hostile.scribble(noise.next() % capacity(), &noise.next().to_le_bytes()[..1]),
    }
}

/// One action of an honest program.
fn act(channel: &mut Channel, kept: &mut Vec<Payload>, random: &mut Random) -> Result<(), Error> {
    let short = Duration::from_micros(random.next() % 500);
    let len = random.below(channel.limits().max_payload + 1);
    match random.below(14) {
        0 => channel.recv_timeout(short).map(|mut message| read(&mut message)),
        1 => channel.try_send(b"control"),
        2 => channel.sender.send_timeout(b"control", short),
        3 => channel.try_loan(len)?.map_or(Ok(()), |loan| loan.send_with(b"payload")),
        4 => channel.sender.loan_timeout(len, short)?.send(),
        5 => channel.sender.has_space(len).map(drop),
        6 => channel.call(b"?", short).map(|mut message| read(&mut message)),
        7 => channel.receiver.arm().map(drop),
        8 => {
            let mut batch = channel.receiver.recv_batch_timeout(short)?;
            for _ in 0..random.below(9) {
                let Some(mut message) = batch.next() else { break };
                if random.below(2) == 0 {
                    kept.extend(message.take_payload());
                } else {
                    read(&mut message.take());
                }
            }
            Ok(())
        }
        9 => {
            let mut batch = channel.sender.batch();
            for len in 0..random.below(20) {
                batch.loan_timeout(len, short)?.send()?;
            }
            Ok(())
        }
        10 => owned(channel, len, short),
        11 => channel.recv_timeout(short).map(|mut message| kept.extend(message.take_payload())),
        _ => channel.try_recv().map(|message| message.into_iter().for_each(|mut message| read(&mut message))),
    }
}

/// Sends by a loan that owns the sender, after a failed attempt. The next call reports the cause of a failure too.
fn owned(channel: &mut Channel, len: usize, short: Duration) -> Result<(), Error> {
    let spare = Channel::builder().ring_capacity(0).pair()?.0.sender;
    channel.sender = match mem::replace(&mut channel.sender, spare).into_loan(len, short) {
        Ok(mut loan) => {
            loan.fill(7);
            // The control bytes exceed the peer's limit.
            let loan = loan.try_send_with(&[0; 1025]).unwrap_err().into_loan();
            assert!(loan.len() == len && loan.iter().all(|byte| *byte == 7));
            loan.send_with_timeout(b"payload", short).unwrap_or_else(Unsent::into_sender)
        }
        Err(unsent) => unsent.into_sender(),
    };
    Ok(())
}
