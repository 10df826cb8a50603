//! The publisher: it starts the viewers, publishes the frames, and judges the counts.

use std::{
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Carrier, Options, Policy, Result,
    carriers::{Counts, Out},
    clip::Clip,
    name, report,
    usage::cpu_time,
};

/// The figures of one carrier.
pub(crate) struct Run {
    pub(crate) carrier: Carrier,
    /// From the first frame's beginning to the last one's publication.
    pub(crate) seconds: f64,
    /// CPU time of the publisher in that time.
    pub(crate) cpu: Duration,
    pub(crate) viewers: Vec<Counts>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let clip = match &options.clip {
        Some(path) => Clip::read(path)?,
        None => Clip::generated(options.size),
    };
    let mut runs = Vec::new();
    for &carrier in &options.carrier {
        runs.push(publish(options, &clip, carrier)?);
    }
    report::print(options, clip.size(), &runs)?;
    runs.iter().try_for_each(|run| judge(options, run))
}

/// The command that starts a viewer.
fn viewer(options: &Options, size: usize, carrier: Carrier) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--viewer", "--size", &size.to_string(), "--frames", &options.frames.to_string()]);
    command.args(["--policy", &name(&options.policy), "--carrier", &name(&carrier)]);
    Ok(command)
}

fn publish(options: &Options, clip: &Clip, carrier: Carrier) -> Result<Run> {
    let mut out = Out::new(carrier, options, clip.size(), || viewer(options, clip.size(), carrier))?;
    let frame = options.fps.map(|fps| Duration::from_secs(1) / fps);
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut due = start;
    for number in 0..options.frames {
        if let Some(frame) = frame {
            sleep(due.saturating_duration_since(Instant::now()));
            due += frame;
        }
        out.publish(clip, number)?;
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    let viewers = out.counts();
    let finished = out.finish();
    // A viewer that has failed says more than its lane that has ended.
    let viewers = viewers.map_err(|error| match finished.as_ref() {
        Err(reason) => format!("{error} ({reason})"),
        Ok(()) => error.to_string(),
    })?;
    finished?;
    Ok(Run { carrier, seconds, cpu, viewers })
}

/// Fails if a frame was torn, or is not accounted for.
fn judge(options: &Options, run: &Run) -> Result<()> {
    for (place, counts) in run.viewers.iter().enumerate() {
        let Counts { received, missed, torn, .. } = *counts;
        let viewer = format!("{}, viewer {}", name(&run.carrier), place + 1);
        if torn > 0 {
            return Err(format!("{viewer}: whole frames expected, found {torn} torn ones").into());
        }
        if received + missed != options.frames {
            let frames = options.frames;
            return Err(format!(
                "{viewer}: expected {frames} frames, found {received} received and {missed} missed"
            )
            .into());
        }
        if missed > 0 && options.policy == Policy::Wait {
            return Err(format!("{viewer}: all frames expected, found {missed} missed").into());
        }
    }
    Ok(())
}
