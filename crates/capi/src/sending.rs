//! The sending half of a channel: its states, its verbs with each timeout, and the choice between a packet and the ring.

use std::{
    collections::VecDeque,
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use sealane::{Control, Error, Limits, Loan as SealaneLoan, OwnedLoan, ReplyToken, RequestId, Sender};

use crate::{
    arguments::{Given, Timeout, duplicate_of},
    channel::freed,
    loan::Loan,
    status::{Failure, Result},
};

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) state: SenderState,
    /// The handle of the last loan. There is at most one loan at a time.
    pub(crate) spare: Option<Box<Loan>>,
    /// What a pipe was given before there was a channel. It goes first.
    pub(crate) queue: Queue,
}

/// Where the sender is.
#[derive(Debug)]
pub(crate) enum SenderState {
    Here(Sender),
    /// A loan is open, and has the sender.
    Lent(OwnedLoan),
    /// The channel was freed.
    Freed,
}

impl Sending {
    pub(crate) fn new(sender: Sender) -> Self {
        Self { state: SenderState::Here(sender), spare: None, queue: Queue::default() }
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
        match sender.into_loan(len, timeout.duration()) {
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
    pub(crate) fn loan(&mut self) -> Result<&mut OwnedLoan> {
        match &mut self.state {
            SenderState::Lent(loan) => Ok(loan),
            SenderState::Here(_) => Err(Failure::null("an open loan expected")),
            SenderState::Freed => Err(freed()),
        }
    }

    /// Ends the open loan by `end`, which gives its sender back, or, if it fails, the loan.
    pub(crate) fn end_loan<E>(
        &mut self,
        end: impl FnOnce(OwnedLoan) -> Result<Sender, (OwnedLoan, E)>,
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

    /// Sends what is queued, as far as there is room.
    ///
    /// A message that this channel refuses is dropped, and the reason returned: only now are the peer's limits known.
    pub(crate) fn flush(&mut self) -> Result<Progress> {
        while let Some(first) = self.queue.messages.front() {
            let sender = self.state.sender()?;
            let fds: Vec<BorrowedFd<'_>> = first.fds.iter().map(AsFd::as_fd).collect();
            match send_any(sender, Given { bytes: &first.bytes, fds: &fds }, Timeout::Try) {
                Err(Failure::Library(Error::Full)) => return Ok(Progress::Blocked),
                Err(Failure::Library(Error::FdsInFlight)) => return Ok(Progress::Later),
                Err(Failure::Library(error)) if error.is_fatal() => {
                    self.queue = Queue::default();
                    return Err(error.into());
                }
                sent_or_refused => {
                    self.queue.pop();
                    sent_or_refused?;
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
            Self::Lent(_) => Err(Failure::busy("a loan of this channel is open: commit or free it first")),
            Self::Freed => Err(freed()),
        }
    }
}

pub(crate) fn send(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let control = given.control();
    Ok(match timeout {
        Timeout::Forever => sender.send(control),
        Timeout::Try => sender.try_send(control),
        Timeout::Within(time) => sender.send_timeout(control, time),
    }?)
}

pub(crate) fn request(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<RequestId> {
    let control = given.control();
    Ok(match timeout {
        Timeout::Forever => sender.request(control),
        Timeout::Try => sender.try_request(control),
        Timeout::Within(time) => sender.request_timeout(control, time),
    }?)
}

pub(crate) fn reply(sender: &mut Sender, number: u64, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let (token, control) = (token(sender, number)?, given.control());
    Ok(match timeout {
        Timeout::Forever => sender.reply(token, control),
        Timeout::Try => sender.try_reply(token, control),
        Timeout::Within(time) => sender.reply_timeout(token, control, time),
    }?)
}

/// The token of a request that waits for a reply.
fn token(sender: &Sender, number: u64) -> Result<ReplyToken> {
    sender.reply_token(number).ok_or(Failure::Library(Error::UnknownRequest))
}

/// [`send`], in a packet or through the ring.
pub(crate) fn send_any(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<()> {
    match in_the_ring(sender, given, timeout)? {
        None => send(sender, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.send_with(fds),
            Timeout::Try => loan.try_send_with(fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.send_with_timeout(fds, time),
        }?),
    }
}

/// [`request`], in a packet or through the ring.
pub(crate) fn request_any(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<RequestId> {
    match in_the_ring(sender, given, timeout)? {
        None => request(sender, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.request(fds),
            Timeout::Try => loan.try_request(fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.request_timeout(fds, time),
        }?),
    }
}

/// [`reply`], in a packet or through the ring.
pub(crate) fn reply_any(sender: &mut Sender, number: u64, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let token = token(sender, number)?;
    match in_the_ring(sender, given, timeout)? {
        None => reply(sender, number, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.reply(token, fds),
            Timeout::Try => loan.try_reply(token, fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.reply_timeout(token, fds, time),
        }?),
    }
}

/// From so many bytes on the ring is faster than a packet (docs/c.md has the figures), without descriptors and with some.
const RING_FROM: usize = 4096;
const RING_FROM_WITH_FDS: usize = 16 * 1024 + 1;

fn fits_a_packet(limits: &Limits, given: Given<'_>) -> bool {
    let ring_from = if given.fds.is_empty() { RING_FROM } else { RING_FROM_WITH_FDS };
    let len = given.bytes.len();
    // What only one of the two can carry goes there.
    len <= limits.max_control && (len < ring_from || len > limits.max_payload)
}

/// A loan that has the bytes, the descriptors that go with it, and the time that is left; None if a packet is better.
fn in_the_ring<'s, 'g>(
    sender: &'s mut Sender,
    given: Given<'g>,
    timeout: Timeout,
) -> Result<Option<(SealaneLoan<'s>, Control<'g>, Timeout)>> {
    if fits_a_packet(&sender.limits(), given) {
        return Ok(None);
    }
    let (begun, len) = (Instant::now(), given.bytes.len());
    let mut loan = match timeout {
        Timeout::Forever => sender.loan(len)?,
        Timeout::Try => sender.try_loan(len)?.ok_or(Error::Full)?,
        Timeout::Within(time) => sender.loan_timeout(len, time)?,
    };
    loan.copy_from_slice(given.bytes);
    let fds = Control::default().fds(given.fds.iter().copied());
    Ok(Some((loan, fds, timeout.after(begun))))
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
/// As many as one message can have (unix(7), SCM_MAX_FD).
const MAX_QUEUED_FDS: usize = 253;

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
