//! How much of a publisher that does nothing but publish is recorded. It measures, and judges nothing:
//!
//! ```sh
//! TMPDIR=/dev/shm cargo test --release --package sealane-cli --test recording -- flat_out --ignored --nocapture
//! ```

use std::{
    fs,
    time::{Duration, Instant},
};

use sealane::Builder;

use crate::support::{Place, report};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const RING: usize = 32 << 20;

/// The figures of a round: messages, and seconds.
struct Round {
    published: f64,
    recorded: f64,
    time: f64,
    /// The time that the recorder has used a processor.
    busy: f64,
}

fn round(len: usize) -> Round {
    let place = Place::new();
    let mut publisher = Builder::default().ring_capacity(RING).publish(&place.path).unwrap();
    let busy = busy_children();
    let child = place.record(&mut publisher, &[]);
    let (start, mut sent) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        // Some tens of microseconds between two looks at the clock.
        for _ in 0..((256 << 10) / len).max(1) {
            let mut loan = publisher.loan(len).unwrap();
            loan.fill(7);
            loan.send().unwrap();
            sent += 1;
        }
    }
    let time = start.elapsed().as_secs_f64();
    drop(publisher);
    let report = report(child);
    let count = |name: &str| report[name].as_u64().unwrap();
    let told = count("messages") + count("missed") + count("missed_at_end");
    assert_eq!(told, u64::from(sent), "received and missed are what was published");
    let recorded = report["messages"].as_f64().unwrap();
    Round { published: sent.into(), recorded, time, busy: busy_children() - busy }
}

/// The time for which children that have ended used a processor, in seconds: `proc_pid_stat(5)`.
fn busy_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let a_second = rustix::param::clock_ticks_per_second() as f64;
    ticks / a_second
}

#[test]
#[ignore = "it measures, for docs/tools.md"]
fn share_of_a_publisher_that_never_pauses() {
    for len in [64_u32, 64 << 10, 3 << 20] {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| round(len as usize)).collect();
        let median = |of: fn(&Round) -> f64| {
            let mut values: Vec<_> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let gib = |messages: f64| messages * f64::from(len) / f64::from(1 << 30);
        let published = median(|round| round.published / round.time);
        let recorded = median(|round| round.recorded / round.time);
        let of_busy = median(|round| round.recorded / round.busy);
        println!(
            "{len} bytes: published {published:.0}/s, {:.2} GiB/s; recorded {recorded:.0}/s, {:.2} GiB/s; \
             of each second of its processor {of_busy:.0}, {:.2} GiB",
            gib(published),
            gib(recorded),
            gib(of_busy)
        );
    }
}
