//! [`Sender`]: the sending half of a channel, as the user sees it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    channel::{
        Block, Control, Limits, Loan, Outbox, OwnedLoan, Peer, ReplyToken, RequestId, SendBatch, Stats,
        Unsent, Wake,
    },
    error::{Error, Result},
    ring::{Releases, Writer},
    socket::{death::Watch, link::Closer},
    sys::own_region::{ControlPage, OwnRing},
    wait::Spinner,
};

/// The sending half of a [`Channel`](crate::Channel).
///
/// Payloads are written in place: [`loan`](Self::loan) a part of the ring, fill it, [`send`](Loan::send) it. Control
/// messages and descriptors go by [`send`](Self::send).
///
/// # When the receiver is slow
/// | call | the ring, or the socket, is full |
/// |---|---|
/// | `loan`, `loan_slice`, `send`, `request`, `reply` | waits, as long as the peer lives |
/// | the same with `_timeout` | waits for its time, then [`Error::Timeout`] |
/// | `try_loan`, `try_loan_slice` | `None` |
/// | `try_send`, `try_request`, `try_reply` | [`Error::Full`], or [`Error::FdsInFlight`] |
/// | [`Loan::send`] | never waits: its room was reserved with the loan |
/// | [`Loan::send_with`], `request`, `reply` | wait only if they need a packet, as descriptors do |
///
/// Control messages still pass while the ring is full, and loans while the socket is.
///
/// # In an event loop
/// After a `try_…` or [`has_space`](Self::has_space) was refused, the descriptor ([`AsFd`]) becomes readable,
/// level-triggered, when trying again is worthwhile. It is one descriptor for loans and packets, so a later call may consume
/// the signal for an earlier one: before you wait, repeat every call that was refused. After [`Error::FdsInFlight`] there
/// may be no signal, if the peer of another channel does not read: then try again after some milliseconds.
///
/// # Who may block on whom
/// Two peers that both wait in `send`, `loan` or `call` for each other wait for ever; so do two threads of one. Where both
/// sides send much, let one of them use the `_timeout` or `try_` forms, or send and receive in two threads.
///
/// ```
/// let (mut a, mut b) = sealane::Channel::pair()?;
/// let mut loan = a.loan(1 << 20)?;
/// loan[0] = 1;
/// loan.send_with(b"a mebibyte")?;
/// let message = b.recv()?;
/// assert_eq!(message.payload().unwrap().bytes().get(0), Some(1));
/// # Ok::<(), sealane::Error>(())
/// ```
pub struct Sender {
    pub(super) writer: Writer,
    pub(super) out: Outbox,
    peer: Peer,
}

#[expect(clippy::inline_always, reason = "a loan must stay in registers on its way out")]
impl Sender {
    pub(crate) fn new(
        intake: Arc<Releases>,
        ring: OwnRing,
        words: ControlPage,
        limits: Limits,
        peer: Peer,
        spinner: Spinner,
    ) -> Self {
        let watch = Watch::new(peer.pidfd_shared());
        let writer = Writer::new(ring, words.clone(), intake.peer.clone());
        let out = Outbox::new(intake, words, limits, spinner, watch);
        Self { writer, out, peer }
    }

    /// Lends `len` bytes of the ring, 64-byte aligned, to be written and sent. Waits for room as long as the peer lives.
    ///
    /// The memory has old bytes of the ring. The peer can read it at once, sent or not: write nothing there that the peer must
    /// not know.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`], [`Error::Disconnected`], [`Error::Protocol`].
    #[doc(alias = "reserve")]
    #[doc(alias = "claim")]
    #[doc(alias = "grant")]
    #[doc(alias = "borrow")]
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.loan_slice(len)
    }

    /// Like [`loan`](Self::loan), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`loan`](Self::loan).
    pub fn loan_timeout(&mut self, len: usize, timeout: Duration) -> Result<Loan<'_>> {
        self.loan_slice_timeout(len, timeout)
    }

    /// Like [`loan`](Self::loan) if there is room; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    #[inline]
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        self.try_loan_slice(len)
    }

    /// Lends room for `count` values of `T`, as [`loan`](Self::loan) does for bytes.
    ///
    /// `T` may be aligned to 64 bytes at most and must have a size, which the compiler checks.
    ///
    /// ```compile_fail,E0080
    /// let (mut a, _b) = sealane::Channel::pair()?;
    /// a.loan_slice::<()>(1)?.send()?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    /// ```compile_fail,E0080
    /// use sealane::zerocopy::{FromBytes, IntoBytes, KnownLayout};
    ///
    /// #[derive(FromBytes, IntoBytes, KnownLayout)]
    /// #[repr(C, align(128))]
    /// struct Wide([u8; 128]);
    ///
    /// let (mut a, _b) = sealane::Channel::pair()?;
    /// a.loan_slice::<Wide>(1)?.send()?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Loan<'_, T>> {
        self.lend(count, Block::FOREVER, Wake::AtOnce)
    }

    /// Like [`loan_slice`](Self::loan_slice), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`loan`](Self::loan).
    pub fn loan_slice_timeout<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<Loan<'_, T>> {
        self.lend(count, Block::within(timeout), Wake::AtOnce)
    }

    /// Like [`loan_slice`](Self::loan_slice) if there is room; never blocks. `None` arms the descriptor.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    #[inline]
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Option<Loan<'_, T>>> {
        self.try_lend(count, Wake::AtOnce)
    }

    /// Whether a loan of `len` bytes would not block. `false` arms the descriptor; never blocks.
    ///
    /// # Errors
    /// Those of [`loan`](Self::loan).
    pub fn has_space(&mut self, len: usize) -> Result<bool> {
        let has_space = unless_full(self.reserve(len, Block::No))?.is_some();
        self.out.promised = has_space;
        Ok(has_space)
    }

    #[inline]
    pub(super) fn try_lend<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        wake: Wake,
    ) -> Result<Option<Loan<'_, T>>> {
        unless_full(self.lend(count, Block::No, wake))
    }

    #[inline(always)]
    pub(super) fn lend<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        block: Block,
        wake: Wake,
    ) -> Result<Loan<'_, T>> {
        // A product that overflows is too long for any ring.
        let len = count.saturating_mul(size_of::<T>());
        self.reserve(len, block)?;
        match self.writer.lend(count) {
            Some(reservation) => Ok(Loan::new(reservation, &mut self.out, wake)),
            None => Err(self.out.too_large(len)),
        }
    }

    /// Reserves room for a loan of `len` bytes.
    #[inline(always)]
    pub(super) fn reserve(&mut self, len: usize, block: Block) -> Result<()> {
        let size = self.writer.loan_size(len).ok_or_else(|| self.out.too_large(len))?;
        self.out.wait_for_space(&mut self.writer.producer, size, block)
    }

    /// Begins a batch: loans are sent as ever, but a sleeping receiver is woken only when the batch is dropped.
    ///
    /// A batch is the fastest way to send many small payloads. See [`SendBatch`].
    pub fn batch(&mut self) -> SendBatch<'_> {
        SendBatch::new(self)
    }

    /// Makes a loan that owns the sender and borrows nothing: for state machines, async code and other languages, which store
    /// a loan. Waits for room for at most `timeout`; with zero, looks once.
    ///
    /// The sender comes back, whatever happens to the [`OwnedLoan`].
    ///
    /// # Errors
    /// [`Unsent`], with the sender in it, and [`Error::Timeout`] or an error of [`loan`](Self::loan).
    #[expect(clippy::result_large_err, reason = "the sender comes back as it was")]
    pub fn into_loan(self, len: usize, timeout: Duration) -> Result<OwnedLoan, Unsent<Self>> {
        OwnedLoan::of(self, len, timeout)
    }

    /// Wakes the receiver for what a batch has sent, unless this is a fork's copy that the fork has not used.
    pub(super) fn wake_receiver(&mut self) {
        if self.out.space.link.is_ours() {
            self.out.flush_notification();
        }
    }

    /// Sends a message without a payload; waits while the socket is full, as long as the peer lives. Costs a system call.
    ///
    /// # Errors
    /// [`Error::ControlTooLarge`], [`Error::TooManyFds`], [`Error::Disconnected`], [`Error::UnknownRequest`] for a
    /// reply to another channel's request.
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.post(control, false, Block::FOREVER).map(drop)
    }

    /// Like [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`send`](Self::send).
    pub fn send_timeout<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.post(control, false, Block::within(timeout)).map(drop)
    }

    /// Like [`send`](Self::send) if there is room now; never blocks.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`], with the descriptor armed, or those of [`send`](Self::send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.post(control, false, Block::No).map(drop)
    }

    /// Sends a message that asks for a reply; waits as [`send`](Self::send) does. The reply comes as a message whose
    /// [`in_reply_to`](crate::Message::in_reply_to) is the identifier returned here.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`], or those of [`send`](Self::send).
    pub fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.post(control, true, Block::FOREVER)
    }

    /// Like [`request`](Self::request), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`request`](Self::request).
    pub fn request_timeout<'c>(
        &mut self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<RequestId> {
        self.post(control, true, Block::within(timeout))
    }

    pub(crate) fn post<'c>(
        &mut self,
        control: impl Into<Control<'c>>,
        wants_reply: bool,
        block: Block,
    ) -> Result<RequestId> {
        self.out.send_control(&mut self.writer.producer, &control.into(), wants_reply, block)
    }

    /// Like [`request`](Self::request) if there is room now; never blocks.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send) and [`request`](Self::request).
    pub fn try_request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.post(control, true, Block::No)
    }

    /// Replies to a request; waits as [`send`](Self::send) does. A reply with a payload is sent by
    /// [`Loan::reply`](crate::Loan::reply).
    ///
    /// # Errors
    /// [`Error::UnknownRequest`] if the request was answered before, or came from another channel; those of
    /// [`send`](Self::send).
    pub fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.send(control.into().in_reply_to(token))
    }

    /// Like [`reply`](Self::reply), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`reply`](Self::reply). The token is still good after a timeout.
    pub fn reply_timeout<'c>(
        &mut self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<()> {
        self.send_timeout(control.into().in_reply_to(token), timeout)
    }

    /// Like [`reply`](Self::reply) if there is room; never blocks.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::FdsInFlight`], with the descriptor armed and the token still good, or those of
    /// [`reply`](Self::reply).
    pub fn try_reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.try_send(control.into().in_reply_to(token))
    }

    /// The identifier of the next message, if that is a request.
    ///
    /// Where another thread receives, note it there before the request is sent: the reply may come at once.
    ///
    /// ```
    /// use std::collections::HashMap;
    ///
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// let mut questions = HashMap::new();
    /// questions.insert(a.sender.next_id().number(), "gain?");
    /// a.request("gain?")?;
    /// # let question = b.recv()?;
    /// # b.reply(question.reply_token().unwrap(), b"2.0")?;
    /// let reply = a.recv()?;
    /// assert_eq!(questions.remove(&reply.in_reply_to().unwrap().number()), Some("gain?"));
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn next_id(&self) -> RequestId {
        RequestId { channel: self.out.space.link.id, sequence: self.out.numbering.sequence }
    }

    /// The token of a request that was received on this channel, by its [number](ReplyToken::number). `None` if no such
    /// request waits for a reply.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.request(b"?")?;
    /// let number = b.recv()?.reply_token().unwrap().number();
    /// // Later, when the answer is known:
    /// let token = b.sender.reply_token(number).unwrap();
    /// b.reply(token, b"!")?;
    /// assert_eq!(b.sender.reply_token(number), None, "it has been answered");
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn reply_token(&self, number: u64) -> Option<ReplyToken> {
        let link = &self.out.space.link;
        link.unanswered.contains(number).then_some(ReplyToken { channel: link.id, sequence: number })
    }

    /// The process at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The counts of this half.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.out.space.stats
    }

    /// How large a message to the peer may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.out.numbering.limits
    }

    /// A handle to end the whole channel with, from any thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.out.space.link))
    }
}

/// `None` where there is no space.
#[inline]
fn unless_full<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::Full) => Ok(None),
        result => result.map(Some),
    }
}

/// Closes this direction only: the peer receives what was committed, then learns of the end. Our receiver stays open.
/// A copy in a fork that has not used it [closes nothing](crate#processes-as-they-are).
impl Drop for Sender {
    fn drop(&mut self) {
        self.out.space.link.close_sending();
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.out.space.link.space_rx.as_fd()
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("next_sequence", &self.out.numbering.sequence)
            .field("ring_used", &self.writer.producer.used())
            .field("ring_capacity", &self.writer.capacity())
            .field("gone", &self.out.space.peer_closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Builder, Channel, Error, protocol::Position};

    /// 2^63 bytes take 29 years at 10 GB/s; here both sides begin shortly before their end.
    #[test]
    fn sender_ends_its_channel_before_positions_overflow() {
        const RING: u64 = 3 * 4096;
        let builder = Builder::default().ring_capacity(3 * 4096);
        let (a, b) = builder.pair().unwrap();
        let ((mut sender, mut receiver), (mut peer, mut peers)) = (a.split(), b.split());
        let start = Position::END.get() - 6 * RING;
        sender.writer.producer.start_at(start);
        peers.inbox.consumer.start_at(start);
        let mut sent = 0_u32;
        let error = loop {
            match sender.loan(960).and_then(|loan| loan.send_with(&sent.to_le_bytes())) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            if sent > 1 {
                // One is kept in the ring: committed messages are delivered after the end.
                let message = peers.recv_timeout(Duration::from_secs(20)).unwrap();
                assert_eq!(message.control(), (sent - 2).to_le_bytes());
            }
        };
        assert!(matches!(error, Error::Disconnected), "{error:?}");
        assert!((30..60).contains(&sent), "some three rings, of {sent} records, before two from the end");
        for result in [sender.has_space(1).map(drop), sender.try_loan(1).map(drop), sender.send(b"")] {
            assert!(matches!(result, Err(Error::Disconnected)));
        }
        assert!(matches!(receiver.recv(), Err(Error::Disconnected)));
        assert_eq!(peers.recv().unwrap().control(), (sent - 1).to_le_bytes());
        assert!(matches!(peers.recv(), Err(Error::Disconnected)));
        assert!(matches!(peer.send(b""), Err(Error::Disconnected)));
    }

    #[test]
    fn kilobyte_of_control_bytes_always_rides() {
        // Rings of any multiple of the page; a record of the longest payload, and its control bytes, at every place.
        for pages in [1, 2, 3, 5] {
            let (mut a, mut b) = Channel::builder().ring_capacity(pages * 4096).pair().unwrap();
            let most = a.limits().max_payload;
            for n in 0..200 {
                let len = [most, 0, 1, most / 2][n % 4];
                let control = vec![7; [1024, 0, 1023, 64, 960][n % 5]];
                a.loan(len).unwrap().send_with(&control).unwrap();
                let message = b.recv().unwrap();
                assert_eq!((message.control(), message.payload().unwrap().len()), (&control[..], len));
            }
            assert_eq!((a.stats().packets_sent, b.stats().packets_received), (0, 0));
            // Longer ones ride where they fit before the ring's end; nothing else is in the ring.
            let (mut a, mut b) = Channel::builder().ring_capacity(pages * 4096).pair().unwrap();
            let room = pages * 4096 - 64 - most;
            for (control, packets) in [(room, 0), (room + 1, 1)] {
                a.loan(most).unwrap().send_with(&vec![7; control]).unwrap();
                assert_eq!(b.recv().unwrap().control(), vec![7; control]);
                assert_eq!(a.stats().packets_sent, packets, "{control} control bytes");
            }
        }
    }

    /// The receiver is awake and releases nothing, so each pause at the window is one that did not help.
    #[test]
    fn loans_that_were_promised_or_only_tried_do_not_pause() {
        let (a, mut b) = Builder::default().ring_capacity(64 << 10).pair().unwrap();
        let mut sender = a.split().0;
        sender.send(b"wakes it").unwrap();
        b.recv_timeout(Duration::from_secs(20)).unwrap();
        let size = sender.writer.loan_size(4096).unwrap();
        while sender.writer.producer.used() <= 40 << 10 {
            sender.try_loan(4096).unwrap().unwrap().send().unwrap();
        }
        let would_pause = |sender: &mut super::Sender| {
            assert!(sender.writer.producer.has_room(size).unwrap());
            sender.writer.producer.should_pace(size)
        };
        assert!(would_pause(&mut sender));
        sender.writer.producer.forget_free();
        assert!(sender.has_space(4096).unwrap());
        sender.writer.producer.forget_free();
        drop(sender.loan(4096).unwrap());
        assert!(would_pause(&mut sender), "it was promised");
        sender.writer.producer.forget_free();
        drop(sender.loan(4096).unwrap());
        assert!(!would_pause(&mut sender), "there was a pause, and it did not help");
    }
}
