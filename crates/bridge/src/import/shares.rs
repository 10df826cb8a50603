//! [`Shares`]: how many requests each local subscriber has open, so that none uses up what all have.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealane::SubscriberId;

/// Requests and messages of a topic's subscribers that are open at most: on their way, or answered and waiting for the subscriber to have
/// room. So this bounds the bytes of answers that wait, too.
const MAX_OPEN: usize = 256;

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: BTreeMap<SubscriberId, usize>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<Open>);

/// One open request, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    subscriber: SubscriberId,
    shares: Arc<Shares>,
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of a subscriber, if it has fewer than are free. So one alone has a half at most, two have a third each, and a newcomer
    /// finds as many free as each of those has that ask without end.
    pub(super) fn take(this: &Arc<Self>, subscriber: SubscriberId) -> Option<Share> {
        let mut open = this.lock();
        let own = open.of.get(&subscriber).copied().unwrap_or(0);
        if own >= MAX_OPEN.saturating_sub(open.all) {
            return None;
        }
        open.all += 1;
        open.of.insert(subscriber, own + 1);
        Some(Share { subscriber, shares: Arc::clone(this) })
    }
}

impl Share {
    pub(super) fn subscriber(&self) -> SubscriberId {
        self.subscriber
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.shares.lock();
        open.all = open.all.saturating_sub(1);
        if let Some(own) = open.of.get_mut(&self.subscriber) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.of.remove(&self.subscriber);
            }
        }
    }
}
