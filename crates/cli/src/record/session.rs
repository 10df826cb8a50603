//! [`Session`]: a recording from its first message to its last, in one file or several.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use sealane::{Error, Published, Subscriber};
use serde::Serialize;

use crate::{
    progress::Progress,
    record::{
        batch::Staged,
        files::{Files, Identity},
        output::{Heading, Output},
        tally::Tally,
        target::Target,
    },
    recording::{layout::MISSED_AT_END, message::Received},
    stop::{LOOK, Stop},
};

/// When a file is ended, and whether another one follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_size: Option<u64>,
    pub(crate) max_duration: Option<Duration>,
    pub(crate) split: bool,
    /// The files that are kept when another one follows.
    pub(crate) keep: Option<usize>,
    /// The time of all files together.
    pub(crate) total_duration: Option<Duration>,
}

/// Why a recording ended, or one of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    PublisherEnded,
    Signal,
    MaxSize,
    MaxDuration,
    TotalDuration,
    /// Standard output is not read any more.
    ReaderEnded,
    Error,
}

impl Reason {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::PublisherEnded => "the publisher ended",
            Self::Signal => "a signal",
            Self::MaxSize => "--max-size",
            Self::MaxDuration => "--max-duration",
            Self::TotalDuration => "--total-duration",
            Self::ReaderEnded => "standard output is not read any more",
            Self::Error => "an error",
        }
    }
}

/// The outcome of a recording.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) reason: Reason,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Messages that were missed behind the last one.
    pub(crate) missed_at_end: u64,
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) files: Files,
}

/// A recording that goes on.
pub(crate) struct Session {
    subscriber: Subscriber,
    target: Target,
    bounds: Bounds,
    heading: Heading,
    syncs: bool,
    output: Output,
    /// The number of the file, from 0.
    part: u32,
    /// When the file was begun.
    begun: Instant,
    clock: Clock,
    /// The counts of the files that have ended.
    tally: Tally,
    /// Messages that the subscriber said it missed, in the messages that were received.
    told: u64,
    /// Messages that were lost to our own limit of open files, and are told with the next one.
    lost: u64,
    progress: Progress,
    /// The file that is written.
    identity: Identity,
    files: Files,
}

/// A message that came.
struct Arrival {
    staged: Staged,
    /// Messages that the subscriber said it missed just before.
    told: u64,
    at: Instant,
}

impl Session {
    pub(crate) fn begin(
        subscriber: Subscriber,
        target: Target,
        bounds: Bounds,
        heading: Heading,
        syncs: bool,
        progress: Progress,
    ) -> Result<Self> {
        let file = target.open(0)?;
        let identity = Identity::of(&file);
        let output = Output::begin(file, &heading, syncs)
            .with_context(|| format!("write {}", target.part(0).display()))?;
        Ok(Self {
            subscriber,
            target,
            bounds,
            heading,
            syncs,
            output,
            part: 0,
            begun: Instant::now(),
            clock: Clock::now(),
            tally: Tally::default(),
            told: 0,
            lost: 0,
            progress,
            identity,
            files: Files::default(),
        })
    }

    /// Records until the end. The second part is the error that ended it.
    pub(crate) fn run(mut self, stop: &Stop) -> (Report, Option<anyhow::Error>) {
        let begun = self.clock.begun;
        let (mut reason, mut error) = match self.record(stop) {
            Ok(reason) => (reason, None),
            Err(error) if self.target.is_stdout() && is_broken_pipe(&error) => (Reason::ReaderEnded, None),
            Err(error) => (Reason::Error, Some(error)),
        };
        // Messages that were missed behind the last one that was received.
        let missed_at_end = self.subscriber.missed().saturating_sub(self.told).saturating_add(self.lost);
        let path = self.target.part(self.part);
        // Behind a failed write nothing more can be written either, and the file is left as it was flushed last.
        let (contents, failed) = self.output.finish(about(reason, missed_at_end));
        if let Some(failed) = failed.filter(|_| error.is_none() && reason != Reason::ReaderEnded) {
            if self.target.is_stdout() && is_broken_pipe(&failed) {
                reason = Reason::ReaderEnded;
            } else {
                reason = Reason::Error;
                error = Some(failed.context(format!("write {}", path.display())));
            }
        }
        self.tally.append(&contents.tally);
        self.files.push(path, &contents, self.identity);
        let seconds = begun.elapsed().as_secs_f64();
        (Report { reason, tally: self.tally, missed_at_end, seconds, files: self.files }, error)
    }

    fn record(&mut self, stop: &Stop) -> Result<Reason> {
        let mut now = Instant::now();
        let all_end = self.bounds.total_duration.and_then(|time| self.clock.begun.checked_add(time));
        loop {
            if stop.is_asked() {
                return Ok(Reason::Signal);
            }
            if self.output.flush_due().is_some_and(|due| due <= now) {
                self.output.flush().with_context(|| self.failed_write())?;
            }
            if all_end.is_some_and(|ends| ends <= now) {
                return Ok(Reason::TotalDuration);
            }
            let ends = self.bounds.max_duration.and_then(|duration| self.begun.checked_add(duration));
            if ends.is_some_and(|ends| ends <= now) {
                if !self.bounds.split {
                    return Ok(Reason::MaxDuration);
                }
                self.split(Reason::MaxDuration, None)?;
                continue;
            }
            let due = [self.output.flush_due(), ends, all_end].into_iter().flatten().min();
            let timeout = due.map_or(LOOK, |due| LOOK.min(due - now));
            let (output, lost) = (&mut self.output, self.lost);
            match self.subscriber.recv_with_timeout(timeout, |message| arrive(message, lost, output)) {
                Ok(Some(arrival)) => {
                    let arrival = arrival?;
                    now = arrival.at;
                    if let Some(reason) = self.take(&arrival)? {
                        return Ok(reason);
                    }
                    continue;
                }
                // It was overwritten while it was copied: the next message counts it as missed.
                Ok(None) => {}
                Err(Error::Disconnected) => return Ok(Reason::PublisherEnded),
                // Such a message is not counted among those that were missed.
                Err(Error::FdsLost { .. }) => self.lost += 1,
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error.into()),
            }
            now = Instant::now();
        }
    }

    /// Writes a message, into the next file if this one has no room for it. A message that is too large for any file has one of its own.
    fn take(&mut self, arrival: &Arrival) -> Result<Option<Reason>> {
        let Arrival { staged, told, at } = arrival;
        let size = self.output.size_with(staged);
        if !self.output.is_empty() && self.bounds.max_size.is_some_and(|max| size > max) {
            if !self.bounds.split {
                // The message is not in the file, and was not missed either: it came too late.
                return Ok(Some(Reason::MaxSize));
            }
            self.split(Reason::MaxSize, Some(staged))?;
        }
        let log_time = self.clock.at(*at);
        self.output.write(staged, log_time, *at).with_context(|| self.failed_write())?;
        self.told = self.told.saturating_add(*told);
        self.lost = 0;
        self.progress.add(staged.payload_bytes + staged.control_bytes, staged.missed);
        Ok(None)
    }

    /// Ends the file, and begins the next one with a message that had no room. The next message has the count of those that were
    /// missed meanwhile.
    fn split(&mut self, reason: Reason, staged: Option<&Staged>) -> Result<()> {
        let next = self.part + 1;
        self.heading.about.insert("part".into(), next.to_string());
        let (path, next_path) = (self.target.part(self.part), self.target.part(next));
        let file = self.target.open(next)?;
        let identity = std::mem::replace(&mut self.identity, Identity::of(&file));
        let mut output = Output::begin(file, &self.heading, self.syncs)
            .with_context(|| format!("write {}", next_path.display()))?;
        if let Some(staged) = staged {
            output.take_over(staged, &self.output);
        }
        let ended = std::mem::replace(&mut self.output, output);
        (self.part, self.begun) = (next, Instant::now());
        let (contents, failed) = ended.finish(about(reason, 0));
        let failed = failed.map(|error| error.context(format!("write {}", path.display())));
        self.tally.append(&contents.tally);
        self.files.push(path, &contents, identity);
        failed.map_or(Ok(()), Err)?;
        // The file that has just begun is one of those that are kept.
        self.bounds.keep.map_or(Ok(()), |most| self.files.keep(most.saturating_sub(1)))
    }

    fn failed_write(&self) -> String {
        format!("write {}", self.target.part(self.part).display())
    }
}

/// Copies a message before which so many were lost. It may be overwritten meanwhile.
fn arrive(message: &Published<'_>, lost: u64, output: &mut Output) -> Result<Arrival> {
    let at = Instant::now();
    let received = Received {
        sequence: message.sequence(),
        missed: message.missed().saturating_add(lost),
        epoch: message.epoch(),
        descriptors: u32::try_from(message.fds().len())?,
        control: message.control(),
        payload: message.payload(),
    };
    Ok(Arrival { staged: output.stage(&received)?, told: message.missed(), at })
}

/// The metadata of a file's end.
fn about(reason: Reason, missed_at_end: u64) -> BTreeMap<String, String> {
    let values = [("reason", reason.describe().to_owned()), (MISSED_AT_END, missed_at_end.to_string())];
    values.map(|(key, value)| (key.to_owned(), value)).into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The wall clock, which never goes back.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    /// Nanoseconds since 1970 when it was begun.
    base: u64,
    last: u64,
}

impl Clock {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begun: Instant::now(), base: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX), last: 0 }
    }

    /// Nanoseconds since 1970. The time that passed is that of a clock which nobody sets, so that a replay keeps it.
    fn at(&mut self, now: Instant) -> u64 {
        let passed = u64::try_from(now.duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX);
        self.last = self.last.max(self.base.saturating_add(passed));
        self.last
    }
}
