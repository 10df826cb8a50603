//! [`Slow`] and [`Start`]: what a publisher grants a subscriber that is slow, or that comes late.

use std::time::Duration;

use crate::protocol::Position;

/// What becomes of a subscriber that is slower than its publisher: the publisher's rule, or a subscriber's wish.
///
/// The policies are ordered by what they give to the subscriber. A subscriber gets what it wishes, but no more than the
/// publisher's rule.
///
/// ```
/// use std::time::Duration;
/// use sealane::Slow;
///
/// assert_eq!(Slow::default(), Slow::Wait(Duration::from_millis(100)));
/// assert!(Slow::Overrun < Slow::Wait(Duration::ZERO) && Slow::default() < Slow::Wait(Duration::MAX));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slow {
    /// The publisher never waits. The subscriber may miss messages, and learns how many:
    /// [`Message::missed`](crate::Message::missed).
    Overrun,
    /// The publisher waits, for this time at most, and ends a subscriber that has used it up. The time comes back slowly: a tenth of
    /// the time that passes. [`Duration::MAX`] is for ever. The subscriber loses nothing until it is ended
    /// ([`Error::TooSlow`](crate::Error::TooSlow)).
    ///
    /// The time counts in microseconds.
    Wait(Duration),
}

impl Default for Slow {
    fn default() -> Self {
        Self::Wait(Duration::from_millis(100))
    }
}

impl Slow {
    /// The number on the wire that stands for ever.
    const FOREVER: u64 = u64::MAX;

    /// The number on the wire: 0 for no waiting, or one more than the microseconds.
    pub(crate) fn to_patience(self) -> u64 {
        match self {
            Self::Overrun => 0,
            Self::Wait(after) => {
                u64::try_from(after.as_micros()).map_or(Self::FOREVER, |micros| micros.saturating_add(1))
            }
        }
    }

    /// The policy of a number on the wire: every number is one.
    pub(crate) fn from_patience(patience: u64) -> Self {
        match patience {
            0 => Self::Overrun,
            Self::FOREVER => Self::Wait(Duration::MAX),
            micros => Self::Wait(Duration::from_micros(micros.saturating_sub(1))),
        }
    }

    /// How long the publisher waits, if it does.
    pub(crate) fn patience(self) -> Option<Duration> {
        match self {
            Self::Overrun => None,
            Self::Wait(after) => Some(after),
        }
    }
}

/// Where a subscriber that joins begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Start {
    /// With the next message that is published.
    #[default]
    Next,
    /// With the newest message that has a payload, if there is one and the ring still has all of it, and if no descriptors came with
    /// it or behind it: these were sent to those who were there. Messages behind it follow.
    Latest,
}

impl Start {
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Next => 0,
            Self::Latest => 1,
        }
    }

    /// UNTRUSTED: an unknown number is the default.
    pub(crate) fn from_code(code: u32) -> Self {
        if code == Self::Latest.code() { Self::Latest } else { Self::Next }
    }
}

/// What a subscriber asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) slow: Slow,
    pub(crate) start: Start,
}

/// What a publisher grants, for the life of the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) slow: Slow,
    /// Number of the message that is read first.
    pub(crate) first_sequence: u64,
    /// Where that begins. The subscriber's `Tail` counts from there.
    pub(crate) first_position: Position,
    /// [`Source::lost`](crate::protocol::Source::lost) before it.
    pub(crate) lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip_and_keep_their_order() {
        let micros = |n| Slow::Wait(Duration::from_micros(n));
        let policies = [Slow::Overrun, micros(0), micros(1), Slow::default(), Slow::Wait(Duration::MAX)];
        assert!(policies.is_sorted());
        assert!(policies.map(Slow::to_patience).is_sorted());
        for policy in policies {
            assert_eq!(Slow::from_patience(policy.to_patience()), policy);
        }
        assert_eq!(Slow::from_patience(u64::MAX - 1), micros(u64::MAX - 2), "nearly for ever");
    }

    #[test]
    fn publisher_waits_for_the_time_of_the_policy() {
        for time in [Duration::ZERO, Duration::from_millis(100), Duration::MAX] {
            assert_eq!(Slow::Wait(time).patience(), Some(time));
        }
        assert_eq!(Slow::Overrun.patience(), None);
    }

    #[test]
    fn unknown_starts_are_the_next_message() {
        assert_eq!([Start::Next, Start::Latest].map(Start::code), [0, 1]);
        for (code, start) in [(0, Start::Next), (1, Start::Latest), (2, Start::Next), (u32::MAX, Start::Next)]
        {
            assert_eq!(Start::from_code(code), start);
        }
    }
}
