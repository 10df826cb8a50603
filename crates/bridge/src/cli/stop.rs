//! [`Stop`]: the signals that end a bridge in order.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

/// Takes `SIGINT` and `SIGTERM`, but not those that are ignored, as those of a shell's background job are.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: Signals,
    starting: Arc<AtomicBool>,
}

impl Stop {
    /// Takes the signals. Until [`started`](Self::started) is called one ends the process at once, as there is nothing to end in order.
    /// From then on the second one does.
    pub(crate) fn on_signals() -> Result<Self> {
        let starting = Arc::new(AtomicBool::new(true));
        let asked = Arc::new(AtomicBool::new(false));
        let taken = taken();
        for &signal in &taken {
            flag::register_conditional_shutdown(signal, 0, Arc::clone(&starting))
                .and_then(|_| flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked)))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("sigaction(2)")?;
        }
        let signals = Signals::new(&taken).context("sigaction(2)")?;
        Ok(Self { signals, starting })
    }

    pub(crate) fn started(&self) {
        self.starting.store(false, Relaxed);
    }

    /// Waits for a signal.
    pub(crate) fn wait(&mut self) {
        self.signals.forever().next();
    }
}

fn taken() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    [SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect()
}
