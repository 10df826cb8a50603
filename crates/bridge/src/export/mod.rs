//! Exports: from a publisher on this machine to the network.
//!
//! ```text
//! publisher ══ ring ══► Reader ── Queue ──► Sender ── put ──► Zenoh
//!                         ▲
//!                         ├── Requests ◄── queryable (Zenoh's threads) ◄── far subscribers
//!                         └── Answers ── reply ──► Zenoh
//! ```
//! Three threads. The reader alone touches the subscription and never calls Zenoh; those of the sender and of the answers call Zenoh, and may
//! be blocked by it, each for itself.

mod answers;
mod chunk;
mod filling;
mod queue;
mod reader;
mod requests;
mod sender;

use std::{path::Path, sync::Arc};

use zenoh::{Session, Wait, query::Queryable};

use self::{answers::Answers, queue::Queue, reader::Reader, requests::Requests, sender::Sender};
use crate::{
    counts::{Counts, Role},
    error::{Error, Result},
    settings::Settings,
    threads::Threads,
    wake::Wake,
    wire::Keys,
};

/// A topic that is exported, until it is dropped.
pub(crate) struct Exporter {
    requests: Arc<Requests>,
    counts: Arc<Counts>,
    /// Requests end before the threads that answer them.
    queryable: Option<Queryable<()>>,
    threads: Threads,
}

impl Exporter {
    pub(crate) fn start(session: &Session, topic: &str, path: &Path, settings: &Settings) -> Result<Self> {
        let keys = Keys::new(topic);
        let state = "waiting for the publisher";
        let counts = Arc::new(Counts::new(topic, Role::Export, path.display().to_string(), state));
        let queue = Arc::new(Queue::new(settings, Arc::clone(&counts)));
        let answers = Arc::new(Answers::new(&counts));
        let requests =
            Arc::new(Requests::new(settings, Wake::new()?, Arc::clone(&answers), Arc::clone(&counts)));
        let sender = Sender::new(session, &keys, settings, &queue, &counts)?;
        let reader = Reader::new(path, settings, &queue, &requests, &counts);
        let taken = Arc::clone(&requests);
        let queryable = session
            .declare_queryable(keys.calls())
            .complete(true)
            .callback(move |query| taken.take(query))
            .wait()
            .map_err(Error::zenoh("declaring a queryable"))?;
        let mut exporter = Self { requests, counts, queryable: Some(queryable), threads: Threads::default() };
        let answering = Arc::clone(&answers);
        exporter.threads.spawn("reader", move || {
            reader.run();
            answers.stop();
        })?;
        exporter.threads.spawn("answers", move || answering.run())?;
        exporter.threads.spawn("sender", move || sender.run())?;
        Ok(exporter)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.queryable.take();
        // The reader ends, and the queue with it; the sender sends what is left in it.
        self.requests.stop();
        self.threads.join();
    }
}
