//! `sealane_loan`: memory of the ring that C fills in place. The loan itself is its channel's.

use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    ptr,
    sync::Arc,
    time::Instant,
};

use sealane::{Sender, Unsent};

use crate::{
    arguments::{Given, Timeout, empty, handle, take, variable},
    channel::Channel,
    halves::Loan,
    readable::is_readable,
    sending::Lent,
    status::{Failure, Result, done, run},
};

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
    done(|| {
        let out = empty(loan)?;
        let timeout = Timeout::of(timeout_ms)?;
        let halves = &handle(channel)?.halves;
        halves.sending()?.lend(len, timeout)?;
        *out = Some(halves.loan());
        Ok(())
    })
}

/// The loan's memory, `sealane_loan_len` bytes; null for a null loan. Nobody else can write there. Valid until the loan is sent
/// or freed. Its first bytes are aligned to 64. What is not written holds old bytes of the ring.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_data(loan: Option<&Loan>) -> *mut c_void {
    let data = loan.and_then(|loan| loan.with(|loan| loan.as_mut_ptr().cast()).ok());
    data.unwrap_or(ptr::null_mut())
}

/// Bytes of the loan; 0 for a null loan.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_len(loan: Option<&Loan>) -> usize {
    loan.and_then(|loan| loan.with(|loan| loan.len()).ok()).unwrap_or(0)
}

/// Keeps the first `len` bytes of the loan; more than there are is -EINVAL.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_truncate(loan: Option<&Loan>, len: usize) -> c_int {
    done(|| {
        handle(loan)?.with(|loan| {
            if len > loan.len() {
                return Err(Failure::invalid("at most the loan's length expected, more bytes found"));
            }
            loan.truncate(len);
            Ok(())
        })?
    })
}

/// Sends nothing: the loan's room is free again. Sets the variable to null; null is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_loan_free(loan: Option<&mut Option<Box<Loan>>>) {
    run(|| {
        let Ok(mut loan) = take(loan) else { return };
        let Some(halves) = loan.halves.take() else {
            // It was sent or freed through another variable before, and is its channel's.
            mem::forget(loan);
            return;
        };
        if let Ok(mut sending) = halves.lending() {
            // It fails if the channel was freed: the loan has ended.
            let _ = sending.end_loan(|loan| Ok::<_, (_, Failure)>(loan.discard()));
        }
        halves.take_back(loan);
    });
}

/// Sends the loan as a message, with `len` control bytes and `fd_count` descriptors, which stay the caller's. Whole or not at
/// all.
///
/// On success the loan is freed, and the variable null. Every failure leaves it open: try again, or free it. Only descriptors,
/// or more than 1 KiB of control bytes, can make it wait. Failures as of `sealane_send`. Success means that the message is on
/// its way: a peer that goes away before it receives does not get it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_loan_send(
    loan: Option<&mut Option<Box<Loan>>>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        commit(loan, Timeout::of(timeout_ms)?, |loan| loan.try_send_with(given.control()))
    })
}

/// Sends the loan as a request; as `sealane_loan_send`. The reply has this number, and can be waited for: `sealane_wait_reply`.
/// `number` may be null.
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
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let mut request = 0;
        commit(loan, Timeout::of(timeout_ms)?, |loan| {
            let (sender, id) = loan.try_request(given.control())?;
            request = id.number();
            Ok(sender)
        })?;
        if let Some(out) = number {
            out.write(request);
        }
        Ok(())
    })
}

/// Sends the loan as the reply to the request with this number; as `sealane_loan_send`. -ENOENT: no such request waits for a
/// reply.
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
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let token =
            handle(loan.as_ref().and_then(|loan| loan.as_deref()))?.with(|loan| loan.reply_token(number))?;
        let token = token.ok_or(Failure::Library(sealane::Error::UnknownRequest))?;
        commit(loan, Timeout::of(timeout_ms)?, |loan| loan.try_reply(token, given.control()))
    })
}

/// Sends a loan by `send`, which does not wait: it is called again when there is room. What fails leaves the loan as it is.
fn commit(
    variable: Option<&mut Option<Box<Loan>>>,
    timeout: Timeout,
    mut send: impl FnMut(Lent) -> Result<Box<Sender>, Unsent<Lent>>,
) -> Result<()> {
    let variable = self::variable(variable)?;
    let halves = Arc::clone(handle(variable.as_deref())?.halves()?);
    let begun = Instant::now();
    loop {
        let mut sending = halves.lending()?;
        let result = sending.end_loan(|loan| {
            send(loan).map_err(|unsent| {
                let is_full = matches!(unsent.error(), sealane::Error::Full);
                let failure = Failure::note(unsent.error());
                (unsent.into_loan(), (failure, is_full))
            })
        })?;
        let Err((failure, is_full)) = result else {
            halves.take_back(take(Some(variable))?);
            return Ok(());
        };
        drop(sending);
        if !is_full || matches!(timeout, Timeout::Try) {
            return Err(failure);
        }
        is_readable(halves.sending_fd(), timeout.after(begun).left()?)?;
    }
}
