//! The kernel's numbers on processes and memory.

use std::fs;

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::Result;

/// Lets this process, and those that it starts, open as many files as it may: a client costs three at each end.
pub(crate) fn open_as_many_files_as_allowed() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Where a process may run: the hub has a processor of its own, where there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Hub,
    Clients,
}

/// Keeps this process, and the threads that it will have, to its place. Beside each other, hub and clients would wait for
/// the scheduler, which lets a thread that is at work finish its slice of some milliseconds.
pub(crate) fn keep_to(place: Place) -> Result<()> {
    let mut cpus = sched_getaffinity(None)?;
    let Some(hub) = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu)) else { return Ok(()) };
    match place {
        Place::Hub => {
            cpus.clear();
            cpus.set(hub);
        }
        Place::Clients if cpus.count() == 1 => {}
        Place::Clients => cpus.unset(hub),
    }
    Ok(sched_setaffinity(None, &cpus)?)
}

/// Memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Proportional set size, in KiB: its own memory, and its share of what it shares. Half of each ring is the peer's.
    pub(crate) pss: u64,
    /// The shared part of it: rings and control pages.
    pub(crate) pss_shared: u64,
    /// Open descriptors.
    pub(crate) fds: u64,
}

impl Usage {
    /// By `/proc/PID/smaps_rollup` and `/proc/PID/fd`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let fds = u64::try_from(fs::read_dir(format!("/proc/{pid}/fd"))?.count())?;
        Ok(Self { pss: field(&text, "Pss:")?, pss_shared: field(&text, "Pss_Shmem:")?, fds })
    }
}

/// Memory of the kernel itself, of the whole machine, in KiB: sockets, files, page tables, by `/proc/meminfo`.
pub(crate) fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(field(&text, "Slab:")? + field(&text, "PageTables:")?)
}

fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {name} there"))?.parse()?)
}
