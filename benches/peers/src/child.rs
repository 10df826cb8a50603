//! One of the two processes of a cell: it connects, finds out how many messages fill the time, and measures that many.
//!
//! Counted is what was delivered: the time ends when the receiver has the last message.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::{
    process::{Pid, Signal, set_parent_process_death_signal},
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, LINK, Side, Work},
    link::Link,
    transports,
    work::{End, receive_checked, receive_control, receive_stream, send_control, send_filled, send_stream},
};

/// What one process measured.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Messages sent and received; for round trips, those of one direction.
    pub(crate) messages: u64,
    /// From the first message's beginning to the last one's arrival.
    pub(crate) seconds: f64,
    /// Of this process, user and system.
    pub(crate) cpu_seconds: f64,
    /// Times that this process went to sleep.
    pub(crate) sleeps: i64,
    /// Round trips, in nanoseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// A cell that takes longer than this is stuck.
const LIMIT: Duration = Duration::from_secs(30);
/// Calibration is good enough when it took this part of the time asked for.
const CALIBRATION: f64 = 0.2;
const FIRST_COUNT: u64 = 16;
/// Idle is for so many times as long as other work takes.
pub(crate) const IDLE: f64 = 25.0;

pub(crate) fn run(side: Side, cell: &Cell) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // SAFETY: `alarm(2)` has no requirements; its signal ends a process that is stuck.
    unsafe { libc::alarm((LIMIT.as_secs_f64() + 2.0 * IDLE * cell.seconds) as u32) };
    // SAFETY: the parent has put the link there (`Cell::start`), and nothing else in this process has taken it.
    let link = Link(unsafe { OwnedFd::from_raw_fd(LINK) });
    transports::run(side, cell, &link)
}

/// The whole life of a process, over one transport.
pub(crate) fn live<E: End>(side: Side, cell: &Cell, link: &Link) -> Result<()> {
    let core = usize::from(side == Side::Second && !cell.one_core);
    pin(core)?;
    // Both are pinned when they meet in the handshakes.
    link.meet()?;
    let mut end = E::establish(side, cell, link)?;
    link.meet()?;
    let part = match side {
        Side::First => lead(&mut end, cell, link)?,
        Side::Second => follow(&mut end, cell, link)?,
    };
    link.meet()?;
    serde_json::to_writer(std::io::stdout(), &part)?;
    Ok(std::io::stdout().flush()?)
}

/// The whole life of a process where only the first has something to measure.
pub(crate) fn alone(side: Side, measure: impl FnOnce() -> Part) -> Result<()> {
    let part = match side {
        Side::First => {
            pin(0)?;
            measure()
        }
        Side::Second => Part::default(),
    };
    Ok(serde_json::to_writer(std::io::stdout(), &part)?)
}

fn pin(core: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(core);
    Ok(sched_setaffinity(None::<Pid>, &cpus)?)
}

/// Decides how many messages there are: some to warm up, more until the rate is known, then as many as fill the time.
fn lead<E: End>(end: &mut E, cell: &Cell, link: &Link) -> Result<Part> {
    // To be idle is not calibrated.
    let mut last = cell.work == Work::Idle;
    let mut count = if last { 1 } else { FIRST_COUNT };
    loop {
        link.say(count)?;
        link.hear()?;
        let part = lead_batch(end, cell, link, count)?;
        if last {
            link.say(0)?;
            return Ok(part);
        }
        let fitting = count as f64 / part.seconds * cell.seconds;
        last = part.seconds > CALIBRATION * cell.seconds;
        count = if last { (fitting as u64).max(1) } else { (fitting as u64).clamp(count, 8 * count) };
    }
}

fn lead_batch<E: End>(end: &mut E, cell: &Cell, link: &Link, count: u64) -> Result<Part> {
    let mut times = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3)?;
    let (size, usage, start) = (cell.size, Usage::now()?, now());
    match cell.work {
        Work::Stream | Work::Small | Work::Handoff => {
            send_stream(end, size, count, cell.work != Work::Handoff)?;
        }
        Work::Roundtrip => {
            let mut before = Instant::now();
            for number in 0..count {
                send_filled(end, size, number)?;
                receive_checked(end, size, number)?;
                let after = Instant::now();
                times.saturating_record((after - before).as_nanos() as u64);
                before = after;
            }
        }
        Work::Control | Work::Fd => {
            let (mut bytes, file) = (vec![0; size], File::open("/dev/null")?);
            let fd = (cell.work == Work::Fd).then_some(file.as_fd());
            let mut before = Instant::now();
            for number in 0..count {
                send_control(end, &mut bytes, number, fd)?;
                receive_control(end, size, number, fd.is_some())?;
                let after = Instant::now();
                times.saturating_record((after - before).as_nanos() as u64);
                before = after;
            }
        }
        Work::Idle => {
            std::thread::sleep(Duration::from_secs_f64(IDLE * cell.seconds));
            send_filled(end, size, 0)?;
        }
    }
    let finish = link.hear()?;
    Ok(Part {
        messages: count,
        seconds: finish.saturating_sub(start) as f64 / 1e9,
        p50: times.value_at_quantile(0.5),
        p99: times.value_at_quantile(0.99),
        ..usage.since()?
    })
}

fn follow<E: End>(end: &mut E, cell: &Cell, link: &Link) -> Result<Part> {
    let mut part = Part::default();
    loop {
        let count = link.hear()?;
        if count == 0 {
            return Ok(part);
        }
        link.say(0)?;
        let (size, usage, start) = (cell.size, Usage::now()?, now());
        match cell.work {
            Work::Stream | Work::Small | Work::Handoff => {
                receive_stream(end, size, count, cell.work != Work::Handoff)?;
            }
            Work::Roundtrip => {
                for number in 0..count {
                    receive_checked(end, size, number)?;
                    send_filled(end, size, number)?;
                }
            }
            Work::Control | Work::Fd => {
                let (mut bytes, file) = (vec![0; size], File::open("/dev/null")?);
                let fd = (cell.work == Work::Fd).then_some(file.as_fd());
                for number in 0..count {
                    receive_control(end, size, number, fd.is_some())?;
                    send_control(end, &mut bytes, number, fd)?;
                }
            }
            Work::Idle => receive_checked(end, size, 0)?,
        }
        let finish = now();
        let seconds = (finish - start) as f64 / 1e9;
        part = Part { messages: count, seconds, ..usage.since()? };
        link.say(finish)?;
    }
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What this process has used up.
struct Usage(libc::rusage);

impl Usage {
    fn now() -> Result<Self> {
        // SAFETY: a C struct of integers, for which zeros are values.
        let mut usage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a live `rusage` to write to.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        anyhow::ensure!(result == 0, "getrusage: {}", std::io::Error::last_os_error());
        Ok(Self(usage))
    }

    fn since(&self) -> Result<Part> {
        let Self(now) = Self::now()?;
        let seconds = |usage: &libc::rusage| {
            (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) as f64
                + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) as f64 / 1e6
        };
        Ok(Part {
            cpu_seconds: seconds(&now) - seconds(&self.0),
            sleeps: now.ru_nvcsw - self.0.ru_nvcsw,
            ..Part::default()
        })
    }
}
