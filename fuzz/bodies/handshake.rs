//! A stranger's whole handshake: any packets with any descriptors. Whatever it is, it ends at once when the stranger has
//! gone, with a channel or with an error.

use std::fs::File;

use arbitrary::{Arbitrary, Unstructured};
use sealane::Channel;

use crate::hostile::{HELLO, Hello, Packet, Player, READY, SEALS, memfd, page, pipe, seqpacket_pair};

/// The packets of the peer, one after the other.
#[derive(Debug, Arbitrary)]
enum Saying {
    /// The `Hello` of an honest peer, but for some fields.
    Hello {
        changes: Vec<Change>,
        cut: Option<u8>,
        fds: Vec<Fd>,
        honest_fds: bool,
    },
    Ready,
    Packet {
        kind: u8,
        flags: u16,
        announced: Option<u8>,
        sequence: u8,
        reply_to: u8,
        body: Vec<u8>,
        fds: Vec<Fd>,
    },
    Raw(Vec<u8>),
    /// We take a step meanwhile.
    Advance,
}

#[derive(Debug, Arbitrary)]
enum Change {
    Magic(u64),
    LowestVersion(u32),
    HighestVersion(u32),
    Length(u32),
    Features(u64),
    Required(u64),
    RingOffset(u64),
    RingPages(u8),
    RingCapacity(u64),
    MaxControl(u32),
    MaxFds(u32),
    FirstSequence(u64),
    FirstPosition(u64),
}

#[derive(Debug, Arbitrary)]
enum Fd {
    /// Bits of seals, beside those that a region must have.
    Region {
        pages: u8,
        dense: u8,
        missing: u8,
    },
    Space,
    Pipe,
    Null,
}

impl Fd {
    fn open(&self) -> std::os::fd::OwnedFd {
        match self {
            Self::Region { pages, dense, missing } => {
                let (size, dense) = (u64::from(pages % 20) * page(), u64::from(dense % 20) * page());
                let seals = SEALS.bits() & !u32::from(*missing);
                memfd(size, dense.min(size), rustix::fs::SealFlags::from_bits_retain(seals))
            }
            Self::Space => seqpacket_pair().0,
            Self::Pipe => pipe().0,
            Self::Null => File::open("/dev/null").unwrap().into(),
        }
    }
}

fn hello(changes: &[Change]) -> Hello {
    let mut hello = Hello::honest(2);
    for change in changes {
        match *change {
            Change::Magic(value) => hello.magic = value,
            Change::LowestVersion(value) => hello.lowest_version = value,
            Change::HighestVersion(value) => hello.highest_version = value,
            Change::Length(value) => hello.length = value,
            Change::Features(value) => hello.features = value,
            Change::Required(value) => hello.required = value,
            Change::RingOffset(value) => hello.ring_offset = value,
            Change::RingPages(value) => hello.ring_capacity = u64::from(value) * page(),
            Change::RingCapacity(value) => hello.ring_capacity = value,
            Change::MaxControl(value) => hello.max_control = value,
            Change::MaxFds(value) => hello.max_fds = value,
            Change::FirstSequence(value) => hello.first_sequence = value,
            Change::FirstPosition(value) => hello.first_position = value,
        }
    }
    hello
}

fn packet(saying: Saying) -> Packet {
    let opened = |fds: Vec<Fd>| fds.iter().take(5).map(Fd::open).collect();
    match saying {
        Saying::Hello { changes, cut, fds, honest_fds } => {
            let hello = hello(&changes);
            let fds = if honest_fds {
                let size = hello.ring_offset.saturating_add(hello.ring_capacity).min(64 * page());
                vec![memfd(size, size, SEALS), seqpacket_pair().0]
            } else {
                opened(fds)
            };
            let mut packet = Packet::hello(&hello, fds);
            if let Some(cut) = cut {
                packet.body.truncate(cut.into());
            }
            packet
        }
        Saying::Ready | Saying::Advance => Packet::new(READY),
        Saying::Packet { kind, flags, announced, sequence, reply_to, body, fds } => Packet {
            kind: if kind == 0 { HELLO } else { kind.into() },
            flags,
            announced: announced.map(Into::into),
            sequence: sequence.into(),
            reply_to: reply_to.into(),
            body,
            fds: opened(fds),
            ..Packet::default()
        },
        Saying::Raw(bytes) => Packet::raw(&bytes),
    }
}

pub(crate) fn run(data: &[u8]) {
    let Ok(sayings) = Vec::<Saying>::arbitrary(&mut Unstructured::new(data)) else { return };
    let (player, ours) = Player::pair();
    let builder = Channel::builder().ring_capacity(8192).max_peer_ring_capacity(1 << 16).max_control(100);
    let mut handshake = builder.handshake(ours).unwrap();
    let mut result = Ok(false);
    for saying in sayings.into_iter().take(8) {
        if matches!(saying, Saying::Advance) {
            if matches!(result, Ok(false)) {
                result = handshake.advance();
            }
        } else {
            // Refused once we have hung up.
            let _ = player.try_send(packet(saying));
        }
    }
    drop(player);
    // Each step reads at least one of the packets that are left, and the last one the end.
    for _ in 0..20 {
        if !matches!(result, Ok(false)) {
            break;
        }
        result = handshake.advance();
    }
    match result {
        Ok(true) => {
            let mut channel = handshake.finish().unwrap();
            for _ in 0..10 {
                if !matches!(channel.try_recv(), Ok(Some(_))) {
                    break;
                }
            }
            let _ = channel.try_send(b"hello?");
        }
        Ok(false) => panic!("the stranger is gone, and the handshake goes on"),
        Err(_) => {}
    }
}
