//! One order over two carriers: whose turn it is, the ring's next record or a packet that was read.
//!
//! A direction numbers all its messages with one counter. A message is a record, a packet, or both with the same number;
//! of both, the packet was sent first. So a packet can be read before a record that was published earlier is seen: it is
//! judged only together with a look at the ring that was taken *after* it was read, and held until its turn. Here is the
//! judgement, without memory or sockets; the caller brings the looks.

use crate::{error::ProtocolError, protocol::record::Heading};

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<P> {
    /// The ring's next record is the message, or with the packet makes up the message.
    Record(Option<P>),
    /// The packet is the message.
    Packet(Heading, P),
    /// The ring's next record says that a packet was sent before it: it must be there to be read.
    MustRead,
    /// Nothing yet.
    Nothing,
}

/// The order of one direction, at its receiver.
#[derive(Debug)]
pub(crate) struct Order<P> {
    /// Sequence of the next message.
    next: u64,
    /// The packet that was read first of those held.
    first: Option<(Heading, P)>,
    /// An honest peer can make us hold one more: the first may wait for its record, and this have been read before that was
    /// seen.
    second: Option<(Heading, P)>,
}

impl<P> Order<P> {
    pub(crate) fn new() -> Self {
        Self { next: 0, first: None, second: None }
    }

    /// Takes up a packet that was read; the next [`turn`](Self::turn) judges it.
    pub(crate) fn hold(&mut self, heading: Heading, packet: P) -> Result<(), ProtocolError> {
        let before = self.second.as_ref().or(self.first.as_ref());
        let least = before.map_or(self.next, |(before, _)| before.sequence.wrapping_add(1));
        if heading.sequence < least || self.second.is_some() {
            return Err(ProtocolError::Sequence { expected: least, found: heading.sequence });
        }
        let place = if self.first.is_none() { &mut self.first } else { &mut self.second };
        *place = Some((heading, packet));
        Ok(())
    }

    /// Whether the ring's next record is the whole message whose turn it is, with nothing held before it, as nearly all are.
    /// If not, [`turn`](Self::turn) tells more.
    #[inline]
    pub(crate) fn is_alone(&self, record: Heading) -> bool {
        record.sequence == self.next && !record.other_half() && self.first.is_none()
    }

    /// A record that [is alone](Self::is_alone) has its turn.
    #[inline]
    pub(crate) fn passed(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Says whose turn it is, and gives out its packet. `record` is the ring's next record as seen after the last
    /// [`hold`](Self::hold).
    pub(crate) fn turn(&mut self, record: Option<Heading>) -> Result<Turn<P>, ProtocolError> {
        let expected = self.next;
        let held = self.first.as_ref().map(|(heading, _)| *heading);
        let turn = match (record, held) {
            (Some(record), _) if record.sequence < expected => return self.out_of_turn(record),
            // The record's turn.
            (Some(record), held) if record.sequence == expected => match held {
                Some(held) if held.sequence == expected => {
                    // The two must say the same of the message, each other included.
                    if !record.other_half() || record != held {
                        return Err(ProtocolError::Halves { sequence: expected });
                    }
                    Turn::Record(self.take().map(|(_, packet)| packet))
                }
                Some(_) if record.other_half() => return Err(ProtocolError::Halves { sequence: expected }),
                None if record.other_half() => Turn::MustRead,
                _ => Turn::Record(None),
            },
            // A packet's turn: the record is a later message.
            (Some(record), Some(held)) => {
                if held.sequence != expected {
                    return self.out_of_turn(held);
                }
                if held.other_half() {
                    return self.out_of_turn(record);
                }
                self.packet()
            }
            (Some(_), None) => Turn::MustRead,
            // All that was published before a held packet was sent is visible, and there is nothing.
            (None, Some(held)) if held.sequence != expected => return self.out_of_turn(held),
            (None, Some(held)) if held.other_half() && self.second.is_some() => {
                return Err(ProtocolError::Halves { sequence: expected });
            }
            (None, Some(held)) if held.other_half() => Turn::Nothing,
            (None, Some(_)) => self.packet(),
            (None, None) => Turn::Nothing,
        };
        if matches!(turn, Turn::Record(_) | Turn::Packet(..)) {
            self.next = self.next.wrapping_add(1);
        }
        Ok(turn)
    }

    fn take(&mut self) -> Option<(Heading, P)> {
        std::mem::replace(&mut self.first, self.second.take())
    }

    fn packet(&mut self) -> Turn<P> {
        self.take().map_or(Turn::Nothing, |(heading, packet)| Turn::Packet(heading, packet))
    }

    fn out_of_turn(&self, found: Heading) -> Result<Turn<P>, ProtocolError> {
        Err(ProtocolError::Sequence { expected: self.next, found: found.sequence })
    }

    /// The violation of a packet that [`Turn::MustRead`] says, because of `record`, is there, and is not.
    pub(crate) fn missing(&self, record: Option<Heading>) -> ProtocolError {
        match record {
            Some(Heading { sequence: found, .. }) if found != self.next => {
                ProtocolError::Sequence { expected: self.next, found }
            }
            _ => ProtocolError::Halves { sequence: self.next },
        }
    }

    /// Drops the packets whose records will never come.
    pub(crate) fn abandon(&mut self) {
        (self.first, self.second) = (None, None);
    }

    /// Sequence of the next message.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn alone(sequence: u64) -> Heading {
        Heading::new(sequence, false, None)
    }

    fn half(sequence: u64) -> Heading {
        alone(sequence).halved()
    }

    #[test]
    fn a_packet_read_early_waits_for_the_records_before_it() {
        let mut order = Order::new();
        order.hold(alone(2), 'p').unwrap();
        assert_eq!(order.turn(Some(alone(0))), Ok(Turn::Record(None)));
        assert_eq!(order.turn(Some(alone(1))), Ok(Turn::Record(None)));
        assert_eq!(order.turn(Some(alone(3))), Ok(Turn::Packet(alone(2), 'p')));
        assert_eq!(order.turn(Some(alone(3))), Ok(Turn::Record(None)));
    }

    #[test]
    fn both_halves_make_one_message() {
        let mut order = Order::new();
        assert_eq!(order.turn(Some(half(0))), Ok(Turn::MustRead));
        order.hold(half(0), 'a').unwrap();
        assert_eq!(order.turn(Some(half(0))), Ok(Turn::Record(Some('a'))));
        order.hold(half(1), 'b').unwrap();
        assert_eq!(order.turn(None), Ok(Turn::Nothing), "its record is still to come");
        order.hold(alone(2), 'c').unwrap();
        assert_eq!(order.turn(Some(half(1))), Ok(Turn::Record(Some('b'))));
        assert_eq!(order.turn(None), Ok(Turn::Packet(alone(2), 'c')));
        assert_eq!(order.next(), 3);
    }

    #[test]
    fn a_record_alone_needs_no_more_judgement() {
        let mut order = Order::new();
        assert!(!order.is_alone(half(0)), "a packet belongs to it");
        assert!(!order.is_alone(alone(1)), "a packet comes before it");
        assert!(order.is_alone(alone(0)));
        order.passed();
        assert!(!order.is_alone(alone(0)), "the past");
        order.hold(alone(2), ()).unwrap();
        assert!(!order.is_alone(alone(1)), "a packet may belong to it");
        assert_eq!(order.next(), 1);
    }

    #[test]
    fn a_missing_packet_is_the_other_half_or_the_message_before() {
        let order = Order::<()>::new();
        assert_eq!(order.missing(Some(half(0))), ProtocolError::Halves { sequence: 0 });
        assert_eq!(order.missing(Some(alone(3))), ProtocolError::Sequence { expected: 0, found: 3 });
    }

    #[test]
    fn what_is_abandoned_is_dropped() {
        let packet = std::rc::Rc::new(());
        let mut order = Order::new();
        order.hold(half(0), packet.clone()).unwrap();
        order.abandon();
        assert_eq!(std::rc::Rc::strong_count(&packet), 1);
    }

    #[test]
    fn what_is_out_of_turn_is_a_violation() {
        type Case<'a> = (&'a [Heading], Option<Heading>);
        let wants_reply = Heading::new(0, true, None).halved();
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
            let mut order = Order::new();
            for packet in packets {
                order.hold(*packet, ()).unwrap();
            }
            assert!(order.turn(record).is_err(), "{packets:?} {record:?}");
        }
        let mut order = Order::new();
        order.turn(Some(alone(0))).unwrap();
        assert!(order.turn(Some(alone(0))).is_err(), "the past");
        assert!(order.hold(alone(0), ()).is_err(), "the past");
        order.hold(alone(5), ()).unwrap();
        assert!(order.hold(alone(5), ()).is_err(), "twice the same");
        order.hold(alone(6), ()).unwrap();
        assert!(order.hold(alone(7), ()).is_err(), "a third");
    }

    /// The two carriers, and what has come out of them: of each message its record or packet, and the packet that it had.
    #[derive(Default)]
    struct Carriers {
        ring: VecDeque<Heading>,
        socket: VecDeque<Heading>,
        out: Vec<(Heading, Option<Heading>)>,
    }

    impl Carriers {
        fn look(&mut self, order: &mut Order<Heading>) -> Result<(), ProtocolError> {
            loop {
                let record = self.ring.front().copied();
                match order.turn(record)? {
                    Turn::Record(packet) => self.out.push((self.ring.pop_front().unwrap(), packet)),
                    Turn::Packet(heading, packet) => self.out.push((heading, Some(packet))),
                    Turn::MustRead if self.socket.is_empty() => return Err(order.missing(record)),
                    Turn::MustRead => self.read(order)?,
                    Turn::Nothing => return Ok(()),
                }
            }
        }

        fn read(&mut self, order: &mut Order<Heading>) -> Result<(), ProtocolError> {
            self.socket.pop_front().map_or(Ok(()), |packet| order.hold(packet, packet))
        }

        /// One of the things that a receiver does; a read is followed by a look.
        fn receive(&mut self, order: &mut Order<Heading>, step: u8) -> Result<(), ProtocolError> {
            match step {
                0 => self.read(order)?,
                1 if self.ring.front().is_some_and(|record| order.is_alone(*record)) => {
                    order.passed();
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
        fn any_schedule_gives_what_was_sent(
            ways in vec(select(&["record", "packet", "both"][..]), 0..20),
            steps in vec(0..4_u8, 0..100),
        ) {
            let (mut order, mut carriers) = (Order::new(), Carriers::default());
            // The halves in the order in which they go out, and the messages.
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
        fn whatever_is_sent_what_comes_out_is_numbered_and_whole(
            halves in vec((0..4_u64, any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8), 0..40),
        ) {
            let (mut order, mut carriers) = (Order::new(), Carriers::default());
            for (by, halved, wants_reply, in_ring, step) in halves {
                // Mostly the next, sometimes one that was, or is not yet.
                let sequence = (order.next() + by).saturating_sub(1);
                let heading = Heading::new(sequence, wants_reply, None);
                let heading = if halved { heading.halved() } else { heading };
                if in_ring { &mut carriers.ring } else { &mut carriers.socket }.push_back(heading);
                if step < 3 && carriers.receive(&mut order, step).is_err() {
                    break;
                }
            }
            for (sequence, (heading, packet)) in (0..).zip(carriers.out) {
                prop_assert_eq!(heading.sequence, sequence);
                prop_assert!(packet.is_none_or(|packet| packet == heading));
                prop_assert!(packet.is_some() || !heading.other_half());
            }
            prop_assert!(order.first.is_some() || order.second.is_none());
        }
    }
}
