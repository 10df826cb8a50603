//! [`Builder`]: the settings of channels, and every way to establish one.

use std::{
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rustix::param::page_size;

use crate::{
    channel::Channel,
    error::Result,
    handshake::{Handshake, Role, Settings, random},
    layout::Geometry,
    listener::{self, Listener},
    process,
    socket::Socket,
    wait::Wait,
    wire::SCM_MAX_FD,
};

/// Settings for channels. The methods that establish one borrow the builder, so that it can be used again, for instance
/// to restart a crashed peer.
///
/// Each side has its own settings. Limits bind what a side *receives*; the handshake tells them to the other side, which
/// then refuses too much before anything is sent.
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

    /// Bytes of the ring that this side sends through; rounded up to a power of two and a page. One payload can be at most
    /// 64 bytes shorter. 0 makes a side that sends control messages only. Default: 4 MiB.
    ///
    /// The memory is allocated at once and counts as this process's.
    ///
    /// Payloads of 4 MiB and more do not go round the end of the ring: they begin at its start again, where the memory may
    /// still be in the cache, if that is free. So the ring may have room for one of them less at a time.
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|settings| settings.ring_capacity = bytes)
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

    /// Most control bytes of a message that this side receives; at most 4 GiB less one. Default: 64 KiB.
    ///
    /// What goes as a packet of its own must also fit into the sender's socket buffer, which holds 212,928 control bytes
    /// unless the system's default was made smaller (`net.core.wmem_default`, `socket(7)`). What came of it is in the peer's
    /// [`Limits`](crate::Limits).
    pub fn max_control(self, bytes: usize) -> Self {
        self.with(|settings| settings.max_control = u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Most descriptors with a message that this side receives: 253 is the kernel's own limit (`SCM_MAX_FD`, `unix(7)`),
    /// and taken for more. Default: 64.
    pub fn max_fds(self, count: usize) -> Self {
        self.with(|settings| settings.max_fds = u32::try_from(count.min(SCM_MAX_FD)).unwrap_or(u32::MAX))
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
    pub fn peer_pidfd(self, peer_pidfd: bool) -> Self {
        self.with(|settings| settings.peer_pidfd = peer_pidfd)
    }

    /// Both ends of a channel, in this process: for threads, and for tests.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), or [`Error::Handshake`](crate::Error::Handshake) if the settings do not accept
    /// themselves (a ring larger than the peer's limit).
    pub fn pair(&self) -> Result<(Channel, Channel)> {
        let (a, b) = Socket::pair()?;
        let (mut a, mut b) = (self.handshake(a)?, self.handshake(b)?);
        // Each reads what the other has said, or looks at a piece of the other's region; and a refusal ends it.
        while !(a.advance()? & b.advance()?) {}
        Ok((a.finish()?, b.finish()?))
    }

    /// Connects to a [`Listener`]; blocks for the handshake timeout at most. `@name` is an abstract name (`unix(7)`).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if nobody listens, [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::Handshake`](crate::Error::Handshake).
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<Channel> {
        let start = Instant::now();
        let socket = listener::connect(path.as_ref(), Some(self.settings.timeout))?;
        // One deadline covers both.
        let timeout = self.settings.timeout.saturating_sub(start.elapsed());
        Handshake::new(socket, Settings { timeout, ..self.settings }, Role::Caller)?.finish()
    }

    /// As [`connect`](Self::connect), without blocking.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error::Full) if too many clients wait for the listener: the kernel gives no sign when that
    /// is over, so try again after some milliseconds. [`Error::Io`](crate::Error::Io) if nobody listens.
    pub fn try_connect(&self, path: impl AsRef<Path>) -> Result<Handshake> {
        Handshake::new(listener::connect(path.as_ref(), None)?, self.settings, Role::Caller)
    }

    /// Starts a child process with a channel to it, which the child takes by [`inherited`](Self::inherited). Blocks for
    /// the handshake timeout at most. A child whose handshake fails is killed and reaped.
    ///
    /// The command is taken by value: used twice, it would hand the second child some other descriptor of ours.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started, [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::Handshake`](crate::Error::Handshake).
    pub fn spawn(&self, command: Command) -> Result<(Channel, Child)> {
        let (handshake, mut child) = self.try_spawn(command)?;
        match handshake.finish() {
            Ok(channel) => Ok((channel, child)),
            Err(error) => {
                process::end(&mut child);
                Err(error)
            }
        }
    }

    /// As [`spawn`](Self::spawn), without waiting for the child. Killing and reaping it is the caller's.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be started.
    pub fn try_spawn(&self, command: Command) -> Result<(Handshake, Child)> {
        let (ours, childs) = Socket::pair()?;
        let handshake = self.handshake(ours)?;
        let child = process::start(command, childs)?;
        Ok((handshake, child))
    }

    /// In a child that was started by [`spawn`](Self::spawn): the channel to its parent. Blocks for the handshake timeout
    /// at most. Works once in a process; a grandchild, which inherits the variable but not the descriptor, gets an error.
    ///
    /// # Errors
    /// [`Error::Handshake`](crate::Error::Handshake), [`Error::Timeout`](crate::Error::Timeout).
    pub fn inherited(&self) -> Result<Channel> {
        self.handshake(process::inherited()?)?.finish()
    }

    /// Listens for clients. The path gets mode 0600 and is removed when the listener is dropped; `@name` is an abstract
    /// name (`unix(7)`), which any process of this network namespace can connect to.
    ///
    /// What a client may bring is less here by default: see [`max_peer_ring_capacity`](Self::max_peer_ring_capacity).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), for instance if the path exists.
    pub fn listen(&self, path: impl AsRef<Path>) -> Result<Listener> {
        Listener::new(path.as_ref(), self.settings)
    }

    /// Begins a handshake over a socket of one's own: a connected `SOCK_SEQPACKET` socket of which nobody else, above all
    /// not the peer, holds this end: who did could freeze this process in a read. Does not block.
    ///
    /// # Errors
    /// [`HandshakeError::NotSeqpacket`](crate::HandshakeError::NotSeqpacket), [`Error::Io`](crate::Error::Io).
    pub fn handshake(&self, socket: OwnedFd) -> Result<Handshake> {
        let socket = Socket::adopt(socket)?;
        Handshake::new(socket, self.settings, Role::Caller)
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
    pub fn spawn(command: Command) -> Result<(Self, Child)> {
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
