//! [`Bytestream`]: a stream socket, or a pipe for each direction. Lengths are known, so that there are no headers.
//!
//! Larger payloads go in pieces, each read as it comes, while it is in the cache. A read takes what is there, so that small
//! messages share one; a write is a message, or a piece of one.

use std::{
    fs::File,
    io::{Read, Write},
    ops::Range,
    os::fd::AsFd,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    net::SocketType,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::Link,
    payload::Buffer,
    socket::{self, PIECE},
};

/// Bytes of a pipe's buffer: the most that the system's default grants (`pipe(7)`).
const PIPE: usize = 1 << 20;

pub(super) struct Bytestream<const IS_PIPE: bool> {
    out: File,
    incoming: File,
    piece: Buffer,
    buffer: Buffer,
    /// The part of the buffer that was read and not yet taken.
    unread: Range<usize>,
}

/// The writing end of the one and the reading end of the other.
fn pipes(side: Side, link: &Link) -> Result<(File, File)> {
    match side {
        Side::First => {
            let (there_read, there_write) = pipe_with(PipeFlags::CLOEXEC)?;
            let (back_read, back_write) = pipe_with(PipeFlags::CLOEXEC)?;
            for pipe in [&there_write, &back_write] {
                fcntl_setpipe_size(pipe, PIPE)?;
            }
            link.send(b"pipes", &[back_write.as_fd(), there_read.as_fd()])?;
            Ok((there_write.into(), back_read.into()))
        }
        Side::Second => {
            let mut fds = link.receive()?.1.into_iter().map(File::from);
            let ends = fds.next().zip(fds.next());
            ends.context("expected two descriptors, found fewer")
        }
    }
}

impl<const IS_PIPE: bool> End for Bytestream<IS_PIPE> {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let (out, incoming) = if IS_PIPE {
            pipes(side, link)?
        } else {
            let socket = File::from(socket::pair(side, link, SocketType::STREAM)?);
            (socket.try_clone()?, socket)
        };
        Ok(Self {
            out,
            incoming,
            piece: Buffer::new(cell.size.min(PIECE)),
            buffer: Buffer::new(PIECE),
            unread: 0..0,
        })
    }

    #[inline]
    fn send(&mut self, mut len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        while len > 0 {
            let piece_len = len.min(PIECE);
            let piece = &mut self.piece[..piece_len];
            fill(piece);
            self.out.write_all(piece)?;
            len -= piece_len;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        while len > 0 {
            // Whole words only, whatever a read brings.
            while self.unread.len() < 8 {
                self.buffer.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
                let received = self.incoming.read(&mut self.buffer[self.unread.end..])?;
                ensure!(received > 0, "expected {len} more bytes, found the end");
                self.unread.end += received;
            }
            let taken = (self.unread.len() / 8 * 8).min(len);
            read(&self.buffer[self.unread.start..][..taken]);
            self.unread.start += taken;
            len -= taken;
        }
        Ok(())
    }
}
