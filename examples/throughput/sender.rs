//! The process that sends: it starts the other one, and lets the carriers take turns.

use std::{
    os::fd::OwnedFd,
    process::Command,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::net::{AddressFamily, SocketFlags, socketpair};
use sealane::{Builder, Channel, Control};

use crate::{
    Options, Result,
    carriers::{CARRIERS, Done, Order, SOCKETS, cpu_time, send_batch},
    keep_to_a_cpu, report,
};

/// How long the other process may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The payloads that one carrier has moved, in all batches.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// How many payloads the next batch has.
    pub(crate) batch: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (size, least) = (options.size, Builder::ring_for(options.size, 2));
    let ring = options.ring_capacity.unwrap_or(least.max(4 << 20));
    if ring < least {
        return Err(format!("expected a ring for four payloads, {least} bytes, found {ring}").into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--reader", "--size", &size.to_string(), "--ring-capacity", &ring.to_string()]);
    let (mut channel, mut child) = Channel::builder().ring_capacity(ring).spawn(command)?;
    keep_to_a_cpu(false)?;
    let mut sockets = Vec::new();
    for kind in SOCKETS {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        channel.send(Control::new(b"socket").fd(&theirs))?;
        sockets.push(ours);
    }
    let result = take_turns(options, &mut channel, &sockets);
    drop((channel, sockets));
    let status = child.wait()?;
    let moved = result.map_err(|error| format!("{error} (the reader: {status})"))?;
    report::print(options, ring, &moved)
}

/// Sends batches until the time has passed.
fn take_turns(options: &Options, channel: &mut Channel, sockets: &[OwnedFd]) -> Result<[Moved; 3]> {
    let time = Duration::from_secs(options.seconds.into());
    // Long enough that an order's own time is nothing, short enough for several turns.
    let turn = (time.as_secs_f64() / 12.0).min(0.25);
    let bar =
        if options.json { ProgressBar::hidden() } else { ProgressBar::new(time.as_millis().try_into()?) };
    let bar = bar.with_style(ProgressStyle::with_template("{spinner} {wide_bar} {msg}")?);
    let mut moved = [Moved { batch: 16, ..Moved::default() }; 3];
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time || moved.iter().any(|moved| moved.messages == 0) {
        for (index, moved) in moved.iter_mut().enumerate() {
            bar.set_position(start.elapsed().as_millis().try_into()?);
            bar.set_message(CARRIERS[index]);
            let (before, cpu) = (Instant::now(), cpu_time());
            let order = Order { carrier: index as u64, count: moved.batch, first: sent };
            let request = channel.request(Control::of(&order))?;
            send_batch(options.size, order, channel, sockets)?;
            let answer = channel.receiver.wait_reply(request, PATIENCE)?;
            let (seconds, cpu) = (before.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
            sent += order.count;
            // The shortest batches only served to find how many payloads a turn has.
            if seconds > turn / 4.0 {
                moved.messages += order.count;
                moved.seconds += seconds;
                let reader = Duration::from_nanos(answer.control_as::<Done>()?.cpu);
                moved.cpu_seconds += (cpu + reader).as_secs_f64();
            }
            moved.batch = fitting(order.count, turn / seconds);
        }
    }
    bar.finish_and_clear();
    Ok(moved)
}

/// How many payloads fill a turn, if `count` filled a part of it; growing in steps, since the first ones are slow.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn fitting(count: u64, factor: f64) -> u64 {
    ((count as f64 * factor.min(16.0)) as u64).max(1)
}
