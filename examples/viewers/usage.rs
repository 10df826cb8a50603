//! Clocks: CPU time of this process, and a clock that all processes share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this process, in user mode and in the kernel.
pub(crate) fn cpu_time() -> Duration {
    time(ClockId::ProcessCPUTime)
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> u64 {
    u64::try_from(time(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
}

fn time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
