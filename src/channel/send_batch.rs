//! [`SendBatch`]: many messages, after which a sleeping receiver is woken once.

use std::{fmt, ops::Deref, time::Duration};

use zerocopy::{FromBytes, IntoBytes};

use super::{Block, Control, Loan, ReplyToken, RequestId, Sender, Wake, delegate};
use crate::error::Result;

/// A sender that wakes a sleeping receiver once for many loans: from [`Sender::batch`].
///
/// The receiver is woken when the batch is dropped or [flushed](Self::flush), when a call has to wait for room, after each
/// 256 KiB, and at once by a request or a reply. A receiver that is awake sees each message when it is sent.
///
/// A wake-up costs a full memory fence even if the receiver is awake, about half of the cost of a small message. A batch
/// pays for one.
///
/// Before you wait for the peer, or for anything but this sender, call [`flush`](Self::flush): the receiver may be asleep.
/// A batch that is forgotten ([`std::mem::forget`]) loses nothing: the next loan that is sent wakes the receiver for it too.
///
/// The methods of [`Sender`] that take `&self` are there as well, through [`Deref`].
///
/// ```
/// # let (mut a, mut b) = sealane::Channel::pair()?;
/// let mut batch = a.sender.batch();
/// for reading in 0..100_u64 {
///     let mut loan = batch.loan(8)?;
///     loan.copy_from_slice(&reading.to_le_bytes());
///     loan.send()?;
/// }
/// drop(batch);
/// # for _ in 0..100 { b.recv()?; }
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a batch ends when it is dropped"]
pub struct SendBatch<'s> {
    sender: &'s mut Sender,
}

impl<'s> SendBatch<'s> {
    pub(crate) fn new(sender: &'s mut Sender) -> Self {
        Self { sender }
    }

    /// See [`Sender::loan`].
    ///
    /// # Errors
    /// Those of [`Sender::loan`].
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.loan_slice(len)
    }

    /// See [`Sender::loan_timeout`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_timeout`].
    pub fn loan_timeout(&mut self, len: usize, timeout: Duration) -> Result<Loan<'_>> {
        self.loan_slice_timeout(len, timeout)
    }

    /// See [`Sender::try_loan`].
    ///
    /// # Errors
    /// Those of [`Sender::try_loan`].
    #[inline]
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        self.try_loan_slice(len)
    }

    /// See [`Sender::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice`].
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Loan<'_, T>> {
        self.sender.lend(count, Block::FOREVER, Wake::Later)
    }

    /// See [`Sender::loan_slice_timeout`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice_timeout`].
    pub fn loan_slice_timeout<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<Loan<'_, T>> {
        self.sender.lend(count, Block::within(timeout), Wake::Later)
    }

    /// See [`Sender::try_loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::try_loan_slice`].
    #[inline]
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Option<Loan<'_, T>>> {
        self.sender.try_lend(count, Wake::Later)
    }

    delegate! { Sender: self.sender;
        pub fn has_space(&mut self, len: usize) -> Result<bool>;
        /// The packet wakes the receiver at once.
        pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()>;
        /// The packet wakes the receiver at once.
        pub fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId>;
        /// The packet wakes the receiver at once.
        pub fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()>;
    }

    /// Wakes a sleeping receiver for what has been sent so far. The batch stays open.
    pub fn flush(&mut self) {
        self.sender.wake_receiver();
    }
}

/// The sender's methods that take `&self`. There is no `DerefMut`: a loan of the sender itself would wake at once.
impl Deref for SendBatch<'_> {
    type Target = Sender;

    fn deref(&self) -> &Sender {
        self.sender
    }
}

/// Ends the batch: wakes a sleeping receiver.
impl Drop for SendBatch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendBatch").field(&self.sender).finish()
    }
}
