//! Messages and loans in a program without unsafe code, over a real channel.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{BufRead, Read, Seek, SeekFrom, Write, stdin},
    os::fd::OwnedFd,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_setfl, fstat},
    io::{FdFlags, fcntl_getfd},
    pipe::pipe,
};
use sealane::{
    CastError, Channel, Control, Error, Message,
    zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes},
};

use crate::support::{numbers, payload, threads::SOON};

/// A header as a program would have it. Some of its bytes have invalid values.
#[derive(Debug, Clone, Copy, PartialEq, IntoBytes, TryFromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    frame: u64,
    gain: f32,
    mode: Mode,
    last: bool,
    reserved: [u8; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, IntoBytes, TryFromBytes, KnownLayout, Immutable)]
#[repr(u8)]
enum Mode {
    Day = 1,
    Night = 2,
}

/// An element for which all bytes are valid.
#[derive(Debug, Clone, Copy, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Zone {
    red: u32,
    green: u32,
    blue: u32,
}

const HEADER: Header = Header { frame: 7, gain: 1.5, mode: Mode::Night, last: true, reserved: [0; 2] };

fn zone(n: u32) -> Zone {
    Zone { red: n, green: n + 1, blue: n * 3 }
}

#[test]
fn control_bytes_are_read_in_place_as_a_type_if_they_are_one() {
    let (mut a, mut b) = Channel::pair().unwrap();
    // The bytes come in the ring and in a packet.
    a.send(Control::of(&HEADER)).unwrap();
    a.loan(0).unwrap().send_with(Control::of(&HEADER)).unwrap();
    for _ in 0..2 {
        let message = b.recv_timeout(SOON).unwrap();
        assert_eq!(message.control_as::<Header>().unwrap(), &HEADER);
        assert_eq!(message.control().as_ptr().addr() % 16, 0);
        assert!(matches!(
            message.control_as::<Zone>(),
            Err(Error::Cast(CastError::Length { expected: 12, found: 16 }))
        ));
    }
    let mut bad = HEADER.as_bytes().to_vec();
    bad[12] = 3;
    a.send(&bad).unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    let Err(Error::Cast(CastError::Invalid { expected })) = message.control_as::<Header>() else {
        panic!("no mode has the number 3");
    };
    assert!(expected.ends_with("Header"));
    assert_eq!(message.control(), bad, "the bytes are still there to be looked at");
}

#[test]
fn everything_that_is_bytes_is_a_control_message() {
    let (mut a, mut b) = Channel::pair().unwrap();
    a.send("text").unwrap();
    a.send(&vec![1, 2]).unwrap();
    a.send(&[3, 4]).unwrap();
    a.send(Control::default()).unwrap();
    a.loan(0).unwrap().send().unwrap();
    for control in [&b"text"[..], &[1, 2], &[3, 4], &[]] {
        let message = b.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.payload().is_some()), (control, false));
    }
    let message = b.recv_timeout(SOON).unwrap();
    assert!(message.control().is_empty() && message.payload().unwrap().is_empty());
    assert_eq!(message.control_as::<()>().unwrap(), &());
}

#[test]
fn a_typed_loan_is_read_as_what_it_was_written() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut loan = a.loan_slice::<Zone>(1000).unwrap();
    for (n, to) in (0..).zip(loan.iter_mut()) {
        *to = zone(n);
    }
    loan.truncate(999);
    loan.send_with(Control::of(&HEADER)).unwrap();

    let message = b.recv_timeout(SOON).unwrap();
    let payload = message.payload().unwrap();
    assert_eq!(payload.len(), 999 * 12);
    let zones = payload.shared::<Zone>().unwrap();
    assert!(zones.iter().eq((0..999).map(zone)));
    assert!(zones.iter().rev().eq((0..999).rev().map(zone)));
    assert_eq!((zones.len(), zones.get(998), zones.get(999)), (999, Some(zone(998)), None));
    assert_eq!(zones.subslice(3..5).unwrap().to_vec(), [zone(3), zone(4)]);
    assert!(zones.subslice(998..1000).is_none());
    let mut blocks = Vec::new();
    zones.for_each_block(|block| blocks.extend_from_slice(block));
    assert!(blocks == zones.to_vec() && blocks.into_iter().eq((0..999).map(zone)));
    let chunks = zones.array_chunks::<10>();
    assert_eq!(chunks.remainder().to_vec(), (990..999).map(zone).collect::<Vec<_>>());
    assert!(chunks.flatten().eq((0..990).map(zone)));
    assert!(matches!(
        payload.shared::<u64>(),
        Err(Error::Cast(CastError::Remainder { size: 8, found: 11_988 }))
    ));
}

#[test]
fn values_are_read_anywhere_and_nowhere_else() {
    let mut bytes = numbers(1000);
    let header = Header { mode: Mode::Day, ..HEADER };
    bytes[5..21].copy_from_slice(header.as_bytes());
    let (payload, _channel) = payload(&bytes);
    assert_eq!(payload.read::<Header>(5).unwrap(), header);
    assert!(matches!(payload.read::<Header>(100), Err(Error::Cast(CastError::Invalid { .. }))));
    assert_eq!(payload.read::<[u8; 1000]>(0).unwrap(), bytes[..]);
    for (offset, available) in [(985, 1000), (1000, 1000), (usize::MAX, 1000)] {
        let error = payload.read::<Header>(offset).unwrap_err();
        let Error::Cast(CastError::OutOfBounds { offset: at, available: of, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!((at, of), (offset, available));
    }

    let words = payload.shared_at::<u32>(1, 249).unwrap();
    let expected = bytes[1..997].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    assert!(words.iter().eq(expected), "no alignment is asked for");
    for (offset, count) in [(1, 250), (1001, 0), (0, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(matches!(
            payload.shared_at::<u32>(offset, count),
            Err(Error::Cast(CastError::OutOfBounds { .. }))
        ));
    }
    assert_eq!(payload.bytes().cast::<u64>().unwrap().len(), 125);
    assert!(matches!(payload.bytes().cast::<Zone>(), Err(Error::Cast(CastError::Remainder { .. }))));
}

#[test]
fn copies_are_exactly_as_long() {
    let bytes = numbers(100);
    let (payload, _channel) = payload(&bytes);
    let mut copy = [0; 101];
    payload.copy_to_slice(&mut copy[..100]).unwrap();
    assert_eq!(copy[..100], bytes);
    for len in [0, 99, 101] {
        assert!(matches!(
            payload.copy_to_slice(&mut copy[..len]),
            Err(Error::Cast(CastError::Length { expected: 100, found })) if found == len
        ));
    }
}

#[test]
fn a_payload_is_a_stream() {
    let text = (0..1000).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat();
    let (payload, _channel) = payload(text.as_bytes());
    let lines: Vec<_> = payload.reader().lines().map(Result::unwrap).collect();
    assert!(lines.iter().eq(text.lines().collect::<Vec<_>>().iter()));

    let mut reader = payload.reader();
    let mut four = [0; 4];
    reader.seek(SeekFrom::Start(7)).unwrap();
    reader.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"line");
    assert_eq!(reader.stream_position().unwrap(), 11);
    reader.seek_relative(-4).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "line 1\n");
    assert_eq!(reader.seek(SeekFrom::End(-9)).unwrap(), u64::try_from(text.len()).unwrap() - 9);
    line.clear();
    reader.read_to_string(&mut line).unwrap();
    assert_eq!(line, "line 999\n");
    assert_eq!(reader.read(&mut four).unwrap(), 0);
    assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
    reader.seek(SeekFrom::Start(u64::MAX)).unwrap();
    assert_eq!(reader.read(&mut four).unwrap(), 0, "past the end there is nothing");
    reader.rewind().unwrap();
    reader.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"line");
}

#[test]
fn payloads_are_written_to_files_and_pipes() {
    let bytes = numbers(300_000);
    let (payload, _channel) = payload(&bytes);

    let mut file = tempfile::tempfile().unwrap();
    payload.write_all_to(&file).unwrap();
    assert_eq!(payload.bytes().subslice(..10).unwrap().write_to(&file).unwrap(), 10);
    file.rewind().unwrap();
    let mut written = Vec::new();
    file.read_to_end(&mut written).unwrap();
    assert!(written[..300_000] == bytes && written[300_000..] == bytes[..10]);

    // The payload exceeds a pipe's capacity, and this pipe does not block.
    let (reader, writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let reading = thread::spawn(move || {
        let mut read = Vec::new();
        File::from(reader).read_to_end(&mut read).unwrap();
        read
    });
    payload.write_all_to(&writer).unwrap();
    drop(writer);
    assert!(reading.join().unwrap() == bytes);

    let unwritable = File::open("/dev/null").unwrap();
    assert!(matches!(payload.write_all_to(&unwritable), Err(Error::Io { operation: "write", .. })));
    assert!(payload.bytes().write_to(&unwritable).is_err());
}

#[test]
fn a_loan_is_cut_and_does_not_grow() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut loan = a.loan(20).unwrap();
    loan.fill(7);
    loan.truncate(7);
    loan.truncate(8);
    assert_eq!(loan.len(), 7);
    loan.send().unwrap();
    assert_eq!(b.recv_timeout(SOON).unwrap().payload().unwrap().to_vec(), [7; 7]);
}

#[test]
fn a_loan_that_is_dropped_or_cut_gives_its_space_back() {
    let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    for _ in 0..10 {
        drop(a.try_loan(960).unwrap().unwrap());
    }
    let mut loan = a.try_loan(960).unwrap().unwrap();
    loan.truncate(0);
    loan.send().unwrap();
    // All behind its header is free: a payload has room there, and control bytes up to the ring's end.
    a.try_loan(960).unwrap().unwrap().try_send_with(&[7; 4096 - 2 * 64 - 960]).unwrap();
    assert_eq!(a.stats().packets_sent, 0, "the control bytes ride");
    assert!(!a.sender.has_space(0).unwrap());
    for (sequence, payload, control) in [(0, 0, 0), (1, 960, 4096 - 2 * 64 - 960)] {
        let message = b.recv_timeout(SOON).unwrap();
        let found = (message.sequence(), message.payload().unwrap().len(), message.control().len());
        assert_eq!(found, (sequence, payload, control), "nothing else was sent");
    }
}

#[test]
fn a_loan_that_could_not_be_sent_comes_back_as_it_was() {
    let (mut a, mut b) = Channel::builder().max_control(10).max_fds(0).pair().unwrap();
    let mut loan = a.loan_slice::<u16>(3).unwrap();
    loan.copy_from_slice(&[1, 2, 3]);
    let unsent = loan.try_send_with(&[0; 11]).unwrap_err();
    assert!(matches!(unsent.error(), Error::ControlTooLarge { len: 11, max: 10 }));
    let unsent = unsent.into_loan().try_send_with(Control::default().fd(&stdin())).unwrap_err();
    let (error, mut loan) = unsent.into_parts();
    assert!(matches!(error, Error::TooManyFds { count: 1, max: 0 }));
    assert_eq!(*loan, [1, 2, 3]);
    loan[0] = 9;
    loan.try_send_with(b"0123456789").unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    assert_eq!(message.payload().unwrap().shared::<u16>().unwrap().to_vec(), [9, 2, 3]);
    assert_eq!((message.control(), message.sequence()), (&b"0123456789"[..], 0));
}

#[test]
fn descriptors_are_taken_or_closed_with_their_message() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut send = || {
        let (reader, writer) = pipe().unwrap();
        a.loan(1).unwrap().send_with(Control::default().fd(&stdin()).fd(&writer)).unwrap();
        (File::from(reader), fstat(&writer).unwrap().st_ino)
    };
    let at_end = |mut pipe: &File| {
        let soon = Timespec::try_from(SOON).unwrap();
        let told = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&soon)).unwrap();
        told == 1 && pipe.read(&mut [0]).unwrap() == 0
    };

    let (pipe, _) = send();
    drop(b.recv_timeout(SOON).unwrap());
    assert!(at_end(&pipe), "closed with the message");

    let (pipe, inode) = send();
    let mut message = b.recv_timeout(SOON).unwrap();
    assert_eq!(message.fds().len(), 2);
    assert!(message.fds().iter().all(|fd| fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)));
    let taken: [OwnedFd; 2] = message.take_fds().try_into().unwrap();
    assert!(message.fds().is_empty() && message.take_fds().is_empty());
    drop(message);
    assert_eq!(fstat(&taken[1]).unwrap().st_ino, inode, "in the order in which they were sent");
    File::from(taken[1].try_clone().unwrap()).write_all(b"x").unwrap();
    (&pipe).read_exact(&mut [0]).unwrap();
    drop(taken);
    assert!(at_end(&pipe), "closed with what took them");

    let (pipe, inode) = send();
    let mut message = b.recv_timeout(SOON).unwrap();
    drop(message.take_fd().unwrap());
    assert_eq!(message.fds().len(), 1);
    assert_eq!(fstat(message.take_fd().unwrap()).unwrap().st_ino, inode, "one by one, in the same order");
    assert!(message.take_fd().is_none() && message.take_fds().is_empty());
    assert!(at_end(&pipe), "closed by what took it");
}

#[test]
fn payloads_and_messages_may_go_to_other_threads_and_outlive_their_channel() {
    let (mut a, mut b) = Channel::pair().unwrap();
    for _ in 0..2 {
        let mut loan = a.loan(3).unwrap();
        loan.copy_from_slice(&[1, 2, 3]);
        thread::spawn(|| ()).join().unwrap();
        loan.send_with(b"control").unwrap();
    }
    let (mut first, second): (Message, Message) =
        (b.recv_timeout(SOON).unwrap(), b.recv_timeout(SOON).unwrap());
    let payload = first.take_payload().unwrap();
    assert!(first.payload().is_none() && first.take_payload().is_none());
    drop((a, b, first));
    let read = thread::spawn(move || (payload.to_vec(), second.control().to_vec())).join().unwrap();
    assert_eq!(read, (vec![1, 2, 3], b"control".to_vec()));
}

/// Printed text may end up in a log, and shared memory may change while it is printed.
#[test]
fn debug_output_hides_the_bytes() {
    let secret = [0x5a; 100];
    let seen = |text: &str| ["90, 90", "5a", "5A", "ZZ"].iter().any(|bytes| text.contains(bytes));
    let (mut a, mut b) = Channel::pair().unwrap();
    let control = Control::new(&secret);
    let mut texts = vec![format!("{control:?}")];
    let mut loan = a.loan(secret.len()).unwrap();
    loan.copy_from_slice(&secret);
    texts.push(format!("{loan:?}"));
    let unsent = loan.try_send_with(&vec![0x5a; 100_000]).unwrap_err();
    texts.push(format!("{unsent:?}"));
    unsent.into_loan().send_with(control).unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    let bytes = message.payload().unwrap().bytes();
    texts.push(format!("{a:?} {b:?} {message:?}"));
    texts.push(format!("{bytes:?} {:?} {:?}", bytes.iter(), bytes.array_chunks::<7>()));
    for text in texts {
        assert!(!seen(&text), "{text}");
    }
    assert!(seen(&format!("{secret:?}")), "this test would see them");
}
