//! The pool: a thread for each worker takes the next file, asks its worker, and tries a file again whose worker was lost.
//!
//! Nothing is shared but the list of files, so a worker that crashes, hangs or waits holds up its own thread only.

use std::{
    collections::VecDeque,
    env::current_exe,
    fs::File,
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sealane::{Builder, Message, Payload};

use crate::{
    Options, Result, files,
    pixels::{self, Pixels},
    protocol::{Answer, Job, Shape, Trick},
    supervisor::{Failure, Supervisor},
};

/// Failed starts without an answer between them, after which a thread gives up.
const STARTS: u32 = 6;

/// What happened to a file.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Decoded at this attempt, and handed on.
    Decoded(Shape, u32),
    /// The decoder says why not.
    Refused(String),
    /// It was not opened.
    NotOpened(String),
    /// It was decoded, and what was made of it could not be kept.
    NotSaved(String),
    /// All attempts ended like this.
    Lost(Failure, u32),
    /// There is no worker left.
    NotTried,
}

/// Counts of a whole run.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) starts: Vec<Duration>,
    pub(crate) ended: u64,
    pub(crate) hung: u64,
    pub(crate) misbehaved: u64,
    pub(crate) acts_tried: u64,
    pub(crate) acts_refused: u64,
    /// The reason why the first thread gave up.
    pub(crate) gave_up: Option<String>,
}

/// The pool's settings, and the files that are left.
struct Pool<'a, F, C> {
    options: &'a Options,
    files: Mutex<F>,
    /// Requests so far, for those that misbehave on purpose.
    requests: AtomicU64,
    done: C,
}

/// Decodes all files, and has `done` take each with its outcome and the time that it took, in the thread of its worker.
pub(crate) fn run(
    options: &Options,
    files: impl Iterator<Item = PathBuf> + Send,
    done: impl Fn(&Path, Outcome, Duration) + Sync,
) -> Result<Workers> {
    let pool = Pool { options, files: Mutex::new(files), requests: AtomicU64::new(0), done };
    let supervisors: Vec<_> = (0..options.workers()?).map(|_| options.supervisor()).collect::<Result<_>>()?;
    let mut all = Workers::default();
    thread::scope(|scope| {
        let threads: Vec<_> =
            supervisors.into_iter().map(|supervisor| scope.spawn(|| pool.serve(supervisor))).collect();
        for thread in threads {
            match thread.join() {
                Ok(workers) => all.add(workers),
                // A bug of this program.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    while let Some(path) = pool.next() {
        (pool.done)(&path, Outcome::NotTried, Duration::ZERO);
    }
    Ok(all)
}

impl Options {
    /// Starts workers: this program again, in an environment of its own.
    fn supervisor(&self) -> Result<Supervisor> {
        let ring = self.limits.ring_capacity();
        // The pool sends no payloads.
        let builder = Builder::default().ring_capacity(0).max_peer_ring_capacity(ring);
        let mut command = Command::new(current_exe()?);
        command
            .arg("--worker")
            .args(self.limits.arguments())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // Whoever has taken a worker over writes anything there, also what a terminal obeys.
        if !self.verbose {
            command.stderr(Stdio::null());
        }
        Ok(Supervisor::new(builder, command, self.files_per_worker.map_or(u64::MAX, NonZeroU64::get)))
    }

    /// The trick of this request.
    fn trick(&self, request: u64) -> Trick {
        let is_due =
            |every: Option<NonZeroU64>| every.is_some_and(|every| request.is_multiple_of(every.get()));
        if is_due(self.crash_every) {
            let crashes = usize::try_from(request / self.crash_every.map_or(1, NonZeroU64::get)).unwrap_or(0);
            Trick::CRASHES[crashes % Trick::CRASHES.len()]
        } else if is_due(self.hang_every) {
            Trick::Hang
        } else if is_due(self.escape_every) {
            Trick::Escape
        } else {
            Trick::None
        }
    }
}

impl<F: Iterator<Item = PathBuf>, C: Fn(&Path, Outcome, Duration)> Pool<'_, F, C> {
    fn next(&self) -> Option<PathBuf> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// One thread's work.
    fn serve(&self, mut supervisor: Supervisor) -> Workers {
        let mut workers = Workers::default();
        let mut kept = VecDeque::new();
        while let Some(path) = self.next() {
            let begin = Instant::now();
            let outcome = match files::open(&path) {
                Ok((file, size)) => self.decode(&path, &file, size, &mut supervisor, &mut workers, &mut kept),
                Err(error) => Outcome::NotOpened(error.to_string()),
            };
            let no_start = match &outcome {
                Outcome::Lost(failure @ Failure::NotStarted(_), _) => Some(failure.to_string()),
                _ => None,
            };
            (self.done)(&path, outcome, begin.elapsed());
            if no_start.is_some() {
                workers.gave_up = no_start;
                break;
            }
        }
        workers.starts.append(&mut supervisor.starts);
        workers
    }

    /// Has a file decoded, again if its worker was lost.
    fn decode(
        &self,
        path: &Path,
        file: &File,
        size: u64,
        supervisor: &mut Supervisor,
        workers: &mut Workers,
        kept: &mut VecDeque<Payload>,
    ) -> Outcome {
        let mut attempt = 1;
        loop {
            let request = 1 + self.requests.fetch_add(1, Ordering::Relaxed);
            let job = Job { size, trick: self.options.trick(request) as u32, padding: 0 };
            let failure = match supervisor.call(&job, file, self.options.limits.timeout, Reply::check) {
                Ok(reply) => return self.take(path, reply, attempt, workers, kept),
                Err(failure) => failure,
            };
            workers.count(&failure);
            // The file has no part in this: it counts as no attempt.
            let is_files = !matches!(failure, Failure::NotStarted(_));
            let no_more =
                if is_files { attempt >= self.options.attempts } else { supervisor.failures() >= STARTS };
            if no_more {
                return Outcome::Lost(failure, attempt);
            }
            attempt += u32::from(is_files);
        }
    }

    /// Hands the pixels of a reply on.
    fn take(
        &self,
        path: &Path,
        reply: Reply,
        attempt: u32,
        workers: &mut Workers,
        kept: &mut VecDeque<Payload>,
    ) -> Outcome {
        workers.acts_tried += u64::from(reply.answer.acts_tried);
        workers.acts_refused += u64::from(reply.answer.acts_refused);
        let Some(payload) = reply.payload else { return Outcome::Refused(reply.sentence) };
        let shape = reply.answer.shape;
        let saved = pixels::save(self.options.save.as_deref(), path, shape, Pixels::Received(&payload));
        kept.push_back(payload);
        while kept.len() > self.options.limits.keep {
            kept.pop_front();
        }
        saved.map_or_else(|error| Outcome::NotSaved(error.to_string()), |()| Outcome::Decoded(shape, attempt))
    }
}

/// A worker's reply whose parts fit each other.
struct Reply {
    answer: Answer,
    sentence: String,
    payload: Option<Payload>,
}

impl Reply {
    fn check(mut message: Message) -> Result<Self> {
        let (answer, sentence) = Answer::parse(message.control())?;
        let sentence = sentence.to_owned();
        let payload = message.take_payload();
        let (shape, length) = (answer.shape, payload.as_ref().map(Payload::len));
        if shape.bytes().map(|(_, all)| all) != length {
            return Err(format!("{} bytes of pixels for {shape:?}", length.unwrap_or(0)).into());
        }
        Ok(Self { answer, sentence, payload })
    }
}

impl Workers {
    fn count(&mut self, failure: &Failure) {
        match failure {
            Failure::Ended(_) | Failure::Lingers => self.ended += 1,
            Failure::Hung => self.hung += 1,
            Failure::Misbehaved(_) => self.misbehaved += 1,
            Failure::NotStarted(_) | Failure::NotAsked(_) => {}
        }
    }

    fn add(&mut self, mut other: Self) {
        self.starts.append(&mut other.starts);
        self.ended += other.ended;
        self.hung += other.hung;
        self.misbehaved += other.misbehaved;
        self.acts_tried += other.acts_tried;
        self.acts_refused += other.acts_refused;
        self.gave_up = self.gave_up.take().or(other.gave_up);
    }
}
