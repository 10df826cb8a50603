//! A subscriber at the far side, which notes everything, and the check of what it noted.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sealane::{Builder, Slow};
use sealane_bridge::{BridgedMessage, Notice, Received, Subscriber};

use crate::{
    common::{LONG, number as u64_of, wait_until},
    roles::payload_len,
};

/// Something that came, and the messages that were missed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    Message { run: u64, number: u64, missed: u64 },
    Notice(Notice, u64),
}

#[derive(Debug, Default)]
struct Log {
    noted: Vec<Noted>,
    /// Messages that came and that were missed, and those of the first run before the first that came.
    had: u64,
    received: u64,
    /// Messages of the first run before the first that came.
    before: u64,
}

impl Log {
    fn push(&mut self, noted: Noted) {
        match noted {
            // Before the first message nothing is followed.
            Noted::Message { number, .. } if self.received == 0 => {
                self.had = number + 1;
                (self.received, self.before) = (1, number);
            }
            Noted::Message { missed, .. } => {
                self.had += missed + 1;
                self.received += 1;
            }
            Noted::Notice(_, missed) => self.had += if self.received > 0 { missed } else { 0 },
        }
        self.noted.push(noted);
    }
}

/// A subscriber in a thread.
pub(crate) struct Far {
    log: Arc<Mutex<Log>>,
    paused: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Far {
    pub(crate) fn start(path: PathBuf, slow: Slow, max_payload: usize) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let [paused, stopped] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (noted, wait, end) = (Arc::clone(&log), Arc::clone(&paused), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            let builder = Builder::default().slow(slow);
            let mut subscriber = Subscriber::connect_with(&builder, path, LONG).unwrap();
            while !end.load(Relaxed) {
                if wait.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let Some(received) = subscriber.recv(Duration::from_millis(20)).unwrap() else { continue };
                let noted_now = match received {
                    Received::Message(message) => note(&message, max_payload),
                    Received::Notice(notice, missed) => Noted::Notice(notice, missed),
                    other => panic!("{other:?}"),
                };
                noted.lock().unwrap().push(noted_now);
            }
        });
        Self { log, paused, stopped, thread: Some(thread) }
    }

    pub(crate) fn pause(&self, pause: bool) {
        self.paused.store(pause, Relaxed);
    }

    /// Messages that came, and those that are missing.
    pub(crate) fn received(&self) -> (u64, u64) {
        let log = self.log.lock().unwrap();
        (log.received, log.had - log.received - log.before)
    }

    /// Waits until some more messages have come.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let before = self.received().0;
        wait_until("messages arrive", || self.is_lost() || self.received().0 >= before + count);
    }

    fn is_lost(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until all that was sent has come, or is told missing. Each run has sent so many messages, at least and at most.
    pub(crate) fn wait_for_all(&self, sent: &[(u64, u64)]) -> u64 {
        let least: u64 = sent.iter().map(|(least, _)| least).sum();
        let most: u64 = sent.iter().map(|(_, most)| most).sum();
        let had = || self.log.lock().unwrap().had;
        let deadline = Instant::now() + LONG;
        while had() < least && !self.is_lost() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        // What is told twice comes after what is told once.
        std::thread::sleep(crate::times::secs(1.0));
        assert!(!self.is_lost(), "the subscriber has panicked");
        let had = had();
        if !(least..=most).contains(&had) {
            let noted = self.log.lock().unwrap().noted.clone();
            let sent: Vec<u64> = sent.iter().map(|(least, _)| *least).collect();
            panic!("{sent:?} sent: {:?}", check(&noted, &sent));
        }
        had
    }

    /// Ends it. What it noted, in order.
    pub(crate) fn stop(mut self) -> Vec<Noted> {
        self.stopped.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.log.lock().unwrap().noted)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

/// A message, which must be as it was published.
fn note(message: &BridgedMessage, max_payload: usize) -> Noted {
    let (run, control) = message.control().split_at(8);
    let (run, number) = (u64_of(run), u64_of(control));
    let len = message.payload().map(sealane::Payload::len);
    assert_eq!(len, payload_len(number, max_payload), "message {number}");
    // A bridge that has ended us as too slow overwrites what we still read.
    let payload = message.payload().and_then(|payload| payload.try_to_vec().ok()).unwrap_or_default();
    let byte = number.to_le_bytes()[0];
    assert!(payload.iter().all(|&found| found == byte), "message {number} of {len:?} bytes");
    Noted::Message { run, number, missed: message.missed() }
}

/// Checks everything that was noted, against the messages that each run sent: nothing comes twice or out of order, and at each message
/// the number is what came before it and what was told missing.
///
/// The end of an earlier run may be told later than the first messages of the next one, but nothing is ever told that was not lost.
pub(crate) fn check(noted: &[Noted], sent: &[u64]) -> Result<(), String> {
    let (mut had, mut last, mut owed) = (0, None, 0);
    for (at, noted_now) in noted.iter().enumerate() {
        let around = || format!("{:?}", &noted[at.saturating_sub(8)..noted.len().min(at + 3)]);
        match *noted_now {
            Noted::Notice(_, missed) => had += if last.is_some() { missed } else { 0 },
            Noted::Message { run, number, missed } => {
                let earlier: u64 = sent[..usize::try_from(run).unwrap()].iter().sum();
                let before = match last {
                    Some(_) => had + missed,
                    None => earlier + number,
                };
                if last.is_some_and(|last| last >= (run, number)) {
                    return Err(format!("message {number} of run {run} after {last:?}: {}", around()));
                }
                let Some(untold) = (earlier + number).checked_sub(before) else {
                    return Err(format!(
                        "message {number} of run {run}: {before} had before, {earlier} in earlier runs: {}",
                        around()
                    ));
                };
                // Only the end of an earlier run may be told later.
                if untold > owed && last.is_none_or(|(last, _)| last == run) {
                    return Err(format!(
                        "{untold} before message {number} of run {run} not told: {}",
                        around()
                    ));
                }
                owed = untold;
                had = before + 1;
                last = Some((run, number));
            }
        }
    }
    let all: u64 = sent.iter().sum();
    if had == all {
        Ok(())
    } else {
        Err(format!("{all} sent, {had} had: {:?}", &noted[noted.len().saturating_sub(20)..]))
    }
}
