//! [`Link`]: a socket by which the two processes of a cell agree, and send each other what a transport connects with.
//!
//! Nothing that is measured goes through it. The packets with descriptors that it is made of serve transports too.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// One end of a pair of sequenced packet sockets.
#[derive(Debug)]
pub(crate) struct Link(pub(crate) OwnedFd);

impl Link {
    pub(crate) fn send_number(&self, number: u64) -> Result<()> {
        self.send(&number.to_ne_bytes(), &[])
    }

    pub(crate) fn receive_number(&self) -> Result<u64> {
        let (bytes, _) = self.receive()?;
        Ok(u64::from_ne_bytes(bytes.as_slice().try_into()?))
    }

    /// Waits until the other process calls this too.
    pub(crate) fn barrier(&self) -> Result<()> {
        self.send_number(0)?;
        self.receive_number().map(drop)
    }

    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        send_with_fds(self.0.as_fd(), bytes, fds)
    }

    pub(crate) fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = vec![0; 4096];
        let (len, fds) = receive_with_fds(self.0.as_fd(), &mut bytes, RecvFlags::empty())?;
        ensure!(len > 0, "the other process is gone");
        bytes.truncate(len);
        Ok((bytes, fds))
    }
}

/// One packet with descriptors.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ensure!(ancillary.push(SendAncillaryMessage::ScmRights(fds)), "expected 8 descriptors at most");
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One packet with its descriptors, which are ours and close-on-exec.
pub(crate) fn receive_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}
