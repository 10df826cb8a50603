//! Plain numbers for the user: counts, limits, and payloads that are held.

use std::time::Duration;

use crate::{
    channel::Control,
    error::{Error, Result},
};

/// Counters of a channel since it was established. A half counts its own side; the others stay 0.
///
/// ```
/// let (mut a, mut b) = sealane::Channel::pair()?;
/// a.send(b"hello")?;
/// b.recv()?;
/// assert_eq!((a.stats().messages_sent, b.stats().messages_received), (1, 1));
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages committed.
    pub messages_sent: u64,
    /// Messages delivered.
    pub messages_received: u64,
    /// Payload and control bytes committed.
    pub bytes_sent: u64,
    /// Payload and control bytes delivered.
    pub bytes_received: u64,
    /// Packets of messages sent: each cost a system call.
    pub packets_sent: u64,
    /// Packets of messages received: each cost a system call.
    pub packets_received: u64,
    /// Descriptors sent.
    pub fds_sent: u64,
    /// Descriptors received.
    pub fds_received: u64,
    /// Times that the sender woke a sleeping receiver.
    pub doorbells_sent: u64,
    /// Times that the receiver was woken, or the sender for room.
    pub doorbells_received: u64,
    /// Times that a blocking call asked the kernel to sleep.
    pub sleeps: u64,
    /// Times that spinning spared a sleep.
    pub spins_paid: u64,
    /// Times that a message had to wait for room.
    pub waits_for_space: u64,
    /// Replies that came after their request was cancelled, and were dropped.
    pub late_replies: u64,
    /// Most bytes of our ring that were in use at once, when a message was committed. Padding before large payloads counts.
    pub ring_high_water: u64,
}

impl Stats {
    /// Both halves of a channel.
    pub(crate) fn merged(self, other: Self) -> Self {
        let add = u64::wrapping_add;
        Self {
            messages_sent: add(self.messages_sent, other.messages_sent),
            messages_received: add(self.messages_received, other.messages_received),
            bytes_sent: add(self.bytes_sent, other.bytes_sent),
            bytes_received: add(self.bytes_received, other.bytes_received),
            packets_sent: add(self.packets_sent, other.packets_sent),
            packets_received: add(self.packets_received, other.packets_received),
            fds_sent: add(self.fds_sent, other.fds_sent),
            fds_received: add(self.fds_received, other.fds_received),
            doorbells_sent: add(self.doorbells_sent, other.doorbells_sent),
            doorbells_received: add(self.doorbells_received, other.doorbells_received),
            sleeps: add(self.sleeps, other.sleeps),
            spins_paid: add(self.spins_paid, other.spins_paid),
            waits_for_space: add(self.waits_for_space, other.waits_for_space),
            late_replies: add(self.late_replies, other.late_replies),
            ring_high_water: self.ring_high_water.max(other.ring_high_water),
        }
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &mut u64, n: usize) {
    *counter = counter.wrapping_add(crate::protocol::layout::to_u64(n));
}

/// The limits of one message in the direction of a half: for a sender those of messages that it sends, for a receiver those
/// of messages that it receives. A channel has the limits of its sender.
///
/// ```
/// let (a, _b) = sealane::Channel::builder().ring_capacity(1 << 20).max_fds(2).pair()?;
/// assert_eq!(a.limits().max_payload, (1 << 20) / 2 - 1088);
/// assert_eq!(a.limits().max_fds, 2);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of payload: half of the ring's capacity less 1,088, for a record's header and its control bytes; 0 without a ring.
    pub max_payload: usize,
    /// Control bytes.
    pub max_control: usize,
    /// Descriptors.
    pub max_fds: usize,
    /// Requests that may be without a reply at once, those that were cancelled included.
    pub max_requests: usize,
}

impl Limits {
    /// Whether control bytes and descriptors are within the limits.
    #[inline]
    pub(crate) fn check(&self, control: &Control<'_>) -> Result<()> {
        let Self { max_control, max_fds, .. } = *self;
        let (len, count) = (control.bytes.len(), control.fds.len());
        if len > max_control {
            return Err(Error::ControlTooLarge { len, max: max_control });
        }
        if count > max_fds {
            return Err(Error::TooManyFds { count, max: max_fds });
        }
        Ok(())
    }
}

/// Payloads that have been received and not yet released. They keep the ring's space behind them from being used again.
///
/// One small payload that is kept stops its sender when the rest of the ring is used up: then receiving ends with
/// [`Error::TimeoutHolding`], if it has a deadline. [`Payload`](crate::Payload) says how large a
/// ring should be.
///
/// ```
/// let (mut a, mut b) = sealane::Channel::pair()?;
/// a.loan(100)?.send()?;
/// let message = b.recv()?;
/// assert_eq!(b.receiver.held().count, 1);
/// drop(message);
/// assert_eq!(b.receiver.held().count, 0);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Payloads.
    pub count: u64,
    /// Their bytes in the ring, headers and padding included.
    pub bytes: u64,
    /// How long the oldest has been held, to within a few milliseconds, or a sixteenth of the time since something was held
    /// all along; `None` if there is none.
    pub oldest: Option<Duration>,
}
