//! [`RecvBatch`]: many messages, received with the least effort for each.
//!
//! A message costs, apart from its bytes, a reference to the ring that its payload holds, a look at the clock, and a fence
//! when its space is released. A batch hands the reference on from message to message, and releases the space of many at
//! once.
//!
//! Invariant: the records in `unreleased` are adjacent, and were given out by this batch.

use std::{fmt, ops::Deref, os::fd::OwnedFd, sync::Arc};

use crate::{
    channel::{Backlog, Inbox, Message, Payload, ages::coarse_now},
    protocol::{Record, to_u64},
    ring::Span,
};

/// Space is released at the latest when it is this part of the ring, an eighth, or this number of records: a sender that
/// waits for it should not have to wait until it sleeps.
const PART: u64 = 8;
const RECORDS: u64 = 32;

/// The messages that have arrived, one by one: from [`Receiver::recv_batch`](crate::Receiver::recv_batch).
///
/// [`next`](Self::next) lends each message until the next one is asked for. The space of payloads that were not taken is
/// released together: when the batch is dropped, and before that whenever it is an eighth of the ring or 32 messages, or the
/// sender sleeps until there is space. So do not hold a batch while waiting for something else. One that is forgotten
/// ([`std::mem::forget`]) never gives back what it held, and so stops the sender, as a forgotten payload does.
///
/// A batch borrows the receiver only. Reply through the sender: `channel.sender`.
///
/// ```
/// use sealane::Channel;
///
/// let (mut a, mut b) = Channel::pair()?;
/// for number in 0..100_u64 {
///     let mut loan = a.loan(8)?;
///     loan.copy_from_slice(&number.to_le_bytes());
///     loan.send()?;
/// }
/// let (mut sum, mut count) = (0, 0);
/// while count < 100 {
///     let mut batch = b.receiver.recv_batch()?;
///     while let Some(message) = batch.next() {
///         sum += message.payload().unwrap().read::<u64>(0)?;
///         count += 1;
///     }
/// }
/// assert_eq!(sum, 4950);
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a batch gives out its messages by `next`"]
pub struct RecvBatch<'r> {
    inbox: &'r mut Inbox,
    backlog: &'r mut Backlog,
    /// The present message. Empty once it was taken.
    message: Message,
    stage: Stage,
    /// Ends when it is time to let the sender get a lead: the call that made the batch waits for that.
    rests: bool,
    /// The space of earlier messages that is still to be released, and the number of its records.
    unreleased: Span,
    records: u64,
}

/// Which message is the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first, which has not been given out.
    Waiting,
    First,
    /// A later one, which came through the ring. The clock was not read for it.
    Later,
}

impl<'r> RecvBatch<'r> {
    #[inline]
    pub(super) fn new(inbox: &'r mut Inbox, backlog: &'r mut Backlog, first: Message, rests: bool) -> Self {
        let unreleased = Span::default();
        Self { inbox, backlog, message: first, stage: Stage::Waiting, rests, unreleased, records: 0 }
    }

    /// Lends the next message. Never blocks, and makes no system call but to wake a sender.
    ///
    /// The first call always returns a message. `None` means that no more have arrived, or that an active sender
    /// should get [a lead](crate::Wait::Adaptive), for which the next [`recv_batch`](crate::Receiver::recv_batch)
    /// waits. A message that came through the socket, as those with descriptors do, or that was kept while a reply
    /// was awaited, is the first of a batch of its own. So receive again after `None`.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "each message borrows the batch, which no Iterator can say"
    )]
    pub fn next(&mut self) -> Option<BatchMessage<'_>> {
        if self.stage == Stage::Waiting {
            self.stage = Stage::First;
        } else {
            // Kept messages are older than all that is in the ring. A violation ends the channel, which the next call reports.
            if !self.backlog.is_empty() || (self.rests && self.inbox.should_rest()) {
                return None;
            }
            let record = match self.inbox.try_inline() {
                None if self.passes_padding() => self.inbox.try_inline(),
                record => record,
            };
            self.step(record?)?;
        }
        let is_noted = self.stage == Stage::First;
        Some(BatchMessage { message: &mut self.message, inbox: self.inbox, is_noted })
    }

    /// Passes padding, if that stands next. What the batch holds is released first, so that the padding is released in its
    /// turn.
    #[cold]
    fn passes_padding(&mut self) -> bool {
        self.release();
        self.inbox.consumer.passes_padding()
    }

    /// Goes to the message that is all in the ring's next record.
    #[inline]
    fn step(&mut self, record: Record) -> Option<()> {
        let Self { inbox, message, .. } = self;
        let extras = inbox.begin_inline(record).ok()?;
        let span = inbox.consumer.advance(record);
        // The reference to the ring is handed on, as another one would cost two atomic operations.
        let (intake, before) = match message.take_payload().and_then(Payload::into_ring) {
            Some((intake, before)) => (intake, Some(before)),
            None => (Arc::clone(inbox.consumer.intake()), None),
        };
        let payload = Payload::new(intake, span, record.payload_len());
        *message = Message::new(record.heading, inbox.link.id, extras, Some(payload));
        self.stage = Stage::Later;
        if let Some(before) = before {
            self.release_later(before);
        }
        Some(())
    }

    /// Keeps a record's space to be released with that of others.
    #[inline]
    fn release_later(&mut self, span: Span) {
        if self.records > 0 && span.start != self.unreleased.end {
            self.release();
        }
        if self.records == 0 {
            self.unreleased.start = span.start;
        }
        self.unreleased.end = span.end;
        self.records = self.records.wrapping_add(1);
        let intake = self.inbox.consumer.intake();
        let enough =
            self.records >= RECORDS || self.unreleased.len() >= to_u64(intake.peer.capacity()) / PART;
        if enough || intake.is_needed(self.unreleased.end) {
            self.release();
        }
    }

    #[cold]
    fn release(&mut self) {
        if self.records > 0 {
            self.inbox.consumer.intake().release(self.unreleased, self.records);
            self.records = 0;
        }
    }
}

/// Releases the space of the messages that were not taken. A first message that `next` has not lent is received next.
impl Drop for RecvBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.release();
        if self.stage == Stage::Waiting {
            self.backlog.put_back(self.message.take());
        }
    }
}

/// Prints the message's lengths, never its bytes.
impl fmt::Debug for RecvBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("message", &self.message)
            .field("to_release", &self.records)
            .finish_non_exhaustive()
    }
}

/// A message of a [`RecvBatch`], lent until the next one is asked for. Reads as a [`Message`].
///
/// Its space is released with that of others, unless it is taken out: as a whole, or only its descriptors or payload. There
/// is no `DerefMut`, so a message cannot be swapped with one of another batch.
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// for length in [10, 20, 30] {
///     a.loan(length)?.send()?;
/// }
/// let mut kept = Vec::new();
/// let mut batch = b.receiver.recv_batch()?;
/// while let Some(message) = batch.next() {
///     if message.payload().is_some_and(|payload| payload.len() > 15) {
///         kept.push(message.take());
///     }
/// }
/// drop(batch);
/// assert_eq!((kept.len(), kept[0].sequence()), (2, 1));
/// assert_eq!(b.receiver.held().count, 2);
/// # Ok::<(), sealane::Error>(())
/// ```
///
/// ```compile_fail,E0596
/// # let (_a, mut b) = sealane::Channel::pair()?;
/// # let (_c, mut d) = sealane::Channel::pair()?;
/// let (mut one, mut two) = (b.receiver.recv_batch()?, d.receiver.recv_batch()?);
/// std::mem::swap(&mut *one.next().unwrap(), &mut *two.next().unwrap());
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct BatchMessage<'b> {
    message: &'b mut Message,
    inbox: &'b mut Inbox,
    /// The time of receipt was noted when the batch began.
    is_noted: bool,
}

impl BatchMessage<'_> {
    /// Takes the message out of the batch. Its payload is held until it is dropped.
    #[must_use = "dropping a message releases its payload and closes its descriptors"]
    pub fn take(mut self) -> Message {
        self.note();
        self.message.take()
    }

    /// Takes the first descriptor out, see [`Message::take_fd`].
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.message.take_fd()
    }

    /// Takes the descriptors out, see [`Message::take_fds`].
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.message.take_fds()
    }

    /// Takes the payload out. It is held until it is dropped.
    #[must_use = "dropping a payload gives its bytes back to the sender"]
    pub fn take_payload(&mut self) -> Option<Payload> {
        self.note();
        self.message.take_payload()
    }

    /// Notes when a payload that may be kept was received, for [`Held::oldest`](crate::Held::oldest). The clock is too slow
    /// to be read for each message.
    fn note(&mut self) {
        if let Some(span) = self.message.payload().and_then(Payload::span)
            && !self.is_noted
        {
            let intake = self.inbox.consumer.intake();
            self.inbox.receipts.note(span, coarse_now(), || intake.tail());
        }
    }
}

impl Deref for BatchMessage<'_> {
    type Target = Message;

    #[inline]
    fn deref(&self) -> &Message {
        self.message
    }
}

impl fmt::Debug for BatchMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Channel, channel::DeliveryTimes, wait::Deadline};

    #[test]
    fn payloads_taken_out_of_a_batch_are_held_since_then() {
        type Take = fn(BatchMessage<'_>) -> Option<Payload>;
        let payload: Take = |mut message| message.take_payload();
        let whole: Take = |message| message.take().take_payload();
        for (take, go_on) in [(payload, false), (payload, true), (whole, true)] {
            let (mut sender, peer) = Channel::pair().unwrap();
            let (_, mut receiver) = peer.split();
            for _ in 0..3 {
                sender.loan(8).unwrap().send().unwrap();
            }
            let mut batch = receiver.recv_batch().unwrap();
            batch.next().unwrap();
            // The state as if the first message had been delivered long ago.
            batch.inbox.receipts = DeliveryTimes::default();
            let taken = take(batch.next().unwrap());
            if go_on {
                batch.next().unwrap();
            }
            drop(batch);
            let soon = Deadline::after(Duration::from_secs(20));
            while receiver.held().oldest == Some(Duration::ZERO) {
                assert!(!soon.passed(), "the clock ticks each few milliseconds, but nothing grows old");
            }
            drop(taken);
            assert_eq!(receiver.held().oldest, None);
        }
    }
}
