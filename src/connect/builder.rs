//! [`Builder`]: the settings of channels, and all ways to establish one.

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
    connect::{Handshake, Listener, Prepared, Role, Settings, child, listener, settings::random},
    error::{self, Result},
    memory::region::OwnRegion,
    protocol::{Geometry, Part, SCM_MAX_FD, Start},
    socket::seqpacket::{MAX_PACKET_BODY, Socket},
    wait::Wait,
};

/// The settings of channels. The methods that establish one borrow the builder, so that it can be used again, for instance
/// to restart a crashed peer.
///
/// Each side has its own settings. A side's limits bind what it *receives*. The handshake carries them to the other side,
/// which then refuses longer messages before it sends anything.
///
/// A channel takes the memory that its settings say: the ring of this side, some 20 bytes for each request without a reply
/// ([`max_requests`](Self::max_requests)), the messages that the application has not dropped, and 4 MiB of messages that came
/// while a reply was awaited, with one more.
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
#[must_use = "a builder does nothing until one of its methods establishes a channel"]
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
                max_fds: None,
                max_requests: 1024,
                timeout: Duration::from_secs(5),
                wait: Wait::default(),
                prefault: true,
                huge_pages: false,
                peer_pidfd: false,
                origin: random(),
                slow: None,
                start: Start::Next,
                max_subscribers: 16,
                part: Part::Channel,
            },
        }
    }
}

impl Builder {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Bytes of the ring that this side sends through; rounded up to a page. One payload can be at most half of the ring less
    /// 1,088 bytes ([`Limits::max_payload`](crate::Limits::max_payload)). 0 makes a side that sends control messages only.
    /// Default: 4 MiB.
    ///
    /// The memory is allocated at once and counts as this process's.
    ///
    /// A record takes 64 bytes and its payload, and a loan reserves 1,024 more for control bytes, which a payload of 64 KiB or
    /// more keeps. None goes round the ring's end: where it does not fit, the rest of the ring is left out.
    /// [`ring_for`](Self::ring_for) computes how large a ring should be.
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|settings| settings.ring_capacity = bytes)
    }

    /// The bytes of a ring in which the sender of payloads of `payload` bytes is never stuck while the receiver keeps the last
    /// `kept` of them: (`kept` + 2) × (`payload` + 1,088), each rounded up to 64 bytes, and all to a page.
    ///
    /// A receiver that drops each payload before it receives the next keeps none while it waits, so that 0 is enough for
    /// both to go on. With 1 there is room for three: one that is read, the next that is there, and one that is written.
    ///
    /// Control bytes that go with a payload are kept with it. Where they are more than 1,024, they count as payload: they
    /// ride in the ring whenever there is room, and that room is not free again before the payload is.
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

    /// Bytes of the largest ring of the other side that is accepted; rounded up as [`ring_capacity`](Self::ring_capacity) is,
    /// so that the same number at both ends fits. Default: 64 MiB, and 8 MiB for the clients of a [`Listener`], because
    /// looking at a stranger's ring takes this process's time.
    ///
    /// A larger ring is refused at both ends with [`Reason::RingTooLarge`](crate::Reason::RingTooLarge).
    pub fn max_peer_ring_capacity(self, bytes: usize) -> Self {
        let rounded = Geometry::new(bytes, page_size()).map_or(bytes, |geometry| geometry.capacity);
        self.with(|settings| settings.max_peer_ring = Some(rounded))
    }

    /// Most control bytes of a message that this side receives. Default: 64 KiB; at most 212,928, which is what a packet can
    /// hold. With more, establishing fails ([`Error::ControlTooLarge`](crate::Error::ControlTooLarge)).
    ///
    /// A packet must also fit into the sender's socket buffer, which holds 212,928 bytes unless the system's default was
    /// lowered (`net.core.wmem_default`, `socket(7)`). The resulting limit is in the peer's [`Limits`](crate::Limits).
    ///
    /// Each thread that receives keeps a buffer as long as its longest packet so far.
    pub fn max_control(self, bytes: usize) -> Self {
        self.with(|settings| settings.max_control = bytes)
    }

    /// Most descriptors with a message that this side receives. Default: 64, and 0 for publishers and subscribers. Numbers above
    /// the kernel's own limit of 253 (`SCM_MAX_FD`, `unix(7)`) mean 253.
    pub fn max_fds(self, count: usize) -> Self {
        let count = u32::try_from(count.min(SCM_MAX_FD)).unwrap_or(u32::MAX);
        self.with(|settings| settings.max_fds = Some(count))
    }

    /// Most requests that may be without a reply at once, in either direction. Default: 1,024; 0 allows none.
    ///
    /// The other side learns the limit, and refuses more before it sends anything
    /// ([`Error::TooManyRequests`](crate::Error::TooManyRequests)). This side's own requests are limited by the lower of both
    /// sides' numbers.
    ///
    /// A request counts until its reply is received, even if it is cancelled meanwhile. So answer every request, if only with an
    /// empty reply: a request without any counts as long as the channel lives. Each takes some 20 bytes at either side, and
    /// one call may have to drop that many late replies.
    pub fn max_requests(self, count: usize) -> Self {
        self.with(|settings| settings.max_requests = u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Longest duration of a whole handshake, from connecting to the other side's last packet. Allocating this side's ring and
    /// looking at the other side's are parts of it. Default: 5 s.
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = timeout)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// The way in which blocking calls wait. Default: [`Wait::Adaptive`] for at most 50 µs.
    pub fn wait(self, wait: Wait) -> Self {
        self.with(|settings| settings.wait = wait)
    }

    /// True fills the page tables of both regions when the channel is established. Default: true. Otherwise the first access
    /// to each page costs a fault. The memory is allocated at once in any case.
    pub fn prefault(self, prefault: bool) -> Self {
        self.with(|settings| settings.prefault = prefault)
    }

    /// True makes this side's region of 2 MiB pages (`MFD_HUGETLB`, `memfd_create(2)`). Default: false. Establishing fails if
    /// not enough pages are reserved (`vm.nr_hugepages`); there is no silent fallback.
    ///
    /// Without it a region has transparent huge pages where the system gives them to shared memory
    /// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`: `advise`, `within_size` or `always`; most have `never`).
    pub fn huge_pages(self, huge_pages: bool) -> Self {
        self.with(|settings| settings.huge_pages = huge_pages)
    }

    /// True asks the kernel for a descriptor of the peer's process: [`Peer::pidfd`](crate::Peer::pidfd). Default: false. Each
    /// channel then takes one descriptor more.
    ///
    /// A channel ends when the last copy of the peer's socket is closed. A shell that started the peer, or a child that it has
    /// forked, may hold a copy after the peer's death. With this setting, blocking calls end with
    /// [`Error::Disconnected`](crate::Error::Disconnected) all the same, when a signal has killed the process that sent
    /// `Hello` and everything that it sent has been received.
    ///
    /// These deaths stay unseen while there is a copy: of a process that exits by itself, as a daemon's first process does; of
    /// one whose parent has not waited for it yet, unless this process is the parent; of one in a pid namespace that this
    /// process does not see; and before Linux 6.15 of all but this process's children.
    ///
    /// The calls of `sealane::tokio`, the `try_` forms, and `recv_timeout` with zero do not look at the process. Watch
    /// [`Peer::pidfd`](crate::Peer::pidfd) there.
    pub fn peer_pidfd(self, peer_pidfd: bool) -> Self {
        self.with(|settings| settings.peer_pidfd = peer_pidfd)
    }

    /// Establishes a channel with both ends in this process: for threads, and for tests.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Handshake`](crate::Error::Handshake) if the settings do not accept
    /// themselves (a ring larger than the peer's limit); [`Error::FdsInFlight`](crate::Error::FdsInFlight) if too many
    /// descriptors of this user are in flight: try again after some milliseconds.
    pub fn pair(&self) -> Result<(Channel, Channel)> {
        let (a, b) = Socket::pair()?;
        let (mut a, mut b) = (self.handshake(a)?, self.handshake(b)?);
        // Each call reads a packet or looks at a piece of the other's region; a refusal ends the loop with an error.
        while !(a.advance()? & b.advance()?) {}
        Ok((a.finish()?, b.finish()?))
    }

    /// The settings, after a check.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let (len, max) = (self.settings.max_control, MAX_PACKET_BODY);
        if len > max {
            return Err(error::Error::ControlTooLarge { len, max });
        }
        Ok(self.settings)
    }

    /// Connects to a [`Listener`]; blocks for the handshake timeout at most. `@name` is an abstract name (`unix(7)`).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if nobody listens, or with the kind `InvalidInput` for an invalid name;
    /// [`Error::Timeout`](crate::Error::Timeout), [`Error::Handshake`](crate::Error::Handshake).
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<Channel> {
        Handshake::connect(path.as_ref(), self.settings()?)?.finish()
    }

    /// Does the same as [`connect`](Self::connect), without blocking.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error::Full) if too many clients wait for the listener. The kernel does not announce the end of
    /// this state: try again after some milliseconds. [`Error::Io`](crate::Error::Io) if nobody listens.
    pub fn try_connect(&self, path: impl AsRef<Path>) -> Result<Handshake> {
        self.begin(|| listener::connect(path.as_ref(), None))
    }

    /// Starts a child process with a channel to it, which the child takes by [`inherited`](Self::inherited). A command that is
    /// lent is unchanged afterwards, and can start other children, with a channel or without.
    ///
    /// ```standalone_crate
    /// use sealane::Channel;
    /// use std::{env, process::Command, time::Duration};
    ///
    /// fn main() -> sealane::Result<()> {
    ///     // This program is both parent and child. Two programs have one part each.
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
    /// The call blocks for the handshake timeout at most, with two exceptions:
    /// - `Command::spawn` blocks until the child has executed its program (`execve(2)`), without a limit where that is on a
    ///   file system that does not answer.
    /// - A child whose handshake fails is ended. Both sides know the reason by then: the child has until the deadline, but at
    ///   most a second, to report it and to end by itself. Then it is killed and reaped, which may take another second. A
    ///   child that the kernel has not ended by then (it waits for a device, or frees much memory: closing the last copy of
    ///   1 GiB takes some 115 ms) ends later, and stays a zombie.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started, [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::Handshake`](crate::Error::Handshake), with
    /// [`HandshakeError::ChildEnded`](crate::HandshakeError::ChildEnded) for a child that has ended, for instance because its
    /// program does not take a channel.
    pub fn spawn(&self, command: impl BorrowMut<Command>) -> Result<(Channel, Child)> {
        let (handshake, mut child) = self.try_spawn(command)?;
        let deadline = handshake.deadline();
        match handshake.finish() {
            Ok(channel) => Ok((channel, child)),
            Err(error) => Err(child::kill_and_reap(&mut child, deadline, error)),
        }
    }

    /// Does the same as [`spawn`](Self::spawn), without waiting for the child's handshake. The caller kills and reaps the
    /// child.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started.
    pub fn try_spawn(&self, mut command: impl BorrowMut<Command>) -> Result<(Handshake, Child)> {
        let prepared = self.prepare()?;
        let child = child::spawn(command.borrow_mut(), &prepared)?;
        Ok((prepared.started(), child))
    }

    /// Prepares a channel for a child that is started in another way than by [`spawn`](Self::spawn). Does not block. The
    /// handshake's time begins here.
    ///
    /// The ring is not allocated yet: the [`Handshake`] does that when it first advances, while the child starts. So a shortage of
    /// memory is an error of the handshake, when the child's program may already run.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::RingTooLarge`](crate::Error::RingTooLarge): also for a ring that is beyond the
    /// machine's memory or the limit of this process (`RLIMIT_FSIZE`, `getrlimit(2)`).
    pub fn prepare(&self) -> Result<Prepared> {
        let settings = self.settings()?;
        OwnRegion::check(settings.ring_capacity, settings.huge_pages)?;
        let (ours, childs) = Socket::pair()?;
        Prepared::new(Handshake::prepared(Socket::from_fd(ours)?, settings, Role::Caller)?, childs)
    }

    /// Establishes the channel to the parent, in a child that was started by [`spawn`](Self::spawn). Blocks for the handshake
    /// timeout at most. Works once in a process; a grandchild, which inherits the variable but not the descriptor, gets an
    /// error.
    ///
    /// The descriptor that the parent left stays open under its number, because another part of this process may own it. It
    /// becomes close-on-exec. The channel has a descriptor of its own, and ends for both sides when it is dropped
    /// (`shutdown(2)`), or when this process ends.
    ///
    /// # Errors
    /// [`Error::Handshake`](crate::Error::Handshake), [`Error::Timeout`](crate::Error::Timeout).
    pub fn inherited(&self) -> Result<Channel> {
        self.begin(child::inherited)?.finish()
    }

    /// Establishes the channel that the parent [prepared](Self::prepare), in a child that was started in another way.
    /// Everything else is as in [`inherited`](Self::inherited).
    ///
    /// `name` is the text of the parent's [`Prepared`]. Where a launcher gave the descriptor another number, `name` is that
    /// number. The standard streams' numbers, 0 to 2, are refused.
    ///
    /// # Errors
    /// Those of [`inherited`](Self::inherited).
    pub fn inherited_as(&self, name: &str) -> Result<Channel> {
        self.begin(|| child::inherited_as(name))?.finish()
    }

    /// Begins a handshake as the caller. Wrong settings are found before the socket is made or taken.
    pub(crate) fn begin(&self, socket: impl FnOnce() -> Result<Socket>) -> Result<Handshake> {
        let settings = self.settings()?;
        Handshake::new(socket()?, settings, Role::Caller)
    }

    /// Listens for clients at a path, or at an abstract name (`@name`, `unix(7)`), to which any process of this network
    /// namespace can connect. A path gets mode 0600, and is removed when the listener is dropped.
    ///
    /// The listener takes over the path of a listener that was killed: a socket file of this user at which nobody
    /// listens. Taking over needs a lock of the directory (`flock(2)`), for which the call waits for the handshake
    /// timeout at most. A helper that the killed process forked may have a copy of its listener; then the path is in
    /// use.
    ///
    /// Clients may have smaller rings by default: see [`max_peer_ring_capacity`](Self::max_peer_ring_capacity).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), with the kind `AddrInUse` if a process listens there, if the file is no socket or
    /// belongs to another user, or if the directory cannot be locked; with the kind `InvalidInput` for a name that is empty, a
    /// lone `@`, longer than 107 bytes, or has a zero byte.
    pub fn listen(&self, path: impl AsRef<Path>) -> Result<Listener> {
        Listener::new(path.as_ref(), self.settings()?)
    }

    /// Listens on a socket that another program bound, for instance a service manager that starts this program when a client
    /// connects (socket activation). A drop of the listener removes nothing.
    ///
    /// The socket becomes close-on-exec and non-blocking (`O_NONBLOCK`, which all processes that share it see), and asks for
    /// credentials (`SO_PASSCRED`, `unix(7)`). Clients that connected before this are refused unless they name their
    /// credentials, as sealane's always do.
    ///
    /// Clients may have smaller rings by default: see [`max_peer_ring_capacity`](Self::max_peer_ring_capacity).
    ///
    /// ```
    /// use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    /// use sealane::Channel;
    ///
    /// # let name = format!("sealane-doc-{}", std::process::id());
    /// // A service manager does this.
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

    /// Begins a handshake over a connected `SOCK_SEQPACKET` socket of the application. Does not block. The socket becomes
    /// close-on-exec, and is moved if its number is a standard stream's.
    ///
    /// No other process may hold this end, above all not the peer: a process that reads here can freeze this one in a read.
    ///
    /// # Errors
    /// [`HandshakeError::NotSeqpacket`](crate::HandshakeError::NotSeqpacket), [`Error::Io`](crate::Error::Io).
    pub fn handshake(&self, socket: OwnedFd) -> Result<Handshake> {
        self.begin(|| Socket::from_fd(socket))
    }
}

/// The ways to establish a channel with the default [`Builder`].
impl Channel {
    /// A [`Builder`] with the default settings.
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
