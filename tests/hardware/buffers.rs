//! Dmabufs that a process makes: of its own memory (udmabuf), and from the system heap. They travel with control messages
//! in both directions, and the receiver may write to them.

use std::{
    fs::File,
    io::ErrorKind,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use dma_heap::{Heap, HeapKind};
use rustix::fs::{SealFlags, fcntl_add_seals};
use sealane::{Channel, Control, Error, SealedBufferMut};
use video::{DmaBuf, Mapping, memfd, udmabuf};

use crate::{
    machine::{Held, LONG, ending, open_dmabufs},
    support::role,
};

const PAGE: usize = 4096;
/// Bytes of a message's dmabufs: not whole words.
const LEN: usize = 5 * PAGE - 3;
const MANY: usize = 64;

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn dmabufs_of_both_kinds_cross_both_ways() {
    let before = Held::now();
    let (mut channel, child) = Channel::spawn(role(role_partner)).unwrap();
    // There, and written to there.
    let (memory, sent) = Pair::new(1);
    channel.send(sent.control(&1)).unwrap();
    let mut message = channel.recv_timeout(LONG).unwrap();
    sent.check(2);
    assert_eq!(first(&memory), pattern(2), "what the peer wrote to the udmabuf is in the memfd");
    // The other direction.
    assert_eq!(*message.control_as::<u64>().unwrap(), 3);
    let mut received = Pair::received(message.take_fds());
    received.check(3);
    received.fill(4);
    channel.send(Control::of(&4_u64)).unwrap();
    assert!(ending(child).success());
    drop((memory, sent, received, channel));
    before.again();
}

#[test]
#[ignore = "a process of the test above"]
fn role_partner() {
    let mut channel = Channel::inherited().unwrap();
    let mut message = channel.recv().unwrap();
    assert_eq!(*message.control_as::<u64>().unwrap(), 1);
    let mut received = Pair::received(message.take_fds());
    received.check(1);
    received.fill(2);
    let (memory, sent) = Pair::new(3);
    channel.send(sent.control(&3)).unwrap();
    assert_eq!(*channel.recv().unwrap().control_as::<u64>().unwrap(), 4);
    sent.check(4);
    assert_eq!(first(&memory), pattern(4), "what the peer wrote to the udmabuf is in the memfd");
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn as_many_dmabufs_as_a_message_takes_keep_their_order() {
    let before = Held::now();
    let (mut channel, child) = Channel::spawn(role(role_mirror)).unwrap();
    assert_eq!(channel.limits().max_fds, MANY);
    let heap = Heap::new(HeapKind::System).unwrap();
    let sent: Vec<Mapping> = (0..=MANY).map(|number| numbered(&heap, number)).collect();
    let count = open_dmabufs();

    let too_many = channel.send(Control::default().fds(&sent));
    assert!(matches!(too_many, Err(Error::TooManyFds { count: 65, max: MANY })), "{too_many:?}");
    channel.send(Control::default().fds(&sent[..MANY])).unwrap();
    let mut message = channel.recv_timeout(LONG).unwrap();
    let mirrored: Vec<_> = message.take_fds().into_iter().map(number).collect();
    assert_eq!(mirrored, (0..MANY).rev().collect::<Vec<_>>());
    assert_eq!(open_dmabufs(), count);
    assert!(ending(child).success());
    drop((sent, channel, heap));
    before.again();
}

/// Checks that the descriptors come in the order of their numbers; sends them back from the last to the first.
#[test]
#[ignore = "a process of the test above"]
fn role_mirror() {
    let mut channel = Channel::inherited().unwrap();
    let mut fds = channel.recv().unwrap().take_fds();
    let numbers: Vec<_> = fds.iter().map(|fd| number(fd.try_clone().unwrap())).collect();
    assert_eq!(numbers, (0..MANY).collect::<Vec<_>>());
    fds.reverse();
    channel.send(Control::default().fds(&fds)).unwrap();
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn no_ring_and_no_sealed_buffer_becomes_a_dmabuf() {
    let refused = |memory: &dyn AsFd| udmabuf(memory.as_fd(), PAGE).unwrap_err().kind();
    let memory = memfd(PAGE).unwrap();
    let mut earlier = udmabuf(&memory, PAGE).unwrap().map_writable().unwrap();
    // The seals of a ring (docs/protocol.md).
    fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL).unwrap();
    assert_eq!(refused(&memory), ErrorKind::InvalidInput);
    let sealed = SealedBufferMut::new(PAGE).unwrap().seal().unwrap();
    assert_eq!(refused(&sealed), ErrorKind::InvalidInput);

    // A dmabuf that was there before the seals is not bound by them: `docs/camera.md`.
    earlier.write_at(0, &[7]).unwrap();
    let mut byte = [0];
    File::from(memory).read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [7]);
}

/// One of each kind.
struct Pair([Mapping; 2]);

impl Pair {
    /// A new pair that holds a pattern, and the memory that its udmabuf was made of.
    fn new(seed: u64) -> (File, Self) {
        let memory = memfd(LEN.next_multiple_of(PAGE)).unwrap();
        let own = udmabuf(&memory, LEN.next_multiple_of(PAGE)).unwrap();
        let heap = Heap::new(HeapKind::System).unwrap().allocate(LEN).unwrap();
        let mut pair = Self::received(vec![own.into(), heap]);
        pair.fill(seed);
        (memory.into(), pair)
    }

    fn received(fds: Vec<OwnedFd>) -> Self {
        let fds: [OwnedFd; 2] = fds.try_into().expect("one of each kind");
        Self(fds.map(|fd| {
            let dmabuf = DmaBuf::try_from(fd).unwrap();
            assert_eq!(dmabuf.len(), LEN.next_multiple_of(PAGE), "whole pages");
            dmabuf.map_writable().unwrap()
        }))
    }

    fn control<'a>(&'a self, number: &'a u64) -> Control<'a> {
        Control::of(number).fds(&self.0)
    }

    /// The second of them holds the pattern of the number after.
    fn fill(&mut self, seed: u64) {
        for (buffer, seed) in self.0.iter_mut().zip(seed..) {
            buffer.write_at(0, &pattern(seed)).unwrap();
        }
    }

    fn check(&self, seed: u64) {
        for (buffer, seed) in self.0.iter().zip(seed..) {
            let mut bytes = vec![0; LEN];
            buffer.read_at(0, &mut bytes).unwrap();
            assert!(bytes == pattern(seed), "a dmabuf does not hold pattern {seed}");
        }
    }
}

/// The bytes of a memfd.
fn first(memory: &File) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    memory.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn pattern(seed: u64) -> Vec<u8> {
    let words = (0..LEN as u64).map(|at| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed));
    words.map(|word| word.to_be_bytes()[1]).collect()
}

/// A buffer that holds its number.
fn numbered(heap: &Heap, number: usize) -> Mapping {
    let mut buffer = DmaBuf::try_from(heap.allocate(PAGE).unwrap()).unwrap().map_writable().unwrap();
    buffer.write_at(0, &number.to_le_bytes()).unwrap();
    buffer
}

fn number(fd: OwnedFd) -> usize {
    let mut bytes = [0; size_of::<usize>()];
    DmaBuf::try_from(fd).unwrap().map().unwrap().read_at(0, &mut bytes).unwrap();
    usize::from_le_bytes(bytes)
}
