//! Peers that break the protocol on an established channel: the violation is named, and ends both halves and nothing else.

use std::{
    fs::File,
    io::{BufRead, Read, Seek},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::{
    fs::fstat,
    io::Errno,
    net::{RecvFlags, Shutdown, recv},
};
use sealane::{Builder, Channel, Error, Message, ProtocolError, Result, Sender, Wait};

use crate::support::{
    WAITS,
    hostile::{
        CONTROL, DOORBELL, HELLO, LONG, OTHER_HALF, Packet, READY, REJECT, WANTS_REPLY,
        memory::{
            HEAD, Hostile, PACKETS, PADDING, RECEIVER_EPOCH, Record, SENDER_EPOCH, SENDER_NEEDS, TAIL,
            capacity, head_after,
        },
        page, pipe, readable,
    },
    is_abandoned,
    threads::bounded,
};

/// A time that is short enough to wait for.
const SHORT: Duration = Duration::from_millis(30);
/// Our side of the tests, with small limits.
fn builder() -> Builder {
    Channel::builder().max_control(10).max_fds(2)
}

fn assert_violated<T: std::fmt::Debug>(result: Result<T>, expected: ProtocolError) {
    let Err(error) = result else { panic!("{expected:?} expected, {result:?} found") };
    assert!(
        matches!(&error, Error::Protocol(found) if *found == expected),
        "{expected:?} expected, {error:?} found"
    );
    assert!(error.is_fatal());
}

/// The channel has ended by this violation, in both halves and for the peer.
fn assert_over(hostile: &Hostile, channel: &mut Channel, violation: ProtocolError) {
    assert_violated(channel.recv(), violation);
    assert_violated(channel.recv_timeout(SHORT), violation);
    assert_violated(channel.try_recv(), violation);
    assert_violated(channel.send(b""), violation);
    assert_violated(channel.try_send(b""), violation);
    assert_violated(channel.loan(1).map(drop), violation);
    assert_violated(channel.try_loan(1).map(drop), violation);
    assert_violated(channel.sender.has_space(1), violation);
    hostile.socket.hear_all();
    hostile.own_space.hear_all();
    assert_eq!(hostile.socket.try_send(Packet::new(DOORBELL)), Err(Errno::PIPE));
    assert_eq!(hostile.space.try_send(Packet::new(DOORBELL)), Err(Errno::PIPE));
}

type Play = fn(&Hostile, &mut Channel);
type Receive = fn(&mut Channel) -> Result<Option<Message>>;

/// Receiving after `play` is a violation in every form.
fn assert_receiving_violated(violation: ProtocolError, play: Play) {
    let receive: [Receive; 4] = [
        |channel| channel.recv().map(Some),
        |channel| channel.recv_timeout(LONG).map(Some),
        Channel::try_recv,
        |channel| channel.receiver.recv_batch().map(|_| None),
    ];
    for receive in receive {
        let (hostile, mut channel) = Hostile::meet(&builder());
        play(&hostile, &mut channel);
        assert_violated(receive(&mut channel), violation);
        assert_over(&hostile, &mut channel, violation);
    }
}

fn receive(channel: &mut Channel) -> Message {
    channel.recv_timeout(LONG).unwrap()
}

#[test]
fn a_head_that_is_no_head_is_a_violation() {
    let _guard = bounded();
    let limit = capacity();
    let past = limit + 64;
    assert_receiving_violated(ProtocolError::Head { from: 0, limit, found: past }, |hostile, _| {
        hostile.set(HEAD, capacity() + 64);
    });
    assert_receiving_violated(ProtocolError::Head { from: 0, limit, found: u64::MAX }, |hostile, _| {
        hostile.set(HEAD, u64::MAX);
    });
    // The head goes backwards after a record that was released, which made space.
    assert_receiving_violated(ProtocolError::Head { from: 64, limit: past, found: 0 }, |hostile, channel| {
        hostile.publish(0, Record::default(), 64);
        receive(channel);
        hostile.set(HEAD, 0);
    });
    for found in [1, 63, 65, limit - 1] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        hostile.set(HEAD, found);
        assert_violated(channel.try_recv(), ProtocolError::Misaligned { found });
        assert_over(&hostile, &mut channel, ProtocolError::Misaligned { found });
    }
}

#[test]
fn a_head_ahead_of_what_is_released_is_a_violation() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.publish(0, Record { payload_len: 3, ..Record::default() }, 128);
    hostile.scribble(64, b"abc");
    let held = receive(&mut channel);
    let violation = ProtocolError::Head { from: 128, limit: capacity(), found: capacity() + 64 };
    hostile.set(HEAD, capacity() + 64);
    assert_violated(channel.try_recv(), violation);
    // A held payload keeps the ring mapped, but the channel is shut all the same.
    assert_over(&hostile, &mut channel, violation);
    drop(channel);
    assert_eq!(held.payload().unwrap().to_vec(), b"abc");
}

#[test]
fn a_head_that_goes_back_behind_what_was_received_is_a_violation() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    let held = [0, 1].map(|sequence| {
        let start = 64 * sequence;
        hostile.publish(start, Record { sequence, ..Record::default() }, start + 64);
        receive(&mut channel)
    });
    hostile.set(HEAD, 64);
    let violation = ProtocolError::Head { from: 128, limit: capacity(), found: 64 };
    assert_violated(channel.try_recv(), violation);
    assert_over(&hostile, &mut channel, violation);
    drop(held);
}

#[test]
fn a_record_longer_than_what_was_published_is_a_violation() {
    let _guard = bounded();
    let whole = capacity();
    for (available, payload, control) in [
        (64, 1, 0),
        (64, 0, 1),
        (64, u64::MAX, 0),
        (64, u64::MAX - 63, 0),
        (64, u64::MAX - 64, 1),
        (64, u64::MAX - 128, u32::MAX),
        (64, 1 << 63, 0),
        (128, 64, 1),
        (128, 65, 0),
        (128, 0, 65),
        (whole, whole, 0),
        (whole, whole - 63, 0),
        (whole, whole - 64, 1),
        (whole, 0, u32::MAX),
    ] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        let record = Record { payload_len: payload, control_len: control, ..Record::default() };
        hostile.publish(0, record, available);
        let violation = ProtocolError::RecordLength { available, payload, control: control.into() };
        assert_violated(channel.try_recv(), violation);
        assert_over(&hostile, &mut channel, violation);
    }
}

#[test]
fn a_record_header_with_unknown_bits_is_a_violation() {
    let _guard = bounded();
    for found in [5, 8, 1 << 16, 1 << 31, u32::MAX] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        hostile.publish(0, Record { flags: found, ..Record::default() }, 64);
        assert_violated(channel.try_recv(), ProtocolError::RecordFlags { known: 3, found });
    }
    for word in 0..4 {
        let (hostile, mut channel) = Hostile::meet(&builder());
        let mut record = Record::default();
        record.reserved[word] = 1 << 63;
        hostile.publish(0, record, 64);
        assert_violated(channel.try_recv(), ProtocolError::RecordReserved);
        assert_over(&hostile, &mut channel, ProtocolError::RecordReserved);
    }
}

/// The ring has any multiple of the page.
#[test]
fn padding_ends_where_the_ring_does_and_a_record_follows() {
    let _guard = bounded();
    for pages in [1, 2, 3, 5] {
        padding_ends_where_a_ring_does(pages);
    }
}

fn padding_ends_where_a_ring_does(pages: u64) {
    let capacity = pages * page();
    let padding = Record { flags: PADDING, payload_len: capacity - 128, ..Record::default() };
    let record = Record { sequence: 1, ..Record::default() };
    // The first record takes 64 bytes, the padding the rest of the ring, so that the last is where the first was.
    let play = |padding: Record, behind: Record, released: bool, end: u64| {
        let (hostile, mut channel) = Hostile::meet_with(&builder(), pages);
        hostile.publish(0, Record::default(), 64);
        let first = channel.try_recv().unwrap().unwrap();
        assert_eq!(first.sequence(), 0);
        hostile.write(64, padding);
        hostile.write(capacity, behind);
        if released {
            drop(first);
        }
        hostile.set(HEAD, end);
        (channel.try_recv().map(|message| message.map(|message| message.sequence())), hostile, channel)
    };
    let (second, hostile, mut channel) = play(padding, record, true, capacity + 64);
    assert_eq!(second.unwrap(), Some(1));
    assert_eq!((channel.receiver.held().count, channel.receiver.held().bytes), (0, 0));
    // All space is released: the head may advance to the ring's end, and behind padding.
    let long = Record { sequence: 2, payload_len: capacity - 256, ..Record::default() };
    hostile.publish(capacity + 64, long, 2 * capacity - 128);
    assert_eq!(channel.recv().unwrap().sequence(), 2);
    hostile.pad(2 * capacity - 128);
    let whole = Record { sequence: 3, payload_len: capacity - 192, ..Record::default() };
    hostile.publish(2 * capacity, whole, 3 * capacity - 128);
    assert_eq!(channel.recv().unwrap().sequence(), 3);
    assert_eq!((channel.receiver.held().count, channel.receiver.held().bytes), (0, 0));
    let padded = |payload_len| Record { payload_len, ..padding };
    let expected = capacity - 128;
    for found in [0, 64, expected - 64, expected + 1, expected + 64, u64::MAX] {
        let (second, ..) = play(padded(found), record, true, capacity + 64);
        assert_violated(second, ProtocolError::Padding { expected, found });
    }
    // The padding has nothing behind it, or only more padding.
    let (second, ..) = play(padding, record, true, capacity);
    let available = capacity - 64;
    assert_violated(second, ProtocolError::RecordLength { available, payload: expected, control: 0 });
    let again = Record { flags: PADDING, payload_len: capacity - 64, ..Record::default() };
    let (second, ..) = play(padding, again, true, capacity + 64);
    assert_violated(
        second,
        ProtocolError::RecordLength { available: 64, payload: capacity - 64, control: 0 },
    );
    // Padding takes space like a record.
    let (second, ..) = play(padding, record, false, capacity + 64);
    assert_violated(second, ProtocolError::Head { from: 64, limit: capacity, found: capacity + 64 });
    for field in 0..4 {
        let mut stray = padding;
        match field {
            0 => stray.sequence = 1,
            1 => stray.control_len = 1,
            2 => stray.reply_to = 1,
            _ => stray.reserved[3] = 1,
        }
        let (second, hostile, mut channel) = play(stray, record, true, capacity + 64);
        assert_violated(second, ProtocolError::RecordReserved);
        assert_over(&hostile, &mut channel, ProtocolError::RecordReserved);
    }
}

/// Published whole, and released behind, but not all of it before the ring's end. What is read there would be beyond it.
#[test]
fn a_record_past_the_rings_end_is_a_violation() {
    let _guard = bounded();
    for pages in [1, 2, 3] {
        let capacity = pages * page();
        for (payload, control) in [(65, 0), (64, 1), (0, 65), (capacity - 192, 0), (0, u32::MAX)] {
            let (hostile, mut channel) = Hostile::meet_with(&builder(), pages);
            let first = Record { payload_len: capacity - 192, ..Record::default() };
            hostile.publish(0, first, capacity - 128);
            drop(receive(&mut channel));
            let record =
                Record { sequence: 1, payload_len: payload, control_len: control, ..Record::default() };
            hostile.publish(capacity - 128, record, 2 * capacity - 128);
            let violation = ProtocolError::RecordLength { available: 128, payload, control: control.into() };
            assert_violated(channel.try_recv(), violation);
            assert_over(&hostile, &mut channel, violation);
        }
        // A record that ends there is valid, and the next begins at the ring's first byte.
        let (hostile, mut channel) = Hostile::meet_with(&builder(), pages);
        let first = Record { payload_len: capacity - 192, ..Record::default() };
        hostile.publish(0, first, capacity - 128);
        drop(receive(&mut channel));
        hostile.publish(
            capacity - 128,
            Record { sequence: 1, payload_len: 64, ..Record::default() },
            capacity,
        );
        drop(receive(&mut channel));
        hostile.scribble(64, b"abc");
        hostile.publish(0, Record { sequence: 2, payload_len: 3, ..Record::default() }, capacity + 128);
        assert_eq!(receive(&mut channel).payload().unwrap().to_vec(), b"abc");
    }
}

#[test]
fn a_violation_ends_a_batch_and_is_reported_after_it() {
    let _guard = bounded();
    let unknown = Record { sequence: 1, flags: 8, ..Record::default() };
    let too_much = Record { sequence: 1, control_len: 11, ..Record::default() };
    let turn = Record { sequence: 2, ..Record::default() };
    for (record, violation) in [
        (unknown, ProtocolError::RecordFlags { known: 3, found: 8 }),
        (too_much, ProtocolError::ControlLength { max: 10, found: 11 }),
        (turn, ProtocolError::Sequence { expected: 1, found: 2 }),
    ] {
        let (hostile, mut channel) = Hostile::meet(&builder());
        hostile.publish(64, record, 64);
        hostile.publish(0, Record::default(), 192);
        let mut batch = channel.receiver.recv_batch().unwrap();
        assert_eq!(batch.next().unwrap().sequence(), 0);
        assert!(batch.next().is_none());
        assert!(batch.next().is_none());
        drop(batch);
        assert_over(&hostile, &mut channel, violation);
    }
}

#[test]
fn more_control_bytes_than_we_accept_are_a_violation() {
    let _guard = bounded();
    assert_receiving_violated(ProtocolError::ControlLength { max: 10, found: 11 }, |hostile, _| {
        hostile.publish(0, Record { control_len: 11, ..Record::default() }, 128);
    });
    assert_receiving_violated(ProtocolError::PacketTooLong { max: 42 }, |hostile, _| {
        hostile.socket.send(Packet { body: vec![0; 11], ..Packet::control(0) });
    });
    assert_receiving_violated(ProtocolError::PacketTooLong { max: 42 }, |hostile, _| {
        hostile.socket.send(Packet { body: vec![0; 100_000], ..Packet::control(0) });
    });
}

#[test]
fn a_message_out_of_turn_is_a_violation() {
    let _guard = bounded();
    let cases: [(u64, u64, Play); 10] = [
        (0, 1, |hostile, _| hostile.socket.send(Packet::control(1))),
        (0, u64::MAX, |hostile, _| hostile.socket.send(Packet::control(u64::MAX))),
        (0, 1, |hostile, _| hostile.publish(0, Record { sequence: 1, ..Record::default() }, 64)),
        (0, 7, |hostile, _| {
            hostile.publish(0, Record { sequence: 7, flags: OTHER_HALF.into(), ..Record::default() }, 64);
        }),
        (1, 0, |hostile, channel| {
            hostile.socket.send(Packet::control(0));
            receive(channel);
            hostile.socket.send(Packet::control(0));
        }),
        (1, 0, |hostile, channel| {
            hostile.publish(0, Record::default(), 64);
            receive(channel);
            hostile.publish(64, Record::default(), 128);
        }),
        // The old message comes again, together with the next one.
        (1, 0, |hostile, channel| {
            hostile.publish(0, Record::default(), 64);
            receive(channel);
            hostile.publish(64, Record::default(), 128);
            hostile.socket.send(Packet::control(1));
        }),
        // Both have the same number, and each is whole.
        (1, 0, |hostile, channel| {
            hostile.publish(0, Record::default(), 64);
            hostile.socket.send(Packet::control(0));
            receive(channel);
        }),
        // This is one half, and the next record is none.
        (0, 1, |hostile, _| {
            hostile.socket.send(Packet { flags: OTHER_HALF, ..Packet::control(0) });
            hostile.publish(0, Record { sequence: 1, ..Record::default() }, 64);
        }),
        // A number is left out between the two.
        (0, 2, |hostile, _| {
            hostile.socket.send(Packet::control(2));
            hostile.publish(0, Record { sequence: 1, ..Record::default() }, 64);
        }),
    ];
    for (expected, found, play) in cases {
        assert_receiving_violated(ProtocolError::Sequence { expected, found }, play);
    }
}

#[test]
fn halves_that_do_not_fit_are_a_violation() {
    let _guard = bounded();
    let cases: [Play; 8] = [
        // A record without its packet.
        |hostile, _| hostile.publish(0, half_record(), 64),
        // A packet without its record.
        |hostile, _| {
            hostile.socket.send(half_packet());
            hostile.socket.send(Packet::control(1));
        },
        // A record whose packet is another message's.
        |hostile, _| {
            hostile.socket.send(Packet::control(1));
            hostile.publish(0, half_record(), 64);
        },
        // Only one of them is marked as split.
        |hostile, channel| {
            hostile.socket.send(half_packet());
            assert!(channel.try_recv().unwrap().is_none(), "the record is still to come");
            hostile.publish(0, Record::default(), 64);
        },
        |hostile, _| {
            hostile.socket.send(Packet::control(0));
            hostile.publish(0, half_record(), 64);
        },
        // Their headers differ.
        |hostile, _| {
            hostile.socket.send(Packet { flags: OTHER_HALF | WANTS_REPLY, ..Packet::control(0) });
            hostile.publish(0, half_record(), 64);
        },
        |hostile, channel| {
            channel.request(b"").unwrap();
            hostile.socket.send(Packet { reply_to: 1, ..half_packet() });
            hostile.publish(0, half_record(), 64);
        },
        // Both have control bytes.
        |hostile, _| {
            hostile.socket.send(half_packet());
            hostile.publish(0, Record { control_len: 1, ..half_record() }, 128);
        },
    ];
    for play in cases {
        assert_receiving_violated(ProtocolError::Halves { sequence: 0 }, play);
    }
}

fn half_record() -> Record {
    Record { flags: OTHER_HALF.into(), ..Record::default() }
}

fn half_packet() -> Packet {
    Packet { flags: OTHER_HALF, ..Packet::control(0) }
}

#[test]
fn a_malformed_packet_is_a_violation() {
    let _guard = bounded();
    let doorbell = || Packet::new(DOORBELL);
    let file = || OwnedFd::from(File::open("/dev/null").unwrap());
    let files = |count| (0..count).map(|_| file()).collect::<Vec<_>>();
    let cases = [
        (Packet::raw(b"x"), ProtocolError::PacketLength { expected: 32, found: 1 }),
        (Packet::raw(&[0; 31]), ProtocolError::PacketLength { expected: 32, found: 31 }),
        (Packet { body: vec![0], ..doorbell() }, ProtocolError::PacketLength { expected: 32, found: 33 }),
        (Packet::new(HELLO), ProtocolError::PacketKind { expected: 4, found: 1 }),
        (Packet::new(READY), ProtocolError::PacketKind { expected: 4, found: 2 }),
        (Packet::new(REJECT), ProtocolError::PacketKind { expected: 4, found: 3 }),
        (Packet::new(0), ProtocolError::PacketKind { expected: 4, found: 0 }),
        (Packet::new(6), ProtocolError::PacketKind { expected: 4, found: 6 }),
        (Packet::new(u16::MAX), ProtocolError::PacketKind { expected: 4, found: u16::MAX }),
        (Packet { flags: 4, ..Packet::control(0) }, ProtocolError::PacketFlags { known: 3, found: 4 }),
        (
            Packet { flags: u16::MAX, ..Packet::control(0) },
            ProtocolError::PacketFlags { known: 3, found: u16::MAX },
        ),
        (Packet { flags: 1, ..doorbell() }, ProtocolError::PacketFlags { known: 0, found: 1 }),
        (Packet { reserved: 1, ..Packet::control(0) }, ProtocolError::PacketReserved),
        (Packet { reserved: 1, ..doorbell() }, ProtocolError::PacketReserved),
        (Packet { sequence: 1, ..doorbell() }, ProtocolError::PacketReserved),
        (Packet { reply_to: 1, ..doorbell() }, ProtocolError::PacketReserved),
        (
            Packet { announced: Some(1), ..Packet::control(0) },
            ProtocolError::FdCount { announced: 1, found: 0 },
        ),
        (
            Packet { announced: Some(u32::MAX), ..Packet::control(0) },
            ProtocolError::FdCount { announced: 0xffff_ffff, found: 0 },
        ),
        (
            Packet { announced: Some(0), fds: files(1), ..Packet::control(0) },
            ProtocolError::FdCount { announced: 0, found: 1 },
        ),
        (
            Packet { announced: Some(1), fds: files(2), ..Packet::control(0) },
            ProtocolError::FdCount { announced: 1, found: 2 },
        ),
        (
            Packet { announced: Some(0), fds: files(1), ..doorbell() },
            ProtocolError::FdCount { announced: 0, found: 1 },
        ),
        (Packet { fds: files(3), ..Packet::control(0) }, ProtocolError::FdLimit { max: 2, found: 3 }),
        (Packet { fds: files(253), ..Packet::control(0) }, ProtocolError::FdLimit { max: 2, found: 253 }),
        (Packet { fds: files(1), ..doorbell() }, ProtocolError::FdLimit { max: 0, found: 1 }),
    ];
    for (mut packet, violation) in cases {
        let (hostile, mut channel) = Hostile::meet(&builder());
        // Descriptors of a malformed packet must be closed.
        let (reader, writer) = pipe();
        if let Some(last) = packet.fds.last_mut() {
            *last = writer;
        } else {
            drop(writer);
        }
        hostile.socket.send(packet);
        assert_violated(channel.try_recv(), violation);
        assert!(is_abandoned(&reader), "{violation:?}: a descriptor is still open");
        assert_over(&hostile, &mut channel, violation);
    }
}

#[test]
fn descriptors_do_not_arrive_at_a_receiver_that_takes_none() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder().max_fds(0));
    let (reader, writer) = pipe();
    // Linux 6.16 refuses the descriptors for us.
    if hostile.socket.try_send(Packet { fds: vec![writer], ..Packet::control(0) }) == Err(Errno::PERM) {
        assert!(channel.try_recv().unwrap().is_none());
    } else {
        assert_violated(channel.try_recv(), ProtocolError::FdLimit { max: 0, found: 1 });
    }
    assert!(is_abandoned(&reader));
}

#[test]
fn a_reply_that_nobody_waits_for_is_a_violation() {
    let _guard = bounded();
    let cases: [(u64, Play); 6] = [
        (0, |hostile, _| hostile.socket.send(Packet { reply_to: 1, ..Packet::control(0) })),
        (u64::MAX - 1, |hostile, _| hostile.socket.send(Packet { reply_to: u64::MAX, ..Packet::control(0) })),
        (4, |hostile, _| hostile.publish(0, Record { reply_to: 5, ..Record::default() }, 64)),
        // The reply is to a message that asked for none.
        (0, |hostile, channel| {
            channel.send(b"").unwrap();
            hostile.socket.send(Packet { reply_to: 1, ..Packet::control(0) });
        }),
        // The reply is to the next request.
        (1, |hostile, channel| {
            channel.request(b"").unwrap();
            hostile.socket.send(Packet { reply_to: 2, ..Packet::control(0) });
        }),
        // Two replies are to the same request.
        (0, |hostile, channel| {
            channel.request(b"").unwrap();
            hostile.socket.send(Packet { reply_to: 1, ..Packet::control(0) });
            assert!(receive(channel).in_reply_to().is_some());
            hostile.socket.send(Packet { reply_to: 1, ..Packet::control(1) });
        }),
    ];
    for (sequence, play) in cases {
        assert_receiving_violated(ProtocolError::UnaskedReply { sequence }, play);
    }
}

#[test]
fn a_call_ends_with_the_violation() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.socket.send(Packet { reply_to: 7, ..Packet::control(0) });
    let violation = ProtocolError::UnaskedReply { sequence: 6 };
    assert_violated(channel.call(b"", LONG), violation);
    assert_over(&hostile, &mut channel, violation);
}

#[test]
fn more_doorbells_than_sleeps_are_a_violation() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.socket.send(Packet::new(DOORBELL));
    hostile.socket.send(Packet::new(DOORBELL));
    // This makes the receiver look at the socket without a new epoch. It was armed when it was new.
    hostile.set(PACKETS, 1);
    let violation = ProtocolError::Doorbells { shown: 1, heard: 2 };
    assert_violated(channel.recv_timeout(LONG), violation);
    assert_over(&hostile, &mut channel, violation);

    let (hostile, mut channel) = Hostile::meet(&builder().wait(Wait::Spin));
    fill(&mut channel);
    hostile.space.send(Packet::new(DOORBELL));
    let violation = ProtocolError::Doorbells { shown: 0, heard: 1 };
    assert_violated(channel.sender.loan_timeout(1, LONG).map(drop), violation);
    assert_over(&hostile, &mut channel, violation);
}

/// Fills the whole ring, if it is empty: with two records, each of the longest payload and all control bytes that are reserved.
fn fill(channel: &mut Channel) {
    let max = channel.limits().max_payload;
    for _ in 0..2 {
        channel.loan(max).unwrap().send_with(&[0; 1024]).unwrap();
    }
}

#[test]
fn a_tail_that_is_no_tail_is_a_violation() {
    let _guard = bounded();
    let full = capacity();
    let loan: [fn(&mut Channel) -> Result<()>; 4] = [
        |channel| channel.loan(1).map(drop),
        |channel| channel.sender.loan_timeout(1, LONG).map(drop),
        |channel| channel.try_loan(1).map(drop),
        |channel| channel.sender.has_space(1).map(drop),
    ];
    for loan in loan {
        for found in [full + 64, 2 * full, u64::MAX, u64::MAX - 63, 1 << 63] {
            let (hostile, mut channel) = Hostile::meet(&builder());
            fill(&mut channel);
            hostile.set(TAIL, found);
            let violation = ProtocolError::Tail { from: 0, limit: full, found };
            assert_violated(loan(&mut channel), violation);
            assert_over(&hostile, &mut channel, violation);
        }
        for found in [1, 63, full - 1] {
            let (hostile, mut channel) = Hostile::meet(&builder());
            fill(&mut channel);
            hostile.set(TAIL, found);
            assert_violated(loan(&mut channel), ProtocolError::Misaligned { found });
        }
        // The tail goes backwards.
        let (hostile, mut channel) = Hostile::meet(&builder());
        fill(&mut channel);
        hostile.set(TAIL, full);
        fill(&mut channel);
        hostile.set(TAIL, full - 64);
        let violation = ProtocolError::Tail { from: full, limit: 2 * full, found: full - 64 };
        assert_violated(loan(&mut channel), violation);
    }
}

#[test]
fn anything_but_a_doorbell_on_the_space_socket_is_a_violation() {
    let _guard = bounded();
    let cases = [
        (Packet::control(0), ProtocolError::PacketKind { expected: 5, found: CONTROL }),
        (Packet::new(READY), ProtocolError::PacketKind { expected: 5, found: READY }),
        (Packet::raw(b"x"), ProtocolError::PacketLength { expected: 32, found: 1 }),
        (Packet { body: vec![0], ..Packet::new(DOORBELL) }, ProtocolError::PacketTooLong { max: 32 }),
        (Packet { body: vec![0; 100_000], ..Packet::control(0) }, ProtocolError::PacketTooLong { max: 32 }),
        (Packet { flags: 1, ..Packet::new(DOORBELL) }, ProtocolError::PacketFlags { known: 0, found: 1 }),
        (Packet { sequence: 1, ..Packet::new(DOORBELL) }, ProtocolError::PacketReserved),
        (
            Packet { announced: Some(1), ..Packet::new(DOORBELL) },
            ProtocolError::FdCount { announced: 1, found: 0 },
        ),
    ];
    for (packet, violation) in cases {
        let (hostile, mut channel) = Hostile::meet(&builder());
        fill(&mut channel);
        hostile.space.send(packet);
        assert_violated(channel.try_loan(1).map(drop), violation);
        assert_over(&hostile, &mut channel, violation);
    }
    let (hostile, mut channel) = Hostile::meet(&builder());
    fill(&mut channel);
    let (reader, writer) = pipe();
    // Linux 6.16 refuses the descriptor for us.
    if hostile.space.try_send(Packet { fds: vec![writer], ..Packet::new(DOORBELL) }) != Err(Errno::PERM) {
        assert_violated(channel.try_loan(1).map(drop), ProtocolError::FdLimit { max: 0, found: 1 });
    }
    assert!(is_abandoned(&reader));
}

#[test]
fn a_peer_that_announces_room_no_more_only_stops_our_sending() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    fill(&mut channel);
    hostile.space.shut(Shutdown::Both);
    assert!(matches!(channel.sender.loan_timeout(1, LONG).map(drop), Err(Error::Disconnected)));
    hostile.socket.send(Packet::control(0));
    assert_eq!(receive(&mut channel).sequence(), 0);
}

#[test]
fn a_violation_that_one_half_finds_wakes_the_other() {
    let _guard = bounded();
    let (hostile, channel) = Hostile::meet(&builder().wait(Wait::Block));
    let (mut sender, mut receiver) = channel.split();
    let receiving = thread::spawn(move || receiver.recv());
    let max = sender.limits().max_payload;
    let fill = |sender: &mut Sender| {
        for _ in 0..2 {
            sender.loan(max).unwrap().send_with(&[0; 1024]).unwrap();
        }
    };
    fill(&mut sender);
    hostile.set(TAIL, 1);
    let violation = ProtocolError::Misaligned { found: 1 };
    assert_violated(sender.loan(1).map(drop), violation);
    assert_violated(receiving.join().unwrap(), violation);

    let (hostile, channel) = Hostile::meet(&builder().wait(Wait::Block));
    let (mut sender, mut receiver) = channel.split();
    fill(&mut sender);
    let sending = thread::spawn(move || sender.loan(1).map(drop));
    hostile.set(HEAD, 1);
    assert_violated(receiver.try_recv(), violation);
    assert_violated(sending.join().unwrap(), violation);
}

#[test]
fn a_count_of_packets_that_lies_moves_no_deadline() {
    let _guard = bounded();
    for wait in WAITS {
        let (hostile, mut channel) = Hostile::meet(&builder().wait(wait));
        hostile.set(PACKETS, 1000);
        assert!(matches!(channel.recv_timeout(SHORT), Err(Error::Timeout)), "{wait:?}");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for count in (0..).take_while(|_| !done.load(Relaxed)) {
                    hostile.set(PACKETS, count);
                }
            });
            assert!(matches!(channel.recv_timeout(SHORT), Err(Error::Timeout)), "{wait:?}");
            done.store(true, Relaxed);
        });
        // No message came, so no spin has found one; each call may count one such spin at its end.
        assert!(channel.stats().spins_paid <= 2, "{wait:?}: {:?}", channel.stats());
        // A false packet count never stops a read.
        hostile.set(PACKETS, 0);
        hostile.socket.send(Packet::control(0));
        assert_eq!(receive(&mut channel).sequence(), 0);
    }
}

#[test]
fn a_head_that_comes_and_goes_moves_no_deadline() {
    let _guard = bounded();
    for wait in WAITS {
        let (hostile, mut channel) = Hostile::meet(&builder().wait(wait));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    hostile.set(HEAD, 64);
                    hostile.set(HEAD, 0);
                }
            });
            // The receiver may have seen an empty record; then the head went back.
            let result = channel.recv_timeout(SHORT).and_then(|_| channel.recv_timeout(SHORT));
            assert!(matches!(result, Err(Error::Timeout | Error::Protocol(_))), "{wait:?}: {result:?}");
            done.store(true, Relaxed);
        });
    }
}

#[test]
fn an_epoch_that_never_rests_costs_bells_and_no_more() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    for count in 1..=1000 {
        hostile.set(RECEIVER_EPOCH, 2 * count + 1);
        // The call does not block, although no doorbell is read.
        channel.loan(0).unwrap().send().unwrap();
        hostile.set(TAIL, head_after(count));
    }
    assert!(channel.stats().doorbells_sent >= 100);
}

#[test]
fn needs_of_any_value_cost_a_doorbell_an_epoch_at_most() {
    let _guard = bounded();
    // The needs, their step from message to message, and the doorbells that come for one epoch.
    for (needs, jump, expected) in
        [(0, 0, 1), (64, 0, 1), (u64::MAX, 0, 0), (1, u64::MAX / 7, 1), (u64::MAX, 1, 1)]
    {
        let (hostile, mut channel) = Hostile::meet(&builder());
        hostile.set(SENDER_EPOCH, 1);
        for n in 0..20 {
            hostile.set(SENDER_NEEDS, jump.wrapping_mul(n).wrapping_add(needs));
            hostile.publish(64 * n, Record { sequence: n, ..Record::default() }, 64 * (n + 1));
            drop(channel.recv_timeout(LONG).unwrap());
        }
        let mut doorbells = 0;
        while readable([hostile.own_space.as_fd()], Duration::ZERO) == [true] {
            assert_eq!(hostile.own_space.hear().unwrap().kind, DOORBELL);
            doorbells += 1;
        }
        assert_eq!(doorbells, expected, "{needs} {jump}");
    }
}

#[test]
fn bells_on_the_space_socket_do_not_hold_up_a_sender() {
    let _guard = bounded();
    let wait: [fn(&mut Channel) -> Result<bool>; 3] = [
        |channel| channel.sender.loan_timeout(1, Duration::ZERO).map(|_| true),
        |channel| channel.try_loan(1).map(|loan| loan.is_some()),
        |channel| channel.sender.has_space(1),
    ];
    for wait in wait {
        let (hostile, mut channel) = Hostile::meet(&builder().wait(Wait::Block));
        fill(&mut channel);
        let mut rung = 0;
        while hostile.space.try_send(Packet::new(DOORBELL)).is_ok() {
            rung += 1;
        }
        let result = wait(&mut channel);
        assert!(matches!(result, Ok(false) | Err(Error::Timeout | Error::Protocol(_))), "{result:?}");
        let heard = channel.stats().doorbells_received;
        assert!(heard < rung, "all {rung} bells were listened to, and so would be all that followed");
    }
}

#[test]
fn late_replies_are_no_more_than_requests() {
    const REQUESTS: u64 = 1000;
    let _guard = bounded();
    let receive: [Receive; 2] = [Channel::try_recv, |channel| channel.recv_timeout(LONG).map(Some)];
    for receive in receive {
        let (hostile, mut channel) = Hostile::meet_with(&builder(), 64);
        for count in 1..=REQUESTS {
            let request = channel.loan(0).unwrap().request(b"").unwrap();
            hostile.set(TAIL, head_after(count));
            assert!(matches!(channel.receiver.wait_reply(request, Duration::ZERO), Err(Error::Timeout)));
        }
        // Replies without end would hold up a call without end.
        let replies = 3 * REQUESTS;
        for sequence in 0..replies {
            let reply_to = sequence % REQUESTS + 1;
            hostile.write(64 * sequence, Record { sequence, reply_to, ..Record::default() });
        }
        hostile.set(HEAD, 64 * replies);
        assert_violated(receive(&mut channel), ProtocolError::UnaskedReply { sequence: 0 });
        assert_eq!(channel.stats().late_replies, REQUESTS);
    }
}

#[test]
fn more_requests_than_we_leave_unanswered_are_a_violation() {
    let _guard = bounded();
    // The requests come in packets and in records; answered ones do not count, dropped ones do.
    let send: [fn(&Hostile, u64); 2] = [
        |hostile, sequence| {
            hostile.socket.send(Packet { flags: WANTS_REPLY, ..Packet::control(sequence) });
        },
        |hostile, sequence| {
            let record = Record { sequence, flags: WANTS_REPLY.into(), ..Record::default() };
            hostile.publish(64 * sequence, record, 64 * (sequence + 1));
        },
    ];
    for send in send {
        let (hostile, mut channel) = Hostile::meet(&builder().max_requests(2));
        for sequence in 0..5 {
            send(&hostile, sequence);
            let token = receive(&mut channel).reply_token().unwrap();
            if sequence < 3 {
                channel.reply(token, b"").unwrap();
            }
        }
        send(&hostile, 5);
        let violation = ProtocolError::Requests { max: 2 };
        assert_violated(channel.recv_timeout(LONG), violation);
        assert_over(&hostile, &mut channel, violation);
    }
    // A batch ends before the request that is too many.
    let (hostile, mut channel) = Hostile::meet(&builder().max_requests(2));
    for sequence in 0..3 {
        hostile.write(64 * sequence, Record { sequence, flags: WANTS_REPLY.into(), ..Record::default() });
    }
    hostile.set(HEAD, 64 * 3);
    let mut batch = channel.receiver.recv_batch().unwrap();
    assert_eq!([(); 3].map(|()| batch.next().is_some()), [true, true, false]);
    drop(batch);
    assert_over(&hostile, &mut channel, ProtocolError::Requests { max: 2 });
}

#[test]
fn a_peer_that_hears_nothing_more_does_not_keep_a_sender_busy() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder().wait(Wait::Block));
    fill(&mut channel);
    hostile.socket.shut(Shutdown::Both);
    let result = channel.sender.loan_timeout(1, SHORT).map(drop);
    assert!(matches!(result, Err(Error::Disconnected | Error::Timeout)), "{result:?}");
    let sleeps = channel.stats().sleeps;
    assert!(sleeps < 10, "it was woken {sleeps} times by nothing");
}

#[test]
fn half_a_message_whose_sender_dies_is_none() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    let (reader, writer) = pipe();
    hostile.socket.send(Packet::control(0));
    hostile.socket.send(Packet { sequence: 1, fds: vec![writer], ..half_packet() });
    drop(hostile);
    assert_eq!(receive(&mut channel).sequence(), 0);
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(channel);
    assert!(is_abandoned(&reader));
}

/// A holder of the end that another process reads can take its packets, and freeze the reader in the kernel.
#[test]
fn a_peer_holds_no_end_that_we_read() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    let number = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_ino;
    let theirs = [&hostile.socket, &hostile.space, &hostile.own_space].map(|end| number(end.as_fd()));
    for ours in [channel.receiver.as_fd(), channel.sender.as_fd()].map(number) {
        assert!(!theirs.contains(&ours), "{ours} is among {theirs:?}");
    }
    // The peer's packets there come to us, and not back to it.
    while let Some(loan) = channel.try_loan(1000).unwrap() {
        loan.send().unwrap();
    }
    hostile.space.send(Packet::new(DOORBELL));
    let taken = recv(&hostile.space, &mut [0; 64], RecvFlags::DONTWAIT);
    assert!(matches!(taken, Err(Errno::AGAIN)), "{taken:?}");
    assert_eq!(readable([channel.sender.as_fd()], LONG), [true]);
}

#[test]
fn an_empty_packet_is_the_end_of_its_direction() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.socket.send(Packet::control(0));
    hostile.publish(0, Record { sequence: 1, ..Record::default() }, 64);
    hostile.socket.send(Packet::raw(b""));
    hostile.socket.send(Packet::control(2));
    assert_eq!([receive(&mut channel).sequence(), receive(&mut channel).sequence()], [0, 1]);
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    channel.send(b"still heard").unwrap();
    assert_eq!(hostile.socket.hear().unwrap().kind, CONTROL);

    let (hostile, mut channel) = Hostile::meet(&builder());
    fill(&mut channel);
    hostile.space.send(Packet::raw(b""));
    assert!(matches!(channel.sender.loan_timeout(1, LONG).map(drop), Err(Error::Disconnected)));
    hostile.socket.send(Packet::control(0));
    assert_eq!(receive(&mut channel).sequence(), 0);
}

#[test]
fn received_control_bytes_stay_while_the_peer_writes_on() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    let record = Record { payload_len: 64, control_len: 10, ..Record::default() };
    hostile.scribble(64, &[b'p'; 64]);
    hostile.scribble(128, b"0123456789");
    hostile.publish(0, record, 192);
    let mut message = receive(&mut channel);
    hostile
        .write(0, Record { sequence: 9, payload_len: u64::MAX, control_len: u32::MAX, ..Record::default() });
    hostile.scribble(128, &[0xff; 64]);
    assert_eq!((message.control(), message.sequence()), (&b"0123456789"[..], 0));
    let payload = message.take_payload().unwrap();
    assert_eq!(payload.len(), 64);
    // Only its bytes are shared, until they are copied.
    hostile.scribble(64, &[b'q'; 64]);
    assert_eq!(payload.to_vec(), [b'q'; 64]);
    let detached = payload.detach();
    hostile.scribble(64, &[b'r'; 64]);
    assert_eq!(detached.to_vec(), [b'q'; 64]);
}

#[test]
fn a_readers_buffer_was_copied_once_and_stays_while_the_peer_writes_on() {
    let _guard = bounded();
    let (hostile, mut channel) = Hostile::meet(&builder());
    hostile.scribble(64, &[b'p'; 64]);
    hostile.publish(0, Record { payload_len: 64, ..Record::default() }, 128);
    let payload = receive(&mut channel).take_payload().unwrap();
    let mut reader = payload.reader();
    let shown = reader.fill_buf().unwrap();
    assert_eq!(shown, [b'p'; 64]);
    hostile.scribble(64, &[b'q'; 64]);
    assert_eq!(shown, [b'p'; 64], "while it is borrowed");
    assert_eq!(reader.fill_buf().unwrap(), [b'p'; 64], "asked for again");
    let mut some = [0; 10];
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, [b'p'; 10], "read from it");
    reader.rewind().unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, [b'p'; 64], "gone back to");
    payload.into_reader().read_exact(&mut some).unwrap();
    assert_eq!(some, [b'q'; 10], "a new reader copies anew");
}
