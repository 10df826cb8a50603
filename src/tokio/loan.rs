//! [`Loan`]: a loan whose sending awaits.

use std::{
    io,
    ops::{Deref, DerefMut},
};

use super::{Attempt, Readiness};
use crate::{
    channel::{Control, ReplyToken, RequestId, Unsent, delegate},
    error::Result,
};

/// Memory of the ring, to be filled in place and sent: a [`sealane::Loan`](crate::Loan) whose sending awaits instead of
/// blocking.
///
/// It may be held over an `await`; dropped unsent, nothing is sent and the space is free again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (a, mut b) = sealane::Channel::pair()?;
/// # let mut channel = sealane::tokio::Channel::try_from(a)?;
/// let mut frame = channel.loan_slice::<u16>(1000).await?;
/// for (pixel, value) in frame.iter_mut().zip(0..) {
///     *pixel = value;
/// }
/// let file = std::fs::File::open("/dev/null").unwrap();
/// frame.send_with(sealane::Control::new(b"frame 1").fd(&file)).await?;
/// # assert_eq!(b.recv()?.payload().unwrap().shared::<u16>()?.get(999), Some(999));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a loan that is dropped is not sent"]
pub struct Loan<'s, T = u8> {
    inner: crate::Loan<'s, T>,
    readiness: &'s Readiness,
}

impl<'s, T> Loan<'s, T> {
    pub(super) fn new(inner: crate::Loan<'s, T>, readiness: &'s Readiness) -> Self {
        Self { inner, readiness }
    }

    /// See [`sealane::Loan::truncate`](crate::Loan::truncate).
    pub fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
    }

    /// Sends it, at once: see [`sealane::Loan::send`](crate::Loan::send).
    ///
    /// # Errors
    /// Those of [`sealane::Loan::send`](crate::Loan::send).
    pub fn send(self) -> Result<()> {
        self.inner.send()
    }

    /// Sends the loan together with control bytes and descriptors, as one message. Descriptors, and long control bytes, need
    /// a packet of their own: if the socket is full, or too many descriptors are in flight, waits as long as the peer lives.
    ///
    /// Cancel-safe: if the future is dropped before it is ready, nothing was sent, and the loan is gone.
    ///
    /// # Errors
    /// Those of [`sealane::Loan::send_with`](crate::Loan::send_with).
    pub async fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()> {
        self.commit(control.into(), false).await.map(drop)
    }

    /// See [`sealane::Loan::try_send_with`](crate::Loan::try_send_with).
    ///
    /// # Errors
    /// Those of [`sealane::Loan::try_send_with`](crate::Loan::try_send_with).
    pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        let readiness = self.readiness;
        self.inner.try_send_with(control).map_err(|unsent| unsent.map(|loan| Self::new(loan, readiness)))
    }

    /// Sends the loan as a request, see [`Sender::request`](super::Sender::request). Cancel-safe as
    /// [`send_with`](Self::send_with) is.
    ///
    /// # Errors
    /// Those of [`sealane::Loan::request`](crate::Loan::request).
    pub async fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId> {
        self.commit(control.into(), true).await
    }

    /// See [`sealane::Loan::try_request`](crate::Loan::try_request).
    ///
    /// # Errors
    /// Those of [`sealane::Loan::try_request`](crate::Loan::try_request).
    pub fn try_request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId, Unsent<Self>> {
        let readiness = self.readiness;
        self.inner.try_request(control).map_err(|unsent| unsent.map(|loan| Self::new(loan, readiness)))
    }

    /// Sends the loan as the reply to a request, see [`Sender::reply`](super::Sender::reply). Cancel-safe as
    /// [`send_with`](Self::send_with) is; the token is still good then.
    ///
    /// # Errors
    /// Those of [`sealane::Loan::reply`](crate::Loan::reply).
    pub async fn reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()> {
        self.send_with(control.into().in_reply_to(token)).await
    }

    /// See [`sealane::Loan::try_reply`](crate::Loan::try_reply).
    ///
    /// # Errors
    /// Those of [`sealane::Loan::try_reply`](crate::Loan::try_reply).
    pub fn try_reply<'c>(
        self,
        token: ReplyToken,
        control: impl Into<Control<'c>>,
    ) -> Result<(), Unsent<Self>> {
        self.try_send_with(control.into().in_reply_to(token))
    }

    async fn commit(mut self, control: Control<'_>, wants_reply: bool) -> Result<RequestId> {
        let attempt = || Attempt::to_send(self.inner.try_commit(&control, wants_reply));
        self.readiness.until(attempt).await
    }
}

impl<'s> Loan<'s> {
    /// The loan as a stream, see [`sealane::Loan::writer`](crate::Loan::writer).
    pub fn writer(self) -> LoanWriter<'s> {
        LoanWriter { inner: self.inner.writer(), readiness: self.readiness }
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.inner
    }
}

impl<T> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.inner
    }
}

/// A loan as [`io::Write`] and [`io::Seek`]: a [`sealane::LoanWriter`](crate::LoanWriter) whose sending awaits instead of
/// blocking. To write and to seek does not wait.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// # let (a, mut b) = sealane::Channel::pair()?;
/// # let mut channel = sealane::tokio::Channel::try_from(a)?;
/// use std::io::Write;
///
/// let mut writer = channel.loan(100).await?.writer();
/// write!(writer, "{} stars", 7).unwrap();
/// writer.send_with(b"text").await?;
/// # assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"7 stars");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a loan that is dropped is not sent"]
pub struct LoanWriter<'s> {
    inner: crate::LoanWriter<'s>,
    readiness: &'s Readiness,
}

impl<'s> LoanWriter<'s> {
    /// Bytes that would be sent: up to the furthest one written, gaps included.
    #[must_use]
    pub fn written(&self) -> usize {
        self.inner.written()
    }

    /// The loan, cut to what was written.
    pub fn into_loan(self) -> Loan<'s> {
        Loan::new(self.inner.into_loan(), self.readiness)
    }

    delegate! { Loan: self.into_loan();
        pub fn send(self) -> Result<()>;
        pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Loan<'s>>>;
        pub fn try_request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId, Unsent<Loan<'s>>>;
        pub fn try_reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<(), Unsent<Loan<'s>>>;
    }
    delegate! { await Loan: self.into_loan();
        pub async fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()>;
        pub async fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId>;
        pub async fn reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()>;
    }
}

impl io::Write for LoanWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for LoanWriter<'_> {
    #[inline]
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
