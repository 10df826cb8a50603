//! The two sides of many channels: a client that sends to any of them, and an event loop that serves them all.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use sealane::{Closer, Message, Receiver, Sender};

use crate::endpoints::pair;

/// Bytes of each ring.
pub(crate) const RING: usize = 8192;
/// A control message that ends the loop's thread.
const STOP: u64 = u64::MAX;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// The message is in the ring.
    Payload,
    /// The message is in the socket.
    Control,
    /// A datagram over a pair of sockets for each channel, without sealane: the kernel's share.
    Bare,
}

#[derive(Clone, Copy)]
pub(crate) enum Burst {
    /// So many messages, each to a channel at random.
    Random(usize),
    /// One to every channel, in random order.
    Each,
}

pub(crate) fn establish(count: usize) -> (Client, Server) {
    let (senders, receivers) = (0..count)
        .map(|_| {
            let (a, b) = pair(RING);
            (a.split().0, b.split().1)
        })
        .unzip();
    let (bare_senders, bare_receivers) = (0..count).map(|_| UnixDatagram::pair().unwrap()).unzip();
    let order = (0..count).collect();
    (
        Client { senders, bare: bare_senders, order, sent: 0, sum: 0 },
        Server::new(receivers, bare_receivers).unwrap(),
    )
}

pub(crate) struct Client {
    senders: Vec<Sender>,
    bare: Vec<UnixDatagram>,
    order: Vec<usize>,
    /// Messages, and the sum of their numbers.
    pub(crate) sent: u64,
    pub(crate) sum: u64,
}

impl Client {
    /// How many messages that were.
    pub(crate) fn send(&mut self, kind: Kind, burst: Burst) -> u32 {
        let before = self.sent;
        match burst {
            Burst::Random(count) => {
                for _ in 0..count {
                    self.send_to(fastrand::usize(..self.senders.len()), kind);
                }
            }
            Burst::Each => {
                fastrand::shuffle(&mut self.order);
                for at in 0..self.order.len() {
                    self.send_to(self.order[at], kind);
                }
            }
        }
        u32::try_from(self.sent - before).unwrap()
    }

    /// Ends the loop's thread.
    pub(crate) fn stop(&mut self) {
        self.senders[0].send(&STOP.to_ne_bytes()).unwrap();
    }

    /// Ends a channel of the loop's, which wakes it.
    pub(crate) fn closer(&self) -> Closer {
        self.senders[0].closer()
    }

    fn send_to(&mut self, channel: usize, kind: Kind) {
        let sender = &mut self.senders[channel];
        self.sent += 1;
        self.sum = self.sum.wrapping_add(self.sent);
        match kind {
            Kind::Bare => assert_eq!(self.bare[channel].send(&self.sent.to_ne_bytes()).unwrap(), 8),
            Kind::Control => sender.send(&self.sent.to_ne_bytes()).unwrap(),
            Kind::Payload => {
                let mut loan = sender.loan_slice::<u64>(8).unwrap();
                loan.fill(self.sent);
                loan.send().unwrap();
            }
        }
    }
}

/// The event loop.
pub(crate) struct Server {
    poll: Poll,
    events: Events,
    receivers: Vec<Receiver>,
    bare: Vec<UnixDatagram>,
    pub(crate) taken: u64,
    pub(crate) sum: u64,
}

impl Server {
    fn new(receivers: Vec<Receiver>, bare: Vec<UnixDatagram>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let descriptors = receivers.iter().map(AsRawFd::as_raw_fd).chain(bare.iter().map(AsRawFd::as_raw_fd));
        for (descriptor, at) in descriptors.zip(0..) {
            poll.registry().register(&mut SourceFd(&descriptor), Token(at), Interest::READABLE)?;
        }
        for socket in &bare {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { poll, events: Events::with_capacity(1024), receivers, bare, taken: 0, sum: 0 })
    }

    /// Waits for messages, and takes all of them. False after the order to stop.
    pub(crate) fn look(&mut self) -> bool {
        let mut goes_on = true;
        self.poll.poll(&mut self.events, None).unwrap();
        for event in &self.events {
            let at = event.token().0;
            // All of them, also after the order to stop: only `None` arms the receiver for the next wait.
            while let Some(number) = next(&mut self.receivers, &self.bare, at) {
                if number == STOP {
                    goes_on = false;
                } else {
                    self.taken += 1;
                    self.sum = self.sum.wrapping_add(number);
                }
            }
        }
        goes_on
    }
}

/// The number of the next message on the channel `at`.
fn next(receivers: &mut [Receiver], bare: &[UnixDatagram], at: usize) -> Option<u64> {
    let count = receivers.len();
    if let Some(receiver) = receivers.get_mut(at) {
        return receiver.try_recv().unwrap().as_ref().map(number_of);
    }
    let mut bytes = [0; 8];
    match bare[at - count].recv(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        received => {
            assert_eq!(received.unwrap(), 8);
            Some(u64::from_ne_bytes(bytes))
        }
    }
}

fn number_of(message: &Message) -> u64 {
    match message.payload() {
        Some(payload) => payload.shared::<u64>().unwrap().get(7).unwrap(),
        None => u64::from_ne_bytes(message.control().try_into().unwrap()),
    }
}
