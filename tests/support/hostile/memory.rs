//! A peer's own memory, written byte by byte: records, and the words of its control page.

use std::{fs::File, os::fd::OwnedFd, sync::atomic::Ordering::Release};

use rustix::fs::{SealFlags, fcntl_add_seals};
use sealane::{Builder, Channel};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::{HELLO, Hello, Packet, Player, READY, SEALS, memfd, page, seqpacket_pair};

/// Words of the control page.
pub(crate) const HEAD: usize = 0x000;
pub(crate) const PACKETS: usize = 0x008;
pub(crate) const TAIL: usize = 0x040;
pub(crate) const RECEIVER_EPOCH: usize = 0x080;
pub(crate) const SENDER_EPOCH: usize = 0x0c0;
pub(crate) const SENDER_NEEDS: usize = 0x0c8;

/// Pages of a ring: a number that is not rounded up.
pub(crate) const PAGES: u64 = 2;

/// Bytes of either side's ring.
pub(crate) fn capacity() -> u64 {
    PAGES * page()
}

/// Where the other side's head stands after `count` loans of no bytes in a ring of [`capacity`]. A record takes 64 bytes. Each
/// loan reserves 1,024 more, which are left out where they do not fit before the ring's end.
pub(crate) fn head_after(count: u64) -> u64 {
    let in_one_lap = (capacity() - 1024) / 64;
    64 * count + count.saturating_sub(1) / in_one_lap * 1024
}

/// A peer behind its handshake, which writes any bytes into its own region and the sockets.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) socket: Player,
    /// Where it announces room, and where room is announced to it.
    pub(crate) space: Player,
    pub(crate) own_space: Player,
    pub(crate) memory: MmapRegion,
    /// Bytes of its ring.
    pub(crate) capacity: u64,
}

/// The flag of padding, which is only in records.
pub(crate) const PADDING: u32 = 4;

/// The header of a record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) payload_len: u64,
    pub(crate) control_len: u32,
    pub(crate) flags: u32,
    pub(crate) reply_to: u64,
    pub(crate) reserved: [u64; 4],
}

impl Hostile {
    /// It, and our side of the channel to it.
    pub(crate) fn meet(builder: &Builder) -> (Self, Channel) {
        Self::meet_with(builder, PAGES)
    }

    /// Like [`meet`](Self::meet), with a ring of its own of `pages` pages.
    pub(crate) fn meet_with(builder: &Builder, pages: u64) -> (Self, Channel) {
        let (socket, ours) = Player::pair();
        let handshake =
            builder.clone().ring_capacity(capacity().try_into().unwrap()).handshake(ours).unwrap();
        let (memory, own_space) = Self::greet(&socket, pages);
        let channel = handshake.finish().unwrap();
        let (_, space) = Self::greeted(&socket);
        (Self { socket, space, own_space, memory, capacity: pages * page() }, channel)
    }

    /// It, where the other side is another process's, and that side's region.
    pub(crate) fn answer(socket: Player) -> (Self, OwnedFd) {
        let (memory, own_space) = Self::greet(&socket, PAGES);
        let (region, space) = Self::greeted(&socket);
        (Self { socket, space, own_space, memory, capacity: capacity() }, region)
    }

    /// Says all that there is to say in a handshake.
    fn greet(socket: &Player, pages: u64) -> (MmapRegion, Player) {
        let hello = Hello::honest(pages);
        let region = memfd(hello.region(), hello.region(), SealFlags::empty());
        // The mapping is made before the seal, which forbids it.
        let file = FileOffset::new(File::from(region.try_clone().unwrap()), 0);
        let memory = MmapRegion::from_file(file, hello.region().try_into().unwrap()).unwrap();
        fcntl_add_seals(&region, SEALS).unwrap();
        let (own_space, for_peer) = seqpacket_pair();
        socket.send(Packet::hello(&hello, vec![region, for_peer]));
        socket.send(Packet::new(READY));
        (memory, own_space.into())
    }

    /// Hears all of it: the other side's region, and where to announce room.
    fn greeted(socket: &Player) -> (OwnedFd, Player) {
        let mut heard = socket.hear().unwrap();
        assert_eq!((heard.kind, heard.fds.len(), socket.hear().unwrap().kind), (HELLO, 2, READY));
        (heard.fds.remove(0), heard.fds.remove(0).into())
    }

    pub(crate) fn set(&self, word: usize, value: u64) {
        self.memory.as_volatile_slice().store(value, word, Release).unwrap();
    }

    /// Writes padding that ends where the ring does.
    pub(crate) fn pad(&self, start: u64) {
        let payload_len = self.capacity - start % self.capacity - 64;
        self.write(start, Record { flags: PADDING, payload_len, ..Record::default() });
    }

    /// Writes a record and publishes all up to `end`.
    pub(crate) fn publish(&self, start: u64, record: Record, end: u64) {
        self.write(start, record);
        self.set(HEAD, end);
    }

    pub(crate) fn write(&self, position: u64, record: Record) {
        let mut bytes = Vec::new();
        bytes.extend(record.sequence.to_le_bytes());
        bytes.extend(record.payload_len.to_le_bytes());
        bytes.extend(record.control_len.to_le_bytes());
        bytes.extend(record.flags.to_le_bytes());
        bytes.extend(record.reply_to.to_le_bytes());
        bytes.extend(record.reserved.map(u64::to_le_bytes).as_flattened());
        self.scribble(position, &bytes);
    }

    /// Writes into the ring.
    pub(crate) fn scribble(&self, position: u64, bytes: &[u8]) {
        let at = usize::try_from(page() + position % self.capacity).unwrap();
        self.memory.as_volatile_slice().write_slice(bytes, at).unwrap();
    }
}
