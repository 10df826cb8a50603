//! [`Published`]: a message where it lies.

use std::os::fd::OwnedFd;

use crate::{
    channel::{Message, Payload},
    memory::shared_slice::SharedSlice,
};

/// What [`Subscriber::recv_with`](crate::Subscriber::recv_with) shows of a message, where it lies.
///
/// ```no_run
/// # let mut subscriber = sealane::Subscriber::connect("/run/frames")?;
/// let brightness = subscriber.recv_with(|message| {
///     message.payload().map(|pixels| pixels.iter().map(u64::from).sum::<u64>())
/// })?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
pub struct Published<'m>(&'m Message);

impl<'m> Published<'m> {
    #[inline]
    pub(super) fn of(message: &'m Message) -> Self {
        Self(message)
    }

    /// The control bytes, in private memory.
    #[must_use]
    pub fn control(&self) -> &'m [u8] {
        self.0.control()
    }

    /// A view of the payload, if the message has one. The publisher may be writing there.
    #[must_use]
    pub fn payload(&self) -> Option<SharedSlice<'m, u8>> {
        self.0.payload().map(Payload::bytes)
    }

    /// The descriptors, which are closed after the reading.
    #[must_use]
    pub fn fds(&self) -> &'m [OwnedFd] {
        self.0.fds()
    }

    /// See [`Message::sequence`].
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence()
    }

    /// See [`Message::missed`].
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.missed()
    }

    /// See [`Message::epoch`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }
}
