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
mod declared;
mod filling;
mod queue;
mod reader;
mod requests;
mod sender;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zenoh::{Session, Wait, query::Queryable};

use self::{
    answers::Answers, declared::Declared, queue::Queue, reader::Reader, requests::Requests, sender::Sender,
};
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
    declared: Arc<Mutex<Declared>>,
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
        let declared = Arc::new(Mutex::new(Declared::new(session, &keys, settings)?));
        let sender = Sender::new(&declared, settings, &queue, &counts);
        let reader = Reader::new(path, settings, &queue, &requests, &counts);
        let queryable = Some(take_requests(session, &keys, &requests)?);
        let mut exporter = Self { requests, counts, queryable, declared, threads: Threads::default() };
        let answering = Arc::clone(&answers);
        exporter.threads.spawn("reader", move || {
            reader.run();
            answers.stop();
        })?;
        exporter.threads.spawn("answers", move || answering.run())?;
        exporter.threads.spawn("sender", move || sender.run())?;
        Ok(exporter)
    }

    /// Nothing is sent and no request taken until it has [entered](Left::enter) another session. Waits until what is being sent is
    /// sent.
    pub(crate) fn leave(&mut self) -> Left<'_> {
        self.queryable.take();
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        Left { requests: &self.requests, queryable: &mut self.queryable, declared }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// An exporter that has left its session. If it is dropped before it has entered another one, it sends nothing more.
pub(crate) struct Left<'a> {
    requests: &'a Arc<Requests>,
    queryable: &'a mut Option<Queryable<()>>,
    declared: MutexGuard<'a, Declared>,
}

impl Left<'_> {
    pub(crate) fn enter(&mut self, session: &Session) -> Result<()> {
        *self.queryable = Some(take_requests(session, &self.declared.keys, self.requests)?);
        self.declared.renew(session)
    }
}

fn take_requests(session: &Session, keys: &Keys, requests: &Arc<Requests>) -> Result<Queryable<()>> {
    let requests = Arc::clone(requests);
    let queryable = session.declare_queryable(keys.calls()).complete(true);
    queryable
        .callback(move |query| requests.take(query))
        .wait()
        .map_err(Error::zenoh("declaring a queryable"))
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.queryable.take();
        // The reader ends, and the queue with it; the sender sends what is left in it.
        self.requests.stop();
        self.threads.join();
    }
}
