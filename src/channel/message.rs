//! [`Message`]: a received message, whole.

use std::{fmt, mem, os::fd::OwnedFd};

use zerocopy::{Immutable, KnownLayout, TryFromBytes};

use crate::{
    channel::Payload,
    error::{CastError, Result},
    memory::aligned_bytes::AlignedBytes,
    protocol::MessageHeader,
    socket::{
        link::{Closer, Link},
        seqpacket::ReceivedFds,
    },
};

/// A received message: control bytes, descriptors and payload, each of them optional.
///
/// Control bytes are private to this process and 16-byte aligned, so types can be read in place. Descriptors are
/// close-on-exec; those that are not taken are closed with the message.
///
/// ```
/// use sealane::{Channel, Control};
///
/// let (mut a, mut b) = Channel::pair()?;
/// a.loan(5)?.send_with(Control::of(&[1_u32, 2, 3]))?;
///
/// let message = b.recv()?;
/// assert_eq!(message.control_as::<[u32; 3]>()?, &[1, 2, 3]);
/// assert_eq!(message.payload().map(|payload| payload.len()), Some(5));
/// assert_eq!(message.sequence(), 0);
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Message {
    heading: MessageHeader,
    channel: u64,
    /// Boxed, since most messages have none, and a message is moved often.
    extras: Option<Box<Attachments>>,
    payload: Option<Payload>,
}

/// The control bytes and descriptors of a message.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    pub(crate) control: AlignedBytes,
    pub(crate) fds: ReceivedFds,
    /// The number of descriptors announced, if some were lost to our own limit.
    pub(crate) lost: Option<usize>,
    pub(crate) story: Story,
}

/// The facts that a subscriber learns with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Story {
    /// Messages that were missed just before it.
    pub(crate) missed: u64,
    /// The source's run that it belongs to.
    pub(crate) epoch: u64,
}

impl Attachments {
    /// Those of a message that has control bytes only.
    pub(crate) fn control(control: AlignedBytes) -> Self {
        Self { control, ..Self::default() }
    }
}

impl Message {
    #[inline]
    pub(crate) fn new(
        heading: MessageHeader,
        channel: u64,
        extras: Option<Box<Attachments>>,
        payload: Option<Payload>,
    ) -> Self {
        Self { heading, channel, extras, payload }
    }

    /// Takes the message, and leaves an empty one in its place.
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::new(MessageHeader::default(), 0, None, None))
    }

    /// The control bytes, as the sender gave them. Their contents are not validated.
    #[must_use]
    #[inline]
    pub fn control(&self) -> &[u8] {
        self.extras.as_ref().map_or(&[], |extras| extras.control.as_slice())
    }

    /// The control bytes as a value of `T`, validated and not copied.
    ///
    /// # Errors
    /// [`CastError::Length`] if their length is not that of a `T`, [`CastError::Invalid`] if they are not a valid `T`.
    pub fn control_as<T: TryFromBytes + KnownLayout + Immutable>(&self) -> Result<&T> {
        const { assert!(align_of::<T>() <= 16, "control bytes are aligned to 16, no more") };
        let (expected, found) = (size_of::<T>(), self.control().len());
        if expected != found {
            return Err(CastError::Length { expected, found }.into());
        }
        let invalid = CastError::Invalid { expected: std::any::type_name::<T>() };
        T::try_ref_from_bytes(self.control()).map_err(|_| invalid.into())
    }

    /// The descriptors, in the order in which they were sent.
    #[must_use]
    #[inline]
    pub fn fds(&self) -> &[OwnedFd] {
        self.extras.as_ref().map_or(&[], |extras| &*extras.fds)
    }

    /// Takes the first descriptor of those that were not taken, see [`take_fds`](Self::take_fds). A single descriptor needs no
    /// allocation so.
    ///
    /// ```
    /// # use sealane::{Channel, Control};
    /// let (mut a, mut b) = Channel::pair()?;
    /// let file = std::fs::File::open("/dev/null").unwrap();
    /// a.send(Control::new(b"a file").fd(&file))?;
    /// let mut message = b.recv()?;
    /// assert!(message.take_fd().is_some());
    /// assert!(message.take_fd().is_none());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.extras.as_mut()?.fds.remove(0)
    }

    /// Takes the descriptors. Closing one may block without limit, for instance for a socket that lingers or a file system
    /// that does not answer.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.extras.as_mut().map(|extras| extras.fds.take()).unwrap_or_default()
    }

    /// The payload, if the message has one.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> Option<&Payload> {
        self.payload.as_ref()
    }

    /// Takes the payload.
    #[must_use]
    pub fn take_payload(&mut self) -> Option<Payload> {
        self.payload.take()
    }

    /// Bytes of the payload and the control bytes together.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::len).saturating_add(self.control().len())
    }

    /// Copies the payload out of the ring.
    pub(crate) fn detach(&mut self) {
        self.payload = self.payload.take().map(Payload::detach);
    }

    /// The token for [`Control::in_reply_to`](crate::Control::in_reply_to), if the sender waits for a reply.
    #[must_use]
    pub fn reply_token(&self) -> Option<ReplyToken> {
        let Self { channel, heading: MessageHeader { sequence, .. }, .. } = *self;
        self.heading.wants_reply().then_some(ReplyToken { channel, sequence })
    }

    /// The request that this message replies to, if it is a reply.
    #[must_use]
    pub fn in_reply_to(&self) -> Option<RequestId> {
        let channel = self.channel;
        self.heading.in_reply_to().map(|sequence| RequestId { channel, sequence })
    }

    /// Messages that a [`Subscriber`](crate::Subscriber) missed just before this one, because its publisher did not wait for it, or
    /// that were lost before they reached the publisher. 0 on a channel, which loses nothing.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.story.missed)
    }

    /// Notes that more messages were missed before it.
    pub(crate) fn add_missed(&mut self, count: u64) {
        if count > 0 {
            let story = &mut self.extras.get_or_insert_default().story;
            story.missed = story.missed.saturating_add(count);
        }
    }

    /// The run of the source that this message comes from, if a publisher passes it on
    /// ([`Publisher::epoch`](crate::Publisher::epoch)): another number says that the source was started again. 0 if the publisher
    /// does not say.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.story.epoch)
    }

    /// The number of this message among all that the peer has sent on this channel: 0, 1, 2 …
    ///
    /// A publisher's messages are numbered for all of its subscribers together; its replies to one of them by themselves.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.heading.sequence
    }
}

/// Prints lengths, never bytes.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("sequence", &self.heading.sequence)
            .field("control_len", &self.control().len())
            .field("fds", &self.fds().len())
            .field("payload", &self.payload)
            .field("wants_reply", &self.heading.wants_reply())
            .field("in_reply_to", &self.heading.in_reply_to())
            .finish_non_exhaustive()
    }
}

/// The right to reply to one request, on the channel from which it came.
///
/// [`number`](Self::number) is its plain form, for tables, logs and other languages;
/// [`Sender::reply_token`](crate::Sender::reply_token) makes a token of it again.
///
/// ```
/// use sealane::{Channel, Control};
/// # let (mut a, mut b) = Channel::pair()?;
/// # a.request(b"what time is it?")?;
/// let request = b.recv()?;
/// if let Some(token) = request.reply_token() {
///     b.reply(token, b"ten past nine")?;
/// }
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyToken {
    pub(crate) channel: u64,
    pub(crate) sequence: u64,
}

impl ReplyToken {
    /// The [`sequence`](Message::sequence) of the request among the peer's messages on this channel.
    #[must_use]
    pub fn number(self) -> u64 {
        self.sequence
    }
}

/// A request that was sent. Its reply names it: [`Message::in_reply_to`].
///
/// [`number`](Self::number) is its plain form, for tables, logs and other languages. Where another thread receives, note
/// [`Sender::next_id`](crate::Sender::next_id) there before the request is sent.
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// let id = a.request(b"?")?;
/// let token = b.recv()?.reply_token().unwrap();
/// b.reply(token, b"!")?;
/// assert_eq!(a.recv()?.in_reply_to(), Some(id));
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    pub(crate) channel: u64,
    pub(crate) sequence: u64,
}

/// Requests, for a thread that has neither half.
impl Closer {
    /// Cancels a request, as [`Receiver::cancel`](crate::Receiver::cancel) does. Does not end a call that waits for its reply.
    ///
    /// ```
    /// # let (mut a, _b) = sealane::Channel::pair()?;
    /// let question = a.request(b"gain?")?;
    /// let closer = a.closer();
    /// closer.cancel(question);
    /// assert_eq!(closer.request_id(question.number()), None);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn cancel(&self, request: RequestId) {
        if let Some(link) = self.0.upgrade() {
            request.cancel(&link);
        }
    }

    /// A request of this channel that waits for its reply, by its number. One whose reply is kept is found by
    /// [`Receiver::request_id`](crate::Receiver::request_id) only.
    #[must_use]
    pub fn request_id(&self, number: u64) -> Option<RequestId> {
        RequestId::open(&*self.0.upgrade()?, number)
    }
}

impl RequestId {
    /// The [`sequence`](Message::sequence) of the request among our messages on this channel.
    #[must_use]
    pub fn number(self) -> u64 {
        self.sequence
    }

    /// The open request of this number.
    pub(crate) fn open(link: &Link, number: u64) -> Option<Self> {
        let request = Self { channel: link.id, sequence: number };
        request.is_open(link).then_some(request)
    }

    /// Whether it is an open request of this channel.
    pub(crate) fn is_open(self, link: &Link) -> bool {
        self.channel == link.id && link.requests.is_open(self.sequence)
    }

    /// Drops its reply, if it is a request of this channel.
    pub(crate) fn cancel(self, link: &Link) {
        if self.channel == link.id {
            link.requests.cancel(self.sequence);
        }
    }
}
