//! The carriers: each writes a batch of payloads here, and reads it in the other process.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    net::{RecvFlags, SendFlags, SocketType, recv, send},
    time::{ClockId, clock_gettime},
};
use sealane::Channel;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;

/// The carriers of payloads. An order names one by its place in this list.
pub(crate) const CARRIERS: [&str; 3] = ["sealane", "SOCK_SEQPACKET", "SOCK_STREAM"];
pub(crate) const SOCKETS: [SocketType; 2] = [SocketType::SEQPACKET, SocketType::STREAM];
/// The largest piece that goes through a socket at once: a packet must fit into the socket's buffer.
pub(crate) const PIECE: usize = 64 << 10;
/// An order: "read this number of payloads from this carrier".
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Order {
    pub(crate) carrier: u64,
    pub(crate) count: u64,
    /// The number of the first of them: each payload consists of another word.
    pub(crate) first: u64,
}

/// An answer: "all are read and right, and took this number of nanoseconds of CPU".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Done {
    pub(crate) cpu: u64,
}

pub(crate) fn send_batch(
    size: usize,
    order: Order,
    channel: &mut Channel,
    sockets: &[OwnedFd],
) -> Result<()> {
    let mut piece = vec![0_u64; size.min(PIECE) / 8];
    for number in order.first..order.first + order.count {
        let Some(socket) = sockets.get(usize::try_from(order.carrier)?.wrapping_sub(1)) else {
            let mut loan = channel.loan_slice::<u64>(size / 8)?;
            loan.fill(word(number));
            loan.send()?;
            continue;
        };
        let mut left = size / 8;
        while left > 0 {
            let words = left.min(piece.len());
            piece[..words].fill(word(number));
            let mut unsent = piece[..words].as_bytes();
            while !unsent.is_empty() {
                unsent = &unsent[send(socket, unsent, SendFlags::NOSIGNAL)?..];
            }
            left -= words;
        }
    }
    Ok(())
}

/// The word that a payload consists of.
fn word(number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(crate) fn read_batch(
    size: usize,
    order: Order,
    channel: &mut Channel,
    sockets: &[OwnedFd],
) -> Result<()> {
    let mut piece = vec![0_u64; size.min(PIECE) / 8];
    for number in order.first..order.first + order.count {
        let (mut sum, mut left) = (0_u64, size / 8);
        if let Some(socket) = sockets.get(usize::try_from(order.carrier)?.wrapping_sub(1)) {
            while left > 0 {
                let words = left.min(piece.len());
                let mut unread = piece[..words].as_mut_bytes();
                while !unread.is_empty() {
                    let len = recv(socket, &mut *unread, RecvFlags::empty())?.0;
                    if len == 0 {
                        return Err("payloads expected, found the end of the socket".into());
                    }
                    unread = &mut unread[len..];
                }
                let (chunks, rest) = piece[..words].as_chunks::<8>();
                sum = add(sum, chunks.iter().copied(), rest.iter().copied());
                left -= words;
            }
        } else {
            let payload = channel.recv()?.take_payload().ok_or("a payload expected, found none")?;
            // By value and in place: the sender owns the memory, and may be changing it.
            let chunks = payload.shared::<u64>()?.array_chunks::<8>();
            let rest = chunks.remainder();
            sum = add(sum, chunks, rest.iter());
        }
        let expected = word(number).wrapping_mul(size as u64 / 8);
        if sum != expected {
            return Err(format!("payload {number}: expected the sum {expected:#x}, found {sum:#x}").into());
        }
    }
    Ok(())
}

/// Eight words at a time, in eight sums: what vector instructions do best.
fn add(sum: u64, chunks: impl Iterator<Item = [u64; 8]>, rest: impl Iterator<Item = u64>) -> u64 {
    let sums = chunks.fold([0_u64; 8], |mut sums, words| {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(word);
        }
        sums
    });
    sums.into_iter().chain(rest).fold(sum, u64::wrapping_add)
}

/// The CPU time of this process, in user mode and in the kernel.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
