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
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use files::Files;
use report::{Check, Family, Machine, Outcome, Report, State, Step};
use selftest::{Role, STEPS};

/// Time for all checks, beside the self-test. They take some milliseconds.
const CHECKS: Duration = Duration::from_secs(2);
/// Time that the self-test has beyond its own, to end its children.
const GRACE: Duration = Duration::from_millis(500);
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
    /// Leaves out the self-test, which takes up to 3 s.
    #[arg(long)]
    no_test: bool,
    /// Says of each check what it limits, also where it is right.
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// The self-test's child: what it does.
    #[arg(long, hide = true)]
    role: Option<Role>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(role) = options.role {
        selftest::serve(role).context("the child of the self-test")?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = examine(!options.no_test);
    let text = if options.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        text::render(&report, options.all)
    };
    print(&text).context("standard output")?;
    Ok(if report.state == State::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints text; a reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// What the thread has found.
enum Item {
    Machine(Machine),
    Check(Check),
    /// All checks were made.
    Checked,
    Step(Step),
}

/// Makes all checks and, if `test` says so, the self-test.
fn examine(test: bool) -> Report {
    let (send, receive) = channel();
    let thread = thread::Builder::new().stack_size(STACK);
    let files = Files::below("/");
    if thread.spawn(move || look(&files, test, &send)).is_ok() {
        return collect(test, &receive);
    }
    // No thread is left for this user: without one nobody watches the time.
    let (send, receive) = channel();
    look(&Files::below("/"), test, &send);
    drop(send);
    collect(test, &receive)
}

fn look(files: &Files, test: bool, send: &Sender<Item>) {
    // Nobody receives any more: the time has passed, and the process is about to end.
    let put = |item| drop(send.send(item));
    put(Item::Machine(Machine {
        kernel: kernel::release(),
        architecture: kernel::machine(),
        cpu: processors::name(files),
        cpus: processors::usable(),
    }));
    let mut add = |check| put(Item::Check(check));
    kernel::checks(files, &mut add);
    limits::checks(files, &mut add);
    memory::checks(files, &mut add);
    isolation::checks(files, &mut add);
    processors::checks(files, &mut add);
    put(Item::Checked);
    if test {
        let mut add = |step| put(Item::Step(step));
        match memory::too_small(files) {
            Some(why) => selftest::refuse(why, &mut add),
            None => selftest::run(&mut add),
        }
    }
}

/// Collects what the thread finds until it has ended, or its time has passed.
fn collect(test: bool, receive: &Receiver<Item>) -> Report {
    let mut machine = None;
    let (mut checks, mut steps, mut checked) = (Vec::new(), Vec::new(), false);
    let mut deadline = Instant::now() + CHECKS;
    let ended = loop {
        match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Item::Machine(found)) => machine = Some(found),
            Ok(Item::Check(check)) => checks.push(check),
            Ok(Item::Checked) => {
                checked = true;
                deadline = Instant::now() + selftest::WHOLE + GRACE;
            }
            Ok(Item::Step(step)) => steps.push(step),
            Err(RecvTimeoutError::Timeout) => break "it did not end in time",
            Err(RecvTimeoutError::Disconnected) => break "it was broken off",
        }
    };
    if !checked {
        let last = checks.last().map_or("the first check", |check: &Check| check.name);
        let found =
            format!("{ended}, after \"{last}\": a file in /proc or /sys, or a system call, does not answer");
        checks.push(Check::new(Family::Kernel, "examination", found).state(State::Error));
    }
    if test {
        let missing = STEPS.iter().skip(steps.len()).zip(0_u64..).map(|(name, at)| match at {
            0 => Step { name, outcome: Outcome::Failed, said: ended.to_owned(), figures: Vec::new() },
            _ => Step {
                name,
                outcome: Outcome::Skipped,
                said: "no time was left".to_owned(),
                figures: Vec::new(),
            },
        });
        let missing: Vec<_> = missing.collect();
        steps.extend(missing);
    }
    let unknown = || "unknown".to_owned();
    let machine = machine.unwrap_or_else(|| Machine {
        kernel: unknown(),
        architecture: unknown(),
        cpu: unknown(),
        cpus: None,
    });
    Report::new(machine, checks, test.then_some(steps))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;

    /// A thread that has found nothing when its time has passed, or that is broken off.
    #[test]
    fn thread_that_hangs_or_breaks_is_named() {
        let (send, receive) = channel();
        send.send(Item::Checked).unwrap();
        drop(send);
        let report = collect(true, &receive);
        let steps = report.test.unwrap();
        assert_eq!(
            (steps.len(), steps[0].outcome, steps[1].outcome),
            (STEPS.len(), Outcome::Failed, Outcome::Skipped)
        );
        let (_send, receive) = channel();
        let report = collect(false, &receive);
        assert_eq!((report.state, report.checks[0].name), (State::Error, "examination"));
        assert!(report.checks[0].found.starts_with("it did not end in time, after \"the first check\""));
    }

    fn checks(root: &str) -> Vec<Check> {
        let (send, receive) = channel();
        look(&Files::below(root), false, &send);
        drop(send);
        collect(false, &receive).checks
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
