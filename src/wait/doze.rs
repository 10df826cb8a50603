//! [`Doze`]: whether a subscriber's next sleep is a short one, on a word of its publisher's (`futex(2)`), or one on its socket.
//!
//! One system call ends the dozes of all subscribers, where each sleep on a socket needs a doorbell of its own. But a doze notices
//! neither that the publisher was killed nor that it has ended the subscription. So only who hears of messages at short intervals
//! dozes, and not for much longer than such an interval.
//!
//! UNTRUSTED: whoever has the publisher's region can wake those who doze in vain, or have others woken in their stead
//! (`FUTEX_CMP_REQUEUE`). That is counted, and ends the dozing.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The longest doze. Messages come twice as often.
const LONGEST: Duration = Duration::from_millis(100);

/// The shortest one: a timer is hardly more exact.
const SHORTEST: Duration = Duration::from_millis(1);

/// Dozes that ended in vain, after which there are no more. One that others held back counts as four.
const MAX_VAIN: u8 = 16;

/// Good dozes that make up for one that ended in vain: a publisher may wake late, for messages that were seen meanwhile, or be kept
/// from running before it wakes anybody.
const GOOD: u16 = 256;

/// Why a doze has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Somebody woke it, or the word had changed before.
    Called,
    TimedOut,
    /// A signal came.
    Interrupted,
}

impl From<Result<(), Errno>> for Woken {
    /// What a `FUTEX_WAIT` has returned. An error that it should not have is taken for the end of its time: then the socket is
    /// slept on.
    fn from(result: Result<(), Errno>) -> Self {
        match result {
            Ok(()) | Err(Errno::AGAIN) => Self::Called,
            Err(Errno::INTR) => Self::Interrupted,
            Err(_) => Self::TimedOut,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Doze {
    /// When the sleep for the messages behind this end began.
    last: Option<(u64, Instant)>,
    /// The last two intervals between messages.
    intervals: [Option<Duration>; 2],
    vain: u8,
    good: u16,
}

impl Doze {
    /// How long a sleep for the messages behind `head` is to be a doze. `None`: it is to be on the socket.
    pub(crate) fn plan(&mut self, now: Instant, head: u64) -> Option<Duration> {
        match self.last {
            // An earlier sleep has ended without news.
            Some((last, _)) if last == head => return None,
            Some((_, then)) => {
                let interval = now.saturating_duration_since(then);
                self.intervals = [self.intervals[1], Some(interval)];
            }
            None => {}
        }
        self.last = Some((head, now));
        let [Some(a), Some(b)] = self.intervals else { return None };
        let longest = a.max(b).saturating_mul(2);
        (longest <= LONGEST && self.vain < MAX_VAIN).then_some(longest.max(SHORTEST))
    }

    /// A doze has ended; `has_news` if there are messages.
    pub(crate) fn judge(&mut self, woken: Woken, has_news: bool) {
        match (woken, has_news) {
            (Woken::Called, true) => {
                self.good = self.good.saturating_add(1);
                if self.good >= GOOD {
                    (self.good, self.vain) = (0, self.vain.saturating_sub(1));
                }
            }
            (Woken::Called, false) => self.vain = self.vain.saturating_add(1),
            (Woken::TimedOut, true) => self.vain = self.vain.saturating_add(4),
            (Woken::TimedOut, false) | (Woken::Interrupted, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One who has heard of messages at these intervals, in milliseconds; and when the next sleep begins, for which end.
    fn after(intervals: &[u64]) -> (Doze, Instant, u64) {
        let (mut doze, mut now) = (Doze::default(), Instant::now());
        assert_eq!(doze.plan(now, 0), None);
        let mut head = 0;
        for interval in intervals {
            now += Duration::from_millis(*interval);
            head += 64;
            doze.plan(now, head);
        }
        (doze, now, head)
    }

    fn plan(intervals: &[u64]) -> Option<Duration> {
        let (last, before) = intervals.split_last().unwrap();
        let (mut doze, now, head) = after(before);
        doze.plan(now + Duration::from_millis(*last), head + 64)
    }

    #[test]
    fn messages_at_short_intervals_are_dozed_for() {
        assert_eq!(plan(&[16]), None, "nothing is known yet");
        assert_eq!(plan(&[16, 16]), Some(Duration::from_millis(32)));
        assert_eq!(plan(&[16, 20]), Some(Duration::from_millis(40)));
        assert_eq!(plan(&[0, 0]), Some(SHORTEST));
        assert_eq!(plan(&[16, 16, 51]), None);
        assert_eq!(plan(&[51, 16]), None);
        assert_eq!(plan(&[51, 16, 16]), Some(Duration::from_millis(32)));
    }

    #[test]
    fn sleeps_after_one_without_news_are_on_the_socket() {
        let (mut doze, now, head) = after(&[16, 16]);
        assert_eq!(doze.plan(now, head), None);
        assert!(doze.plan(now + Duration::from_millis(16), head + 64).is_some());
    }

    #[test]
    fn others_that_wake_or_hold_back_end_the_dozing() {
        for (woken, has_news, times) in [(Woken::Called, false, 16), (Woken::TimedOut, true, 4)] {
            let (mut doze, mut now, mut head) = after(&[16, 16]);
            for _ in 0..times {
                (now, head) = (now + Duration::from_millis(16), head + 64);
                assert!(doze.plan(now, head).is_some());
                doze.judge(woken, has_news);
            }
            assert_eq!(doze.plan(now + Duration::from_millis(16), head + 64), None, "{woken:?}");
        }
        let (mut doze, now, head) = after(&[16, 16]);
        for _ in 0..1000 {
            doze.judge(Woken::TimedOut, false);
            doze.judge(Woken::Interrupted, false);
            // One in vain for so many good ones is no attack.
            doze.judge(Woken::Called, false);
            (0..GOOD).for_each(|_| doze.judge(Woken::Called, true));
        }
        assert!(doze.plan(now + Duration::from_millis(16), head + 64).is_some());
    }
}
