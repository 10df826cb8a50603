//! Every interleaving of a small sender and a small receiver, the sender killed at any step: an honest peer is never called
//! a violator, no wake-up is lost, and what was committed is delivered, whole and once.
//!
//! Memory is sequentially consistent here; what weaker memory adds is in tests/loom.rs. The receiver's judgement is the
//! library's own (src/order.rs); around it stand the steps of `Receiver::spin_and_sleep`, `Epoch` and `Outgoing::commit`,
//! each access to something shared a step of its own. A flaw in any of those steps is found: see the last tests.

use std::collections::HashSet;

#[path = "../src/order.rs"]
mod order;

/// What src/order.rs imports.
mod error {
    pub(crate) use sealane::ProtocolError;
}
/// What src/order.rs imports; of a heading it needs no more.
mod wire {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub(crate) struct Heading {
        pub(crate) sequence: u64,
        half: bool,
        wants_reply: bool,
    }

    impl Heading {
        pub(crate) fn new(sequence: u64, wants_reply: bool, _in_reply_to: Option<u64>) -> Self {
            Self { sequence, half: false, wants_reply }
        }

        pub(crate) fn halved(self) -> Self {
            Self { half: true, ..self }
        }

        pub(crate) fn other_half(self) -> bool {
            self.half
        }
    }
}

use order::{Order, Turn};
use wire::Heading;

/// Messages that the sender sends.
const MESSAGES: u64 = 3;
/// Packets that the socket holds: so few that it is full now and then.
const SOCKET: usize = 2;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A packet is judged by the look at the ring before it was read.
    NoSecondLook,
    /// Having armed, the receiver does not look at the ring again.
    NoLookAfterArming,
    /// A packet counts as the bell of the epoch that is read after it.
    PacketsRing,
    /// Of a message with both halves the record comes first.
    RecordFirst,
    /// At the end of file there is no last look at the ring.
    NoLastLook,
    /// A bell is rung for each epoch again and again, so there are more bells than epochs.
    RingsAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sending {
    Choose,
    Packet {
        both: bool,
    },
    /// With [`Flaw::PacketsRing`].
    Mark {
        both: bool,
    },
    Publish {
        both: bool,
    },
    LookAtEpoch,
    Ring(u8),
    /// Everything is sent, and it goes on living.
    Done,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Receiving {
    Look,
    /// The store that takes the epoch back, then a look.
    Disarm,
    /// A record says that a packet is there.
    ReadDue,
    /// There is nothing yet: spin, or sleep.
    Wait,
    /// Spinning reads the socket without having armed.
    ReadSpinning,
    Arm,
    LookAgain,
    Read,
    Sleep,
    ReadAwake,
    Disconnected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Arrived {
    Packet(Heading),
    Bell,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    sending: Sending,
    /// Of the message that is being sent.
    sequence: u64,
    rung: u8,
    /// Messages that are wholly out.
    committed: u64,

    ring: Vec<Heading>,
    socket: Vec<Arrived>,
    epoch: u8,

    receiving: Receiving,
    /// Records taken, and records seen.
    position: usize,
    head: usize,
    next: u64,
    held: Vec<Heading>,
    shown: u8,
    heard: u8,
    ended: bool,
    /// With [`Flaw::NoSecondLook`]: a packet was just read.
    fresh: bool,
}

impl State {
    /// A new channel is armed.
    fn new() -> Self {
        Self {
            sending: Sending::Choose,
            sequence: 0,
            rung: 0,
            committed: 0,
            ring: Vec::new(),
            socket: Vec::new(),
            epoch: 1,
            receiving: Receiving::Look,
            position: 0,
            head: 0,
            next: 0,
            held: Vec::new(),
            shown: 1,
            heard: 0,
            ended: false,
            fresh: false,
        }
    }

    /// All that the sender may do next, but for dying.
    fn sender_steps(&self, flaw: Flaw) -> Vec<Self> {
        let step = |change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            next
        };
        let heading = |both| {
            let heading = Heading::new(self.sequence, false, None);
            if both { heading.halved() } else { heading }
        };
        match self.sending {
            Sending::Choose if self.sequence == MESSAGES => vec![step(&|s| s.sending = Sending::Done)],
            Sending::Choose => {
                let first = if flaw == Flaw::RecordFirst {
                    Sending::Publish { both: true }
                } else {
                    Sending::Packet { both: true }
                };
                [Sending::Packet { both: false }, Sending::Publish { both: false }, first]
                    .map(|sending| step(&|s| s.sending = sending))
                    .to_vec()
            }
            // It waits for room.
            Sending::Packet { .. } if self.socket.len() == SOCKET => vec![],
            Sending::Packet { both } => vec![step(&|s| {
                s.socket.push(Arrived::Packet(heading(both)));
                s.after_packet(both, flaw);
            })],
            Sending::Mark { both } => vec![step(&|s| {
                if s.epoch & 1 == 1 {
                    s.rung = s.epoch;
                }
                s.sending = if both { Sending::Publish { both } } else { Sending::Choose };
            })],
            Sending::Publish { both } => vec![step(&|s| {
                s.ring.push(heading(both));
                if both && flaw == Flaw::RecordFirst {
                    s.sending = Sending::Packet { both };
                } else {
                    s.commit();
                    s.sending = Sending::LookAtEpoch;
                }
            })],
            Sending::LookAtEpoch => vec![step(&|s| {
                let rings = s.epoch & 1 == 1 && (s.epoch != s.rung || flaw == Flaw::RingsAgain);
                s.sending = if rings { Sending::Ring(s.epoch) } else { Sending::Choose };
            })],
            Sending::Ring(epoch) => vec![step(&|s| {
                // A full socket is as good as a bell.
                if s.socket.len() < SOCKET {
                    s.socket.push(Arrived::Bell);
                }
                s.rung = epoch;
                s.sending = Sending::Choose;
            })],
            Sending::Done | Sending::Gone => vec![],
        }
    }

    fn after_packet(&mut self, both: bool, flaw: Flaw) {
        let whole = !both || flaw == Flaw::RecordFirst;
        if whole {
            self.commit();
        }
        self.sending = match flaw {
            Flaw::PacketsRing => Sending::Mark { both },
            Flaw::RecordFirst if both => Sending::LookAtEpoch,
            _ if both => Sending::Publish { both },
            _ => Sending::Choose,
        };
    }

    fn commit(&mut self) {
        self.committed += 1;
        self.sequence += 1;
    }

    /// All that the receiver may do next; nothing if it sleeps, or is done.
    fn receiver_steps(&self, flaw: Flaw) -> Vec<Self> {
        if self.receiving == Receiving::Wait {
            let ways = [Receiving::ReadSpinning, Receiving::Arm];
            return ways.map(|receiving| Self { receiving, ..self.clone() }).to_vec();
        }
        self.receiver_step(flaw).into_iter().collect()
    }

    fn receiver_step(&self, flaw: Flaw) -> Option<Self> {
        let mut s = self.clone();
        s.fresh = false;
        match self.receiving {
            Receiving::Look => s.look(flaw, self.fresh),
            Receiving::Disarm => {
                if s.epoch & 1 == 1 {
                    s.epoch += 1;
                }
                s.receiving = Receiving::Look;
            }
            Receiving::ReadDue => {
                let there = s.read(flaw) && !s.ended;
                assert!(
                    there,
                    "an honest peer is called a violator: a record's packet is not there: {self:?}"
                );
            }
            Receiving::Arm => {
                if s.epoch & 1 == 0 {
                    s.epoch += 1;
                    s.shown += 1;
                }
                s.receiving = Receiving::LookAgain;
            }
            Receiving::LookAgain => {
                let moved = s.ring.len() != s.head && flaw != Flaw::NoLookAfterArming;
                s.receiving = if moved { Receiving::Look } else { Receiving::Read };
            }
            Receiving::Read => {
                if !s.read(flaw) {
                    s.receiving = Receiving::Sleep;
                }
            }
            Receiving::Sleep if self.socket.is_empty() && self.sending != Sending::Gone => return None,
            Receiving::Sleep => s.receiving = Receiving::ReadAwake,
            Receiving::ReadAwake | Receiving::ReadSpinning => {
                s.read(flaw);
            }
            Receiving::Wait | Receiving::Disconnected => return None,
        }
        Some(s)
    }

    /// `Receiver::look`: one load of the head, if that is needed, and the judgement.
    fn look(&mut self, flaw: Flaw, fresh: bool) {
        if self.position == self.head && !(fresh && flaw == Flaw::NoSecondLook) {
            self.head = self.ring.len();
        }
        let record = (self.position < self.head).then(|| self.ring[self.position]);
        let mut order = self.order();
        let turn = order.turn(record).unwrap_or_else(|violation| {
            panic!("an honest peer is called a violator: {violation}: {self:?}");
        });
        self.next = order.next();
        match turn {
            Turn::Nothing if self.ended => self.receiving = Receiving::Disconnected,
            Turn::Nothing => self.receiving = Receiving::Wait,
            Turn::MustRead => self.receiving = Receiving::ReadDue,
            Turn::Packet(..) => {
                self.held.remove(0);
                self.receiving = Receiving::Disarm;
            }
            Turn::Record(packet) => {
                if packet.is_some() {
                    self.held.remove(0);
                }
                self.position += 1;
                self.receiving = Receiving::Disarm;
            }
        }
    }

    /// The library's, brought to where we are.
    fn order(&self) -> Order<()> {
        let mut order = Order::new();
        for sequence in 0..self.next {
            assert!(order.record_alone(Heading::new(sequence, false, None)));
        }
        for heading in &self.held {
            order.hold(*heading, ()).unwrap();
        }
        order
    }

    /// `Receiver::read_packet`: false if there was nothing.
    fn read(&mut self, flaw: Flaw) -> bool {
        self.receiving = Receiving::Look;
        if self.socket.is_empty() {
            if self.sending == Sending::Gone {
                self.ended = true;
                if flaw == Flaw::NoLastLook {
                    self.receiving = Receiving::Disconnected;
                }
                return true;
            }
            self.heard = self.heard.max(self.shown.saturating_sub(2));
            return false;
        }
        match self.socket.remove(0) {
            Arrived::Bell => {
                self.heard += 1;
                assert!(
                    self.heard <= self.shown,
                    "an honest peer is called a violator: too many bells: {self:?}"
                );
                self.receiving = Receiving::Disarm;
            }
            Arrived::Packet(heading) => {
                if let Err(violation) = self.order().hold(heading, ()) {
                    panic!("an honest peer is called a violator: {violation}: {self:?}");
                }
                self.held.push(heading);
                self.fresh = true;
            }
        }
        true
    }
}

/// Goes through all states, and says how many there are.
fn explore(flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![State::new()];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let mut steps = state.sender_steps(flaw);
        let receiver = state.receiver_steps(flaw);
        if steps.is_empty() && receiver.is_empty() {
            match state.receiving {
                Receiving::Disconnected => {
                    assert_eq!(state.next, state.committed, "committed and not delivered: {state:?}");
                }
                _ => assert_eq!(state.next, MESSAGES, "a wake-up is lost: {state:?}"),
            }
        }
        steps.extend(receiver);
        if state.sending != Sending::Gone {
            steps.push(State { sending: Sending::Gone, ..state });
        }
        open.extend(steps);
    }
    seen.len()
}

#[test]
fn honest_peers_understand_each_other_in_every_interleaving() {
    let states = explore(Flaw::None);
    println!("{states} states");
    assert!(states > 10_000, "a model of {states} states has lost its steps");
}

#[test]
#[should_panic(expected = "an honest peer is called a violator: message")]
fn without_a_second_look_an_honest_peer_is_a_violator() {
    explore(Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn without_a_look_after_arming_a_wake_up_is_lost() {
    explore(Flaw::NoLookAfterArming);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn if_packets_counted_as_bells_a_wake_up_would_be_lost() {
    explore(Flaw::PacketsRing);
}

#[test]
#[should_panic(expected = "a record's packet is not there")]
fn if_records_went_first_their_packets_would_be_missed() {
    explore(Flaw::RecordFirst);
}

#[test]
#[should_panic(expected = "committed and not delivered")]
fn without_a_last_look_a_dying_senders_records_are_lost() {
    explore(Flaw::NoLastLook);
}

#[test]
#[should_panic(expected = "too many bells")]
fn if_an_epoch_were_rung_for_twice_it_would_be_a_violation() {
    explore(Flaw::RingsAgain);
}
