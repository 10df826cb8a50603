//! The work of a publisher and its subscribers, the same for each carrier.
//!
//! The publisher finds out how many messages fill the time, and measures that many. Every byte is written and read. Messages
//! count when they are delivered: the time ends when the last subscriber has the last one.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cell::{Part, Writer},
    fan_cell::FanCell,
    fan_ends::{Publish, Receive},
    link::Link,
    payload::{Pattern, check},
    usage::{Usage, now},
};

/// A calibration suffices when it took this part of the time asked for.
const CALIBRATION: f64 = 0.2;
const FIRST_COUNT: u64 = 4;

/// The whole work of the publisher.
pub(crate) fn publish<P: Publish>(cell: &FanCell, links: &[Link]) -> Result<Part> {
    let mut out = P::connect(cell, links)?;
    let (mut count, mut sent, mut last) = (FIRST_COUNT, 0, false);
    loop {
        for link in links {
            link.send_number(count)?;
        }
        for link in links {
            link.receive_number()?;
        }
        let (usage, start) = (Usage::now()?, now());
        publish_batch(&mut out, cell, sent, count)?;
        let mut finish = 0;
        for link in links {
            finish = finish.max(link.receive_number()?);
        }
        let seconds = finish.saturating_sub(start) as f64 / 1e9;
        let part = Part { messages: count, seconds, ..usage.since()? };
        if last {
            for link in links {
                link.send_number(0)?;
            }
            return Ok(part);
        }
        sent += count;
        let fitting = count as f64 / seconds * cell.seconds;
        last = seconds > CALIBRATION * cell.seconds;
        count = if last { (fitting as u64).max(1) } else { (fitting as u64).clamp(count, 8 * count) };
    }
}

/// Publishes `count` messages from number `first` on, at the pace that was asked for.
fn publish_batch(out: &mut impl Publish, cell: &FanCell, first: u64, count: u64) -> Result<()> {
    let pause = cell.pace.map(|pace| Duration::from_secs(1) / pace);
    let mut due = Instant::now();
    for number in first..first + count {
        if let Some(pause) = pause {
            sleep(due.saturating_duration_since(Instant::now()));
            due += pause;
        }
        out.publish(cell.size, |bytes| Pattern::new(Writer::Fast, number, bytes.len()).fill(bytes))?;
    }
    Ok(())
}

/// The whole work of a subscriber. It checks all that it receives, in order, up to the last message.
pub(crate) fn receive<R: Receive>(cell: &FanCell, link: &Link) -> Result<Part> {
    let mut end = R::connect(cell, link)?;
    let (mut part, mut next) = (Part::default(), 0);
    loop {
        let count = link.receive_number()?;
        if count == 0 {
            return Ok(part);
        }
        link.send_number(0)?;
        let (usage, start, mut received) = (Usage::now()?, now(), 0);
        let until = next + count;
        while next < until {
            let Some(seen) = end.receive()? else { continue };
            ensure!(seen.number >= next, "expected message {next} or a later one, found {}", seen.number);
            let pattern = Pattern::new(Writer::Fast, seen.number, cell.size);
            check(seen.number, cell.size, Some(pattern), seen.len, seen.sum).context("of the fan-out")?;
            (next, received) = (seen.number + 1, received + 1);
        }
        let finish = now();
        let seconds = (finish - start) as f64 / 1e9;
        part = Part { messages: received, seconds, ..usage.since()? };
        link.send_number(finish)?;
    }
}
