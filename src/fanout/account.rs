//! [`Account`]: the time for which a publisher waits for one subscriber.
//!
//! "At most so long in one wait" would be no bound: a subscriber that releases each record after nearly that time is never
//! ended, and calls that do not wait never reach it. So the time is an account, charged from the first call that was refused,
//! or waits, for want of the subscriber, until it has done enough, across calls. It is refilled slowly.

use std::time::{Duration, Instant};

use crate::protocol::Position;

/// The account grows by this part of the time that passes.
const REFILL: u32 = 10;
/// A user with less than this part of the time left is no newcomer that is admitted.
const LEAST: u32 = 10;

/// What the publisher lacks of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// That it releases the ring up to there.
    Room(Position),
    /// That it reads its socket, which has no room for a packet of so many descriptors.
    Socket(usize),
    /// That it reads some of the descriptors that are unread, as those in flight are short.
    Descriptors,
}

#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The most that it can hold; [`Duration::MAX`] is for ever.
    most: Duration,
    left: Duration,
    /// The time at which `left` was right.
    updated: Instant,
    want: Option<Want>,
    /// Times that the publisher began to wait.
    pub(super) waits: u64,
}

fn part(time: Duration, of: u32) -> Duration {
    time.checked_div(of).unwrap_or_default()
}

impl Account {
    pub(super) fn new(most: Duration, now: Instant) -> Self {
        Self { most, left: most, updated: now, want: None, waits: 0 }
    }

    /// Takes over the time that an earlier subscriber of the same user has left.
    pub(super) fn inherit(&mut self, other: &Self, now: Instant) {
        self.left = self.left.min(other.left(now));
    }

    /// The time that is left.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.updated);
        if self.most == Duration::MAX {
            return self.most;
        }
        match self.want {
            Some(_) => self.left.saturating_sub(passed),
            None => self.left.saturating_add(part(passed, REFILL)).min(self.most),
        }
    }

    fn update(&mut self, now: Instant) {
        (self.left, self.updated) = (self.left(now), now);
    }

    /// Begins to charge, or goes on for another want.
    pub(super) fn charge(&mut self, want: Want, now: Instant) {
        if self.want.is_none() {
            self.update(now);
            self.waits = self.waits.wrapping_add(1);
        }
        self.want = Some(want);
    }

    /// The want for which time is charged.
    pub(super) fn want(&self) -> Option<Want> {
        self.want
    }

    /// Stops to charge: there is what was wanted.
    ///
    /// A look that comes after the account would have been empty finds out too late when that was: the publisher was away itself. So
    /// half of what was left is charged.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.want.is_some() {
            let left = self.left;
            self.update(now);
            if self.left.is_zero() {
                self.left = part(left, 2);
            }
            self.want = None;
        }
    }

    /// Stops to charge for good: the subscriber has left. Nothing is given back to one that has used up its time.
    pub(super) fn close(&mut self, now: Instant) {
        self.update(now);
        self.want = None;
    }

    /// Joins the account of another subscriber of the same user, which has left as well: the larger debt, of the longer time.
    pub(super) fn join(&mut self, other: &Self, now: Instant) {
        if other.most == Duration::MAX {
            return;
        }
        let debt = |account: &Self| account.most.saturating_sub(account.left(now));
        let (debt, most) = (debt(self).max(debt(other)), self.most.max(other.most));
        (self.most, self.left, self.updated) = (most, most.saturating_sub(debt), now);
    }

    /// When it will be empty; `None` if nothing is charged, or never.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.want.filter(|_| self.most != Duration::MAX).and_then(|_| self.updated.checked_add(self.left))
    }

    /// Whether it is charged and empty.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.ends_at().is_some_and(|end| end <= now)
    }

    /// Milliseconds that are missing for a newcomer of the same user: what it needs, and what is left.
    pub(super) fn lacks(&self, now: Instant) -> Option<(u64, u64)> {
        let (least, left) = (part(self.most, LEAST), self.left(now));
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (left < least).then(|| (millis(least), millis(left)))
    }

    /// Whether it holds the most that it can.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.left(now) == self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ROOM: Want = Want::Room(Position::new(64));

    #[test]
    fn time_is_charged_across_waits_and_comes_back_slowly() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let mut account = Account::new(100 * MS, start);
        assert_eq!((account.ends_at(), account.is_empty(at(1000))), (None, false), "nothing is wanted");
        account.charge(ROOM, at(0));
        account.charge(Want::Socket(1), at(30));
        assert_eq!((account.ends_at(), account.waits), (Some(at(100)), 1), "one wait for all");
        assert_eq!(account.want(), Some(Want::Socket(1)), "the last one");
        account.settle(at(60));
        assert_eq!(account.left(at(60)), 40 * MS);
        assert_eq!(account.left(at(160)), 50 * MS, "a tenth of the time that passes");
        account.charge(ROOM, at(160));
        assert!(!account.is_empty(at(209)) && account.is_empty(at(210)));
        account.settle(at(180));
        assert_eq!((account.left(at(180)), account.waits), (30 * MS, 2));
        assert_eq!(account.left(at(10_000)), 100 * MS, "no more than at first");
    }

    #[test]
    fn who_releases_after_nearly_the_whole_time_is_ended_soon() {
        let start = Instant::now();
        let mut account = Account::new(100 * MS, start);
        let (mut now, mut waits) = (start, 0);
        loop {
            account.charge(ROOM, now);
            let release = now + 99 * MS;
            if account.ends_at().unwrap() <= release {
                break;
            }
            now = release;
            account.settle(now);
            waits += 1;
        }
        assert_eq!(waits, 1);
    }

    #[test]
    fn look_that_comes_too_late_does_not_empty_it() {
        let start = Instant::now();
        let mut account = Account::new(100 * MS, start);
        account.charge(ROOM, start);
        account.settle(start + 5000 * MS);
        assert_eq!(account.left(start + 5000 * MS), 50 * MS);
    }

    #[test]
    fn leaving_gives_nothing_back() {
        let start = Instant::now();
        let mut account = Account::new(100 * MS, start);
        account.charge(ROOM, start);
        let ended = start + 100 * MS;
        account.close(ended);
        assert_eq!((account.left(ended), account.want()), (Duration::ZERO, None));
        // Another one with a shorter time does not end the debt of the longer one, whichever has left first.
        let mut short = Account::new(MS, ended);
        short.charge(ROOM, ended);
        let later = ended + 10 * MS;
        short.close(later);
        let mut both = [account.clone(), short.clone()];
        both[0].join(&short, later);
        both[1].join(&account, later);
        for account in both {
            assert_eq!((account.left(later), account.is_full(later + 100 * MS)), (MS, false));
        }
    }

    #[test]
    fn account_without_an_end_takes_no_debt_away() {
        let start = Instant::now();
        let now = start + 60 * MS;
        let mut account = Account::new(100 * MS, start);
        account.charge(ROOM, start);
        account.close(now);
        account.join(&Account::new(Duration::MAX, now), now);
        assert_eq!((account.left(now), account.is_full(now)), (40 * MS, false));
    }

    #[test]
    fn waiting_for_ever_never_ends() {
        let start = Instant::now();
        let mut account = Account::new(Duration::MAX, start);
        account.charge(ROOM, start);
        let later = start + Duration::from_hours(1);
        assert_eq!((account.ends_at(), account.is_empty(later), account.lacks(later)), (None, false, None));
        account.settle(later);
        assert!(account.is_full(later));
    }

    #[test]
    fn newcomer_inherits_and_needs_a_tenth() {
        let start = Instant::now();
        let mut old = Account::new(100 * MS, start);
        old.charge(ROOM, start);
        let ended = start + 95 * MS;
        assert_eq!(old.lacks(ended), Some((10, 5)));
        old.settle(ended);
        let mut new = Account::new(100 * MS, ended);
        new.inherit(&old, ended);
        assert_eq!(new.left(ended), 5 * MS);
        assert_eq!(old.lacks(ended + 50 * MS), None);
    }
}
