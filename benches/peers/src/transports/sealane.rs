//! [`Sealane`]: this crate, through its public interface, with its default settings but for the ring's size.

use std::os::fd::{BorrowedFd, OwnedFd};

use ::sealane::{Builder, Channel, Control, SharedSlice, Wait};
use anyhow::{Context, Result};
use rustix::net::SocketType;

use crate::{
    cell::{Cell, Side, Transport},
    end::{End, receive_each, send_each},
    link::Link,
    payload::{Bytes, add, total},
    socket,
};

/// With `BATCH`, payloads are sent and received in batches.
pub(super) struct Sealane<const BATCH: bool>(Channel);

/// The most payloads in a batch that is sent.
const MAX_BATCH: u64 = 64;

/// The way that the documentation calls the fastest: chunks of 64 bytes, by value.
impl Bytes for SharedSlice<'_, u8> {
    #[inline]
    fn len(&self) -> usize {
        SharedSlice::len(self)
    }

    #[inline]
    fn sum(&self) -> u64 {
        let words = self.cast::<u64>().expect("only whole words are sent");
        let mut chunks = words.array_chunks::<8>();
        let sums = chunks.by_ref().fold([0; 8], add);
        chunks.remainder().iter().fold(total(sums), u64::wrapping_add)
    }
}

impl<const BATCH: bool> End for Sealane<BATCH> {
    type View<'a> = SharedSlice<'a, u8>;

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let socket = socket::pair(side, link, SocketType::SEQPACKET)?;
        let wait = match cell.transport {
            Transport::SealaneSpin => Wait::Spin,
            Transport::SealaneBlock => Wait::Block,
            _ => Wait::default(),
        };
        let ring = (cell.depth * cell.size).max(Builder::ring_for(cell.size, 0));
        let builder = Channel::builder().ring_capacity(ring).max_peer_ring_capacity(ring).wait(wait);
        Ok(Self(builder.handshake(socket)?.finish()?))
    }

    #[inline]
    fn send(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let mut loan = self.0.loan(len)?;
        fill(&mut loan);
        Ok(loan.send()?)
    }

    #[inline]
    fn receive(&mut self, _len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        let message = self.0.recv()?;
        read(message.payload().context("expected a payload, found none")?.bytes());
        Ok(())
    }

    #[inline]
    fn send_many(&mut self, len: usize, count: u64, mut fill: impl FnMut(u64, &mut [u8])) -> Result<()> {
        if !BATCH {
            return send_each(self, len, count, fill);
        }
        let mut number = 0;
        while number < count {
            let end = count.min(number + MAX_BATCH);
            let mut batch = self.0.sender.batch();
            while number < end {
                let mut loan = batch.loan(len)?;
                fill(number, &mut loan);
                loan.send()?;
                number += 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn receive_many(
        &mut self,
        len: usize,
        count: u64,
        mut read: impl FnMut(u64, Self::View<'_>),
    ) -> Result<()> {
        if !BATCH {
            return receive_each(self, len, count, read);
        }
        let mut number = 0;
        while number < count {
            let mut batch = self.0.receiver.recv_batch()?;
            while let Some(message) = batch.next() {
                read(number, message.payload().context("expected a payload, found none")?.bytes());
                number += 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn send_control(&mut self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let control = Control::new(bytes);
        Ok(match &fd {
            Some(fd) => self.0.send(control.fd(fd)),
            None => self.0.send(control),
        }?)
    }

    #[inline]
    fn receive_control(&mut self, _fds: bool, read: impl FnOnce(&[u8])) -> Result<Vec<OwnedFd>> {
        let mut message = self.0.recv()?;
        read(message.control());
        Ok(message.take_fds())
    }
}
