//! Both handshakes and all memory of a channel, beside the kernel's part of it; and a worker process from its start to its
//! first word, beside one without a channel.

use std::{
    env,
    io::{Read, Write, stdout},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkId, Criterion};
use sealane::{Builder, Channel};

use crate::{
    cpus::{Pinned, beside},
    endpoints::{bytes, pair},
    kernel_floor::{Region, Way},
};

const RINGS: [usize; 5] = [0, 4 << 10, 64 << 10, 4 << 20, 64 << 20];
/// The first argument of a worker process.
const WORKER: &str = "establishing-worker";

pub(crate) fn establish(c: &mut Criterion) {
    let mut group = c.benchmark_group("establish");
    for ring in RINGS {
        group.sample_size(if ring > 4 << 20 { 20 } else { 100 });
        for (name, way) in [("kernel,populate_write", Way::Write), ("kernel,populate_read", Way::Read)] {
            group.bench_function(BenchmarkId::new(name, format!("ring={}", bytes(ring))), |bench| {
                // A ring has a control page in front of it.
                bench.iter_batched(
                    || (),
                    |()| [(); 2].map(|()| Region::new(4096 + ring, way)),
                    BatchSize::PerIteration,
                );
            });
        }
        group.bench_function(BenchmarkId::new("pair", format!("ring={}", bytes(ring))), |bench| {
            assert_eq!(pair(ring).0.limits().max_payload, (ring / 2).saturating_sub(1088));
            bench.iter_batched(|| (), |()| pair(ring), BatchSize::PerIteration);
        });
    }
    // A client that connects, and is accepted by another thread.
    for ring in RINGS {
        group.sample_size(if ring > 4 << 20 { 20 } else { 100 });
        let id = BenchmarkId::new("connect,threads=2", format!("ring={}", bytes(ring)));
        group.bench_function(id, |bench| connect(&builder(ring), bench, ring));
    }
    group.sample_size(50);
    let word = |mut child: Child| {
        let mut word = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ready");
        child
    };
    group.bench_function("process,pipe", |bench| start(bench, || word(worker(None).spawn().unwrap())));
    for ring in [0, 256 << 10, 4 << 20] {
        let builder = builder(ring);
        group.bench_function(BenchmarkId::new("process,spawn", format!("ring={}", bytes(ring))), |bench| {
            start(bench, || {
                let (mut channel, child) = builder.spawn(&mut worker(Some(ring))).unwrap();
                assert_eq!(channel.recv().unwrap().control(), b"ready");
                child
            });
        });
    }
    group.finish();
}

fn builder(ring: usize) -> Builder {
    Channel::builder().ring_capacity(ring).max_peer_ring_capacity(ring)
}

fn connect(builder: &Builder, bench: &mut criterion::Bencher<'_>, ring: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = builder.listen(&path).unwrap();
    // Until a client says that it was the last.
    let accepting = beside(move || while listener.accept().unwrap().recv().is_err() {});
    assert_eq!(builder.connect(&path).unwrap().limits().max_payload, (ring / 2).saturating_sub(1088));
    let pinned = Pinned::first();
    bench.iter_batched(|| (), |()| builder.connect(&path).unwrap(), BatchSize::PerIteration);
    drop(pinned);
    builder.connect(&path).unwrap().send(b"last").unwrap();
    accepting.join().unwrap();
}

/// Measures the start of a process, without its end.
fn start(bench: &mut criterion::Bencher<'_>, one: impl Fn() -> Child) {
    bench.iter_custom(|times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            let begun = Instant::now();
            let mut child = one();
            total += begun.elapsed();
            assert!(child.wait().unwrap().success());
        }
        total
    });
}

/// This program as a worker with a ring of `ring` bytes, or without a channel.
fn worker(ring: Option<usize>) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg(WORKER).args(ring.map(|ring| ring.to_string())).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Does a worker's work, in a process that [`worker`] started. False in any other.
pub(crate) fn work() -> bool {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(WORKER) {
        return false;
    }
    match arguments.next() {
        Some(ring) => {
            let mut channel = builder(ring.parse().unwrap()).inherited().unwrap();
            channel.send(b"ready").unwrap();
            assert!(channel.recv().is_err(), "the parent drops the channel");
        }
        None => stdout().write_all(b"ready").unwrap(),
    }
    true
}
