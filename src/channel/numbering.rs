//! [`Numbering`]: the numbers of the messages to one peer, within its limits, and the requests among them.

use crate::{
    channel::{Control, Limits, ReplyToken},
    error::{Error, Result},
    protocol::MessageHeader,
    socket::link::Link,
};

#[derive(Debug)]
pub(crate) struct Numbering {
    /// The sequence number of the next message.
    pub(crate) sequence: u64,
    /// Those of the peer.
    pub(crate) limits: Limits,
}

#[expect(clippy::inline_always, reason = "a record must stay in registers on its way")]
impl Numbering {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { sequence: 0, limits }
    }

    /// The heading of the next message, if its control bytes and descriptors are within the peer's limits.
    #[inline]
    pub(crate) fn heading(
        &self,
        link: &Link,
        control: &Control<'_>,
        wants_reply: bool,
    ) -> Result<MessageHeader> {
        self.limits.check(control)?;
        let in_reply_to = match control.in_reply_to {
            Some(ReplyToken { channel, sequence }) => {
                if channel != link.id || !link.unanswered.contains(sequence) {
                    return Err(Error::UnknownRequest);
                }
                Some(sequence)
            }
            None => None,
        };
        Ok(MessageHeader::new(self.sequence, wants_reply, in_reply_to))
    }

    /// Notes a request, or a reply's request, before the message is sent: the peer may answer at once.
    #[inline(always)]
    pub(crate) fn begin(&self, link: &Link, heading: MessageHeader) -> Result<()> {
        let max = self.limits.max_requests;
        if heading.wants_reply() && !link.requests.ask(heading.sequence, max) {
            return Err(Error::TooManyRequests { max });
        }
        // The next request of the peer may come as soon as it has the reply, before this process goes on.
        if let Some(sequence) = heading.in_reply_to() {
            link.unanswered.remove(sequence);
        }
        Ok(())
    }

    /// Ends what [`begin`](Self::begin) began: the message was sent, or was not.
    #[inline(always)]
    pub(crate) fn end(&mut self, link: &Link, heading: MessageHeader, sent: bool) {
        if sent {
            self.sequence = self.sequence.wrapping_add(1);
            return;
        }
        if heading.wants_reply() {
            link.requests.withdraw(heading.sequence);
        }
        if let Some(sequence) = heading.in_reply_to() {
            link.unanswered.restore(sequence);
        }
    }
}
