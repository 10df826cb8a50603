//! Reading a payload, in each way, and of a plain slice of the same bytes for comparison.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use sealane::{Builder, Payload, SharedSlice};

use crate::endpoints::{bytes, one_way};

/// Bytes to read: they fit the first-level cache, the second-level one, or memory only.
const SIZES: [usize; 3] = [4 << 10, 256 << 10, 64 << 20];

/// Eight words at a time, in eight sums: a single one would be waited for by each addition.
pub(crate) fn sum_in_eight(words: SharedSlice<'_, u64>) -> u64 {
    let mut sums = [0_u64; 8];
    let mut chunks = words.array_chunks::<8>();
    for chunk in chunks.by_ref() {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(word);
        }
    }
    chunks.remainder().iter().chain(sums).fold(0, u64::wrapping_add)
}

fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// A way to read a payload.
type Way = fn(SharedSlice<'_, u64>) -> u64;

const WAYS: [(&str, Way); 6] = [
    ("array_chunks,sums=8", sum_in_eight),
    ("array_chunks,sums=1", |words| {
        words
            .array_chunks::<8>()
            .fold(0, |sum, chunk| chunk.iter().fold(sum, |sum, word| sum.wrapping_add(*word)))
    }),
    ("for_each_block", |words| {
        let mut total = 0_u64;
        words.for_each_block(|block| total = total.wrapping_add(sum(block)));
        total
    }),
    ("iter", |words| words.iter().fold(0, u64::wrapping_add)),
    ("for_loop", |words| {
        let mut total = 0_u64;
        for word in words {
            total = total.wrapping_add(word);
        }
        total
    }),
    ("get", |words| (0..words.len()).filter_map(|i| words.get(i)).fold(0, u64::wrapping_add)),
];

/// A received payload of `size` bytes, and a private copy.
fn received(size: usize) -> (Payload, Vec<u64>) {
    let (mut a, mut b) = one_way(Builder::ring_for(size, 0));
    let mut loan = a.loan_slice::<u64>(size / 8).unwrap();
    for (value, i) in loan.iter_mut().zip(1..) {
        *value = i;
    }
    let plain = loan.to_vec();
    loan.send().unwrap();
    (b.recv().unwrap().take_payload().unwrap(), plain)
}

pub(crate) fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum_of_u64");
    for size in SIZES {
        let mut source = None;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("plain_slice", bytes(size)), |bench| {
            let (_, plain) = source.get_or_insert_with(|| received(size));
            bench.iter(|| sum(black_box(plain)));
        });
        for (name, way) in WAYS {
            group.bench_function(BenchmarkId::new(name, bytes(size)), |bench| {
                let (payload, plain) = source.get_or_insert_with(|| received(size));
                assert_eq!(way(payload.shared().unwrap()), sum(plain), "{name}");
                bench.iter(|| way(black_box(&*payload).shared().unwrap()));
            });
        }
    }
    group.finish();
}

/// Adds the bytes of `words` to a table of how often each occurs: a function that takes a slice, and does some work for it.
fn count(table: &mut [u32; 256], words: &[u64]) {
    for byte in words.iter().flat_map(|word| word.to_ne_bytes()) {
        table[usize::from(byte)] = table[usize::from(byte)].wrapping_add(1);
    }
}

pub(crate) fn histograms(c: &mut Criterion) {
    let mut group = c.benchmark_group("histogram_of_bytes");
    for size in SIZES {
        let mut source = None;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("plain_slice", bytes(size)), |bench| {
            let (_, plain) = source.get_or_insert_with(|| received(size));
            bench.iter(|| {
                let mut table = [0; 256];
                count(&mut table, black_box(plain));
                table
            });
        });
        group.bench_function(BenchmarkId::new("for_each_block", bytes(size)), |bench| {
            let (payload, plain) = source.get_or_insert_with(|| received(size));
            let shared = |payload: &Payload| {
                let mut table = [0; 256];
                payload.shared().unwrap().for_each_block(|block| count(&mut table, block));
                table
            };
            let mut table = [0; 256];
            count(&mut table, plain);
            assert_eq!(shared(payload), table);
            bench.iter(|| shared(black_box(payload)));
        });
    }
    group.finish();
}

pub(crate) fn copies(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy");
    for size in SIZES {
        let mut source = None;
        let mut copy = Vec::new();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("plain_slice", bytes(size)), |bench| {
            let (_, plain) = source.get_or_insert_with(|| received(size));
            copy.resize(plain.len(), 0_u64);
            bench.iter(|| copy.copy_from_slice(black_box(plain)));
        });
        group.bench_function(BenchmarkId::new("copy_to_slice", bytes(size)), |bench| {
            let (payload, plain) = source.get_or_insert_with(|| received(size));
            copy.resize(plain.len(), 0);
            let words = payload.shared::<u64>().unwrap();
            words.copy_to_slice(&mut copy).unwrap();
            assert_eq!(copy, *plain);
            bench.iter(|| words.copy_to_slice(black_box(&mut copy)).unwrap());
        });
    }
    group.finish();
}
