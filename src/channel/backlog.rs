//! [`Backlog`]: messages that came while a reply was awaited, kept for `recv`.

use std::collections::VecDeque;

use crate::{
    channel::{Message, Payload, RequestId},
    error::{Error, Result},
    socket::link::Link,
    wait::Outcome,
};

/// Limits of the messages that are kept while a reply is awaited: messages, bytes, descriptors.
const KEPT_MESSAGES: usize = 64;
const KEPT_BYTES: usize = 4 << 20;
const KEPT_FDS: usize = 256;

/// Messages that are received next, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<Message>);

/// Messages that were received, and dropped for a newer one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeftOut {
    pub(crate) count: u64,
    /// Messages that were missed before them.
    pub(crate) missed: u64,
}

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

    /// Puts a message back that is older than all others.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.0.push_front(message);
    }

    /// The oldest message that is no reply.
    pub(crate) fn take_unasked(&mut self) -> Option<Message> {
        let at = self.0.iter().position(|message| message.in_reply_to().is_none())?;
        self.0.remove(at)
    }

    /// True if a message with a payload is kept that is no reply.
    pub(crate) fn has_payload(&self) -> bool {
        self.0.iter().any(|message| message.in_reply_to().is_none() && message.payload().is_some())
    }

    /// The newest message with a payload, without the messages before it, of which only replies are kept.
    pub(crate) fn take_latest(&mut self) -> Option<(Message, LeftOut)> {
        let is_wanted = |message: &Message| message.in_reply_to().is_none() && message.payload().is_some();
        let at = self.0.iter().rposition(is_wanted)?;
        let message = self.0.remove(at)?;
        let behind = self.0.split_off(at);
        let left_out = self.leave_out();
        self.0.extend(behind);
        Some((message, left_out))
    }

    /// Drops all messages but replies.
    pub(crate) fn leave_out(&mut self) -> LeftOut {
        let mut left_out = LeftOut::default();
        self.0.retain(|message| {
            let is_reply = message.in_reply_to().is_some();
            if !is_reply {
                left_out.count = left_out.count.saturating_add(1);
                left_out.missed = left_out.missed.saturating_add(message.missed());
            }
            is_reply
        });
        left_out
    }

    /// The request of this number whose reply is kept.
    pub(crate) fn request(&self, number: u64) -> Option<RequestId> {
        self.0.iter().filter_map(Message::in_reply_to).find(|request| request.sequence == number)
    }

    /// Receives until the reply to `request` is here, and keeps what comes before it. A request that times out is cancelled.
    pub(crate) fn wait_reply(
        &mut self,
        link: &Link,
        request: RequestId,
        mut receive: impl FnMut() -> Result<Message>,
    ) -> Result<Message> {
        if let Some(reply) = self.kept_reply(link, request)? {
            return Ok(reply);
        }
        loop {
            self.check_room()?;
            let received = receive();
            if received.as_ref().is_err_and(Error::is_timeout) {
                request.cancel(link);
            }
            if let Some(reply) = self.sort(request, received?) {
                return Ok(reply);
            }
        }
    }

    /// The reply to `request`, if it is here; keeps what comes before it.
    pub(crate) fn find_reply(
        &mut self,
        link: &Link,
        request: RequestId,
        mut find: impl FnMut() -> Result<Outcome<Message>>,
    ) -> Result<Outcome<Message>> {
        if let Some(reply) = self.kept_reply(link, request)? {
            return Ok(Outcome::Done(reply));
        }
        loop {
            self.check_room()?;
            match find()? {
                Outcome::Done(message) => {
                    if let Some(reply) = self.sort(request, message) {
                        return Ok(Outcome::Done(reply));
                    }
                }
                nothing => return Ok(nothing),
            }
        }
    }

    /// The reply to `request` if it is kept; an error if it is neither kept nor still to come.
    fn kept_reply(&mut self, link: &Link, request: RequestId) -> Result<Option<Message>> {
        let at = self.0.iter().position(|message| message.in_reply_to() == Some(request));
        match at.and_then(|at| self.0.remove(at)) {
            Some(reply) => Ok(Some(reply)),
            None if request.is_open(link) => Ok(None),
            None => Err(Error::UnknownRequest),
        }
    }

    /// An error if no more may be kept.
    fn check_room(&self) -> Result<()> {
        let is_full = self.0.len() >= KEPT_MESSAGES
            || self.0.iter().map(|message| message.fds().len()).sum::<usize>() >= KEPT_FDS
            || self.0.iter().map(Message::len).sum::<usize>() >= KEPT_BYTES;
        if is_full { Err(Error::Backlog) } else { Ok(()) }
    }

    /// Gives the message back if it is the reply to `request`, and keeps any other.
    fn sort(&mut self, request: RequestId, message: Message) -> Option<Message> {
        if message.in_reply_to() == Some(request) {
            return Some(message);
        }
        self.keep(message);
        None
    }

    /// Keeps a message. Its payload is copied out of the ring while the backlog has less than 4 MiB: the reply may need all of
    /// the ring.
    fn keep(&mut self, mut message: Message) {
        let kept: usize = self.0.iter().map(Message::len).sum();
        if kept.saturating_add(message.len()) <= KEPT_BYTES {
            message.detach();
        }
        // A subscription has ended where its payloads are not whole: the next call reports that.
        if message.payload().is_none_or(Payload::is_whole) {
            self.0.push_back(message);
        }
    }
}
