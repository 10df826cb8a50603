//! [`End`]: what a transport has to offer, so that every work can be done over it.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Result, bail};

use crate::{
    cell::{Cell, Side},
    link::Link,
    payload::Bytes,
};

/// One end of a transport, connected both ways. The works are compiled for each transport, so that none pays for being one
/// of many.
pub(crate) trait End: Sized {
    /// A payload, or a piece of one, as the receiver sees it.
    type View<'a>: Bytes;

    /// Connects to the other process, which calls this too.
    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self>;

    /// Sends a payload of `len` bytes; waits for room. `fill` writes it, once, or piece by piece where the transport has
    /// no place for the whole.
    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<()>;

    /// Waits for a payload, of which the receiver knows that it has `len` bytes, and lets `read` see it, or its pieces.
    fn receive(&mut self, len: usize, read: impl FnMut(Self::View<'_>)) -> Result<()>;

    /// Sends `count` payloads, numbered from 0, in whichever way is best for many.
    #[inline]
    fn send_many(&mut self, len: usize, count: u64, fill: impl FnMut(u64, &mut [u8])) -> Result<()> {
        send_each(self, len, count, fill)
    }

    /// Receives `count` payloads, numbered from 0, in whichever way is best for many. `read` may see each in pieces.
    #[inline]
    fn receive_many(&mut self, len: usize, count: u64, read: impl FnMut(u64, Self::View<'_>)) -> Result<()> {
        receive_each(self, len, count, read)
    }

    /// Sends bytes, and a descriptor if there is one, as a message without a payload.
    fn send_control(&mut self, _bytes: &[u8], _fd: Option<BorrowedFd<'_>>) -> Result<()> {
        bail!("this transport has no messages without payloads");
    }

    /// Waits for a message without a payload, with a descriptor if `fds` says so.
    fn receive_control(&mut self, _fds: bool, _read: impl FnOnce(&[u8])) -> Result<Vec<OwnedFd>> {
        bail!("this transport has no messages without payloads");
    }
}

/// Sends one by one.
#[inline]
pub(crate) fn send_each<E: End>(
    end: &mut E,
    len: usize,
    count: u64,
    mut fill: impl FnMut(u64, &mut [u8]),
) -> Result<()> {
    (0..count).try_for_each(|number| end.send(len, |bytes| fill(number, bytes)))
}

/// Receives one by one.
#[inline]
pub(crate) fn receive_each<E: End>(
    end: &mut E,
    len: usize,
    count: u64,
    mut read: impl FnMut(u64, E::View<'_>),
) -> Result<()> {
    (0..count).try_for_each(|number| end.receive(len, |view| read(number, view)))
}
