//! [`Sealane`]: this crate, through its public interface, with its default settings but for the ring's size.

use std::os::fd::{BorrowedFd, OwnedFd};

use ::sealane::{Channel, Control, SharedSlice, Wait};
use anyhow::{Context, Result};

use super::Transport;
use crate::{
    cell::{Cell, Side},
    link::Link,
    transports::seqpacket,
    work::{End, receive_each, send_each},
};

/// With `BATCH`, payloads are sent and received in batches.
pub(super) struct Sealane<const BATCH: bool>(Channel);

/// Most payloads of a batch that is sent.
const MOST: u64 = 64;

impl<const BATCH: bool> End for Sealane<BATCH> {
    type View<'a> = SharedSlice<'a, u8>;

    fn establish(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let socket = seqpacket::connect(side, link)?;
        let wait = match cell.transport {
            Transport::SealaneSpin => Wait::Spin,
            Transport::SealaneBlock => Wait::Block,
            _ => Wait::default(),
        };
        let builder =
            Channel::builder().ring_capacity(cell.ring).max_peer_ring_capacity(cell.ring).wait(wait);
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
            let end = count.min(number + MOST);
            self.0.batch(|sender| {
                while number < end {
                    let mut loan = sender.loan(len)?;
                    fill(number, &mut loan);
                    loan.send()?;
                    number += 1;
                }
                Ok::<_, ::sealane::Error>(())
            })?;
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
            let mut batch = self.0.recv_batch()?;
            while let Some(message) = batch.advance() {
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
