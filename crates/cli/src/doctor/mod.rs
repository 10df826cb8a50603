//! `sealane doctor`: what of this machine matters to sealane, and a test of a channel between two processes.
//!
//! A file of this folder has one family of checks. They run in a thread that is given up when its time has passed, so that a
//! file system which does not answer holds up nobody. docs/tools.md is the manual.

mod cgroup;
mod files;
mod isolation;
mod kernel;
mod limits;
mod memory;
mod processors;
mod report;
mod selftest;
mod text;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use files::Files;
use report::{Check, Family, Machine, Outcome, Report, State, Step};
use selftest::{Role, STEPS};
use text::Text;

/// Time that the self-test has beyond its own, to end its children.
const GRACE: Duration = Duration::from_millis(500);
/// More checks than there are, with the machine and the end.
const MOST_CHECKS: usize = 64;
/// Bytes of the thread's stack: less than usual, for machines with little address space.
const STACK: usize = 1 << 20;

/// Examines what of this machine matters to sealane, and tries a channel between two processes.
///
/// The exit status is 0 if there is no error (notes and warnings are none), 1 if there is one, and 2 for wrong options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sealane doctor                 what is to be known, and the self-test\n  \
    sealane doctor --all           the same, with the details of what is right\n  \
    sealane doctor --no-test       only looks; starts no process\n  \
    sealane doctor --json | jq '.checks[] | select(.state == \"error\")'")]
pub(crate) struct Options {
    /// Prints JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leaves out the self-test.
    #[arg(long)]
    no_test: bool,
    /// Gives the checks, and again the self-test, this time: more for emulators and very busy machines.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = timeout)]
    timeout: Duration,
    /// Says of each check what it limits, also where it is right.
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// The self-test's child: what it does.
    #[arg(long, hide = true)]
    role: Option<Role>,
}

fn timeout(text: &str) -> Result<Duration> {
    let time = crate::units::duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_mins(10);
    ensure!(bounds.contains(&time), "1s to 10m expected, {text} found");
    Ok(time)
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(role) = options.role {
        selftest::serve(role).context("the child of the self-test")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = Output { text: (!options.json).then(|| Text::new(options.all)), failed: None };
    let plan = Plan { test: !options.no_test, time: options.timeout };
    let report = examine(plan, &mut out);
    match out.text {
        Some(_) => out.print(&text::counts(&report)),
        None => out.print(&(serde_json::to_string_pretty(&report)? + "\n")),
    }
    match out.failed {
        // A reader that has seen enough (`| head`).
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Some(error) => return Err(error).context("standard output"),
        None => {}
    }
    Ok(if report.state == State::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Where the report goes: text as it comes about, or JSON at the end.
struct Output {
    /// `None` for JSON.
    text: Option<Text>,
    /// The first failure. Nothing is printed after it, but the report is completed for the exit status.
    failed: Option<io::Error>,
}

impl Output {
    fn print(&mut self, text: &str) {
        if self.failed.is_none() {
            let mut out = io::stdout().lock();
            self.failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
    }

    fn show(&mut self, piece: impl FnOnce(&mut Text) -> String) {
        if let Some(piece) = self.text.as_mut().map(piece) {
            self.print(&piece);
        }
    }
}

/// The parts that are asked for, and their time.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// The self-test is run.
    test: bool,
    /// Time for the checks, which take some milliseconds; and again for the self-test.
    time: Duration,
}

/// A piece of the thread's findings.
enum Found {
    Machine(Machine),
    Check(Check),
    /// All checks were made.
    All,
}

/// Makes all checks and, if planned, the self-test.
fn examine(plan: Plan, out: &mut Output) -> Report {
    // The thread waits until each check is taken. So if a filter or the OOM killer ends this process, the last line printed
    // shows how far it came.
    let (found, take) = sync_channel(0);
    // It does not wait for steps: a terminal that is stopped must not use up their time.
    let (step, steps) = channel();
    let thread = thread::Builder::new().stack_size(STACK);
    if thread.spawn(move || look(&Files::below("/"), plan, &found, &step)).is_ok() {
        return collect(plan, &take, &steps, out);
    }
    // No thread is left for this user: without one nobody watches the time.
    let (found, take) = sync_channel(MOST_CHECKS);
    let (step, steps) = channel();
    look(&Files::below("/"), plan, &found, &step);
    drop((found, step));
    collect(plan, &take, &steps, out)
}

fn look(files: &Files, plan: Plan, found: &SyncSender<Found>, step: &Sender<Step>) {
    // Nobody receives any more once the time has passed, and the process is about to end.
    let put = |item| drop(found.send(item));
    put(Found::Machine(Machine {
        kernel: kernel::release(),
        architecture: kernel::machine(),
        cpu: processors::name(files),
        cpus: processors::usable(),
    }));
    let mut add = |check| put(Found::Check(check));
    kernel::checks(files, &mut add);
    limits::checks(files, &mut add);
    memory::checks(files, &mut add);
    isolation::checks(files, &mut add);
    processors::checks(files, &mut add);
    put(Found::All);
    if plan.test {
        let mut add = |done| drop(step.send(done));
        match memory::too_small(files) {
            Some(why) => selftest::refuse(why, &mut add),
            None => selftest::run(plan.time, &mut add),
        }
    }
}

/// Collects and shows what the thread finds until it has ended, or its time has passed.
fn collect(plan: Plan, take: &Receiver<Found>, steps: &Receiver<Step>, out: &mut Output) -> Report {
    let unknown = || "unknown".to_owned();
    let mut machine = Machine { kernel: unknown(), architecture: unknown(), cpu: unknown(), cpus: None };
    let mut checks: Vec<Check> = Vec::new();
    let deadline = Instant::now() + plan.time;
    let ended = loop {
        match take.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Found::Machine(found)) => {
                out.show(|text| text.machine(&found));
                machine = found;
            }
            Ok(Found::Check(check)) => {
                out.show(|text| text.check(&check));
                checks.push(check);
            }
            Ok(Found::All) => break None,
            Err(error) => break Some(reason(error)),
        }
    };
    if let Some(ended) = ended {
        let last = checks.last().map_or("the first check", |check| check.name);
        let found =
            format!("{ended}, after \"{last}\": a file in /proc or /sys, or a system call, does not answer");
        let check = Check::new(Family::Kernel, "examination", found)
            .state(State::Error)
            .limits("all checks behind it, and the self-test, which are not tried")
            .more("docs/tools.md#doctor");
        out.show(|text| text.check(&check));
        checks.push(check);
    }
    let steps = plan.test.then(|| collect_steps(plan.time, ended, steps, out));
    Report::new(machine, checks, steps)
}

/// Collects and shows steps, and names those that have not ended. `ended` says why there is none.
fn collect_steps(
    time: Duration,
    ended: Option<&'static str>,
    steps: &Receiver<Step>,
    out: &mut Output,
) -> Vec<Step> {
    let deadline = Instant::now() + time + GRACE;
    let mut done = Vec::new();
    let mut ended = ended;
    for name in STEPS {
        let next = match ended {
            None => steps.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(reason),
            Some(_) => Err("nothing was tried"),
        };
        let step = next.unwrap_or_else(|said| {
            let outcome = if ended.is_none() { Outcome::Failed } else { Outcome::Skipped };
            ended = Some(said);
            Step { name, outcome, said: said.to_owned(), figures: Vec::new() }
        });
        out.show(|text| text.step(&step));
        done.push(step);
    }
    done
}

/// The words for the end of the thread.
fn reason(error: RecvTimeoutError) -> &'static str {
    match error {
        RecvTimeoutError::Timeout => "it did not end in time",
        RecvTimeoutError::Disconnected => "it was broken off",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;

    const TEST: Plan = Plan { test: true, time: Duration::from_millis(100) };
    const LOOK: Plan = Plan { test: false, time: Duration::from_mins(1) };

    fn silent() -> Output {
        Output { text: None, failed: None }
    }

    #[test]
    fn thread_that_hangs_or_breaks_is_named() {
        let (found, take) = sync_channel(1);
        let (step, steps) = channel();
        found.send(Found::All).unwrap();
        drop(step);
        let done = collect(TEST, &take, &steps, &mut silent()).test.unwrap();
        assert_eq!((done[0].outcome, &*done[0].said), (Outcome::Failed, "it was broken off"));
        assert!(done.len() == STEPS.len() && done[1..].iter().all(|step| step.outcome == Outcome::Skipped));

        let report = collect(TEST, &take, &steps, &mut silent());
        assert_eq!((report.state, report.checks[0].name), (State::Error, "examination"));
        assert!(report.checks[0].found.starts_with("it did not end in time, after \"the first check\""));
        assert!(report.test.unwrap().iter().all(|step| step.outcome == Outcome::Skipped));
    }

    fn checks(root: &str) -> Vec<Check> {
        let (found, take) = sync_channel(MOST_CHECKS);
        let (step, steps) = channel();
        look(&Files::below(root), LOOK, &found, &step);
        collect(LOOK, &take, &steps, &mut silent()).checks
    }

    #[test]
    fn each_check_says_what_it_limits_and_where_more_is_written() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut names = HashSet::new();
        for check in checks("/") {
            assert!(names.insert(check.name), "two checks are named {}", check.name);
            assert!(!check.limits.is_empty(), "{}", check.name);
            assert!(check.change.is_none_or(|change| change.chars().count() <= 81), "{}", check.name);
            let (page, section) = check.more.split_once('#').expect(check.name);
            let page = fs::read_to_string(docs.join(page)).expect(check.more);
            assert!(page.lines().any(|line| anchor(line).as_deref() == Some(section)), "{}", check.more);
        }
    }

    #[test]
    fn machine_without_proc_and_sys_has_the_same_checks_and_no_further_error() {
        let dir = tempfile::tempdir().unwrap();
        for (here, there) in checks("/").iter().zip(checks(dir.path().to_str().unwrap())) {
            assert_eq!(
                (here.name, &here.limits.is_empty(), here.more),
                (there.name, &there.limits.is_empty(), there.more)
            );
            assert!(there.state <= State::Note.max(here.state), "{there:?}");
            assert!(!there.limits.is_empty(), "{there:?}");
        }
    }

    /// The anchor of a heading, as GitHub makes it.
    fn anchor(line: &str) -> Option<String> {
        let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
        let kept = heading.to_lowercase().replace(' ', "-");
        Some(kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect())
    }

    /// The manual names each check and each step, so that a reader finds it there.
    #[test]
    fn manual_names_each_check_and_step() {
        let manual =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools.md")).unwrap();
        let steps = STEPS.map(|name| format!("`{name}`"));
        for name in checks("/").iter().map(|check| format!("`{}`", check.name)).chain(steps) {
            assert!(manual.contains(&name), "{name}");
        }
    }
}
