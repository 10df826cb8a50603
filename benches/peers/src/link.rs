//! [`Link`]: how the two processes of a cell agree, beside the transport that is measured.

use std::{io::IoSlice, io::IoSliceMut, mem::MaybeUninit, os::fd::OwnedFd};

use anyhow::{Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::os::fd::{AsFd, BorrowedFd};

/// One end of a pair of sequenced packet sockets.
#[derive(Debug)]
pub(crate) struct Link(pub(crate) OwnedFd);

impl Link {
    pub(crate) fn say(&self, number: u64) -> Result<()> {
        self.send(&number.to_ne_bytes(), &[])
    }

    pub(crate) fn hear(&self) -> Result<u64> {
        let (bytes, _) = self.receive()?;
        Ok(u64::from_ne_bytes(bytes.as_slice().try_into()?))
    }

    /// Both have come here.
    pub(crate) fn meet(&self) -> Result<()> {
        self.say(0)?;
        self.hear().map(drop)
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
