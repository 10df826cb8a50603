//! [`Loan`]: a part of our ring, lent to be filled and sent.

mod writer;

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

pub use self::writer::LoanWriter;
use crate::{
    channel::{control::Control, message::RequestId, outbox::Outbox, space::Block},
    error::{Error, Result},
    ring::writer::Reservation,
    wait::Deadline,
};

/// Memory of the ring, to be filled in place and sent. A true `&mut [T]`: nobody else can write there.
///
/// `send` sends all of it, with what stood in the ring before where nothing was written: [`truncate`](Self::truncate) first
/// if less was filled. Dropped unsent, nothing is sent and the
/// space is free again; the peer can nevertheless see what was written.
///
/// [`writer`](Self::writer) makes a stream of it, which sends only what was written.
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
}

impl<'s, T> Loan<'s, T> {
    #[inline]
    pub(crate) fn new(reservation: Reservation<'s, T>, out: &'s mut Outbox) -> Self {
        Self { reservation, out }
    }

    /// Keeps the first `len` values and gives the rest of the space back; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.reservation.payload.truncate(len);
    }

    /// Sends it. Never blocks, and makes no system call unless the receiver sleeps. `Ok` means committed, not seen: the
    /// message is delivered even if this process dies now.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the peer is known not to read any more, [`Error::Protocol`].
    #[inline]
    pub fn send(self) -> Result<()> {
        self.commit(&Control::default(), false, Block::No).map(drop)
    }

    /// Sends it together with control bytes and descriptors, as one message. If they need a packet of their own
    /// (descriptors do) and the socket is full, waits as long as the peer lives.
    ///
    /// # Errors
    /// [`Error::ControlTooLarge`], [`Error::TooManyFds`], [`Error::Disconnected`], [`Error::Protocol`],
    /// [`Error::UnknownRequest`]; nothing was sent, and the loan is gone.
    #[inline]
    pub fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()> {
        self.commit(&control.into(), false, Block::Until(Deadline::Never)).map(drop)
    }

    /// As [`send_with`](Self::send_with), but never blocks, and gives the loan back if it was not sent.
    ///
    /// # Errors
    /// [`Unsent`], with [`Error::Full`] or [`Error::FdsInFlight`] if trying again makes sense.
    pub fn try_send_with<'c>(mut self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        match self.try_commit(&control.into(), false) {
            Ok(_) => Ok(()),
            Err(error) => Err(Unsent { error, loan: self }),
        }
    }

    /// Sends it, without blocking. Once it is sent, all that is left is to drop it.
    pub(crate) fn try_commit(&mut self, control: &Control<'_>, wants_reply: bool) -> Result<RequestId> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.try_commit_first(len, control, wants_reply)
    }

    /// As [`try_commit`](Self::try_commit), the first `len` bytes, and does not cut the loan for that.
    fn try_commit_first(&mut self, len: usize, control: &Control<'_>, reply: bool) -> Result<RequestId> {
        self.out.commit(self.reservation.frame(), len, control, reply, Block::No)
    }

    /// Sends it as a request, see [`Sender::request`](crate::Sender::request).
    ///
    /// # Errors
    /// Those of [`send_with`](Self::send_with), and [`Error::TooManyRequests`].
    pub fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.commit(&control.into(), true, Block::Until(Deadline::Never))
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a loan must stay in registers on its way")]
    fn commit(mut self, control: &Control<'_>, wants_reply: bool, block: Block) -> Result<RequestId> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.out.commit(self.reservation.frame(), len, control, wants_reply, block)
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

/// A loan that was not sent, and why: from [`Loan::try_send_with`].
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
    /// Why it was not sent.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The loan, to be tried again or dropped.
    pub fn into_loan(self) -> L {
        self.loan
    }

    /// The error; the loan is dropped.
    pub fn into_error(self) -> Error {
        self.error
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
