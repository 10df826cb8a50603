//! [`Seqpacket`]: a raw pair of sequenced packet sockets.
//!
//! A packet cannot be larger than the socket's buffer, which only a privileged process can enlarge beyond the system's
//! limit. So larger payloads go in pieces, each read as it comes, while it is in the cache.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Result, ensure};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, SocketType, recv, send},
};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::{Link, receive_with_fds, send_with_fds},
    payload::Buffer,
    socket::{self, PIECE},
};

pub(super) struct Seqpacket<const POLL: bool> {
    socket: OwnedFd,
    piece: Buffer,
}

impl<const POLL: bool> End for Seqpacket<POLL> {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let socket = socket::pair(side, link, SocketType::SEQPACKET)?;
        Ok(Self { socket, piece: Buffer::new(cell.size.min(PIECE)) })
    }

    #[inline]
    fn send(&mut self, mut len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let flags = if POLL { SendFlags::DONTWAIT | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        while len > 0 {
            let piece_len = len.min(PIECE);
            let piece = &mut self.piece[..piece_len];
            fill(piece);
            while let Err(error) = send(&self.socket, piece, flags) {
                ensure!(POLL && error == Errno::AGAIN, "send: {error}");
            }
            len -= piece_len;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        let flags = if POLL { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        while len > 0 {
            let (received, _) = loop {
                match recv(&self.socket, &mut *self.piece, flags) {
                    Ok(received) => break received,
                    Err(error) => ensure!(POLL && error == Errno::AGAIN, "recv: {error}"),
                }
            };
            ensure!(received > 0 && received <= len, "expected {len} bytes at most, found {received}");
            read(&self.piece[..received]);
            len -= received;
        }
        Ok(())
    }

    #[inline]
    fn send_control(&mut self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        match fd {
            // A round trip never fills the socket.
            Some(fd) => send_with_fds(self.socket.as_fd(), bytes, &[fd]),
            None => self.send(bytes.len(), |piece| piece.copy_from_slice(bytes)),
        }
    }

    #[inline]
    fn receive_control(&mut self, fds: bool, read: impl FnOnce(&[u8])) -> Result<Vec<OwnedFd>> {
        if !fds {
            let len = self.piece.len();
            let mut read = Some(read);
            self.receive(len, |view| {
                if let Some(read) = read.take() {
                    read(view);
                }
            })?;
            return Ok(Vec::new());
        }
        let flags = if POLL { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let (received, fds) = loop {
            match receive_with_fds(self.socket.as_fd(), &mut self.piece, flags) {
                Ok(received) => break received,
                Err(error) => ensure!(POLL && error == Errno::AGAIN, "recvmsg: {error}"),
            }
        };
        read(&self.piece[..received]);
        Ok(fds)
    }
}
