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

use crate::protocol::{Job, READY};

type Result<T, E = Failure> = std::result::Result<T, E>;

/// The first pause before a start, and the longest; each failure doubles it.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
/// The time in which a worker enters its sandbox.
const READINESS: Duration = Duration::from_secs(5);
/// The time in which a worker ends that has closed its channel, or was killed.
const END: Duration = Duration::from_millis(500);

/// The end of a worker, or of an attempt to start one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be started, did not take its channel, or could not enter its sandbox.
    NotStarted(String),
    /// Its process ended by itself, with this status.
    Ended(ExitStatus),
    /// It closed its channel, and its process went on.
    Closed,
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
            Self::NotStarted(reason) => write!(f, "no worker could be started: {reason}"),
            Self::Ended(status) => write!(f, "its worker ended: {status}"),
            Self::Closed => f.write_str("its worker closed its channel and went on: it was killed"),
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
    /// A worker is replaced after so many answers.
    replace_after: u64,
    worker: Option<Worker>,
    /// Workers that were lost since the last answer.
    failures: u32,
    /// The first of the starts that have failed since the last one that succeeded.
    failing_since: Option<Instant>,
    /// Processes that did not end in time. Each may wait for a device, or free much memory.
    lingering: Vec<Child>,
    /// The time of each start: from the call until the worker is in its sandbox.
    pub(crate) starts: Vec<Duration>,
}

impl Supervisor {
    pub(crate) fn new(builder: Builder, command: Command, replace_after: u64) -> Self {
        Self {
            builder,
            command,
            replace_after,
            worker: None,
            failures: 0,
            failing_since: None,
            lingering: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// For how long no start has succeeded.
    pub(crate) fn fails_to_start_for(&self) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Has the worker answer a job, and starts one if there is none. Whatever fails ends it. What the worker says is believed as far as
    /// `check` goes.
    pub(crate) fn call<T>(
        &mut self,
        job: &Job,
        file: &File,
        timeout: Duration,
        check: impl FnOnce(Message) -> crate::Result<T>,
    ) -> Result<T> {
        let control = || Control::of(job).fd(file);
        let mut request = self.worker()?.channel.sender.request_timeout(control(), timeout);
        if matches!(request, Err(Error::Disconnected)) {
            // It ended after its last answer, before it had this file.
            self.end(Duration::ZERO);
            request = self.worker()?.channel.sender.request_timeout(control(), timeout);
        }
        let answer = request.map_err(|error| self.lost(error, Failure::NotAsked)).and_then(|request| {
            let reply = self.worker()?.channel.receiver.wait_reply(request, timeout);
            reply.map_err(|error| self.lost(error, |error| Failure::Misbehaved(error.to_string())))
        })?;
        // A worker that is gone by now has answered all the same.
        let more = match self.worker()?.channel.try_recv() {
            Ok(None) | Err(Error::Disconnected) => None,
            Ok(Some(_)) => Some("a message that nobody asked for".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let answer = more.map_or_else(|| check(answer).map_err(|error| error.to_string()), Err);
        match answer {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(how) => {
                self.failures += 1;
                self.end(Duration::ZERO);
                Err(Failure::Misbehaved(how))
            }
        }
    }

    fn answered(&mut self) {
        self.failures = 0;
        if let Some(worker) = &mut self.worker {
            worker.answers += 1;
            if worker.answers >= self.replace_after {
                self.end(END);
            }
        }
    }

    /// Ends the worker after this error; `other` names errors that are no end of it.
    fn lost(&mut self, error: Error, other: impl FnOnce(Error) -> Failure) -> Failure {
        self.failures += 1;
        match error {
            Error::Disconnected => {
                // It has crashed, or ends: its own status is worth waiting for.
                self.end(END).map_or(Failure::Closed, Failure::Ended)
            }
            error => {
                self.end(Duration::ZERO);
                if error.is_timeout() { Failure::Hung } else { other(error) }
            }
        }
    }

    /// The worker, started if there is none.
    fn worker(&mut self) -> Result<&mut Worker> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start().inspect_err(|_| {
                self.failures += 1;
                self.failing_since.get_or_insert_with(Instant::now);
            })?,
        };
        Ok(self.worker.insert(worker))
    }

    fn start(&mut self) -> Result<Worker> {
        self.lingering.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        // One crash is a file's. Several without an answer between them are the worker's own, or the machine's.
        if let Some(doublings) = self.failures.checked_sub(2) {
            let [first, longest] = PAUSES;
            thread::sleep(first.saturating_mul(1 << doublings.min(16)).min(longest));
        }
        let begin = Instant::now();
        let started = self.builder.spawn(&mut self.command);
        let (mut channel, child) = started.map_err(|error| Failure::NotStarted(error.to_string()))?;
        let first = channel.recv_timeout(READINESS);
        self.worker = Some(Worker { channel, child, answers: 0 });
        let reason = match first {
            Ok(message) if message.control() == READY => None,
            Ok(message) => Some(String::from_utf8_lossy(message.control()).into_owned()),
            Err(Error::Disconnected) => {
                let status = self.end(END).map_or_else(String::new, |status| format!(": {status}"));
                Some(format!("it ended before it was ready{status}"))
            }
            Err(error) => Some(format!("it was not ready: {error}")),
        };
        if let Some(reason) = reason {
            self.end(Duration::ZERO);
            return Err(Failure::NotStarted(reason));
        }
        self.failing_since = None;
        self.starts.push(begin.elapsed());
        self.worker.take().ok_or_else(|| Failure::NotStarted("it is gone".into()))
    }

    /// Closes the channel, lets the process end by itself for a while, ends it and reaps it. The status of one that ended by itself.
    fn end(&mut self, grace: Duration) -> Option<ExitStatus> {
        let Worker { channel, mut child, .. } = self.worker.take()?;
        drop(channel);
        if ends_within(grace, &child) {
            return child.wait().ok();
        }
        // It may have ended meanwhile.
        let _ = child.kill();
        if ends_within(END, &child) {
            let _ = child.wait();
        } else {
            self.lingering.push(child);
        }
        None
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
