//! A publisher with one subscriber: both sides.

use anyhow::{Result, bail, ensure};
use sealane::{Builder, Error, Event, Slow};

use super::{Clock, Ends, IDLE, Tried, child, child::Role, command};

/// Messages that are published, and bytes of each.
const MESSAGES: u8 = 64;
const LEN: usize = 64 << 10;

/// The sum of the words of all messages.
fn expected() -> u64 {
    let word = |number: u8| u64::from_ne_bytes([number; 8]).wrapping_mul(LEN as u64 / 8);
    (0..MESSAGES).map(word).fold(0, u64::wrapping_add)
}

/// Publishes to a child, which says what it has read.
pub(super) fn publish(clock: Clock) -> Result<Tried> {
    let builder = Builder::default().handshake_timeout(clock.wait()).slow(Slow::Wait(clock.wait()));
    let mut publisher = builder.publisher()?;
    let (id, child) = publisher.spawn(command(Role::Subscriber))?;
    let _child = Ends(child);
    for number in 0..MESSAGES {
        let mut loan = publisher.loan_timeout(LEN, clock.wait())?;
        loan.fill(number);
        loan.send_with(&[number])?;
    }
    loop {
        match publisher.wait_event(clock.wait())? {
            Some(Event::Message(from, message)) if from == id => {
                ensure!(message.control() == expected().to_le_bytes(), "the subscriber has read other bytes");
                return Ok((
                    format!("one subscriber has read {MESSAGES} messages, whole and in order"),
                    Vec::new(),
                ));
            }
            Some(Event::Left(_, error)) => bail!("the subscriber has left: {error}"),
            Some(_) => {}
            None => bail!("the subscriber has not answered in time"),
        }
    }
}

/// The child: reads all messages, and answers with their sum.
pub(super) fn subscribe() -> Result<()> {
    let mut subscriber = Builder::default().handshake_timeout(IDLE).subscribe_inherited()?;
    let mut sum = 0_u64;
    for number in 0..MESSAGES {
        let message = subscriber.recv_timeout(IDLE)?;
        ensure!(message.control() == [number] && message.missed() == 0, "message {number} is missing");
        let (len, added) = child::sum(&message)?;
        ensure!(len == LEN as u64, "message {number} has {len} bytes");
        sum = sum.wrapping_add(added);
    }
    subscriber.send_timeout(&sum.to_le_bytes(), IDLE)?;
    match subscriber.recv_timeout(IDLE) {
        Err(Error::Disconnected) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("a message too many"),
    }
}
