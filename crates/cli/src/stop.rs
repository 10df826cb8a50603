//! [`Stop`]: the wish of whoever started the command that it ends.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};

/// The longest time after which a command that waits looks at the wish.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Whether a signal has asked the process to end. A second one ends it at once.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes `SIGINT`, `SIGTERM` and `SIGHUP`, but not those that are ignored, as under `nohup(1)`.
    ///
    /// `SIGXFSZ` is taken too, so that a write beyond the limit of file sizes is an error, and does not end the process.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if ignored >> (signal - 1) & 1 == 0 {
                let status = 128 + signal;
                flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))
                    .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                    .context("sigaction")?;
            }
        }
        flag::register(SIGXFSZ, Arc::default()).context("sigaction")?;
        Ok(Self(stop))
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The signals that this process ignores, a bit for each. 0 if the kernel does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
