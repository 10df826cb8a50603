//! The self-test: a channel, and a publisher, between this process and a child that is this program again.
//!
//! Every byte that travels is compared, and every wait has a deadline. A step that fails says why, and those that need what it
//! made are skipped by name.

mod child;
mod fanout;
mod measure;
mod pin;

use std::{
    io::Read,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::{
    event::PollFlags,
    pipe::{PipeFlags, pipe_with},
};
use sealane::{Channel, Control, Error};

pub(super) use child::{Role, serve};

use super::report::{Figure, Outcome, Step};
use child::{ECHO, FD, pattern};

/// Waits that fit into the time for the whole self-test, so that the steps behind one that fails are still tried.
const WAITS: u32 = 3;
/// Time that the end of a child may take.
const REAPING: Duration = Duration::from_secs(1);
/// Time after which a child that hears nothing ends: its parent is stopped. A parent that has ended is noticed at once.
const IDLE: Duration = Duration::from_mins(1);
/// Time for one figure.
const MEASURE: Duration = Duration::from_millis(150);
/// Text that goes through a descriptor that was sent.
const THROUGH_FD: &[u8] = b"sealane";

/// The steps, in the order in which they are run.
pub(super) const STEPS: [&str; 6] =
    ["channel", "messages", "descriptor", "speed", "death of the peer", "publisher"];

/// The end of the whole self-test, by which each wait is cut.
#[derive(Debug, Clone, Copy)]
struct Clock {
    end: Instant,
    wait: Duration,
}

impl Clock {
    /// Time for the next wait.
    fn wait(self) -> Duration {
        self.wait.min(self.end.saturating_duration_since(Instant::now()))
    }
}

/// A child that is ended and reaped when it is dropped.
#[derive(Debug)]
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // A child that the kernel does not end soon (it frees much memory) is left to it, as this process ends too.
        let _ = reap(&mut self.0, REAPING);
    }
}

/// Waits for a child's end.
fn reap(child: &mut Child, timeout: Duration) -> bool {
    use rustix::{
        event::{PollFd, Timespec, poll},
        process::{Pid, PidfdFlags, pidfd_open},
    };
    let timeout = Timespec::try_from(timeout).ok();
    if let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref());
    }
    matches!(child.try_wait(), Ok(Some(_)))
}

/// The command that starts this program again, in a role.
fn command(role: Role) -> Command {
    // The link leads to the program also where its file was replaced; without `/proc` there is the path of its start.
    let link = std::path::Path::new("/proc/self/exe");
    let program =
        if link.exists() { link.into() } else { std::env::current_exe().unwrap_or_else(|_| started_as()) };
    let mut command = Command::new(program);
    // The child neither reads nor prints, so that it needs no `/dev/null`, which some containers do not have.
    command.args(["doctor", "--role", role.word()]);
    command
}

fn started_as() -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()).into()
}

/// Tries nothing, for a reason that is the first step's failure.
pub(super) fn refuse(why: String, add: &mut dyn FnMut(Step)) {
    let [channel, rest @ ..] = STEPS;
    add(ended(channel, Err(anyhow!(why))));
    skip(&rest, "nothing was tried", add);
}

/// Leaves out steps.
fn skip(names: &[&'static str], why: &str, add: &mut dyn FnMut(Step)) {
    for name in names {
        add(Step { name, outcome: Outcome::Skipped, said: why.to_owned(), figures: Vec::new() });
    }
}

/// Runs all steps within a time, and hands on each as it ends.
pub(super) fn run(time: Duration, add: &mut dyn FnMut(Step)) {
    let clock = Clock { end: Instant::now() + time, wait: time / WAITS };
    let [channel, messages, descriptor, speed, death, publisher] = STEPS;
    match start(clock) {
        Ok((mut ends, child, tried)) => {
            add(ended(channel, Ok(tried)));
            add(ended(messages, exchange(&mut ends, clock)));
            add(ended(descriptor, send_descriptor(&mut ends, clock)));
            add(ended(speed, measure::speed(&mut ends, clock)));
            add(ended(death, notice_death(&mut ends, child, clock)));
        }
        Err(error) => {
            add(ended(channel, Err(error)));
            let why = format!("it needs the step \"{channel}\"");
            skip(&[messages, descriptor, speed, death], &why, add);
        }
    }
    add(ended(publisher, fanout::publish(clock)));
}

/// The result of a step that succeeds: the attempt, and figures.
type Tried = (String, Vec<Figure>);

fn ended(name: &'static str, result: Result<Tried>) -> Step {
    match result {
        Ok((said, figures)) => Step { name, outcome: Outcome::Passed, said, figures },
        Err(error) => {
            Step { name, outcome: Outcome::Failed, said: format!("{error:#}"), figures: Vec::new() }
        }
    }
}

fn start(clock: Clock) -> Result<(Channel, Ends, Tried)> {
    let began = Instant::now();
    let builder = Channel::builder().handshake_timeout(clock.wait());
    let (channel, child) = builder.spawn(command(Role::Channel)).context("no channel to a child was made")?;
    let figure = Figure { name: "start", value: millis(began.elapsed()), unit: "ms" };
    Ok((channel, Ends(child), ("a child was started, and a channel to it made".to_owned(), vec![figure])))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Sends messages of many lengths to the child, which sends each back, and compares every byte.
fn exchange(channel: &mut Channel, clock: Clock) -> Result<Tried> {
    let lengths = [0, 1, 63, 64, 4095, 4096, 65_536, 1 << 20];
    let control_lengths = [1, 64, 1024, 4096, 60_000];
    let mut sent = 0;
    for ((len, control_len), number) in
        lengths.into_iter().cycle().zip(control_lengths.into_iter().cycle()).zip(0..64)
    {
        // Up to so many control bytes always ride behind a payload: `send_with` waits for nothing.
        let control_len = if len == 0 { control_len } else { control_len.min(1024) };
        let mut control = vec![ECHO];
        control.extend(pattern(number + 1000).take(control_len - 1));
        let bytes: Vec<u8> = pattern(number).take(len).collect();
        if bytes.is_empty() {
            channel.sender.send_timeout(&control, clock.wait())?;
        } else {
            let mut loan = channel.sender.loan_timeout(len, clock.wait())?;
            loan.copy_from_slice(&bytes);
            loan.send_with(&control)?;
        }
        let message =
            channel.recv_timeout(clock.wait()).with_context(|| format!("no answer to message {number}"))?;
        let answer = message.payload().map(sealane::Payload::to_vec).unwrap_or_default();
        ensure!(message.control() == control, "message {number}: other control bytes came back");
        ensure!(answer == bytes, "message {number}: another payload came back, of {} bytes", answer.len());
        sent += 1;
    }
    Ok((format!("{sent} came back whole, in order, and with every byte right"), Vec::new()))
}

/// Sends the writing end of a pipe to the child, and reads what the child writes.
fn send_descriptor(channel: &mut Channel, clock: Clock) -> Result<Tried> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    channel.sender.send_timeout(Control::new(&[FD]).fd(&write), clock.wait())?;
    drop(write);
    let answer = channel.recv_timeout(clock.wait()).context("no answer to the descriptor")?;
    ensure!(answer.control() == [FD], "the child did not get the descriptor");
    // The child has closed its copy, so that the pipe has an end: this read waits for nothing.
    let mut text = Vec::new();
    std::fs::File::from(read).take(64).read_to_end(&mut text)?;
    ensure!(text == THROUGH_FD, "expected {THROUGH_FD:?} from the child's copy, found {text:?}");
    Ok(("the writing end of a pipe arrived, and works".to_owned(), Vec::new()))
}

/// Ends the child, and waits for the channel to say so.
fn notice_death(channel: &mut Channel, mut child: Ends, clock: Clock) -> Result<Tried> {
    let killed = Instant::now();
    child.0.kill()?;
    match channel.recv_timeout(clock.wait()) {
        Err(Error::Disconnected) => {
            let figure = Figure { name: "death_noticed", value: millis(killed.elapsed()), unit: "ms" };
            Ok(("a wait ended when the child was killed".to_owned(), vec![figure]))
        }
        Err(error) => bail!("expected the end of the channel, found: {error}"),
        Ok(_) => bail!("expected the end of the channel, found a message"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    #[test]
    fn child_that_waits_for_ever_is_ended_and_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (kept, mut end) = (child.stdin.take(), child.stdout.take().unwrap());
        drop(Ends(child));
        // It has ended, though it could have read on.
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&timeout)), Ok(1));
        assert_eq!(end.read_to_end(&mut Vec::new()).unwrap(), 0);
        drop(kept);
    }
}
