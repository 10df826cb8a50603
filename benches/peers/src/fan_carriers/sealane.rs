//! This crate, through its public interface: a publisher with its subscribers, or a channel for each subscriber.

use std::time::Duration;

use ::sealane::{Builder, Channel, Event, Payload, Publisher, Slow, Subscriber};
use anyhow::{Context, Result, bail};
use rustix::net::SocketType;

use crate::{
    cell::Side,
    fan_cell::{Carrier, FanCell},
    fan_ends::{Publish, Receive, Seen},
    link::Link,
    socket,
};

/// The longest wait for a subscriber to join.
const PATIENCE: Duration = Duration::from_secs(10);

fn builder(cell: &FanCell) -> Builder {
    let slow = match cell.carrier {
        Carrier::SealaneOverrunning => Slow::Overrun,
        _ => Slow::Wait(Duration::MAX),
    };
    let ring = cell.ring();
    Builder::default()
        .ring_capacity(ring)
        .max_peer_ring_capacity(ring)
        .slow(slow)
        .max_subscribers(cell.subscribers)
}

pub(super) struct PublisherOut(Publisher);

impl Publish for PublisherOut {
    fn connect(cell: &FanCell, links: &[Link]) -> Result<Self> {
        let mut publisher = builder(cell).publisher()?;
        for link in links {
            let id = publisher.add(socket::pair(Side::First, link, SocketType::SEQPACKET)?)?;
            match publisher.wait_event(PATIENCE)? {
                Some(Event::Joined(joined)) if joined == id => {}
                other => bail!("expected a subscriber that joins, found {other:?}"),
            }
        }
        Ok(Self(publisher))
    }

    #[inline]
    fn publish(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let mut loan = self.0.loan(len)?;
        fill(&mut loan);
        Ok(loan.send()?)
    }
}

/// With `OVERRUN`, payloads are read in place and checked afterwards.
pub(super) struct SubscriberIn<const OVERRUN: bool>(Subscriber);

impl<const OVERRUN: bool> Receive for SubscriberIn<OVERRUN> {
    fn connect(cell: &FanCell, link: &Link) -> Result<Self> {
        let socket = socket::pair(Side::Second, link, SocketType::SEQPACKET)?;
        Ok(Self(builder(cell).subscribe_on(socket)?))
    }

    #[inline]
    fn receive(&mut self) -> Result<Option<Seen>> {
        if !OVERRUN {
            let message = self.0.recv()?;
            return seen(message.sequence(), message.payload()).map(Some);
        }
        let seen = self
            .0
            .recv_with(|message| message.payload().map(|payload| Seen::read(message.sequence(), &payload)))?;
        seen.map(|seen| seen.context("expected a payload, found none")).transpose()
    }
}

fn seen(number: u64, payload: Option<&Payload>) -> Result<Seen> {
    Ok(Seen::read(number, &payload.context("expected a payload, found none")?.bytes()))
}

pub(super) struct ChannelsOut(Vec<Channel>);

impl Publish for ChannelsOut {
    fn connect(cell: &FanCell, links: &[Link]) -> Result<Self> {
        let builder = builder(cell);
        let channel = |link| -> Result<Channel> {
            let socket = socket::pair(Side::First, link, SocketType::SEQPACKET)?;
            Ok(builder.handshake(socket)?.finish()?)
        };
        Ok(Self(links.iter().map(channel).collect::<Result<_>>()?))
    }

    #[inline]
    fn publish(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        for channel in &mut self.0 {
            let mut loan = channel.loan(len)?;
            fill(&mut loan);
            loan.send()?;
        }
        Ok(())
    }
}

pub(super) struct ChannelIn(Channel);

impl Receive for ChannelIn {
    fn connect(cell: &FanCell, link: &Link) -> Result<Self> {
        let socket = socket::pair(Side::Second, link, SocketType::SEQPACKET)?;
        Ok(Self(builder(cell).ring_capacity(0).handshake(socket)?.finish()?))
    }

    #[inline]
    fn receive(&mut self) -> Result<Option<Seen>> {
        let message = self.0.recv()?;
        seen(message.sequence(), message.payload()).map(Some)
    }
}
