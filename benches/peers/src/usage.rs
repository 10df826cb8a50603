//! [`Usage`]: the CPU time and the sleeps of this process; and [`now`], a clock that both processes of a cell share.

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::cell::Part;

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What this process has used since it started (`getrusage(2)`).
pub(crate) struct Usage(libc::rusage);

impl Usage {
    pub(crate) fn now() -> Result<Self> {
        // SAFETY: a C struct of integers, for which zeros are values.
        let mut usage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a live `rusage` to write to.
        let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        anyhow::ensure!(result == 0, "getrusage: {}", std::io::Error::last_os_error());
        Ok(Self(usage))
    }

    /// What this process has used since `self` was taken; the other figures are 0.
    pub(crate) fn since(&self) -> Result<Part> {
        let Self(now) = Self::now()?;
        let seconds = |usage: &libc::rusage| {
            (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) as f64
                + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) as f64 / 1e6
        };
        Ok(Part {
            cpu_seconds: seconds(&now) - seconds(&self.0),
            sleeps: now.ru_nvcsw - self.0.ru_nvcsw,
            ..Part::default()
        })
    }
}
