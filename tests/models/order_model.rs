//! Every interleaving of a small sender and a small receiver, the sender killed at any step: an honest peer is never called
//! a violator, no wake-up is lost, and what was committed is delivered, whole and once.
//!
//! Memory is sequentially consistent here; what weaker memory adds is in tests/loom.rs. The receiver's judgement is the
//! library's own (src/protocol/order.rs); around it stand the steps of `Receiver::spin_and_sleep`, `Epoch`, `Outgoing::commit` and
//! `Outgoing::post`, each access to something shared a step of its own. A flaw in any of those steps is found: see the last
//! tests.

use std::collections::HashSet;

#[path = "../../src/protocol/order.rs"]
mod order;

/// What src/protocol/order.rs imports.
mod error {
    pub(crate) use sealane::ProtocolError;
}
/// What src/protocol/order.rs imports; of a heading it needs no more.
mod protocol {
    pub(crate) mod record {
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
}

use order::{Order, Turn};
use protocol::record::Heading;

/// Messages that the sender sends.
const MESSAGES: u64 = 3;
/// Packets that the socket holds: so few that it is full now and then.
const SOCKET: usize = 2;
/// Reads in vain of a packet that is announced (`ANNOUNCED_READS`); fewer, which makes no other interleavings.
const ANNOUNCED_READS: u8 = 2;

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
    /// Who spins reads the socket only if a packet is announced that was not announced in vain before.
    TrustsAnnouncements,
}

/// How the receiver waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    SpinsOrSleeps,
    Spins,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sending {
    Choose,
    /// The store of `packets`, before the packet is sent.
    Announce {
        both: bool,
    },
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
    /// There is nothing yet: a look at `packets`.
    Wait,
    /// It announces a packet.
    ReadAnnounced {
        announced: u64,
        left: u8,
    },
    /// Spin, or sleep.
    SpinOrSleep,
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
    /// Packets that are out.
    sent: u64,
    /// It has given up on a packet for which the socket had no room, once.
    gave_up: bool,

    ring: Vec<Heading>,
    socket: Vec<Arrived>,
    epoch: u8,
    /// The word `packets`.
    announced: u64,

    receiving: Receiving,
    /// Records taken, and records seen.
    position: usize,
    head: usize,
    next: u64,
    held: Vec<Heading>,
    shown: u8,
    heard: u8,
    ended: bool,
    /// Packets read.
    read: u64,
    /// What of `packets` turned out to announce nothing.
    vain: u64,
    way: Way,
    /// With [`Flaw::NoSecondLook`]: a packet was just read.
    fresh: bool,
}

impl State {
    /// A new channel is armed.
    fn new(way: Way) -> Self {
        Self {
            sending: Sending::Choose,
            sequence: 0,
            rung: 0,
            committed: 0,
            sent: 0,
            gave_up: false,
            announced: 0,
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
            read: 0,
            vain: 0,
            way,
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
                    Sending::Announce { both: true }
                };
                [Sending::Announce { both: false }, Sending::Publish { both: false }, first]
                    .map(|sending| step(&|s| s.sending = sending))
                    .to_vec()
            }
            Sending::Announce { both } => vec![step(&|s| {
                s.announced = s.sent + 1;
                s.sending = Sending::Packet { both };
            })],
            // It waits for room, or gives up: the announcement stays.
            Sending::Packet { .. } if self.socket.len() == SOCKET => {
                let may = !self.gave_up && flaw != Flaw::RecordFirst;
                let give_up = may.then(|| {
                    step(&|s| {
                        s.gave_up = true;
                        s.sending = Sending::Choose;
                    })
                });
                give_up.into_iter().collect()
            }
            Sending::Packet { both } => vec![step(&|s| {
                s.sent += 1;
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
                    s.sending = Sending::Announce { both };
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
        if self.receiving == Receiving::SpinOrSleep {
            let news = self.ring.len() != self.head || self.is_announced();
            let trusts = flaw == Flaw::TrustsAnnouncements;
            let readable = (!self.socket.is_empty() && !trusts) || self.sending == Sending::Gone;
            let ways = [
                (Receiving::Look, news),
                // A look every 10 µs: it only goes on with what it finds.
                (Receiving::ReadSpinning, readable || self.way == Way::SpinsOrSleeps),
                (Receiving::Arm, self.way == Way::SpinsOrSleeps),
            ];
            let ways = ways.into_iter().filter(|(_, may)| *may);
            return ways.map(|(receiving, _)| Self { receiving, ..self.clone() }).collect();
        }
        self.receiver_step(flaw).into_iter().collect()
    }

    /// Whether there seems to be a packet.
    fn is_announced(&self) -> bool {
        self.announced != self.read && self.announced != self.vain
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
            Receiving::Wait if self.is_announced() => {
                s.receiving = Receiving::ReadAnnounced { announced: self.announced, left: ANNOUNCED_READS };
            }
            Receiving::Wait => s.receiving = Receiving::SpinOrSleep,
            Receiving::ReadAnnounced { announced, left } => {
                if !s.read(flaw) {
                    s.receiving = if left > 1 {
                        Receiving::ReadAnnounced { announced, left: left - 1 }
                    } else {
                        s.vain = announced;
                        Receiving::SpinOrSleep
                    };
                }
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
            Receiving::SpinOrSleep | Receiving::Disconnected => return None,
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
            assert!(order.is_alone(Heading::new(sequence, false, None)));
            order.passed();
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
                self.read += 1;
                self.fresh = true;
            }
        }
        true
    }
}

/// Goes through all states, and says how many there are.
fn explore(flaw: Flaw) -> usize {
    explore_from(State::new(Way::SpinsOrSleeps), flaw)
}

fn explore_from(start: State, flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![start];
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
fn who_spins_gets_all_that_is_sent_also_after_an_announcement_in_vain() {
    let states = explore_from(State::new(Way::Spins), Flaw::None);
    println!("{states} states");
    assert!(states > 10_000, "a model of {states} states has lost its steps");
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn if_who_spins_read_only_what_is_announced_a_packet_would_be_lost() {
    explore_from(State::new(Way::Spins), Flaw::TrustsAnnouncements);
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
