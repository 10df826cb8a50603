//! Channels to measure with, and the names of sizes.

use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sealane::Channel;

/// Both ends, with rings of `ring` bytes each way.
pub(crate) fn pair(ring: usize) -> (Channel, Channel) {
    Channel::builder().ring_capacity(ring).max_peer_ring_capacity(ring).pair().unwrap()
}

/// A sending end with a ring of `ring` bytes, and a receiving one whose own ring is a page: it only answers.
pub(crate) fn one_way(ring: usize) -> (Channel, Channel) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let answering =
        Channel::builder().ring_capacity(4096).max_peer_ring_capacity(ring).handshake(theirs).unwrap();
    let answering = thread::spawn(|| answering.finish().unwrap());
    let sending = Channel::builder().ring_capacity(ring).handshake(ours).unwrap().finish().unwrap();
    (sending, answering.join().unwrap())
}

/// The ring to move payloads of `size` bytes through: the default one, or one that several of them fit in.
pub(crate) fn ring_for(size: usize) -> usize {
    (4 * size).max(4 << 20)
}

/// 65,536 is `64KiB`.
pub(crate) fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size}B"),
        0x400..0x10_0000 => format!("{}KiB", size >> 10),
        _ => format!("{}MiB", size >> 20),
    }
}
