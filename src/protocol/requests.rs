//! The tables of open requests, ours and the peer's. A reply must answer one of them, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Our requests without a reply. The sender adds them, and the receiver removes them with their replies.
///
/// A request counts from before it is sent until its reply is read, cancelled or not. So the peer never counts more of them.
#[derive(Debug, Default)]
pub(crate) struct OutgoingRequests(Mutex<BTreeMap<u64, Asked>>);

/// The state of a request without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Open,
    /// Its reply is dropped when it comes.
    Cancelled,
}

impl OutgoingRequests {
    fn book(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that is about to be sent. False if `max` have no reply yet.
    #[must_use]
    pub(crate) fn ask(&self, sequence: u64, max: usize) -> bool {
        let mut book = self.book();
        let room = book.len() < max;
        if room {
            book.insert(sequence, Asked::Open);
        }
        room
    }

    /// Removes a request that was not sent after all.
    pub(crate) fn withdraw(&self, sequence: u64) {
        self.book().remove(&sequence);
    }

    /// Marks a request whose reply is to be dropped.
    pub(crate) fn cancel(&self, sequence: u64) {
        if let Some(asked) = self.book().get_mut(&sequence) {
            *asked = Asked::Cancelled;
        }
    }

    /// True if the request waits for its reply, and is not cancelled.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        self.book().get(&sequence) == Some(&Asked::Open)
    }

    /// True if no request waits for its reply.
    pub(crate) fn is_empty(&self) -> bool {
        self.book().is_empty()
    }

    /// Removes the request that a reply answers. `None` if it never existed, or was answered before.
    pub(crate) fn answer(&self, sequence: u64) -> Option<Asked> {
        self.book().remove(&sequence)
    }
}

/// The peer's requests without a reply of ours.
#[derive(Debug, Default)]
pub(crate) struct IncomingRequests(Mutex<BTreeSet<u64>>);

impl IncomingRequests {
    fn set(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that was received. False if `max` others are unanswered.
    #[must_use]
    pub(crate) fn note(&self, sequence: u64, max: usize) -> bool {
        let mut set = self.set();
        let room = set.len() < max;
        if room {
            set.insert(sequence);
        }
        room
    }

    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.set().contains(&sequence)
    }

    /// Removes a request whose reply is about to be sent.
    pub(crate) fn remove(&self, sequence: u64) {
        self.set().remove(&sequence);
    }

    /// Adds a request again whose reply was not sent after all.
    pub(crate) fn restore(&self, sequence: u64) {
        self.set().insert(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_answers_once() {
        let requests = OutgoingRequests::default();
        assert!(requests.ask(3, 9) && requests.ask(4, 9));
        requests.cancel(4);
        assert!(requests.ask(5, 9));
        requests.withdraw(5);
        assert!(requests.is_open(3) && !requests.is_open(4) && !requests.is_open(5));
        assert_eq!(requests.answer(5), None);
        assert_eq!(requests.answer(3), Some(Asked::Open));
        assert_eq!(requests.answer(3), None);
        assert_eq!(requests.answer(4), Some(Asked::Cancelled));
        assert_eq!(requests.answer(4), None);
    }

    #[test]
    fn request_counts_until_it_is_answered() {
        let requests = OutgoingRequests::default();
        assert!(!requests.ask(0, 0));
        assert!(requests.ask(1, 2) && requests.ask(2, 2) && !requests.ask(3, 2));
        requests.cancel(1);
        assert!(!requests.ask(3, 2), "the peer still counts it");
        assert_eq!(requests.answer(1), Some(Asked::Cancelled));
        assert!(requests.ask(3, 2) && !requests.ask(4, 2));
        requests.withdraw(3);
        assert!(requests.ask(4, 2));
    }

    #[test]
    fn request_of_the_peer_is_answered_once() {
        let unanswered = IncomingRequests::default();
        assert!(unanswered.note(1, 2) && unanswered.note(2, 2) && !unanswered.note(3, 2));
        assert!(!unanswered.contains(3), "it is above the limit");
        unanswered.remove(1);
        assert!(!unanswered.contains(1) && unanswered.contains(2));
        unanswered.restore(1);
        assert!(unanswered.contains(1) && !unanswered.note(3, 2), "the reply was not sent");
    }
}
