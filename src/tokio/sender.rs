//! [`Sender`]: the sending half, which awaits room.

use std::{ops::Deref, os::fd::AsFd};

use zerocopy::{FromBytes, IntoBytes};

use super::{Attempt, Loan, Readiness};
use crate::{
    channel::{Control, ReplyToken, RequestId},
    error::{Error, Result},
};

/// The sending half of a [`Channel`](super::Channel): a [`sealane::Sender`](crate::Sender) that awaits instead of blocking.
///
/// All its futures are cancel-safe: one that is dropped before it is ready has sent nothing.
///
/// Two tasks that both wait to send, each to a peer that does not receive meanwhile, wait for ever: send and receive in two
/// tasks, or bound one of them with [`timeout`](::tokio::time::timeout).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (a, mut b) = sealane::Channel::pair()?;
/// let (mut sender, _receiver) = sealane::tokio::Channel::try_from(a)?.split();
/// let mut loan = sender.loan(5).await?;
/// loan.copy_from_slice(b"hello");
/// loan.send()?;
/// sender.send(b"and good bye").await?;
/// # assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"hello");
/// # assert_eq!(b.recv()?.control(), b"and good bye");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sender {
    inner: crate::Sender,
    readiness: Readiness,
}

/// Registers it with the runtime.
impl TryFrom<crate::Sender> for Sender {
    type Error = Error;

    fn try_from(inner: crate::Sender) -> Result<Self> {
        let readiness = Readiness::new(inner.as_fd())?;
        Ok(Self { inner, readiness })
    }
}

impl Sender {
    /// Lends `len` bytes of the ring, to be written and sent, see [`sealane::Sender::loan`](crate::Sender::loan). Waits for
    /// room as long as the peer lives. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::loan`](crate::Sender::loan).
    pub async fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.loan_slice(len).await
    }

    /// Lends room for `count` values of `T`, as [`loan`](Self::loan) does for bytes. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::loan_slice`](crate::Sender::loan_slice).
    pub async fn loan_slice<'s, T: FromBytes + IntoBytes + 's>(
        &'s mut self,
        count: usize,
    ) -> Result<Loan<'s, T>> {
        let Self { inner, readiness } = self;
        space::<T>(readiness, count, |len| inner.has_space(len)).await?;
        // There is room, and only this sender takes it. A call that may block would pause for a slow receiver.
        Ok(Loan::new(inner.try_loan_slice(count)?.ok_or(Error::Full)?, readiness))
    }

    /// Like [`loan`](Self::loan), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_loan`](crate::Sender::try_loan).
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        self.try_loan_slice(len)
    }

    /// Like [`loan_slice`](Self::loan_slice), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_loan_slice`](crate::Sender::try_loan_slice).
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Option<Loan<'_, T>>> {
        let Self { inner, readiness } = self;
        Ok(inner.try_loan_slice(count)?.map(|loan| Loan::new(loan, readiness)))
    }

    /// Begins a batch, after which a sleeping receiver is woken once, see [`sealane::Sender::batch`](crate::Sender::batch).
    pub fn batch(&mut self) -> SendBatch<'_> {
        SendBatch { inner: self.inner.batch(), readiness: &self.readiness }
    }

    /// Sends a message without a payload; waits while the socket is full, or too many descriptors are in flight, as long as
    /// the peer lives. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::send`](crate::Sender::send).
    pub async fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        let control = control.into();
        let attempt = || Attempt::to_send(self.inner.try_send(control.clone()));
        self.readiness.until(attempt).await
    }

    /// Like [`send`](Self::send), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_send`](crate::Sender::try_send).
    pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()> {
        self.inner.try_send(control)
    }

    /// Sends a message that asks for a reply; waits as [`send`](Self::send) does. The reply comes as a message whose
    /// [`in_reply_to`](crate::Message::in_reply_to) is the identifier returned here. Cancel-safe: if the future is dropped
    /// before it is ready, nothing was asked.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::request`](crate::Sender::request).
    pub async fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        let control = control.into();
        let attempt = || Attempt::to_send(self.inner.try_request(control.clone()));
        self.readiness.until(attempt).await
    }

    /// Like [`request`](Self::request), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_request`](crate::Sender::try_request).
    pub fn try_request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.inner.try_request(control)
    }

    /// Replies to a request; waits as [`send`](Self::send) does. A reply with a payload is sent by
    /// [`Loan::reply`]. Cancel-safe: if the future is dropped before it is ready, the token is still good.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::reply`](crate::Sender::reply).
    pub async fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.send(control.into().in_reply_to(token)).await
    }

    /// Like [`reply`](Self::reply), if there is room; does not wait.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_reply`](crate::Sender::try_reply).
    pub fn try_reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.inner.try_reply(token, control)
    }

    /// The half that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Sender {
        self.inner
    }
}

/// The methods of the [sender that blocks](crate::Sender) that take `&self`, none of which waits: its peer, limits, counters
/// and the like.
impl Deref for Sender {
    type Target = crate::Sender;

    fn deref(&self) -> &crate::Sender {
        &self.inner
    }
}

/// Waits for room for `count` values of `T`.
async fn space<T>(
    readiness: &Readiness,
    count: usize,
    mut has_space: impl FnMut(usize) -> Result<bool>,
) -> Result<()> {
    let len = count.saturating_mul(size_of::<T>());
    let attempt = || Ok(if has_space(len)? { Attempt::Done(()) } else { Attempt::Wait });
    readiness.until(attempt).await
}

/// A sender that wakes a sleeping receiver once for many loans: a [`sealane::SendBatch`](crate::SendBatch) that awaits
/// instead of blocking. From [`Sender::batch`].
///
/// A loan that has to wait for room wakes the receiver first. Before you await anything but this sender, call
/// [`flush`](Self::flush): the receiver may be asleep.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (a, mut b) = sealane::Channel::pair()?;
/// # let mut channel = sealane::tokio::Channel::try_from(a)?;
/// let mut batch = channel.sender.batch();
/// for reading in 0..100_u64 {
///     let mut loan = batch.loan(8).await?;
///     loan.copy_from_slice(&reading.to_le_bytes());
///     loan.send()?;
/// }
/// drop(batch);
/// # for _ in 0..100 { b.recv()?; }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a batch ends when it is dropped"]
pub struct SendBatch<'s> {
    inner: crate::SendBatch<'s>,
    readiness: &'s Readiness,
}

impl SendBatch<'_> {
    /// See [`Sender::loan`].
    ///
    /// # Errors
    /// Those of [`Sender::loan`].
    pub async fn loan(&mut self, len: usize) -> Result<Loan<'_>> {
        self.loan_slice(len).await
    }

    /// See [`Sender::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice`].
    pub async fn loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Loan<'_, T>> {
        let Self { inner, readiness } = self;
        space::<T>(readiness, count, |len| inner.has_space(len)).await?;
        Ok(Loan::new(inner.try_loan_slice(count)?.ok_or(Error::Full)?, readiness))
    }

    /// See [`Sender::try_loan`].
    ///
    /// # Errors
    /// Those of [`Sender::try_loan`].
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        self.try_loan_slice(len)
    }

    /// See [`Sender::try_loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::try_loan_slice`].
    pub fn try_loan_slice<T: FromBytes + IntoBytes>(&mut self, count: usize) -> Result<Option<Loan<'_, T>>> {
        let Self { inner, readiness } = self;
        Ok(inner.try_loan_slice(count)?.map(|loan| Loan::new(loan, readiness)))
    }

    /// Wakes a sleeping receiver for what has been sent so far. The batch stays open.
    pub fn flush(&mut self) {
        self.inner.flush();
    }
}

/// The methods of the [sender that blocks](crate::Sender) that take `&self`, none of which waits.
impl Deref for SendBatch<'_> {
    type Target = crate::Sender;

    fn deref(&self) -> &crate::Sender {
        &self.inner
    }
}
