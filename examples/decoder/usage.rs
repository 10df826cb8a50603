//! What the kernel counts of this process, and of the children that it has reaped.

use std::{fs, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use crate::Result;

/// Processor time and memory, as `getrusage(2)` has them.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// In user mode and in the kernel.
    pub(crate) cpu: Duration,
    /// The largest resident set so far, in KiB: of the children, that of the largest.
    pub(crate) memory: i64,
}

impl Usage {
    pub(crate) fn here() -> Result<Self> {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    pub(crate) fn children() -> Result<Self> {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Result<Self> {
        let usage = getrusage(who)?;
        Ok(Self { cpu: duration(usage.user_time()) + duration(usage.system_time()), memory: usage.max_rss() })
    }
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
}

/// Open descriptors of this process.
pub(crate) fn descriptors() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}
