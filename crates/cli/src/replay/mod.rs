//! `sealane replay`: a publisher of what a recording holds, at the pace at which it came.

mod player;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, Result, anyhow, bail};
use bytesize::ByteSize;
use sealane::{Builder, Slow};
use serde::Serialize;

use self::player::Player;
use crate::{
    output::line,
    progress::{Progress, say},
    recording::{
        damages::Damages,
        messages::{Messages, Notes},
        records::MAX_RECORD,
    },
    stop::Stop,
    units::size,
};

/// Publishes what a recording holds, at the pace at which it came.
///
/// Subscribers that are waited for lose nothing: the replay waits for them without a limit. What the recorder missed counts as
/// missed for them too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Recording to publish.
    file: PathBuf,
    /// Path to publish at, or an abstract name (`@name`).
    path: PathBuf,
    /// How many times as fast as it came, or `max`: as fast as the subscribers take it.
    #[arg(long, default_value = "1")]
    rate: Rate,
    /// Begins again at the end, as another run of the source (its epoch), until a signal comes.
    #[arg(long = "loop")]
    repeat: bool,
    /// Size of the ring. Default: that of the publisher that was recorded.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    ring: Option<ByteSize>,
    /// Begins when this many subscribers are there.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    wait_for: usize,
    /// Most control bytes of a message. Subscribers accept 64 KiB by default, and as much as this is needed.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    max_control: ByteSize,
    /// Prints JSON instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  sealane replay frames.mcap /run/user/1000/frames
  sealane replay frames.mcap /run/user/1000/frames --rate 2 --loop
  sealane replay frames.mcap @frames --rate max --wait-for 3";

/// The pace of a replay. `None` is as fast as possible.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate(Option<f64>);

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "max" {
            return Ok(Self(None));
        }
        let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
        rate.map(|rate| Self(Some(rate))).ok_or_else(|| anyhow!("a number above 0, or max, expected"))
    }
}

/// Counts of what was published.
#[derive(Debug, Default, Serialize)]
struct Report {
    messages: u64,
    payload_bytes: u64,
    /// Messages that the subscribers were told were lost.
    lost: u64,
    /// Messages that were lost behind the last one: nothing tells them to the subscribers.
    lost_at_end: u64,
    /// Descriptors that came along when it was recorded, and are not published.
    descriptors: u64,
    passes: u64,
    seconds: f64,
    stopped: bool,
    #[serde(flatten)]
    damages: Damages,
    /// Messages of other kinds in the file.
    foreign: u64,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let context = || format!("replay {}", options.file.display());
    if options.file == Path::new("-") {
        // A pipe cannot be read again for another pass, and nobody would be served while it has nothing.
        let found = "a file expected, standard input found: write it into a file first (`cat > FILE.mcap`), or write ./- for a file of that name";
        return Err(anyhow!(found)).with_context(context);
    }
    // To open a pipe is to wait for its writer: signals are not taken yet, and end that.
    let file = File::open(&options.file).context("open").with_context(context)?;
    let stop = Stop::on_signals()?;
    let report = replay(options, &file, &stop).with_context(context)?;
    let text = if options.json { serde_json::to_string(&report)? } else { describe(&report) };
    line(&text, false)?;
    Ok(ExitCode::SUCCESS)
}

fn replay(options: &Options, file: &File, stop: &Stop) -> Result<Report> {
    let mut messages = Messages::new(file)?;
    // The notes on the publisher come before its first message.
    let first = messages.read()?;
    if first.is_none() {
        check_kind(&messages)?;
    }
    let ring = match (options.ring, messages.notes().max_payload) {
        (Some(ring), _) => ring.as_u64(),
        (None, Some(max)) if max <= MAX_RECORD / 2 => {
            Builder::ring_for(usize::try_from(max)?, 0).max(MIN_RING).try_into()?
        }
        // A file that another tool has rewritten may not say it, and a hostile one anything.
        (None, _) => MIN_RING.try_into()?,
    };
    let publisher = Builder::default()
        .ring_capacity(usize::try_from(ring)?)
        .max_control(usize::try_from(options.max_control.as_u64())?)
        .slow(Slow::Wait(std::time::Duration::MAX))
        .publish(&options.path)?;
    let (file_name, path) = (options.file.display(), options.path.display());
    if options.wait_for > 0 {
        let subscribers = if options.wait_for == 1 { "subscriber" } else { "subscribers" };
        let text =
            format!("waits for {} {subscribers} at {path} (--wait-for); Ctrl-C ends it", options.wait_for);
        say(&text, options.json);
    }
    let mut player = Player::new(publisher, stop.clone(), options.rate.0);
    let mut report = Report::default();
    if player.wait_for(options.wait_for)? {
        say(&format!("publishes {file_name} at {path}; Ctrl-C ends it"), options.json);
        player.progress = Some(Progress::begin("lost", options.json));
        let mut next = first;
        loop {
            player.begin_pass();
            while let Some((time, message)) = next {
                if !player.publish(time, &message)? {
                    break;
                }
                next = messages.read()?;
            }
            player.end_pass(messages.notes().missed_at_end);
            if !options.repeat || stop.is_asked() || player.report.messages == 0 {
                break;
            }
            messages = Messages::new(file)?;
            next = messages.read()?;
        }
    }
    let Notes { damages, foreign, .. } = messages.notes().clone();
    let stopped = stop.is_asked();
    player.finish(&mut report);
    Ok(Report { stopped, damages, foreign, ..report })
}

/// The least ring: that of a publisher by default.
const MIN_RING: usize = 4 << 20;

/// Refuses a file of something else. A recording without messages is one.
fn check_kind(messages: &Messages) -> Result<()> {
    if messages.is_recording() {
        return Ok(());
    }
    let notes = messages.notes();
    let damage = notes.damages.first().map(|damage| format!("; {damage}")).unwrap_or_default();
    bail!(
        "messages of sealane expected (encoding protobuf, schema sealane.Message), {} of other kinds found, on {:?}{damage}",
        notes.foreign,
        messages.foreign_topics()
    )
}

fn describe(report: &Report) -> String {
    let mut parts = vec![format!(
        "published {} messages ({} of payloads) in {:.1} s, passes {}, lost {}",
        report.messages,
        ByteSize(report.payload_bytes),
        report.seconds,
        report.passes,
        report.lost
    )];
    if report.lost_at_end > 0 {
        parts.push(format!("{} more were lost behind the last message", report.lost_at_end));
    }
    if report.descriptors > 0 {
        parts.push(format!("{} descriptors were not recorded", report.descriptors));
    }
    if report.foreign > 0 {
        parts.push(format!("{} messages of other kinds were left out", report.foreign));
    }
    if report.stopped {
        parts.push("ended by a signal".to_owned());
    }
    [vec![parts.join("; ")], report.damages.lines()].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_numbers_or_max() {
        assert_eq!("max".parse::<Rate>().unwrap(), Rate(None));
        assert_eq!("0.5".parse::<Rate>().unwrap(), Rate(Some(0.5)));
        for text in ["0", "-1", "nan", "inf", "fast", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
