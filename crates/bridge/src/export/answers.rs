//! [`Answers`]: what came of far subscribers' requests, until Zenoh has it.
//!
//! They have a thread of their own: who asks says whether Zenoh waits for a link that takes nothing, and would so hold up messages.

use std::sync::Arc;

use zenoh::{Wait, query::Query};

use crate::{
    counts::{Counts, add},
    waiting::Waiting,
    wire::call::CallError,
};

/// Answers that wait at most: a peer that asks without end is not answered without end.
const MAX_WAITING: usize = 1024;

type Answer = (Query, Result<Vec<u8>, CallError>);

/// See the module.
#[derive(Debug)]
pub(super) struct Answers {
    waiting: Waiting<Answer>,
    counts: Arc<Counts>,
}

impl Answers {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        Self { waiting: Waiting::default(), counts: Arc::clone(counts) }
    }

    /// Adds an answer; never blocks. One that is too much is dropped, and its asker told by Zenoh that there is none.
    pub(super) fn put(&self, query: Query, answer: Result<Vec<u8>, CallError>) {
        let is_failed = answer.is_err();
        let fits = self.waiting.push((query, answer), MAX_WAITING);
        if is_failed || !fits {
            add(&self.counts.counters.failed_calls, 1);
        }
    }

    /// Nothing more comes.
    pub(super) fn stop(&self) {
        self.waiting.stop();
    }

    /// Gives answers to Zenoh, which may wait, until no more come.
    pub(super) fn run(&self) {
        while let Some((query, answer)) = self.waiting.next() {
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
