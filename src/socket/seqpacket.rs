//! A `SOCK_SEQPACKET` socket: one packet and its descriptors at a time.
//!
//! `unix(7)` says what the kernel does; its surprises are handled here and nowhere else. Received descriptors are owned from
//! the first moment. Nothing depends on `O_NONBLOCK`: every call but [`Socket::wait`] says `MSG_DONTWAIT`, and sleeping is
//! `poll(2)`.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
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

use super::fd_list::FdList;
pub(crate) use super::received::{PacketBuffer, Received, ReceivedFds, ReceivedPacket};
use crate::{
    error::{Error, HandshakeError, Result},
    protocol::{
        layout::to_u64,
        packet::{Kind, PACKET_HEADER, PacketHeader, SCM_MAX_FD},
    },
    sys::{
        cmsg::{Read, recvmsg},
        descriptor::above_stdio,
        owner::Owner,
        sockopt::{disable_ancillary_options, pass_pidfd, refuse_fds, unread_by_peer},
    },
    wait::{Deadline, sleep},
};

/// Bytes that the kernel counts against the send buffer for each packet, in addition to the packet's own.
const SEND_OVERHEAD: usize = 32;
/// Bytes of the longest body that is sent in a packet: what a default send buffer holds (`net.core.wmem_default`). No builder
/// accepts more. The kernel asks itself for a longer packet's memory in one piece, which it often does not have (`ENOBUFS`).
pub(crate) const MAX_PACKET_BODY: usize = 212_992 - SEND_OVERHEAD - PACKET_HEADER;
/// Bytes of the longest body that is copied behind its header, to be sent in one piece.
const SMALL_BODY_MAX: usize = 256;
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Number of `ECONNRESET`s that one read skips. The kernel reports once that a peer closed with our packets unread, ahead of
/// that peer's own packets.
const MAX_RESETS_SKIPPED: u32 = 2;

/// The reason for which a packet was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The queue of packets is full.
    Full,
    /// This user has as many descriptors in flight as the kernel permits.
    FdsInFlight,
    /// The kernel has no memory for the packet at the moment.
    NoMemory(io::Error),
    /// The peer has stopped reading, or is gone.
    Gone,
    Other(io::Error),
}

impl From<Errno> for SendFailure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Full,
            Errno::TOOMANYREFS => Self::FdsInFlight,
            // `ECONNREFUSED` is what kernels before 6.2 say while the other end is being closed.
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

/// The kind of a descriptor that is no `AF_UNIX` `SOCK_SEQPACKET` socket; `None` if it is one.
///
/// # Errors
/// [`Error::Io`] if the kernel does not tell, which is this process's own failure: a sandbox forbids the question.
pub(crate) fn other_kind(fd: &OwnedFd) -> Result<Option<&'static str>> {
    let domain_and_type =
        sockopt::socket_domain(fd).and_then(|domain| Ok((domain, sockopt::socket_type(fd)?)));
    match domain_and_type {
        Ok((AddressFamily::UNIX, SocketType::SEQPACKET)) => Ok(None),
        Ok((AddressFamily::UNIX, _)) => Ok(Some("an AF_UNIX socket of another type")),
        Ok(_) => Ok(Some("a socket of another family")),
        // A descriptor of another file, or one that is only a path (`O_PATH`).
        Err(Errno::NOTSOCK | Errno::BADF) => Ok(Some("no socket")),
        Err(error) => Err(Error::io("getsockopt(SO_DOMAIN)")(error)),
    }
}

/// Takes a descriptor from the application: moves it [above the standard streams](above_stdio), and makes it close-on-exec.
pub(crate) fn take(fd: OwnedFd) -> Result<OwnedFd> {
    let fd = above_stdio(fd)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(Error::io("fcntl(F_SETFD)"))?;
    Ok(fd)
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// The process whose drop of this end shuts the connection for all its copies. As a rule no process.
    owner: Owner,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.owner.is_here() {
            self.shutdown(Shutdown::Both);
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
    /// Creates two connected ends.
    pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("socketpair"))?;
        Ok((above_stdio(a)?, above_stdio(b)?))
    }

    /// Takes a connected socket from the application, which answers for its other end. The socket becomes close-on-exec.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let refuse = |found| Err(HandshakeError::NotSeqpacket { found }.into());
        if let Some(found) = other_kind(&fd)? {
            return refuse(found);
        }
        if getpeername(&fd).is_err() {
            return refuse("a socket that is not connected");
        }
        let fd = take(fd)?;
        disable_ancillary_options(fd.as_fd());
        Ok(Self::from(fd))
    }

    /// The kernel's number of the socket, which no other one has while this machine is up (`SO_COOKIE`, `socket(7)`).
    pub(crate) fn cookie(fd: impl AsFd) -> Result<u64> {
        sockopt::socket_cookie(fd).map_err(Error::io("getsockopt(SO_COOKIE)"))
    }

    /// Takes our own end of the pair of space sockets that we made. The kernel refuses descriptors there, which an honest peer never
    /// sends.
    pub(crate) fn own_space(fd: OwnedFd) -> Self {
        refuse_fds(fd.as_fd());
        Self::from(fd)
    }

    /// Makes the kernel refuse descriptors to this end (Linux 6.16; no effect before).
    pub(crate) fn refuse_fds(&self) {
        refuse_fds(self.as_fd());
    }

    /// Makes the kernel attach the sender's credentials to each packet that is sent or received here from now on, or not
    /// (`SO_PASSCRED`, `unix(7)`).
    ///
    /// A socket without a name gets an abstract one when it first sends (autobind). Nobody can connect to it, as it does not
    /// listen.
    pub(crate) fn pass_credentials(&self, pass: bool) -> Result<()> {
        sockopt::set_socket_passcred(&self.fd, pass).map_err(Error::io("setsockopt(SO_PASSCRED)"))
    }

    /// Makes each packet that is read here bring a descriptor of the sending process, or not (`SO_PASSPIDFD`, Linux 6.5).
    pub(crate) fn pass_pidfd(&self, pass: bool) {
        pass_pidfd(self.as_fd(), pass);
    }

    /// Enlarges the send buffer for packets with bodies of `body` bytes, as far as the kernel permits
    /// (`net.core.wmem_max`). Returns the length of the longest body that it holds, at most `body`.
    pub(crate) fn reserve(&self, body: usize) -> Result<usize> {
        let overhead = SEND_OVERHEAD.saturating_add(PACKET_HEADER);
        let body = body.min(MAX_PACKET_BODY);
        let needed = body.saturating_add(overhead);
        if self.send_buffer()? < needed {
            // The kernel doubles the number, and cuts it to its limit.
            sockopt::set_socket_send_buffer_size(&self.fd, needed)
                .map_err(Error::io("setsockopt(SO_SNDBUF)"))?;
        }
        Ok(self.send_buffer()?.saturating_sub(overhead).min(body))
    }

    /// Makes the send buffer as small as packets of so many bytes, and one with a body of `body` bytes, allow.
    pub(crate) fn shrink(&self, body: usize, packets: usize) {
        let overhead = SEND_OVERHEAD.saturating_add(PACKET_HEADER);
        let needed = body.saturating_add(overhead).max(packets);
        // The kernel doubles the number. A failure leaves the buffer as it was.
        if self.send_buffer().is_ok_and(|size| size > needed) {
            let _ = sockopt::set_socket_send_buffer_size(&self.fd, needed.div_ceil(2));
        }
    }

    /// Bytes that the kernel counts for a packet without a body (`skb->truesize`, `net/core/skbuff.c`): measured.
    pub(crate) fn cost_of_header() -> Result<usize> {
        let (from, _to) = Self::pair()?;
        let from = Self::from(from);
        match from.send(PacketHeader::plain(Kind::Doorbell, 0), &[], &[]) {
            Ok(()) => from.unread_by_peer(),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Bytes that the kernel counts for all that was sent here and not read.
    pub(crate) fn unread_by_peer(&self) -> Result<usize> {
        unread_by_peer(self.as_fd()).map_err(Error::io("ioctl(SIOCOUTQ)"))
    }

    /// True if the other end has read all that was sent here.
    pub(crate) fn is_read(&self) -> Result<bool> {
        Ok(self.unread_by_peer()? == 0)
    }

    fn send_buffer(&self) -> Result<usize> {
        sockopt::socket_send_buffer_size(&self.fd).map_err(Error::io("getsockopt(SO_SNDBUF)"))
    }

    /// True if the kernel would accept another packet now: its own condition, computed from the numbers that it gives.
    pub(crate) fn has_room(&self) -> Result<bool> {
        Ok(self.unread_by_peer()? < self.send_buffer()?)
    }

    /// Bytes of all packets that wait to be read.
    pub(crate) fn unread(&self) -> Result<u64> {
        ioctl_fionread(&self.fd).map_err(Error::io("ioctl(FIONREAD)"))
    }

    /// Number of doorbells that wait to be read, in a socket that carries nothing else: all packets are headers then.
    pub(crate) fn doorbells(&self) -> Result<u64> {
        Ok(self.unread()?.div_ceil(to_u64(PACKET_HEADER)))
    }

    /// True if the other end is shut or gone, even while packets wait to be read.
    pub(crate) fn is_abandoned(&self) -> Result<bool> {
        let [ready] = sleep([(self.as_fd(), PollFlags::RDHUP)], Deadline::Never, Some(Duration::ZERO))?;
        Ok(ready.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }

    /// True if both directions have ended: the other end is closed, or shut both ways.
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

    /// Sends a packet with this process's credentials spelled out, so that they are right even if the peer asks for them
    /// after the packet was sent.
    ///
    /// Returns false if this process has none to spell out, in a user namespace that does not map it (`user_namespaces(7)`).
    /// The kernel then attaches its own view of this process, because this end [passes
    /// credentials](Self::pass_credentials).
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
        if fds.is_empty() && credentials.is_none() && body.len() <= SMALL_BODY_MAX {
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

    /// Sends a packet in one piece and without ancillary data, which costs the kernel less.
    fn send_small(&self, header: &PacketHeader, body: &[u8]) -> Result<(), SendFailure> {
        let mut packet = [0; PACKET_HEADER + SMALL_BODY_MAX];
        let len = PACKET_HEADER.saturating_add(body.len()).min(packet.len());
        let packet = packet.get_mut(..len).unwrap_or_default();
        if let Some((start, rest)) = packet.split_at_mut_checked(PACKET_HEADER) {
            start.copy_from_slice(header.as_bytes());
            rest.copy_from_slice(body);
        }
        retry_on_intr(|| send(&self.fd, &*packet, SEND_FLAGS))?;
        Ok(())
    }

    /// Reads a packet with a body of at most `max_body` bytes. Does not block.
    #[expect(clippy::inline_always, reason = "a packet on its way must not be copied from frame to frame")]
    #[inline(always)]
    pub(crate) fn receive<'b>(&self, buffer: &'b mut PacketBuffer, max_body: usize) -> Result<Received<'b>> {
        self.read(buffer, max_body, Read::Now)
    }

    /// Reads a packet and leaves it in the socket, which stays readable. Does not block.
    ///
    /// The packet's descriptors are installed all the same. The read that takes the packet installs them once more.
    pub(crate) fn peek<'b>(&self, buffer: &'b mut PacketBuffer, max_body: usize) -> Result<Received<'b>> {
        self.read(buffer, max_body, Read::Peek)
    }

    /// Waits for a packet or the end of file, without a limit. One system call, where [`sleep`] and a read are two.
    ///
    /// `Nothing` comes only if some process has set `O_NONBLOCK` or `SO_RCVTIMEO`.
    pub(crate) fn wait<'b>(&self, buffer: &'b mut PacketBuffer, max_body: usize) -> Result<Received<'b>> {
        self.read(buffer, max_body, Read::Wait)
    }

    #[expect(clippy::inline_always, reason = "a packet on its way must not be copied from frame to frame")]
    #[inline(always)]
    fn read<'b>(&self, buffer: &'b mut PacketBuffer, max_body: usize, how: Read) -> Result<Received<'b>> {
        let max = max_body.saturating_add(PACKET_HEADER);
        let (bytes, ancillary) = buffer.lend(max);
        let mut resets = 0;
        loop {
            let mut fds = FdList::default();
            let received = recvmsg(self.as_fd(), bytes, ancillary, &mut fds, how);
            let (fds, all) = ReceivedFds::take_installed(fds);
            match received {
                // No packet of the protocol is empty, so that no bytes are the end of file.
                Ok(meta) if meta.len == 0 => return Ok(Received::End),
                Ok(mut meta) => {
                    meta.fds_truncated |= !all;
                    meta.pidfd = meta.pidfd.map(|pidfd| Ok(above_stdio(pidfd?)?));
                    let bytes = bytes.get(..meta.len).unwrap_or_default();
                    return Ok(Received::Packet(ReceivedPacket::parse(bytes, max, meta, fds)));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(Received::Nothing),
                    Some(Errno::INTR) => {}
                    // The peer closed with our packets unread. Its own packets come behind this error.
                    Some(Errno::CONNRESET) if resets < MAX_RESETS_SKIPPED => {
                        resets = resets.saturating_add(1);
                    }
                    Some(Errno::CONNRESET | Errno::NOTCONN) => return Ok(Received::End),
                    _ => return Err(Error::io("recvmsg")(error)),
                },
            }
        }
    }

    /// Makes this process the owner, whose drop shuts the connection, until it [disowns](Self::disown) it. So a handshake that
    /// failed is not kept open by a fork's copy.
    pub(crate) fn own(&self) {
        self.owner.claim();
    }

    /// Leaves the connection without an owner: the channel's link shuts it from now on.
    pub(crate) fn disown(&self) {
        self.owner.give_up();
    }

    /// Ends a direction for all copies of this end (`shutdown(2)`).
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = shutdown(&self.fd, how);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::mpsc};

    use super::*;
    use crate::protocol::packet::Kind;

    fn connected() -> (Socket, Socket) {
        let (ours, theirs) = Socket::pair().unwrap();
        (Socket::from(ours), Socket::from(theirs))
    }

    fn body(socket: &Socket, max: usize) -> Vec<u8> {
        match socket.receive(&mut PacketBuffer::take(), max) {
            Ok(Received::Packet(Ok(incoming))) => incoming.body.to_vec(),
            other => panic!("a packet was expected: {other:?}"),
        }
    }

    #[test]
    fn peer_that_is_closing_is_gone() {
        for error in [Errno::PIPE, Errno::CONNRESET, Errno::NOTCONN, Errno::CONNREFUSED] {
            assert!(matches!(SendFailure::from(error), SendFailure::Gone), "{error}");
        }
    }

    #[test]
    fn bodies_up_to_a_default_buffer_are_sent_where_the_kernel_permits() {
        let (ours, theirs) = connected();
        // The smallest buffer there is: `reserve` asks for the rest, which the kernel doubles.
        sockopt::set_socket_send_buffer_size(&ours, 1).unwrap();
        let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
        let limit = limit.map_or(212_992, |limit| limit.trim().parse::<usize>().unwrap());
        for wanted in [0, 1, 100_000, 212_928, 212_929, usize::MAX] {
            let len = ours.reserve(wanted).unwrap();
            assert_eq!(len, wanted.min(212_928).min(limit * 2 - 64), "of {wanted}");
            ours.send(PacketHeader::plain(Kind::Control, 0), &vec![7; len], &[]).unwrap();
            assert_eq!(body(&theirs, len), vec![7; len]);
        }
    }

    #[test]
    fn socket_has_room_until_it_is_full_and_again_when_it_is_read() {
        // Some kernels let the smallest buffer be used to its last byte.
        for smallest in [false, true] {
            let (ours, theirs) = connected();
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
            while matches!(theirs.receive(&mut PacketBuffer::take(), 0).unwrap(), Received::Packet(Ok(_))) {}
            assert!(ours.has_room().unwrap());
        }
    }

    /// A thread's values are dropped in some order at its end, so that one of the two below outlives the buffer.
    #[test]
    fn ending_thread_can_still_read_packets() {
        struct ReadsWhenDropped(Socket, mpsc::Sender<(bool, Vec<u8>)>);
        impl Drop for ReadsWhenDropped {
            fn drop(&mut self) {
                let has_buffer = PacketBuffer::is_alive();
                self.1.send((has_buffer, body(&self.0, 4))).unwrap();
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
            let this = BEFORE.with_borrow_mut(|place| body(&place.insert(before).0, 4));
            assert_eq!(this, b"this");
            let this = BEHIND.with_borrow_mut(|place| body(&place.insert(behind).0, 4));
            assert_eq!(this, b"this");
        });
        thread.join().unwrap();
        drop(sender);
        let read: Vec<_> = receiver.iter().collect();
        assert!(read.len() == 2 && read.iter().all(|(_, body)| body == b"that"), "{read:?}");
        assert!(read.iter().any(|(has_buffer, _)| !has_buffer), "the buffer was always there: {read:?}");
    }

    #[test]
    fn packets_of_a_peer_that_closed_early_are_read_to_the_end() {
        let (ours, theirs) = connected();
        ours.send(PacketHeader::plain(Kind::Doorbell, 0), &[], &[]).unwrap();
        theirs.send(PacketHeader::plain(Kind::Control, 0), b"last", &[]).unwrap();
        drop(theirs);
        // The kernel reports `ECONNRESET` first.
        assert_eq!(body(&ours, 4), b"last");
        for _ in 0..2 {
            assert!(matches!(ours.receive(&mut PacketBuffer::take(), 4), Ok(Received::End)));
            assert!(matches!(ours.wait(&mut PacketBuffer::take(), 4), Ok(Received::End)));
        }
    }
}
