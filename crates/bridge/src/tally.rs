//! [`Tally`]: what a subscriber at a bridge's path has missed. Pure: no I/O, no clock.
//!
//! As long as a subscription lasts and is not overrun, its publisher says what was lost. What passed while there was no subscription, or
//! was overrun together with notices, is a difference of the source's numbers.

use crate::wire::{beat::Ended, notice::Standing};

/// Where the subscriber stands at the source.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// The run, if the bridge has said it.
    run: Option<u64>,
    epoch: u64,
    /// The number of the next message.
    next: u64,
}

/// Records for which it is waited that the bridge says where the source stands, and subscriptions that are begun again for that.
const MAX_UNKNOWN: u32 = 256;

/// How many messages were missed before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Missed(u64),
    /// The bridge's next notice has this number. The message counts as missed itself.
    ToldSoon,
    /// The notice with this number was overrun. A new subscription receives it again.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    last: Option<Last>,
    /// Nothing has come of this subscription that says where it begins.
    came_back: bool,
    /// The number of the next record.
    sequence: Option<u64>,
    /// Records that said too little, one after the other.
    unknown: u32,
}

impl Tally {
    /// Another subscription begins.
    pub(crate) fn come_back(&mut self) {
        (self.came_back, self.sequence) = (self.last.is_some(), None);
    }

    /// Takes a record's number. True if records before it were overrun.
    fn step(&mut self, sequence: u64) -> bool {
        let next = self.sequence.replace(sequence.wrapping_add(1));
        next.is_some_and(|next| next != sequence)
    }

    /// The answer for a record that may stand behind the end of a run, if the bridge tells places. `None` if it does not.
    fn unknown(&mut self, is_overrun: bool) -> Option<Before> {
        self.last?.run?;
        if self.unknown >= MAX_UNKNOWN {
            return None;
        }
        self.unknown += 1;
        Some(if is_overrun { Before::Unknown } else { Before::ToldSoon })
    }

    /// Takes a message. `missed` is what the publisher says.
    pub(crate) fn message(&mut self, sequence: u64, epoch: u64, number: u64, missed: u64) -> Before {
        let is_overrun = self.step(sequence);
        // The overrun records may include the notices that told the end of the previous run.
        if (self.came_back || is_overrun)
            && self.last.is_some_and(|last| last.epoch != epoch)
            && let Some(unknown) = self.unknown(is_overrun)
        {
            return unknown;
        }
        let missed = match self.last {
            Some(last) if (self.came_back || is_overrun) && last.epoch == epoch => {
                number.saturating_sub(last.next)
            }
            // A bridge that tells no places. The end of the run before cannot be known.
            Some(_) if self.came_back => number,
            _ => missed,
        };
        let is_unknown = self.came_back || is_overrun;
        let run = self.last.filter(|last| !is_unknown || last.epoch == epoch).and_then(|last| last.run);
        self.last = Some(Last { run, epoch, next: number.wrapping_add(1) });
        (self.came_back, self.unknown) = (false, 0);
        Before::Missed(missed)
    }

    /// Takes a notice; the source's message `next` follows.
    pub(crate) fn notice(&mut self, sequence: u64, next: u64, missed: u64) -> Before {
        let is_overrun = self.step(sequence);
        if is_overrun && let Some(unknown) = self.unknown(true) {
            return unknown;
        }
        let Some(last) = &mut self.last else { return Before::Missed(missed) };
        if self.came_back {
            // What it says is a part of what the place will say.
            return Before::Missed(0);
        }
        let by_numbers = next.saturating_sub(last.next);
        last.next = last.next.max(next);
        Before::Missed(if is_overrun { by_numbers } else { missed })
    }

    /// Takes the notice of where the source stands. Returns the messages that are missed.
    pub(crate) fn standing(&mut self, sequence: u64, standing: &Standing, missed: u64) -> u64 {
        let is_overrun = self.step(sequence);
        let missed = match self.last {
            Some(last) if self.came_back || is_overrun => {
                // A publisher that was started again, and whose earlier run is not known: its own messages are missed at least.
                let otherwise = if self.came_back { standing.next.number } else { missed };
                last.missed_until(standing).unwrap_or(otherwise)
            }
            _ => missed,
        };
        let next = standing.next;
        self.last = Some(Last { run: Some(next.run), epoch: next.epoch(), next: next.number });
        (self.came_back, self.unknown) = (false, 0);
        missed
    }
}

impl Last {
    /// Messages between here and there, over all the runs that lie between; `None` if that is not known.
    fn missed_until(&self, standing: &Standing) -> Option<u64> {
        let Standing { next, earlier } = standing;
        let run = self.run.unwrap_or(self.epoch);
        if run == next.run || self.epoch == next.epoch() {
            return Some(next.number.saturating_sub(self.next));
        }
        let mut later = earlier.iter().skip_while(|ended| ended.run != run);
        let rest = later.next()?.end.saturating_sub(self.next);
        let whole = later.fold(rest, |sum, &Ended { end, .. }| sum.saturating_add(end));
        Some(whole.saturating_add(next.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Place;

    fn at(run: u64, number: u64, earlier: &[(u64, u64)]) -> Standing {
        let earlier = earlier.iter().map(|&(run, end)| Ended { run, end }).collect();
        Standing { next: Place { run, number, source: 0 }, earlier }
    }

    /// A subscription that has had message 9 of run 1, and has ended.
    fn left() -> Tally {
        let mut tally = Tally::default();
        tally.come_back();
        assert_eq!(tally.standing(0, &at(1, 5, &[]), 0), 0);
        assert_eq!(tally.message(1, 1, 9, 4), Before::Missed(4));
        tally.come_back();
        tally
    }

    #[test]
    fn publisher_says_what_was_lost() {
        let mut tally = Tally::default();
        assert_eq!(tally.message(7, 1, 100, 0), Before::Missed(0));
        assert_eq!(tally.message(8, 1, 105, 4), Before::Missed(4));
        // The end of the run before, and what the next one said before it was heard.
        assert_eq!(tally.message(9, 2, 3, 10), Before::Missed(10));
    }

    #[test]
    fn what_passed_meanwhile_is_a_difference_of_numbers() {
        assert_eq!(left().message(50, 1, 30, 0), Before::Missed(20));
        assert_eq!(left().standing(50, &at(1, 30, &[]), 0), 20);
    }

    #[test]
    fn notices_do_not_count_twice_what_numbers_say() {
        let mut tally = left();
        assert_eq!(tally.notice(50, 25, 5), Before::Missed(0));
        assert_eq!(tally.standing(51, &at(1, 30, &[]), 5), 20);
        assert_eq!(tally.notice(52, 33, 3), Before::Missed(3));
        assert_eq!(tally.message(53, 1, 33, 0), Before::Missed(0));
        tally.come_back();
        assert_eq!(tally.message(80, 1, 34, 0), Before::Missed(0));
        assert_eq!(tally.notice(81, 40, 5), Before::Missed(5));
        tally.come_back();
        assert_eq!(tally.message(90, 1, 41, 0), Before::Missed(1));
    }

    #[test]
    fn runs_that_passed_meanwhile_are_missed_whole() {
        let earlier = [(7, 70), (1, 15), (2, 200)];
        assert_eq!(left().standing(50, &at(3, 2, &earlier), 0), 5 + 200 + 2);
        assert_eq!(left().standing(50, &at(3, 2, &[(7, 70)]), 0), 2, "at least");
        // Without a place, as it knows of none that follows.
        let mut tally = left();
        for sequence in 0..u64::from(MAX_UNKNOWN) {
            assert_eq!(tally.message(50 + sequence, 3, 2 + sequence, 0), Before::ToldSoon);
        }
        assert_eq!(tally.message(1000, 3, 1000, 0), Before::Missed(1000), "at least");
    }

    #[test]
    fn notices_that_are_overrun_do_not_count() {
        let mut tally = Tally::default();
        assert_eq!(tally.message(0, 1, 0, 0), Before::Missed(0));
        // Records 1 to 9 were 8 messages and a notice.
        assert_eq!(tally.message(10, 1, 9, 9), Before::Missed(8));
        assert_eq!(tally.notice(21, 18, 10), Before::Missed(8));
        assert_eq!(tally.standing(30, &at(1, 20, &[]), 8), 2);
        assert_eq!(tally.standing(40, &at(2, 3, &[(1, 25)]), 9), 8);
    }

    #[test]
    fn a_place_that_was_overrun_is_asked_for_by_coming_back() {
        let began = || {
            let mut tally = Tally::default();
            assert_eq!(tally.standing(0, &at(1, 0, &[]), 0), 0);
            assert_eq!(tally.message(1, 1, 0, 0), Before::Missed(0));
            tally
        };
        let place = at(2, 9, &[(1, 5)]);
        // Records 2 to 9 were messages of both runs, and notices.
        let mut tally = began();
        assert_eq!(tally.message(10, 2, 4, 8), Before::Unknown);
        tally.come_back();
        assert_eq!(tally.message(20, 2, 8, 0), Before::ToldSoon);
        assert_eq!(tally.standing(21, &place, 0), 4 + 9);
        assert_eq!(tally.message(22, 2, 9, 0), Before::Missed(0));
        let mut tally = began();
        assert_eq!(tally.notice(10, 4, 8), Before::Unknown);
        tally.come_back();
        assert_eq!(tally.standing(21, &place, 0), 4 + 9);
        // The place of the new subscription may be overrun, too.
        let mut tally = began();
        tally.come_back();
        assert_eq!(tally.message(20, 2, 8, 0), Before::ToldSoon);
        assert_eq!(tally.message(30, 2, 18, 9), Before::Unknown);
    }

    #[test]
    fn a_relayed_source_that_begins_again_is_still_the_same_run() {
        let mut tally = left();
        let mut place = at(1, 30, &[]);
        place.next.source = 77;
        assert_eq!(tally.standing(50, &place, 0), 20);
        assert_eq!(tally.message(51, place.next.epoch(), 30, 0), Before::Missed(0));
    }
}
