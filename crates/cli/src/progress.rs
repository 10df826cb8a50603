//! [`Progress`]: what a command that runs for long says to a person, on standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use rustix::{
    process::getpgrp,
    termios::{tcgetpgrp, tcgetwinsize},
};

/// How often the line is written again.
const EVERY: Duration = Duration::from_secs(1);

/// The columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

/// Says what the command begins to do, on a line of its own. JSON is for programs: with it nothing is said.
pub(crate) fn say(text: &str, json: bool) {
    if !json {
        // There is nobody else to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// The counts of a recording or a replay, in a line that is written again each second where standard error is a terminal. On drop the
/// line is taken away.
///
/// A thread of its own writes it: a terminal that is stopped (Ctrl-S) holds up nobody else.
#[derive(Debug)]
pub(crate) struct Progress {
    counts: Arc<Counts>,
    /// It ends when the sender is gone.
    line: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicU64,
    bytes: AtomicU64,
    missed: AtomicU64,
}

impl Progress {
    /// `missed` is the word for messages that did not arrive.
    pub(crate) fn begin(missed: &'static str, json: bool) -> Self {
        let counts = Arc::<Counts>::default();
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let shows = !json && !is_dumb && io::stderr().is_terminal();
        let line = shows.then(|| {
            let ((ends, ended), counts) = (mpsc::channel(), Arc::clone(&counts));
            let show = move || {
                let begun = Instant::now();
                let mut is_shown = false;
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    if let Some(columns) = columns() {
                        let mut text = counts.text(begun.elapsed(), missed);
                        text.truncate(columns);
                        let _ = write!(io::stderr(), "\r{text}\x1b[K");
                        is_shown = true;
                    }
                }
                if is_shown && columns().is_some() {
                    let _ = write!(io::stderr(), "\r\x1b[K");
                }
            };
            let thread = thread::Builder::new().name("progress".to_owned()).spawn(show);
            thread.ok().map(|thread| (ends, thread))
        });
        Self { counts, line: line.flatten() }
    }

    /// Adds a message. Only one thread does that.
    pub(crate) fn add(&self, bytes: u64, missed: u64) {
        let Counts { messages, bytes: all_bytes, missed: all_missed } = &*self.counts;
        for (count, more) in [(messages, 1), (all_bytes, bytes), (all_missed, missed)] {
            count.store(count.load(Relaxed).saturating_add(more), Relaxed);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((ends, thread)) = self.line.take() {
            drop(ends);
            let _ = thread.join();
        }
    }
}

impl Counts {
    /// The line: ASCII only.
    fn text(&self, time: Duration, missed: &str) -> String {
        let [messages, bytes, lost] =
            [&self.messages, &self.bytes, &self.missed].map(|count| count.load(Relaxed));
        format!("{} s: {messages} messages, {}, {missed} {lost}", time.as_secs(), ByteSize(bytes))
    }
}

/// The columns that a line can have without reaching the next one. `None` while the terminal belongs to another job of the shell.
fn columns() -> Option<usize> {
    let terminal = io::stderr();
    if tcgetpgrp(&terminal).is_ok_and(|group| group != getpgrp()) {
        return None;
    }
    let columns = tcgetwinsize(&terminal).map_or(0, |size| size.ws_col);
    Some(usize::from(if columns == 0 { COLUMNS } else { columns }).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_a_short_line() {
        let progress = Progress::begin("missed", true);
        progress.add(1000, 0);
        progress.add(24, 7);
        assert_eq!(
            progress.counts.text(Duration::from_millis(12_900), "missed"),
            "12 s: 2 messages, 1.0 KiB, missed 7"
        );
        progress.add(u64::MAX, u64::MAX);
        assert!(progress.counts.text(Duration::MAX, "lost").is_ascii());
    }
}
