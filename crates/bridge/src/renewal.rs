//! [`Renewal`]: another session of Zenoh for one in which a source is connected and nothing is heard of it.
//!
//! After a cut that outlasts the lease Zenoh 1.10.2 can leave a connection so: the far side closes the link twice, and the second time
//! takes the transport that has replaced it out of use, but leaves its connection open. No call of Zenoh's ends one connection. So the topics
//! leave the session, it is closed, and they enter another one; local subscribers, numbers and what waits to be sent stay. The other one
//! has an identifier of its own: to the far side the old one is still connected.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use zenoh::{Session, Wait};

use crate::{
    counts::{Counts, add},
    error::{Error, Result},
    export::{Exporter, Left},
    import::Importer,
    threads::Threads,
};

/// Leases for which a source is silent before a session is replaced.
const PATIENCE: u32 = 2;

/// The same where that may disturb others without helping: another topic's source is heard, or the last replacement is not as long ago.
///
/// UNTRUSTED: whoever may declare a source's token can be silent on purpose.
const LONG_PATIENCE: u32 = 20;

/// Between two attempts to make a session.
const RETRY: Duration = Duration::from_secs(1);

/// The session that is there now.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<Mutex<Session>>);

impl Current {
    fn lock(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Session {
        self.lock().clone()
    }
}

#[derive(Debug)]
enum Order {
    Renew {
        /// The importer whose source is silent, and for how long.
        of: Arc<Counts>,
        silent: Duration,
    },
    Stop,
}

/// An importer's wish for another session.
#[derive(Debug)]
pub(crate) struct Wish {
    orders: Sender<Order>,
    patience: Duration,
    next: Option<Instant>,
}

impl Wish {
    /// Asks for another session if a source has been silent for too long although it is connected. Returns when to look again.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        silent_since: Option<Instant>,
        of: &Arc<Counts>,
    ) -> Option<Instant> {
        let Some(since) = silent_since else {
            self.next = None;
            return None;
        };
        let next = self.next.or_else(|| since.checked_add(self.patience))?;
        if next > now {
            self.next = Some(next);
        } else {
            self.next = now.checked_add(self.patience);
            // Without anybody who makes one all stays as it is.
            let _ = self.orders.send(Order::Renew { of: Arc::clone(of), silent: now - since });
        }
        self.next
    }
}

/// The topics of a bridge, and their session.
pub(crate) struct Carried {
    // Topics end before their session.
    topics: Mutex<Topics>,
    session: Current,
    config: zenoh::Config,
    lease: Duration,
}

#[derive(Default)]
struct Topics {
    exports: Vec<Exporter>,
    imports: Vec<Importer>,
}

impl Carried {
    pub(crate) fn open(config: zenoh::Config) -> Result<Self> {
        let lease = config.get_json("transport/link/tx/lease").ok().and_then(|millis| millis.parse().ok());
        let session = open(&config)?;
        Ok(Self {
            topics: Mutex::default(),
            session: Current(Arc::new(Mutex::new(session))),
            config,
            lease: lease.map_or(Duration::from_secs(10), Duration::from_millis),
        })
    }

    pub(crate) fn session(&self) -> &Current {
        &self.session
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn export(&self, start: impl FnOnce(&Session) -> Result<Exporter>) -> Result<Arc<Counts>> {
        let mut topics = self.topics();
        let exporter = start(&self.session.get())?;
        let counts = Arc::clone(exporter.counts());
        topics.exports.push(exporter);
        Ok(counts)
    }

    pub(crate) fn import(&self, start: impl FnOnce(&Current) -> Result<Importer>) -> Result<Arc<Counts>> {
        let mut topics = self.topics();
        let importer = start(&self.session)?;
        let counts = Arc::clone(importer.counts());
        topics.imports.push(importer);
        Ok(counts)
    }

    /// Whether a source that is silent is a reason for another session.
    fn is_due(&self, of: &Arc<Counts>, silent: Duration, last: Option<Instant>) -> bool {
        let others = LONG_PATIENCE * self.lease;
        let hears_others = || {
            let topics = self.topics();
            topics
                .imports
                .iter()
                .map(Importer::counts)
                .any(|counts| !Arc::ptr_eq(counts, of) && counts.is_here())
        };
        silent >= others || last.is_none_or(|last| last.elapsed() >= others) && !hears_others()
    }

    /// A session that these topics have entered.
    fn enter(&self, exports: &mut [Left<'_>], imports: &[Importer]) -> Result<Session> {
        let session = open(&self.config)?;
        let entered = exports.iter_mut().try_for_each(|export| export.enter(&session));
        let entered = entered.and_then(|()| imports.iter().try_for_each(|import| import.enter(&session)));
        if entered.is_err() {
            close(&session);
        }
        entered.map(|()| session)
    }

    /// Has all topics enter another session. False if it was told to stop before there was one.
    fn renew(&self, orders: &Receiver<Order>) -> bool {
        let mut topics = self.topics();
        let Topics { exports, imports } = &mut *topics;
        imports.iter().for_each(Importer::leave);
        let mut exports: Vec<_> = exports.iter_mut().map(Exporter::leave).collect();
        close(&self.session.get());
        let mut was_told = false;
        loop {
            match self.enter(&mut exports, imports) {
                Ok(session) => {
                    *self.session.lock() = session;
                    return true;
                }
                Err(why) if was_told => log::debug!("{why}"),
                Err(why) => {
                    was_told = true;
                    log::error!("no other session of Zenoh, tried again each {RETRY:?}: {why}");
                }
            }
            match orders.recv_timeout(RETRY) {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Order::Renew { .. }) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn open(config: &zenoh::Config) -> Result<Session> {
    zenoh::open(config.clone()).wait().map_err(Error::zenoh("starting"))
}

fn close(session: &Session) {
    if let Err(why) = session.close().wait() {
        log::warn!("a session of Zenoh ends with {why}");
    }
}

/// See the module. A thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Renewal {
    orders: Sender<Order>,
    threads: Threads,
    patience: Duration,
}

impl Renewal {
    /// `is_possible`: sessions may have identifiers of their own.
    pub(crate) fn start(carried: &Arc<Carried>, is_possible: bool) -> Result<Self> {
        let (sender, orders) = channel();
        let mut threads = Threads::default();
        if is_possible {
            let carried = Arc::clone(carried);
            threads.spawn("renewal", move || run(&carried, &orders))?;
        }
        Ok(Self { orders: sender, threads, patience: PATIENCE * carried.lease })
    }

    pub(crate) fn wish(&self) -> Wish {
        Wish { orders: self.orders.clone(), patience: self.patience, next: None }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.threads.join();
    }
}

fn run(carried: &Carried, orders: &Receiver<Order>) {
    let mut last = None;
    while let Ok(Order::Renew { of, silent }) = orders.recv() {
        // An order that came in during a replacement is not due so soon after it.
        if !carried.is_due(&of, silent, last) {
            continue;
        }
        let topic = of.topic();
        log::warn!(
            "{topic}: nothing was heard of its source for {silent:?} although it is connected; connects anew"
        );
        add(&of.counters.renewals, 1);
        if !carried.renew(orders) {
            return;
        }
        last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::network::Network;

    #[test]
    fn a_session_that_cannot_be_made_is_tried_until_it_is_told_to_stop() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp/{}", taken.local_addr().unwrap());
        let mut carried = Carried::open(Network::default().config().unwrap()).unwrap();
        carried.config = Network::default().listen(&endpoint).config().unwrap();
        let (sender, orders) = channel();
        let renewing = thread::spawn(move || {
            let is_renewed = carried.renew(&orders);
            (carried, orders, is_renewed)
        });
        sender.send(Order::Stop).unwrap();
        let (carried, orders, is_renewed) = renewing.join().unwrap();
        assert!(!is_renewed);
        drop(taken);
        assert!(carried.renew(&orders));
    }

    #[test]
    fn wishes_are_repeated_while_the_source_is_silent() {
        let (orders, received) = channel();
        let (start, patience) = (Instant::now(), Duration::from_secs(20));
        let of = Arc::new(Counts::new("stats", crate::Role::Import, String::new(), ""));
        let mut wish = Wish { orders, patience, next: None };
        let mut look = |after: u32, silent_since| {
            let again = wish.look(start + patience * after / 2, silent_since, &of);
            let asked = received.try_recv().ok();
            (
                again.map(|again| again - start),
                asked.map(|order| match order {
                    Order::Renew { silent, .. } => silent,
                    Order::Stop => unreachable!("nobody says so"),
                }),
            )
        };
        assert_eq!(look(0, None), (None, None));
        assert_eq!(look(0, Some(start)), (Some(patience), None));
        assert_eq!(look(1, Some(start)), (Some(patience), None));
        assert_eq!(look(2, Some(start)), (Some(patience * 2), Some(patience)));
        assert_eq!(look(3, Some(start)), (Some(patience * 2), None));
        assert_eq!(look(4, Some(start)), (Some(patience * 3), Some(patience * 2)));
        assert_eq!(look(4, None), (None, None));
        assert_eq!(look(5, Some(start + patience * 5 / 2)), (Some(patience * 7 / 2), None));
    }
}
