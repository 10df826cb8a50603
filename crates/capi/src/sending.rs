//! The sending half of a channel: its states, and its queue.

use std::{
    collections::VecDeque,
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use sealane::{Error, OwnedLoan, Sender};

use crate::{
    arguments::{Given, MAX_FDS, Timeout, duplicate_of},
    status::{Failure, Result},
    verbs::send_any,
};

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) state: SenderState,
    /// Messages that a pipe was given before there was a channel. They go first.
    pub(crate) queue: Queue,
}

/// An open loan. It has the sender, in a box, so that an address is moved and not the whole of it.
pub(crate) type Lent = OwnedLoan<Box<Sender>>;

/// Where the sender is.
#[derive(Debug)]
pub(crate) enum SenderState {
    Here(Box<Sender>),
    /// A loan is open, and has the sender.
    Lent(Lent),
    /// The channel was freed.
    Freed,
}

impl Sending {
    pub(crate) fn new(sender: Sender) -> Self {
        Self { state: SenderState::Here(Box::new(sender)), queue: Queue::default() }
    }

    pub(crate) fn sender(&mut self) -> Result<&mut Sender> {
        if !self.queue.messages.is_empty() {
            return Err(Failure::again("earlier messages of the pipe are still queued"));
        }
        self.state.sender()
    }

    /// Opens a loan.
    pub(crate) fn lend(&mut self, len: usize, timeout: Timeout) -> Result<()> {
        let sender = self.sender()?;
        if let Timeout::Try = timeout
            && !sender.has_space(len)?
        {
            return Err(Failure::again("the ring has no room for the loan"));
        }
        let SenderState::Here(sender) = mem::replace(&mut self.state, SenderState::Freed) else {
            return Err(freed());
        };
        match OwnedLoan::of(sender, len, timeout.duration()) {
            Ok(loan) => {
                self.state = SenderState::Lent(loan);
                Ok(())
            }
            Err(unsent) => {
                let failure = Failure::note(unsent.error());
                self.state = SenderState::Here(unsent.into_sender());
                Err(failure)
            }
        }
    }

    /// The open loan.
    pub(crate) fn loan(&mut self) -> Result<&mut Lent> {
        match &mut self.state {
            SenderState::Lent(loan) => Ok(loan),
            SenderState::Here(_) => Err(Failure::null("an open loan expected")),
            SenderState::Freed => Err(freed()),
        }
    }

    /// Ends the open loan by `end`, which gives its sender back, or, if it fails, the loan.
    pub(crate) fn end_loan<E>(
        &mut self,
        end: impl FnOnce(Lent) -> Result<Box<Sender>, (Lent, E)>,
    ) -> Result<Result<(), E>> {
        self.loan()?;
        let SenderState::Lent(loan) = mem::replace(&mut self.state, SenderState::Freed) else {
            return Err(freed());
        };
        match end(loan) {
            Ok(sender) => {
                self.state = SenderState::Here(sender);
                Ok(Ok(()))
            }
            Err((loan, error)) => {
                self.state = SenderState::Lent(loan);
                Ok(Err(error))
            }
        }
    }

    /// Ends the direction, after what was sent.
    pub(crate) fn end(&mut self) {
        self.state = SenderState::Freed;
        self.queue = Queue::default();
    }

    /// Sends what is queued, as far as there is room. What this channel refuses goes, with the reason, to `refused`: only now are
    /// the peer's limits known. If the peer is gone, nothing is queued any more; receiving says so.
    pub(crate) fn flush(&mut self, refused: &mut VecDeque<Failure>) -> Result<Progress> {
        while let Some(first) = self.queue.messages.front() {
            let sender = self.state.sender()?;
            let fds: Vec<BorrowedFd<'_>> = first.fds.iter().map(AsFd::as_fd).collect();
            match send_any(sender, Given { bytes: &first.bytes, fds: &fds }, Timeout::Try) {
                Err(failure) if failure.is_full() => return Ok(Progress::Blocked),
                Err(Failure::Library(Error::FdsInFlight)) => return Ok(Progress::Later),
                Err(Failure::Library(error)) if error.is_fatal() => self.queue = Queue::default(),
                sent_or_refused => {
                    self.queue.pop();
                    refused.extend(sent_or_refused.err());
                }
            }
        }
        Ok(Progress::Done)
    }
}

/// How far something came that never blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    /// A descriptor says when to go on.
    Blocked,
    /// Nothing says when to go on: after some milliseconds.
    Later,
}

impl SenderState {
    fn sender(&mut self) -> Result<&mut Sender> {
        match self {
            Self::Here(sender) => Ok(sender),
            Self::Lent(_) => Err(Failure::busy("a loan of this channel is open: send or free it first")),
            Self::Freed => Err(freed()),
        }
    }
}

/// Messages that wait for a channel, with copies of their descriptors. Bounded.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
    fds: usize,
}

#[derive(Debug)]
struct Queued {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

const MAX_QUEUED: usize = 64;
const MAX_QUEUED_BYTES: usize = 1 << 20;
const MAX_QUEUED_FDS: usize = MAX_FDS;

impl Queue {
    pub(crate) fn push(&mut self, given: Given<'_>) -> Result<()> {
        if given.fds.len() > MAX_QUEUED_FDS {
            return Err(Error::TooManyFds { count: given.fds.len(), max: MAX_QUEUED_FDS }.into());
        }
        let bytes = self.bytes.saturating_add(given.bytes.len());
        let fds = self.fds + given.fds.len();
        if self.messages.len() >= MAX_QUEUED || bytes > MAX_QUEUED_BYTES || fds > MAX_QUEUED_FDS {
            return Err(Failure::again("the pipe is not connected yet, and its queue has no room"));
        }
        let copies = given.fds.iter().map(|fd| duplicate_of(*fd)).collect::<Result<_>>()?;
        self.messages.push_back(Queued { bytes: given.bytes.to_vec(), fds: copies });
        (self.bytes, self.fds) = (bytes, fds);
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(first) = self.messages.pop_front() {
            self.bytes -= first.bytes.len();
            self.fds -= first.fds.len();
        }
    }
}

pub(crate) fn freed() -> Failure {
    Failure::Usage { errno: libc::EPIPE, text: "the channel was freed" }
}
