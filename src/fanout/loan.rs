//! [`PublisherLoan`]: a part of a publisher's ring, lent to be filled and published.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use crate::{
    channel::{Block, Control, Unsent, Wake},
    error::Result,
    fanout::{gates::Gates, lanes::Lanes},
    ring::Reservation,
};

/// Memory of a publisher's ring, to be filled in place and published: from [`Publisher::loan`](crate::Publisher::loan). A true
/// `&mut [T]`, since no other process or thread can write there.
///
/// It is like a [`Loan`](crate::Loan) of a channel, but asks for no reply and is none. A loan that is dropped publishes nothing; all
/// subscribers can nevertheless see what was written. The history of those who may be overrun is shorter by the loan's length,
/// whatever is published of it.
///
/// ```
/// let mut publisher = sealane::Builder::default().publisher()?;
/// let mut frame = publisher.loan(100)?;
/// frame[..7].copy_from_slice(b"7 stars");
/// frame.truncate(7);
/// frame.send_with(b"frame 1")?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a loan that is dropped is not published"]
pub struct PublisherLoan<'p, T = u8> {
    pub(super) reservation: Reservation<'p, T, Gates>,
    pub(super) lanes: &'p mut Lanes,
    wake: Wake,
}

#[expect(clippy::inline_always, reason = "a loan must stay in registers on its way")]
impl<'p, T> PublisherLoan<'p, T> {
    #[inline]
    pub(super) fn new(reservation: Reservation<'p, T, Gates>, lanes: &'p mut Lanes, wake: Wake) -> Self {
        Self { reservation, lanes, wake }
    }

    /// Keeps the first `len` values and gives the rest of the space back; does nothing if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.reservation.payload.truncate(len);
    }

    /// Publishes the loan. Never blocks, and makes no system call unless a subscriber sleeps.
    ///
    /// # Errors
    /// None at present.
    #[inline(always)]
    pub fn send(self) -> Result<()> {
        self.commit(&Control::default(), Block::No)
    }

    /// Publishes the loan together with control bytes and descriptors, as one message. More than 1,024 control bytes may have to
    /// wait for room in the ring; descriptors wait until subscribers that are waited for have read earlier ones.
    ///
    /// # Errors
    /// [`Error::ControlTooLarge`](crate::Error::ControlTooLarge): also if payload and control bytes together are more than half of
    /// the ring; [`Error::TooManyFds`](crate::Error::TooManyFds), [`Error::FdsInFlight`](crate::Error::FdsInFlight) if other
    /// programs of this user hold too many; [`Error::UnknownRequest`](crate::Error::UnknownRequest) for a reply. Nothing was published,
    /// and the loan is gone.
    #[inline]
    pub fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()> {
        self.commit(&control.into(), Block::FOREVER)
    }

    /// Like [`send_with`](Self::send_with), for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), or those of [`send_with`](Self::send_with).
    pub fn send_with_timeout<'c>(self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        self.commit(&control.into(), Block::within(timeout))
    }

    /// Like [`send_with`](Self::send_with), but never blocks, and gives the loan back if it was not published.
    ///
    /// # Errors
    /// [`Unsent`], with [`Error::Full`](crate::Error::Full) or [`Error::FdsInFlight`](crate::Error::FdsInFlight) if trying again
    /// makes sense.
    pub fn try_send_with<'c>(mut self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        self.try_commit(&control.into()).map_err(|error| Unsent::new(error, self))
    }

    /// Like [`try_send_with`](Self::try_send_with), but does not wake sleeping subscribers: a loan of a
    /// [batch](crate::Publisher::batch). They are woken by [`flush`](Self::flush) of a later loan or of a
    /// [`PublisherBatch`](crate::PublisherBatch), and by the next loan that is sent as ever.
    ///
    /// ```
    /// # use sealane::Control;
    /// # let mut publisher = sealane::Builder::default().publisher()?;
    /// for reading in 0..100_u64 {
    ///     let mut loan = publisher.loan(8)?;
    ///     loan.copy_from_slice(&reading.to_le_bytes());
    ///     loan.try_send_later(Control::default()).map_err(|unsent| unsent.into_error())?;
    /// }
    /// publisher.batch().flush();
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`try_send_with`](Self::try_send_with).
    pub fn try_send_later<'c>(mut self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        let wake = std::mem::replace(&mut self.wake, Wake::Later);
        self.try_commit(&control.into()).map_err(|error| {
            self.wake = wake;
            Unsent::new(error, self)
        })
    }

    /// Wakes sleeping subscribers for what was published by [`try_send_later`](Self::try_send_later) before. The loan stays open.
    pub fn flush(&mut self) {
        // A fork drops the copy of a batch, too.
        if self.lanes.is_ours() {
            self.lanes.flush();
        }
    }

    pub(crate) fn try_commit(&mut self, control: &Control<'_>) -> Result<()> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.lanes.commit(self.reservation.frame(), len, control, Block::No, self.wake)
    }

    #[inline(always)]
    fn commit(mut self, control: &Control<'_>, block: Block) -> Result<()> {
        let len = size_of_val(self.reservation.payload.as_slice());
        self.lanes.commit(self.reservation.frame(), len, control, block, self.wake)
    }
}

impl<T> Deref for PublisherLoan<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.reservation.payload.as_slice()
    }
}

impl<T> DerefMut for PublisherLoan<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.reservation.payload.as_mut_slice()
    }
}

/// Tells the length, never the contents.
impl<T> fmt::Debug for PublisherLoan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherLoan")
            .field("len", &self.reservation.payload.as_slice().len())
            .finish_non_exhaustive()
    }
}
