//! [`Answers`]: what came of far subscribers' requests, until Zenoh has it.
//!
//! They have a thread of their own: who asks says whether Zenoh waits for a link that takes nothing, and would so hold up messages.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use zenoh::{Wait, query::Query};

use crate::{
    counts::{Counts, add},
    wire::call::CallError,
};

/// Answers that wait at most: a peer that asks without end is not answered without end.
const MAX_WAITING: usize = 1024;

type Answer = (Query, Result<Vec<u8>, CallError>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Answer>,
    stopped: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Answers {
    state: Mutex<State>,
    changed: Condvar,
    counts: Arc<Counts>,
}

impl Answers {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), counts: Arc::clone(counts) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer; never blocks. One that is too much is dropped, and its asker told by Zenoh that there is none.
    pub(super) fn put(&self, query: Query, answer: Result<Vec<u8>, CallError>) {
        let mut state = self.lock();
        let fits = state.waiting.len() < MAX_WAITING;
        if answer.is_err() || !fits {
            add(&self.counts.counters.failed_calls, 1);
        }
        if fits {
            state.waiting.push_back((query, answer));
            self.changed.notify_one();
        }
    }

    /// Nothing more comes.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Answer> {
        let state = self.lock();
        let waiting = self.changed.wait_while(state, |state| state.waiting.is_empty() && !state.stopped);
        waiting.unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// Gives answers to Zenoh, which may wait, until no more come.
    pub(super) fn run(&self) {
        while let Some((query, answer)) = self.next() {
            let sent = match answer {
                Ok(bytes) => query.reply(query.key_expr(), bytes).wait(),
                Err(why) => query.reply_err(why.to_string()).wait(),
            };
            if let Err(why) = sent {
                log::debug!("{}: no answer: {why}", query.key_expr());
            }
        }
    }
}
