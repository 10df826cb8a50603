//! The works: what each of the two processes does with its [`End`], whichever transport that is of.
//!
//! The first process finds out how many messages fill the time, and measures that many. Messages count when they are
//! delivered: the time ends when the receiver has the last one.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::{
    cell::{Cell, Part, Side, Work, Writer},
    end::End,
    link::Link,
    payload::{Bytes, Pattern, check},
    usage::{Usage, now},
};

/// A calibration suffices when it took this part of the time asked for.
const CALIBRATION: f64 = 0.2;
const FIRST_COUNT: u64 = 16;

/// Connects, does the cell's work, and says what this process measured.
pub(crate) fn run<E: End>(side: Side, cell: &Cell, link: &Link) -> Result<Part> {
    // Neither connects before both processes are pinned.
    link.barrier()?;
    let mut end = E::connect(side, cell, link)?;
    link.barrier()?;
    let part = match side {
        Side::First => lead(&mut end, cell, link)?,
        Side::Second => follow(&mut end, cell, link)?,
    };
    link.barrier()?;
    Ok(part)
}

/// Decides how many messages there are: some to warm up, more until the rate is known, then as many as fill the time.
fn lead<E: End>(end: &mut E, cell: &Cell, link: &Link) -> Result<Part> {
    // Idle work is not calibrated.
    let mut last = cell.work == Work::Idle;
    let mut count = if last { 1 } else { FIRST_COUNT };
    loop {
        link.send_number(count)?;
        link.receive_number()?;
        let part = lead_batch(end, cell, link, count)?;
        if last {
            link.send_number(0)?;
            return Ok(part);
        }
        let fitting = count as f64 / part.seconds * cell.seconds;
        last = part.seconds > CALIBRATION * cell.seconds;
        count = if last { (fitting as u64).max(1) } else { (fitting as u64).clamp(count, 8 * count) };
    }
}

fn lead_batch<E: End>(end: &mut E, cell: &Cell, link: &Link, count: u64) -> Result<Part> {
    let mut times = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3)?;
    let (size, writer, touch) = (cell.size, cell.writer, cell.touch());
    let (usage, start) = (Usage::now()?, now());
    match cell.work {
        Work::Stream | Work::Small | Work::Handoff => {
            send_stream(end, size, count, touch)?;
        }
        Work::Roundtrip => time_each(&mut times, count, |number| {
            send_filled(end, size, writer, number)?;
            receive_checked(end, size, writer, number)
        })?,
        Work::Control | Work::Fd => {
            let (mut bytes, file) = (vec![0; size], File::open("/dev/null")?);
            let fd = (cell.work == Work::Fd).then_some(file.as_fd());
            time_each(&mut times, count, |number| {
                send_control(end, &mut bytes, number, fd)?;
                receive_control(end, size, number, fd.is_some())
            })?;
        }
        Work::Idle => {
            std::thread::sleep(cell.idle());
            send_filled(end, size, writer, 0)?;
        }
    }
    let finish = link.receive_number()?;
    Ok(Part {
        messages: count,
        seconds: finish.saturating_sub(start) as f64 / 1e9,
        p50: times.value_at_quantile(0.5),
        p99: times.value_at_quantile(0.99),
        ..usage.since()?
    })
}

/// Records how long each of `count` round trips takes.
#[inline]
fn time_each(
    times: &mut Histogram<u64>,
    count: u64,
    mut round_trip: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut before = Instant::now();
    for number in 0..count {
        round_trip(number)?;
        let after = Instant::now();
        times.saturating_record((after - before).as_nanos() as u64);
        before = after;
    }
    Ok(())
}

fn follow<E: End>(end: &mut E, cell: &Cell, link: &Link) -> Result<Part> {
    let mut part = Part::default();
    loop {
        let count = link.receive_number()?;
        if count == 0 {
            return Ok(part);
        }
        link.send_number(0)?;
        let (size, writer, touch) = (cell.size, cell.writer, cell.touch());
        let (usage, start) = (Usage::now()?, now());
        match cell.work {
            Work::Stream | Work::Small | Work::Handoff => {
                receive_stream(end, size, count, touch)?;
            }
            Work::Roundtrip => {
                for number in 0..count {
                    receive_checked(end, size, writer, number)?;
                    send_filled(end, size, writer, number)?;
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
            Work::Idle => receive_checked(end, size, writer, 0)?,
        }
        let finish = now();
        let seconds = (finish - start) as f64 / 1e9;
        part = Part { messages: count, seconds, ..usage.since()? };
        link.send_number(finish)?;
    }
}

/// Sends message `number`, written as a whole.
#[inline]
fn send_filled<E: End>(end: &mut E, size: usize, writer: Writer, number: u64) -> Result<()> {
    let mut pattern = Pattern::new(writer, number, size);
    end.send(size, |bytes| pattern.fill(bytes))
}

/// Receives message `number`, reads and checks all of it.
#[inline]
fn receive_checked<E: End>(end: &mut E, size: usize, writer: Writer, number: u64) -> Result<()> {
    let (mut sum, mut len) = (0_u64, 0);
    end.receive(size, |view| {
        sum = sum.wrapping_add(view.sum());
        len += view.len();
    })?;
    check(number, size, Some(Pattern::new(writer, number, size)), len, sum)
}

/// Sends messages 0 to `count`, each written as a whole, or not at all if nobody touches them.
#[inline]
fn send_stream<E: End>(end: &mut E, size: usize, count: u64, touch: Option<Writer>) -> Result<()> {
    let Some(writer) = touch else { return end.send_many(size, count, |_, _| {}) };
    let (mut current, mut pattern) = (0, Pattern::new(writer, 0, size));
    end.send_many(size, count, |number, bytes| {
        if number != current {
            (current, pattern) = (number, Pattern::new(writer, number, size));
        }
        pattern.fill(bytes);
    })
}

/// Receives messages 0 to `count`, and reads and checks all of each, or only the lengths if nobody touches them.
#[inline]
fn receive_stream<E: End>(end: &mut E, size: usize, count: u64, touch: Option<Writer>) -> Result<()> {
    let (mut current, mut sum, mut len) = (0, 0_u64, 0);
    let mut so_far = Ok(());
    let mut over = |number, len, sum| {
        if so_far.is_ok() {
            let pattern = touch.map(|writer| Pattern::new(writer, number, size));
            so_far = check(number, size, pattern, len, sum);
        }
    };
    end.receive_many(size, count, |number, view| {
        if number != current {
            over(current, len, sum);
            (current, sum, len) = (number, 0, 0);
        }
        len += view.len();
        if touch.is_some() {
            sum = sum.wrapping_add(view.sum());
        }
    })?;
    over(current, len, sum);
    so_far
}

/// Sends message `number` without a payload.
#[inline]
fn send_control<E: End>(
    end: &mut E,
    bytes: &mut [u8],
    number: u64,
    fd: Option<BorrowedFd<'_>>,
) -> Result<()> {
    Pattern::new(Writer::Fast, number, bytes.len()).fill(bytes);
    end.send_control(bytes, fd)
}

/// Receives message `number` without a payload, checks it, and closes its descriptor.
#[inline]
fn receive_control<E: End>(end: &mut E, size: usize, number: u64, fds: bool) -> Result<()> {
    let (mut sum, mut len) = (0, 0);
    let received = end.receive_control(fds, |bytes| (sum, len) = (bytes.sum(), bytes.len()))?;
    check(number, size, Some(Pattern::new(Writer::Fast, number, size)), len, sum)?;
    let (expected, found) = (usize::from(fds), received.len());
    ensure!(found == expected, "message {number}: expected {expected} descriptors, found {found}");
    Ok(())
}
