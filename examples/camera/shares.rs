//! The shares of subscribers in frames: a buffer goes back to the camera when the last subscriber has said that it is done.
//!
//! Each subscriber has a share in each frame that is published to it. It can give up its own shares, and no other's.

use std::time::{Duration, Instant};

/// How long the camera waits for the shares of one subscriber, unless it waited lately.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The frames that are read, by their buffer, of which there are `BUFFERS`. `Id` names a subscriber.
pub(crate) struct Shares<Id, const BUFFERS: usize> {
    frames: [Option<Lent<Id>>; BUFFERS],
}

struct Lent<Id> {
    frame: u64,
    published: Instant,
    holders: Vec<Id>,
}

impl<Id: Copy + PartialEq, const BUFFERS: usize> Shares<Id, BUFFERS> {
    pub(crate) fn new() -> Self {
        Self { frames: [const { None }; BUFFERS] }
    }

    /// Gives each of `holders` a share in a frame that was published just now.
    pub(crate) fn lend(&mut self, buffer: usize, frame: u64, holders: Vec<Id>) {
        self.frames[buffer] = Some(Lent { frame, published: Instant::now(), holders });
    }

    /// Takes the shares of `id` in `frame` and all frames before it. Returns how many there were.
    pub(crate) fn give_back(&mut self, id: Id, frame: u64) -> usize {
        let lent = self.frames.iter_mut().flatten().filter(|lent| lent.frame <= frame);
        let given = lent.map(|lent| {
            let before = lent.holders.len();
            lent.holders.retain(|holder| *holder != id);
            before - lent.holders.len()
        });
        given.sum()
    }

    /// Takes the oldest frame that nobody has a share in but those of whom `may_miss` says so. False if there is none.
    pub(crate) fn take_back(&mut self, may_miss: impl Fn(Id) -> bool) -> bool {
        let lent = self.frames.iter_mut().flatten();
        let mine = lent.filter(|lent| lent.holders.iter().all(|holder| may_miss(*holder)));
        let Some(oldest) = mine.min_by_key(|lent| lent.frame) else { return false };
        oldest.holders.clear();
        true
    }

    /// A buffer that nobody has a share in any more: it is free from now on.
    pub(crate) fn next_free(&mut self) -> Option<usize> {
        let is_done = |lent: &Lent<Id>| lent.holders.is_empty();
        let buffer = self.frames.iter().position(|place| place.as_ref().is_some_and(is_done))?;
        self.frames[buffer] = None;
        Some(buffer)
    }

    /// When a frame was published that `id` has a share in.
    pub(crate) fn published(&self, id: Id, frame: u64) -> Option<Instant> {
        let mut lent = self.frames.iter().flatten();
        lent.find(|lent| lent.frame == frame && lent.holders.contains(&id)).map(|lent| lent.published)
    }

    /// How many shares `id` has.
    pub(crate) fn held_by(&self, id: Id) -> usize {
        self.frames.iter().flatten().filter(|lent| lent.holders.contains(&id)).count()
    }

    /// Those who have a share in the oldest frame.
    pub(crate) fn holders_of_oldest(&self) -> Vec<Id> {
        let oldest = self.frames.iter().flatten().min_by_key(|lent| lent.frame);
        oldest.map_or(Vec::new(), |lent| lent.holders.clone())
    }

    /// How many buffers the camera has.
    pub(crate) fn free(&self) -> usize {
        self.frames.iter().filter(|place| place.is_none()).count()
    }
}

/// The time for which the camera still waits for a subscriber's shares. A tenth of the time that passes comes back.
#[derive(Debug)]
pub(crate) struct Account {
    left: Duration,
    since: Instant,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { left: PATIENCE, since: Instant::now() }
    }

    /// Charges a wait that has just ended. True if the time is used up.
    pub(crate) fn charge(&mut self, waited: Duration, now: Instant) -> bool {
        let back = now.saturating_duration_since(self.since) / 10;
        self.left = (self.left + back).min(PATIENCE).saturating_sub(waited);
        self.since = now;
        self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALGORITHM: char = 'a';
    const PREVIEW: char = 'p';
    const RECORDER: char = 'r';
    const BUFFERS: usize = 4;

    fn may_miss(id: char) -> bool {
        id == PREVIEW
    }

    #[test]
    fn a_buffer_is_free_when_the_last_has_said_so() {
        let mut shares = Shares::<_, BUFFERS>::new();
        shares.lend(2, 7, vec![ALGORITHM, PREVIEW, RECORDER]);
        for id in [ALGORITHM, RECORDER] {
            assert_eq!(shares.give_back(id, 7), 1);
            assert_eq!(shares.next_free(), None);
        }
        assert_eq!((shares.give_back(RECORDER, 7), shares.free()), (0, BUFFERS - 1), "it had one share");
        shares.give_back(PREVIEW, 7);
        assert_eq!((shares.next_free(), shares.next_free(), shares.free()), (Some(2), None, BUFFERS));
    }

    #[test]
    fn a_frame_frees_those_before_it_and_none_after_it() {
        let mut shares = Shares::<_, BUFFERS>::new();
        for (buffer, frame) in [(0, 12), (1, 10), (2, 11)] {
            shares.lend(buffer, frame, vec![PREVIEW]);
        }
        assert_eq!(shares.give_back(PREVIEW, 11), 2);
        assert_eq!(shares.held_by(PREVIEW), 1);
        assert!(shares.published(PREVIEW, 12).is_some() && shares.published(PREVIEW, 11).is_none());
        assert_eq!(shares.give_back(PREVIEW, u64::MAX), 1, "all, of one that has left");
    }

    #[test]
    fn only_frames_of_those_who_may_miss_them_are_taken_back_oldest_first() {
        let mut shares = Shares::<_, BUFFERS>::new();
        shares.lend(0, 5, vec![RECORDER, PREVIEW]);
        shares.lend(1, 7, vec![PREVIEW]);
        shares.lend(2, 6, vec![PREVIEW]);
        assert!(shares.take_back(may_miss));
        assert_eq!((shares.next_free(), shares.published(PREVIEW, 6)), (Some(2), None));
        assert!(shares.take_back(may_miss));
        assert_eq!(shares.next_free(), Some(1));
        assert!(!shares.take_back(may_miss), "the recorder has a share");
        assert_eq!(shares.holders_of_oldest(), [RECORDER, PREVIEW]);
    }

    #[test]
    fn short_waits_one_after_the_other_use_an_account_up() {
        let mut account = Account::new();
        let (mut now, step) = (account.since, PATIENCE / 20);
        // Each wait gives a tenth of its time back.
        let used_up = (1..100).find(|_| {
            now += step;
            account.charge(step, now)
        });
        assert_eq!(used_up, Some(23));
        assert!(!account.charge(step, now + 20 * step));
    }
}
