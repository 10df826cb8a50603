//! Which requests are open, ours and the peer's: a reply must answer one, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Requests that may wait for their reply at once, on one channel.
pub(crate) const MAX_OPEN: usize = 65_536;
/// Requests that are remembered after nobody waits for their reply any more.
const MOST_GIVEN_UP: usize = 1024;

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
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// Sequence of each request without a reply, and whether it was given up.
    open: BTreeMap<u64, bool>,
    given_up: usize,
    /// How many requests that were given up are not remembered one by one any more, all of them before `since`.
    forgotten: u64,
    since: u64,
}

impl Requests {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that is about to be sent. False if too many are open.
    #[must_use]
    pub(crate) fn ask(&self, sequence: u64) -> bool {
        let mut book = self.book();
        let room = book.open.len().saturating_sub(book.given_up) < MAX_OPEN;
        if room {
            book.open.insert(sequence, false);
        }
        room
    }

    /// It was not sent after all.
    pub(crate) fn withdraw(&self, sequence: u64) {
        self.book().open.remove(&sequence);
    }

    /// Nobody waits for its reply any more.
    pub(crate) fn give_up(&self, sequence: u64) {
        let mut book = self.book();
        let Some(given_up @ false) = book.open.get_mut(&sequence) else { return };
        *given_up = true;
        book.given_up = book.given_up.saturating_add(1);
        if book.given_up > MOST_GIVEN_UP {
            let oldest = book.open.iter().find(|(_, given_up)| **given_up).map(|(sequence, _)| *sequence);
            if let Some(oldest) = oldest {
                book.open.remove(&oldest);
                book.given_up = book.given_up.saturating_sub(1);
                book.forgotten = book.forgotten.wrapping_add(1);
                book.since = oldest.wrapping_add(1);
            }
        }
    }

    /// Whether its reply is still to come.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        self.book().open.get(&sequence) == Some(&false)
    }

    /// A reply came.
    pub(crate) fn answer(&self, sequence: u64) -> Answer {
        let mut book = self.book();
        match book.open.remove(&sequence) {
            Some(false) => Answer::InTime,
            Some(true) => {
                book.given_up = book.given_up.saturating_sub(1);
                Answer::Late
            }
            None if sequence < book.since && book.forgotten > 0 => {
                book.forgotten = book.forgotten.wrapping_sub(1);
                Answer::Late
            }
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

    /// A request came. If too many are unanswered the oldest cannot be answered any more.
    pub(crate) fn note(&self, sequence: u64) {
        let mut set = self.set();
        if set.len() >= MAX_OPEN {
            set.pop_first();
        }
        set.insert(sequence);
    }

    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.set().contains(&sequence)
    }

    /// It was answered.
    pub(crate) fn remove(&self, sequence: u64) {
        self.set().remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_answers_once() {
        let requests = Requests::default();
        assert!(requests.ask(3) && requests.ask(4));
        requests.give_up(4);
        assert!(requests.ask(5));
        requests.withdraw(5);
        assert!(requests.is_open(3) && !requests.is_open(4) && !requests.is_open(5));
        assert_eq!(requests.answer(5), Answer::Unasked);
        assert_eq!(requests.answer(3), Answer::InTime);
        assert_eq!(requests.answer(3), Answer::Unasked);
        assert_eq!(requests.answer(4), Answer::Late);
        assert_eq!(requests.answer(4), Answer::Unasked);
    }

    #[test]
    fn memory_is_bounded() {
        let requests = Requests::default();
        for sequence in 0..5000 {
            assert!(requests.ask(sequence));
            requests.give_up(sequence);
        }
        assert_eq!(requests.book().open.len(), MOST_GIVEN_UP);
        // The oldest that is remembered one by one.
        assert_eq!(requests.answer(5000 - 1024), Answer::Late);
        assert_eq!(requests.answer(5000 - 1024), Answer::Unasked);
        for _ in 0..5000 - MOST_GIVEN_UP {
            assert_eq!(requests.answer(0), Answer::Late, "forgotten, but asked once");
        }
        assert_eq!(requests.answer(0), Answer::Unasked, "no more replies than requests");
        assert_eq!(requests.answer(5000), Answer::Unasked);
        for sequence in 10_000..10_000 + 65_536 {
            assert!(requests.ask(sequence));
        }
        assert!(!requests.ask(99_999));
    }

    #[test]
    fn a_request_of_the_peer_is_answered_once_and_the_oldest_are_forgotten() {
        let unanswered = Unanswered::default();
        for sequence in 0..=65_536 {
            unanswered.note(sequence);
        }
        assert!(!unanswered.contains(0), "too many");
        assert!(unanswered.contains(1) && unanswered.contains(65_536));
        unanswered.remove(1);
        assert!(!unanswered.contains(1) && unanswered.contains(2));
    }
}
