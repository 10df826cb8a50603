//! The pool: a thread for each worker takes the next file, asks its worker, and tries a file again whose worker was lost.
//!
//! Nothing is shared but the list of files, so a worker that crashes, hangs or waits holds up its own thread only.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sealane::{Builder, Message, Payload};

use crate::{
    Limits, Options, Result, files,
    pixels::{self, Pixels},
    protocol::{Answer, Job, Shape, Trick},
    sandbox::Sandbox,
    supervisor::{Failure, Supervisor},
};

/// The pause before a file is opened again for which there was no descriptor.
const SHORTAGE: Duration = Duration::from_millis(10);

/// What happened to a file.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Decoded at this attempt, and handed on.
    Decoded(Shape, u32),
    /// The decoder says why not.
    Refused(String),
    /// It was not opened.
    NotOpened(io::Error),
    /// It was decoded, and what was made of it could not be kept.
    NotSaved(String),
    /// All attempts ended, the last one like this.
    Lost(Failure, u32),
    /// There is no worker left.
    NotTried,
}

impl Outcome {
    /// The outcome of a file that was decoded at this attempt, after its thumbnail was saved or not.
    pub(crate) fn of_decoded(shape: Shape, attempt: u32, saved: Result<()>) -> Self {
        saved.map_or_else(|error| Self::NotSaved(error.to_string()), |()| Self::Decoded(shape, attempt))
    }
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
    /// The reason why the first thread gave up, or did not begin.
    pub(crate) gave_up: Option<String>,
}

/// The pool's settings, and the files that are left.
struct Pool<'a, C> {
    options: &'a Options,
    files: Mutex<VecDeque<PathBuf>>,
    /// Requests so far, for those that misbehave on purpose.
    requests: AtomicU64,
    done: C,
}

/// Decodes all files, and has `done` take each with its outcome and the time that it took, in the thread of its worker.
pub(crate) fn run(
    options: &Options,
    files: impl IntoIterator<Item = PathBuf>,
    done: impl Fn(&Path, Outcome, Duration) + Sync,
) -> Result<Workers> {
    if ignores_children() {
        return Err("SIGCHLD is ignored (by whoever started this), so that no worker could be reaped: start with its default".into());
    }
    // Whatever was inherited is not for workers.
    close_fds::set_fds_cloexec(3, &[]);
    let pool =
        Pool { options, files: Mutex::new(files.into_iter().collect()), requests: AtomicU64::new(0), done };
    let mut all = Workers::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..options.workers()? {
            match thread::Builder::new().spawn_scoped(scope, || Seat::new(&pool).serve()) {
                Ok(thread) => threads.push(thread),
                // Those that there are take all files.
                Err(error) => all.gave_up = Some(format!("a thread could not be started: {error}")),
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(workers) => all.add(workers),
                // A bug of this program.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    while let Some(path) = pool.next() {
        (pool.done)(&path, Outcome::NotTried, Duration::ZERO);
    }
    Ok(all)
}

/// Whether the kernel reaps children itself, so that their numbers may be those of others (`SigIgn`, `proc_pid_status(5)`).
fn ignores_children() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored >> (libc::SIGCHLD - 1) & 1 == 1
}

impl Limits {
    /// Starts workers: this program again, in an environment of its own.
    pub(crate) fn command(&self) -> Command {
        // The file itself, even if its name means another one by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg("--worker").args(self.arguments()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// The pool's side of a channel: it sends no payloads, and takes no descriptors.
    pub(crate) fn builder(&self) -> Builder {
        Builder::default().ring_capacity(0).max_peer_ring_capacity(self.ring_capacity()).max_fds(0)
    }
}

impl Options {
    fn supervisor(&self) -> Supervisor {
        let mut command = self.limits.command();
        // Whoever has taken a worker over writes anything there, also what a terminal obeys.
        if !self.verbose {
            command.stderr(Stdio::null());
        }
        let replace_after = self.files_per_worker.map_or(u64::MAX, NonZeroU64::get);
        Supervisor::new(self.limits.builder(), command, replace_after)
    }

    /// The trick of this request.
    fn trick(&self, request: u64) -> Trick {
        let is_due =
            |every: Option<NonZeroU64>| every.is_some_and(|every| request.is_multiple_of(every.get()));
        if is_due(self.crash_every) {
            let crashes = usize::try_from(request / self.crash_every.map_or(1, NonZeroU64::get)).unwrap_or(0);
            self.crash_by.unwrap_or(Trick::CRASHES[crashes % Trick::CRASHES.len()])
        } else if is_due(self.hang_every) {
            Trick::Hang
        } else if is_due(self.escape_every) {
            Trick::Escape
        } else {
            Trick::None
        }
    }
}

impl<C> Pool<'_, C> {
    fn files(&self) -> MutexGuard<'_, VecDeque<PathBuf>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<PathBuf> {
        self.files().pop_front()
    }
}

/// One thread of the pool, with its worker.
struct Seat<'a, C> {
    pool: &'a Pool<'a, C>,
    supervisor: Supervisor,
    counts: Workers,
    /// Images that stay in the ring of the worker that was started as this one.
    kept: (usize, VecDeque<Payload>),
}

impl<'a, C: Fn(&Path, Outcome, Duration)> Seat<'a, C> {
    fn new(pool: &'a Pool<'a, C>) -> Self {
        let supervisor = pool.options.supervisor();
        Self { pool, supervisor, counts: Workers::default(), kept: (0, VecDeque::new()) }
    }

    /// One file after the other, until there are none, or no worker can be started.
    fn serve(mut self) -> Workers {
        while let Some(path) = self.pool.next() {
            let begin = Instant::now();
            let outcome = match self.open(&path) {
                Ok((file, size)) => self.decode(&path, &file, size),
                Err(error) => Outcome::NotOpened(error),
            };
            if let Outcome::Lost(failure @ Failure::NotStarted(_), _) = outcome {
                self.counts.gave_up = Some(failure.to_string());
                self.pool.files().push_front(path);
                break;
            }
            (self.pool.done)(&path, outcome, begin.elapsed());
        }
        self.counts.starts.append(&mut self.supervisor.starts);
        self.counts
    }

    /// Opens a file. A shortage of descriptors is none of its faults, and passes.
    fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        let begin = Instant::now();
        loop {
            match files::open(path) {
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
                        && begin.elapsed() < self.pool.options.limits.timeout =>
                {
                    thread::sleep(SHORTAGE);
                }
                opened => return opened,
            }
        }
    }

    /// Has a file decoded, again if its worker was lost.
    fn decode(&mut self, path: &Path, file: &File, size: u64) -> Outcome {
        let Options { limits, attempts, give_up, .. } = self.pool.options;
        let mut attempt = 1;
        loop {
            let request = 1 + self.pool.requests.fetch_add(1, Ordering::Relaxed);
            let job = Job { size, trick: self.pool.options.trick(request) as u32, padding: 0 };
            let check = |reply| Reply::check(reply, limits.max_pixels);
            let failure = match self.supervisor.call(&job, file, limits.timeout, check) {
                Ok(reply) => return self.take(path, reply, attempt),
                Err(failure) => failure,
            };
            self.counts.count(&failure);
            // The file has no part in a start that fails: it counts as no attempt.
            let is_files = !matches!(failure, Failure::NotStarted(_));
            let no_more = if is_files {
                attempt >= *attempts
            } else {
                self.supervisor.fails_to_start_for() >= *give_up
            };
            if no_more {
                return Outcome::Lost(failure, attempt);
            }
            attempt += u32::from(is_files);
        }
    }

    /// Hands the pixels of a reply on.
    fn take(&mut self, path: &Path, reply: Reply, attempt: u32) -> Outcome {
        self.counts.acts_tried += u64::from(reply.answer.acts_tried);
        self.counts.acts_refused += u64::from(reply.answer.acts_refused);
        let Some(payload) = reply.payload else { return Outcome::Refused(reply.sentence) };
        let (shape, options) = (reply.answer.shape, self.pool.options);
        let saved = pixels::save(options.save.as_deref(), path, shape, Pixels::Received(&payload));
        // A payload keeps the whole ring of its worker, also of one that has ended.
        let (worker, kept) = &mut self.kept;
        if *worker != self.supervisor.starts.len() {
            *worker = self.supervisor.starts.len();
            kept.clear();
        }
        kept.push_back(payload);
        while kept.len() > options.limits.keep {
            kept.pop_front();
        }
        Outcome::of_decoded(shape, attempt, saved)
    }
}

/// A worker's reply whose parts fit each other.
struct Reply {
    answer: Answer,
    sentence: String,
    payload: Option<Payload>,
}

impl Reply {
    fn check(mut message: Message, max_pixels: u64) -> Result<Self> {
        let (answer, sentence) = Answer::parse(message.control())?;
        let sentence = sentence.to_owned();
        let payload = message.take_payload();
        let (shape, length) = (answer.shape, payload.as_ref().map(Payload::len));
        if shape.bytes().map(|(_, all)| all) != length || shape.pixels() > max_pixels {
            return Err(format!("{} bytes of pixels for {shape:?}", length.unwrap_or(0)).into());
        }
        if answer.acts_refused > answer.acts_tried || ![0, Sandbox::ACTS].contains(&answer.acts_tried) {
            return Err(format!("{} of {} acts were refused", answer.acts_refused, answer.acts_tried).into());
        }
        Ok(Self { answer, sentence, payload })
    }
}

impl Workers {
    fn count(&mut self, failure: &Failure) {
        match failure {
            Failure::Ended(_) => self.ended += 1,
            Failure::Hung => self.hung += 1,
            Failure::Misbehaved(_) | Failure::Closed => self.misbehaved += 1,
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
