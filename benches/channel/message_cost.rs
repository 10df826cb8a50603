//! The steps of a message with a payload, one by one, of which only one is timed. Both sides are awake, and the payload is
//! not touched.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use sealane::{Channel, Loan, Message};

use crate::endpoints::{bytes, one_way};

/// So many channels take each step, one after the other, between two looks at the clock: one look is as long as a step.
/// More would contend for the same lines of the first-level cache, as their rings and control pages begin with a page.
const AT_ONCE: u32 = 8;
const RING: usize = 4 << 20;

/// Step by step, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Loan,
    Send,
    Recv,
    Release,
}

pub(crate) fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    let mut ends = None;
    for size in [64, 64 << 10] {
        for (name, step) in
            [("loan", Step::Loan), ("send", Step::Send), ("recv", Step::Recv), ("release", Step::Release)]
        {
            let id = BenchmarkId::new(format!("{name},ring={}", bytes(RING)), bytes(size));
            group.bench_function(id, |bench| {
                let ends: &mut Vec<_> =
                    ends.get_or_insert_with(|| (0..AT_ONCE).map(|_| one_way(RING)).collect());
                bench.iter_custom(|rounds| {
                    let spent: Duration = (0..rounds).map(|_| round(ends, size, step)).sum();
                    spent / AT_ONCE
                });
            });
        }
    }
    group.finish();
}

/// One message through each channel; how long `timed` took for all of them.
fn round(ends: &mut [(Channel, Channel)], size: usize, timed: Step) -> Duration {
    let mut spent = Duration::ZERO;
    let mut time = |step, started: Instant| {
        if step == timed {
            spent = started.elapsed();
        }
    };
    let (senders, mut receivers): (Vec<_>, Vec<_>) = ends.iter_mut().map(|(a, b)| (a, b)).unzip();
    let mut loans = Vec::<Loan<'_>>::with_capacity(senders.len());
    let mut messages = Vec::<Message>::with_capacity(senders.len());

    let started = Instant::now();
    loans.extend(senders.into_iter().map(|sender| sender.loan(size).unwrap()));
    time(Step::Loan, started);

    let started = Instant::now();
    loans.drain(..).for_each(|loan| loan.send().unwrap());
    time(Step::Send, started);

    let started = Instant::now();
    messages.extend(receivers.iter_mut().map(|receiver| receiver.recv().unwrap()));
    time(Step::Recv, started);
    assert!(black_box(&messages).iter().all(|message| message.payload().unwrap().len() == size));

    let started = Instant::now();
    messages.clear();
    time(Step::Release, started);
    spent
}
