//! [`Sequencer`]: one order of messages over two carriers, the ring and the socket.
//!
//! A direction numbers all its messages with one counter. A message is a record, a packet, or both with the same number; of
//! both, the sender sends the packet first. The receiver can read a packet before it sees a record that was published
//! earlier. Therefore a packet waits here, and is judged only against a look at the ring that was taken *after* the packet
//! was read. This module is the judgement alone, without memory or sockets; the caller does the looking.

use crate::{error::ProtocolError, protocol::MessageHeader};

/// The next message of the order, if it can be known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<P> {
    /// The ring's next record is the message, together with the packet, if there is one.
    Record(Option<P>),
    /// The packet alone is the message.
    Packet(MessageHeader, P),
    /// The ring's next record proves that a packet was sent before it, which must be in the socket.
    NeedPacket,
    /// The next message has not arrived.
    Nothing,
}

/// The order of one direction, as its receiver keeps it.
#[derive(Debug)]
pub(crate) struct Sequencer<P> {
    /// Sequence of the next message.
    next: u64,
    /// The older of the packets that wait.
    first: Option<(MessageHeader, P)>,
    /// The newer one. An honest peer never makes us hold a third: the first may wait for its record, and the second may have
    /// been read before that record was seen.
    second: Option<(MessageHeader, P)>,
}

impl<P> Sequencer<P> {
    pub(crate) fn new() -> Self {
        Self { next: 0, first: None, second: None }
    }

    /// Stores a packet that was read. The next [`next`](Self::next) judges it.
    #[inline]
    pub(crate) fn push_packet(&mut self, heading: MessageHeader, packet: P) -> Result<(), ProtocolError> {
        let before = self.second.as_ref().or(self.first.as_ref());
        let least = before.map_or(self.next, |(before, _)| before.sequence.wrapping_add(1));
        if heading.sequence < least || self.second.is_some() {
            return Err(ProtocolError::Sequence { expected: least, found: heading.sequence });
        }
        let place = if self.first.is_none() { &mut self.first } else { &mut self.second };
        *place = Some((heading, packet));
        Ok(())
    }

    /// True if the ring's next record is the whole next message, and no packet waits: the usual case. Otherwise
    /// [`next`](Self::next) decides.
    #[inline]
    pub(crate) fn is_next_inline(&self, record: MessageHeader) -> bool {
        record.sequence == self.next && !record.is_split() && self.first.is_none()
    }

    /// Counts a record that [comes next inline](Self::is_next_inline) as delivered.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Decides which message is next, and hands out its packet. `record` is the ring's next record, seen after the last
    /// [`push_packet`](Self::push_packet).
    pub(crate) fn next(&mut self, record: Option<MessageHeader>) -> Result<Next<P>, ProtocolError> {
        let expected = self.next;
        let held = self.first.as_ref().map(|(heading, _)| *heading);
        let turn = match (record, held) {
            (Some(record), _) if record.sequence < expected => return self.out_of_turn(record),
            // The record has the next number.
            (Some(record), held) if record.sequence == expected => match held {
                Some(held) if held.sequence == expected => {
                    // Record and packet must have equal headings, each with the flag for the other.
                    if !record.is_split() || record != held {
                        return Err(ProtocolError::Halves { sequence: expected });
                    }
                    Next::Record(self.take().map(|(_, packet)| packet))
                }
                Some(_) if record.is_split() => return Err(ProtocolError::Halves { sequence: expected }),
                None if record.is_split() => Next::NeedPacket,
                _ => Next::Record(None),
            },
            // The record is a later message, so that a packet must have the next number.
            (Some(record), Some(held)) => {
                if held.sequence != expected {
                    return self.out_of_turn(held);
                }
                if held.is_split() {
                    return self.out_of_turn(record);
                }
                self.packet()
            }
            (Some(_), None) => Next::NeedPacket,
            // Everything that was published before the waiting packet was sent is visible, and the ring is empty.
            (None, Some(held)) if held.sequence != expected => return self.out_of_turn(held),
            (None, Some(held)) if held.is_split() && self.second.is_some() => {
                return Err(ProtocolError::Halves { sequence: expected });
            }
            (None, Some(held)) if held.is_split() => Next::Nothing,
            (None, Some(_)) => self.packet(),
            (None, None) => Next::Nothing,
        };
        if matches!(turn, Next::Record(_) | Next::Packet(..)) {
            self.next = self.next.wrapping_add(1);
        }
        Ok(turn)
    }

    fn take(&mut self) -> Option<(MessageHeader, P)> {
        std::mem::replace(&mut self.first, self.second.take())
    }

    fn packet(&mut self) -> Next<P> {
        self.take().map_or(Next::Nothing, |(heading, packet)| Next::Packet(heading, packet))
    }

    fn out_of_turn(&self, found: MessageHeader) -> Result<Next<P>, ProtocolError> {
        Err(ProtocolError::Sequence { expected: self.next, found: found.sequence })
    }

    /// The violation by a peer whose socket lacks the packet of [`Next::NeedPacket`], which `record` has proved.
    pub(crate) fn missing(&self, record: Option<MessageHeader>) -> ProtocolError {
        match record {
            Some(MessageHeader { sequence: found, .. }) if found != self.next => {
                ProtocolError::Sequence { expected: self.next, found }
            }
            _ => ProtocolError::Halves { sequence: self.next },
        }
    }

    /// Drops the packets that wait, because their records will never come.
    pub(crate) fn abandon(&mut self) {
        (self.first, self.second) = (None, None);
    }

    /// The sequence of the next message.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn alone(sequence: u64) -> MessageHeader {
        MessageHeader::new(sequence, false, None)
    }

    fn half(sequence: u64) -> MessageHeader {
        alone(sequence).split()
    }

    #[test]
    fn packet_read_early_waits_for_earlier_records() {
        let mut order = Sequencer::new();
        order.push_packet(alone(2), 'p').unwrap();
        assert_eq!(order.next(Some(alone(0))), Ok(Next::Record(None)));
        assert_eq!(order.next(Some(alone(1))), Ok(Next::Record(None)));
        assert_eq!(order.next(Some(alone(3))), Ok(Next::Packet(alone(2), 'p')));
        assert_eq!(order.next(Some(alone(3))), Ok(Next::Record(None)));
    }

    #[test]
    fn record_and_packet_make_one_message() {
        let mut order = Sequencer::new();
        assert_eq!(order.next(Some(half(0))), Ok(Next::NeedPacket));
        order.push_packet(half(0), 'a').unwrap();
        assert_eq!(order.next(Some(half(0))), Ok(Next::Record(Some('a'))));
        order.push_packet(half(1), 'b').unwrap();
        assert_eq!(order.next(None), Ok(Next::Nothing), "its record is still to come");
        order.push_packet(alone(2), 'c').unwrap();
        assert_eq!(order.next(Some(half(1))), Ok(Next::Record(Some('b'))));
        assert_eq!(order.next(None), Ok(Next::Packet(alone(2), 'c')));
        assert_eq!(order.next_sequence(), 3);
    }

    #[test]
    fn record_alone_is_the_next_message() {
        let mut order = Sequencer::new();
        assert!(!order.is_next_inline(half(0)), "a packet belongs to it");
        assert!(!order.is_next_inline(alone(1)), "a packet comes before it");
        assert!(order.is_next_inline(alone(0)));
        order.advance();
        assert!(!order.is_next_inline(alone(0)), "the past");
        order.push_packet(alone(2), ()).unwrap();
        assert!(!order.is_next_inline(alone(1)), "a packet may belong to it");
        assert_eq!(order.next_sequence(), 1);
    }

    #[test]
    fn missing_packet_is_a_half_or_an_earlier_message() {
        let order = Sequencer::<()>::new();
        assert_eq!(order.missing(Some(half(0))), ProtocolError::Halves { sequence: 0 });
        assert_eq!(order.missing(Some(alone(3))), ProtocolError::Sequence { expected: 0, found: 3 });
    }

    #[test]
    fn abandoned_halves_are_dropped() {
        let packet = std::rc::Rc::new(());
        let mut order = Sequencer::new();
        order.push_packet(half(0), packet.clone()).unwrap();
        order.abandon();
        assert_eq!(std::rc::Rc::strong_count(&packet), 1);
    }

    #[test]
    fn out_of_sequence_messages_are_protocol_errors() {
        type Case<'a> = (&'a [MessageHeader], Option<MessageHeader>);
        let wants_reply = MessageHeader::new(0, true, None).split();
        let cases: &[Case<'_>] = &[
            (&[alone(1)], None),             // nothing was published before it
            (&[alone(0)], Some(alone(0))),   // twice the same number
            (&[half(0)], Some(alone(0))),    // one half knows nothing of the other
            (&[half(0)], Some(alone(1))),    // its record is not the next
            (&[half(0), alone(1)], None),    // its record was not published before the next packet
            (&[alone(1)], Some(half(0))),    // the record's packet was not sent before this one
            (&[wants_reply], Some(half(0))), // the halves disagree
            (&[alone(2)], Some(alone(1))),   // a number is left out
        ];
        for &(packets, record) in cases {
            let mut order = Sequencer::new();
            for packet in packets {
                order.push_packet(*packet, ()).unwrap();
            }
            assert!(order.next(record).is_err(), "{packets:?} {record:?}");
        }
        let mut order = Sequencer::new();
        order.next(Some(alone(0))).unwrap();
        assert!(order.next(Some(alone(0))).is_err(), "the past");
        assert!(order.push_packet(alone(0), ()).is_err(), "the past");
        order.push_packet(alone(5), ()).unwrap();
        assert!(order.push_packet(alone(5), ()).is_err(), "twice the same");
        order.push_packet(alone(6), ()).unwrap();
        assert!(order.push_packet(alone(7), ()).is_err(), "a third");
    }

    /// The two carriers, and the messages that came out of them: each with its heading, and its packet if it had one.
    #[derive(Default)]
    struct Carriers {
        ring: VecDeque<MessageHeader>,
        socket: VecDeque<MessageHeader>,
        out: Vec<(MessageHeader, Option<MessageHeader>)>,
    }

    impl Carriers {
        fn look(&mut self, order: &mut Sequencer<MessageHeader>) -> Result<(), ProtocolError> {
            loop {
                let record = self.ring.front().copied();
                match order.next(record)? {
                    Next::Record(packet) => self.out.push((self.ring.pop_front().unwrap(), packet)),
                    Next::Packet(heading, packet) => self.out.push((heading, Some(packet))),
                    Next::NeedPacket if self.socket.is_empty() => return Err(order.missing(record)),
                    Next::NeedPacket => self.read(order)?,
                    Next::Nothing => return Ok(()),
                }
            }
        }

        fn read(&mut self, order: &mut Sequencer<MessageHeader>) -> Result<(), ProtocolError> {
            self.socket.pop_front().map_or(Ok(()), |packet| order.push_packet(packet, packet))
        }

        /// One action of a receiver. A look follows each read.
        fn receive(&mut self, order: &mut Sequencer<MessageHeader>, step: u8) -> Result<(), ProtocolError> {
            match step {
                0 => self.read(order)?,
                1 if self.ring.front().is_some_and(|record| order.is_next_inline(*record)) => {
                    order.advance();
                    self.out.push((self.ring.pop_front().unwrap(), None));
                    return Ok(());
                }
                _ => {}
            }
            self.look(order)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_schedule_delivers_what_was_sent(
            ways in vec(select(&["record", "packet", "both"][..]), 0..20),
            steps in vec(0..4_u8, 0..100),
        ) {
            let (mut order, mut carriers) = (Sequencer::new(), Carriers::default());
            // The records and packets in the order of sending, and the messages.
            let (mut unsent, mut expected) = (VecDeque::new(), Vec::new());
            for (sequence, way) in (0..).zip(ways) {
                let heading = if way == "both" { half(sequence) } else { alone(sequence) };
                unsent.extend((way != "record").then_some((heading, false)));
                unsent.extend((way != "packet").then_some((heading, true)));
                expected.push((heading, (way != "record").then_some(heading)));
            }
            let send = |unsent: &mut VecDeque<_>, carriers: &mut Carriers| match unsent.pop_front() {
                Some((heading, true)) => carriers.ring.push_back(heading),
                Some((heading, false)) => carriers.socket.push_back(heading),
                None => {}
            };
            for step in steps {
                if step == 3 {
                    send(&mut unsent, &mut carriers);
                } else {
                    carriers.receive(&mut order, step).unwrap();
                }
                prop_assert!(expected.starts_with(&carriers.out));
            }
            while !unsent.is_empty() {
                send(&mut unsent, &mut carriers);
            }
            carriers.look(&mut order).unwrap();
            while !carriers.socket.is_empty() {
                carriers.receive(&mut order, 0).unwrap();
            }
            prop_assert_eq!(carriers.out, expected);
        }

        #[test]
        fn arbitrary_packets_come_out_numbered_and_whole(
            halves in vec((0..4_u64, any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8), 0..40),
        ) {
            let (mut order, mut carriers) = (Sequencer::new(), Carriers::default());
            for (by, halved, wants_reply, in_ring, step) in halves {
                // The number is mostly the next one, sometimes an earlier or a later one.
                let sequence = (order.next_sequence() + by).saturating_sub(1);
                let heading = MessageHeader::new(sequence, wants_reply, None);
                let heading = if halved { heading.split() } else { heading };
                if in_ring { &mut carriers.ring } else { &mut carriers.socket }.push_back(heading);
                if step < 3 && carriers.receive(&mut order, step).is_err() {
                    break;
                }
            }
            for (sequence, (heading, packet)) in (0..).zip(carriers.out) {
                prop_assert_eq!(heading.sequence, sequence);
                prop_assert!(packet.is_none_or(|packet| packet == heading));
                prop_assert!(packet.is_some() || !heading.is_split());
            }
            prop_assert!(order.first.is_some() || order.second.is_none());
        }
    }
}
