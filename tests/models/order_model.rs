//! Every interleaving of a small sender and a small receiver, with the sender killed at any step: an honest peer is never
//! called a violator, no wake-up is lost, and every committed message is delivered, whole and once.
//!
//! The receiver's waiting (src/wait/engine.rs), its sleep word and the sender's notifier (src/wait/eventcount.rs) and the
//! order of messages (src/protocol/order.rs) are the library's own. The model owns memory, socket and the sender's program,
//! and each access to shared state is a step of its own. Memory is sequentially consistent; `tests/models/loom.rs` has
//! weaker memory. The last tests show that a flaw in any of the operations is found.

use std::collections::HashSet;

use order::{Next, Sequencer};
use protocol::MessageHeader;
use wait::{
    ModelWord, Seen,
    engine::{Came, End, News, SpinResult, Step, WaitState},
    eventcount::{Notifier, Sent, SleepWord},
};

#[path = "../../src/protocol/order.rs"]
mod order;
#[expect(dead_code, reason = "the loop over the steps is the library's and loom's")]
#[path = "wait.rs"]
mod wait;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}
/// The part of a message's header that src/protocol/order.rs needs.
mod protocol {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub(crate) struct MessageHeader {
        pub(crate) sequence: u64,
        half: bool,
        wants_reply: bool,
    }

    impl MessageHeader {
        pub(crate) fn new(sequence: u64, wants_reply: bool, _in_reply_to: Option<u64>) -> Self {
            Self { sequence, half: false, wants_reply }
        }

        pub(crate) fn split(self) -> Self {
            Self { half: true, ..self }
        }

        pub(crate) fn is_split(self) -> bool {
            self.half
        }
    }
}

/// Messages that the sender sends.
const MESSAGES: u64 = 3;
/// Packets that the socket holds: so few that it is sometimes full.
const SOCKET: usize = 2;
/// A mistake of the implementation, each of which the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The ring is not looked at again after a packet was read.
    NoSecondLook,
    /// The receiver does not look at the ring again after arming.
    NoLookAfterArming,
    /// A packet counts as the doorbell of the epoch that is read after it.
    PacketsRing,
    /// The record of a split message comes before its packet.
    RecordFirst,
    /// The receiver does not look at the ring again after the end of file.
    NoLastLook,
    /// Each epoch gets several doorbells.
    RingsAgain,
    /// A spinning receiver reads the socket only if the announced number is not known as stale.
    TrustsAnnouncements,
}

/// How the receiver waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    SpinsOrSleeps,
    Spins,
    /// It tries whenever its descriptor is readable, as an event loop does.
    Tries,
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
    /// A step of [`Flaw::PacketsRing`].
    Mark {
        both: bool,
    },
    Publish {
        both: bool,
    },
    LookAtEpoch,
    Ring(u64),
    /// Everything is sent, and the sender lives on.
    Done,
    Gone,
}

/// The receiver's place within a step of its wait that has several accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Within {
    Nothing,
    /// A message was found: the sleep word is disarmed, and the next wait begins.
    Disarm,
    /// A record says that a packet is there.
    ReadDue,
    /// A doorbell was read, while waiting or in a try.
    Doorbell {
        waiting: bool,
    },
    /// The event loop sleeps.
    Loop,
    Disconnected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Arrived {
    Packet(MessageHeader),
    Doorbell,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    sending: Sending,
    /// The sequence of the message that is being sent.
    sequence: u64,
    notifier: Notifier,
    /// Messages that are sent as a whole.
    committed: u64,
    /// Packets that are sent.
    sent: u64,
    /// The sender has given up on a packet for which the socket had no space, once.
    gave_up: bool,

    ring: Vec<MessageHeader>,
    socket: Vec<Arrived>,
    /// The word `packets`.
    announced: u64,

    wait: WaitState,
    within: Within,
    word: SleepWord<ModelWord>,
    /// Records taken, and records seen.
    position: usize,
    head: usize,
    next: u64,
    held: Vec<MessageHeader>,
    ended: bool,
    /// Packets read.
    read: u64,
    /// The number of packets that the peer announces, and the one that turned out to be stale.
    expected: u64,
    stale: u64,
    way: Way,
    /// A packet was just read; only with [`Flaw::NoSecondLook`].
    fresh: bool,
}

impl Way {
    fn wait(self) -> WaitState {
        if self == Self::Tries {
            WaitState::trying(News::Message)
        } else {
            WaitState::blocking(News::Message)
        }
    }
}

impl State {
    /// A new channel is armed.
    fn new(way: Way) -> Self {
        Self {
            sending: Sending::Choose,
            sequence: 0,
            notifier: Notifier::default(),
            committed: 0,
            sent: 0,
            gave_up: false,
            announced: 0,
            ring: Vec::new(),
            socket: Vec::new(),
            wait: way.wait(),
            within: Within::Nothing,
            word: SleepWord::new(ModelWord { epoch: 1, needs: 0 }),
            position: 0,
            head: 0,
            next: 0,
            held: Vec::new(),
            ended: false,
            read: 0,
            expected: 0,
            stale: 0,
            way,
            fresh: false,
        }
    }

    /// All next steps of the sender, but for its death.
    fn sender_steps(&self, flaw: Flaw) -> Vec<Self> {
        let step = |change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            next
        };
        let heading = |both| {
            let heading = MessageHeader::new(self.sequence, false, None);
            if both { heading.split() } else { heading }
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
            // The sender waits for space, or gives up: the announcement stays.
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
                if s.word.is_armed() {
                    s.notifier.notified = s.word.value;
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
            Sending::LookAtEpoch => vec![step(&|s| s.sending = Sending::Ring(s.word.word.epoch))],
            Sending::Ring(epoch) => vec![step(&|s| {
                if flaw == Flaw::RingsAgain {
                    s.notifier = Notifier::default();
                }
                let seen = Seen::new(epoch, Sent::Yes);
                s.notifier.notify(&seen);
                // A full socket is as good as a doorbell.
                if seen.doorbells.get() > 0 && s.socket.len() < SOCKET {
                    s.socket.push(Arrived::Doorbell);
                }
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

    /// All next steps of the receiver; none if it sleeps, or is done.
    fn receiver_steps(&self, flaw: Flaw) -> Vec<Self> {
        match (self.within, self.wait.step()) {
            (Within::Nothing, Step::Spin) => {}
            // Where nothing else is watched, the read that sleeps is the only one.
            (Within::Nothing, Step::Read) if self.way == Way::SpinsOrSleeps => {
                let mut unread = self.clone();
                unread.fresh = false;
                unread.advance(Came::No);
                return self.receiver_step(flaw).into_iter().chain([unread]).collect();
            }
            _ => return self.receiver_step(flaw).into_iter().collect(),
        }
        let news = self.ring.len() != self.head || self.is_announced(self.announced);
        let readable = !self.socket.is_empty() && flaw != Flaw::TrustsAnnouncements || self.is_end();
        let may_sleep = self.way == Way::SpinsOrSleeps;
        let results = [
            (SpinResult::Ready, news),
            // A read every 10 µs: another one changes nothing.
            (SpinResult::PollSocket, readable || may_sleep),
            (SpinResult::GiveUp, may_sleep),
        ];
        let results = results.into_iter().filter(|(_, may)| *may);
        results
            .map(|(result, _)| {
                let mut s = self.clone();
                s.advance(Came::Spun(result));
                s
            })
            .collect()
    }

    /// True if a packet is announced.
    fn is_announced(&self, announced: u64) -> bool {
        announced != self.read && announced != self.stale
    }

    /// True if the sender is gone, and all that it sent was read.
    fn is_end(&self) -> bool {
        self.socket.is_empty() && self.sending == Sending::Gone
    }

    fn advance(&mut self, came: Came) {
        if self.wait.advance(came) == Some(End::Empty) {
            self.within = Within::Loop;
        }
    }

    fn receiver_step(&self, flaw: Flaw) -> Option<Self> {
        let mut s = self.clone();
        s.fresh = false;
        match self.within {
            Within::Nothing => return s.wait_step(flaw, self.fresh).then_some(s),
            Within::Disarm => {
                s.word.disarm();
                (s.within, s.wait) = (Within::Nothing, s.way.wait());
            }
            Within::ReadDue => {
                s.within = Within::Nothing;
                let there = s.read(false, flaw) && !s.ended;
                assert!(
                    there,
                    "an honest peer is called a violator: a record's packet is not there: {self:?}"
                );
            }
            Within::Doorbell { waiting } => {
                s.within = Within::Nothing;
                s.word.on_doorbell().unwrap_or_else(|violation| {
                    panic!("an honest peer is called a violator: too many bells: {violation}: {self:?}")
                });
                if waiting {
                    s.advance(Came::Yes);
                }
            }
            Within::Loop if self.socket.is_empty() && self.sending != Sending::Gone => return None,
            Within::Loop => (s.within, s.wait) = (Within::Nothing, s.way.wait()),
            Within::Disconnected => return None,
        }
        Some(s)
    }

    /// Takes the step that the library's wait asks for. False if that is to sleep.
    fn wait_step(&mut self, flaw: Flaw, fresh: bool) -> bool {
        let came = match self.wait.step() {
            Step::Try => {
                self.poll(flaw, fresh);
                return true;
            }
            Step::Expect => {
                self.expected = self.announced;
                self.is_announced(self.expected)
            }
            Step::Forget => {
                self.stale = self.expected;
                false
            }
            Step::Arm => self.word.arm(0),
            Step::LookAgain => self.ring.len() != self.head && flaw != Flaw::NoLookAfterArming,
            Step::Sleep if self.socket.is_empty() && self.sending != Sending::Gone => return false,
            Step::Sleep => false,
            Step::ReadExpected(_) | Step::PollSocket | Step::Read | Step::Awake => {
                self.read(true, flaw);
                return true;
            }
            step => panic!("{step:?} is no step of a receiver"),
        };
        self.advance(came.into());
        true
    }

    /// `Inbox::poll`: one load of the head, if that is needed, and the judgement.
    fn poll(&mut self, flaw: Flaw, fresh: bool) {
        if self.position == self.head && !(fresh && flaw == Flaw::NoSecondLook) {
            self.head = self.ring.len();
        }
        let record = (self.position < self.head).then(|| self.ring[self.position]);
        let mut order = self.order();
        let turn = order.next(record).unwrap_or_else(|violation| {
            panic!("an honest peer is called a violator: {violation}: {self:?}");
        });
        self.next = order.next_sequence();
        match turn {
            Next::Nothing if self.ended => self.within = Within::Disconnected,
            Next::Nothing => self.advance(Came::No),
            Next::NeedPacket => self.within = Within::ReadDue,
            Next::Packet(..) => {
                self.held.remove(0);
                self.within = Within::Disarm;
            }
            Next::Record(packet) => {
                if packet.is_some() {
                    self.held.remove(0);
                }
                self.position += 1;
                self.within = Within::Disarm;
            }
        }
    }

    /// The library's sequencer in this state.
    fn order(&self) -> Sequencer<()> {
        let mut order = Sequencer::new();
        for sequence in 0..self.next {
            assert!(order.is_next_inline(MessageHeader::new(sequence, false, None)));
            order.advance();
        }
        for heading in &self.held {
            order.push_packet(*heading, ()).unwrap();
        }
        order
    }

    /// `Inbox::read_packet`, in a step of the wait or in a try. False if there was nothing.
    fn read(&mut self, waiting: bool, flaw: Flaw) -> bool {
        let came = if self.is_end() {
            self.ended = true;
            if flaw == Flaw::NoLastLook {
                self.within = Within::Disconnected;
                return true;
            }
            true
        } else if self.socket.is_empty() {
            self.word.drained();
            false
        } else {
            match self.socket.remove(0) {
                Arrived::Doorbell => {
                    self.within = Within::Doorbell { waiting };
                    return true;
                }
                Arrived::Packet(heading) => {
                    if let Err(violation) = self.order().push_packet(heading, ()) {
                        panic!("an honest peer is called a violator: {violation}: {self:?}");
                    }
                    self.held.push(heading);
                    self.read += 1;
                    self.fresh = true;
                    true
                }
            }
        };
        if waiting {
            self.advance(came.into());
            // No announced packet is left to read: two more reads make the same interleavings as fourteen.
            while matches!(self.wait.step(), Step::ReadExpected(left) if left > 2) && !came {
                self.advance(Came::No);
            }
        }
        came
    }
}

/// Explores all states, and returns their number.
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
            match state.within {
                Within::Disconnected => {
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
fn spinning_receiver_gets_everything_after_a_stale_announcement() {
    let states = explore_from(State::new(Way::Spins), Flaw::None);
    println!("{states} states");
    assert!(states > 10_000, "a model of {states} states has lost its steps");
}

#[test]
fn event_loops_are_signalled_for_everything_sent() {
    let states = explore_from(State::new(Way::Tries), Flaw::None);
    println!("{states} states");
    assert!(states > 10_000, "a model of {states} states has lost its steps");
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn event_loop_needs_the_look_after_arming() {
    explore_from(State::new(Way::Tries), Flaw::NoLookAfterArming);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn spinning_receiver_reads_without_announcements_too() {
    explore_from(State::new(Way::Spins), Flaw::TrustsAnnouncements);
}

#[test]
#[should_panic(expected = "an honest peer is called a violator: message")]
fn packets_are_judged_after_a_second_look() {
    explore(Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn receiver_needs_the_look_after_arming() {
    explore(Flaw::NoLookAfterArming);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn packets_are_no_doorbells() {
    explore(Flaw::PacketsRing);
}

#[test]
#[should_panic(expected = "a record's packet is not there")]
fn packets_are_sent_before_their_records() {
    explore(Flaw::RecordFirst);
}

#[test]
#[should_panic(expected = "committed and not delivered")]
fn end_of_file_needs_a_last_look() {
    explore(Flaw::NoLastLook);
}

#[test]
#[should_panic(expected = "too many bells")]
fn second_doorbell_for_an_epoch_is_a_violation() {
    explore(Flaw::RingsAgain);
}
