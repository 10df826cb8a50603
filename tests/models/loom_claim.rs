//! The mark of a publisher under the C++ memory model, by loom: a subscriber that may be overrun takes no torn bytes for whole.
//!
//! src/ring/claim.rs itself runs on loom's atomics. The publisher lends, truncates, drops and publishes as `Producer::reserve` and
//! `Producer::publish_to_all` do; the reader looks, judges, copies and jumps as `Feed::poll` and `Follower` do. Each function of
//! the model names the one that it stands for, and has its loads, stores and fences in its order: a change there is to be made
//! here too.
//!
//! Proved, for loans of one and two slots with padding at the ring's end, and with a slot claimed ahead:
//! - a header and a payload that pass [`is_whole`] are those that were published at that position;
//! - an honest publisher never seems to break the protocol, whatever it overwrites;
//! - each jump goes forwards, so that jumping comes to an end;
//! - received and missed messages are never more than were published, and exactly as many after the end;
//! - a reader that is waited for is never overrun, in spite of what is claimed ahead.
//!
//! Each twin leaves out an order, or turns one round, and loom finds what goes wrong then.

use std::{cell::Cell, panic::Location, sync::LazyLock};

use claim::{Claim, Newest, is_whole};
use layout::{CACHE_LINE, Position, Word};
use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
            fence,
        },
    },
    thread,
};

#[expect(dead_code, reason = "a subscriber that joins is not modelled")]
#[path = "../../src/ring/claim.rs"]
mod claim;
#[expect(dead_code, reason = "the model moves positions only")]
#[path = "../../src/protocol/layout.rs"]
mod layout;

/// The types that the library's file imports.
mod error {
    pub(crate) use sealane::{Error, Result};
}
mod protocol {
    pub(crate) use crate::layout::{Position, Word, to_u64};
}
mod sys {
    pub(crate) mod own_region {
        pub(crate) use crate::ControlPage;
    }
    pub(crate) mod peer_region {
        pub(crate) use crate::PeerRegion;
    }
}
mod wait {
    use std::{panic::Location, sync::atomic::Ordering};

    use super::{Without, site, without};

    #[track_caller]
    pub(crate) fn fence(order: Ordering) {
        let left_out = match site(Location::caller()) {
            "advance" => Without::ClaimsFence,
            "is_whole" => Without::AcquireOfWhole,
            "of" => Without::AcquireOfNewest,
            other => panic!("a fence in {other}, for which there is no twin"),
        };
        if !without(left_out) {
            loom::sync::atomic::fence(order);
        }
    }
}

/// The order that a twin leaves out or turns round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The full fence in `Claim::advance`.
    ClaimsFence,
    /// The Release in `Claim::advance`.
    ReleaseOfClaim,
    /// The publisher claims what it has written, not what it is about to write.
    ClaimBeforeWriting,
    /// The Release of the store of `Head`, in `Producer::publish`.
    ReleaseOfHead,
    /// The Release of the store of `Latest`, in `Producer::publish_to_all`.
    ReleaseOfLatest,
    /// `Latest` is stored before `Head`.
    HeadBeforeLatest,
    /// The Acquire fence in `is_whole`.
    AcquireOfWhole,
    /// The Acquire fences in `Newest::of`.
    AcquireOfNewest,
    /// `Newest::of` loads `Head` before `Latest`.
    LatestLoadedFirst,
    /// `Newest::of` loads `Head` before `Claimed`.
    ClaimedLoadedFirst,
    /// The look at the mark before the header is judged, in `Follower::next`.
    LookBeforeJudging,
    /// The look at the mark after the payload was copied, in `Feed::take`.
    LookAfterPayload,
    /// The look at whether the newest record is whole and ahead, in `Follower::jump`.
    LookAtLatest,
    /// The limit of what is claimed ahead, in `Producer::claim`.
    LimitAhead,
}

thread_local! {
    /// The twin of this test. loom runs all threads of a model in the thread of its test.
    static WITHOUT: Cell<Without> = const { Cell::new(Without::Nothing) };
}

fn without(left_out: Without) -> bool {
    WITHOUT.get() == left_out
}

/// The name of the function in src/ring/claim.rs that has this line.
fn site(at: &Location<'_>) -> &'static str {
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let mut name = "";
        let lines = include_str!("../../src/ring/claim.rs").lines().map(|line| {
            if let Some(function) = line.trim_start().trim_start_matches("pub(crate) ").strip_prefix("fn ") {
                name = function.split(['(', '<']).next().unwrap();
            }
            name
        });
        lines.collect()
    });
    NAMES[usize::try_from(at.line()).unwrap() - 1]
}

/// Slots of the ring, each a cache line. A loan has one or two, so that it fits somewhere, behind padding or not.
const SLOTS: u64 = 3;
const CAPACITY: u64 = SLOTS * CACHE_LINE;
/// A slot that is being filled by its loan.
const FILLING: u64 = u64::MAX;
/// The mark of a payload, which stands in a record's second slot.
const PAYLOAD: u64 = 1 << 32;

/// The region of a publisher, and the word of a reader that is waited for.
#[derive(Debug, Default)]
struct Shared {
    claimed: ClaimedWord,
    latest: AtomicU64,
    head: AtomicU64,
    /// Loaded after the end only, so that loom need not know.
    messages: std::sync::atomic::AtomicU64,
    slots: [AtomicU64; 3],
    tail: AtomicU64,
}

impl Shared {
    /// The slot at a position.
    fn slot(&self, position: Position) -> &AtomicU64 {
        let slot = position.get() / CACHE_LINE % SLOTS;
        &self.slots[usize::try_from(slot).unwrap()]
    }
}

/// The word `Claimed`, which only src/ring/claim.rs stores.
#[derive(Debug, Default)]
struct ClaimedWord(AtomicU64);

impl ClaimedWord {
    fn store(&self, value: u64, order: std::sync::atomic::Ordering) {
        self.0.store(value, if without(Without::ReleaseOfClaim) { Relaxed } else { order });
    }
}

/// The publisher's control page.
#[derive(Debug)]
struct ControlPage(Arc<Shared>);

impl ControlPage {
    fn word(&self, word: Word) -> &ClaimedWord {
        assert_eq!(word, Word::Claimed);
        &self.0.claimed
    }
}

/// The publisher's region, as a reader has it.
#[derive(Debug)]
struct PeerRegion {
    shared: Arc<Shared>,
    /// The `Head` that a twin has loaded too early.
    early: Cell<Option<u64>>,
}

impl PeerRegion {
    #[expect(clippy::unused_self, reason = "the signature is that of the library's type")]
    fn capacity(&self) -> usize {
        layout::to_usize(CAPACITY)
    }

    #[track_caller]
    fn load(&self, word: Word) -> u64 {
        let before = match word {
            Word::Claimed => Without::ClaimedLoadedFirst,
            Word::Latest => Without::LatestLoadedFirst,
            _ => Without::Nothing,
        };
        if before != Without::Nothing && without(before) && site(Location::caller()) == "of" {
            self.early.set(Some(self.shared.head.load(Relaxed)));
            fence(Acquire);
        }
        match word {
            Word::Claimed => self.shared.claimed.0.load(Relaxed),
            Word::Latest => self.shared.latest.load(Relaxed),
            Word::Head => self.early.take().unwrap_or_else(|| self.shared.head.load(Relaxed)),
            Word::Messages => self.shared.messages.load(Relaxed),
            _ => unreachable!("a reader loads no other word"),
        }
    }
}

/// A message: the slots that are lent for it, and those that are published.
#[derive(Debug, Clone, Copy)]
struct Loan {
    lent: u64,
    /// 0 drops it.
    sent: u64,
    /// It is a record with a payload, to which readers jump.
    is_newest: bool,
}

const fn record(slots: u64) -> Loan {
    Loan { lent: slots, sent: slots, is_newest: true }
}
/// A loan of two slots of which one is published.
const TRUNCATED: Loan = Loan { lent: 2, sent: 1, is_newest: true };
const DROPPED: Loan = Loan { lent: 2, sent: 0, is_newest: true };
/// A message without a payload.
const CONTROL: Loan = Loan { lent: 1, sent: 1, is_newest: false };
/// The same, with control bytes.
const LONG_CONTROL: Loan = Loan { lent: 2, sent: 2, is_newest: false };

/// A header: where its record begins, the message's number, and its slots; 0 slots for padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    start: u64,
    sequence: u64,
    slots: u64,
}

impl Header {
    fn pack(self) -> u64 {
        (self.start / CACHE_LINE) << 16 | self.sequence << 8 | self.slots | 0x80
    }

    fn of(word: u64) -> Self {
        Self { start: (word >> 16) * CACHE_LINE, sequence: word >> 8 & 0xff, slots: word & 0x7f }
    }
}

/// `Producer` and `Writer`, with [`Claim`].
struct Publisher {
    words: ControlPage,
    claim: Claim,
    head: Position,
    tail: Position,
    sequence: u64,
    /// A reader is waited for.
    waits: bool,
}

impl Publisher {
    /// With so many slots claimed ahead.
    fn new(shared: &Arc<Shared>, ahead: u64, waits: bool) -> Self {
        let (head, tail) = Default::default();
        // The part that is claimed ahead is a sixteenth, so a slot of a ring of sixteen. The ring here is shorter.
        let claim = Claim::new(16 * CACHE_LINE * ahead);
        Self { words: ControlPage(Arc::clone(shared)), claim, head, tail, sequence: 0, waits }
    }

    /// `Producer::reserve`, then the loan, and `Frame::publish`. False if there is no room.
    fn publish(&mut self, loan: Loan) -> bool {
        let Loan { lent, sent, is_newest } = loan;
        let shared = Arc::clone(&self.words.0);
        // `Producer::padding_before`
        let rest = SLOTS - self.head.get() / CACHE_LINE % SLOTS;
        let padding = if lent > rest { rest } else { 0 };
        let start = self.head.after(padding * CACHE_LINE);
        let end = start.after(lent * CACHE_LINE);
        // `Gates::refresh`: without a gate, all up to `Head` is released.
        self.tail = self.head;
        if self.waits {
            self.tail = Position::new(shared.tail.load(Relaxed));
            fence(Acquire);
        }
        if end.since(self.tail) > CAPACITY {
            return false;
        }
        if !without(Without::ClaimBeforeWriting) {
            self.claim(end);
        }
        // The loan is filled.
        for slot in 0..lent {
            shared.slot(start.after(slot * CACHE_LINE)).store(FILLING, Relaxed);
        }
        if sent > 0 {
            // `Writer::write`
            if padding > 0 {
                let header = Header { start: self.head.get(), sequence: self.sequence, slots: 0 };
                shared.slot(self.head).store(header.pack(), Relaxed);
            }
            if sent > 1 {
                shared.slot(start.after(CACHE_LINE)).store(PAYLOAD | self.sequence, Relaxed);
            }
            let header = Header { start: start.get(), sequence: self.sequence, slots: sent };
            shared.slot(start).store(header.pack(), Relaxed);
        }
        if without(Without::ClaimBeforeWriting) {
            self.claim(end);
        }
        if sent > 0 {
            self.sequence += 1;
            self.publish_to_all(&shared, start, start.after(sent * CACHE_LINE), is_newest);
        }
        true
    }

    /// `Producer::claim`
    fn claim(&mut self, end: Position) {
        let limit = if without(Without::LimitAhead) { Position::END } else { self.tail.after(CAPACITY) };
        self.claim.up_to(end, limit, &self.words);
    }

    /// `Producer::publish_to_all`
    fn publish_to_all(&mut self, shared: &Shared, start: Position, head: Position, is_newest: bool) {
        let order = |left_out| if without(left_out) { Relaxed } else { Release };
        let store_latest = || shared.latest.store(start.get(), order(Without::ReleaseOfLatest));
        self.head = head;
        if is_newest && without(Without::HeadBeforeLatest) {
            store_latest();
        }
        shared.head.store(head.get(), order(Without::ReleaseOfHead));
        if is_newest && !without(Without::HeadBeforeLatest) {
            store_latest();
        }
        shared.messages.store(self.sequence, Relaxed);
    }
}

/// The message that a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Next,
    /// `recv_latest`
    Latest,
}

/// `Fault::Overrun`
#[derive(Debug)]
struct Overrun;

/// `Feed` and `Follower`.
struct Reader {
    publisher: PeerRegion,
    is_waited_for: bool,
    position: Position,
    head: Position,
    seen: Newest,
    skipped: u64,
    sequence: u64,
    received: u64,
    missed: u64,
}

impl Reader {
    fn new(shared: &Arc<Shared>, is_waited_for: bool) -> Self {
        let (position, head, claimed, latest) = Default::default();
        Self {
            publisher: PeerRegion { shared: Arc::clone(shared), early: Cell::new(None) },
            is_waited_for,
            position,
            head,
            seen: Newest { claimed, latest, head },
            skipped: 0,
            sequence: 0,
            received: 0,
            missed: 0,
        }
    }

    /// `Feed::poll`: true if a message was taken.
    fn poll(&mut self, wanted: Wanted) -> bool {
        loop {
            if wanted == Wanted::Latest && !self.skip_to_latest() {
                return false;
            }
            match self.next().and_then(|header| header.map(|header| self.take(header)).transpose()) {
                Ok(taken) => return taken.is_some(),
                Err(Overrun) => self.jump(),
            }
        }
    }

    /// `Follower::next`
    fn next(&mut self) -> Result<Option<Header>, Overrun> {
        if self.position == self.head {
            self.head = self.look().head;
            if self.position == self.head {
                return Ok(None);
            }
        }
        loop {
            let word = self.publisher.shared.slot(self.position).load(Relaxed);
            if without(Without::LookBeforeJudging) {
                self.judge(word);
            }
            if !self.is_whole() {
                return Err(Overrun);
            }
            let header = self.judge(word);
            assert_eq!(header.start, self.position.get(), "a torn header is taken for whole");
            if header.slots > 0 {
                return Ok(Some(header));
            }
            // Padding, and a record behind it.
            let rest = SLOTS - self.position.get() / CACHE_LINE % SLOTS;
            self.advance(rest);
        }
    }

    /// `RecordHeader::check_published`, `Cursor::check_padding` and `Feed::check_sequence`
    fn judge(&self, word: u64) -> Header {
        let header = Header::of(word);
        let is_sound = word != 0
            && word != FILLING
            && header.slots <= 2
            && self.position.after(header.slots * CACHE_LINE) <= self.head
            && header.sequence >= self.sequence
            && header.sequence <= self.sequence + self.skipped;
        assert!(is_sound, "an honest publisher is called a violator: {header:?} at {:?}", self.position);
        header
    }

    /// `Feed::take`
    fn take(&mut self, header: Header) -> Result<(), Overrun> {
        let payload = (header.slots > 1)
            .then(|| self.publisher.shared.slot(self.position.after(CACHE_LINE)).load(Relaxed));
        if !without(Without::LookAfterPayload) && !self.is_whole() {
            return Err(Overrun);
        }
        if let Some(payload) = payload {
            assert_eq!(payload, PAYLOAD | header.sequence, "a torn payload is taken for whole");
        }
        self.advance(header.slots);
        self.missed += header.sequence - self.sequence;
        (self.sequence, self.received, self.skipped) = (header.sequence + 1, self.received + 1, 0);
        Ok(())
    }

    /// Moves on, and releases what is behind, `Releases::move_tail`.
    fn advance(&mut self, slots: u64) {
        self.position = self.position.after(slots * CACHE_LINE);
        if self.is_waited_for {
            self.publisher.shared.tail.store(self.position.get(), Release);
        }
    }

    /// `Follower::is_whole`. Nothing is held here, so that the reader's `Tail` is its position.
    fn is_whole(&self) -> bool {
        let is_whole = is_whole(&self.publisher, self.position);
        assert!(is_whole || !self.is_waited_for, "a reader that is waited for is overrun");
        is_whole
    }

    /// `Follower::look`
    fn look(&mut self) -> Newest {
        let (found, seen) = (Newest::of(&self.publisher), self.seen);
        assert!(found.head >= seen.head, "an honest publisher is called a violator: Head in {found:?}");
        assert!(
            found.claimed >= seen.claimed && found.claimed <= found.head.after(CAPACITY),
            "an honest publisher is called a violator: Claimed in {found:?}"
        );
        assert!(
            found.latest >= seen.latest && found.latest <= found.head,
            "an honest publisher is called a violator: Latest in {found:?}"
        );
        self.seen = found;
        found
    }

    /// `Follower::jump`
    fn jump(&mut self) {
        let Newest { latest, head, .. } = self.look();
        let is_whole = is_whole(&self.publisher, latest);
        let is_there = is_whole && latest > self.position || without(Without::LookAtLatest);
        let to = if is_there { latest } else { head };
        assert!(to > self.position, "a jump goes backwards, or nowhere");
        self.go_to(to, head);
    }

    /// `Follower::skip_to_latest`
    fn skip_to_latest(&mut self) -> bool {
        let Newest { latest, head, .. } = self.look();
        if latest > self.position && is_whole(&self.publisher, latest) {
            self.go_to(latest, head);
        } else {
            self.head = head.max(self.head);
        }
        latest >= self.position && head > latest
    }

    /// `Follower::go_to`
    fn go_to(&mut self, position: Position, head: Position) {
        assert!(position >= self.position && head >= position, "a jump goes backwards");
        self.skipped += position.since(self.position) / CACHE_LINE;
        (self.position, self.head) = (position, head);
    }

    /// `Feed::end`, after all that is left was taken.
    fn end(&mut self) {
        let missed = self.publisher.load(Word::Messages).saturating_sub(self.sequence);
        if missed <= self.skipped {
            self.missed += missed;
        }
    }
}

/// A publisher and one reader.
#[derive(Debug, Clone, Copy)]
struct Story {
    /// Published before the reader's first look.
    before: &'static [Loan],
    /// Published meanwhile.
    meanwhile: &'static [Loan],
    /// Slots claimed ahead.
    ahead: u64,
    wanted: Wanted,
    /// Calls of the reader meanwhile.
    calls: u64,
    is_waited_for: bool,
    preemptions: usize,
}

/// Runs the executions in which the two are preempted so many times at most.
fn check(without: Without, story: Story) {
    WITHOUT.set(without);
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    builder.preemption_bound = Some(story.preemptions);
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        let Story { before, meanwhile, ahead, wanted, calls, is_waited_for, .. } = story;
        let shared = Arc::new(Shared::default());
        let mut publisher = Publisher::new(&shared, ahead, is_waited_for);
        for loan in before {
            assert!(publisher.publish(*loan));
        }
        let mut reader = Reader::new(&shared, is_waited_for);
        let publishing = thread::spawn(move || {
            for loan in meanwhile {
                if !publisher.publish(*loan) {
                    break;
                }
            }
            publisher.sequence
        });
        for _ in 0..calls {
            reader.poll(wanted);
        }
        let (received, missed) = (reader.received, reader.missed);
        let sent = publishing.join().unwrap();
        assert!(received + missed <= sent, "{received} and {missed} of {sent}");
        // The end of file was read: the rest is what the ring has.
        while reader.poll(wanted) {}
        if wanted == Wanted::Next {
            reader.end();
            assert_eq!(reader.received + reader.missed, sent, "{} missed", reader.missed);
        }
    });
    println!("{} executions", executions.load(Relaxed));
}

/// A reader at the start of a ring that is about to be overwritten.
const OVERRUN: Story = Story {
    before: &[record(2)],
    meanwhile: &[record(2)],
    ahead: 0,
    wanted: Wanted::Next,
    calls: 1,
    is_waited_for: false,
    preemptions: 2,
};
/// A reader that meets a second overrun, or none.
const TWICE: Story = Story { before: &[record(1), record(1)], meanwhile: &[record(2), record(1)], ..OVERRUN };
/// The same, where each loan is more than what is published of it, if anything is.
const LENT: Story = Story { meanwhile: &[DROPPED, TRUNCATED, CONTROL], ..OVERRUN };
/// A slot is claimed ahead.
const AHEAD: Story = Story { ahead: 1, meanwhile: &[TRUNCATED, CONTROL], calls: 2, ..OVERRUN };
/// A reader that begins with an empty ring, and wants all.
const FRESH: Story =
    Story { before: &[], meanwhile: &[record(2), record(1)], calls: 2, preemptions: 3, ..OVERRUN };
/// The same, where the second record needs no claim of its own.
const FRESH_AHEAD: Story = Story { meanwhile: &[record(1), record(1)], ahead: 1, ..FRESH };
/// The same, where the second claim is more than a ring's length from the start.
const FRESH_CONTROL: Story = Story { meanwhile: &[LONG_CONTROL, LONG_CONTROL], ..FRESH };
/// A reader that wants the newest of records, of which the last two have no payload.
const LATEST: Story = Story { wanted: Wanted::Latest, meanwhile: &[record(1), CONTROL], ..OVERRUN };
/// A reader that is waited for, while a slot is claimed ahead.
const WAITED_FOR: Story = Story {
    before: &[record(1)],
    meanwhile: &[record(1), CONTROL, record(1)],
    ahead: 1,
    calls: 2,
    is_waited_for: true,
    ..OVERRUN
};

#[test]
fn records_are_whole_or_known_to_be_overrun() {
    check(Without::Nothing, OVERRUN);
}

#[test]
fn second_overrun_is_another_jump() {
    check(Without::Nothing, TWICE);
}

#[test]
fn loans_that_are_dropped_or_truncated_are_claimed_as_a_whole() {
    check(Without::Nothing, LENT);
}

#[test]
fn space_claimed_ahead_is_claimed() {
    check(Without::Nothing, AHEAD);
}

#[test]
fn records_are_there_when_they_are_published() {
    check(Without::Nothing, FRESH);
}

#[test]
fn records_without_a_payload_are_there_too() {
    check(Without::Nothing, FRESH_CONTROL);
}

#[test]
fn records_that_need_no_claim_are_there_too() {
    check(Without::Nothing, FRESH_AHEAD);
}

#[test]
fn newest_record_is_whole_or_passed_over() {
    check(Without::Nothing, LATEST);
}

#[test]
fn reader_that_is_waited_for_is_never_overrun() {
    check(Without::Nothing, WAITED_FOR);
}

#[test]
#[should_panic(expected = "a torn")]
fn claim_needs_its_fence() {
    check(Without::ClaimsFence, OVERRUN);
}

#[test]
#[should_panic(expected = "Claimed in")]
fn mark_is_stored_with_release() {
    check(Without::ReleaseOfClaim, FRESH_CONTROL);
}

#[test]
#[should_panic(expected = "a torn")]
fn bytes_are_claimed_before_they_are_written() {
    check(Without::ClaimBeforeWriting, OVERRUN);
}

#[test]
#[should_panic(expected = "an honest publisher is called a violator")]
fn head_is_stored_with_release() {
    check(Without::ReleaseOfHead, FRESH);
}

#[test]
#[should_panic(expected = "Latest in")]
fn latest_is_stored_with_release() {
    check(Without::ReleaseOfLatest, FRESH_AHEAD);
}

#[test]
#[should_panic(expected = "Latest in")]
fn latest_is_stored_after_head() {
    check(Without::HeadBeforeLatest, LENT);
}

#[test]
#[should_panic(expected = "a torn")]
fn look_at_the_mark_needs_its_fence() {
    check(Without::AcquireOfWhole, OVERRUN);
}

#[test]
#[should_panic(expected = "an honest publisher is called a violator")]
fn marks_are_loaded_with_acquire() {
    check(Without::AcquireOfNewest, FRESH);
}

#[test]
#[should_panic(expected = "Latest in")]
fn latest_is_loaded_before_head() {
    check(Without::LatestLoadedFirst, FRESH);
}

#[test]
#[should_panic(expected = "Claimed in")]
fn claimed_is_loaded_before_head() {
    check(Without::ClaimedLoadedFirst, FRESH_CONTROL);
}

#[test]
#[should_panic(expected = "an honest publisher is called a violator")]
fn header_is_judged_after_the_look_at_the_mark() {
    check(Without::LookBeforeJudging, OVERRUN);
}

#[test]
#[should_panic(expected = "a torn payload")]
fn payload_needs_a_look_of_its_own() {
    check(Without::LookAfterPayload, OVERRUN);
}

#[test]
#[should_panic(expected = "a jump goes backwards")]
fn jump_never_goes_backwards() {
    check(Without::LookAtLatest, LENT);
}

#[test]
#[should_panic(expected = "a reader that is waited for is overrun")]
fn no_more_is_claimed_ahead_than_is_released() {
    check(Without::LimitAhead, WAITED_FOR);
}
