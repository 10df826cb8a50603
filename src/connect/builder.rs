//! [`Builder`]: the settings of channels, and every way to establish one.

use std::{
    borrow::BorrowMut,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use rustix::param::page_size;

use crate::{
    channel::Channel,
    connect::{
        child as process,
        child::Prepared,
        handshake::Handshake,
        listener::{self, Listener},
        settings::{Role, Settings, random},
    },
    error::{self, Result},
    protocol::{layout::Geometry, packet::SCM_MAX_FD},
    socket::seqpacket::{MOST_BODY, Socket},
    wait::{Deadline, Wait},
};

/// Settings for channels. The methods that establish one borrow the builder, so that it can be used again, for instance
/// to restart a crashed peer.
///
/// Each side has its own settings. Limits bind what a side *receives*; the handshake tells them to the other side, which
/// then refuses too much before anything is sent.
///
/// The memory of a channel is what they say: the ring of this side, some 20 bytes for each request without a reply
/// ([`max_requests`](Self::max_requests)), the messages that the application has not dropped, and 4 MiB of those that came while a
/// reply was awaited, with one more.
///
/// ```
/// use sealane::{Channel, Wait};
/// use std::time::Duration;
///
/// let (a, b) = Channel::builder()
///     .ring_capacity(16 << 20)
///     .max_control(1024)
///     .max_fds(8)
///     .handshake_timeout(Duration::from_secs(1))
///     .wait(Wait::Block)
///     .pair()?;
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is told to establish a channel"]
pub struct Builder {
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            settings: Settings {
                ring_capacity: 4 << 20,
                max_peer_ring: None,
                max_control: 64 << 10,
                max_fds: 64,
                max_requests: 1024,
                timeout: Duration::from_secs(5),
                wait: Wait::default(),
                prefault: true,
                huge_pages: false,
                peer_pidfd: false,
                origin: random(),
            },
        }
    }
}

impl Builder {
    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Bytes of the ring that this side sends through; rounded up to a page. One payload can be at most half of the ring less
    /// 1,088 bytes ([`Limits::max_payload`](crate::Limits::max_payload)). 0 makes a side that sends control messages only.
    /// Default: 4 MiB.
    ///
    /// The memory is allocated at once and counts as this process's.
    ///
    /// A record takes 64 bytes and its payload, and a loan reserves 1,024 more for control bytes. None goes round the ring's end:
    /// where it does not fit, the rest of the ring is left out. [`ring_for`](Self::ring_for) computes how large a ring should
    /// be.
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|settings| settings.ring_capacity = bytes)
    }

    /// The bytes of a ring in which the sender of payloads of `payload` bytes is never stuck while the receiver keeps the last
    /// `kept` of them: (`kept` + 2) × (`payload` + 1,088), each rounded up to 64 bytes, and all to a page.
    ///
    /// A receiver that drops each payload before it receives the next keeps none while it waits, so that 0 is enough for
    /// both to go on. With 1 there is room for three: one that is read, the next that is there, and one that is written.
    ///
    /// ```
    /// use sealane::{Builder, Channel};
    ///
    /// let frame = 1920 * 1080 * 3 / 2;
    /// let ring = Builder::ring_for(frame, 1);
    /// assert_eq!(ring, (3 * (frame + 1088)).next_multiple_of(4096));
    /// let (a, _b) = Channel::builder().ring_capacity(ring).pair()?;
    /// assert!(a.limits().max_payload >= frame);
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn ring_for(payload: usize, kept: usize) -> usize {
        Geometry::capacity_for(payload, kept, page_size())
    }

    /// The largest ring of the other side that is accepted, in bytes; rounded up as [`ring_capacity`](Self::ring_capacity)
    /// is, so that the same number at both ends fits. Default: 64 MiB, and 8 MiB for what a [`Listener`] accepts: looking at
    /// a ring takes time, of which a stranger should not have much.
    ///
    /// The larger ring is refused at both ends with [`Reason::RingTooLarge`](crate::Reason::RingTooLarge).
    pub fn max_peer_ring_capacity(self, bytes: usize) -> Self {
        let rounded = Geometry::new(bytes, page_size()).map_or(bytes, |geometry| geometry.capacity);
        self.with(|settings| settings.max_peer_ring = Some(rounded))
    }

    /// Most control bytes of a message that this side receives. Default: 64 KiB; most: 212,928, as many as a packet can
    /// hold. With more, establishing fails
    /// ([`Error::ControlTooLarge`](crate::Error::ControlTooLarge)).
    ///
    /// What goes as a packet of its own must also fit into the sender's socket buffer, which holds that many unless the
    /// system's default was made smaller (`net.core.wmem_default`, `socket(7)`). What came of it is in the peer's
    /// [`Limits`](crate::Limits).
    ///
    /// The memory that this takes is a buffer of each thread that receives, as long as the longest packet so far.
    pub fn max_control(self, bytes: usize) -> Self {
        self.with(|settings| settings.max_control = bytes)
    }

    /// Most descriptors with a message that this side receives: 253 is the kernel's own limit (`SCM_MAX_FD`, `unix(7)`),
    /// and taken for more. Default: 64.
    pub fn max_fds(self, count: usize) -> Self {
        self.with(|settings| settings.max_fds = u32::try_from(count.min(SCM_MAX_FD)).unwrap_or(u32::MAX))
    }

    /// Most requests that may be without a reply at once, in either direction: those of the other side, which is told and
    /// refuses more before anything is sent ([`Error::TooManyRequests`](crate::Error::TooManyRequests)), and those of this side,
    /// of which the other may allow fewer. 0 allows none. Default: 1,024.
    ///
    /// A request counts until its reply is received, even if it is given up meanwhile. So answer every request, if only with an
    /// empty reply: one that is never answered counts as long as the channel lives. Each takes some 20 bytes at either side,
    /// and one call may have to drop as many late replies.
    pub fn max_requests(self, count: usize) -> Self {
        self.with(|settings| settings.max_requests = u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// How long a handshake may take in all, from connecting to the other side's last word. Making our ring and looking at the
    /// other side's are part of it. Default: 5 s.
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = timeout)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// How blocking calls wait. Default: [`Wait::Adaptive`] for at most 50 µs.
    pub fn wait(self, wait: Wait) -> Self {
        self.with(|settings| settings.wait = wait)
    }

    /// Whether the page tables of both regions are filled when the channel is established. Default: true. If not, each
    /// first touch of a page costs a fault; memory is allocated at once in any case.
    pub fn prefault(self, prefault: bool) -> Self {
        self.with(|settings| settings.prefault = prefault)
    }

    /// Whether our region is made of 2 MiB pages (`MFD_HUGETLB`, `memfd_create(2)`). Fails if not enough are reserved
    /// (`vm.nr_hugepages`); there is no silent fallback. Default: false.
    pub fn huge_pages(self, huge_pages: bool) -> Self {
        self.with(|settings| settings.huge_pages = huge_pages)
    }

    /// Whether to ask the kernel for a descriptor of the peer's process: [`Peer::pidfd`](crate::Peer::pidfd). It costs a
    /// descriptor a channel. Default: false.
    ///
    /// Calls that block then end with [`Error::Disconnected`](crate::Error::Disconnected) when the process that said `Hello`
    /// was killed by a signal and all that it sent has been received, even if a copy of its socket lives on: in a shell that
    /// started it, or in a child that it has forked. Without this, a channel ends when the last copy is closed. What remains
    /// unseen while there is a copy: a process that exits by itself, as a daemon's first process does; one whose parent
    /// has not waited for it yet, unless that is us; one in a pid namespace that we do not see; and any but a child of ours
    /// before Linux 6.15.
    ///
    /// The calls of `sealane::tokio` and the `try_` forms do not look; nor does `recv_timeout` with zero. Watch
    /// [`Peer::pidfd`](crate::Peer::pidfd) there.
    pub fn peer_pidfd(self, peer_pidfd: bool) -> Self {
        self.with(|settings| settings.peer_pidfd = peer_pidfd)
    }

    /// Both ends of a channel, in this process: for threads, and for tests.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Handshake`](crate::Error::Handshake) if the settings do not accept
    /// themselves (a ring larger than the peer's limit); [`Error::FdsInFlight`](crate::Error::FdsInFlight) if too many
    /// descriptors of this user are in flight: try again after some milliseconds.
    pub fn pair(&self) -> Result<(Channel, Channel)> {
        let (a, b) = Socket::pair()?;
        let (mut a, mut b) = (self.handshake(a)?, self.handshake(b)?);
        // Each reads what the other has said, or looks at a piece of the other's region; and a refusal ends it.
        while !(a.advance()? & b.advance()?) {}
        Ok((a.finish()?, b.finish()?))
    }

    /// The settings, if they can be kept.
    fn settings(&self) -> Result<Settings> {
        let (len, max) = (self.settings.max_control, MOST_BODY);
        if len > max {
            return Err(error::Error::ControlTooLarge { len, max });
        }
        Ok(self.settings)
    }

    /// Connects to a [`Listener`]; blocks for the handshake timeout at most. `@name` is an abstract name (`unix(7)`).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if nobody listens, or with the kind `InvalidInput` for a name that can be none;
    /// [`Error::Timeout`](crate::Error::Timeout), [`Error::Handshake`](crate::Error::Handshake).
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<Channel> {
        let settings = self.settings()?;
        // One deadline covers both.
        let deadline = Deadline::after(settings.timeout);
        let socket = listener::connect(path.as_ref(), Some(deadline))?;
        let timeout = deadline.left().unwrap_or(settings.timeout);
        Handshake::new(socket, Settings { timeout, ..settings }, Role::Caller)?.finish()
    }

    /// As [`connect`](Self::connect), without blocking.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error::Full) if too many clients wait for the listener: the kernel gives no sign when that
    /// is over, so try again after some milliseconds. [`Error::Io`](crate::Error::Io) if nobody listens.
    pub fn try_connect(&self, path: impl AsRef<Path>) -> Result<Handshake> {
        let settings = self.settings()?;
        Handshake::new(listener::connect(path.as_ref(), None)?, settings, Role::Caller)
    }

    /// Starts a child process with a channel to it, which the child takes by [`inherited`](Self::inherited). A command may
    /// be lent: nothing is left behind in it, and it can start other children, with a channel or without.
    ///
    /// ```standalone_crate
    /// use sealane::Channel;
    /// use std::{env, process::Command, time::Duration};
    ///
    /// fn main() -> sealane::Result<()> {
    ///     // One program is both here. Two programs have a half each.
    ///     if env::args().any(|argument| argument == "child") {
    ///         let mut channel = Channel::inherited()?;
    ///         let request = channel.recv()?;
    ///         return channel.reply(request.reply_token().unwrap(), b"done");
    ///     }
    ///     let program = env::current_exe().unwrap();
    ///     let (mut channel, mut child) = Channel::spawn(Command::new(program).arg("child"))?;
    ///     assert_eq!(channel.call(b"begin", Duration::from_secs(5))?.control(), b"done");
    ///     drop(channel);
    ///     assert!(child.wait().unwrap().success());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The call blocks for the handshake timeout at most, but for two things:
    /// - `Command::spawn`, which the kernel keeps until the child has executed its program (`execve(2)`): on a file system
    ///   that does not answer, for as long;
    /// - the end of a child whose handshake fails. Both sides know the reason by then: the child has until the deadline,
    ///   but at most a second, to report it and to end by itself. Then it is killed, and reaped, which may take another
    ///   second. A child that the kernel has not ended by then (it waits for a device, or has much memory to give back:
    ///   closing the last copy of 1 GiB takes some 115 ms) ends later, and stays a zombie.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started, [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::Handshake`](crate::Error::Handshake), with
    /// [`HandshakeError::ChildEnded`](crate::HandshakeError::ChildEnded) for a child that has ended: a program that does
    /// not take its channel is known by that.
    pub fn spawn(&self, command: impl BorrowMut<Command>) -> Result<(Channel, Child)> {
        let (handshake, mut child) = self.try_spawn(command)?;
        let deadline = handshake.deadline();
        match handshake.finish() {
            Ok(channel) => Ok((channel, child)),
            Err(error) => Err(process::end(&mut child, deadline, error)),
        }
    }

    /// As [`spawn`](Self::spawn), without waiting for the child's handshake. The caller kills and reaps it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started.
    pub fn try_spawn(&self, mut command: impl BorrowMut<Command>) -> Result<(Handshake, Child)> {
        let prepared = self.prepare()?;
        let child = process::start(command.borrow_mut(), &prepared)?;
        Ok((prepared.started(), child))
    }

    /// Makes a channel for a child that is started in another way than by [`spawn`](Self::spawn). Does not block. The
    /// handshake's time begins here.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn prepare(&self) -> Result<Prepared> {
        let (ours, childs) = Socket::pair()?;
        Prepared::new(self.handshake(ours)?, childs)
    }

    /// In a child that was started by [`spawn`](Self::spawn): the channel to its parent. Blocks for the handshake timeout
    /// at most. Works once in a process; a grandchild, which inherits the variable but not the descriptor, gets an error.
    ///
    /// The descriptor that the parent left stays open under its number, and is close-on-exec from then on: this process
    /// may have an owner for it. The channel has one of its own, and ends for both sides when it is dropped
    /// (`shutdown(2)`), or when this process ends.
    ///
    /// # Errors
    /// [`Error::Handshake`](crate::Error::Handshake), [`Error::Timeout`](crate::Error::Timeout).
    pub fn inherited(&self) -> Result<Channel> {
        self.inherit(process::inherited)?.finish()
    }

    /// In a child that was started in another way: the channel that the parent [prepared](Self::prepare). `name` is the
    /// text of the parent's [`Prepared`], or where a launcher gave the descriptor another number, that number; 0 to 2, the
    /// standard streams', are refused. Otherwise as [`inherited`](Self::inherited).
    ///
    /// # Errors
    /// Those of [`inherited`](Self::inherited).
    pub fn inherited_as(&self, name: &str) -> Result<Channel> {
        self.inherit(|| process::inherited_as(name))?.finish()
    }

    /// Begins the handshake over a socket that this process inherited. With settings that cannot be kept it is not taken.
    pub(crate) fn inherit(&self, socket: impl FnOnce() -> Result<Socket>) -> Result<Handshake> {
        let settings = self.settings()?;
        Handshake::new(socket()?, settings, Role::Caller)
    }

    /// Listens for clients. `@name` is an abstract name (`unix(7)`), which any process of this network namespace can connect
    /// to. A path gets mode 0600, and is removed when the listener is dropped.
    ///
    /// The listener takes over the socket of one that was killed: a socket file of this user at which nobody listens. That
    /// needs a lock of the directory (`flock(2)`), for which the call waits for the handshake timeout at most. A helper that
    /// was forked by the killed process may have a copy of its listener: then somebody listens, and the path is in use.
    ///
    /// What a client may bring is less here by default: see [`max_peer_ring_capacity`](Self::max_peer_ring_capacity).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io): with the kind `AddrInUse` if somebody listens there, if what is there is no socket,
    /// or another user's, or if the directory cannot be locked; with `InvalidInput` for a name that can be none: it is
    /// empty, a lone `@`, longer than 107 bytes, or has a zero byte.
    pub fn listen(&self, path: impl AsRef<Path>) -> Result<Listener> {
        Listener::new(path.as_ref(), self.settings()?)
    }

    /// Listens on a socket that somebody else bound, for instance a service manager that starts this program when a client
    /// connects (socket activation). Nothing is removed when the listener is dropped.
    ///
    /// The socket becomes close-on-exec and non-blocking (`O_NONBLOCK`, which all that share it see), and asks for
    /// credentials (`SO_PASSCRED`, `unix(7)`). Clients that have connected before, when it did not, are refused for want of
    /// them if they did not name theirs: sealane's always do.
    ///
    /// What a client may bring is less here by default: see [`max_peer_ring_capacity`](Self::max_peer_ring_capacity).
    ///
    /// ```
    /// use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    /// use sealane::Channel;
    ///
    /// # let name = format!("sealane-doc-{}", std::process::id());
    /// // What a service manager does.
    /// let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    /// bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    /// listen(&socket, 10).unwrap();
    ///
    /// let listener = Channel::builder().listen_on(socket)?;
    /// let client = std::thread::spawn(move || Channel::connect(format!("@{name}")));
    /// let channel = listener.accept()?;
    /// # client.join().unwrap()?;
    /// # Ok::<(), sealane::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`HandshakeError::NotListening`](crate::HandshakeError::NotListening) if it is no listening `AF_UNIX`
    /// `SOCK_SEQPACKET` socket; [`Error::Io`](crate::Error::Io).
    pub fn listen_on(&self, socket: OwnedFd) -> Result<Listener> {
        Listener::on(socket, self.settings()?)
    }

    /// Begins a handshake over a socket of one's own: a connected `SOCK_SEQPACKET` socket of which nobody else, above all
    /// not the peer, holds this end: who did could freeze this process in a read. It is close-on-exec from then on, and
    /// moved if its number is a standard stream's. Does not block.
    ///
    /// # Errors
    /// [`HandshakeError::NotSeqpacket`](crate::HandshakeError::NotSeqpacket), [`Error::Io`](crate::Error::Io).
    pub fn handshake(&self, socket: OwnedFd) -> Result<Handshake> {
        let settings = self.settings()?;
        Handshake::new(Socket::adopt(socket)?, settings, Role::Caller)
    }
}

/// Establishing one, with the default [`Builder`].
impl Channel {
    /// Settings, and all ways to establish a channel.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// See [`Builder::pair`].
    ///
    /// # Errors
    /// Those of [`Builder::pair`].
    pub fn pair() -> Result<(Self, Self)> {
        Self::builder().pair()
    }

    /// See [`Builder::connect`].
    ///
    /// # Errors
    /// Those of [`Builder::connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().connect(path)
    }

    /// See [`Builder::spawn`].
    ///
    /// # Errors
    /// Those of [`Builder::spawn`].
    pub fn spawn(command: impl BorrowMut<Command>) -> Result<(Self, Child)> {
        Self::builder().spawn(command)
    }

    /// See [`Builder::inherited`].
    ///
    /// # Errors
    /// Those of [`Builder::inherited`].
    pub fn inherited() -> Result<Self> {
        Self::builder().inherited()
    }
}

impl Listener {
    /// Listens with the default settings, see [`Builder::listen`].
    ///
    /// # Errors
    /// Those of [`Builder::listen`].
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        Builder::default().listen(path)
    }
}
