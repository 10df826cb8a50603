//! Every interleaving of a publisher that needs room and of subscribers that give it back, each over a lane of its own: no wake-up
//! is lost, and no honest subscriber is said to ring too often.
//!
//! All lanes share the publisher's one sleep word, and each has its own doorbells. The steps of a blocking wait
//! (src/wait/engine.rs), the sleep word, the doorbells of each lane and the notifiers (src/wait/eventcount.rs) are the library's
//! own. The model owns memory and sockets; each access to shared state is a step of its own, and names the function that it stands
//! for: a change of `Lanes::{has_room, arm_for, read_bells, read_bell, bells, wait_for_room}`, of `Gates::refresh` or of `Releases`
//! is a change here too. Memory is sequentially consistent: src/wait has a full fence on both sides, of which
//! `tests/models/loom_room.rs` shows that each is needed.
//!
//! The publisher waits in a call, or tries from an event loop, or both in turn. In the event loop subscribers join while the word is
//! odd. Subscribers release line by line, and may stop anywhere. The last tests show that a flaw in any of the operations is found.

use std::collections::HashSet;

use wait::{
    ModelWord, Seen,
    engine::{Came, End, News, SpinResult, Step, WaitState},
    eventcount::{Bells, Notifier, Sent, SleepWord},
};

#[expect(dead_code, reason = "the loop over the steps is the library's and loom's")]
#[path = "wait.rs"]
mod wait;

/// The types that the library's files import.
mod error {
    pub(crate) use sealane::{Error, ProtocolError, Result};
}

/// Lines of the ring, which is full at the beginning.
const RING: u64 = 2;
/// Doorbells that a space socket holds.
const SPACE_SOCKET: u8 = 4;
/// Attempts of an event loop that nothing woke, where subscribers join.
const RESTLESS: u8 = 1;

/// A mistake of the implementation, each of which the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A lane that joins while the word is odd has been shown the present epoch already.
    JoinsTooLate,
    /// The doorbells of all lanes are counted together.
    OneCount,
    /// A subscriber rings several times for an epoch.
    RingsAgain,
    /// Other needs are stored without a new epoch.
    NoRenewal,
    /// The publisher does not look again after arming.
    NoSecondLook,
    /// An epoch counts as rung for although its needs are not reached.
    MarksUnrung,
    /// No doorbell ends an epoch.
    NeverEnds,
    /// It sleeps until a lane rings that it does not wait for.
    WatchesOthers,
}

/// How the publisher waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waiting {
    /// `Publisher::loan`
    Blocking,
    /// `Publisher::try_loan`, in an event loop.
    Trying,
    Both,
}

/// A subscriber's place in `Releases::release_all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Releasing {
    /// It releases a line, or nothing more.
    Choose,
    /// `Releases::is_needed`; if it seems so, the notifier looks again, under a lock.
    LookAtEpoch,
    LookAtNeeds,
    LookAgain,
    LookAtNeedsAgain(u64),
    Ring(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    /// The subscriber's `Tail`, and the same as the publisher saw it last: `Gate::tail`.
    tail: u64,
    seen: u64,
    /// It releases no more than this: the rest is of no use.
    limit: u64,
    releasing: Releasing,
    notifier: Notifier,
    /// Doorbells in the space socket.
    ringing: u8,
    /// The publisher's count of them.
    bells: Bells,
}

impl Lane {
    fn new(tail: u64, limit: u64, bells: Bells) -> Self {
        let (releasing, notifier) = (Releasing::Choose, Notifier::default());
        Self { tail, seen: tail, limit, releasing, notifier, ringing: 0, bells }
    }
}

/// The place in the publisher's program for which tails are loaded, or doorbells read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Within {
    /// The first look of a call.
    Call,
    /// A step of the library's wait.
    Wait(WaitState),
    /// `Lanes::arm_for`
    Arm,
    /// `Lanes::on_bell`, of a lane.
    Bell(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Publishing {
    Choose,
    /// `Gates::refresh`: the tail of a lane is next.
    Refresh(usize, Within),
    /// `Lanes::read_bells`: a lane is next, and whether there was a doorbell.
    ReadBells(usize, bool, Within),
    /// The library's wait has the next step.
    Wait(WaitState),
    Rearm,
    /// The wait is over, `SleepWord::disarm`.
    Disarm,
    /// The event loop sleeps.
    Loop,
    /// `Publisher::next_event`, until there is nothing more.
    Turn,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    lanes: Vec<Lane>,
    /// Lanes that are still to join.
    joining: u8,
    publishing: Publishing,
    waiting: Waiting,
    word: SleepWord<ModelWord>,
    head: u64,
    /// Records published.
    sent: usize,
    restless: u8,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
struct Story {
    waiting: Waiting,
    lanes: usize,
    joining: u8,
    /// The publisher reads doorbells while it spins.
    polls: bool,
    /// The lines of the records that are to be published.
    records: &'static [u64],
}

impl State {
    fn new(story: Story) -> Self {
        let Story { waiting, lanes, joining, records, .. } = story;
        Self {
            lanes: vec![Lane::new(0, records.iter().sum(), Bells::default()); lanes],
            joining,
            publishing: Publishing::Choose,
            waiting,
            word: SleepWord::new(ModelWord::default()),
            head: RING,
            sent: 0,
            restless: 0,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Renumbers the epochs, so that equal states are equal. Doorbells for epochs before the last three count as received, which is
    /// stricter than the library.
    fn forget(&mut self) {
        let old = self.word.epochs.saturating_sub(3);
        self.word.epochs -= old;
        self.word.value -= 2 * old;
        self.word.word.epoch = self.word.value;
        self.word.bells.received = self.word.bells.received.saturating_sub(old);
        for lane in &mut self.lanes {
            lane.bells.received = lane.bells.received.saturating_sub(old);
            let mut oldest = self.word.value;
            if let Releasing::LookAtNeedsAgain(epoch) | Releasing::Ring(epoch) = &mut lane.releasing {
                *epoch = epoch.saturating_sub(2 * old).max(1);
                oldest = *epoch;
            }
            // An epoch that nobody will see again is none.
            let notified = lane.notifier.notified.saturating_sub(2 * old);
            lane.notifier.notified = if notified < oldest { 0 } else { notified };
        }
    }

    /// The next step of a subscriber, if it has one.
    fn lane_step(&self, at: usize, flaw: Flaw) -> Option<Self> {
        let mut s = self.clone();
        let (epoch, needs) = (s.word.word.epoch, s.word.word.needs);
        let lane = &mut s.lanes[at];
        let is_reached = needs <= lane.tail;
        lane.releasing = match lane.releasing {
            Releasing::Choose if lane.tail == s.head.min(lane.limit) => return None,
            Releasing::Choose => {
                lane.tail += 1;
                Releasing::LookAtEpoch
            }
            // The notifier looks at the epoch first, too.
            Releasing::LookAtEpoch | Releasing::LookAgain if epoch & 1 == 0 => Releasing::Choose,
            Releasing::LookAtEpoch => Releasing::LookAtNeeds,
            Releasing::LookAtNeeds if is_reached => Releasing::LookAgain,
            Releasing::LookAtNeeds => {
                if flaw == Flaw::MarksUnrung {
                    lane.notifier.notified = epoch;
                }
                Releasing::Choose
            }
            Releasing::LookAgain if epoch == lane.notifier.notified && flaw != Flaw::RingsAgain => {
                Releasing::Choose
            }
            Releasing::LookAgain => Releasing::LookAtNeedsAgain(epoch),
            Releasing::LookAtNeedsAgain(_) if !is_reached => Releasing::Choose,
            Releasing::LookAtNeedsAgain(epoch) => Releasing::Ring(epoch),
            Releasing::Ring(epoch) => {
                if flaw == Flaw::RingsAgain {
                    lane.notifier = Notifier::default();
                }
                let seen = Seen::new(epoch, Sent::Yes);
                lane.notifier.notify(&seen);
                lane.ringing += seen.doorbells.get();
                assert!(lane.ringing <= SPACE_SOCKET, "a bell finds the socket full: {self:?}");
                Releasing::Choose
            }
        };
        Some(s)
    }

    /// `Producer::needed_tail`
    fn needs(&self, story: Story) -> u64 {
        (self.head + story.records[self.sent]).saturating_sub(RING)
    }

    /// Whether there is room, by the tails that `tail` gives.
    fn has_room(&self, story: Story, tail: impl Fn(&Lane) -> u64) -> bool {
        self.lanes.iter().all(|lane| tail(lane) >= self.needs(story))
    }

    /// `Lanes::bells`
    fn join(&mut self, flaw: Flaw) {
        let is_shown = self.word.is_armed() && flaw != Flaw::JoinsTooLate;
        let bells = Bells::after(self.word.epochs - u64::from(is_shown));
        self.joining -= 1;
        self.lanes.push(Lane::new(self.head, u64::MAX, bells));
    }

    /// `Lanes::read_bell`: false if there was none.
    fn read_bell(&mut self, at: usize, flaw: Flaw) -> bool {
        let (epochs, needs) = (self.word.epochs, self.word.needs);
        let lane = &mut self.lanes[at];
        let bells = if flaw == Flaw::OneCount { &mut self.word.bells } else { &mut lane.bells };
        if lane.ringing == 0 {
            bells.drained(epochs);
            return false;
        }
        lane.ringing -= 1;
        if let Err(violation) = bells.rang(epochs) {
            panic!("an honest subscriber is called a violator: {violation}: {self:?}");
        }
        if lane.seen < needs && flaw != Flaw::NeverEnds {
            self.word.disarm();
        }
        true
    }

    fn publish(&mut self, story: Story) {
        self.head += story.records[self.sent];
        self.sent += 1;
        self.publishing = Publishing::Choose;
    }

    /// Gives the library's wait the result of its step.
    fn advance(&mut self, mut wait: WaitState, came: impl Into<Came>) {
        self.publishing = match wait.advance(came.into()) {
            None => Publishing::Wait(wait),
            Some(End::Done) => Publishing::Disarm,
            Some(end) => panic!("{end:?} comes of no step of this model"),
        };
    }

    /// The tails of all lanes are loaded.
    fn on_refreshed(&mut self, within: Within, story: Story, flaw: Flaw) -> Vec<Self> {
        if let Within::Bell(at) = within {
            self.read_bell(at, flaw);
            self.publishing = Publishing::Turn;
            return vec![self.clone()];
        }
        let has_room = self.has_room(story, |lane| lane.seen);
        match within {
            Within::Call if has_room => self.publish(story),
            Within::Call => {
                let blocks = self.with(|s| s.advance(WaitState::blocking(News::Space), false));
                let arms = self.with(|s| s.publishing = Publishing::ReadBells(0, false, Within::Arm));
                return match self.waiting {
                    Waiting::Blocking => vec![blocks],
                    Waiting::Trying => vec![arms],
                    Waiting::Both => vec![blocks, arms],
                };
            }
            Within::Wait(wait) => self.advance(wait, has_room),
            Within::Arm if has_room => self.publishing = Publishing::Disarm,
            Within::Arm => self.publishing = Publishing::Loop,
            Within::Bell(_) => {}
        }
        vec![self.clone()]
    }

    /// All next steps of the publisher; none if it sleeps, or is done.
    fn publisher_steps(&self, story: Story, flaw: Flaw) -> Vec<Self> {
        let mut s = self.clone();
        match self.publishing {
            Publishing::Choose if self.sent == story.records.len() => s.publishing = Publishing::Done,
            Publishing::Choose if self.has_room(story, |lane| lane.seen) => {
                let within = self.with(|s| s.publish(story));
                let joined = (self.joining > 0).then(|| self.with(|s| s.join(flaw)));
                return joined.into_iter().chain([within]).collect();
            }
            Publishing::Choose => {
                s.publishing = Publishing::Refresh(0, Within::Call);
                let joined = (self.joining > 0).then(|| self.with(|s| s.join(flaw)));
                return joined.into_iter().chain([s]).collect();
            }
            Publishing::Refresh(at, within) if at < self.lanes.len() => {
                s.lanes[at].seen = s.lanes[at].tail;
                s.publishing = Publishing::Refresh(at + 1, within);
            }
            Publishing::Refresh(_, within) => return s.on_refreshed(within, story, flaw),
            Publishing::ReadBells(at, rang, within) if at < self.lanes.len() => {
                let more = s.read_bell(at, flaw);
                s.publishing = Publishing::ReadBells(if more { at } else { at + 1 }, rang | more, within);
            }
            Publishing::ReadBells(_, rang, within) => match within {
                Within::Wait(wait) => s.advance(wait, rang && wait.step() != Step::PollSocket),
                _ => s.publishing = Publishing::Rearm,
            },
            Publishing::Wait(wait) => return self.wait_steps(wait, story, flaw),
            Publishing::Rearm => {
                let needs = self.needs(story);
                if flaw == Flaw::NoRenewal && self.word.is_armed() {
                    (s.word.needs, s.word.word.needs) = (needs, needs);
                } else {
                    s.word.rearm(needs);
                }
                s.publishing = if flaw == Flaw::NoSecondLook {
                    Publishing::Loop
                } else {
                    Publishing::Refresh(0, Within::Arm)
                };
            }
            Publishing::Disarm => {
                s.word.disarm();
                s.publish(story);
            }
            Publishing::Loop => {
                let is_readable = self.lanes.iter().any(|lane| lane.ringing > 0);
                let mut steps = Vec::new();
                if is_readable {
                    steps.push(self.with(|s| s.publishing = Publishing::Turn));
                } else if self.restless < RESTLESS && story.joining > 0 {
                    steps.push(self.with(|s| {
                        s.restless += 1;
                        s.publishing = Publishing::Choose;
                    }));
                }
                // Somebody else wakes the loop, and joins.
                if self.joining > 0 {
                    steps.push(self.with(|s| s.join(flaw)));
                }
                return steps;
            }
            Publishing::Turn => {
                let ready = self.lanes.iter().enumerate().filter(|(_, lane)| lane.ringing > 0);
                let steps = ready
                    .map(|(at, _)| self.with(|s| s.publishing = Publishing::Refresh(0, Within::Bell(at))));
                let mut steps: Vec<_> = steps.collect();
                if steps.is_empty() {
                    steps.push(self.with(|s| s.publishing = Publishing::Choose));
                }
                return steps;
            }
            Publishing::Done => return vec![],
        }
        vec![s]
    }

    /// The step that the library's wait asks for. None if that is to sleep.
    fn wait_steps(&self, wait: WaitState, story: Story, flaw: Flaw) -> Vec<Self> {
        let mut s = self.clone();
        match wait.step() {
            Step::LookAgain if flaw == Flaw::NoSecondLook => s.advance(wait, false),
            Step::Try | Step::LookAgain => s.publishing = Publishing::Refresh(0, Within::Wait(wait)),
            Step::Spin => {
                let results = [SpinResult::GiveUp, SpinResult::PollSocket];
                let results = &results[..=usize::from(story.polls)];
                let steps = results.iter().map(|result| self.with(|s| s.advance(wait, Came::Spun(*result))));
                return steps.collect();
            }
            Step::Arm => {
                let needs = self.needs(story);
                let fresh = if flaw == Flaw::NoRenewal && self.word.is_armed() {
                    (s.word.needs, s.word.word.needs) = (needs, needs);
                    false
                } else {
                    s.word.arm(needs)
                };
                s.advance(wait, fresh);
            }
            // `RoomWait::sleeps_in_a_read`
            Step::Read => s.advance(wait, false),
            Step::PollSocket | Step::Awake => {
                s.publishing = Publishing::ReadBells(0, false, Within::Wait(wait));
            }
            Step::Sleep => {
                // `RoomWait::sleep` watches the last of those that it lacks.
                let needs = self.needs(story);
                let is_watched = |lane: &&Lane| (lane.seen < needs) != (flaw == Flaw::WatchesOthers);
                if self.lanes.iter().rfind(is_watched).is_none_or(|lane| lane.ringing == 0) {
                    return vec![];
                }
                s.advance(wait, false);
            }
            step => panic!("{step:?} is no step of a publisher that blocks"),
        }
        vec![s]
    }

    /// Whether all subscribers may stop here: none is about to ring.
    fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.releasing == Releasing::Choose)
    }
}

/// Explores all states, and returns their number.
fn explore(story: Story, flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![State::new(story)];
    while let Some(state) = open.pop() {
        // At the end nobody counts doorbells any more.
        if state.publishing == Publishing::Done || !seen.insert(state.clone()) {
            continue;
        }
        let mut steps = state.publisher_steps(story, flaw);
        let sleeps = match state.publishing {
            Publishing::Loop => state.lanes.iter().all(|lane| lane.ringing == 0),
            Publishing::Wait(wait) => wait.step() == Step::Sleep && steps.is_empty(),
            _ => false,
        };
        if sleeps && state.is_quiet() {
            let has_room = state.has_room(story, |lane| lane.tail);
            assert!(!has_room, "a wake-up is lost: {state:?}");
        }
        steps.extend((0..state.lanes.len()).filter_map(|at| state.lane_step(at, flaw)));
        steps.iter_mut().for_each(State::forget);
        open.extend(steps);
    }
    println!("{} states", seen.len());
    seen.len()
}

const BLOCKING: Story =
    Story { waiting: Waiting::Blocking, lanes: 2, joining: 0, polls: false, records: &[1, 1] };
const POLLING: Story = Story { polls: true, records: &[2], ..BLOCKING };
const THREE: Story = Story { lanes: 3, records: &[1], ..BLOCKING };
const TRYING: Story = Story { waiting: Waiting::Trying, ..BLOCKING };
const JOINING: Story = Story { lanes: 1, joining: 1, ..TRYING };
const BOTH: Story = Story { waiting: Waiting::Both, ..BLOCKING };

#[test]
fn call_that_waits_is_woken_by_two_lanes() {
    assert!(explore(BLOCKING, Flaw::None) > 1000);
}

#[test]
fn call_that_spins_is_woken_too() {
    assert!(explore(POLLING, Flaw::None) > 1000);
}

#[test]
fn call_that_waits_is_woken_by_three_lanes() {
    assert!(explore(THREE, Flaw::None) > 1000);
}

#[test]
fn event_loop_is_woken_by_two_lanes() {
    assert!(explore(TRYING, Flaw::None) > 1000);
}

#[test]
fn lanes_that_join_while_the_word_is_odd_wake_it_too() {
    assert!(explore(JOINING, Flaw::None) > 1000);
}

#[test]
fn calls_that_wait_and_calls_that_try_take_turns() {
    assert!(explore(BOTH, Flaw::None) > 1000);
}

#[test]
#[should_panic(expected = "an honest subscriber is called a violator")]
fn lane_that_joins_has_not_been_shown_the_present_epoch() {
    explore(JOINING, Flaw::JoinsTooLate);
}

/// Other needs are a new epoch in any case, so that a lane which has rung for the present one lacks no more.
#[test]
fn wake_ups_do_not_depend_on_doorbells_that_end_an_epoch() {
    explore(POLLING, Flaw::NeverEnds);
    explore(JOINING, Flaw::NeverEnds);
}

#[test]
#[should_panic(expected = "an honest subscriber is called a violator")]
fn each_lane_has_its_own_doorbells() {
    explore(BLOCKING, Flaw::OneCount);
}

#[test]
#[should_panic(expected = "an honest subscriber is called a violator")]
fn second_doorbell_of_a_lane_for_an_epoch_is_a_violation() {
    explore(BLOCKING, Flaw::RingsAgain);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn other_needs_are_a_new_epoch() {
    explore(BOTH, Flaw::NoRenewal);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn call_that_waits_looks_again_after_arming() {
    explore(BLOCKING, Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn event_loop_looks_again_after_arming() {
    explore(TRYING, Flaw::NoSecondLook);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn epochs_that_were_not_rung_for_stay_open() {
    explore(BLOCKING, Flaw::MarksUnrung);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn lanes_that_are_lacked_are_watched() {
    explore(BLOCKING, Flaw::WatchesOthers);
}
