//! A loan as `io::Write` and a payload as `io::Read`, byte by byte and under a serde format, compared with plain memory.

use std::{
    hint::black_box,
    io::{Read, Write},
};

use criterion::{BenchmarkId, Criterion, Throughput};

use crate::endpoints::{bytes, one_way};

const SIZE: usize = 64 << 10;

fn numbers() -> Vec<u8> {
    (0..251).cycle().take(SIZE).collect()
}

fn write_one_by_one(to: &mut impl Write, bytes: &[u8]) {
    for byte in bytes {
        to.write_all(&[*byte]).unwrap();
    }
}

fn sum_one_by_one(from: &mut impl Read) -> u64 {
    let mut byte = [0];
    (0..SIZE).fold(0, |sum, _| {
        from.read_exact(&mut byte).unwrap();
        sum + u64::from(byte[0])
    })
}

pub(crate) fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("serial");
    let plain = numbers();
    let sum = plain.iter().copied().map(u64::from).sum::<u64>();
    let (mut a, mut b) = one_way(4 * SIZE);
    group.throughput(Throughput::Bytes(SIZE as u64));

    let mut vec = Vec::with_capacity(SIZE);
    group.bench_function(BenchmarkId::new("write_bytes,vec", bytes(SIZE)), |bench| {
        bench.iter(|| {
            vec.clear();
            write_one_by_one(black_box(&mut vec), &plain);
        });
    });
    group.bench_function(BenchmarkId::new("write_bytes,loan", bytes(SIZE)), |bench| {
        let mut writer = a.loan(SIZE).unwrap().writer();
        write_one_by_one(&mut writer, &plain);
        writer.send().unwrap();
        assert_eq!(b.recv().unwrap().payload().unwrap().to_vec(), plain);
        bench.iter(|| write_one_by_one(black_box(&mut a.loan(SIZE).unwrap().writer()), &plain));
    });
    let mut loan = a.loan(SIZE).unwrap();
    loan.copy_from_slice(&plain);
    loan.send().unwrap();
    let payload = b.recv().unwrap().take_payload().unwrap();
    group.bench_function(BenchmarkId::new("read_bytes,slice", bytes(SIZE)), |bench| {
        bench.iter(|| sum_one_by_one(black_box(&mut &plain[..])));
    });
    group.bench_function(BenchmarkId::new("read_bytes,payload", bytes(SIZE)), |bench| {
        assert_eq!(sum_one_by_one(&mut payload.reader()), sum);
        bench.iter(|| sum_one_by_one(black_box(&mut payload.reader())));
    });
    group.bench_function(BenchmarkId::new("read_to_end,payload", bytes(SIZE)), |bench| {
        let mut all = Vec::with_capacity(SIZE);
        bench.iter(|| {
            all.clear();
            payload.reader().read_to_end(black_box(&mut all)).unwrap()
        });
        assert_eq!(all, plain);
    });

    let floats: Vec<f32> = (0..16_000_u16).map(f32::from).collect();
    group.throughput(Throughput::Bytes(4 * floats.len() as u64));
    group.bench_function("postcard,vec", |bench| {
        bench.iter(|| {
            vec.clear();
            postcard::to_io(black_box(&floats), &mut vec).unwrap();
            postcard::from_bytes::<Vec<f32>>(&vec).unwrap()
        });
    });
    drop(payload);
    group.bench_function("postcard,channel", |bench| {
        let mut scratch = [0; 8];
        let mut move_one = || -> Vec<f32> {
            let mut writer = a.loan(SIZE).unwrap().writer();
            postcard::to_io(black_box(&floats), &mut writer).unwrap();
            writer.send().unwrap();
            let message = b.recv().unwrap();
            postcard::from_io((message.payload().unwrap().reader(), &mut scratch)).unwrap().0
        };
        assert_eq!(move_one(), floats);
        bench.iter(move_one);
    });
    group.finish();
}
