//! Every interleaving of a sender that needs space and a receiver that gives it back, with the receiver killed at any step:
//! an honest receiver is never called a violator, no signal is lost, and the sender is not woken without end.
//!
//! This model does for space what `tests/models/order_model.rs` does for messages. The sender's waiting
//! (src/wait/engine.rs), its sleep word and the receiver's notifier (src/wait/eventcount.rs) and what the descriptor
//! has to signal (src/channel/interest.rs) are the library's own. The model owns memory, sockets, the sender's
//! program and `Releases`, of which each access to shared state is a step of its own. Memory is sequentially
//! consistent; `tests/models/loom_room.rs` runs `Releases` itself, on weaker memory. The sender does not die here: that
//! leaves a receiver whose doorbells fail.

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
/// Doorbells that the space socket holds: so few that stale ones would fill it.
const SPACE_SOCKET: u8 = 4;
/// Attempts of the program without a doorbell.
const RESTLESS: u8 = 1;

/// A mistake of the implementation, each of which the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A second refusal keeps the epoch of the first.
    NoRenewal,
    /// The sender does not try again after arming.
    NoSecondLook,
    /// All doorbells are read, not only those of earlier epochs.
    ReadsAll,
    /// A call that asks for one kind of space does not look at the other.
    NoOtherLook,
    /// Space in the socket is not signalled.
    PacketsSilent,
    /// All doorbells of earlier epochs are left if they signal the other kind of space.
    PilesBells,
    /// The program waits although a later call may have consumed the signal for an earlier one.
    Hasty,
    /// Each epoch gets several doorbells.
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
    /// The receiver lives on, and releases nothing more.
    Content,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sending {
    /// The program decides what to try.
    Choose,
    Try(Space),
    /// The program was refused this space: the library's wait has the next step.
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

/// A value for each kind of space.
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
    /// Wake-ups while the receiver did nothing.
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

    /// Renumbers the epochs from the oldest that matters, so that equal states are equal.
    fn forget(&mut self) {
        let ringing = match self.receiving {
            Receiving::Ring(epoch, _) | Receiving::LookAtNeedsAgain(epoch) => epoch,
            _ => u64::MAX,
        };
        let oldest =
            self.word.bells.received.saturating_sub(1).min(self.notifier.notified / 2).min(ringing / 2);
        self.word.epochs -= oldest;
        self.word.bells.received -= oldest;
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
                        // With the flaw the first byte alone is compared, if two are released.
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

    /// True if the sender needs no more than the released space.
    fn is_reached(&self, flaw: Flaw) -> bool {
        let tail = if flaw == Flaw::ComparesEarly { self.compared } else { self.tail };
        self.word.word.needs <= tail.into()
    }

    /// `SpaceWait::needs`: the tail from which on the smallest refused record fits.
    fn needs(&self, space: Space) -> u64 {
        let size = self.interest.with(space);
        size.map_or(0, |size| (u64::from(self.head) + size).saturating_sub(RING.into()))
    }

    /// `SpaceWaiter::read`: true if there was a doorbell. Too few are under way here for `SleepWord::passed` to do anything: it
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

    /// True if the program still has something to send.
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

    /// Sends the message if there is space.
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

    /// Gives the library's wait the result of its step.
    fn advance(&mut self, space: Space, mut wait: WaitState, came: Came) {
        if self.sending != Sending::Disconnected {
            self.sending = match wait.advance(came) {
                None => Sending::Wait(space, wait),
                Some(End::Empty) => Sending::Choose,
                Some(end) => panic!("{end:?} comes of no step of this model"),
            };
        }
    }

    /// Takes the step that the library's wait asks for. False if that is to sleep.
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

/// Explores all states, and returns their number.
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
fn event_loop_is_signalled_in_every_interleaving() {
    let states = explore(Waiting::Level, Flaw::None);
    println!("{states} states");
    assert!(states > 100_000, "a model of {states} states has lost its steps");
}

#[test]
fn edge_triggered_loop_is_signalled_in_every_interleaving() {
    let states = explore(Waiting::Edge, Flaw::None);
    println!("{states} states");
    assert!(states > 100_000, "a model of {states} states has lost its steps");
}

#[test]
fn blocking_call_is_woken_in_every_interleaving() {
    let states = explore(Waiting::Blocking, Flaw::None);
    println!("{states} states");
    assert!(states > 1000, "a model of {states} states has lost its steps");
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn second_refusal_needs_an_epoch_of_its_own() {
    explore(Waiting::Level, Flaw::NoRenewal);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn second_look_is_needed() {
    explore(Waiting::Level, Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn doorbell_of_the_new_epoch_is_left() {
    explore(Waiting::Level, Flaw::ReadsAll);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn other_kind_of_space_is_looked_at() {
    explore(Waiting::Level, Flaw::NoOtherLook);
}

#[test]
#[should_panic(expected = "an announcement is lost")]
fn packet_that_was_read_is_signalled() {
    explore(Waiting::Level, Flaw::PacketsSilent);
}

#[test]
#[should_panic(expected = "a bell finds the socket full")]
fn stale_doorbells_do_not_pile_up() {
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
fn program_repeats_refused_calls_before_it_waits() {
    explore(Waiting::Level, Flaw::Hasty);
}

#[test]
#[should_panic(expected = "an honest peer is called a violator")]
fn second_doorbell_for_an_epoch_is_a_violation() {
    explore(Waiting::Level, Flaw::RingsAgain);
}

#[test]
fn doorbell_without_memory_is_repeated_with_the_next_news() {
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
