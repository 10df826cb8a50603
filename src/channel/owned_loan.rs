//! [`OwnedLoan`]: a loan that owns its sender, and so can be stored.
//!
//! Invariant: nothing is sent between the reservation of `place` and the loan's own sending, as the loan owns the sender.
//! So the place stays reserved.

use std::{
    borrow::BorrowMut,
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use crate::{
    channel::{Block, Control, Loan, ReplyToken, RequestId, Sender, Unsent, Wake},
    error::Result,
    ring::Place,
};

/// A loan without a lifetime: it owns its sender, and gives it back. From [`Sender::into_loan`].
///
/// It is for programs that store a loan: state machines, async code that is polled piece by piece, and bindings to other
/// languages. Where a borrow will do, [`Sender::loan`] is simpler.
///
/// A sender is some hundred bytes, which are copied into the loan and back. Who makes many of them keeps it in a box:
/// [`OwnedLoan::of`] takes either.
///
/// The methods that send consume the loan and return the sender. If they fail, the sender is in the error
/// ([`Unsent::into_sender`]), and the loan is gone; the `try_` forms give the whole loan back instead.
///
/// ```
/// use std::time::Duration;
/// use sealane::{OwnedLoan, Sender};
///
/// /// A frame that is filled row by row, by an event loop.
/// struct Frame {
///     loan: OwnedLoan,
///     row: usize,
/// }
///
/// impl Frame {
///     fn push(&mut self, row: &[u8]) {
///         self.loan[self.row * 4..][..4].copy_from_slice(row);
///         self.row += 1;
///     }
/// }
///
/// # let (a, mut b) = sealane::Channel::pair()?;
/// let sender: Sender = a.sender;
/// let mut frame = Frame { loan: sender.into_loan(8, Duration::from_secs(1))?, row: 0 };
/// frame.push(b"row1");
/// frame.push(b"row2");
/// let mut sender = frame.loan.send()?;
/// sender.send("that was the first frame")?;
/// assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"row1row2");
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a loan that is dropped is not sent, and closes its sender"]
pub struct OwnedLoan<S = Sender> {
    sender: S,
    place: Place,
    len: usize,
}

/// A sender, or a box of one.
pub trait OwnsSender: BorrowMut<Sender> + sealed::Sealed {}

impl OwnsSender for Sender {}
impl OwnsSender for Box<Sender> {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Sender {}
    impl Sealed for Box<super::Sender> {}
}

impl<S: OwnsSender> OwnedLoan<S> {
    /// Does what [`Sender::into_loan`] does, of a box of a sender as well.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sealane::{OwnedLoan, Sender};
    ///
    /// # let (a, mut b) = sealane::Channel::pair()?;
    /// let sender: Box<Sender> = Box::new(a.sender);
    /// let mut loan = OwnedLoan::of(sender, 4, Duration::ZERO)?;
    /// loan.copy_from_slice(b"rows");
    /// let sender: Box<Sender> = loan.send()?;
    /// # assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"rows");
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Sender::into_loan`], with the sender.
    pub fn of(mut sender: S, len: usize, timeout: Duration) -> Result<Self, Unsent<S>> {
        let reserved = sender.borrow_mut();
        match reserved.reserve(len, Block::within(timeout)) {
            Ok(()) => {
                let place = reserved.writer.place();
                Ok(Self { sender, place, len })
            }
            Err(error) => Err(Unsent::new(error, sender)),
        }
    }

    /// Keeps the first `len` bytes and gives the rest of the space back; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// See [`Sender::reply_token`].
    #[must_use]
    pub fn reply_token(&self, number: u64) -> Option<ReplyToken> {
        self.sender.borrow().reply_token(number)
    }

    /// Sends nothing, and returns the sender.
    #[must_use = "a sender that is dropped closes its direction"]
    pub fn discard(self) -> S {
        self.sender
    }

    /// Sends the loan, see [`Loan::send`].
    ///
    /// # Errors
    /// Those of [`Loan::send`], with the sender.
    pub fn send(self) -> Result<S, Unsent<S>> {
        self.finish(|loan: Loan<'_>| loan.send()).map(|(sender, ())| sender)
    }

    /// See [`Loan::send_with`].
    ///
    /// # Errors
    /// Those of [`Loan::send_with`], with the sender.
    pub fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<S, Unsent<S>> {
        self.finish(|loan| loan.send_with(control)).map(|(sender, ())| sender)
    }

    /// See [`Loan::send_with_timeout`].
    ///
    /// # Errors
    /// Those of [`Loan::send_with_timeout`], with the sender.
    pub fn send_with_timeout<'c>(
        self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<S, Unsent<S>> {
        self.finish(|loan| loan.send_with_timeout(control, timeout)).map(|(sender, ())| sender)
    }

    /// See [`Loan::try_send_with`].
    ///
    /// # Errors
    /// Those of [`Loan::try_send_with`], with the loan.
    pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<S, Unsent<Self>> {
        self.attempt(Wake::AtOnce, |loan| loan.try_send_with(control)).map(|(sender, ())| sender)
    }

    /// Like [`try_send_with`](Self::try_send_with), but does not wake a sleeping receiver: a loan of a [batch](Sender::batch). The
    /// receiver is woken by [`flush`](Self::flush) of a later loan or of a [`SendBatch`](crate::SendBatch), and by the next loan that is
    /// sent as ever.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sealane::Control;
    /// # let (a, mut b) = sealane::Channel::pair()?;
    /// let mut sender = a.sender;
    /// for reading in 0..100_u64 {
    ///     let mut loan = sender.into_loan(8, Duration::MAX)?;
    ///     loan.copy_from_slice(&reading.to_le_bytes());
    ///     sender = loan.try_send_later(Control::default()).map_err(|unsent| unsent.into_error())?;
    /// }
    /// sender.batch().flush();
    /// # for _ in 0..100 { b.recv()?; }
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Loan::try_send_with`], with the loan.
    pub fn try_send_later<'c>(self, control: impl Into<Control<'c>>) -> Result<S, Unsent<Self>> {
        self.attempt(Wake::Later, |loan| loan.try_send_with(control)).map(|(sender, ())| sender)
    }

    /// Wakes a sleeping receiver for what was sent by [`try_send_later`](Self::try_send_later) before. The loan stays open.
    pub fn flush(&mut self) {
        self.sender.borrow_mut().wake_receiver();
    }

    /// See [`Loan::request`].
    ///
    /// # Errors
    /// Those of [`Loan::request`], with the sender.
    pub fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<(S, RequestId), Unsent<S>> {
        self.finish(|loan| loan.request(control))
    }

    /// See [`Loan::request_timeout`].
    ///
    /// # Errors
    /// Those of [`Loan::request_timeout`], with the sender.
    pub fn request_timeout<'c>(
        self,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<(S, RequestId), Unsent<S>> {
        self.finish(|loan| loan.request_timeout(control, timeout))
    }

    /// See [`Loan::try_request`].
    ///
    /// # Errors
    /// Those of [`Loan::try_request`], with the loan.
    pub fn try_request<'c>(self, control: impl Into<Control<'c>>) -> Result<(S, RequestId), Unsent<Self>> {
        self.attempt(Wake::AtOnce, |loan| loan.try_request(control))
    }

    /// See [`Loan::reply`].
    ///
    /// # Errors
    /// Those of [`Loan::reply`], with the sender.
    pub fn reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<S, Unsent<S>> {
        self.finish(|loan| loan.reply(token, control)).map(|(sender, ())| sender)
    }

    /// See [`Loan::reply_timeout`].
    ///
    /// # Errors
    /// Those of [`Loan::reply_timeout`], with the sender.
    pub fn reply_timeout<'c>(
        self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
        timeout: Duration,
    ) -> Result<S, Unsent<S>> {
        self.finish(|loan| loan.reply_timeout(token, control, timeout)).map(|(sender, ())| sender)
    }

    /// See [`Loan::try_reply`].
    ///
    /// # Errors
    /// Those of [`Loan::try_reply`], with the loan.
    pub fn try_reply<'c>(
        self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
    ) -> Result<S, Unsent<Self>> {
        self.attempt(Wake::AtOnce, |loan| loan.try_reply(token, control)).map(|(sender, ())| sender)
    }

    fn finish<R>(mut self, send: impl FnOnce(Loan<'_>) -> Result<R>) -> Result<(S, R), Unsent<S>> {
        match self.lend(Wake::AtOnce).and_then(send) {
            Ok(result) => Ok((self.sender, result)),
            Err(error) => Err(Unsent::new(error, self.sender)),
        }
    }

    fn attempt<R>(
        mut self,
        wake: Wake,
        send: impl FnOnce(Loan<'_>) -> Result<R, Unsent<Loan<'_>>>,
    ) -> Result<(S, R), Unsent<Self>> {
        match self.lend(wake).and_then(|loan| Ok(send(loan)?)) {
            Ok(result) => Ok((self.sender, result)),
            Err(error) => Err(Unsent::new(error, self)),
        }
    }

    fn lend(&mut self, wake: Wake) -> Result<Loan<'_>> {
        let Sender { writer, out, .. } = self.sender.borrow_mut();
        match writer.lend_again(self.place, self.len) {
            Some(reservation) => Ok(Loan::new(reservation, out, wake)),
            None => Err(out.too_large(self.len)),
        }
    }
}

impl<S: OwnsSender> Deref for OwnedLoan<S> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = self.sender.borrow().writer.bytes(self.place, self.len);
        debug_assert!(bytes.is_some(), "the place stays reserved");
        bytes.unwrap_or_default()
    }
}

impl<S: OwnsSender> DerefMut for OwnedLoan<S> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = self.sender.borrow_mut().writer.bytes_mut(self.place, self.len);
        debug_assert!(bytes.is_some(), "the place stays reserved");
        bytes.unwrap_or_default()
    }
}

/// Prints the length, never the contents.
impl<S> fmt::Debug for OwnedLoan<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedLoan").field("len", &self.len).finish_non_exhaustive()
    }
}
