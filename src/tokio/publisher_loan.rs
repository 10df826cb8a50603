//! [`PublisherLoan`]: a publisher's loan whose sending awaits.

use std::ops::{Deref, DerefMut};

use super::{Readiness, publisher::attempt};
use crate::{
    channel::{Control, Unsent},
    error::Result,
};

/// Memory of a publisher's ring, to be filled in place and published: a [`sealane::PublisherLoan`](crate::PublisherLoan) whose
/// sending awaits instead of blocking. From [`Publisher::loan`](super::Publisher::loan).
///
/// It may be held over an `await`. Meanwhile the publisher does nothing: subscribers that wish to join wait until the loan is sent
/// or dropped. Dropped unsent, nothing is published.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// let publisher = sealane::Builder::default().max_fds(1).publisher()?;
/// let mut publisher = sealane::tokio::Publisher::try_from(publisher)?;
/// let mut frame = publisher.loan_slice::<u16>(1000).await?;
/// for (pixel, value) in frame.iter_mut().zip(0..) {
///     *pixel = value;
/// }
/// let file = std::fs::File::open("/dev/null").unwrap();
/// frame.send_with(sealane::Control::new(b"frame 1").fd(&file)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a loan that is dropped is not published"]
pub struct PublisherLoan<'p, T = u8> {
    inner: crate::PublisherLoan<'p, T>,
    readiness: &'p Readiness,
}

impl<'p, T> PublisherLoan<'p, T> {
    pub(super) fn new(inner: crate::PublisherLoan<'p, T>, readiness: &'p Readiness) -> Self {
        Self { inner, readiness }
    }

    /// See [`sealane::PublisherLoan::truncate`](crate::PublisherLoan::truncate).
    pub fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
    }

    /// Publishes it, at once: see [`sealane::PublisherLoan::send`](crate::PublisherLoan::send).
    ///
    /// # Errors
    /// Those of [`sealane::PublisherLoan::send`](crate::PublisherLoan::send).
    pub fn send(self) -> Result<()> {
        self.inner.send()
    }

    /// Publishes the loan together with control bytes and descriptors, as one message. More than 1,024 control bytes may have to
    /// wait for room in the ring. Descriptors wait until subscribers that are waited for have read earlier ones, and while too
    /// many are in flight.
    ///
    /// Cancel-safe: if the future is dropped before it is ready, nothing was published, and the loan is gone.
    ///
    /// # Errors
    /// Those of [`sealane::PublisherLoan::send_with`](crate::PublisherLoan::send_with), but
    /// [`Error::FdsInFlight`](crate::Error::FdsInFlight), for which it waits.
    pub async fn send_with<'c>(mut self, control: impl Into<Control<'c>>) -> Result<()> {
        let (Self { inner, readiness }, control) = (&mut self, control.into());
        let commit = || attempt(inner, crate::PublisherLoan::attend, |inner| inner.try_commit(&control));
        readiness.until(commit).await
    }

    /// See [`sealane::PublisherLoan::try_send_with`](crate::PublisherLoan::try_send_with).
    ///
    /// # Errors
    /// Those of [`sealane::PublisherLoan::try_send_with`](crate::PublisherLoan::try_send_with).
    pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Self>> {
        let readiness = self.readiness;
        self.inner.try_send_with(control).map_err(|unsent| unsent.map(|loan| Self::new(loan, readiness)))
    }
}

impl<T> Deref for PublisherLoan<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.inner
    }
}

impl<T> DerefMut for PublisherLoan<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.inner
    }
}
