//! [`Backlog`]: messages that came while a reply was awaited, kept for `recv`.

use std::collections::VecDeque;

use super::message::{Message, RequestId};

/// Limits of the messages that are kept while a reply is awaited: messages, bytes, descriptors.
const KEPT_MESSAGES: usize = 64;
const KEPT_BYTES: usize = 4 << 20;
const KEPT_FDS: usize = 256;

/// Messages that are received next, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<Message>);

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest message.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Message> {
        if self.0.is_empty() { None } else { self.0.pop_front() }
    }

    /// The reply to `request`, if it is here.
    pub(crate) fn take_reply(&mut self, request: RequestId) -> Option<Message> {
        let at = self.0.iter().position(|message| message.in_reply_to() == Some(request))?;
        self.0.remove(at)
    }

    /// Puts a message back that is older than all others.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.0.push_front(message);
    }

    /// Whether no more may be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= KEPT_MESSAGES
            || self.0.iter().map(|message| message.fds().len()).sum::<usize>() >= KEPT_FDS
            || self.0.iter().map(Message::len).sum::<usize>() >= KEPT_BYTES
    }

    /// Keeps a message. Its payload is copied out of the ring while the backlog has less than 4 MiB: the reply may need all of
    /// the ring.
    pub(crate) fn keep(&mut self, mut message: Message) {
        let kept: usize = self.0.iter().map(Message::len).sum();
        if kept.saturating_add(message.len()) <= KEPT_BYTES {
            message.detach();
        }
        self.0.push_back(message);
    }
}
