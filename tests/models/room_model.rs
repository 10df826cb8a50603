//! Every interleaving of a sender that needs space and a receiver that gives it back, with the receiver killed at any step:
//! an honest receiver is never called a violator, no announcement is lost, and nobody is woken without end.
//!
//! This model does for space what `tests/models/order_model.rs` does for messages. The sender's waiting
//! (src/wait/engine.rs), its sleep word and the receiver's notifier (src/wait/eventcount.rs) and what the descriptor
//! has to signal (src/channel/interest.rs) are the library's own. The model owns memory, sockets, the sender's
//! program and `Releases`, and makes each access to something shared a step of its own. Memory is sequentially
//! consistent; `tests/models/loom_room.rs` has what weaker memory adds. That the sender dies is not among the steps:
//! it leaves a receiver whose doorbells fail.

use std::collections::HashSet;

use interest::Interest;
use wait::{
    ModelWord, Seen,
    engine::{Came, End, News, SpinResult, Step, WaitState},
    eventcount::{Notified, Notifier, Sent, SleepWord},
};

#[path = "../../src/channel/interest.rs"]
mod interest;
#[expect(dead_code, reason = "the loop over the steps is the library's and loom's")]
#[path = "wait.rs"]
mod wait;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}

type Space = interest::Space<u64>;

/// Bytes of the ring, which is full at the beginning; a record takes some.
const RING: u8 = 2;
/// The messages to be sent: records of these sizes in bytes, and packets.
const RECORDS: [u8; 2] = [2, 1];
const PACKETS: u8 = 2;
/// Packets that the socket holds. It is full at the beginning.
const SOCKET: u8 = 1;
/// Doorbells that the space socket holds: so few that it would be full if they were left there.
const SPACE_SOCKET: u8 = 4;
/// Attempts of the program without a doorbell.
const RESTLESS: u8 = 1;

/// A mistake of the implementation, each of which the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A second no keeps the epoch of the first.
    NoRenewal,
    /// Having armed, it does not try again.
    NoSecondLook,
    /// All bells are read, not only those of earlier epochs.
    ReadsAll,
    /// A call that asks for one kind of space does not look at the other.
    NoOtherLook,
    /// Room in the socket is not announced.
    PacketsSilent,
    /// All bells of earlier epochs are left if they announce the other kind of room.
    PilesBells,
    /// The program waits although a later call may have taken what was announced to an earlier one.
    Hasty,
    /// A bell is rung for each epoch again and again.
    RingsAgain,
    /// The needs are compared before the last move of `tail`.
    ComparesEarly,
    /// An epoch counts as rung for although its needs are not reached.
    MarksUnrung,
}

/// How the sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waiting {
    /// An event loop waits for the space socket.
    Level,
    Edge,
    /// The call itself waits.
    Blocking,
}

/// The kind of space that the receiver has released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Freed {
    Record,
    Packet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Receiving {
    /// Releases a byte, or reads a packet.
    Choose,
    /// `Releases::is_needed`, or a look at the epoch alone after a packet was read; if it seems so, the notifier looks again,
    /// under a lock.
    LookAtEpoch(Freed),
    LookAtNeeds,
    LookAgain(Freed),
    LookAtNeedsAgain(u64),
    Ring(u64, bool),
    /// It lives on, and keeps what it has.
    Content,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sending {
    /// The program decides what to try.
    Choose,
    Try(Space),
    /// It was refused this: the library's wait says what comes next.
    Wait(Space, WaitState),
    /// `SpaceWaiter::disarm`
    StandDown(Space),
    Disarm,
    ReadRest,
    /// The event loop sleeps.
    Sleep,
    Done,
    Disconnected,
}

/// A thing for each kind of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Both<T> {
    ring: T,
    socket: T,
}

impl<T> Both<T> {
    fn of(&mut self, space: Space) -> &mut T {
        match space {
            Space::Ring(_) => &mut self.ring,
            Space::Socket => &mut self.socket,
        }
    }

    fn other(&mut self, space: Space) -> &mut T {
        match space {
            Space::Ring(_) => &mut self.socket,
            Space::Socket => &mut self.ring,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    receiving: Receiving,
    notifier: Notifier,

    head: u8,
    tail: u8,
    /// The tail that is compared with the sender's needs, with [`Flaw::ComparesEarly`].
    compared: u8,
    unread: u8,
    bells: u8,

    waiting: Waiting,
    sending: Sending,
    word: SleepWord<ModelWord>,
    interest: Interest<u64>,
    /// Messages sent, of each kind.
    sent: Both<u8>,
    /// The kinds that the program will try before it waits.
    untried: Both<bool>,
    restless: u8,
    /// A doorbell came since the loop last reported one.
    edge: bool,
    /// Times it was woken while the receiver did nothing.
    vain: u8,
}

impl State {
    fn new(waiting: Waiting) -> Self {
        Self {
            receiving: Receiving::Choose,
            notifier: Notifier::default(),
            head: RING,
            tail: 0,
            compared: 0,
            unread: SOCKET,
            bells: 0,
            waiting,
            sending: Sending::Choose,
            word: SleepWord::new(ModelWord::default()),
            interest: Interest::NONE,
            sent: Both::default(),
            untried: Both { ring: true, socket: waiting != Waiting::Blocking },
            restless: 0,
            edge: false,
            vain: 0,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Leaves out the oldest epochs: only which of them is which does matter.
    fn forget(&mut self) {
        let ringing = match self.receiving {
            Receiving::Ring(epoch, _) | Receiving::LookAtNeedsAgain(epoch) => epoch,
            _ => u64::MAX,
        };
        let oldest = self.word.received.saturating_sub(1).min(self.notifier.notified / 2).min(ringing / 2);
        self.word.epochs -= oldest;
        self.word.received -= oldest;
        self.word.value -= 2 * oldest;
        self.word.word.epoch = self.word.value;
        self.notifier.notified -= 2 * oldest;
        if let Receiving::Ring(epoch, _) | Receiving::LookAtNeedsAgain(epoch) = &mut self.receiving {
            *epoch -= 2 * oldest;
        }
    }

    /// All next steps of the receiver, but for its death.
    fn receiver_steps(&self, flaw: Flaw) -> Vec<Self> {
        let mut steps = Vec::new();
        match self.receiving {
            Receiving::Choose => {
                steps.push(self.with(|s| s.receiving = Receiving::Content));
                if self.tail < self.head {
                    steps.push(self.with(|s| {
                        // Only the first part of what is released is compared, if it is two.
                        s.tail += 1;
                        if flaw == Flaw::ComparesEarly {
                            s.compared = s.tail;
                            s.tail = s.head.min(s.tail + 1);
                        }
                        s.receiving = Receiving::LookAtEpoch(Freed::Record);
                    }));
                }
                if self.unread > 0 {
                    steps.push(self.with(|s| {
                        s.unread -= 1;
                        if flaw != Flaw::PacketsSilent {
                            s.receiving = Receiving::LookAtEpoch(Freed::Packet);
                        }
                    }));
                }
            }
            Receiving::LookAtEpoch(freed) => steps.push(self.with(|s| {
                s.receiving = match freed {
                    _ if s.word.value & 1 == 0 => Receiving::Choose,
                    Freed::Record => Receiving::LookAtNeeds,
                    Freed::Packet => Receiving::LookAgain(freed),
                };
            })),
            Receiving::LookAtNeeds => steps.push(self.with(|s| {
                let needed = s.is_reached(flaw);
                s.receiving = if needed { Receiving::LookAgain(Freed::Record) } else { Receiving::Choose };
                if !needed && flaw == Flaw::MarksUnrung {
                    s.notifier.notified = s.word.value;
                }
            })),
            Receiving::LookAgain(freed) => steps.push(self.with(|s| {
                s.receiving = match freed {
                    Freed::Record => Receiving::LookAtNeedsAgain(s.word.value),
                    Freed::Packet => Receiving::Ring(s.word.value, true),
                };
            })),
            Receiving::LookAtNeedsAgain(epoch) => {
                steps.push(self.with(|s| s.receiving = Receiving::Ring(epoch, s.is_reached(flaw))));
            }
            Receiving::Ring(epoch, reached) => steps.push(self.with(|s| s.notify(epoch, reached, flaw))),
            Receiving::Content | Receiving::Gone => {}
        }
        for step in &mut steps {
            step.vain = 0;
        }
        steps
    }

    /// The library's notifier rings for the epoch that was seen.
    fn notify(&mut self, epoch: u64, is_reached: bool, flaw: Flaw) {
        if flaw == Flaw::RingsAgain {
            self.notifier = Notifier::default();
        }
        let seen = Seen { is_reached, ..Seen::new(epoch, Sent::Yes) };
        self.notifier.notify(&seen);
        if seen.doorbells.get() > 0 {
            assert!(self.bells < SPACE_SOCKET, "a bell finds the socket full: {self:?}");
            (self.edge, self.bells) = (true, self.bells + 1);
        }
        self.receiving = Receiving::Choose;
    }

    /// Whether the sender needs no more than what is released.
    fn is_reached(&self, flaw: Flaw) -> bool {
        let tail = if flaw == Flaw::ComparesEarly { self.compared } else { self.tail };
        self.word.word.needs <= tail.into()
    }

    /// `SpaceWait::needs`: the tail from which on the least record fits that is waited for.
    fn needs(&self, space: Space) -> u64 {
        let size = self.interest.with(space);
        size.map_or(0, |size| (u64::from(self.head) + size).saturating_sub(RING.into()))
    }

    /// `SpaceWaiter::read`: whether there was a doorbell. Too few are under way here for `SleepWord::passed` to do anything: it
    /// has a test of its own in src/wait/eventcount.rs.
    fn read(&mut self, is_stale: bool) -> bool {
        if self.bells == 0 {
            if self.receiving == Receiving::Gone {
                self.sending = Sending::Disconnected;
            } else {
                self.word.drained();
            }
            return false;
        }
        self.bells -= 1;
        let read = if is_stale { self.word.on_stale_doorbell() } else { self.word.on_doorbell() };
        read.unwrap_or_else(|violation| panic!("an honest peer is called a violator: {violation}"));
        true
    }

    /// The next message of each kind.
    fn spaces(&self) -> [Space; 2] {
        let size = RECORDS.get(usize::from(self.sent.ring)).copied().unwrap_or(0);
        [Space::Ring(size.into()), Space::Socket]
    }

    /// Whether the program still has something to send.
    fn left(&self, space: Space) -> bool {
        match space {
            Space::Ring(_) => usize::from(self.sent.ring) < RECORDS.len(),
            Space::Socket => self.waiting != Waiting::Blocking && self.sent.socket < PACKETS,
        }
    }

    fn has_space(&self, space: Space) -> bool {
        match space {
            Space::Ring(size) => u64::from(self.head - self.tail) + size <= RING.into(),
            Space::Socket => self.unread < SOCKET,
        }
    }

    /// One look, and if there is space, the message goes out.
    fn attempt(&mut self, space: Space, flaw: Flaw) -> bool {
        let done = self.has_space(space);
        if done {
            match space {
                Space::Ring(size) => self.head += u8::try_from(size).unwrap(),
                Space::Socket => self.unread += 1,
            }
            *self.sent.of(space) += 1;
            let [ring, socket] = self.spaces().map(|space| self.left(space));
            let (own, other) = if space == Space::Socket { (socket, ring) } else { (ring, socket) };
            *self.untried.of(space) = own;
            *self.untried.other(space) |= other && flaw != Flaw::Hasty;
            self.sending = Sending::StandDown(space);
        }
        done
    }

    /// All next steps of the sender; none if it sleeps, or is done.
    fn sender_steps(&self, flaw: Flaw) -> Vec<Self> {
        if let Sending::Wait(space, wait) = self.sending
            && wait.step() == Step::Spin
        {
            let results = [SpinResult::PollSocket, SpinResult::GiveUp];
            return results.map(|result| self.with(|s| s.advance(space, wait, Came::Spun(result)))).to_vec();
        }
        if self.sending != Sending::Choose {
            return self.sender_step(flaw).into_iter().collect();
        }
        if !self.spaces().iter().any(|space| self.left(*space)) {
            return vec![self.with(|s| s.sending = Sending::Done)];
        }
        if self.waiting == Waiting::Blocking {
            let [ring, _] = self.spaces();
            return vec![self.with(|s| s.sending = Sending::Wait(ring, WaitState::blocking(News::Space)))];
        }
        let mut steps = Vec::new();
        for space in self.spaces() {
            let (mut s, mut untried) = (self.clone(), self.untried);
            if *untried.of(space) {
                *s.untried.of(space) = false;
            } else if self.left(space) && self.restless < RESTLESS {
                s.restless += 1;
                // A later call may take a doorbell that was meant for an earlier one.
                let [ring, socket] = self.spaces().map(|space| self.left(space));
                let other = if space == Space::Socket { ring } else { socket };
                *s.untried.other(space) = other && flaw != Flaw::Hasty;
            } else {
                continue;
            }
            s.sending = Sending::Try(space);
            steps.push(s);
        }
        if !self.untried.ring && !self.untried.socket {
            steps.push(self.with(|s| s.sending = Sending::Sleep));
        }
        steps
    }

    fn sender_step(&self, flaw: Flaw) -> Option<Self> {
        let mut s = self.clone();
        match self.sending {
            Sending::Try(space) => {
                if !s.attempt(space, flaw) {
                    s.interest.add(space);
                    s.sending = Sending::Wait(space, WaitState::trying(News::Space));
                }
            }
            Sending::Wait(space, wait) => return s.wait_step(space, wait, flaw).then_some(s),
            Sending::StandDown(space) => {
                s.sending = Sending::Choose;
                if s.word.is_armed() && s.interest.remove(space) {
                    s.sending = Sending::Disarm;
                }
            }
            Sending::Disarm => {
                s.word.disarm();
                s.sending = Sending::ReadRest;
            }
            Sending::ReadRest => {
                s.sending = Sending::Choose;
                if s.read(false) {
                    s.sending = Sending::ReadRest;
                }
            }
            Sending::Sleep => {
                let readable = s.bells > 0 || s.receiving == Receiving::Gone;
                let told = readable && (s.waiting == Waiting::Level || s.edge);
                if !told {
                    return None;
                }
                s.edge = false;
                s.vain += 1;
                assert!(s.vain < 3, "woken again and again for nothing: {self:?}");
                let [ring, socket] = s.spaces().map(|space| s.left(space));
                s.untried = Both { ring, socket };
                s.sending = Sending::Choose;
            }
            Sending::Choose | Sending::Done | Sending::Disconnected => return None,
        }
        Some(s)
    }

    /// Tells the library's wait what its step came to.
    fn advance(&mut self, space: Space, mut wait: WaitState, came: Came) {
        if self.sending != Sending::Disconnected {
            self.sending = match wait.advance(came) {
                None => Sending::Wait(space, wait),
                Some(End::Empty) => Sending::Choose,
                Some(end) => panic!("{end:?} comes of no step of this model"),
            };
        }
    }

    /// The step that the library's wait asks for. False if that is to sleep.
    fn wait_step(&mut self, space: Space, wait: WaitState, flaw: Flaw) -> bool {
        let came = match wait.step() {
            Step::TryAgain(_) if flaw == Flaw::NoSecondLook => Came::No,
            Step::Try | Step::TryAgain(_) => {
                if self.attempt(space, flaw) {
                    return true;
                }
                Came::No
            }
            Step::PollSocket | Step::Read | Step::Awake => self.read(false).into(),
            Step::Arm => self.word.arm(self.needs(space)).into(),
            Step::LookAgain => (self.has_space(space) && flaw != Flaw::NoSecondLook).into(),
            Step::Sleep if self.bells == 0 && self.receiving != Receiving::Gone => return false,
            Step::Sleep => Came::No,
            Step::Count if self.receiving == Receiving::Gone => {
                self.sending = Sending::Disconnected;
                Came::No
            }
            Step::Count => {
                if self.bells == 0 {
                    self.word.drained();
                }
                Came::Counted(self.bells.into())
            }
            Step::Trim(_) if flaw == Flaw::PilesBells => Came::No,
            Step::Trim(_) => self.read(true).into(),
            Step::Rearm(_) if flaw == Flaw::NoRenewal => self.word.arm(self.word.needs).into(),
            Step::Rearm(_) => {
                self.word.rearm(self.needs(space));
                Came::No
            }
            Step::LookAtOther(_) => {
                let other = self.interest.other(space).filter(|other| self.has_space(*other));
                match other.filter(|_| flaw != Flaw::NoOtherLook) {
                    Some(other) => {
                        self.interest.remove(other);
                        Came::Yes
                    }
                    None => Came::No,
                }
            }
            Step::Drain(_) => {
                let mut came = self.read(true);
                while flaw == Flaw::ReadsAll && came {
                    came = self.read(true);
                }
                came.into()
            }
            step => panic!("{step:?} is no step of a sender"),
        };
        self.advance(space, wait, came);
        true
    }
}

/// Goes through all states, and says how many there are.
fn explore(waiting: Waiting, flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![State::new(waiting)];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let mut steps = state.receiver_steps(flaw);
        steps.extend(state.sender_steps(flaw));
        if steps.is_empty() && !matches!(state.sending, Sending::Done | Sending::Disconnected) {
            let space = state.spaces().map(|space| state.left(space) && state.has_space(space));
            assert_eq!(space, [false; 2], "an announcement is lost: {state:?}");
        }
        for step in &mut steps {
            step.forget();
        }
        if state.receiving != Receiving::Gone {
            steps.push(state.with(|s| {
                s.receiving = Receiving::Gone;
                (s.edge, s.vain) = (true, 0);
            }));
        }
        open.extend(steps);
    }
    seen.len()
}

#[test]
fn an_event_loop_is_told_of_room_in_every_interleaving() {
    let states = explore(Waiting::Level, Flaw::None);
    println!("{states} states");
    assert!(states > 100_000, "a model of {states} states has lost its steps");
}

#[test]
fn one_that_is_told_of_each_arrival_once_is_told_of_room() {
    let states = explore(Waiting::Edge, Flaw::None);
    println!("{states} states");
    assert!(states > 100_000, "a model of {states} states has lost its steps");
}

#[test]
fn a_call_that_waits_is_woken_in_every_interleaving() {
    let states = explore(Waiting::Blocking, Flaw::None);
    println!("{states} states");
    assert!(states > 1000, "a model of {states} states has lost its steps");
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn a_second_no_needs_an_epoch_of_its_own() {
    explore(Waiting::Level, Flaw::NoRenewal);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn without_a_second_look_an_announcement_is_lost() {
    explore(Waiting::Level, Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn the_bell_of_the_new_epoch_is_left() {
    explore(Waiting::Level, Flaw::ReadsAll);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn one_kind_of_room_would_hide_the_other() {
    explore(Waiting::Level, Flaw::NoOtherLook);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn a_packet_that_was_read_is_announced_as_room() {
    explore(Waiting::Level, Flaw::PacketsSilent);
}

#[test]
#[should_panic(expected = "a bell finds the socket full")]
fn bells_that_are_left_do_not_pile_up() {
    explore(Waiting::Level, Flaw::PilesBells);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn needs_are_compared_after_the_last_move() {
    explore(Waiting::Blocking, Flaw::ComparesEarly);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn epochs_that_were_not_rung_for_stay_open() {
    explore(Waiting::Blocking, Flaw::MarksUnrung);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn who_waits_has_tried_all_that_was_refused() {
    explore(Waiting::Level, Flaw::Hasty);
}

#[test]
#[should_panic(expected = "an honest peer is called a violator")]
fn if_an_epoch_were_rung_for_twice_it_would_be_a_violation() {
    explore(Waiting::Level, Flaw::RingsAgain);
}

#[test]
fn a_bell_that_there_is_no_memory_for_is_rung_with_the_next_news() {
    let mut notifier = Notifier::default();
    let mut notify = |epoch, sent| {
        let seen = Seen::new(epoch, sent);
        (notifier.notify(&seen), seen.doorbells.get())
    };
    assert_eq!(notify(1, Sent::NotNow), (Notified::NoNeed, 1));
    assert_eq!(notify(1, Sent::Yes), (Notified::Sent, 1));
    assert_eq!(notify(1, Sent::Yes), (Notified::NoNeed, 0), "once for an epoch");
    assert_eq!(notify(3, Sent::Gone), (Notified::Gone, 1));
}
