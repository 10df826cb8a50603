//! `sealane_loan`: memory of the ring that C fills in place. An open loan has the channel's sender.

use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    ptr,
    sync::Arc,
};

use sealane::{OwnedLoan, Sender, Unsent};

use crate::{
    arguments::{Given, Timeout, empty, handle, take, variable},
    channel::{Channel, Halves},
    sending::SenderState,
    status::{Failure, Result, done},
};

/// Memory in the ring, to be filled and sent. While it is open, the channel's sending functions return -EBUSY; receiving goes
/// on. One thread at a time may use it.
#[derive(Debug)]
pub struct Loan {
    /// None while the handle is in the pool.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    loan: OwnedLoan,
    halves: Arc<Halves>,
}

impl Loan {
    fn open(&self) -> Result<&OwnedLoan> {
        Ok(&self.open.as_ref().ok_or_else(|| Failure::null("an open loan expected"))?.loan)
    }

    fn open_mut(&mut self) -> Result<&mut OwnedLoan> {
        Ok(&mut self.open.as_mut().ok_or_else(|| Failure::null("an open loan expected"))?.loan)
    }
}

/// Lends `len` bytes of the ring, at most `sealane_limits.max_payload`: write them at `sealane_loan_data`, then send them.
/// Waits for room for `timeout_ms` at most: -1 for ever, 0 not at all. At most one loan of a channel is open at a time.
///
/// -EAGAIN: no room; `sealane_channel_send_fd` says when to try again. -ETIMEDOUT. -EPIPE. -EMSGSIZE: longer than the ring can
/// hold. -EBUSY: a loan is open, or another thread is sending.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_open(
    channel: Option<&Channel>,
    len: usize,
    timeout_ms: c_int,
    loan: Option<&mut MaybeUninit<Option<Box<Loan>>>>,
) -> c_int {
    done((|| {
        let out = empty(loan)?;
        let timeout = Timeout::of(timeout_ms)?;
        let halves = &handle(channel)?.halves;
        let mut sending = halves.sending()?;
        let sender = sending.sender()?;
        if let Timeout::Try = timeout
            && !sender.has_space(len)?
        {
            return Err(Failure::again("the ring has no room for the loan"));
        }
        let SenderState::Here(sender) = mem::replace(&mut sending.state, SenderState::Lent) else {
            return Err(Failure::busy("a loan of this channel is open"));
        };
        match sender.into_loan(len, timeout.duration()) {
            Ok(open) => {
                let mut loan = sending.spare.take().unwrap_or_else(|| Box::new(Loan { open: None }));
                loan.open = Some(Open { loan: open, halves: Arc::clone(halves) });
                *out = Some(loan);
                Ok(())
            }
            Err(unsent) => {
                let failure = Failure::note(unsent.error());
                sending.state = SenderState::Here(unsent.into_sender());
                Err(failure)
            }
        }
    })())
}

/// The loan's memory, `sealane_loan_len` bytes; null for a null loan. Nobody else can write there. Valid until the loan is sent
/// or freed. Its first bytes are aligned to 64. What is not written holds old bytes of the ring.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_data(loan: Option<&mut Loan>) -> *mut c_void {
    let loan = loan.and_then(|loan| loan.open_mut().ok());
    loan.map_or(ptr::null_mut(), |loan| loan.as_mut_ptr().cast())
}

/// Bytes of the loan; 0 for a null loan.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_len(loan: Option<&Loan>) -> usize {
    loan.and_then(|loan| loan.open().ok()).map_or(0, |loan| loan.len())
}

/// Keeps the first `len` bytes of the loan; more than there are is -EINVAL.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_truncate(loan: Option<&mut Loan>, len: usize) -> c_int {
    done((|| {
        let loan = loan.ok_or_else(|| Failure::null("a loan expected, a null pointer found"))?.open_mut()?;
        if len > loan.len() {
            return Err(Failure::invalid("at most the loan's length expected, more bytes found"));
        }
        loan.truncate(len);
        Ok(())
    })())
}

/// Sends nothing: the loan's room is free again. Sets the variable to null; null is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_free(loan: Option<&mut Option<Box<Loan>>>) {
    let Ok(mut loan) = take(loan) else { return };
    if let Some(Open { loan: open, halves }) = loan.open.take() {
        halves.give_back(open.discard(), loan);
    }
}

/// Sends the loan as a message, with `len` control bytes and `fd_count` descriptors, which stay the caller's. Whole or not at
/// all.
///
/// On success the loan is freed, and the variable null. With `timeout_ms` 0, every failure leaves the loan open: try again, or
/// free it. With another timeout (-1 for ever, or milliseconds), every failure frees it. Only descriptors, or more than 1 KiB of
/// control bytes, can make it wait. Failures as of `sealane_send`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_loan_send(
    loan: Option<&mut Option<Box<Loan>>>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
) -> c_int {
    done((|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let control = unsafe { Given::new(data, len, fds, fd_count) }?.control();
        let timeout = Timeout::of(timeout_ms)?;
        commit(loan, |loan| match timeout {
            Timeout::Forever => Sent::done(loan.send_with(control)),
            Timeout::Try => Sent::tried(loan.try_send_with(control)),
            Timeout::Within(time) => Sent::done(loan.send_with_timeout(control, time)),
        })
    })())
}

/// Sends the loan as a request; as `sealane_loan_send`. The reply has this number; `number` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_loan_request(
    loan: Option<&mut Option<Box<Loan>>>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done((|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let control = unsafe { Given::new(data, len, fds, fd_count) }?.control();
        let timeout = Timeout::of(timeout_ms)?;
        let keep = |(sender, id): (Sender, sealane::RequestId)| {
            if let Some(out) = number {
                out.write(id.number());
            }
            sender
        };
        commit(loan, |loan| match timeout {
            Timeout::Forever => Sent::done(loan.request(control).map(keep)),
            Timeout::Try => Sent::tried(loan.try_request(control).map(keep)),
            Timeout::Within(time) => Sent::done(loan.request_timeout(control, time).map(keep)),
        })
    })())
}

/// Sends the loan as the reply to the request with this number; as `sealane_loan_send`. -ENOENT: no such request waits for a
/// reply; the loan stays open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_loan_reply(
    loan: Option<&mut Option<Box<Loan>>>,
    number: u64,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
) -> c_int {
    done((|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let control = unsafe { Given::new(data, len, fds, fd_count) }?.control();
        let timeout = Timeout::of(timeout_ms)?;
        commit(loan, |loan| {
            let Some(token) = loan.reply_token(number) else {
                return Sent::Kept(loan, Failure::Library(sealane::Error::UnknownRequest));
            };
            match timeout {
                Timeout::Forever => Sent::done(loan.reply(token, control)),
                Timeout::Try => Sent::tried(loan.try_reply(token, control)),
                Timeout::Within(time) => Sent::done(loan.reply_timeout(token, control, time)),
            }
        })
    })())
}

/// What became of a loan that was to be sent.
enum Sent {
    Done(Sender),
    Gone(Sender, Failure),
    Kept(OwnedLoan, Failure),
}

impl Sent {
    fn done(result: Result<Sender, Unsent<Sender>>) -> Self {
        match result {
            Ok(sender) => Self::Done(sender),
            Err(unsent) => {
                let failure = Failure::note(unsent.error());
                Self::Gone(unsent.into_sender(), failure)
            }
        }
    }

    fn tried(result: Result<Sender, Unsent<OwnedLoan>>) -> Self {
        match result {
            Ok(sender) => Self::Done(sender),
            Err(unsent) => {
                let failure = Failure::note(unsent.error());
                Self::Kept(unsent.into_loan(), failure)
            }
        }
    }
}

/// Sends a loan, and gives back to its owners what is left: the sender to the channel, or the loan to the caller's variable.
fn commit(variable: Option<&mut Option<Box<Loan>>>, send: impl FnOnce(OwnedLoan) -> Sent) -> Result<()> {
    let variable = self::variable(variable)?;
    let mut loan = take(Some(variable))?;
    let Some(Open { loan: open, halves }) = loan.open.take() else {
        return Err(Failure::null("an open loan expected"));
    };
    match send(open) {
        Sent::Done(sender) => {
            halves.give_back(sender, loan);
            Ok(())
        }
        Sent::Gone(sender, failure) => {
            halves.give_back(sender, loan);
            Err(failure)
        }
        Sent::Kept(open, failure) => {
            loan.open = Some(Open { loan: open, halves });
            *variable = Some(loan);
            Err(failure)
        }
    }
}
