//! Received packets: the buffer that they are read to, their checks, and the descriptors that came with them.

use std::{
    cell::Cell,
    io,
    ops::Deref,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::sockopt;

use super::fd_list::FdList;
use crate::{
    error::ProtocolError,
    protocol::{
        layout::to_u64,
        packet::{PACKET_HEADER, Packet, PacketHeader},
    },
    sys::{
        cmsg::{Ancillary, RawCredentials, RecvMeta},
        descriptor::{duplicate, is_above_stdio},
    },
};

/// Descriptors that came from the peer.
///
/// A drop closes them, sockets without lingering: the close of a socket that the peer has prepared could take years
/// (`SO_LINGER`, `socket(7)`).
#[derive(Debug, Default)]
pub(crate) struct ReceivedFds(FdList<OwnedFd>);

impl ReceivedFds {
    /// Takes descriptors that the kernel has installed, and moves them off the numbers of the standard streams. False if this
    /// process may not open enough for that; then the first descriptor that could not be moved, and all behind it, are closed.
    #[inline]
    pub(super) fn take_installed(fds: FdList<OwnedFd>) -> (Self, bool) {
        let mut fds = Self(fds);
        let stays = |fd: &mut OwnedFd| {
            let number = fd.as_raw_fd();
            !is_above_stdio(number) && duplicate(number).map(|moved| *fd = moved).is_err()
        };
        let lost = fds.0.iter_mut().position(stays);
        if let Some(lost) = lost {
            let mut kept = fds.take();
            drop(Self(kept.split_off(lost).into()));
            fds.0 = kept.into();
        }
        (fds, lost.is_none())
    }

    /// Removes one descriptor; `None` past the end.
    pub(crate) fn remove(&mut self, index: usize) -> Option<OwnedFd> {
        self.0.remove(index)
    }

    /// Removes all descriptors, which the user closes from now on.
    pub(crate) fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0).into_vec()
    }
}

impl Deref for ReceivedFds {
    type Target = [OwnedFd];

    fn deref(&self) -> &[OwnedFd] {
        &self.0
    }
}

impl Drop for ReceivedFds {
    fn drop(&mut self) {
        for fd in &*self.0 {
            let _ = sockopt::set_socket_linger(fd, None);
        }
    }
}

/// The result of a read of the socket.
#[derive(Debug)]
pub(crate) enum Received<'b> {
    /// A packet, or the fault for which it is none.
    Packet(Result<ReceivedPacket<'b>, ProtocolError>),
    /// The socket is empty.
    Nothing,
    /// The peer has shut its writing side, or is gone.
    End,
}

/// A received packet: header checked, body in the thread's buffer, descriptors counted and owned.
#[derive(Debug)]
pub(crate) struct ReceivedPacket<'b> {
    pub(crate) packet: Packet,
    pub(crate) body: &'b [u8],
    pub(crate) fds: ReceivedFds,
    /// Descriptors were lost to this process's own limit (`MSG_CTRUNC`).
    pub(crate) fds_truncated: bool,
    pub(crate) credentials: Option<RawCredentials>,
    /// The sender's process, see [`RecvMeta::pidfd`].
    pub(crate) pidfd: Option<io::Result<OwnedFd>>,
}

impl<'b> ReceivedPacket<'b> {
    /// Checks a packet that was read.
    ///
    /// UNTRUSTED: the packet's length, its header and its number of descriptors. Packets of every kind pass here.
    #[inline]
    pub(super) fn parse(
        bytes: &'b [u8],
        max: usize,
        meta: RecvMeta,
        fds: ReceivedFds,
    ) -> Result<Self, ProtocolError> {
        if meta.truncated {
            return Err(ProtocolError::PacketTooLong { max });
        }
        let (packet, body) = PacketHeader::parse(bytes)?;
        // Fewer descriptors than announced are the peer's fault, unless the kernel says that it dropped some of them.
        if packet.fd_count != fds.len() && !(meta.fds_truncated && fds.len() < packet.fd_count) {
            return Err(ProtocolError::FdCount { announced: packet.fd_count, found: fds.len() });
        }
        let RecvMeta { fds_truncated, credentials, pidfd, .. } = meta;
        Ok(Self { packet, body, fds, fds_truncated, credentials, pidfd })
    }

    /// Bytes of the packet.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        to_u64(PACKET_HEADER.saturating_add(self.body.len()))
    }
}

/// A thread's receive buffer, shared by all channels that the thread reads, so that it stays in the cache. A drop puts it
/// back.
///
/// It grows to the longest packet that any of these channels may receive, and lives until the thread ends. Pages that no
/// packet has reached take no memory.
pub(crate) struct PacketBuffer(Option<Box<Space>>);

/// Memory for one packet.
struct Space {
    bytes: Vec<u8>,
    ancillary: Ancillary,
}

thread_local! {
    static BUFFER: Cell<Option<Box<Space>>> = const { Cell::new(None) };
}

impl PacketBuffer {
    /// Takes this thread's buffer. The result is a new one where the buffer is in use, or a thread that ends has dropped it
    /// already, and still reads: while it drops a channel, for instance.
    #[inline]
    pub(crate) fn take() -> Self {
        Self(BUFFER.try_with(Cell::take).ok().flatten())
    }

    /// Lends `max` bytes for a packet, and the buffer for its ancillary data.
    pub(super) fn lend(&mut self, max: usize) -> (&mut [u8], &mut Ancillary) {
        let new = || Box::new(Space { bytes: Vec::new(), ancillary: Ancillary::new() });
        let Space { bytes, ancillary } = &mut **self.0.get_or_insert_with(new);
        if bytes.len() < max {
            // A new vector of zeros comes from the kernel as untouched pages; growing the old one would touch them.
            *bytes = vec![0; max];
        }
        (bytes.get_mut(..max).unwrap_or_default(), ancillary)
    }

    /// True in a thread that has not dropped its buffer yet.
    #[cfg(test)]
    pub(super) fn is_alive() -> bool {
        BUFFER.try_with(|_| ()).is_ok()
    }
}

impl Drop for PacketBuffer {
    #[inline]
    fn drop(&mut self) {
        let _ = BUFFER.try_with(|own| own.set(self.0.take()));
    }
}
