//! [`Attempts`]: which packet of descriptors belongs to which of a publisher's records.
//!
//! A message with descriptors is sent to each subscriber as a packet, then published as a record. The packet may fail at
//! another subscriber: then there is no record, and the message may be tried again, or be given up. Therefore each attempt has
//! a number of its own, which only grows, in its packets and in its record. This module is the judgement alone, without memory
//! or sockets.

use std::collections::VecDeque;

use crate::error::ProtocolError;

/// Most packets that are held: one that waits for its record, and one that was read before that record was seen.
const MAX_HELD: usize = 2;

/// The packets that a subscriber has read, and has seen no record of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attempts<P> {
    held: VecDeque<(u64, P)>,
    /// The highest attempt of a packet that was read.
    highest: u64,
    /// The highest attempt of a packet that was dropped before its record was seen.
    dropped: u64,
}

/// Where the descriptors of a record are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<P> {
    Here(P),
    /// They are in the socket, or were never sent to us.
    Read,
    /// They were never sent to us: a later packet is here.
    Missing,
}

impl<P> Attempts<P> {
    pub(crate) fn new() -> Self {
        Self { held: VecDeque::new(), highest: 0, dropped: 0 }
    }

    /// Stores a packet that was read. The caller looks at the ring before it reads another.
    ///
    /// # Errors
    /// If its attempt is not above those before it.
    pub(crate) fn push(&mut self, attempt: u64, packet: P) -> Result<(), ProtocolError> {
        if attempt <= self.highest {
            let expected = self.highest.saturating_add(1);
            return Err(ProtocolError::Attempt { expected, found: attempt });
        }
        self.highest = attempt;
        // Of three, the first has no record, as the ring was looked at since the second was read; or that was passed over, by a
        // reader that goes to the newest message.
        if self.held.len() >= MAX_HELD
            && let Some((dropped, _)) = self.held.pop_front()
        {
            self.dropped = dropped;
        }
        self.held.push_back((attempt, packet));
        Ok(())
    }

    /// The packet of the next record's attempt. Those of earlier attempts are dropped, since they have no record.
    pub(crate) fn take(&mut self, attempt: u64) -> Taken<P> {
        while let Some((held, packet)) = self.held.pop_front() {
            if held == attempt {
                return Taken::Here(packet);
            }
            if held > attempt {
                self.held.push_front((held, packet));
                return Taken::Missing;
            }
        }
        Taken::Read
    }

    /// Whether the packet of an attempt may have been read, and dropped.
    pub(crate) fn has_dropped(&self, attempt: u64) -> bool {
        attempt <= self.dropped
    }

    /// Drops the packets, because their records will never come.
    pub(crate) fn abandon(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_gets_the_packet_of_its_attempt_only() {
        let mut attempts = Attempts::new();
        attempts.push(1, "failed elsewhere").unwrap();
        assert_eq!(attempts.take(2), Taken::Read, "it is not that one's");
        attempts.push(2, "sent").unwrap();
        assert_eq!(attempts.take(2), Taken::Here("sent"));
        attempts.push(5, "later").unwrap();
        assert_eq!(attempts.take(4), Taken::Missing);
        assert_eq!(attempts.take(5), Taken::Here("later"));
        assert_eq!(attempts.take(6), Taken::Read);
    }

    #[test]
    fn attempts_only_grow_and_two_packets_are_held_at_most() {
        let mut attempts = Attempts::new();
        assert_eq!(attempts.push(0, ()), Err(ProtocolError::Attempt { expected: 1, found: 0 }));
        attempts.push(3, ()).unwrap();
        assert_eq!(attempts.push(3, ()), Err(ProtocolError::Attempt { expected: 4, found: 3 }));
        attempts.push(u64::MAX, ()).unwrap();
        assert!(attempts.push(u64::MAX, ()).is_err());
        assert_eq!(attempts.take(3), Taken::Here(()));
        let mut attempts = Attempts::new();
        let packet = std::rc::Rc::new(());
        for attempt in 1..100 {
            attempts.push(attempt, std::rc::Rc::clone(&packet)).unwrap();
            assert!(std::rc::Rc::strong_count(&packet) <= 3);
        }
        attempts.abandon();
        assert_eq!(std::rc::Rc::strong_count(&packet), 1);
    }

    #[test]
    fn packet_that_gave_way_to_later_ones_is_known_as_dropped() {
        let mut attempts = Attempts::new();
        for attempt in [2, 3] {
            attempts.push(attempt, ()).unwrap();
            assert!(!attempts.has_dropped(2), "two are held");
        }
        attempts.push(5, ()).unwrap();
        assert_eq!([2, 3].map(|attempt| attempts.has_dropped(attempt)), [true, false]);
        attempts.push(6, ()).unwrap();
        assert_eq!([2, 3, 5].map(|attempt| attempts.has_dropped(attempt)), [true, true, false]);
    }
}
