//! [`Batch`]: many messages, received with the least effort for each.
//!
//! What a message costs beside its bytes is a reference to the ring that its payload holds, the clock, and giving its space
//! back: a fence. Here one [`Message`] becomes the next, and the space of many is given back at once.

use std::fmt;

use crate::{
    channel::{ages::now, backlog::Backlog, inbox::Inbox, message::Message},
    protocol::{layout::to_u64, record::Record},
    ring::release::Span,
};

/// Space is given back at the latest when it is so large a part of the ring, an eighth, or is so many records': a sender that
/// waits for it should not have to wait until it sleeps.
const PART: u64 = 8;
const RECORDS: u64 = 32;

/// The messages that are here, one by one: from [`Receiver::recv_batch`](crate::Receiver::recv_batch).
///
/// Each is whole, and is there until the next one is asked for, or for as long as what is taken out of it. The space of those
/// payloads that were not taken is given back together: when the batch is dropped, and before that whenever it is an eighth
/// of the ring or 32 messages', or the sender sleeps until it has some. So do not hold a batch while waiting for something
/// else.
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
///     let mut batch = b.recv_batch()?;
///     while let Some(message) = batch.advance() {
///         sum += message.payload().unwrap().read::<u64>(0)?;
///         count += 1;
///     }
/// }
/// assert_eq!(sum, 4950);
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a batch gives its messages when asked to advance"]
pub struct Batch<'r> {
    inbox: &'r mut Inbox,
    backlog: &'r mut Backlog,
    /// There always is one, until the batch is dropped.
    message: Option<Message>,
    stage: Stage,
    /// Ends when it is time to let the sender get a lead: the call that made it waits for that.
    rests: bool,
    /// What came before and is still to be released: so many records, one behind the other.
    over: Span,
    records: u64,
}

/// How far the present message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is the first, and has not been given out.
    Waiting,
    /// It is the first.
    First,
    /// It is the record with this place.
    Later(Span),
}

impl<'r> Batch<'r> {
    #[inline]
    pub(super) fn new(inbox: &'r mut Inbox, backlog: &'r mut Backlog, first: Message, rests: bool) -> Self {
        let over = Span::default();
        Self { inbox, backlog, message: Some(first), stage: Stage::Waiting, rests, over, records: 0 }
    }

    /// The next message; the one before it is over, but for what was taken out of it. The first time there is one; `None` if
    /// there is no more now, or if a sender that goes on is to get [a lead](crate::Wait::Adaptive), for which the next
    /// [`recv_batch`](crate::Receiver::recv_batch) waits. Never blocks, makes no system call but to wake a sender.
    ///
    /// A batch goes on with messages that are in the ring. One that came through the socket, as those with descriptors do, or
    /// that was kept while a reply was awaited, is the first of a batch of its own; so after `None` receive again.
    #[inline]
    pub fn advance(&mut self) -> Option<&mut Message> {
        if self.stage == Stage::Waiting {
            self.stage = Stage::First;
        } else {
            // What is kept came before all that is in the ring. What is wrong ends the channel: the next call tells. And if it
            // is time to rest, the next call does.
            if !self.backlog.is_empty() || (self.rests && self.inbox.should_rest()) {
                return None;
            }
            let record = match self.inbox.try_inline() {
                None if self.passes_padding() => self.inbox.try_inline(),
                record => record,
            };
            self.step(record?)?;
        }
        self.message.as_mut()
    }

    /// Passes padding, if that is what stands next. What the batch holds is given back first, so that the padding is released
    /// in its turn.
    #[cold]
    fn passes_padding(&mut self) -> bool {
        self.give_back();
        self.inbox.consumer.passes_padding()
    }

    /// Makes the message the ring's next record, which is a whole one.
    #[inline]
    fn step(&mut self, record: Record) -> Option<()> {
        self.note_taken();
        let Self { inbox, message, .. } = self;
        let extras = inbox.begin_inline(record).ok()?;
        let span = inbox.consumer.take(record);
        let message = message.as_mut()?;
        let (intake, channel) = (inbox.consumer.intake(), inbox.link.id);
        let over = message.move_to(intake, record.heading, channel, extras, span, record.payload_len());
        self.stage = Stage::Later(span);
        if let Some(over) = over {
            self.put_by(over);
        }
        Some(())
    }

    /// Keeps a record's space to be given back with that of others.
    #[inline]
    fn put_by(&mut self, span: Span) {
        if self.records > 0 && span.start != self.over.end {
            self.give_back();
        }
        if self.records == 0 {
            self.over.start = span.start;
        }
        self.over.end = span.end;
        self.records = self.records.wrapping_add(1);
        let intake = self.inbox.consumer.intake();
        let enough = self.records >= RECORDS || self.over.len() >= to_u64(intake.peer.capacity()) / PART;
        if enough || intake.is_needed(self.over.end) {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        if self.records > 0 {
            self.inbox.consumer.intake().release(self.over, self.records);
            self.records = 0;
        }
    }

    /// If the payload was taken out it may be kept, and one may ask since when. The clock is too slow to be asked for each
    /// message.
    #[inline]
    fn note_taken(&mut self) {
        if let (Stage::Later(span), Some(message)) = (self.stage, &self.message)
            && message.payload().is_none()
        {
            let intake = self.inbox.consumer.intake();
            self.inbox.receipts.note(span, now(), || intake.tail());
        }
    }
}

/// Gives back the space of the messages, but for what was taken. If not even the first was asked for, it is received next.
impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.note_taken();
        self.give_back();
        if self.stage == Stage::Waiting
            && let Some(first) = self.message.take()
        {
            self.backlog.put_back(first);
        }
    }
}

/// Tells of the message, never its bytes.
impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("message", &self.message)
            .field("to_release", &self.records)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Channel, channel::ages::Receipts, wait::Deadline};

    #[test]
    fn what_is_taken_is_held_since_then() {
        for go_on in [false, true] {
            let (mut sender, peer) = Channel::pair().unwrap();
            let (_, mut receiver) = peer.split();
            for _ in 0..3 {
                sender.loan(8).unwrap().send().unwrap();
            }
            let mut batch = receiver.recv_batch().unwrap();
            batch.advance().unwrap();
            // As if the first were long ago.
            batch.inbox.receipts = Receipts::default();
            let taken = batch.advance().unwrap().take_payload();
            if go_on {
                batch.advance().unwrap();
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
