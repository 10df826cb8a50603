//! Small messages of each kind, and round trips.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use sealane::{Channel, Control};

use crate::{
    cpus::{Pinned, beside},
    endpoints::pair,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// From sending to dropping, in one thread that never sleeps: by ring with a typed header, by socket, with descriptors.
pub(crate) fn kinds(c: &mut Criterion) {
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

/// A question and its answer between two threads that are awake: a call, control bytes, and payloads of 64 bytes.
pub(crate) fn round_trips(c: &mut Criterion) {
    let mut group = c.benchmark_group("round_trip");
    let (mut a, b) = pair(1 << 20);
    let answering = beside(|| answer(b));

    let mut call = || a.call(b"question", TIMEOUT).unwrap();
    assert_eq!(call().control(), b"question");
    group.bench_function("call", |bench| {
        let _pinned = Pinned::first();
        bench.iter(|| drop(call()));
    });
    let mut control = || {
        a.send(b"there").unwrap();
        a.recv().unwrap()
    };
    assert_eq!(control().control(), b"there");
    group.bench_function("control", |bench| {
        let _pinned = Pinned::first();
        bench.iter(|| drop(control()));
    });
    let mut payload = || {
        let mut loan = a.loan_slice::<u64>(8).unwrap();
        loan.fill(7);
        loan.send().unwrap();
        a.recv().unwrap().payload().unwrap().read::<u64>(0).unwrap()
    };
    assert_eq!(payload(), 8);
    group.bench_function("payload", |bench| {
        let _pinned = Pinned::first();
        bench.iter(&mut payload);
    });
    drop(a);
    answering.join().unwrap();
    group.finish();
}

/// Answers each message with one of its kind.
fn answer(mut channel: Channel) {
    while let Ok(message) = channel.recv() {
        match (message.reply_token(), message.payload()) {
            (Some(token), _) => channel.reply(token, message.control()).unwrap(),
            (None, None) => channel.send(message.control()).unwrap(),
            (None, Some(payload)) => {
                let asked: u64 = payload.read(0).unwrap();
                drop(message);
                let mut loan = channel.loan_slice::<u64>(8).unwrap();
                loan.fill(asked + 1);
                loan.send().unwrap();
            }
        }
    }
}
