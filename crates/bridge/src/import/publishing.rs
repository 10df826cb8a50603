//! [`Publishing`]: the messages of one sample on their way into the ring.

use std::time::Duration;

use sealane::Publisher;
use zenoh::bytes::ZBytes;

use crate::counts::{Counts, add};

/// Longest wait for slow subscribers before others are heard, and the end of the bridge.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Whether a call may wait for slow subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Wait,
    Try,
}

/// A payload as it came.
pub(super) enum Bytes<'b> {
    Slice(&'b [u8]),
    Sample(&'b ZBytes),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Slice(bytes) => bytes.len(),
            Self::Sample(bytes) => bytes.len(),
        }
    }

    fn copy_to(&self, mut to: &mut [u8]) {
        let mut copy = |from: &[u8]| {
            if let Some((part, rest)) = std::mem::take(&mut to).split_at_mut_checked(from.len()) {
                part.copy_from_slice(from);
                to = rest;
            }
        };
        match self {
            Self::Slice(bytes) => copy(bytes),
            Self::Sample(bytes) => bytes.slices().for_each(copy),
        }
    }
}

/// The messages of one sample on their way into the ring. Subscribers that sleep are not woken.
pub(super) struct Publishing<'p> {
    publisher: &'p mut Publisher,
    counts: &'p Counts,
    room: Room,
    /// Messages that were lost, which the next one tells.
    untold: &'p mut u64,
}

impl<'p> Publishing<'p> {
    pub(super) fn new(
        publisher: &'p mut Publisher,
        counts: &'p Counts,
        room: Room,
        untold: &'p mut u64,
    ) -> Self {
        Self { publisher, counts, room, untold }
    }

    /// Publishes one message. One that is too large for the ring is missed. False if there is no room for it yet.
    pub(super) fn publish(
        &mut self,
        control: &[u8],
        payload: Option<&Bytes<'_>>,
        without_fds: bool,
    ) -> sealane::Result<bool> {
        let len = payload.map_or(0, Bytes::len);
        let counters = &self.counts.counters;
        match self.try_publish(control, payload, len) {
            Ok(()) => {
                add(&counters.messages, 1);
                add(&counters.bytes, u64::try_from(len + control.len()).unwrap_or(u64::MAX));
                if without_fds {
                    add(&counters.without_fds, 1);
                }
            }
            Err(why) if why.is_timeout() || matches!(why, sealane::Error::Full) => return Ok(false),
            Err(why @ (sealane::Error::PayloadTooLarge { .. } | sealane::Error::ControlTooLarge { .. })) => {
                self.counts.refuse(&counters.refused, &why);
                *self.untold = self.untold.saturating_add(1);
            }
            Err(why) => return Err(why),
        }
        Ok(true)
    }

    fn try_publish(
        &mut self,
        control: &[u8],
        payload: Option<&Bytes<'_>>,
        len: usize,
    ) -> sealane::Result<()> {
        let may_wait = self.room == Room::Wait;
        // Not at the end: so the message behind one that was lost has its own number.
        self.publisher.lost(std::mem::take(self.untold));
        let Some(payload) = payload else {
            return if may_wait {
                self.publisher.send_timeout(control, PATIENCE)
            } else {
                self.publisher.try_send(control)
            };
        };
        let mut loan = if may_wait {
            self.publisher.loan_timeout(len, PATIENCE)?
        } else {
            self.publisher.try_loan(len)?.ok_or(sealane::Error::Full)?
        };
        payload.copy_to(&mut loan);
        match loan.try_send_later(control) {
            Ok(()) => Ok(()),
            Err(unsent) if may_wait && matches!(unsent.error(), sealane::Error::Full) => {
                unsent.into_loan().send_with_timeout(control, PATIENCE)
            }
            Err(unsent) => Err(unsent.into_error()),
        }
    }
}
