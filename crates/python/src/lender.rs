//! [`Lender`]: what an [`Outlet`](crate::outlet::Outlet) keeps: a channel's sender, or a publisher, each with its kind of loan.

use std::{os::fd::RawFd, time::Duration};

use sealane::{Control, Error, OwnedLoan, Publisher, PublisherLoan, ReplyToken, RequestId, Result, Sender};
use self_cell::{MutBorrow, self_cell};

/// The kind of a message: plain, one of a batch, a request, or the reply to one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verb {
    Send,
    /// A sleeping reader is not woken for it.
    Later,
    Request,
    Reply(ReplyToken),
}

/// A side that sends, and lends parts of its ring, one at a time.
pub(crate) trait Lender: Sized + Send + 'static {
    /// The reason for which a ring has no room.
    const KEEPER: &'static str;

    /// A loan that owns its lender.
    type Loan: Send + 'static;

    /// Lends `len` bytes; waits for room for `time` at most.
    fn lend(self, len: usize, time: Duration) -> Result<Self::Loan, (Self, Error)>;

    /// The memory of a loan. The caller sees to it that Python has no view of it.
    fn memory(loan: &mut Self::Loan) -> &mut [u8];

    /// Keeps the first `len` bytes.
    fn truncate(loan: &mut Self::Loan, len: usize);

    /// Sends a loan, without waiting. The number is a request's.
    fn commit(
        loan: Self::Loan,
        verb: Verb,
        control: &Control<'_>,
    ) -> Result<(Self, u64), (Self::Loan, Error)>;

    /// Gives the room of a loan back.
    fn discard(loan: Self::Loan) -> Self;

    /// Wakes sleeping readers for what was sent later.
    fn flush(&mut self);

    /// Does the same while there is a loan.
    fn flush_lent(loan: &mut Self::Loan);

    /// Sends a message without a payload; waits for `time` at most. The number is a request's.
    fn post(&mut self, verb: Verb, control: &Control<'_>, time: Duration) -> Result<u64>;

    /// The descriptor that is readable when a refused [`commit`](Self::commit) is worth another attempt, if there is one.
    fn room(number: RawFd) -> Option<RawFd>;
}

fn given<'c>(verb: Verb, control: &Control<'c>) -> Control<'c> {
    match verb {
        Verb::Reply(token) => control.clone().in_reply_to(token),
        _ => control.clone(),
    }
}

impl Lender for Box<Sender> {
    const KEEPER: &'static str = "the peer has not released what was sent before";

    type Loan = OwnedLoan<Self>;

    fn lend(mut self, len: usize, time: Duration) -> Result<Self::Loan, (Self, Error)> {
        // A look arms the descriptor for event loops, which a wait of no time does not.
        if time.is_zero() {
            match self.has_space(len) {
                Ok(true) => {}
                Ok(false) => return Err((self, Error::Full)),
                Err(error) => return Err((self, error)),
            }
        }
        OwnedLoan::of(self, len, time).map_err(|unsent| {
            let (error, sender) = unsent.into_parts();
            (sender, error)
        })
    }

    fn memory(loan: &mut Self::Loan) -> &mut [u8] {
        loan
    }

    fn truncate(loan: &mut Self::Loan, len: usize) {
        loan.truncate(len);
    }

    fn commit(
        loan: Self::Loan,
        verb: Verb,
        control: &Control<'_>,
    ) -> Result<(Self, u64), (Self::Loan, Error)> {
        let control = given(verb, control);
        let sent = match verb {
            Verb::Request => loan.try_request(control).map(|(sender, request)| (sender, request.number())),
            Verb::Later => loan.try_send_later(control).map(|sender| (sender, 0)),
            _ => loan.try_send_with(control).map(|sender| (sender, 0)),
        };
        sent.map_err(|unsent| {
            let (error, loan) = unsent.into_parts();
            (loan, error)
        })
    }

    fn discard(loan: Self::Loan) -> Self {
        loan.discard()
    }

    fn flush(&mut self) {
        self.batch().flush();
    }

    fn flush_lent(loan: &mut Self::Loan) {
        loan.flush();
    }

    fn post(&mut self, verb: Verb, control: &Control<'_>, time: Duration) -> Result<u64> {
        let control = given(verb, control);
        match verb {
            Verb::Request if time.is_zero() => self.try_request(control).map(RequestId::number),
            Verb::Request => self.request_timeout(control, time).map(RequestId::number),
            _ if time.is_zero() => self.try_send(control).map(|()| 0),
            _ => self.send_timeout(control, time).map(|()| 0),
        }
    }

    fn room(number: RawFd) -> Option<RawFd> {
        Some(number)
    }
}

type OpenLoan<'p> = Option<PublisherLoan<'p>>;

self_cell! {
    /// A publisher with its open loan, which borrows it.
    pub(crate) struct PublisherLent {
        owner: MutBorrow<Box<Publisher>>,

        #[not_covariant]
        dependent: OpenLoan,
    }
}

impl Lender for Box<Publisher> {
    const KEEPER: &'static str = "a subscriber that is waited for has not released what was published before";

    type Loan = PublisherLent;

    fn lend(self, len: usize, time: Duration) -> Result<Self::Loan, (Self, Error)> {
        PublisherLent::try_new_or_recover(MutBorrow::new(self), |publisher| {
            let publisher = publisher.borrow_mut();
            if time.is_zero() {
                publisher.try_loan(len)?.map(Some).ok_or(Error::Full)
            } else {
                publisher.loan_timeout(len, time).map(Some)
            }
        })
        .map_err(|(publisher, error)| (publisher.into_inner(), error))
    }

    fn memory(loan: &mut Self::Loan) -> &mut [u8] {
        loan.with_dependent_mut(|_, loan| loan.as_deref_mut().unwrap_or_default())
    }

    fn truncate(loan: &mut Self::Loan, len: usize) {
        loan.with_dependent_mut(|_, loan| loan.iter_mut().for_each(|loan| loan.truncate(len)));
    }

    fn commit(
        mut lent: Self::Loan,
        verb: Verb,
        control: &Control<'_>,
    ) -> Result<(Self, u64), (Self::Loan, Error)> {
        let control = given(verb, control);
        let sent = lent.with_dependent_mut(|_, open| {
            let loan = open.take().ok_or(Error::Disconnected)?;
            let sent = match verb {
                Verb::Later => loan.try_send_later(control),
                _ => loan.try_send_with(control),
            };
            sent.map_err(|unsent| {
                let (error, loan) = unsent.into_parts();
                *open = Some(loan);
                error
            })
        });
        match sent {
            Ok(()) => Ok((Self::discard(lent), 0)),
            Err(error) => Err((lent, error)),
        }
    }

    fn discard(loan: Self::Loan) -> Self {
        loan.into_owner().into_inner()
    }

    fn flush(&mut self) {
        self.batch().flush();
    }

    fn flush_lent(loan: &mut Self::Loan) {
        loan.with_dependent_mut(|_, loan| loan.iter_mut().for_each(PublisherLoan::flush));
    }

    fn post(&mut self, verb: Verb, control: &Control<'_>, time: Duration) -> Result<u64> {
        let control = given(verb, control);
        if time.is_zero() { self.try_send(control) } else { self.send_timeout(control, time) }.map(|()| 0)
    }

    /// A publisher's descriptor is also readable for events, which cannot be taken while a loan is open.
    fn room(_number: RawFd) -> Option<RawFd> {
        None
    }
}
