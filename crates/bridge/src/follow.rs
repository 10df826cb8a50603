//! [`Follow`]: what an importer has of a source, and so what is missing. Pure: no I/O, no clock.
//!
//! A publisher's messages are numbered, over all bridges that export it one after the other. So what is missing is a difference of
//! numbers, whatever lost it: the publisher's ring, a bridge's queue, Zenoh, the link, or a bridge that was killed.

use std::collections::VecDeque;

use crate::wire::{Place, beat::Ended};

/// Runs that are remembered. Whoever starts a publisher again more often between two beats is told less.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Run {
    id: u64,
    /// The number of the next message.
    expected: u64,
    /// Its exporter said so, or that another has followed.
    ended: bool,
}

/// What becomes of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is passed on.
    Take {
        /// Messages that were lost before it.
        missed: u64,
        /// Its first messages that were passed on already.
        skip: u64,
    },
    /// All of it was passed on already, or told as missed.
    Stale,
    /// It comes from another publisher than the one that is followed, which is still there.
    Foreign,
}

/// What a beat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Messages that are now known to be lost.
    pub(crate) missed: u64,
    /// It comes from another publisher than the one that is followed.
    pub(crate) is_foreign: bool,
}

/// The runs of one topic, as an importer sees them.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    runs: VecDeque<Run>,
    current: Option<u64>,
    /// The token of the run that is followed is there.
    is_held: bool,
}

impl Follow {
    /// The run that is followed.
    #[must_use]
    pub(crate) fn run(&self) -> Option<u64> {
        self.current
    }

    /// Whether the run that is followed has ended, as its exporter says.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.current.and_then(|run| self.find(run)).is_some_and(|run| run.ended)
    }

    /// The number of the next message of the run that is followed.
    #[must_use]
    pub(crate) fn expected(&self) -> Option<u64> {
        self.current.and_then(|run| self.find(run)).map(|run| run.expected)
    }

    /// The runs before the one that is followed, oldest first, and up to where each was passed on or told missing.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = Ended> {
        let earlier = self.runs.iter().take_while(|run| Some(run.id) != self.current);
        earlier.map(|run| Ended { run: run.id, end: run.expected })
    }

    /// Says whether the token of the run that is followed is there. While it is, no sample ends the run: any peer can write samples, but
    /// only the exporter's session takes its token away.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    fn find_mut(&mut self, run: u64) -> Option<&mut Run> {
        self.runs.iter_mut().find(|known| known.id == run)
    }

    fn find(&self, run: u64) -> Option<&Run> {
        self.runs.iter().find(|known| known.id == run)
    }

    /// Takes `count` messages from `place` on. `may_change` says that the run which is followed is not heard of any more, so that
    /// another one may take its place even if its end is not known.
    pub(crate) fn messages(&mut self, place: Place, count: u64, may_change: bool) -> Verdict {
        let Some(run) = self.enter(place, may_change) else { return Verdict::Foreign };
        let end = place.number.saturating_add(count);
        if end <= run.expected {
            return Verdict::Stale;
        }
        let missed = place.number.saturating_sub(run.expected);
        let skip = run.expected.saturating_sub(place.number);
        // An exporter that was thrown out by its publisher comes back to the same run.
        (run.expected, run.ended) = (end, false);
        Verdict::Take { missed, skip }
    }

    /// Takes a beat: the next number is `place.number`, and `earlier` runs have ended, oldest first.
    pub(crate) fn beat(
        &mut self,
        place: Place,
        has_ended: bool,
        earlier: &[Ended],
        may_change: bool,
    ) -> Heard {
        let is_late = self.current.is_some_and(|current| current != place.run);
        // The run's own end is news also if another one is followed meanwhile.
        let mut missed = if has_ended && is_late { self.end(place.run, place.number) } else { 0 };
        let ends_current = earlier.iter().any(|ended| self.current == Some(ended.run));
        if self.enter(place, may_change || (ends_current && !self.is_held)).is_none() {
            return Heard { missed, is_foreign: true };
        }
        // UNTRUSTED: the list is used only after its run was let in.
        missed = missed.saturating_add(self.end_all(place.run, earlier));
        let Some(run) = self.find_mut(place.run) else { return Heard { missed, is_foreign: true } };
        if !(run.ended && is_late) {
            missed = missed.saturating_add(place.number.saturating_sub(run.expected));
            run.expected = run.expected.max(place.number);
            run.ended = has_ended;
        }
        Heard { missed, is_foreign: false }
    }

    /// These runs have ended, one after the other: what was lost at their ends, and all of those that were not heard at all. Runs from
    /// before the first that was followed are only remembered.
    fn end_all(&mut self, current: u64, ended: &[Ended]) -> u64 {
        let mut missed = 0_u64;
        // Where the next run that is not known belongs; and whether one before it was followed.
        let (mut place, mut follows) = (0, false);
        for &Ended { run, end } in ended.iter().filter(|ended| ended.run != current) {
            if let Some(at) = self.runs.iter().position(|known| known.id == run) {
                missed = missed.saturating_add(self.end(run, end));
                (place, follows) = (at + 1, true);
                continue;
            }
            if follows {
                missed = missed.saturating_add(end);
            }
            if self.runs.len() == REMEMBERED {
                self.runs.pop_front();
                place = place.saturating_sub(1);
            }
            self.runs.insert(place.min(self.runs.len()), Run { id: run, expected: end, ended: true });
            place += 1;
        }
        missed
    }

    /// A known run has ended: what was lost at its end.
    fn end(&mut self, run: u64, end: u64) -> u64 {
        let Some(run) = self.find_mut(run).filter(|known| !known.ended) else { return 0 };
        let missed = end.saturating_sub(run.expected);
        run.expected = run.expected.max(end);
        run.ended = true;
        missed
    }

    /// The run of a place, which is followed from now on. `None` if another one is.
    fn enter(&mut self, place: Place, may_change: bool) -> Option<&mut Run> {
        let known = self.runs.iter().position(|known| known.id == place.run);
        // A sample that comes late does not bring back a run that has ended.
        let is_over = known.and_then(|at| self.runs.get(at)).is_some_and(|run| run.ended);
        let is_other = self.current.is_some_and(|current| current != place.run);
        let may_change = may_change || (self.has_ended() && !self.is_held);
        if is_other && !is_over && !may_change {
            return None;
        }
        let is_first = self.current.is_none();
        if !is_other || !is_over {
            self.current = Some(place.run);
        }
        if let Some(at) = known {
            return self.runs.get_mut(at);
        }
        // Who follows a topic misses what a new run said before it was heard. Who has just come does not.
        let expected = if is_first { place.number } else { 0 };
        if self.runs.len() == REMEMBERED {
            self.runs.pop_front();
        }
        self.runs.push_back(Run { id: place.run, expected, ended: false });
        self.runs.back_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(run: u64, number: u64) -> Place {
        Place { run, number, source: 0 }
    }

    fn take(missed: u64, skip: u64) -> Verdict {
        Verdict::Take { missed, skip }
    }

    fn heard(missed: u64) -> Heard {
        Heard { missed, is_foreign: false }
    }

    #[test]
    fn who_has_just_come_has_missed_nothing() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 100), 1, false), take(0, 0));
        assert_eq!(follow.messages(at(1, 103), 2, false), take(2, 0));
        assert_eq!(follow.messages(at(1, 105), 1, false), take(0, 0));
    }

    #[test]
    fn what_comes_twice_is_passed_on_once() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        assert_eq!(follow.messages(at(1, 0), 10, false), Verdict::Stale);
        assert_eq!(follow.messages(at(1, 5), 10, false), take(0, 5));
    }

    #[test]
    fn a_new_run_counts_from_its_first_message() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        assert_eq!(follow.beat(at(1, 12), true, &[], false), heard(2));
        assert_eq!(follow.messages(at(2, 3), 1, false), take(3, 0));
        assert_eq!(follow.messages(at(1, 11), 1, false), Verdict::Stale);
        assert_eq!(follow.run(), Some(2));
    }

    #[test]
    fn another_publisher_waits_until_the_first_is_gone() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 1, false), take(0, 0));
        assert_eq!(follow.messages(at(2, 0), 1, false), Verdict::Foreign);
        assert_eq!(follow.beat(at(2, 1), false, &[], false), Heard { missed: 0, is_foreign: true });
        assert_eq!(follow.messages(at(2, 1), 1, true), take(1, 0));
    }

    #[test]
    fn no_sample_ends_a_run_whose_token_is_there() {
        let mut follow = Follow::default();
        let foreign = Heard { missed: 0, is_foreign: true };
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        follow.hold(true);
        assert_eq!(follow.beat(at(1, 10), true, &[], false), heard(0), "a forged end");
        assert_eq!(follow.messages(at(2, 0), 1, false), Verdict::Foreign);
        let ended = [Ended { run: 1, end: 1 << 60 }];
        assert_eq!(follow.beat(at(2, 1), false, &ended, false), foreign, "a forged list");
        assert_eq!(follow.messages(at(1, 10), 1, false), take(0, 0));
        follow.hold(false);
        let ended = [Ended { run: 1, end: 12 }];
        assert_eq!(follow.beat(at(2, 1), false, &ended, false), heard(2));
    }

    #[test]
    fn a_list_of_a_run_that_is_not_let_in_tells_nothing() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        assert_eq!(follow.messages(at(2, 0), 1, true), take(0, 0));
        let ended = [Ended { run: 1, end: 1 << 60 }];
        assert_eq!(follow.beat(at(3, 0), false, &ended, false), Heard { missed: 0, is_foreign: true });
        assert_eq!(follow.beat(at(2, 1), false, &[Ended { run: 1, end: 11 }], false), heard(1));
    }

    #[test]
    fn the_end_of_an_earlier_run_is_told_later_once() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        assert_eq!(follow.messages(at(2, 0), 1, true), take(0, 0));
        let ended = [Ended { run: 1, end: 15 }];
        assert_eq!(follow.beat(at(2, 1), false, &ended, false), heard(5));
        assert_eq!(follow.beat(at(2, 1), false, &ended, false), heard(0));
    }

    #[test]
    fn runs_that_were_not_heard_at_all_are_missed_whole() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        let ended = [(7, 50), (1, 12), (2, 100), (3, 1000)].map(|(run, end)| Ended { run, end });
        assert_eq!(follow.beat(at(4, 5), false, &ended, false), heard(2 + 100 + 1000 + 5));
        assert_eq!(follow.beat(at(4, 5), false, &ended, false), heard(0));
        assert_eq!(follow.messages(at(3, 999), 1, false), Verdict::Stale);
        assert!(follow.earlier().eq(ended), "the run 7 is from before");
    }

    #[test]
    fn runs_from_before_the_first_are_not_missed() {
        let mut follow = Follow::default();
        let ended = [Ended { run: 1, end: 100 }];
        assert_eq!(follow.beat(at(2, 5), false, &ended, false), heard(0));
        assert_eq!((follow.run(), follow.expected()), (Some(2), Some(5)));
        assert!(follow.earlier().eq(ended));
    }

    #[test]
    fn the_end_of_an_earlier_run_is_told_whoever_says_it() {
        let mut follow = Follow::default();
        assert_eq!(follow.messages(at(1, 0), 10, false), take(0, 0));
        assert_eq!(follow.messages(at(2, 0), 1, true), take(0, 0));
        // Its own exporter, whose last beat was late.
        assert_eq!(follow.beat(at(1, 15), true, &[], false).missed, 5);
        assert_eq!(follow.messages(at(3, 0), 1, true), take(0, 0));
        // An exporter of yet another publisher tells nothing.
        let ended = [Ended { run: 2, end: 4 }];
        assert_eq!(follow.beat(at(9, 0), false, &ended, false), Heard { missed: 0, is_foreign: true });
        assert_eq!(follow.run(), Some(3));
    }

    /// Whatever is lost, doubled or late, and however often the publisher is started again: what was passed on and what was told
    /// missing add up to what was sent.
    #[test]
    fn everything_adds_up() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..2_000 {
            let mut follow = Follow::default();
            let (mut sent, mut had) = (0, 0);
            let mut ended = Vec::new();
            // The first sample always arrives: before it nobody follows.
            follow.messages(at(1, 0), 1, false);
            (sent, had) = (sent + 1, had + 1);
            let mut number = 1;
            for run in 1..=3 {
                for _ in 0..random(20) {
                    let count = 1 + random(5);
                    sent += count;
                    for _ in 0..random(3) {
                        if let Verdict::Take { missed, skip } = follow.messages(at(run, number), count, false)
                        {
                            had += missed + count - skip;
                        }
                    }
                    number += count;
                    if random(4) == 0 {
                        had += follow.beat(at(run, number), false, &ended, false).missed;
                    }
                }
                ended.push(Ended { run, end: number });
                // The end is heard, or not; the exporter's silence lets another run in.
                if random(2) == 0 {
                    had += follow.beat(at(run, number), true, &ended, false).missed;
                }
                had += follow.beat(at(run + 1, 0), false, &ended, true).missed;
                number = 0;
            }
            assert_eq!(had, sent);
        }
    }
}
