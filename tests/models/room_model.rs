//! Every interleaving of a sender that needs room and a receiver that gives it back, the receiver killed at any step: an
//! honest receiver is never called a violator, no announcement is lost, and nobody is woken without end.
//!
//! As `tests/order_model.rs` is for messages, so is this for room. Memory is sequentially consistent; what weaker memory
//! adds is in `tests/loom_room.rs`. Both sides of waking are the library's own (src/socket/doorbell.rs); around them stand the
//! steps of `Outgoing::arm_for`, `Outgoing::wait_for_room` and `Intake`, each access to something shared a step of its own.
//! That the sender dies is not among the steps: it leaves a receiver whose doorbells fail.

use std::collections::HashSet;

use doorbell::{Bell, Epoch, Rung};
use protocol::layout::Word;
use socket::seqpacket::Socket;
use sys::{own_region::OwnWords, peer_region::PeerRegion};

#[path = "../../src/socket/doorbell.rs"]
mod doorbell;

/// What src/socket/doorbell.rs imports: words and a socket without memory and kernel.
mod error {
    pub(crate) use sealane::ProtocolError;
}
mod protocol {
    pub(crate) mod layout {
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Word {
            SenderEpoch,
        }
    }
    pub(crate) mod packet {
        pub(crate) enum Kind {
            Doorbell,
        }

        pub(crate) struct PacketHeader;

        impl PacketHeader {
            pub(crate) fn plain(_: Kind, _: u32) -> Self {
                Self
            }
        }
    }
}
mod sys {
    pub(crate) mod own_region {
        use std::sync::{Arc, atomic::AtomicU64};

        use crate::protocol::layout::Word;

        #[derive(Debug, Clone, Default)]
        pub(crate) struct OwnWords(Arc<AtomicU64>);

        impl OwnWords {
            pub(crate) fn word(&self, _: Word) -> &AtomicU64 {
                &self.0
            }
        }
    }
    pub(crate) mod peer_region {
        use crate::protocol::layout::Word;

        /// The other side's word, as it was when it was loaded.
        pub(crate) struct PeerRegion(pub(crate) u64);

        impl PeerRegion {
            pub(crate) fn load(&self, _: Word) -> u64 {
                self.0
            }
        }
    }
}
/// For the tests of src/socket/doorbell.rs.
mod memory {
    pub(crate) mod region {
        use crate::{sys::own_region::OwnWords, wait::Deadline};

        pub(crate) struct OwnRegion {
            pub(crate) words: OwnWords,
        }

        impl OwnRegion {
            #[expect(clippy::unnecessary_wraps, reason = "the real one can fail")]
            pub(crate) fn create(
                _: usize,
                _: bool,
                _: bool,
                _: Deadline,
            ) -> Result<Self, std::convert::Infallible> {
                Ok(Self { words: OwnWords::default() })
            }
        }
    }
}
mod wait {
    pub(crate) enum Deadline {
        Never,
    }
}
mod socket {
    pub(crate) mod seqpacket {
        use std::{cell::Cell, io, os::fd::BorrowedFd};

        use crate::protocol::packet::PacketHeader;

        #[expect(dead_code, reason = "doorbells carry no descriptors, and nothing else fails here")]
        pub(crate) enum SendFailure {
            Full,
            FdsInFlight,
            NoMemory(io::Error),
            Gone,
            Other(io::Error),
        }

        /// How sending to it goes.
        pub(crate) enum Socket {
            Takes(Cell<u8>),
            Full,
            NoMemory,
            Gone,
        }

        impl Socket {
            pub(crate) fn send(
                &self,
                _: PacketHeader,
                _: &[u8],
                _: &[BorrowedFd<'_>],
            ) -> Result<(), SendFailure> {
                match self {
                    Self::Takes(bells) => {
                        bells.set(bells.get() + 1);
                        Ok(())
                    }
                    Self::Full => Err(SendFailure::Full),
                    Self::NoMemory => Err(SendFailure::NoMemory(io::ErrorKind::OutOfMemory.into())),
                    Self::Gone => Err(SendFailure::Gone),
                }
            }
        }
    }
}

/// Bytes of the ring, which is full at the beginning; a record takes some.
const RING: u8 = 2;
/// What is to be sent: records of so many bytes, and packets.
const RECORDS: [u8; 2] = [2, 1];
const PACKETS: u8 = 2;
/// Packets that the socket holds. It is full at the beginning.
const SOCKET: u8 = 1;
/// Doorbells that the credit socket holds: so few that it would be full if they were left there.
const CREDIT: u8 = 4;
/// Times that the program tries although it was told nothing.
const RESTLESS: u8 = 1;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A second no keeps the epoch of the first.
    NoRenewal,
    /// Having armed, it does not try again.
    NoSecondLook,
    /// All bells are read, not only those of earlier epochs.
    ReadsAll,
    /// Whoever asks for one kind of room does not look at the other.
    NoOtherLook,
    /// Room in the socket is not announced.
    PacketsSilent,
    /// All bells of earlier epochs are left if they announce the other kind of room.
    PilesBells,
    /// The program waits although a later call may have taken what was announced to an earlier one.
    Hasty,
    /// A bell is rung for each epoch again and again.
    RingsAgain,
}

/// How the sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waiting {
    /// In an event loop, for the credit socket.
    Level,
    Edge,
    /// In the call.
    Blocking,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Room {
    Ring,
    Socket,
}

impl Room {
    fn other(self) -> Self {
        match self {
            Self::Ring => Self::Socket,
            Self::Socket => Self::Ring,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Receiving {
    /// Releases a byte, or reads a packet.
    Choose,
    /// `Intake::is_wanted`; if it seems so, the bell looks again, under a lock.
    LookAtEpoch,
    LookAgain,
    Ring(u64),
    /// It lives on, and keeps what it has.
    Content,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sending {
    /// The program decides what to try.
    Choose,
    Try(Room),
    /// `Outgoing::arm_for`, step by step.
    IsAbandoned(Room),
    Count(Room),
    LeaveOne(Room, u8),
    Renew(Room, u8),
    TryAgain(Room, u8),
    LookAtOther(Room, u8),
    ReadEarlier(u8),
    /// `Outgoing::stand_down`
    StandDown(Room),
    Disarm,
    ReadRest,
    Sleep,
    /// `Outgoing::wait_for_room`, step by step.
    Wait,
    Spin,
    Arm,
    LookArmed,
    ReadArmed,
    SleepInCall,
    Done,
    Disconnected,
}

/// A thing for each kind of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Both<T> {
    ring: T,
    socket: T,
}

impl<T> Both<T> {
    fn of(&mut self, room: Room) -> &mut T {
        match room {
            Room::Ring => &mut self.ring,
            Room::Socket => &mut self.socket,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    receiving: Receiving,
    /// The last epoch that was rung for.
    rung: u64,

    head: u8,
    tail: u8,
    unread: u8,
    bells: u8,
    epoch: u64,

    waiting: Waiting,
    sending: Sending,
    /// Odd epochs shown, and bells that the sender would still take.
    shown: u64,
    spare: u64,
    /// What has been sent.
    sent: Both<u8>,
    /// What the program will try before it waits.
    untried: Both<bool>,
    /// What is to be announced.
    wanted: Both<bool>,
    restless: u8,
    /// A bell came since the loop last told.
    edge: bool,
    /// Times it was woken while the receiver did nothing.
    vain: u8,
}

impl State {
    fn new(waiting: Waiting) -> Self {
        Self {
            receiving: Receiving::Choose,
            rung: 0,
            head: RING,
            tail: 0,
            unread: SOCKET,
            bells: 0,
            epoch: 0,
            waiting,
            sending: Sending::Choose,
            shown: 0,
            spare: 0,
            sent: Both::default(),
            untried: Both { ring: true, socket: waiting != Waiting::Blocking },
            wanted: Both::default(),
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

    /// What epochs there were does not matter, only which of them is which: so the oldest are left out.
    fn forget(&mut self) {
        let ringing = if let Receiving::Ring(epoch) = self.receiving { epoch } else { u64::MAX };
        let oldest = (self.shown - self.spare).saturating_sub(1).min(self.rung / 2).min(ringing / 2);
        self.shown -= oldest;
        self.epoch -= 2 * oldest;
        self.rung -= 2 * oldest;
        if let Receiving::Ring(epoch) = &mut self.receiving {
            *epoch -= 2 * oldest;
        }
    }

    /// All that the receiver may do next, but for dying.
    fn receiver_steps(&self, flaw: Flaw) -> Vec<Self> {
        let mut steps = Vec::new();
        match self.receiving {
            Receiving::Choose => {
                steps.push(self.with(|s| s.receiving = Receiving::Content));
                if self.tail < self.head {
                    steps.push(self.with(|s| {
                        s.tail += 1;
                        s.receiving = Receiving::LookAtEpoch;
                    }));
                }
                if self.unread > 0 {
                    steps.push(self.with(|s| {
                        s.unread -= 1;
                        if flaw != Flaw::PacketsSilent {
                            s.receiving = Receiving::LookAtEpoch;
                        }
                    }));
                }
            }
            Receiving::LookAtEpoch => steps.push(self.with(|s| {
                let is_wanted = s.epoch & 1 == 1;
                s.receiving = if is_wanted { Receiving::LookAgain } else { Receiving::Choose };
            })),
            Receiving::LookAgain => steps.push(self.with(|s| s.receiving = Receiving::Ring(s.epoch))),
            Receiving::Ring(epoch) => steps.push(self.with(|s| s.ring(epoch, flaw))),
            Receiving::Content | Receiving::Gone => {}
        }
        for step in &mut steps {
            step.vain = 0;
        }
        steps
    }

    /// The library's `Bell`, brought to where we are, rings for the epoch that it saw.
    fn ring(&mut self, epoch: u64, flaw: Flaw) {
        let mut bell = Bell::new(Word::SenderEpoch);
        if flaw != Flaw::RingsAgain {
            bell.ring(&PeerRegion(self.rung), &Socket::Full);
        }
        let socket = if self.bells < CREDIT { Socket::Takes(0.into()) } else { Socket::Full };
        let rung = bell.ring(&PeerRegion(epoch), &socket);
        assert!(self.bells < CREDIT || rung == Rung::NoNeed, "a bell finds the socket full: {self:?}");
        if let Socket::Takes(bells) = socket {
            self.edge |= bells.get() > 0;
            self.bells += bells.get();
        }
        if epoch & 1 == 1 && bell.ring(&PeerRegion(epoch), &Socket::Full) == Rung::NoNeed {
            self.rung = epoch;
        }
        self.receiving = Receiving::Choose;
    }

    /// Lets the library's `Epoch`, brought to where we are, take a step.
    fn epoch(&mut self, step: impl FnOnce(&mut Epoch)) {
        let words = OwnWords::default();
        let mut epoch = Epoch::new(words.clone(), Word::SenderEpoch);
        for _ in 0..self.shown {
            epoch.renew();
        }
        for _ in 0..self.shown - self.spare {
            epoch.overheard().unwrap();
        }
        if self.epoch & 1 == 0 {
            epoch.disarm();
        }
        let load = || words.word(Word::SenderEpoch).load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(load(), self.epoch);
        step(&mut epoch);
        self.epoch = load();
        self.shown = self.epoch.div_ceil(2);
        self.spare = 0;
        while epoch.overheard().is_ok() {
            self.spare += 1;
        }
    }

    /// `Outgoing::read_credit`: whether there was a bell. Too few are under way here for `Epoch::passed` to do anything: it has
    /// a test of its own in src/socket/doorbell.rs.
    fn read_credit(&mut self, is_present: bool) -> bool {
        if self.bells == 0 {
            if self.receiving == Receiving::Gone {
                self.sending = Sending::Disconnected;
            } else {
                self.epoch(Epoch::drained);
            }
            return false;
        }
        self.bells -= 1;
        self.epoch(|epoch| {
            let heard = if is_present { epoch.heard() } else { epoch.overheard() };
            heard.unwrap_or_else(|violation| panic!("an honest peer is called a violator: {violation}"));
        });
        true
    }

    /// What the program still has to send.
    fn left(&self, room: Room) -> bool {
        match room {
            Room::Ring => usize::from(self.sent.ring) < RECORDS.len(),
            Room::Socket => self.waiting != Waiting::Blocking && self.sent.socket < PACKETS,
        }
    }

    fn has_room(&self, room: Room) -> bool {
        match room {
            Room::Ring => {
                let size = RECORDS.get(usize::from(self.sent.ring)).copied().unwrap_or(0);
                self.head - self.tail + size <= RING
            }
            Room::Socket => self.unread < SOCKET,
        }
    }

    /// One look, and if there is room, the message goes out.
    fn attempt(&mut self, room: Room, flaw: Flaw) -> bool {
        let done = self.has_room(room);
        if done {
            match room {
                Room::Ring => self.head += RECORDS[usize::from(self.sent.ring)],
                Room::Socket => self.unread += 1,
            }
            *self.sent.of(room) += 1;
            *self.untried.of(room) = self.left(room);
            *self.untried.of(room.other()) |= self.left(room.other()) && flaw != Flaw::Hasty;
            self.sending = Sending::StandDown(room);
        }
        done
    }

    /// All that the sender may do next; nothing if it sleeps, or is done.
    fn sender_steps(&self, flaw: Flaw) -> Vec<Self> {
        let rooms = [Room::Ring, Room::Socket];
        if self.sending == Sending::Wait {
            return [Sending::Spin, Sending::Arm].map(|sending| self.with(|s| s.sending = sending)).to_vec();
        }
        if self.sending != Sending::Choose {
            return self.sender_step(flaw).into_iter().collect();
        }
        if !rooms.iter().any(|room| self.left(*room)) {
            return vec![self.with(|s| s.sending = Sending::Done)];
        }
        if self.waiting == Waiting::Blocking {
            return vec![self.with(|s| s.sending = Sending::Wait)];
        }
        let mut steps = Vec::new();
        for room in rooms {
            let (mut s, mut untried) = (self.clone(), self.untried);
            if *untried.of(room) {
                *s.untried.of(room) = false;
            } else if self.left(room) && self.restless < RESTLESS {
                s.restless += 1;
                // As a later call may take what was announced to an earlier one.
                *s.untried.of(room.other()) = self.left(room.other()) && flaw != Flaw::Hasty;
            } else {
                continue;
            }
            s.sending = Sending::Try(room);
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
            Sending::Try(room) => {
                if !s.attempt(room, flaw) {
                    *s.wanted.of(room) = true;
                    s.sending = Sending::IsAbandoned(room);
                }
            }
            Sending::IsAbandoned(room) => {
                let gone = s.receiving == Receiving::Gone;
                s.sending = if gone { Sending::Disconnected } else { Sending::Count(room) };
            }
            Sending::Count(room) => {
                if s.bells == 0 {
                    s.epoch(Epoch::drained);
                }
                s.sending = Sending::LeaveOne(room, s.bells);
            }
            Sending::LeaveOne(room, earlier) if earlier < 2 || flaw == Flaw::PilesBells => {
                s.sending = Sending::Renew(room, earlier);
            }
            Sending::LeaveOne(room, earlier) => {
                s.read_credit(false);
                s.sending = Sending::LeaveOne(room, earlier - 1);
            }
            Sending::Renew(room, earlier) => {
                s.epoch(if flaw == Flaw::NoRenewal { Epoch::arm } else { Epoch::renew });
                s.sending = Sending::TryAgain(room, earlier);
            }
            Sending::TryAgain(room, earlier) => {
                if flaw == Flaw::NoSecondLook || !s.attempt(room, flaw) {
                    s.sending = Sending::LookAtOther(room, earlier);
                }
            }
            Sending::LookAtOther(room, earlier) => {
                let other = room.other();
                s.sending = Sending::ReadEarlier(if flaw == Flaw::ReadsAll { CREDIT } else { earlier });
                if *s.wanted.of(other) && s.has_room(other) && flaw != Flaw::NoOtherLook {
                    *s.wanted.of(other) = false;
                    s.sending = Sending::Choose;
                }
            }
            Sending::ReadEarlier(0) => s.sending = Sending::Choose,
            Sending::ReadEarlier(left) => {
                s.sending = Sending::Choose;
                if s.read_credit(false) {
                    s.sending = Sending::ReadEarlier(left - 1);
                }
            }
            Sending::StandDown(room) => {
                s.sending = Sending::Choose;
                if s.epoch & 1 == 1 {
                    *s.wanted.of(room) = false;
                    if !s.wanted.ring && !s.wanted.socket {
                        s.sending = Sending::Disarm;
                    }
                }
            }
            Sending::Disarm => {
                s.epoch(Epoch::disarm);
                s.sending = Sending::ReadRest;
            }
            Sending::ReadRest => {
                s.sending = Sending::Choose;
                if s.read_credit(true) {
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
                s.untried = Both { ring: s.left(Room::Ring), socket: s.left(Room::Socket) };
                s.sending = Sending::Choose;
            }
            Sending::Spin | Sending::Arm | Sending::LookArmed | Sending::ReadArmed | Sending::SleepInCall => {
                return self.waiting_step(flaw);
            }
            Sending::Choose | Sending::Wait | Sending::Done | Sending::Disconnected => return None,
        }
        Some(s)
    }

    /// A step of `Outgoing::wait_for_room`.
    fn waiting_step(&self, flaw: Flaw) -> Option<Self> {
        let mut s = self.clone();
        match self.sending {
            Sending::Spin => {
                s.sending = Sending::LookArmed;
                s.read_credit(true);
            }
            Sending::Arm => {
                s.epoch(Epoch::arm);
                s.sending = Sending::LookArmed;
            }
            Sending::LookArmed => {
                if !s.attempt(Room::Ring, flaw) {
                    // After a spin it begins anew.
                    s.sending = if s.epoch & 1 == 1 { Sending::ReadArmed } else { Sending::Wait };
                }
            }
            Sending::ReadArmed => {
                s.sending = Sending::SleepInCall;
                if s.read_credit(true) {
                    s.sending = Sending::Wait;
                }
            }
            Sending::SleepInCall if s.bells == 0 && s.receiving != Receiving::Gone => return None,
            Sending::SleepInCall => {
                s.sending = Sending::Wait;
                s.read_credit(true);
            }
            _ => return None,
        }
        Some(s)
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
            let room = [Room::Ring, Room::Socket].map(|room| state.left(room) && state.has_room(room));
            assert_eq!(room, [false; 2], "an announcement is lost: {state:?}");
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
    let mut bell = Bell::new(Word::SenderEpoch);
    let armed = PeerRegion(1);
    assert_eq!(bell.ring(&armed, &Socket::NoMemory), Rung::NoNeed);
    let socket = Socket::Takes(0.into());
    assert_eq!(bell.ring(&armed, &socket), Rung::Sent);
    assert_eq!(bell.ring(&armed, &socket), Rung::NoNeed, "once for an epoch");
    assert!(matches!(&socket, Socket::Takes(bells) if bells.get() == 1));
    assert_eq!(bell.ring(&PeerRegion(3), &Socket::Full), Rung::Sent, "a full socket is readable");
    assert_eq!(bell.ring(&PeerRegion(3), &socket), Rung::NoNeed);
    assert_eq!(bell.ring(&PeerRegion(5), &Socket::Gone), Rung::Gone);
}
