//! [`Requests`]: what far subscribers ask, from Zenoh's threads to the reader.

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use zenoh::query::Query;

use super::answers::Answers;
use crate::{
    counts::Counts,
    settings::Settings,
    wake::Wake,
    wire::call::{Ask, CallError},
};

/// Requests of one topic that are open at most.
const MAX_OPEN: usize = 256;

/// A request, which is answered once: with [`CallError::TimedOut`] if it is dropped.
#[derive(Debug)]
pub(super) struct Request {
    query: Option<Query>,
    pub(super) control: Vec<u8>,
    pub(super) wants_reply: bool,
    pub(super) deadline: Instant,
    requests: Arc<Requests>,
}

impl Request {
    /// Answers it.
    pub(super) fn answer(mut self, answer: Result<Vec<u8>, CallError>) {
        self.finish(answer);
    }

    fn finish(&mut self, answer: Result<Vec<u8>, CallError>) {
        if let Some(query) = self.query.take() {
            self.requests.open.fetch_sub(1, Relaxed);
            self.requests.answers.put(query, answer);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.finish(Err(CallError::TimedOut));
    }
}

/// Requests that the reader has not taken yet.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: Mutex<VecDeque<Request>>,
    open: AtomicUsize,
    stopped: AtomicBool,
    max_control: usize,
    longest: Duration,
    wake: Wake,
    answers: Arc<Answers>,
    counts: Arc<Counts>,
}

impl Requests {
    pub(super) fn new(settings: &Settings, wake: Wake, answers: Arc<Answers>, counts: Arc<Counts>) -> Self {
        let (waiting, open, stopped) = (Mutex::default(), AtomicUsize::new(0), AtomicBool::new(false));
        let (max_control, longest) = (settings.max_control, settings.call_timeout);
        Self { waiting, open, stopped, max_control, longest, wake, answers, counts }
    }

    /// Takes a query from one of Zenoh's threads. Never blocks: answers, too, have a thread of their own.
    ///
    /// UNTRUSTED: whoever reaches the key sends what it likes, as often as it likes.
    pub(super) fn take(self: &Arc<Self>, mut query: Query) {
        // An answer that waits does not keep what was asked.
        let attachment =
            query.attachment_mut().map(std::mem::take).unwrap_or_default().to_bytes().into_owned();
        let payload = query.payload_mut().map(std::mem::take).unwrap_or_default();
        let ask = match Ask::parse(&attachment) {
            Ok(ask) => ask,
            Err(why) => {
                self.counts.refuse(&self.counts.counters.malformed, &why);
                return self.answers.put(query, Err(CallError::Refused(why.to_string())));
            }
        };
        // The last count that was seen may be late by some threads of Zenoh, which are few.
        if self.open.load(Relaxed) >= MAX_OPEN {
            return self.answers.put(query, Err(CallError::Busy));
        }
        if payload.len() > self.max_control {
            return self.answers.put(query, Err(CallError::TooLarge));
        }
        self.open.fetch_add(1, Relaxed);
        let control = payload.to_bytes().into_owned();
        let now = Instant::now();
        let request = Request {
            query: Some(query),
            control,
            wants_reply: ask.wants_reply,
            deadline: now.checked_add(ask.timeout.min(self.longest)).unwrap_or(now),
            requests: Arc::clone(self),
        };
        self.lock().push_back(request);
        self.wake.wake();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that came. What wakes the reader is quiet again.
    pub(super) fn drain(&self) -> VecDeque<Request> {
        self.wake.clear();
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn wake(&self) -> &impl AsFd {
        &self.wake
    }

    /// Tells the reader to end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.wake.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}
