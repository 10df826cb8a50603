//! What the steps of a message cost, within one process: both ends of a pair, no second CPU, no sleeping; what needs somebody
//! who answers has a second thread.
//!
//! `cargo bench`. Every benchmark first asserts that what it moves is right.

use std::{hint::black_box, thread, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealane::{Channel, Control, Payload};

fn pair(capacity: usize) -> (Channel, Channel) {
    Channel::builder().ring_capacity(capacity).max_peer_ring_capacity(capacity).pair().unwrap()
}

/// A message from loan to release, by the size of a payload that nobody touches: the cost must not grow.
fn hand_off(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand_off");
    for size in [64, 4 << 10, 64 << 10, 1 << 20, 16 << 20] {
        let (mut a, mut b) = pair(4 * size);
        let mut round = || {
            a.loan(size).unwrap().send().unwrap();
            b.recv().unwrap().payload().unwrap().len()
        };
        assert_eq!(round(), size);
        group.bench_function(BenchmarkId::from_parameter(size), |bench| bench.iter(&mut round));
    }
    group.finish();
}

/// The kinds of messages, small: by ring, by ring with a typed header, by socket, with a descriptor.
fn kinds(c: &mut Criterion) {
    let mut group = c.benchmark_group("message");
    let builder = Channel::builder().ring_capacity(1 << 20).max_fds(253);
    let (mut a, mut b) = builder.pair().unwrap();
    let header = [1_u64, 2, 3];
    let mut with_header = || {
        a.loan(64).unwrap().send_with(Control::of(&header)).unwrap();
        b.recv().unwrap()
    };
    assert_eq!(with_header().control_as::<[u64; 3]>().unwrap(), &header);
    group.bench_function("payload_and_header", |bench| bench.iter(|| drop(with_header())));
    let mut control = || {
        a.send(b"control").unwrap();
        b.recv().unwrap()
    };
    assert_eq!(control().control(), b"control");
    group.bench_function("control", |bench| bench.iter(|| drop(control())));
    for count in [1, 16, 64, 253] {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut with_fds = || {
            a.send(Control::new(b"files").fds(std::iter::repeat_n(&file, count))).unwrap();
            b.recv().unwrap()
        };
        assert_eq!(with_fds().fds().len(), count);
        group.bench_function(BenchmarkId::new("fds", count), |bench| bench.iter(|| drop(with_fds())));
    }
    group.finish();
}

/// A question and its answer between two threads that are awake: as a call, and as payloads of 64 bytes.
fn round_trips(c: &mut Criterion) {
    let mut group = c.benchmark_group("round_trip");
    let (mut a, mut b) = pair(1 << 20);
    let answering = thread::spawn(move || {
        while let Ok(mut message) = b.recv() {
            match (message.reply_token(), message.take_payload()) {
                (Some(token), _) => b.reply(token, message.control()).unwrap(),
                (None, payload) => {
                    let asked: u64 = payload.unwrap().read(0).unwrap();
                    let mut loan = b.loan_slice::<u64>(8).unwrap();
                    loan.fill(asked + 1);
                    loan.send().unwrap();
                }
            }
        }
    });
    let mut call = || a.call(b"question", Duration::from_secs(5)).unwrap();
    assert_eq!(call().control(), b"question");
    group.bench_function("call", |bench| bench.iter(|| drop(call())));
    let mut payload = || {
        let mut loan = a.loan_slice::<u64>(8).unwrap();
        loan.fill(7);
        loan.send().unwrap();
        a.recv().unwrap().payload().unwrap().read::<u64>(0).unwrap()
    };
    assert_eq!(payload(), 8);
    group.bench_function("payload", |bench| bench.iter(&mut payload));
    drop(a);
    answering.join().unwrap();
    group.finish();
}

/// A way to read a payload.
type Way = fn(&Payload) -> u64;

/// Reading a payload, in each way, beside a plain slice of the same bytes.
fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum_of_u64");
    for size in [4 << 10, 256 << 10] {
        let (mut a, mut b) = pair(2 * size);
        let mut loan = a.loan_slice::<u64>(size / 8).unwrap();
        for (value, i) in loan.iter_mut().zip(1..) {
            *value = i;
        }
        let plain = loan.to_vec();
        loan.send().unwrap();
        let payload = b.recv().unwrap().take_payload().unwrap();
        let expected = plain.iter().sum::<u64>();

        let ways: [(&str, Way); 4] = [
            ("array_chunks", |payload| {
                let chunks = payload.shared::<u64>().unwrap().array_chunks::<8>();
                chunks.fold(0, |sum, chunk| chunk.iter().fold(sum, |sum, value| sum.wrapping_add(*value)))
            }),
            ("for_each_block", |payload| {
                let mut sum = 0_u64;
                let values = payload.shared::<u64>().unwrap();
                values.for_each_block(|block| {
                    sum = block.iter().fold(sum, |sum, value| sum.wrapping_add(*value));
                });
                sum
            }),
            ("iter", |payload| payload.shared::<u64>().unwrap().iter().fold(0, u64::wrapping_add)),
            ("get", |payload| {
                let values = payload.shared::<u64>().unwrap();
                (0..values.len()).filter_map(|i| values.get(i)).fold(0, u64::wrapping_add)
            }),
        ];
        group.throughput(Throughput::Bytes(size as u64));
        let sum = |plain: &[u64]| plain.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
        group.bench_function(BenchmarkId::new("plain_slice", size), |bench| {
            bench.iter(|| sum(black_box(&plain)));
        });
        for (name, way) in ways {
            assert_eq!(way(&payload), expected, "{name}");
            group.bench_function(BenchmarkId::new(name, size), |bench| {
                bench.iter(|| way(black_box(&payload)));
            });
        }
        let mut copy = vec![0; size];
        payload.copy_to_slice(&mut copy).unwrap();
        assert_eq!(copy, payload.to_vec());
        group.bench_function(BenchmarkId::new("copy_to_slice", size), |bench| {
            bench.iter(|| payload.copy_to_slice(black_box(&mut copy)).unwrap());
        });
    }
    group.finish();
}

/// Both handshakes and all memory of a pair.
fn establishing(c: &mut Criterion) {
    let mut group = c.benchmark_group("establish");
    for capacity in [0, 64 << 10, 4 << 20] {
        assert_eq!(pair(capacity).0.limits().max_payload, capacity.saturating_sub(64));
        group.bench_function(BenchmarkId::new("pair", capacity), |bench| {
            bench.iter_batched(|| (), |()| pair(capacity), BatchSize::PerIteration);
        });
    }
    // A client that connects and is accepted by another thread, with rings of one page.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let builder = Channel::builder().ring_capacity(4096);
    let listener = builder.listen(&path).unwrap();
    let accepting = thread::spawn(move || {
        // Until a client says that it was the last.
        while listener.accept().unwrap().recv().is_err() {}
    });
    assert_eq!(builder.connect(&path).unwrap().limits().max_payload, 4096 - 64);
    group.bench_function("connect", |bench| {
        bench.iter_batched(|| (), |()| builder.connect(&path).unwrap(), BatchSize::PerIteration);
    });
    builder.connect(&path).unwrap().send(b"last").unwrap();
    accepting.join().unwrap();
    group.finish();
}

criterion_group!(benches, hand_off, kinds, round_trips, reading, establishing);
criterion_main!(benches);
