//! [`Sender`]: the sending half, which awaits room.

use std::os::fd::AsFd;

use zerocopy::{FromBytes, IntoBytes};

use super::{
    loan::Loan,
    readiness::{Attempt, Readiness},
};
use crate::{
    channel::{
        control::Control,
        message::{ReplyToken, RequestId},
        peer::Peer,
        stats::{Limits, Stats},
    },
    error::{Error, Result},
    socket::link::Closer,
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
        let len = count.saturating_mul(size_of::<T>());
        let attempt = || Ok(if inner.has_space(len)? { Attempt::Done(()) } else { Attempt::Wait });
        readiness.until(attempt).await?;
        // Does not block: there is room, and only we take it.
        Ok(Loan::new(inner.loan_slice(count)?, readiness))
    }

    /// As [`loan`](Self::loan), if there is room now.
    ///
    /// # Errors
    /// Those of [`sealane::Sender::try_loan`](crate::Sender::try_loan).
    pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>> {
        let Self { inner, readiness } = self;
        Ok(inner.try_loan(len)?.map(|loan| Loan::new(loan, readiness)))
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

    /// As [`send`](Self::send), if there is room now.
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

    /// Replies to a request; waits as [`send`](Self::send) does. For other ways to send a reply, give the token to
    /// [`Control::in_reply_to`]. Cancel-safe: if the future is dropped before it is ready, the token is still good.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub async fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.send(control.into().in_reply_to(token)).await
    }

    /// The half that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Sender {
        self.inner
    }

    /// See [`sealane::Sender::peer`](crate::Sender::peer).
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    /// See [`sealane::Sender::stats`](crate::Sender::stats).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// See [`sealane::Sender::limits`](crate::Sender::limits).
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits()
    }

    /// See [`sealane::Sender::closer`](crate::Sender::closer).
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.inner.closer()
    }
}
