//! A channel in a `mio` loop: an echo server that never blocks. Run it: `cargo run --example mio`.
//!
//! The rule for both halves: **a call that finds nothing arms the descriptor, which becomes readable when trying again is
//! worthwhile.** `mio` is edge-triggered and reports that once. So repeat each call until it finds nothing, then wait:
//! - receive until [`Receiver::try_recv`] says `None`;
//! - send until [`Sender::try_loan`] says `None`, or a `try_send` says `Full`. The sender has a descriptor of its own.
//!
//! A loop that stops earlier, to be fair to other channels, must come back without waiting. Here an echo without room stops
//! the receiving, too: nothing piles up for a client that does not read its echoes.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    os::fd::AsRawFd,
    thread,
};

use mio::{Events, Interest, Poll, Registry, Token, event::Source, unix::SourceFd};
use sealane::{Channel, Error, Payload, Receiver, Sender};

/// Anything with a descriptor, to be watched for being readable: a `Sender`, a `Receiver`, a `Listener`, a `Handshake`.
struct Watched<T>(T);

impl<T: AsRawFd> Source for Watched<T> {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

const MESSAGES: Token = Token(0);
const ROOM: Token = Token(1);

/// Sends every payload back to where it came from.
struct Echo {
    receiver: Watched<Receiver>,
    sender: Watched<Sender>,
    /// Received, and not yet sent back.
    owed: Option<Payload>,
    echoed: u32,
}

impl Echo {
    fn new(channel: Channel, registry: &Registry) -> io::Result<Self> {
        let (sender, receiver) = channel.split();
        let (mut sender, mut receiver) = (Watched(sender), Watched(receiver));
        registry.register(&mut receiver, MESSAGES, Interest::READABLE)?;
        registry.register(&mut sender, ROOM, Interest::READABLE)?;
        Ok(Self { receiver, sender, owed: None, echoed: 0 })
    }

    /// Echoes until a call finds nothing or no room, whichever descriptor was readable.
    fn go_on(&mut self) -> Result<(), Error> {
        loop {
            if let Some(payload) = &self.owed {
                let Some(mut loan) = self.sender.0.try_loan(payload.len())? else { return Ok(()) };
                payload.copy_to_slice(&mut loan)?;
                loan.send()?;
                self.echoed += 1;
                self.owed = None;
            }
            let Some(mut message) = self.receiver.0.try_recv()? else { return Ok(()) };
            self.owed = message.take_payload();
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Rings that hold some dozens of messages: both sides will often have to wait for room.
    let (server, client) = Channel::builder().ring_capacity(64 << 10).pair()?;
    let client = thread::spawn(|| send_and_check(client, 100_000));

    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    let mut echo = Echo::new(server, poll.registry())?;
    let mut wake_ups = 0;
    let end = loop {
        poll.poll(&mut events, None)?;
        wake_ups += 1;
        // Other sources of the program would be looked at here, by their tokens.
        let ours = events.iter().any(|event| [MESSAGES, ROOM].contains(&event.token()));
        if ours && let Err(error) = echo.go_on() {
            break error;
        }
    };
    writeln!(io::stdout(), "echoed {} payloads, woken up {wake_ups} times, then: {end}", echo.echoed)?;
    drop(echo);
    client.join().expect("the client does not panic")?;
    Ok(())
}

/// A client that may block: one thread sends, one receives.
fn send_and_check(channel: Channel, count: u32) -> Result<(), Error> {
    let (mut sender, mut receiver) = channel.split();
    let checking = thread::spawn(move || {
        for number in 0..count {
            let message = receiver.recv()?;
            let echo = message.payload().map(|payload| payload.read::<u32>(0)).transpose()?;
            assert_eq!(echo, Some(number));
        }
        Ok(())
    });
    for number in 0..count {
        let mut loan = sender.loan(1000)?;
        loan[..4].copy_from_slice(&number.to_le_bytes());
        loan.send()?;
    }
    // Only when all echoes are here: dropping the sender ends the server.
    checking.join().expect("all echoes are right")
}
