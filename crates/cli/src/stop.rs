//! [`Stop`]: the wish of whoever started the command that it ends.

use std::{
    fs,
    io::stdin,
    os::unix::net::UnixStream,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag, low_level,
};

/// The longest time after which a command that waits looks at the wish.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// The time for which a command that was asked to end may still need.
const GRACE: Duration = Duration::from_secs(1);

/// Whether a signal has asked the process to end. A second one ends it at once.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes `SIGINT`, `SIGTERM` and `SIGHUP`, but not those that are ignored, as under `nohup(1)`.
    ///
    /// `SIGXFSZ` is taken too, so that a write beyond the limit of file sizes is an error, and does not end the process.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in heeded() {
            let status = 128 + signal;
            flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .context("sigaction")?;
        }
        flag::register(SIGXFSZ, Arc::default()).context("sigaction")?;
        Ok(Self(stop))
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Ends this process when its terminal is gone, or when it was asked to end and has not done so within a second. `restore` is
    /// called before.
    ///
    /// A library that reads keys may do so for ever, at full speed, from a terminal that is gone: then nobody looks at the wish.
    pub(crate) fn enforce(&self, restore: impl Fn() + Send + 'static) -> Result<()> {
        let (asked, ask) = UnixStream::pair().context("socketpair(2)")?;
        for signal in heeded() {
            low_level::pipe::register(signal, ask.try_clone()?).context("sigaction(2)")?;
        }
        let stop = Arc::clone(&self.0);
        let watch = move || {
            let terminal = stdin();
            loop {
                // A terminal's end is reported without being asked for (`poll(2)`).
                let mut fds =
                    [PollFd::new(&terminal, PollFlags::empty()), PollFd::new(&asked, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Err(Errno::INTR) => {}
                    Err(_) => return,
                    Ok(_) => break,
                }
            }
            stop.store(true, Relaxed);
            thread::sleep(GRACE);
            restore();
            process::exit(1);
        };
        // The writing end is the signals': it is never closed.
        std::mem::forget(ask);
        thread::Builder::new().name("stop".to_owned()).spawn(watch).context("starting a thread")?;
        Ok(())
    }
}

/// The signals that end a command, but for those that are ignored, as under `nohup(1)`.
fn heeded() -> impl Iterator<Item = i32> {
    let ignored = ignored();
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(move |signal| ignored >> (signal - 1) & 1 == 0)
}

/// The signals that this process ignores, a bit for each. 0 if the kernel does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
