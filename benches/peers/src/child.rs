//! The two processes of a cell: this program starts itself twice, and each child pins itself, does its part, and reports.
//!
//! A child gets its side and its cell as arguments and the link to the other child as a descriptor. It writes its [`Part`]
//! to standard output as JSON.

use std::{
    io::Write,
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Pid, Signal, set_parent_process_death_signal},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    cell::{Cell, Part, Sample, Side},
    link::Link,
    transports,
};

/// The link's descriptor in a child, or the first of several.
pub(crate) const LINK: i32 = 3;
/// A cell that takes longer than this is stuck; idle work may take longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts both processes and waits for their reports.
pub(crate) fn measure(cell: &Cell, round: usize) -> Result<Sample> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let first = start(Side::First, cell, a)?;
    let second = match start(Side::Second, cell, b) {
        Ok(second) => second,
        Err(error) => {
            let _ = finish(first);
            return Err(error);
        }
    };
    let (first, second) = (finish(first), finish(second));
    // The process that failed first is often the one that is looked at second: report both.
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(Sample { round, cell: cell.clone(), first, second }),
        (Err(a), Err(b)) => bail!("first process: {a:#}; second process: {b:#}"),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn start(side: Side, cell: &Cell, link: OwnedFd) -> Result<Child> {
    let side = match side {
        Side::First => "first",
        Side::Second => "second",
    };
    start_self(&["child", side, &serde_json::to_string(cell)?], vec![link])
}

/// Starts this program as a process of a cell, with these links from [`LINK`] on.
pub(crate) fn start_self(args: &[&str], links: Vec<OwnedFd>) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mappings = links.into_iter().zip(LINK..);
    command.fd_mappings(mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect())?;
    command.spawn().context("starting a process of the cell")
}

/// The report of a process of a cell.
pub(crate) fn finish(child: Child) -> Result<Part> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("reading what a process said")
}

/// The whole life of a child.
pub(crate) fn run(side: Side, cell: &Cell) -> Result<()> {
    limit(LIMIT + 2 * cell.idle())?;
    // SAFETY: the parent has put the link there (`start`), and nothing else in this process has taken it.
    let link = Link(unsafe { OwnedFd::from_raw_fd(LINK) });
    pin(if cell.one_core { Side::First } else { side }.cpu())?;
    report(&transports::run(side, cell, &link)?)
}

/// Ends this process with its parent, and after `time`.
pub(crate) fn limit(time: Duration) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // SAFETY: `alarm(2)` has no requirements; its signal ends a process that is stuck.
    unsafe { libc::alarm(time.as_secs_f64() as u32) };
    Ok(())
}

/// Reports to the process that started this one.
pub(crate) fn report(part: &Part) -> Result<()> {
    serde_json::to_writer(std::io::stdout(), part)?;
    Ok(std::io::stdout().flush()?)
}

pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None::<Pid>, &cpus)?)
}
