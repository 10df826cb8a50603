//! Imports: from the network to subscribers on this machine.
//!
//! ```text
//! Zenoh's threads ── callbacks ──► Inbox ──► Local ══ ring ══► subscribers
//!        ▲                  └ small, at once ──►┘ │
//!        └── get ── Caller ◄──────────────────────┘ requests
//! ```
//! Two threads. The one of [`Local`] never calls Zenoh; the one of [`Caller`] asks, and may be blocked.

mod caller;
mod inbox;
mod local;
mod presence;
mod publishing;
mod shares;

use std::{
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealane::Builder;
use zenoh::{Session, Wait, pubsub::Subscriber, sample::SampleKind};

use self::{
    caller::{Caller, Calls},
    inbox::Inbox,
    local::Local,
};
use crate::{
    counts::{Counts, Role},
    error::{Error, Result},
    renewal::{Current, Wish},
    settings::Settings,
    threads::Threads,
    wake::Wake,
    wire::Keys,
};

/// Requests that one subscriber may leave without a reply. sealane itself ends one that has more, so no more refusals wait for it.
const MAX_REQUESTS: usize = 1024;

/// A topic that is imported, until it is dropped.
pub(crate) struct Importer {
    keys: Keys,
    inbox: Arc<Inbox>,
    calls: Arc<Calls>,
    counts: Arc<Counts>,
    local: Arc<Mutex<Local>>,
    /// What comes from the network ends before the threads that take it.
    declared: Mutex<Vec<Subscriber<()>>>,
    threads: Threads,
}

impl Importer {
    pub(crate) fn start(
        session: &Current,
        topic: &str,
        path: &Path,
        settings: &Settings,
        wish: Wish,
    ) -> Result<Self> {
        let keys = Keys::new(topic);
        let state = "waiting for a bridge that exports it";
        let counts = Arc::new(Counts::new(topic, Role::Import, path.display().to_string(), state));
        let publisher = Builder::default()
            .ring_capacity(settings.ring)
            .max_control(settings.max_control)
            .max_subscribers(settings.max_subscribers)
            .max_requests(MAX_REQUESTS)
            .slow(settings.slow)
            .publish(path)
            .map_err(|source| Error::Publish { path: path.to_owned(), source })?;
        let inbox = Arc::new(Inbox::new(settings, Wake::new()?, Arc::clone(&counts)));
        let calls = Arc::new(Calls::default());
        let caller = Caller::new(session, &keys, settings, &calls, &inbox);
        let events = publisher.as_fd().try_clone_to_owned().map_err(Error::io("duplicating a descriptor"))?;
        let local = Local::new(publisher, settings, &inbox, &calls, &counts, wish);
        let mut importer = Self {
            keys,
            inbox: Arc::clone(&inbox),
            calls,
            counts,
            local: Arc::new(Mutex::new(local)),
            declared: Mutex::default(),
            threads: Threads::default(),
        };
        importer.enter(&session.get())?;
        let local = Arc::clone(&importer.local);
        importer.threads.spawn("publisher", move || Local::run(&local, &events, &inbox))?;
        importer.threads.spawn("caller", move || caller.run())?;
        Ok(importer)
    }

    fn declared(&self) -> MutexGuard<'_, Vec<Subscriber<()>>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears nothing until it [enters](Self::enter) another session.
    pub(crate) fn leave(&self) {
        self.declared().clear();
        self.inbox.forget_tokens();
    }

    /// Hears what comes in this session.
    pub(crate) fn enter(&self, session: &Session) -> Result<()> {
        let declared = Self::declare(session, &self.keys, &self.local, &self.inbox)?;
        *self.declared() = declared;
        Ok(())
    }

    fn declare(
        session: &Session,
        keys: &Keys,
        local: &Arc<Mutex<Local>>,
        inbox: &Arc<Inbox>,
    ) -> Result<Vec<Subscriber<()>>> {
        let failed = || Error::zenoh("declaring a subscriber");
        let mut declared = Vec::new();
        for key in [keys.messages().to_owned(), keys.beats()] {
            let (local, inbox) = (Arc::clone(local), Arc::clone(inbox));
            let take = move |sample| {
                if let Some(arrived) = inbox.check(&sample) {
                    drop(sample);
                    Local::arrive(&local, &inbox, arrived);
                }
            };
            let subscriber = session.declare_subscriber(key).callback(take).wait();
            declared.push(subscriber.map_err(failed())?);
        }
        let (inbox, of) = (Arc::clone(inbox), keys.clone());
        let tokens = session
            .liveliness()
            .declare_subscriber(keys.tokens())
            .history(true)
            .callback(move |sample| {
                let is_there = sample.kind() == SampleKind::Put;
                match of.run_of(sample.key_expr().as_str()) {
                    Some(run) => inbox.set_token(run, is_there),
                    None if is_there => inbox.refuse_token(),
                    None => {}
                }
            })
            .wait();
        declared.push(tokens.map_err(failed())?);
        Ok(declared)
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        self.declared().clear();
        self.inbox.stop();
        self.calls.stop();
        self.threads.join();
    }
}
