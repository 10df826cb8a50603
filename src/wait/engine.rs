//! The wait of both halves: try, spin, arm, look again, read the socket, sleep.
//!
//! Owns the order of the steps ([`WaitState`]) and the loop over them ([`run`]), with deadline and budget. Each half
//! implements the steps ([`Waiter`]). A call that must not block takes the same steps, and ends where another one
//! would sleep.
//!
//! Invariant: between arming and sleeping, or refusing, there is a look at the peer's words. Either that look sees
//! the news, or the peer sees the armed word and rings ([`eventcount`](super::eventcount)).
//!
//! The state does no I/O. So `tests/models/order_model.rs` and `tests/models/room_model.rs` have it in their own
//! state, and try every result of a step. `tests/models/loom.rs` and `tests/models/loom_room.rs` run the loop.

use super::deadline::{Budget, Deadline};
use crate::error::{Error, Result};

/// Reads of a packet that is announced, about 0.2 µs each: longer than it takes to send one.
const EXPECTED_READS: u8 = 16;

/// The news that a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum News {
    /// Messages from ring and socket. The socket is read until it is empty.
    Message,
    /// Space in the ring, or in the socket. One descriptor signals both, so a doorbell of the armed epoch is left unread.
    Space,
    /// Space that the kernel signals: nothing is armed.
    Kernel,
}

/// The next step of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Tries to get the message or the space.
    Try,
    /// Looks whether the peer announces a packet.
    Expect,
    /// Reads the announced packet; reads left.
    ReadExpected(u8),
    /// The announcement was a false one.
    Forget,
    Spin,
    /// Reads the socket, and looks whether the peer was killed, while spinning.
    PollSocket,
    /// Arms the sleep word, if it is not armed. A peer that publishes later then rings.
    Arm,
    /// Looks at the peer's words once more.
    LookAgain,
    Read,
    Sleep,
    /// Reads the packet that ended the sleep.
    Awake,
    /// Counts the doorbells of earlier epochs.
    Count,
    /// Reads all but one of them; how many there are.
    Trim(u64),
    /// Arms the sleep word with a new epoch.
    Rearm(u64),
    TryAgain(u64),
    /// Looks whether there is space of the other kind.
    LookAtOther(u64),
    /// Reads the doorbells of earlier epochs; how many there are.
    Drain(u64),
}

/// The result of a spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpinResult {
    /// The news came.
    Ready,
    /// Time to read the socket, then to spin on.
    PollSocket,
    /// Time to sleep, or the deadline passed.
    GiveUp,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// Nothing was there, or was to be done.
    No,
    Yes,
    Counted(u64),
    Spun(SpinResult),
}

impl From<bool> for Came {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The result of a wait that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A [`Try`](Step::Try) or [`TryAgain`](Step::TryAgain) got it.
    Done,
    /// Spinning saw that something changed: the caller tries in its fastest way, and waits on if that gets nothing.
    Changed,
    /// Nothing is there; the descriptor is armed.
    Empty,
}

/// How far a call has come in waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WaitState {
    news: News,
    blocks: bool,
    step: Step,
}

impl WaitState {
    /// A call that waits.
    pub(crate) fn blocking(news: News) -> Self {
        Self { news, blocks: true, step: Step::Try }
    }

    /// A call that must not block. One for space has tried already: that may have been a system call.
    pub(crate) fn trying(news: News) -> Self {
        let step = if news == News::Message { Step::Try } else { Step::Count };
        Self { news, blocks: false, step }
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Moves on to the next step. Says if there is none.
    #[inline]
    #[expect(clippy::match_same_arms, reason = "the steps stand in their order")]
    pub(crate) fn advance(&mut self, came: Came) -> Option<End> {
        use Step::{
            Arm, Awake, Count, Drain, Expect, Forget, LookAgain, LookAtOther, PollSocket, Read, ReadExpected,
            Rearm, Sleep, Spin, Trim, Try, TryAgain,
        };
        let yes = came == Came::Yes;
        self.step = match self.step {
            Try | TryAgain(_) if yes => return Some(End::Done),
            Try if self.news == News::Kernel => Sleep,
            Try if !self.blocks => Arm,
            Try if self.news == News::Message => Expect,
            Try => Spin,
            Expect if yes => ReadExpected(EXPECTED_READS),
            Expect => Spin,
            ReadExpected(_) if yes => Try,
            ReadExpected(left) if left > 1 => ReadExpected(left.saturating_sub(1)),
            ReadExpected(_) => Forget,
            Forget => Spin,
            Spin => match came {
                Came::Spun(SpinResult::Ready) => {
                    self.step = Try;
                    return Some(End::Changed);
                }
                Came::Spun(SpinResult::PollSocket) => PollSocket,
                _ => Arm,
            },
            PollSocket | Awake => Try,
            // If it was armed before, the last try was the look.
            Arm if yes => LookAgain,
            Arm => Read,
            LookAgain | Read if yes => Try,
            LookAgain => Read,
            Read if self.blocks => Sleep,
            Read => return Some(End::Empty),
            Sleep if yes => Try,
            Sleep => Awake,
            // One doorbell that is left signals as much as many, which could fill the socket: then it would not take the new
            // epoch's.
            Count => match came {
                Came::Counted(stale) if stale > 1 => Trim(stale),
                Came::Counted(stale) => Rearm(stale),
                _ => Rearm(0),
            },
            Trim(stale) if yes && stale > 2 => Trim(stale.saturating_sub(1)),
            Trim(_) if yes => Rearm(1),
            Trim(stale) => Rearm(stale),
            Rearm(stale) => TryAgain(stale),
            TryAgain(stale) => LookAtOther(stale),
            // The doorbells stay: they signal the other kind of space. So nothing is read before this look, and nothing of the
            // new epoch after it.
            LookAtOther(_) if yes => return Some(End::Empty),
            LookAtOther(0) => return Some(End::Empty),
            LookAtOther(stale) => Drain(stale),
            Drain(stale) if yes && stale > 1 => Drain(stale.saturating_sub(1)),
            Drain(_) => return Some(End::Empty),
        };
        None
    }
}

/// One half's part of the steps.
pub(crate) trait Waiter {
    type Item;

    /// Gets the message or the space, if it is there. Spends from the budget where a peer can make it loop.
    fn attempt(&mut self, budget: &mut Budget) -> Result<Option<Self::Item>>;

    /// Whether the peer's words announce a packet that was not read.
    fn is_announced(&mut self) -> bool {
        false
    }

    /// Ignores the announcement from here on.
    fn forget_announcement(&mut self) {}

    /// Looks at memory for a while, as long as that pays.
    fn spin(&mut self, deadline: Deadline) -> SpinResult;

    /// Reads the socket, or looks whether the peer was killed.
    fn poll_socket(&mut self) -> Result<()>;

    /// Arms the sleep word; true unless it was armed.
    fn arm(&mut self) -> bool;

    /// Whether the peer published something, seen from its words alone.
    fn has_news(&mut self) -> Result<bool>;

    /// Reads the socket once. True if there was something, or the end of file.
    fn read(&mut self) -> Result<bool>;

    /// Whether [`sleep`](Self::sleep) begins with a read itself.
    fn sleeps_in_a_read(&self, _deadline: Deadline) -> bool {
        false
    }

    /// Sleeps until the socket is readable, the peer is gone, or the deadline passes. True if the socket was read too.
    fn sleep(&mut self, deadline: Deadline) -> Result<bool>;

    /// Doorbells that wait in the socket.
    fn stale_doorbells(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// Arms the sleep word with a new epoch.
    fn rearm(&mut self) {}

    /// Like [`read`](Self::read), for a doorbell of an earlier epoch.
    fn read_stale(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// True if the news that another call waits for is there.
    fn has_other_news(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// The result of [`run`].
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// See [`End::Changed`].
    Changed,
    /// See [`End::Empty`].
    Empty,
    /// The budget is spent; the descriptor is armed, but there may be more to read.
    Spent,
}

/// Takes step after step. After [`Outcome::Changed`] it can be called again with the same state and budget.
///
/// # Errors
/// [`Error::Timeout`] if the budget's deadline has passed, and those of the steps.
pub(crate) fn run<W: Waiter>(
    waiter: &mut W,
    state: &mut WaitState,
    budget: &mut Budget,
) -> Result<Outcome<W::Item>> {
    let deadline = budget.deadline();
    loop {
        let came = match state.step() {
            // A peer that shows something again and again keeps a call in the loop, but not past its deadline.
            Step::Try if state.blocks && budget.spend().is_err() => return look_last(waiter, budget),
            Step::Try | Step::TryAgain(_) => match waiter.attempt(budget)? {
                Some(item) => return Ok(Outcome::Done(item)),
                None => Came::No,
            },
            Step::Expect => waiter.is_announced().into(),
            Step::Forget => {
                waiter.forget_announcement();
                if deadline.passed() {
                    return look_last(waiter, budget);
                }
                Came::No
            }
            Step::Spin => Came::Spun(waiter.spin(deadline)),
            Step::PollSocket => {
                waiter.poll_socket()?;
                Came::No
            }
            Step::Arm => waiter.arm().into(),
            Step::LookAgain => waiter.has_news()?.into(),
            // Only here may a call stop that does not block: it is armed and has looked since its last read.
            Step::Read if !state.blocks && !budget.spend()? => return Ok(Outcome::Spent),
            // The read that sleeps finds what this one would find, with one system call instead of two.
            Step::Read if state.blocks && waiter.sleeps_in_a_read(deadline) => Came::No,
            Step::ReadExpected(_) | Step::Read | Step::Awake => waiter.read()?.into(),
            Step::Sleep if deadline.passed() => return look_last(waiter, budget),
            Step::Sleep => waiter.sleep(deadline)?.into(),
            Step::Count => Came::Counted(waiter.stale_doorbells()?),
            Step::Trim(_) | Step::Drain(_) => waiter.read_stale()?.into(),
            Step::Rearm(_) => {
                waiter.rearm();
                Came::No
            }
            Step::LookAtOther(_) => waiter.has_other_news()?.into(),
        };
        match state.advance(came) {
            None | Some(End::Done) => {}
            Some(End::Changed) => return Ok(Outcome::Changed),
            Some(End::Empty) => return Ok(Outcome::Empty),
        }
    }
}

/// Tries once more after the deadline, since news that came before it must not be refused.
fn look_last<W: Waiter>(waiter: &mut W, budget: &mut Budget) -> Result<Outcome<W::Item>> {
    waiter.attempt(budget)?.map(Outcome::Done).ok_or(Error::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A half whose news comes in its sleep, and the calls that were made to it.
    #[derive(Default)]
    struct Calls {
        made: Vec<&'static str>,
        sleeps_in_a_read: bool,
    }

    impl Waiter for Calls {
        type Item = ();

        fn attempt(&mut self, _: &mut Budget) -> Result<Option<()>> {
            let slept = self.made.contains(&"sleep");
            self.made.push("attempt");
            Ok(slept.then_some(()))
        }

        fn spin(&mut self, _: Deadline) -> SpinResult {
            SpinResult::GiveUp
        }

        fn poll_socket(&mut self) -> Result<()> {
            Ok(())
        }

        fn arm(&mut self) -> bool {
            self.made.push("arm");
            true
        }

        fn has_news(&mut self) -> Result<bool> {
            self.made.push("look");
            Ok(false)
        }

        fn read(&mut self) -> Result<bool> {
            self.made.push("read");
            Ok(false)
        }

        fn sleeps_in_a_read(&self, _: Deadline) -> bool {
            self.sleeps_in_a_read
        }

        fn sleep(&mut self, _: Deadline) -> Result<bool> {
            self.made.push("sleep");
            Ok(true)
        }
    }

    #[test]
    fn sleep_that_reads_is_the_only_read_of_a_call_that_waits() {
        let calls = |sleeps_in_a_read, mut state, mut budget| {
            let mut half = Calls { sleeps_in_a_read, ..Calls::default() };
            run(&mut half, &mut state, &mut budget).unwrap();
            half.made
        };
        let waiting =
            |reads| calls(reads, WaitState::blocking(News::Message), Budget::until(Deadline::Never));
        assert_eq!(waiting(false), ["attempt", "arm", "look", "read", "sleep", "attempt"]);
        assert_eq!(waiting(true), ["attempt", "arm", "look", "sleep", "attempt"]);
        // A call that must not wait reads in any case, as it says that nothing is there.
        let trying = calls(true, WaitState::trying(News::Message), Budget::once());
        assert_eq!(trying, ["attempt", "arm", "look", "read"]);
    }
}
