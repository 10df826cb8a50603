//! The child's side of the self-test.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use sealane::{Channel, Error, Message};

use super::{IDLE, THROUGH_FD, fanout, pin};

/// The first control byte of a message: what the child is to do with it.
pub(super) const ECHO: u8 = 1;
pub(super) const FD: u8 = 2;
pub(super) const DATA: u8 = 3;
pub(super) const SUM: u8 = 4;

/// The role of a child of the self-test.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::doctor) enum Role {
    Channel,
    Subscriber,
}

impl Role {
    /// The word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Subscriber => "subscriber",
        }
    }
}

/// The bytes of message `number`.
pub(super) fn pattern(number: u32) -> impl Iterator<Item = u8> {
    // A linear congruential generator, of which the high bits are good.
    let mut state = number;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
}

/// The sum of a payload's words, read where it lies.
pub(super) fn sum(message: &Message) -> Result<(u64, u64)> {
    let payload = message.payload().context("a message without a payload")?;
    let mut sum = 0_u64;
    let add = |words: &[u64]| sum = words.iter().fold(sum, |sum, word| sum.wrapping_add(*word));
    payload.shared::<u64>()?.for_each_block(add);
    Ok((payload.len() as u64, sum))
}

/// Serves the parent until it is gone.
pub(in crate::doctor) fn serve(role: Role) -> Result<()> {
    pin::child();
    match role {
        Role::Channel => answer(&mut Channel::builder().handshake_timeout(IDLE).inherited()?),
        Role::Subscriber => fanout::subscribe(),
    }
}

fn answer(channel: &mut Channel) -> Result<()> {
    let (mut total, mut added) = (0_u64, 0_u64);
    loop {
        let mut message = match channel.recv_timeout(IDLE) {
            Err(Error::Disconnected) => return Ok(()),
            message => message?,
        };
        match message.control().first() {
            Some(&ECHO) => echo(channel, &message)?,
            Some(&DATA) => {
                let (len, sum) = sum(&message)?;
                (total, added) = (total + len, added.wrapping_add(sum));
            }
            Some(&SUM) => {
                let answer = [total.to_le_bytes(), added.to_le_bytes()].concat();
                channel.sender.send_timeout(&answer, IDLE)?;
                (total, added) = (0, 0);
            }
            Some(&FD) => {
                let fd = message.take_fd().context("a message without its descriptor")?;
                std::fs::File::from(fd).write_all(THROUGH_FD)?;
                channel.sender.send_timeout(&[FD], IDLE)?;
            }
            other => ensure!(other.is_none(), "a message of an unknown kind: {other:?}"),
        }
    }
}

fn echo(channel: &mut Channel, message: &Message) -> Result<()> {
    let Some(payload) = message.payload() else {
        return Ok(channel.sender.send_timeout(message.control(), IDLE)?);
    };
    let mut loan = channel.sender.loan_timeout(payload.len(), IDLE)?;
    payload.copy_to_slice(&mut loan)?;
    Ok(loan.send_with(message.control())?)
}
