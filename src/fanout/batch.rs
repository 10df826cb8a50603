//! [`PublisherBatch`]: many messages, after which sleeping subscribers are woken once.

use std::{fmt, ops::Deref, time::Duration};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    channel::{Block, Control, Wake},
    error::Result,
    fanout::{Publisher, PublisherLoan},
};

/// A publisher that wakes sleeping subscribers once for many loans: from [`Publisher::batch`].
///
/// They are woken when the batch is dropped or [flushed](Self::flush), when a call has to wait for room, and after each 256 KiB. One
/// that is awake sees each message when it is published. A batch that is forgotten ([`std::mem::forget`]) loses nothing: the
/// next message wakes them for it too.
///
/// ```
/// # let mut publisher = sealane::Builder::default().publisher()?;
/// let mut batch = publisher.batch();
/// for reading in 0..100_u64 {
///     let mut loan = batch.loan(8)?;
///     loan.copy_from_slice(&reading.to_le_bytes());
///     loan.send()?;
/// }
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a batch ends when it is dropped"]
pub struct PublisherBatch<'p> {
    publisher: &'p mut Publisher,
}

impl<'p> PublisherBatch<'p> {
    pub(super) fn new(publisher: &'p mut Publisher) -> Self {
        Self { publisher }
    }

    /// See [`Publisher::loan`].
    ///
    /// # Errors
    /// Those of [`Publisher::loan`].
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<PublisherLoan<'_>> {
        self.loan_slice(len)
    }

    /// See [`Publisher::loan_timeout`].
    ///
    /// # Errors
    /// Those of [`Publisher::loan_timeout`].
    pub fn loan_timeout(&mut self, len: usize, timeout: Duration) -> Result<PublisherLoan<'_>> {
        self.publisher.lend(len, Block::within(timeout), Wake::Later)
    }

    /// See [`Publisher::try_loan`].
    ///
    /// # Errors
    /// Those of [`Publisher::try_loan`].
    pub fn try_loan(&mut self, len: usize) -> Result<Option<PublisherLoan<'_>>> {
        self.publisher.try_lend(len, Wake::Later)
    }

    /// See [`Publisher::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Publisher::loan_slice`].
    #[inline]
    pub fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<PublisherLoan<'_, T>> {
        self.publisher.lend(count, Block::FOREVER, Wake::Later)
    }

    /// See [`Publisher::send`]. Subscribers are woken at once.
    ///
    /// # Errors
    /// Those of [`Publisher::send`].
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.publisher.send(control)
    }

    /// Wakes sleeping subscribers for what has been published so far. The batch stays open.
    pub fn flush(&mut self) {
        self.publisher.wake();
    }
}

/// The publisher's methods that take `&self`. There is no `DerefMut`: a loan of the publisher itself would wake at once.
impl Deref for PublisherBatch<'_> {
    type Target = Publisher;

    fn deref(&self) -> &Publisher {
        self.publisher
    }
}

/// Ends the batch: wakes sleeping subscribers.
impl Drop for PublisherBatch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for PublisherBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublisherBatch").field(&self.publisher).finish()
    }
}
