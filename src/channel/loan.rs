//! [`Loan`]: a part of our ring, lent to be filled and sent.

mod writer;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

pub use self::writer::LoanWriter;
use crate::{
    channel::{Block, Control, Outbox, OwnsSender, ReplyToken, RequestId, Wake},
    error::{Error, Result},
    ring::Reservation,
};

/// Memory of the ring, to be filled in place and sent. A true `&mut [T]`: no other process or thread can write there.
///
/// [`send`](Self::send) sends all of it, with old bytes of the ring where nothing was written: [`truncate`](Self::truncate)
/// it first if less was filled. A loan that is dropped sends nothing, and its space is free again; the peer can nevertheless
/// see what was written.
///
/// [`writer`](Self::writer) makes a stream of it, which sends only what was written.
///
/// The methods that send consume the loan. Their `try_` forms give it back in [`Unsent`] if it was not sent.
///
/// ```
/// use sealane::Channel;
///
/// let (mut a, mut b) = Channel::pair()?;
/// let mut loan = a.loan(100)?;
/// loan[..7].copy_from_slice(b"7 stars");
/// loan.truncate(7);
/// loan.send()?;
/// assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"7 stars");
/// # Ok::<(), sealane::Error>(())
/// ```
///
/// One loan at a time, and none outlives its sender:
///
/// ```compile_fail,E0499
/// # let (mut a, _b) = sealane::Channel::pair().unwrap();
/// let first = a.loan(1).unwrap();
/// let second = a.loan(1).unwrap();
/// first.send().unwrap();
/// ```
#[must_use = "a loan that is dropped is not sent"]
pub struct Loan<'s, T = u8> {
    reservation: Reservation<'s, T>,
    out: &'s mut Outbox,
    wake: Wake,
}

#[expect(clippy::inline_always, reason = "a loan must stay in registers on its way")]
impl<'s, T> Loan<'s, T> {
    #[inline]
    pub(crate) fn new(reservation: Reservation<'s, T>, out: &'s mut Outbox, wake: Wake) -> Self {
        Self { reservation, out, wake }
    }

    /// Keeps the first `len` values and gives the rest of the space back; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.reservation.payload.truncate(len);
    }

    /// Sends the loan. Never blocks, and makes no system call unless the receiver sleeps. `Ok` means committed, not seen:
    /// the message is delivered even if this process dies at once.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the peer is known to read no more, [`Error::Protocol`].
    #[inline(always)]
    pub fn send(self) -> Result<()> {
        self.commit(&Control::default(), false, Block::No).map(drop)
    }

    /// Sends the loan together with control bytes and descriptors, as one message. Descriptors, and long control bytes, need
    /// a packet of their own: if the socket is full, the call waits as long as the peer lives.
    ///
    /// # Errors
    /// [`Error::ControlTooLarge`], [`Error::TooManyFds`], [`Error::Disconnected`], [`Error::Protocol`],
    /// [`Error::UnknownRequest`]; nothing was sent, and the loan is gone.
    #[inline]
    pub fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()> {
        self.commit(&control.into(), false, Block::FOREVER).map(drop)
    }

    /// Like [`send_with`](Self::send_with), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`send_with`](Self::send_with).
    pub fn send_with_timeout<'c>(self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.commit(&control.into(), false, Block::within(timeout)).map(drop)
    }

    /// Like [`send_with`](Self::send_with), but never blocks, and gives the loan back if it was not sent.
    ///
    /// # Errors
    /// [`Unsent`], with [`Error::Full`] or [`Error::FdsInFlight`] if trying again makes sense.
    pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        self.attempt(&control.into(), false).map(drop)
    }

    /// Sends the loan as a request, see [`Sender::request`](crate::Sender::request). Waits as
    /// [`send_with`](Self::send_with) does.
    ///
    /// # Errors
    /// Those of [`send_with`](Self::send_with), and [`Error::TooManyRequests`].
    pub fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.commit(&control.into(), true, Block::FOREVER)
    }

    /// Like [`request`](Self::request), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`request`](Self::request).
    pub fn request_timeout<'c>(
        self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<RequestId> {
        self.commit(&control.into(), true, Block::within(timeout))
    }

    /// Like [`request`](Self::request), but never blocks, and gives the loan back if it was not sent.
    ///
    /// # Errors
    /// Those of [`try_send_with`](Self::try_send_with), and [`Error::TooManyRequests`].
    pub fn try_request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId, Unsent<Self>> {
        self.attempt(&control.into(), true)
    }

    /// Sends the loan as the reply to a request, see [`Sender::reply`](crate::Sender::reply). Waits as
    /// [`send_with`](Self::send_with) does.
    ///
    /// ```
    /// # let (mut a, mut b) = sealane::Channel::pair()?;
    /// # a.request(b"the numbers up to 3")?;
    /// let token = b.recv()?.reply_token().unwrap();
    /// let mut numbers = b.loan(3)?;
    /// numbers.copy_from_slice(&[1, 2, 3]);
    /// numbers.reply(token, b"there are 3")?;
    /// assert_eq!(a.recv()?.payload().unwrap().to_vec(), [1, 2, 3]);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`send_with`](Self::send_with).
    pub fn reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.send_with(control.into().in_reply_to(token))
    }

    /// Like [`reply`](Self::reply), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or those of [`reply`](Self::reply). The token is still good after a timeout.
    pub fn reply_timeout<'c>(
        self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<()> {
        self.send_with_timeout(control.into().in_reply_to(token), timeout)
    }

    /// Like [`reply`](Self::reply), but never blocks, and gives the loan back if it was not sent.
    ///
    /// # Errors
    /// Those of [`try_send_with`](Self::try_send_with). The token is still good if trying again makes sense.
    pub fn try_reply<'c>(
        self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
    ) -> Result<(), Unsent<Self>> {
        self.try_send_with(control.into().in_reply_to(token))
    }

    fn attempt(mut self, control: &Control<'_>, wants_reply: bool) -> Result<RequestId, Unsent<Self>> {
        self.try_commit(control, wants_reply).map_err(|error| Unsent { error, loan: self })
    }

    /// Sends the loan without blocking. After that it can only be dropped.
    pub(crate) fn try_commit(&mut self, control: &Control<'_>, wants_reply: bool) -> Result<RequestId> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.out.commit(self.reservation.frame(), len, control, wants_reply, Block::No, self.wake)
    }

    #[inline(always)]
    fn commit(mut self, control: &Control<'_>, wants_reply: bool, block: Block) -> Result<RequestId> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.out.commit(self.reservation.frame(), len, control, wants_reply, block, self.wake)
    }
}

impl<'s> Loan<'s> {
    /// The loan as a stream, empty at first, for formats that write to [`io::Write`](std::io::Write).
    pub fn writer(self) -> LoanWriter<'s> {
        LoanWriter::new(self)
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.reservation.payload.as_slice()
    }
}

impl<T> DerefMut for Loan<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.reservation.payload.as_mut_slice()
    }
}

/// Tells the length, never the contents.
impl<T> fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.reservation.payload.as_slice().len())
            .finish_non_exhaustive()
    }
}

/// A loan that was not sent, and why: the error of [`Loan::try_send_with`], [`try_request`](Loan::try_request) and
/// [`try_reply`](Loan::try_reply). It holds a [`Loan`], an [`OwnedLoan`](crate::OwnedLoan), or the [`Sender`](crate::Sender) of one.
///
/// ```
/// use sealane::{Channel, Error};
///
/// let (mut a, _b) = Channel::builder().max_control(10).pair()?;
/// let unsent = a.loan(5)?.try_send_with(&[0; 11]).unwrap_err();
/// assert!(matches!(unsent.error(), Error::ControlTooLarge { len: 11, max: 10 }));
/// unsent.into_loan().try_send_with(b"shorter").map_err(|unsent| unsent.into_error())?;
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the loan is in it"]
pub struct Unsent<L> {
    error: Error,
    loan: L,
}

impl<L> Unsent<L> {
    pub(crate) fn new(error: Error, loan: L) -> Self {
        Self { error, loan }
    }

    /// Why it was not sent.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The loan, to be tried again or dropped.
    pub fn into_loan(self) -> L {
        self.loan
    }

    /// The error, and the loan, or the sender of an [`OwnedLoan`](crate::OwnedLoan) that was not made.
    #[must_use = "what is dropped gives its room back, or closes its direction"]
    pub fn into_parts(self) -> (Error, L) {
        (self.error, self.loan)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn map<M>(self, wrap: impl FnOnce(L) -> M) -> Unsent<M> {
        Unsent { error: self.error, loan: wrap(self.loan) }
    }

    /// The error; the loan is dropped.
    pub fn into_error(self) -> Error {
        self.error
    }
}

impl<S: OwnsSender> Unsent<S> {
    /// The sender of an [`OwnedLoan`](crate::OwnedLoan) that was not sent, or of a loan that was not made.
    #[must_use = "a sender that is dropped closes its direction"]
    pub fn into_sender(self) -> S {
        self.loan
    }
}

impl<L> fmt::Debug for Unsent<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<L> fmt::Display for Unsent<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the loan was not sent: {}", self.error)
    }
}

impl<L> std::error::Error for Unsent<L> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<L> From<Unsent<L>> for Error {
    fn from(unsent: Unsent<L>) -> Self {
        unsent.error
    }
}
