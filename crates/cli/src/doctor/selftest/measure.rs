//! The figures of the self-test. What moves is compared too.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::system::sysinfo;
use sealane::Channel;

use super::{
    Clock, MEASURE, Tried,
    child::{DATA, ECHO, SUM},
    pin,
};
use crate::doctor::{processors::usable, report::Figure};

/// Bytes of the payload of a round trip.
const SMALL: usize = 64;
/// Round trips between two looks at the clock.
const TRIPS: u32 = 50;
/// Samples that are kept at most.
const MOST_SAMPLES: usize = 10_000;

/// Measures round trips and streams.
pub(super) fn speed(channel: &mut Channel, clock: Clock) -> Result<Tried> {
    let cpus = usable();
    let kept = pin::Parent::keep();
    let figures = vec![
        Figure {
            name: "round_trip_64",
            value: round_trip(channel, clock)?,
            unit: "µs a round trip of 64 bytes",
        },
        Figure {
            name: "stream_64k",
            value: stream(channel, clock, 64 << 10)?,
            unit: "GiB/s in payloads of 64 KiB",
        },
        Figure {
            name: "stream_1m",
            value: stream(channel, clock, 1 << 20)?,
            unit: "GiB/s in payloads of 1 MiB",
        },
    ];
    let place =
        if kept.is_alone() { "each process on a CPU of its own" } else { "both processes on one CPU" };
    let load = load();
    let busy = cpus
        .is_some_and(|cpus| load >= f64::from(cpus))
        .then(|| format!("the machine is busy (load {load:.1}): it can do better"));
    let debug = cfg!(debug_assertions).then(|| "a debug build: the figures say nothing".to_owned());
    let said: Vec<_> = [Some(place.to_owned()), busy, debug].into_iter().flatten().collect();
    Ok((said.join("; "), figures))
}

/// Processes that ran or waited for a CPU, in the mean of the last minute.
#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn load() -> f64 {
    // In units of 1/65,536 (`SI_LOAD_SHIFT`, `sysinfo(2)`).
    let [last_minute, ..] = sysinfo().loads;
    last_minute as f64 / 65_536.0
}

/// Microseconds from sending a small payload to its answer: the median of samples, of which the first warm up.
fn round_trip(channel: &mut Channel, clock: Clock) -> Result<f64> {
    let mut samples = Vec::new();
    let began = Instant::now();
    while samples.len() < 3 || (began.elapsed() < MEASURE && samples.len() < MOST_SAMPLES) {
        let sample = Instant::now();
        for _ in 0..TRIPS {
            let mut loan = channel.sender.loan_timeout(SMALL, clock.wait())?;
            loan.fill(7);
            loan.send_with(&[ECHO])?;
            let answer = channel.recv_timeout(clock.wait()).context("no answer in a round trip")?;
            let len = answer.payload().map_or(0, sealane::Payload::len);
            ensure!(len == SMALL, "expected {SMALL} bytes in a round trip, found {len}");
        }
        samples.push(sample.elapsed().as_secs_f64() * 1e6 / f64::from(TRIPS));
    }
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().context("no round trip was made")
}

/// GiB/s of a stream of which this process writes, and the child reads, every byte.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn stream(channel: &mut Channel, clock: Clock, len: usize) -> Result<f64> {
    let (mut total, mut expected) = (0_u64, 0_u64);
    let began = Instant::now();
    for number in (0_u8..=u8::MAX).cycle() {
        if total > 0 && began.elapsed() > MEASURE {
            break;
        }
        let round = if len < 1 << 20 { 16 } else { 1 };
        for _ in 0..round {
            let mut loan = channel.sender.loan_timeout(len, clock.wait()).context("no room in the ring")?;
            loan.fill(number);
            loan.send_with(&[DATA])?;
            total += len as u64;
            let word = u64::from_ne_bytes([number; 8]);
            expected = expected.wrapping_add(word.wrapping_mul(len as u64 / 8));
        }
    }
    channel.sender.send_timeout(&[SUM], clock.wait())?;
    let answer = channel.recv_timeout(clock.wait()).context("no sum of a stream")?;
    let took = began.elapsed();
    let right = [total.to_le_bytes(), expected.to_le_bytes()].concat();
    ensure!(answer.control() == right, "the child has read other bytes than were sent");
    Ok(total as f64 / f64::from(1_u32 << 30) / took.as_secs_f64())
}
