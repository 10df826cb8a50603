//! [`ShmemIpc`]: the crate shmem-ipc, a ring of items, here words.
//!
//! Its ring has no messages: what is sent is as many items as a message has, in two pieces where the ring wraps, or more
//! where it is full, as its documentation shows. Blocking, its event descriptors tell of an empty ring that is so no longer,
//! or a full one; polling goes through `sender_mut` and `receiver_mut`, which signal nothing.

use std::{fs::File, hint::spin_loop, os::fd::AsFd, slice};

use ::shmem_ipc::sharedring::{Receiver, Sender};
use anyhow::{Result, anyhow};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::Link,
};

pub(super) struct ShmemIpc<const SPIN: bool> {
    sender: Sender<u64>,
    receiver: Receiver<u64>,
}

impl<const SPIN: bool> End for ShmemIpc<SPIN> {
    type View<'a> = &'a [u8];

    fn connect(_side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let capacity = cell.depth * cell.size / 8;
        let sender = Sender::new(capacity)?;
        let fds =
            [sender.memfd().as_file().as_fd(), sender.empty_signal().as_fd(), sender.full_signal().as_fd()];
        link.send(b"ring", &fds)?;
        let fds: [_; 3] = link.receive()?.1.try_into().map_err(|_| anyhow!("expected three descriptors"))?;
        let [memory, empty_signal, full_signal] = fds.map(File::from);
        let receiver = Receiver::open(capacity, memory, empty_signal, full_signal)?;
        Ok(Self { sender, receiver })
    }

    #[inline]
    fn send(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let mut left = len / 8;
        while left > 0 {
            let write = |place: *mut u64, room: usize| {
                let count = room.min(left);
                // SAFETY: the ring lends the writer this place for so many items; the other process is ours and only
                // reads there when the count says so.
                fill(unsafe { slice::from_raw_parts_mut(place.cast(), 8 * count) });
                left -= count;
                count
            };
            if SPIN {
                while self.sender.sender_mut().write_count()? == 0 {
                    spin_loop();
                }
                self.sender.sender_mut().send(write)?;
            } else {
                self.sender.block_until_writable()?;
                self.sender.send_raw(write)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        let mut left = len / 8;
        while left > 0 {
            let take = |place: *const u64, available: usize| {
                let count = available.min(left);
                // SAFETY: the ring lends the reader this place for so many items; see `send`.
                read(unsafe { slice::from_raw_parts(place.cast(), 8 * count) });
                left -= count;
                count
            };
            if SPIN {
                while self.receiver.receiver_mut().read_count()? == 0 {
                    spin_loop();
                }
                self.receiver.receiver_mut().recv(take)?;
            } else {
                self.receiver.block_until_readable()?;
                self.receiver.receive_raw(take)?;
            }
        }
        Ok(())
    }
}
