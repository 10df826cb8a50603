//! Raw publishers and raw subscribers: every word and every packet is written byte by byte.

use std::{
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use rustix::fs::{SealFlags, fcntl_add_seals};
use sealane::{Builder, Event, Publisher, Result, Subscriber, SubscriberId};
use vm_memory::{FileOffset, MmapRegion};

use super::{
    HELLO, Hello, LONG, Packet, Player, READY, SEALS, memfd,
    memory::{HEAD, Hostile, Record},
    page, seqpacket_pair,
};

/// Words of a control page that only fan-out uses.
pub(crate) const LATEST: usize = 0x018;
pub(crate) const MESSAGES: usize = 0x020;
pub(crate) const MISSED: usize = 0x048;
pub(crate) const ORIGIN: usize = 0x100;
pub(crate) const CLAIMED: usize = 0x140;
/// The feature bit.
pub(crate) const FAN_OUT: u64 = 1;
/// The kind of packet that brings the descriptors of a record.
pub(crate) const DESCRIPTORS: u16 = 6;
/// The flag of a record without a payload.
pub(crate) const WITHOUT_PAYLOAD: u32 = 8;
/// The wish to be waited for as long as the publisher's rule allows.
pub(crate) const FOREVER: u64 = u64::MAX;
/// The wish not to be waited for.
pub(crate) const NEVER: u64 = 0;

/// The `Hello` of an honest subscriber.
pub(crate) fn subscriber_hello(patience: u64) -> Hello {
    Hello {
        features: FAN_OUT,
        required: FAN_OUT,
        max_control: u32::MAX,
        max_fds: 253,
        patience,
        ..Hello::honest(0)
    }
}

/// A sealed region of `size` bytes, and its mapping.
pub(crate) fn region(size: u64) -> (OwnedFd, MmapRegion) {
    let region = memfd(size, size, SealFlags::empty());
    // The mapping is made before the seal, which forbids it.
    let file = FileOffset::new(File::from(region.try_clone().unwrap()), 0);
    let memory = MmapRegion::from_file(file, size.try_into().unwrap()).unwrap();
    fcntl_add_seals(&region, SEALS).unwrap();
    (region, memory)
}

/// A subscriber behind its handshake, in hostile hands.
pub(crate) struct RawSubscriber {
    pub(crate) id: SubscriberId,
    pub(crate) raw: Hostile,
    /// The publisher's region.
    region: File,
    /// The body of the publisher's `Ready`: patience, first sequence, first position, lost.
    pub(crate) terms: [u64; 4],
}

impl RawSubscriber {
    /// Joins with an honest `Hello`.
    pub(crate) fn join(publisher: &mut Publisher, patience: u64) -> Self {
        let (socket, ours) = Player::pair();
        let id = publisher.add(ours).unwrap();
        let (memory, own_space) = greet(&socket, &subscriber_hello(patience));
        socket.send(Packet::new(READY));
        loop {
            match publisher.wait_event(LONG).unwrap() {
                Some(Event::Joined(joined)) => break assert_eq!(joined, id),
                // What others have done before.
                Some(Event::Left(other, _)) if other != id => {}
                other => panic!("{other:?}"),
            }
        }
        Self::greeted(id, socket, memory, own_space)
    }

    /// Hears what a publisher says in a handshake.
    fn greeted(id: SubscriberId, socket: Player, memory: MmapRegion, own_space: Player) -> Self {
        let mut hello = socket.hear().unwrap();
        assert_eq!((hello.kind, hello.fds.len()), (HELLO, 2));
        let (region, space) = (File::from(hello.fds.remove(0)), hello.fds.remove(0).into());
        let ready = socket.hear().unwrap();
        assert_eq!((ready.kind, ready.body.len()), (READY, 32));
        let (words, _) = ready.body.as_chunks::<8>();
        let terms = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
        let raw = Hostile { socket, space, own_space, memory, capacity: 0 };
        Self { id, raw, region, terms }
    }

    /// A word of the publisher's control page.
    pub(crate) fn word(&self, word: usize) -> u64 {
        let mut bytes = [0; 8];
        self.region.read_exact_at(&mut bytes, word as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// All that is published, counted from where it has joined.
    pub(crate) fn published(&self) -> u64 {
        self.word(HEAD) - self.terms[2]
    }

    /// The publisher's region, mapped: it can be read, and slept on.
    pub(crate) fn mapped_region(&self) -> Arc<MmapRegion> {
        let file = FileOffset::new(self.region.try_clone().unwrap(), 0);
        let size = page().try_into().unwrap();
        Arc::new(MmapRegion::build(Some(file), size, libc::PROT_READ, libc::MAP_SHARED).unwrap())
    }

    /// The publisher's region once more.
    pub(crate) fn copy_of_region(&self) -> OwnedFd {
        self.region.as_fd().try_clone_to_owned().unwrap()
    }
}

/// Sends a `Hello` with an honest region.
pub(crate) fn greet(socket: &Player, hello: &Hello) -> (MmapRegion, Player) {
    let (region, memory) = region(page());
    let (own_space, for_peer) = seqpacket_pair();
    socket.send(Packet::hello(hello, vec![region, for_peer]));
    (memory, own_space.into())
}

/// The terms in a publisher's `Ready`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawTerms {
    pub(crate) patience: u64,
    pub(crate) first_sequence: u64,
    pub(crate) first_position: u64,
    pub(crate) lost: u64,
}

impl RawTerms {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let Self { patience, first_sequence, first_position, lost } = self;
        [patience, first_sequence, first_position, lost].map(u64::to_le_bytes).concat()
    }
}

/// The `Hello` of an honest publisher with a ring of `pages` pages.
pub(crate) fn publisher_hello(pages: u64) -> Hello {
    Hello { features: FAN_OUT, required: FAN_OUT, ..Hello::honest(pages) }
}

/// A publisher in hostile hands, with a ring of `pages` pages, that says `ready` in the end; and the result of subscribing to it.
pub(crate) fn publish(builder: &Builder, pages: u64, ready: Packet) -> (Hostile, Result<Subscriber>) {
    let (socket, ours) = Player::pair();
    let hello = publisher_hello(pages);
    let (region, memory) = region(hello.region());
    let (own_space, for_peer) = seqpacket_pair();
    socket.send(Packet::hello(&hello, vec![region, for_peer]));
    socket.send(ready);
    let subscriber = builder.subscribe_on(ours);
    let mut heard = socket.hear().unwrap();
    assert_eq!((heard.kind, heard.fds.len()), (HELLO, 2));
    let space = heard.fds.remove(1).into();
    (Hostile { socket, space, own_space: own_space.into(), memory, capacity: pages * page() }, subscriber)
}

/// Like [`publish`], and the subscriber has joined on these terms.
pub(crate) fn publish_on(builder: &Builder, pages: u64, terms: RawTerms) -> (Hostile, Subscriber) {
    let (raw, subscriber) = publish(builder, pages, Packet { body: terms.bytes(), ..Packet::new(READY) });
    assert_eq!(raw.socket.hear().unwrap().kind, READY);
    (raw, subscriber.unwrap())
}

impl Hostile {
    /// Publishes a message of `payload_len` bytes of payload as an honest publisher does, and returns its end.
    pub(crate) fn publish_honestly(&self, start: u64, record: Record) -> u64 {
        let end = start + 64 + record.payload_len.next_multiple_of(64);
        self.set(CLAIMED, end);
        self.write(start, record);
        self.set(HEAD, end);
        if record.flags & WITHOUT_PAYLOAD == 0 {
            self.set(LATEST, start);
        }
        self.set(MESSAGES, record.sequence + 1);
        end
    }
}
