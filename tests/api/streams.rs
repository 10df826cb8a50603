//! Streams agree with cursors over plain bytes: a loan's writer (`io::Write`) and a payload's reader (`io::Read`).
#![forbid(unsafe_code)]

use std::{
    io::{BufRead, Cursor, ErrorKind, Read, Seek, SeekFrom, Write},
    thread,
};

use proptest::prelude::*;
use sealane::{Channel, Error, LoanWriter, PayloadReader, Result};

use crate::support::{numbers, payload, threads::SOON};

/// A channel whose ring has been filled with `0xaa` wherever a payload can stand, and is free again.
fn used_channel() -> (Channel, Channel) {
    let (mut a, mut b) = Channel::builder().ring_capacity(16 << 10).pair().unwrap();
    for _ in 0..64 {
        let mut loan = a.loan(1984).unwrap();
        loan.fill(0xaa);
        loan.send().unwrap();
        drop(b.recv_timeout(SOON).unwrap());
    }
    (a, b)
}

fn received(channel: &mut Channel) -> Vec<u8> {
    channel.recv_timeout(SOON).unwrap().payload().unwrap().to_vec()
}

#[test]
fn a_loan_that_was_not_written_to_its_end_does_not_send_what_stood_there_before() {
    let (mut a, mut b) = used_channel();
    let forms: [fn(LoanWriter<'_>) -> Result<()>; 5] = [
        |writer| writer.send(),
        |writer| writer.send_with(b"control"),
        |writer| writer.try_send_with(b"control").map_err(Error::from),
        |writer| writer.request(b"?").map(drop),
        |writer| writer.into_loan().send(),
    ];
    for send in forms {
        let loan = a.loan(1000).unwrap();
        assert!(loan.contains(&0xaa), "the ring was used before");
        let mut writer = loan.writer();
        writer.write_all(b"seven").unwrap();
        assert_eq!(writer.written(), 5);
        send(writer).unwrap();
        assert_eq!(received(&mut b), b"seven");
    }
    a.loan(1000).unwrap().writer().send().unwrap();
    assert_eq!(received(&mut b), b"");
}

#[test]
fn a_gap_that_a_seek_leaves_is_sent_as_zeros() {
    let (mut a, mut b) = used_channel();
    let mut writer = a.loan(1000).unwrap().writer();
    writer.write_all(b"ab").unwrap();
    writer.seek(SeekFrom::Start(7)).unwrap();
    assert_eq!(writer.written(), 2, "a seek alone writes nothing");
    assert_eq!(writer.write(b"").unwrap(), 0);
    assert_eq!(writer.written(), 2, "nor does a write of nothing");
    writer.write_all(b"c").unwrap();
    writer.seek(SeekFrom::Start(2000)).unwrap();
    assert_eq!(writer.write(b"beyond the loan").unwrap(), 0);
    assert_eq!(writer.seek(SeekFrom::End(2)).unwrap(), 10, "from the furthest byte written");
    writer.write_all(b"d").unwrap();
    writer.rewind().unwrap();
    writer.write_all(b"A").unwrap();
    assert_eq!(writer.written(), 11);
    writer.send().unwrap();
    assert_eq!(received(&mut b), b"Ab\0\0\0\0\0c\0\0d");

    // A seek that was reverted has not sent anything either.
    let mut writer = a.loan(1000).unwrap().writer();
    writer.seek(SeekFrom::Start(900)).unwrap();
    writer.rewind().unwrap();
    writer.write_all(b"x").unwrap();
    writer.send().unwrap();
    assert_eq!(received(&mut b), b"x");
}

#[test]
fn writes_beyond_a_loan_are_an_error_that_says_so() {
    let (mut a, mut b) = used_channel();
    let mut writer = a.loan(20).unwrap().writer();
    write!(writer, "{}-{}", 12, 34).unwrap();
    assert_eq!(writer.write(&[b'x'; 100]).unwrap(), 15, "what has room");
    assert_eq!(writer.write(b"x").unwrap(), 0);
    let error = writer.write_all(b"xyz").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteZero);
    assert_eq!(error.to_string(), "only 0 of 3 bytes fit before the end of a loan of 20 bytes: lend more");
    assert_eq!(writer.seek(SeekFrom::Current(-21)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(writer.stream_position().unwrap(), 20, "a seek that failed did nothing");
    writer.send().unwrap();
    assert_eq!(received(&mut b), b"12-34xxxxxxxxxxxxxxx");
}

#[test]
fn a_writer_that_was_not_sent_comes_back_as_a_loan_of_what_was_written() {
    let (mut a, mut b) = Channel::builder().max_control(10).pair().unwrap();
    let mut writer = a.loan(10).unwrap().writer();
    writer.write_all(b"abc").unwrap();
    let unsent = writer.try_send_with(&[0; 11]).unwrap_err();
    assert!(matches!(unsent.error(), Error::ControlTooLarge { len: 11, max: 10 }));
    let loan = unsent.into_loan();
    assert_eq!(*loan, *b"abc");
    loan.try_send_with(b"shorter").unwrap();
    assert_eq!(received(&mut b), b"abc");
}

#[test]
fn a_borrowed_reader_lends_the_payload_no_longer_than_it_is_used() {
    let (payload, (_a, b)) = payload(b"one\ntwo\n");
    let mut reader = payload.reader();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), b.receiver.held().count), ("one\n", 1));
    // The reader's scope has not ended.
    drop(payload);
    assert_eq!(b.receiver.held().count, 0);
}

#[test]
fn an_owning_reader_is_stored_and_sent_and_releases_its_payload() {
    struct Stored {
        reader: PayloadReader<'static>,
    }
    let (payload, (_a, b)) = payload(&numbers(5000));
    let mut stored = Stored { reader: payload.into_reader() };
    let stored = thread::spawn(move || {
        stored.reader.read_exact(&mut [0; 100]).unwrap();
        stored
    });
    let payload = stored.join().unwrap().reader.into_payload().unwrap();
    assert_eq!((payload.len(), b.receiver.held().count), (5000, 1));
    assert!(payload.reader().into_payload().is_none(), "what is borrowed is not given away");
    drop(payload.into_reader());
    assert_eq!(b.receiver.held().count, 0);
}

#[test]
fn debug_output_of_streams_hides_the_payload() {
    let (payload, (mut a, _b)) = payload(&[123; 200]);
    let mut reader = payload.reader();
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(format!("{reader:?}"), "PayloadReader { len: 200, position: 1, .. }");
    let mut writer = a.loan(200).unwrap().writer();
    writer.write_all(&[123; 3]).unwrap();
    assert_eq!(format!("{writer:?}"), "LoanWriter { len: 200, written: 3, .. }");
}

/// One call of a program that writes or reads.
#[derive(Debug, Clone)]
enum Call {
    /// `write`, or `read`, of this number of bytes.
    Some(usize),
    /// `write_all`, or `read_exact`.
    All(usize),
    Seek(SeekFrom),
    /// `fill_buf`, and this per mille of it consumed.
    Buffer(usize),
    Until(u8),
    ToEnd,
}

/// Longer than a reader's buffer.
const LEN: usize = 6000;

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let len = || prop_oneof![0..20_usize, 0..LEN];
    let far = i64::try_from(LEN + 1000).unwrap();
    let by = || prop_oneof![-far..far, -3..3_i64];
    let seek = prop_oneof![
        (0..u64::try_from(far).unwrap()).prop_map(SeekFrom::Start),
        Just(SeekFrom::Start(u64::MAX)),
        by().prop_map(SeekFrom::Current),
        by().prop_map(SeekFrom::End),
    ];
    let call = prop_oneof![
        4 => len().prop_map(Call::Some),
        4 => len().prop_map(Call::All),
        2 => seek.prop_map(Call::Seek),
        2 => (0..=1000_usize).prop_map(Call::Buffer),
        1 => any::<u8>().prop_map(Call::Until),
        1 => Just(Call::ToEnd),
    ];
    prop::collection::vec(call, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_reader_reads_what_a_cursor_over_a_copy_reads(calls in calls(), len in 0..=LEN, owned in any::<bool>()) {
        let bytes = numbers(len);
        let (payload, _channels) = payload(&bytes);
        let borrowed = payload.to_vec();
        prop_assert!(borrowed == bytes);
        let kept;
        let mut reader = if owned {
            payload.into_reader()
        } else {
            kept = payload;
            kept.reader()
        };
        let mut oracle = Cursor::new(bytes);
        for call in calls {
            match call {
                Call::Some(len) => {
                    let (mut ours, mut theirs) = (vec![1; len], vec![1; len]);
                    prop_assert_eq!(reader.read(&mut ours).unwrap(), oracle.read(&mut theirs).unwrap());
                    prop_assert!(ours == theirs);
                }
                Call::All(len) => {
                    let (mut ours, mut theirs) = (vec![1; len], vec![1; len]);
                    let results = (reader.read_exact(&mut ours), oracle.read_exact(&mut theirs));
                    match results {
                        (Ok(()), Ok(())) => prop_assert!(ours == theirs),
                        (Err(ours), Err(theirs)) => {
                            prop_assert_eq!(ours.kind(), theirs.kind());
                            // A failed read does not report how much was read.
                            reader.rewind().unwrap();
                            oracle.rewind().unwrap();
                        }
                        results => prop_assert!(false, "{results:?}"),
                    }
                }
                Call::Seek(to) => {
                    let (ours, theirs) = (reader.seek(to), oracle.seek(to));
                    prop_assert_eq!(ours.map_err(|error| error.kind()), theirs.map_err(|error| error.kind()));
                }
                Call::Buffer(part) => {
                    let (ours, theirs) = (reader.fill_buf().unwrap(), oracle.fill_buf().unwrap());
                    prop_assert_eq!(ours.is_empty(), theirs.is_empty());
                    prop_assert!(theirs.starts_with(ours));
                    let amount = ours.len() * part / 1000;
                    reader.consume(amount);
                    oracle.consume(amount);
                }
                Call::Until(byte) => {
                    let (mut ours, mut theirs) = (vec![], vec![]);
                    let len = reader.read_until(byte, &mut ours).unwrap();
                    prop_assert_eq!(len, oracle.read_until(byte, &mut theirs).unwrap());
                    prop_assert!(ours == theirs);
                }
                Call::ToEnd => {
                    let (mut ours, mut theirs) = (vec![7], vec![7]);
                    let len = reader.read_to_end(&mut ours).unwrap();
                    prop_assert_eq!(len, oracle.read_to_end(&mut theirs).unwrap());
                    prop_assert!(ours == theirs);
                }
            }
            prop_assert_eq!(reader.stream_position().unwrap(), oracle.stream_position().unwrap());
        }
    }

    /// A cursor over a growing vector fills gaps with zeros as well, but grows without limit.
    #[test]
    fn a_writer_sends_what_a_cursor_over_a_vector_has(calls in calls(), max in 0..=LEN) {
        let (mut a, mut b) = used_channel();
        let mut writer = a.loan(max).unwrap().writer();
        let mut oracle = Cursor::new(vec![]);
        for call in calls {
            match call {
                Call::Some(len) | Call::All(len) => {
                    let room = max.saturating_sub(usize::try_from(oracle.position()).unwrap());
                    let part = &numbers(len)[..len.min(room)];
                    // A cursor grows up to its position even for a write of nothing.
                    if !part.is_empty() {
                        oracle.write_all(part).unwrap();
                    }
                    if matches!(call, Call::Some(_)) {
                        prop_assert_eq!(writer.write(&numbers(len)).unwrap(), part.len());
                    } else {
                        let kind = writer.write_all(&numbers(len)).map_err(|error| error.kind());
                        prop_assert_eq!(kind, if part.len() == len { Ok(()) } else { Err(ErrorKind::WriteZero) });
                    }
                }
                Call::Seek(to) => {
                    let (ours, theirs) = (writer.seek(to), oracle.seek(to));
                    prop_assert_eq!(ours.map_err(|error| error.kind()), theirs.map_err(|error| error.kind()));
                }
                Call::Buffer(_) | Call::Until(_) | Call::ToEnd => writer.flush().unwrap(),
            }
            prop_assert_eq!(writer.stream_position().unwrap(), oracle.stream_position().unwrap());
            prop_assert_eq!(writer.written(), oracle.get_ref().len());
        }
        writer.send().unwrap();
        prop_assert!(received(&mut b) == oracle.into_inner());
    }
}
