//! Both handshakes and all memory of a channel.

use criterion::{BatchSize, BenchmarkId, Criterion};
use sealane::{Builder, Channel};

use crate::{
    cpus::{Pinned, beside},
    ends::{bytes, pair},
};

const RINGS: [usize; 4] = [0, 4 << 10, 64 << 10, 4 << 20];

pub(crate) fn establish(c: &mut Criterion) {
    let mut group = c.benchmark_group("establish");
    for ring in RINGS {
        group.bench_function(BenchmarkId::new("pair", format!("ring={}", bytes(ring))), |bench| {
            assert_eq!(pair(ring).0.limits().max_payload, (ring / 2).saturating_sub(1088));
            bench.iter_batched(|| (), |()| pair(ring), BatchSize::PerIteration);
        });
    }
    // A client that connects, and is accepted by another thread.
    for ring in RINGS {
        let id = BenchmarkId::new("connect,threads=2", format!("ring={}", bytes(ring)));
        group.bench_function(id, |bench| connect(&Channel::builder().ring_capacity(ring), bench, ring));
    }
    group.finish();
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
