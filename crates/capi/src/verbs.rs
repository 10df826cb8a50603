//! The verbs of a sender with each timeout, and the choice between a packet and the ring.

use std::time::Instant;

use sealane::{Control, Error, Limits, Loan, ReplyToken, RequestId, Sender};

use crate::{
    arguments::{Given, Timeout},
    status::{Failure, Result},
};

pub(crate) fn send(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let control = given.control();
    Ok(match timeout {
        Timeout::Forever => sender.send(control),
        Timeout::Try => sender.try_send(control),
        Timeout::Within(time) => sender.send_timeout(control, time),
    }?)
}

pub(crate) fn request(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<RequestId> {
    let control = given.control();
    Ok(match timeout {
        Timeout::Forever => sender.request(control),
        Timeout::Try => sender.try_request(control),
        Timeout::Within(time) => sender.request_timeout(control, time),
    }?)
}

pub(crate) fn reply(sender: &mut Sender, number: u64, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let (token, control) = (token(sender, number)?, given.control());
    Ok(match timeout {
        Timeout::Forever => sender.reply(token, control),
        Timeout::Try => sender.try_reply(token, control),
        Timeout::Within(time) => sender.reply_timeout(token, control, time),
    }?)
}

/// The token of a request that waits for a reply.
fn token(sender: &Sender, number: u64) -> Result<ReplyToken> {
    sender.reply_token(number).ok_or(Failure::Library(Error::UnknownRequest))
}

/// [`send`], in a packet or through the ring.
pub(crate) fn send_any(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<()> {
    match in_the_ring(sender, given, timeout)? {
        None => send(sender, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.send_with(fds),
            Timeout::Try => loan.try_send_with(fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.send_with_timeout(fds, time),
        }?),
    }
}

/// [`request`], in a packet or through the ring.
pub(crate) fn request_any(sender: &mut Sender, given: Given<'_>, timeout: Timeout) -> Result<RequestId> {
    match in_the_ring(sender, given, timeout)? {
        None => request(sender, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.request(fds),
            Timeout::Try => loan.try_request(fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.request_timeout(fds, time),
        }?),
    }
}

/// [`reply`], in a packet or through the ring.
pub(crate) fn reply_any(sender: &mut Sender, number: u64, given: Given<'_>, timeout: Timeout) -> Result<()> {
    let token = token(sender, number)?;
    match in_the_ring(sender, given, timeout)? {
        None => reply(sender, number, given, timeout),
        Some((loan, fds, timeout)) => Ok(match timeout {
            Timeout::Forever => loan.reply(token, fds),
            Timeout::Try => loan.try_reply(token, fds).map_err(sealane::Unsent::into_error),
            Timeout::Within(time) => loan.reply_timeout(token, fds, time),
        }?),
    }
}

/// The ring is faster than a packet from this many bytes on, without descriptors and with some: measured with libcamera's messages.
const RING_FROM: usize = 4096;
const RING_FROM_WITH_FDS: usize = 16 * 1024 + 1;

pub(crate) fn fits_a_packet(limits: &Limits, given: Given<'_>) -> bool {
    let ring_from = if given.fds.is_empty() { RING_FROM } else { RING_FROM_WITH_FDS };
    let len = given.bytes.len();
    // A message that only one of the two can carry goes there.
    len <= limits.max_control && (len < ring_from || len > limits.max_payload)
}

/// A loan that has the bytes, the descriptors that go with it, and the time that is left; None if a packet is better.
fn in_the_ring<'s, 'g>(
    sender: &'s mut Sender,
    given: Given<'g>,
    timeout: Timeout,
) -> Result<Option<(Loan<'s>, Control<'g>, Timeout)>> {
    if fits_a_packet(&sender.limits(), given) {
        return Ok(None);
    }
    let (begun, len) = (Instant::now(), given.bytes.len());
    let mut loan = match timeout {
        Timeout::Forever => sender.loan(len)?,
        Timeout::Try => {
            sender.try_loan(len)?.ok_or_else(|| Failure::again("the ring has no room for the message"))?
        }
        Timeout::Within(time) => sender.loan_timeout(len, time)?,
    };
    loan.copy_from_slice(given.bytes);
    let fds = Control::default().fds(given.fds.iter().copied());
    Ok(Some((loan, fds, timeout.after(begun))))
}
