//! Exact gaps: what is received and what is missed make up what was published, and every byte that is received is right.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use sealane::{Builder, Control, Error, Message, Payload, Subscriber};

use crate::{
    fan::{OVERRUN, join},
    support::{
        script::Random,
        short_or_long,
        threads::{SOON, bounded_by},
    },
};

const RING: usize = 32 << 10;
const MOST: usize = 7000;

/// The contents of all messages, known to both sides.
struct Book {
    bytes: Vec<u8>,
    fds: bool,
}

impl Book {
    fn new(fds: bool) -> Self {
        Self { bytes: Random(7).bytes(4 * MOST), fds }
    }

    /// Control bytes, payload, and number of descriptors of a message.
    fn parts(&self, sequence: u64) -> (&[u8], Option<&[u8]>, usize) {
        let mut random = Random(sequence);
        let lengths = [0, 1, 63, 64, 65, 500, 1024, 1025, 3000];
        let control = if random.below(2) == 0 { 0 } else { random.below(300) };
        let len = if random.below(3) == 0 { random.below(MOST) } else { random.one_of(&lengths) };
        let slice = |from: usize, len| &self.bytes[from..from + len];
        let control = slice(random.below(MOST), control);
        let payload = slice(random.below(2 * MOST), len);
        let fds = if self.fds && random.below(4) == 0 { 1 + random.below(2) } else { 0 };
        (control, (random.below(4) > 0).then_some(payload), fds)
    }

    /// Whether a message is what was published under its number.
    fn check(&self, message: &Message) {
        let (control, payload, fds) = self.parts(message.sequence());
        assert!(message.control() == control, "control bytes of {}", message.sequence());
        let received = message.payload().map(Payload::to_vec);
        assert!(received.as_deref() == payload, "payload of {}", message.sequence());
        assert_eq!(message.fds().len(), fds);
    }
}

/// One subscriber's count.
#[derive(Default)]
struct Count {
    received: u64,
    missed: u64,
    overrun: u64,
}

impl Count {
    fn note(&mut self, sequence: u64, missed: u64) {
        self.received += 1;
        self.missed += missed;
        // At any time, not only in the end. A message that was overrun while it was read is told with the next one.
        assert_eq!(self.received + self.missed, sequence + 1);
    }

    /// One call, of any kind. False at the end.
    fn receive(&mut self, subscriber: &mut Subscriber, book: &Book, random: &mut Random) -> bool {
        let result = match random.below(8) {
            0 => subscriber.recv_latest_timeout(Duration::from_millis(1)).map(Some),
            1 => subscriber.try_recv_latest(),
            2..4 => subscriber.try_recv(),
            4 => {
                let read = subscriber.recv_with_timeout(SOON, |message| {
                    let payload = message.payload().map(|payload| payload.to_vec());
                    (message.sequence(), message.missed(), message.control().to_vec(), payload)
                });
                match read {
                    Ok(Some((sequence, missed, control, payload))) => {
                        self.note(sequence, missed);
                        let (its_control, its_payload, _) = book.parts(sequence);
                        assert!(control == its_control, "control bytes of {sequence}");
                        assert!(payload.as_deref() == its_payload, "payload of {sequence}, read in place");
                        return true;
                    }
                    Ok(None) => {
                        self.overrun += 1;
                        return true;
                    }
                    Err(error) => Err(error),
                }
            }
            _ => subscriber.recv_timeout(SOON).map(Some),
        };
        match result {
            Ok(Some(message)) => {
                self.note(message.sequence(), message.missed());
                book.check(&message);
                true
            }
            Ok(None) | Err(Error::Timeout) => true,
            // Behind the newest there may be messages without a payload.
            Err(Error::Disconnected) => match subscriber.try_recv() {
                Ok(Some(message)) => {
                    self.note(message.sequence(), message.missed());
                    book.check(&message);
                    true
                }
                Err(Error::Disconnected) => {
                    self.missed = subscriber.missed();
                    false
                }
                other => panic!("{other:?}"),
            },
            Err(error) => panic!("{error}"),
        }
    }
}

fn overruns(count: u64, fds: bool) {
    let _guard = bounded_by(20 * SOON);
    let seed = Random::seed();
    println!("SEED={seed}");
    let builder = Builder::default().ring_capacity(RING).max_control(300).max_fds(4).slow(OVERRUN);
    let mut publisher = builder.publisher().unwrap();
    let book = Arc::new(Book::new(fds));
    let readers: Vec<_> = (0..2)
        .map(|n| {
            let (mut subscriber, book) = (join(&mut publisher, &builder).1, Arc::clone(&book));
            thread::spawn(move || {
                let (mut count, mut random) = (Count::default(), Random(seed + n));
                while count.receive(&mut subscriber, &book, &mut random) {
                    // Pauses of all lengths: in most of them it is overrun.
                    if random.below(50) == 0 {
                        (0..random.below(30_000)).for_each(|_| std::hint::spin_loop());
                    }
                }
                count
            })
        })
        .collect();
    let file = std::fs::File::open("/dev/null").unwrap();
    for sequence in 0..count {
        let (control, payload, fds) = book.parts(sequence);
        let control = Control::new(control).fds((0..fds).map(|_| &file));
        match payload {
            None => publisher.send(control).unwrap(),
            Some(payload) => {
                let mut loan = publisher.loan(payload.len()).unwrap();
                loan.copy_from_slice(payload);
                loan.send_with(control).unwrap();
            }
        }
        if sequence % 64 == 0 {
            thread::yield_now();
        }
    }
    assert_eq!(publisher.stats().waits_for_space, 0, "nobody is waited for");
    drop(publisher);
    for reader in readers {
        let Count { received, missed, overrun } = reader.join().unwrap();
        println!("{received} received, {missed} missed, {overrun} overrun in place");
        assert_eq!(received + missed, count);
        assert!(received > 0);
    }
}

#[test]
fn received_and_missed_make_up_what_was_published() {
    overruns(short_or_long(40_000, 1_000_000), false);
}

#[test]
fn gaps_are_exact_with_descriptors_too() {
    overruns(short_or_long(20_000, 200_000), true);
}

/// The publisher changes the bytes again and again while one message is read: it is not taken for whole.
#[test]
fn torn_payloads_are_never_taken_for_whole() {
    let _guard = bounded_by(10 * SOON);
    let builder = Builder::default().ring_capacity(RING).slow(OVERRUN);
    let mut publisher = builder.publisher().unwrap();
    let mut subscriber = join(&mut publisher, &builder).1;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut sequence = 0_u64;
            while !stop.load(Relaxed) {
                let mut loan = publisher.loan(4096).unwrap();
                loan.fill(sequence.to_le_bytes()[0]);
                // Loans that are not sent are written to, too.
                if !sequence.is_multiple_of(3) {
                    loan.send_with(&sequence.to_le_bytes()).unwrap();
                }
                sequence += 1;
            }
        }
    });
    for _ in 0..short_or_long(5000, 200_000) {
        let message = subscriber.recv_timeout(SOON).unwrap();
        let number: [u8; 8] = message.control().try_into().unwrap();
        assert!(message.payload().unwrap().to_vec() == vec![number[0]; 4096]);
    }
    stop.store(true, Relaxed);
    publishing.join().unwrap();
}
