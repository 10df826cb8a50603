//! A worker process and the means to start it again.
//!
//! The builder and the command are used for each start. A worker has one request at a time, so there is one file in flight, which the caller
//! still holds: the caller decides whether it is tried again.

use std::{
    fmt,
    fs::File,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use sealane::{Builder, Channel, Control, Error, Message};

use crate::{Result, protocol::Job};

/// The first pause before a start, and the longest; each failure doubles it.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// The time in which a worker ends that has closed its channel, or was killed.
const END: Duration = Duration::from_millis(500);

/// The end of a worker, or of an attempt to start one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be started, or did not take its channel.
    NotStarted(Error),
    /// Its process ended, with this status.
    Ended(ExitStatus),
    /// It closed its channel, or was killed, and its process is still there.
    Lingers,
    /// It did not answer in time.
    Hung,
    /// It did what no worker does.
    Misbehaved(String),
    /// This process could not ask it, for its own reasons.
    NotAsked(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "no worker could be started: {error}"),
            Self::Ended(status) => write!(f, "its worker ended: {status}"),
            Self::Lingers => f.write_str("its worker closed its channel"),
            Self::Hung => f.write_str("its worker did not answer in time (--timeout)"),
            Self::Misbehaved(how) => write!(f, "its worker misbehaved: {how}"),
            Self::NotAsked(error) => write!(f, "its worker could not be asked: {error}"),
        }
    }
}

struct Worker {
    channel: Channel,
    child: Child,
    answers: u64,
}

/// One place of the pool: a worker, or the next one.
pub(crate) struct Supervisor {
    builder: Builder,
    command: Command,
    /// Answers after which a worker is replaced.
    answers: u64,
    worker: Option<Worker>,
    /// Failures since the last answer.
    failures: u32,
    /// Processes that did not end in time. Each may wait for a device, or free much memory.
    lingering: Vec<Child>,
    /// The time of each start: from the call to the channel.
    pub(crate) starts: Vec<Duration>,
}

impl Supervisor {
    pub(crate) fn new(builder: Builder, command: Command, answers: u64) -> Self {
        Self {
            builder,
            command,
            answers,
            worker: None,
            failures: 0,
            lingering: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Failures since the last answer.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Has the worker answer a job, and starts one if there is none. Whatever fails ends it. What the worker says is believed as far as
    /// `check` goes.
    pub(crate) fn call<T>(
        &mut self,
        job: &Job,
        file: &File,
        timeout: Duration,
        check: impl FnOnce(Message) -> Result<T>,
    ) -> std::result::Result<T, Failure> {
        let result = self.start().and_then(|worker| {
            let request = worker.channel.sender.request_timeout(Control::of(job).fd(file), timeout)?;
            let reply = worker.channel.receiver.wait_reply(request, timeout)?;
            if worker.channel.try_recv()?.is_some() {
                return Err(Failure::Misbehaved("a message that nobody asked for".into()).into());
            }
            Ok(check(reply).map_err(|error| Failure::Misbehaved(error.to_string()))?)
        });
        match result {
            Ok(reply) => {
                self.failures = 0;
                if let Some(worker) = &mut self.worker {
                    worker.answers += 1;
                    if worker.answers >= self.answers {
                        self.end(END);
                    }
                }
                Ok(reply)
            }
            Err(problem) => {
                self.failures += 1;
                // A worker that closed its channel has crashed, or ends: its own status is worth waiting for.
                let closed = matches!(problem, Problem::Channel(Error::Disconnected));
                let status = self.end(if closed { END } else { Duration::ZERO });
                Err(match problem {
                    Problem::Known(failure) => failure,
                    Problem::Channel(Error::Timeout | Error::TimeoutHolding { .. }) => Failure::Hung,
                    Problem::Channel(Error::Disconnected) => status.map_or(Failure::Lingers, Failure::Ended),
                    Problem::Channel(error @ Error::Protocol(_)) => Failure::Misbehaved(error.to_string()),
                    Problem::Channel(error) => Failure::NotAsked(error),
                })
            }
        }
    }

    /// The worker, started if there is none.
    fn start(&mut self) -> std::result::Result<&mut Worker, Problem> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start_again()?,
        };
        Ok(self.worker.insert(worker))
    }

    fn start_again(&mut self) -> std::result::Result<Worker, Failure> {
        self.lingering.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        // One crash is a file's. Several without an answer between them are the worker's own, or the machine's.
        if let Some(doublings) = self.failures.checked_sub(2) {
            let [first, longest] = PAUSES;
            thread::sleep(first.saturating_mul(1 << doublings.min(16)).min(longest));
        }
        let begin = Instant::now();
        let (channel, child) = self.builder.spawn(&mut self.command).map_err(Failure::NotStarted)?;
        self.starts.push(begin.elapsed());
        Ok(Worker { channel, child, answers: 0 })
    }

    /// Closes the channel, lets the process end by itself for a while, ends it and reaps it. Its status, if it ended in time.
    fn end(&mut self, grace: Duration) -> Option<ExitStatus> {
        let Worker { channel, mut child, .. } = self.worker.take()?;
        drop(channel);
        if !ends_within(grace, &child) {
            // It may have ended meanwhile.
            let _ = child.kill();
            if !ends_within(END, &child) {
                self.lingering.push(child);
                return None;
            }
        }
        child.wait().ok()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end(END);
    }
}

/// Whether a process ends within this time.
fn ends_within(time: Duration, child: &Child) -> bool {
    let deadline = Instant::now() + time;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// What went wrong in a call, before the worker's process was looked at.
enum Problem {
    Known(Failure),
    Channel(Error),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Known(failure)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Channel(error)
    }
}
