//! A raw peer: it speaks the protocol byte by byte, and breaks it where a test wants that.
//!
//! The numbers are those of docs/protocol.md. Nothing of the library is used, so that the library is checked against the
//! page and not against itself.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

pub(crate) mod fanout;
pub(crate) mod memory;

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process,
    time::Duration,
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
        SocketType, UCred, connect, recvmsg, sendmsg, shutdown, socket_with, socketpair, sockopt,
    },
    process::{getgid, getpid, getuid},
};

/// Longer than anything here takes, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits until one of `fds` is readable, for at most `timeout`, and says which of them are.
pub(crate) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Duration) -> [bool; N] {
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match poll(&mut fds, Some(&Timespec::try_from(timeout).unwrap())) {
            Err(Errno::INTR) => {}
            result => {
                result.unwrap();
                return fds.map(|fd| !fd.revents().is_empty());
            }
        }
    }
}

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"SEALANE\0");
pub(crate) const HELLO: u16 = 1;
pub(crate) const READY: u16 = 2;
pub(crate) const REJECT: u16 = 3;
pub(crate) const CONTROL: u16 = 4;
pub(crate) const DOORBELL: u16 = 5;
pub(crate) const DESCRIPTORS: u16 = 6;
/// Flags of packets and records.
pub(crate) const WANTS_REPLY: u16 = 1;
pub(crate) const OTHER_HALF: u16 = 2;
/// Bytes of a packet's header.
pub(crate) const HEADER: usize = 32;

/// The body of a `Hello`, field by field.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) magic: u64,
    pub(crate) lowest_version: u32,
    pub(crate) highest_version: u32,
    pub(crate) length: u32,
    pub(crate) features: u64,
    pub(crate) required: u64,
    pub(crate) ring_offset: u64,
    pub(crate) ring_capacity: u64,
    pub(crate) max_control: u32,
    pub(crate) max_fds: u32,
    pub(crate) first_sequence: u64,
    pub(crate) first_position: u64,
    pub(crate) max_requests: u32,
    pub(crate) start: u32,
    pub(crate) patience: u64,
}

impl Hello {
    /// The `Hello` of an honest peer with a ring of `pages` pages.
    pub(crate) fn honest(pages: u64) -> Self {
        Self {
            magic: MAGIC,
            lowest_version: 1,
            highest_version: 1,
            length: 96,
            features: 0,
            required: 0,
            ring_offset: page(),
            ring_capacity: pages * page(),
            max_control: 1024,
            max_fds: 4,
            first_sequence: 0,
            first_position: 0,
            max_requests: u32::MAX,
            start: 0,
            patience: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.magic.to_le_bytes());
        bytes.extend(self.lowest_version.to_le_bytes());
        bytes.extend(self.highest_version.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.features.to_le_bytes());
        bytes.extend(self.required.to_le_bytes());
        bytes.extend(self.ring_offset.to_le_bytes());
        bytes.extend(self.ring_capacity.to_le_bytes());
        bytes.extend(self.max_control.to_le_bytes());
        bytes.extend(self.max_fds.to_le_bytes());
        bytes.extend(self.first_sequence.to_le_bytes());
        bytes.extend(self.first_position.to_le_bytes());
        bytes.extend(self.max_requests.to_le_bytes());
        bytes.extend(self.start.to_le_bytes());
        bytes.extend(self.patience.to_le_bytes());
        bytes
    }

    /// Bytes of the region.
    pub(crate) fn region(&self) -> u64 {
        self.ring_offset + self.ring_capacity
    }
}

pub(crate) fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// A packet to be sent.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// How many descriptors it says that it has, if that is a lie.
    pub(crate) announced: Option<u32>,
    pub(crate) sequence: u64,
    pub(crate) reply_to: u64,
    pub(crate) reserved: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// The packet carries our credentials explicitly.
    pub(crate) identified: bool,
    /// These bytes instead of all that.
    pub(crate) raw: Option<Vec<u8>>,
}

impl Packet {
    pub(crate) fn new(kind: u16) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Any bytes at all.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self { raw: Some(bytes.to_vec()), ..Self::default() }
    }

    pub(crate) fn hello(hello: &Hello, fds: Vec<OwnedFd>) -> Self {
        Self { body: hello.bytes(), fds, identified: true, ..Self::new(HELLO) }
    }

    /// A control message.
    pub(crate) fn control(sequence: u64) -> Self {
        Self { sequence, ..Self::new(CONTROL) }
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = Vec::new();
        let announced = self.announced.unwrap_or_else(|| u32::try_from(self.fds.len()).unwrap());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(announced.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.reply_to.to_le_bytes());
        bytes.extend(self.reserved.to_le_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// A packet that was read.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Heard {
    /// Reason, expected and found of a `Reject`.
    pub(crate) fn refusal(&self) -> (u32, u64, u64) {
        assert_eq!((self.kind, self.body.len(), self.fds.len()), (REJECT, 24, 0), "{self:?}");
        let (reason, numbers) = self.body.split_at(8);
        let (expected, found) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        (u32::try_from(number(reason)).unwrap(), number(expected), number(found))
    }
}

/// One end of a socket, in hostile hands.
#[derive(Debug)]
pub(crate) struct Player(OwnedFd);

impl From<OwnedFd> for Player {
    fn from(socket: OwnedFd) -> Self {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LONG)).unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(LONG)).unwrap();
        Self(socket)
    }
}

impl AsFd for Player {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Player {
    /// A player, and the other end.
    pub(crate) fn pair() -> (Self, OwnedFd) {
        let (player, other) = seqpacket_pair();
        (player.into(), other)
    }

    pub(crate) fn connect(path: &Path) -> Self {
        let socket = seqpacket();
        connect(&socket, &address(path)).unwrap();
        socket.into()
    }

    /// Sends a packet; its descriptors are closed here.
    pub(crate) fn send(&self, packet: Packet) {
        self.try_send(packet).unwrap();
    }

    /// Like [`send`](Self::send), but returns the error. Never blocks.
    pub(crate) fn try_send(&self, packet: Packet) -> rustix::io::Result<()> {
        let (bytes, identified, owned) = (packet.bytes(), packet.identified, packet.fds);
        let fds: Vec<_> = owned.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253), ScmCredentials(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        if identified {
            let who = UCred { pid: getpid(), uid: getuid(), gid: getgid() };
            assert!(ancillary.push(SendAncillaryMessage::ScmCredentials(who)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags).map(drop)
    }

    /// The next packet; `None` at the end.
    pub(crate) fn hear(&self) -> Option<Heard> {
        let mut bytes = vec![0; 1 << 20];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253), ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                // Comes once, ahead of the queue, from an end that was closed with packets unread.
                Err(Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => panic!("nothing is heard"),
                result => break result.unwrap(),
            }
        };
        assert!(!received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC));
        let fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        bytes.truncate(received.bytes);
        if bytes.is_empty() {
            return None;
        }
        let body = bytes.split_off(HEADER);
        let [kind, flags] = [0, 2].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        Some(Heard { kind, flags, body, fds })
    }

    /// All packets until the end.
    pub(crate) fn hear_all(&self) -> Vec<Heard> {
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// True if the other end has sent nothing more.
    pub(crate) fn is_over(&self) -> bool {
        let mut end = [PollFd::new(&self.0, PollFlags::RDHUP)];
        poll(&mut end, Some(&Timespec::default())).unwrap() > 0
    }

    pub(crate) fn shut(&self, how: Shutdown) {
        shutdown(&self.0, how).unwrap();
    }
}

/// An abstract name of this test alone.
pub(crate) fn abstract_name() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("@sealane-test-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed)).into()
}

/// The address of a path, or of an abstract name.
pub(crate) fn address(path: &Path) -> SocketAddrUnix {
    match path.to_str().unwrap().strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(path),
    }
    .unwrap()
}

pub(crate) fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

pub(crate) fn seqpacket_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer.into())
}

/// `F_SEAL_SEAL`, `_SHRINK`, `_GROW` and `_FUTURE_WRITE`, which a region must have.
pub(crate) const SEALS: SealFlags = SealFlags::from_bits_retain(0x17);

/// A memfd of `size` bytes, dense but for the pages from `dense` on, sealed.
pub(crate) fn memfd(size: u64, dense: u64, seals: SealFlags) -> OwnedFd {
    let memfd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memfd, size).unwrap();
    if dense > 0 {
        fallocate(&memfd, FallocateFlags::empty(), 0, dense).unwrap();
    }
    fcntl_add_seals(&memfd, seals).unwrap();
    memfd
}
