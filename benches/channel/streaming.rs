//! Payloads by size: handed over untouched, which must not cost more the larger they are, and streamed, with every byte
//! written and every byte read.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use sealane::{Channel, Payload};

use crate::{
    cpus::{Pinned, beside},
    endpoints::{bytes, one_way, ring_for},
    reading::sum_in_eight,
};

const SIZES: [usize; 6] = [64, 4 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20];

/// Whether the bytes are written and read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Nothing,
    EveryByte,
}

pub(crate) fn hand_off(c: &mut Criterion) {
    in_one_thread(c);
    between_threads(c, "hand_off", Touch::Nothing);
}

pub(crate) fn stream(c: &mut Criterion) {
    between_threads(c, "stream", Touch::EveryByte);
}

/// Loan, send, receive and release, one after the other.
fn in_one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand_off");
    for size in SIZES {
        let ring = ring_for(size);
        let mut ends = None;
        let id = BenchmarkId::new(format!("threads=1,ring={}", bytes(ring)), bytes(size));
        group.bench_function(id, |bench| {
            let (a, b) = ends.get_or_insert_with(|| one_way(ring));
            let mut round = || {
                a.loan(size).unwrap().send().unwrap();
                b.recv().unwrap().payload().unwrap().len()
            };
            assert_eq!(round(), size);
            bench.iter(round);
        });
    }
    group.finish();
}

fn between_threads(c: &mut Criterion, name: &str, touch: Touch) {
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    for size in SIZES {
        let ring = ring_for(size);
        let mut stream = None;
        if touch == Touch::EveryByte {
            group.throughput(Throughput::Bytes(size as u64));
        }
        let id = BenchmarkId::new(format!("threads=2,ring={}", bytes(ring)), bytes(size));
        group.bench_function(id, |bench| {
            let stream = stream.get_or_insert_with(|| Stream::new(size, ring, touch));
            stream.batch(1);
            bench.iter_custom(|count| stream.batch(count));
        });
    }
    group.finish();
}

/// A sender here, and a reader in another thread, which checks each message.
struct Stream {
    sender: Option<Channel>,
    reader: Option<JoinHandle<()>>,
    size: usize,
    touch: Touch,
    /// Messages sent.
    number: u64,
}

/// Goes with the last message of a batch, which the reader then acknowledges.
const LAST: &[u8] = b"last";

impl Stream {
    fn new(size: usize, ring: usize, touch: Touch) -> Self {
        let (sender, mut reader) = one_way(ring);
        let reader = beside(move || {
            let mut number = 0;
            while let Ok(message) = reader.recv() {
                number += 1;
                check(message.payload().unwrap(), size, touch, number);
                if message.control() == LAST {
                    drop(message);
                    reader.loan(0).unwrap().send().unwrap();
                }
            }
        });
        Self { sender: Some(sender), reader: Some(reader), size, touch, number: 0 }
    }

    /// Sends `count` messages, and measures the time until the reader is done with the last.
    fn batch(&mut self, count: u64) -> Duration {
        let _pinned = Pinned::first();
        let sender = self.sender.as_mut().unwrap();
        let started = Instant::now();
        for left in (0..count).rev() {
            self.number += 1;
            let mut loan = sender.loan_slice::<u64>(self.size / 8).unwrap();
            if self.touch == Touch::EveryByte {
                loan.fill(pattern(self.number));
            }
            if left == 0 { loan.send_with(LAST) } else { loan.send() }.unwrap();
        }
        sender.recv().unwrap();
        started.elapsed()
    }
}

impl Drop for Stream {
    /// Ends the reader with its channel, and reports the fault that it found.
    fn drop(&mut self) {
        self.sender = None;
        let result = self.reader.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking(), "the reader has found a wrong message");
    }
}

/// The word that message `number` consists of.
fn pattern(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check(payload: &Payload, size: usize, touch: Touch, number: u64) {
    assert_eq!(payload.len(), size);
    if touch == Touch::EveryByte {
        let words = payload.shared::<u64>().unwrap();
        assert_eq!(sum_in_eight(words), pattern(number).wrapping_mul(words.len() as u64), "message {number}");
    }
}
