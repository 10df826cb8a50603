//! The cost of workers: CPU time and time to decode photographs, here and in workers; the time that a restart takes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sealane::Control;

use crate::{
    Limits, Options, Result, in_process,
    output::print,
    pool::{self, Outcome},
    protocol::{Job, Trick},
    samples,
    usage::Usage,
};

/// Photographs, and how often each is decoded in a round.
const PHOTOGRAPHS: u64 = 4;
const REPEATED: usize = 6;
/// Rounds, and starts of a worker.
const ROUNDS: usize = 7;
const STARTS: usize = 25;

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photographs: Vec<PathBuf> =
        (0..PHOTOGRAPHS).map(|seed| folder.path().join(format!("{seed}.jpg"))).collect();
    for (photograph, seed) in photographs.iter().zip(0..) {
        samples::photograph(photograph, seed)?;
    }
    let files: Vec<PathBuf> =
        photographs.iter().cycle().take(photographs.len() * REPEATED).cloned().collect();
    let ways: [(&str, Option<usize>); 3] =
        [("here", None), ("one worker", Some(1)), ("two workers", Some(2))];
    let mut costs = ways.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, workers), costs) in ways.iter().zip(&mut costs) {
            costs.push(decode(options, &files, *workers)?);
        }
    }
    print(format_args!(
        "{} JPEGs of 12 megapixels, {ROUNDS} rounds, medians (least to most), with the start and the end of the workers",
        files.len()
    ))?;
    for ((way, _), cost) in ways.iter().zip(&costs) {
        let column = |part: fn(&Cost) -> f64| spread(cost.iter().map(part).collect(), 1.0);
        print(format_args!("{way:12} {} s, {} s of CPU", column(|cost| cost.time), column(|cost| cost.cpu)))?;
    }
    for ((way, _), cost) in ways.iter().zip(&costs).skip(1) {
        let ratio = |part: fn(&Cost) -> f64| {
            spread(cost.iter().zip(&costs[0]).map(|(worker, here)| part(worker) / part(here)).collect(), 1.0)
        };
        print(format_args!(
            "{way:12} {} of the time, {} of the CPU",
            ratio(|cost| cost.time),
            ratio(|cost| cost.cpu)
        ))?;
    }
    restarts(&options.limits, &photographs[0])?;
    let small = Limits { max_pixels: 1_000_000, ..options.limits.clone() };
    restarts(&small, &photographs[0])
}

/// Seconds.
struct Cost {
    time: f64,
    cpu: f64,
}

/// Decodes all files. Workers have ended and were reaped when this returns, so their CPU time counts.
fn decode(options: &Options, files: &[PathBuf], workers: Option<usize>) -> Result<Cost> {
    let failed = std::sync::Mutex::new(None);
    let done = |path: &Path, outcome: Outcome, _| {
        if !matches!(outcome, Outcome::Decoded(_, 1)) {
            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some(format!("{}: {outcome:?}", path.display()));
        }
    };
    let (begin, cpu) = (Instant::now(), cpu_time()?);
    match workers {
        None => in_process::run(options, files.iter().cloned(), done),
        Some(workers) => {
            let options = Options { workers: workers.try_into().ok(), ..options.clone() };
            pool::run(&options, files.iter().cloned(), done)?;
        }
    }
    let cost =
        Cost { time: begin.elapsed().as_secs_f64(), cpu: cpu_time()?.saturating_sub(cpu).as_secs_f64() };
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(problem) => Err(problem.into()),
        None => Ok(cost),
    }
}

/// CPU time of this process, and of children that were reaped.
fn cpu_time() -> Result<Duration> {
    Ok(Usage::here()?.cpu + Usage::children()?.cpu)
}

/// How long a worker takes to be there again: its process, its channel, its sandbox and its first answer.
fn restarts(limits: &Limits, photograph: &Path) -> Result<()> {
    let file = File::open(photograph)?;
    // A job that is refused at once: the first answer without the time of a decoder.
    let job = Job { size: u64::MAX, trick: Trick::None as u32, padding: 0 };
    let builder = limits.builder();
    let mut parts: [Vec<f64>; 5] = Default::default();
    for _ in 0..STARTS {
        let mut command = limits.command();
        let mut begin = Instant::now();
        // The time since the last step.
        let mut lap = || std::mem::replace(&mut begin, Instant::now()).elapsed();
        let (handshake, mut child) = builder.try_spawn(&mut command)?;
        let started = lap();
        let mut channel = handshake.finish()?;
        let shaken = lap();
        channel.recv_timeout(limits.timeout)?;
        let ready = lap();
        let request = channel.sender.request(Control::of(&job).fd(&file))?;
        channel.receiver.wait_reply(request, limits.timeout)?;
        let answered = lap();
        drop(channel);
        child.wait()?;
        let times = [started, shaken, ready, answered, lap()];
        for (part, time) in parts.iter_mut().zip(times) {
            part.push(time.as_secs_f64());
        }
    }
    print(format_args!("a worker with a ring of {} MiB, {STARTS} starts:", limits.ring_capacity() >> 20))?;
    for (name, part) in
        ["process started", "channel made", "sandbox entered", "first answer", "ended and reaped"]
            .iter()
            .zip(parts)
    {
        print(format_args!("  {name:17} {} ms", spread(part, 1000.0)))?;
    }
    Ok(())
}

/// The median of numbers, the least and the most, in this unit.
fn spread(mut numbers: Vec<f64>, unit: f64) -> String {
    numbers.sort_unstable_by(f64::total_cmp);
    let [least, median, most] = [0, numbers.len() / 2, numbers.len() - 1]
        .map(|at| numbers.get(at).map_or(f64::NAN, |number| number * unit));
    format!("{median:.3} ({least:.3} to {most:.3})")
}
