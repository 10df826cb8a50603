//! A `SOCK_SEQPACKET` socket: one packet and its descriptors at a time, never blocking; and the buffer of each thread that
//! packets are read to.
//!
//! What the kernel does is told by `unix(7)`; what of it surprises is handled here and nowhere else. Received
//! descriptors are owned from the first moment ([`ReceivedFds`]). Nothing depends on `O_NONBLOCK`: every call says
//! `MSG_DONTWAIT` but [`Socket::wait`], and sleeping is `poll(2)`, with or without that.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    mem::MaybeUninit,
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    cmsg_space,
    event::PollFlags,
    io::{Errno, FdFlags, fcntl_setfd, ioctl_fionread, retry_on_intr},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags,
        SocketType, UCred, getpeername, send, sendmsg, shutdown, socketpair, sockopt,
    },
    process::{getgid, getpid, getuid},
};
use zerocopy::IntoBytes;

use crate::{
    error::{Error, HandshakeError, ProtocolError, Result},
    memory::aligned_bytes::PrivateBytes,
    protocol::{
        layout::to_u64,
        packet::{PACKET_HEADER, Packet, PacketHeader, SCM_MAX_FD},
    },
    sys::{
        cmsg::{
            Ancillary, RawCredentials, Read, Receipt, above_stdio, duplicate, is_above_stdio, pass_pidfd,
            quiet, receive, refuse_fds, unread_by_peer,
        },
        owner::Owner,
    },
    wait::{Deadline, sleep},
};

/// The kernel counts this much of a packet against the send buffer beside its bytes.
const SEND_OVERHEAD: usize = 32;
/// Longest body that is sent in a packet, whatever the buffers allow: a default buffer's (`net.core.wmem_default`). Of longer
/// ones the kernel was seen to ask itself for so much memory in one piece that it often had none (`ENOBUFS`). No builder
/// accepts more.
pub(crate) const MOST_BODY: usize = 212_992 - SEND_OVERHEAD - PACKET_HEADER;
/// Longest body that is copied behind its header, to be sent in one piece.
const SMALL_BODY: usize = 256;
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// How many `ECONNRESET`s one read skips: the kernel reports a peer that closed with our packets unread once, ahead of
/// that peer's own packets.
const RESETS: u32 = 2;

/// Descriptors that came from the peer. Closed on drop, sockets without lingering: a peer can send one whose close would
/// wait for years (`SO_LINGER`, `socket(7)`).
#[derive(Debug, Default)]
pub(crate) struct ReceivedFds(Vec<OwnedFd>);

impl ReceivedFds {
    /// Takes what the kernel has installed, moved [above the standard streams](above_stdio). False if this process may not
    /// open as many for that: then those from there on are closed.
    fn adopt(fds: Vec<OwnedFd>) -> (Self, bool) {
        let mut fds = Self(fds);
        let stays = |fd: &mut OwnedFd| {
            let number = fd.as_raw_fd();
            !is_above_stdio(number) && duplicate(number).map(|moved| *fd = moved).is_err()
        };
        let lost = fds.0.iter_mut().position(stays);
        if let Some(lost) = lost {
            drop(Self(fds.0.split_off(lost)));
        }
        (fds, lost.is_none())
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, index: usize) -> Option<OwnedFd> {
        (index < self.0.len()).then(|| self.0.remove(index))
    }

    /// Hands them to the user, who also closes them.
    pub(crate) fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for ReceivedFds {
    type Target = [OwnedFd];

    fn deref(&self) -> &[OwnedFd] {
        &self.0
    }
}

impl Drop for ReceivedFds {
    fn drop(&mut self) {
        for fd in &self.0 {
            let _ = sockopt::set_socket_linger(fd, None);
        }
    }
}

/// What a read of the socket found.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A packet, unless it is none of ours.
    Packet(Result<Incoming, ProtocolError>),
    Nothing,
    /// The peer has shut its writing side, or is gone.
    End,
}

/// A received packet: header checked, body copied, descriptors counted and owned.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) packet: Packet,
    pub(crate) body: PrivateBytes,
    pub(crate) fds: ReceivedFds,
    /// Descriptors were lost to our own limit (`MSG_CTRUNC`).
    pub(crate) fds_cut: bool,
    pub(crate) credentials: Option<RawCredentials>,
    /// See [`Receipt::pidfd`].
    pub(crate) pidfd: Option<io::Result<OwnedFd>>,
}

impl Incoming {
    /// Bytes of the packet.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        to_u64(PACKET_HEADER.saturating_add(self.body.as_slice().len()))
    }
}

/// Where a thread reads packets to, of whatever channel: so it is in the cache. As long as the longest may have been so far;
/// it takes memory as far as one was long, until the thread ends.
struct PacketBuffer {
    bytes: Vec<u8>,
    ancillary: Box<Ancillary>,
}

thread_local! {
    static BUFFER: Cell<Option<PacketBuffer>> = const { Cell::new(None) };
}

impl PacketBuffer {
    /// This thread's, or a new one where that is gone: a thread that ends may still drop a channel, say.
    fn take() -> Self {
        let own = BUFFER.try_with(Cell::take).ok().flatten();
        own.unwrap_or_else(|| Self { bytes: Vec::new(), ancillary: Ancillary::new() })
    }

    fn put_back(self) {
        let _ = BUFFER.try_with(|own| own.set(Some(self)));
    }

    /// Room for packets of `max` bytes, and for what comes with them.
    fn room(&mut self, max: usize) -> (&mut [u8], &mut Ancillary) {
        if self.bytes.len() < max {
            // Zeros from the kernel, as far as possible: what no packet is written to takes no memory.
            self.bytes = vec![0; max];
        }
        (self.bytes.get_mut(..max).unwrap_or_default(), &mut self.ancillary)
    }
}

/// Judges a packet that was read.
///
/// UNTRUSTED: lengths, header and the number of descriptors are checked here, for every kind of packet.
fn open(bytes: &[u8], max: usize, receipt: Receipt, fds: ReceivedFds) -> Result<Incoming, ProtocolError> {
    if receipt.cut {
        return Err(ProtocolError::PacketTooLong { max });
    }
    let (packet, body) = PacketHeader::parse(bytes)?;
    if packet.fd_count != fds.len() && !(receipt.fds_cut && fds.len() < packet.fd_count) {
        return Err(ProtocolError::FdCount { announced: packet.fd_count, found: fds.len() });
    }
    let Receipt { fds_cut, credentials, pidfd, .. } = receipt;
    Ok(Incoming { packet, body: PrivateBytes::from(body), fds, fds_cut, credentials, pidfd })
}

/// Why a packet was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// As many packets are queued as the kernel lets us.
    Full,
    /// As many descriptors of this user are in flight as the kernel lets it.
    FdsInFlight,
    /// The kernel has no memory for the packet, at the moment.
    NoMemory(io::Error),
    /// The peer does not read any more.
    Gone,
    Other(io::Error),
}

impl From<Errno> for SendFailure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Full,
            Errno::TOOMANYREFS => Self::FdsInFlight,
            // `ECONNREFUSED` where the other end is being closed at this moment, before Linux 6.2.
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED => Self::Gone,
            Errno::NOBUFS | Errno::NOMEM => Self::NoMemory(error.into()),
            error => Self::Other(error.into()),
        }
    }
}

impl From<SendFailure> for Error {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Full => Self::Full,
            SendFailure::FdsInFlight => Self::FdsInFlight,
            SendFailure::Gone => Self::Disconnected,
            SendFailure::NoMemory(error) | SendFailure::Other(error) => Self::io("sendmsg")(error),
        }
    }
}

/// Whether a descriptor is an `AF_UNIX` `SOCK_SEQPACKET` socket; else what it is instead.
pub(crate) fn check_kind(fd: &OwnedFd) -> Result<(), &'static str> {
    match (sockopt::socket_domain(fd), sockopt::socket_type(fd)) {
        (Err(_), _) | (_, Err(_)) => Err("no socket"),
        (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) => Ok(()),
        (Ok(AddressFamily::UNIX), _) => Err("an AF_UNIX socket of another type"),
        _ => Err("a socket of another family"),
    }
}

/// Takes a descriptor that the application made: moved [above the standard streams](above_stdio), and close-on-exec.
pub(crate) fn take(fd: OwnedFd) -> Result<OwnedFd> {
    let fd = above_stdio(fd)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(Error::io("fcntl(F_SETFD)"))?;
    Ok(fd)
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// Whose drop of it is noticed at the other end, whatever copies there are: nobody's, as a rule.
    owner: Owner,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.owner.is_here() {
            self.shut(Shutdown::Both);
        }
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, owner: Owner::unused() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Two connected ends.
    pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("socketpair"))?;
        Ok((above_stdio(a)?, above_stdio(b)?))
    }

    /// Takes a connected socket that the application vouches for; it is close-on-exec from then on.
    pub(crate) fn adopt(fd: OwnedFd) -> Result<Self> {
        let refuse = |found| HandshakeError::NotSeqpacket { found };
        check_kind(&fd).map_err(refuse)?;
        if getpeername(&fd).is_err() {
            return Err(refuse("a socket that is not connected").into());
        }
        let fd = take(fd)?;
        quiet(fd.as_fd());
        Ok(Self::from(fd))
    }

    /// Whether the writing end of a peer's credit socket is what it should be: anything else might block.
    pub(crate) fn is_credit(fd: &OwnedFd) -> Result<bool> {
        let facts = sockopt::socket_domain(fd).and_then(|domain| Ok((domain, sockopt::socket_type(fd)?)));
        match facts {
            Ok(facts) => Ok(facts == (AddressFamily::UNIX, SocketType::SEQPACKET)),
            // It is no socket, or only a path to one.
            Err(Errno::NOTSOCK | Errno::BADF) => Ok(false),
            Err(error) => Err(Error::io("getsockopt of the peer's credit socket")(error)),
        }
    }

    /// What the kernel calls the socket, and no other one while this machine is up (`SO_COOKIE`, `socket(7)`).
    pub(crate) fn cookie(fd: impl AsFd) -> Result<u64> {
        sockopt::socket_cookie(fd).map_err(Error::io("getsockopt(SO_COOKIE)"))
    }

    /// Takes the writing end of a peer's credit socket, which [is one](Self::is_credit).
    pub(crate) fn peer_credit(fd: OwnedFd) -> Self {
        Self::from(fd)
    }

    /// Takes our own end of the credit pair that we made; nobody has any business to send descriptors there.
    pub(crate) fn own_credit(fd: OwnedFd) -> Self {
        refuse_fds(fd.as_fd());
        Self::from(fd)
    }

    /// Lets the kernel refuse descriptors to this end, where it can (Linux 6.16).
    pub(crate) fn refuse_fds(&self) {
        refuse_fds(self.as_fd());
    }

    /// Whether the kernel notes the sender of each packet that is sent or received here from this moment on (`SO_PASSCRED`,
    /// `unix(7)`). A socket that has no name is given an abstract one when it first sends (autobind). That is no door: nobody
    /// listens there.
    pub(crate) fn pass_credentials(&self, pass: bool) -> Result<()> {
        sockopt::set_socket_passcred(&self.fd, pass).map_err(Error::io("setsockopt(SO_PASSCRED)"))
    }

    /// Whether a descriptor of the sending process comes with each packet that is read here (`SO_PASSPIDFD`, Linux 6.5).
    pub(crate) fn pass_pidfd(&self, pass: bool) {
        pass_pidfd(self.as_fd(), pass);
    }

    /// Makes the send buffer large enough for packets with bodies of `body` bytes, if the kernel lets us
    /// (`net.core.wmem_max`), and says how large they may be.
    pub(crate) fn reserve(&self, body: usize) -> Result<usize> {
        let size = || sockopt::socket_send_buffer_size(&self.fd).map_err(Error::io("getsockopt(SO_SNDBUF)"));
        let overhead = SEND_OVERHEAD.saturating_add(PACKET_HEADER);
        let body = body.min(MOST_BODY);
        let needed = body.saturating_add(overhead);
        if size()? < needed {
            // The kernel doubles what it is told, and cuts it to its limit.
            sockopt::set_socket_send_buffer_size(&self.fd, needed)
                .map_err(Error::io("setsockopt(SO_SNDBUF)"))?;
        }
        Ok(size()?.saturating_sub(overhead).min(body))
    }

    /// Whether the kernel takes another packet: what it counts when it is asked to.
    pub(crate) fn has_room(&self) -> Result<bool> {
        let size = sockopt::socket_send_buffer_size(&self.fd).map_err(Error::io("getsockopt(SO_SNDBUF)"))?;
        let unread = unread_by_peer(self.as_fd()).map_err(Error::io("ioctl(SIOCOUTQ)"))?;
        Ok(unread < size)
    }

    /// Bytes of all packets that wait to be read.
    pub(crate) fn unread(&self) -> Result<u64> {
        ioctl_fionread(&self.fd).map_err(Error::io("ioctl(FIONREAD)"))
    }

    /// Doorbells that wait to be read, if nothing else can: all packets are as long as one.
    pub(crate) fn doorbells(&self) -> Result<u64> {
        Ok(self.unread()?.div_ceil(to_u64(PACKET_HEADER)))
    }

    /// Whether the other end is shut or gone, whatever is still to be read.
    pub(crate) fn is_abandoned(&self) -> Result<bool> {
        let [ready] = sleep([(self.as_fd(), PollFlags::RDHUP)], Deadline::Never, Some(Duration::ZERO))?;
        Ok(ready.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }

    /// Whether both directions are over: the other end is closed, or shut both ways.
    pub(crate) fn is_dead(&self) -> bool {
        let ready = sleep([(self.as_fd(), PollFlags::empty())], Deadline::Never, Some(Duration::ZERO));
        ready.is_ok_and(|[ready]| ready.contains(PollFlags::HUP))
    }

    /// Sends a packet, whole or not at all, without blocking.
    pub(crate) fn send(
        &self,
        header: PacketHeader,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SendFailure> {
        self.send_with(header, body, fds, None)
    }

    /// As [`send`](Self::send), with this process's credentials spelled out, so that they are right even if the peer asked
    /// for them after the packet was sent. False if we have none to spell out: a user namespace that does not map us
    /// (`user_namespaces(7)`). Then the kernel attaches what it knows of us, as this end
    /// [passes credentials](Self::pass_credentials), which it does for what is sent and what is received.
    pub(crate) fn send_identified(
        &self,
        header: PacketHeader,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool, SendFailure> {
        let ours = UCred { pid: getpid(), uid: getuid(), gid: getgid() };
        match self.send_with(header, body, fds, Some(ours)) {
            Err(SendFailure::Other(error)) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                self.send_with(header, body, fds, None).map(|()| false)
            }
            result => result.map(|()| true),
        }
    }

    fn send_with(
        &self,
        header: PacketHeader,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        credentials: Option<UCred>,
    ) -> Result<(), SendFailure> {
        if fds.is_empty() && credentials.is_none() && body.len() <= SMALL_BODY {
            return self.send_small(&header, body);
        }
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SCM_MAX_FD), ScmCredentials(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds));
        let identity = credentials.is_none_or(|c| ancillary.push(SendAncillaryMessage::ScmCredentials(c)));
        if !(rights && identity) {
            return Err(SendFailure::Other(io::ErrorKind::InvalidInput.into()));
        }
        retry_on_intr(|| sendmsg(&self.fd, &parts, &mut ancillary, SEND_FLAGS))?;
        Ok(())
    }

    /// As [`send_with`](Self::send_with), in one piece and with nothing beside it, which costs the kernel less.
    fn send_small(&self, header: &PacketHeader, body: &[u8]) -> Result<(), SendFailure> {
        let mut packet = [0; PACKET_HEADER + SMALL_BODY];
        let len = PACKET_HEADER.saturating_add(body.len()).min(packet.len());
        let packet = packet.get_mut(..len).unwrap_or_default();
        if let Some((start, rest)) = packet.split_at_mut_checked(PACKET_HEADER) {
            start.copy_from_slice(header.as_bytes());
            rest.copy_from_slice(body);
        }
        retry_on_intr(|| send(&self.fd, &*packet, SEND_FLAGS))?;
        Ok(())
    }

    /// Reads a packet without blocking, with a body of at most `max_body` bytes.
    pub(crate) fn receive(&self, max_body: usize) -> Result<Arrival> {
        self.read(max_body, Read::Now)
    }

    /// As [`receive`](Self::receive), and leaves the packet where it is, so that the socket stays readable. The descriptors
    /// are ours already; the read that takes the packet brings them once more.
    pub(crate) fn peek(&self, max_body: usize) -> Result<Arrival> {
        self.read(max_body, Read::Peek)
    }

    /// As [`receive`](Self::receive), but waits for a packet or the end, as long as it takes: in one system call, where
    /// [`sleep`] and a read are two. `Nothing` only if somebody has set `O_NONBLOCK` or `SO_RCVTIMEO`.
    pub(crate) fn wait(&self, max_body: usize) -> Result<Arrival> {
        self.read(max_body, Read::Wait)
    }

    fn read(&self, max_body: usize, how: Read) -> Result<Arrival> {
        let mut buffer = PacketBuffer::take();
        let arrival = self.read_to(&mut buffer, max_body.saturating_add(PACKET_HEADER), how);
        buffer.put_back();
        arrival
    }

    fn read_to(&self, buffer: &mut PacketBuffer, max: usize, how: Read) -> Result<Arrival> {
        let (bytes, ancillary) = buffer.room(max);
        let mut resets = 0;
        loop {
            let mut fds = Vec::new();
            let received = receive(self.as_fd(), bytes, ancillary, &mut fds, how);
            let (fds, all) = ReceivedFds::adopt(fds);
            match received {
                // A packet of ours is never empty.
                Ok(receipt) if receipt.len == 0 => return Ok(Arrival::End),
                Ok(mut receipt) => {
                    receipt.fds_cut |= !all;
                    receipt.pidfd = receipt.pidfd.map(|pidfd| Ok(above_stdio(pidfd?)?));
                    let bytes = bytes.get(..receipt.len).unwrap_or_default();
                    return Ok(Arrival::Packet(open(bytes, max, receipt, fds)));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(Arrival::Nothing),
                    Some(Errno::INTR) => {}
                    Some(Errno::CONNRESET) if resets < RESETS => resets = resets.saturating_add(1),
                    Some(Errno::CONNRESET | Errno::NOTCONN) => return Ok(Arrival::End),
                    _ => return Err(Error::io("recvmsg")(error)),
                },
            }
        }
    }

    /// This process uses the connection, and its drop of it shuts it from now on, until it is [disowned](Self::disown): a
    /// connection that came to nothing must not be kept open by the copy of a fork.
    pub(crate) fn own(&self) {
        self.owner.claim();
    }

    /// What becomes of the connection is somebody else's affair from now on.
    pub(crate) fn disown(&self) {
        self.owner.give_up();
    }

    /// Shuts a direction, for everyone who holds this end (`shutdown(2)`).
    pub(crate) fn shut(&self, how: Shutdown) {
        let _ = shutdown(&self.fd, how);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::mpsc};

    use super::*;
    use crate::protocol::packet::Kind;

    fn body(arrival: Result<Arrival>) -> Vec<u8> {
        match arrival {
            Ok(Arrival::Packet(Ok(incoming))) => incoming.body.as_slice().to_vec(),
            other => panic!("a packet was expected: {other:?}"),
        }
    }

    #[test]
    fn a_peer_that_is_closing_is_gone() {
        for error in [Errno::PIPE, Errno::CONNRESET, Errno::NOTCONN, Errno::CONNREFUSED] {
            assert!(matches!(SendFailure::from(error), SendFailure::Gone), "{error}");
        }
    }

    #[test]
    fn missing_descriptors_are_not_taken() {
        let mut fds = ReceivedFds(vec![Socket::pair().unwrap().0]);
        assert!(fds.remove(1).is_none());
        assert!(fds.remove(0).is_some());
        assert!(fds.remove(0).is_none() && fds.take().is_empty());
    }

    #[test]
    fn a_body_may_be_as_long_as_a_default_buffer_holds_if_the_kernel_lets_us() {
        let (ours, theirs) = Socket::pair().unwrap();
        let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
        // As small as it can be: what is missing is asked for, and doubled by the kernel.
        sockopt::set_socket_send_buffer_size(&ours, 1).unwrap();
        let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
        let limit = limit.map_or(212_992, |limit| limit.trim().parse::<usize>().unwrap());
        for wanted in [0, 1, 100_000, 212_928, 212_929, usize::MAX] {
            let len = ours.reserve(wanted).unwrap();
            assert_eq!(len, wanted.min(212_928).min(limit * 2 - 64), "of {wanted}");
            ours.send(PacketHeader::plain(Kind::Control, 0), &vec![7; len], &[]).unwrap();
            assert_eq!(body(theirs.receive(len)), vec![7; len]);
        }
    }

    #[test]
    fn a_socket_has_room_until_it_is_full_and_again_when_it_is_read() {
        // Of the smallest buffer some kernels let us use all, to the last byte.
        for smallest in [false, true] {
            let (ours, theirs) = Socket::pair().unwrap();
            let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
            if smallest {
                sockopt::set_socket_send_buffer_size(&ours, 1).unwrap();
            }
            assert!(ours.has_room().unwrap());
            let header = PacketHeader::plain(Kind::Control, 0);
            let mut sent = 0;
            while ours.send(header, &[], &[]).is_ok() {
                sent += 1;
                assert!(ours.doorbells().unwrap() == 0, "nothing to read at this end");
            }
            assert!(!ours.has_room().unwrap());
            assert_eq!(theirs.doorbells().unwrap(), sent);
            while matches!(theirs.receive(0).unwrap(), Arrival::Packet(Ok(_))) {}
            assert!(ours.has_room().unwrap());
        }
    }

    /// Of what a thread keeps to its very end, something is dropped after its buffer, whichever goes first.
    #[test]
    fn a_thread_that_ends_can_still_read_packets() {
        struct ReadsWhenDropped(Socket, mpsc::Sender<(bool, Vec<u8>)>);
        impl Drop for ReadsWhenDropped {
            fn drop(&mut self) {
                let has_buffer = BUFFER.try_with(|_| ()).is_ok();
                self.1.send((has_buffer, body(self.0.receive(4)))).unwrap();
            }
        }
        thread_local! {
            static BEFORE: RefCell<Option<ReadsWhenDropped>> = const { RefCell::new(None) };
            static BEHIND: RefCell<Option<ReadsWhenDropped>> = const { RefCell::new(None) };
        }
        let (sender, receiver) = mpsc::channel();
        let [before, behind] = [(); 2].map(|()| {
            let (ours, theirs) = Socket::pair().unwrap();
            for body in [b"this", b"that"] {
                Socket::from(theirs.try_clone().unwrap())
                    .send(PacketHeader::plain(Kind::Control, 0), body, &[])
                    .unwrap();
            }
            (ReadsWhenDropped(Socket::from(ours), sender.clone()), theirs)
        });
        let ((before, _first), (behind, _second)) = (before, behind);
        let thread = std::thread::spawn(move || {
            let this = BEFORE.with_borrow_mut(|place| body(place.insert(before).0.receive(4)));
            assert_eq!(this, b"this");
            let this = BEHIND.with_borrow_mut(|place| body(place.insert(behind).0.receive(4)));
            assert_eq!(this, b"this");
        });
        thread.join().unwrap();
        drop(sender);
        let read: Vec<_> = receiver.iter().collect();
        assert!(read.len() == 2 && read.iter().all(|(_, body)| body == b"that"), "{read:?}");
        assert!(read.iter().any(|(has_buffer, _)| !has_buffer), "the buffer was always there: {read:?}");
    }

    #[test]
    fn a_peer_that_closes_before_it_has_read_is_heard_to_the_end() {
        let (ours, theirs) = Socket::pair().unwrap();
        let (ours, theirs) = (Socket::from(ours), Socket::from(theirs));
        ours.send(PacketHeader::plain(Kind::Doorbell, 0), &[], &[]).unwrap();
        theirs.send(PacketHeader::plain(Kind::Control, 0), b"last", &[]).unwrap();
        drop(theirs);
        // The kernel says `ECONNRESET` first.
        assert_eq!(body(ours.receive(4)), b"last");
        for _ in 0..2 {
            assert!(matches!(ours.receive(4), Ok(Arrival::End)));
            assert!(matches!(ours.wait(4), Ok(Arrival::End)));
        }
    }
}
