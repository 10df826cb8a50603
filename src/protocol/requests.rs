//! Which requests are open, ours and the peer's: a reply must answer one, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What became of a reply's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was open, and is answered now.
    InTime,
    /// It was given up: drop the reply.
    Late,
    /// It was never asked, or answered before.
    Unasked,
}

/// The requests of one direction: written by its sender, answered at the receiver of the other.
///
/// Each counts from before it is sent until its reply is read, given up or not: so the peer never counts more of them.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<u64, Asked>>);

/// Whether somebody waits for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Open,
    GivenUp,
}

impl Requests {
    fn book(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that is about to be sent. False if `max` have no reply.
    #[must_use]
    pub(crate) fn ask(&self, sequence: u64, max: usize) -> bool {
        let mut book = self.book();
        let room = book.len() < max;
        if room {
            book.insert(sequence, Asked::Open);
        }
        room
    }

    /// It was not sent after all.
    pub(crate) fn withdraw(&self, sequence: u64) {
        self.book().remove(&sequence);
    }

    /// Nobody waits for its reply any more.
    pub(crate) fn give_up(&self, sequence: u64) {
        if let Some(asked) = self.book().get_mut(&sequence) {
            *asked = Asked::GivenUp;
        }
    }

    /// Whether its reply is still to come.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        self.book().get(&sequence) == Some(&Asked::Open)
    }

    /// A reply came.
    pub(crate) fn answer(&self, sequence: u64) -> Answer {
        match self.book().remove(&sequence) {
            Some(Asked::Open) => Answer::InTime,
            Some(Asked::GivenUp) => Answer::Late,
            None => Answer::Unasked,
        }
    }
}

/// Requests of the peer that wait for our reply: each may be answered once.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(Mutex<BTreeSet<u64>>);

impl Unanswered {
    fn set(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came. False if `max` others are unanswered.
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

    /// It is being answered.
    pub(crate) fn remove(&self, sequence: u64) {
        self.set().remove(&sequence);
    }

    /// It was not answered after all.
    pub(crate) fn restore(&self, sequence: u64) {
        self.set().insert(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_answers_once() {
        let requests = Requests::default();
        assert!(requests.ask(3, 9) && requests.ask(4, 9));
        requests.give_up(4);
        assert!(requests.ask(5, 9));
        requests.withdraw(5);
        assert!(requests.is_open(3) && !requests.is_open(4) && !requests.is_open(5));
        assert_eq!(requests.answer(5), Answer::Unasked);
        assert_eq!(requests.answer(3), Answer::InTime);
        assert_eq!(requests.answer(3), Answer::Unasked);
        assert_eq!(requests.answer(4), Answer::Late);
        assert_eq!(requests.answer(4), Answer::Unasked);
    }

    #[test]
    fn a_request_counts_until_it_is_answered() {
        let requests = Requests::default();
        assert!(!requests.ask(0, 0));
        assert!(requests.ask(1, 2) && requests.ask(2, 2) && !requests.ask(3, 2));
        requests.give_up(1);
        assert!(!requests.ask(3, 2), "the peer has it still");
        assert_eq!(requests.answer(1), Answer::Late);
        assert!(requests.ask(3, 2) && !requests.ask(4, 2));
        requests.withdraw(3);
        assert!(requests.ask(4, 2));
    }

    #[test]
    fn a_request_of_the_peer_is_answered_once() {
        let unanswered = Unanswered::default();
        assert!(unanswered.note(1, 2) && unanswered.note(2, 2) && !unanswered.note(3, 2));
        assert!(!unanswered.contains(3), "it is one too many");
        unanswered.remove(1);
        assert!(!unanswered.contains(1) && unanswered.contains(2));
        unanswered.restore(1);
        assert!(unanswered.contains(1) && !unanswered.note(3, 2), "the reply was not sent");
    }
}
