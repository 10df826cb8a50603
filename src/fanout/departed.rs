//! [`Departed`]: what is remembered of subscribers that have left, so that leaving gives nothing back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fanout::{account::Account, lane::Lane},
    socket::link::Link,
};

/// Users that are remembered, and lanes that ended with descriptors unread.
const MAX_REMEMBERED: usize = 64;

#[derive(Default)]
pub(super) struct Departed {
    /// The accounts of users whose subscribers have left.
    accounts: BTreeMap<u32, Account>,
    /// Lanes that ended with descriptors unread, and their users. The descriptors count as ours until the subscriber closes its
    /// socket.
    unread: Vec<(u32, Arc<Link>)>,
}

impl Departed {
    /// Remembers what a lane leaves behind: its account, and descriptors that it has not read.
    pub(super) fn add(&mut self, lane: &mut Lane) {
        let (now, uid) = (Instant::now(), lane.credentials.uid);
        self.accounts.retain(|_, account| !account.is_full(now));
        self.forget_read();
        if let Some(account) = self.accounts.get_mut(&uid) {
            account.join(&lane.account, now);
        } else if !lane.account.is_full(now) && self.accounts.len() < MAX_REMEMBERED {
            self.accounts.insert(uid, lane.account.clone());
        }
        if lane.unread_fds() > 0 && self.unread.len() < MAX_REMEMBERED {
            self.unread.push((uid, Arc::clone(&lane.link)));
        }
    }

    /// Forgets lanes whose descriptors were read, or closed with their sockets.
    pub(super) fn forget_read(&mut self) {
        self.unread.retain(|(_, link)| !link.socket.is_read().unwrap_or(true));
    }

    /// Whether descriptors that were sent to any of them may be in flight.
    pub(super) fn has_unread(&mut self) -> bool {
        self.forget_read();
        !self.unread.is_empty()
    }

    /// Whether descriptors that were sent to this user's may be in flight.
    pub(super) fn has_unread_of(&mut self, uid: u32) -> bool {
        self.forget_read();
        self.unread.iter().any(|(of, _)| *of == uid)
    }

    /// See [`Account::lacks`], for this user.
    pub(super) fn lacks(&self, uid: u32) -> Option<(u64, u64)> {
        self.accounts.get(&uid).and_then(|account| account.lacks(Instant::now()))
    }

    /// The account of a newcomer, of `most` at most: what this user has left.
    pub(super) fn account(&self, uid: u32, most: Duration) -> Account {
        let now = Instant::now();
        let mut account = Account::new(most, now);
        if let Some(other) = self.accounts.get(&uid) {
            account.inherit(other, now);
        }
        account
    }
}
