//! [`Listener`] and connecting: sockets with a name.
//!
//! A listener takes over the path of one that was killed, and no other: see [`bind_or_take_over`].

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::PollFlags,
    fs::{CWD, FlockOperation, Mode, OFlags, fchmod, flock, openat},
    io::{Errno, ioctl_fionbio},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect as connect_socket,
        listen, socket_with, sockopt,
    },
    process::geteuid,
};

use crate::{
    channel::Channel,
    connect::{
        handshake::Handshake,
        settings::{Role, Settings},
    },
    error::{Error, HandshakeError, Result},
    socket::seqpacket::{Socket, other_kind, take},
    sys::{descriptor::above_stdio, owner::Owner},
    wait::{Deadline, sleep},
};

/// Longest name of a socket, in bytes: a path, or what stands behind the `@` of an abstract name (`unix(7)`).
const MAX_NAME: usize = 107;
/// Pause between two attempts at what the kernel does not announce.
const PAUSE: Duration = Duration::from_millis(5);
/// Clients that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Accepts clients at a path or an abstract name.
///
/// In an event loop, its descriptor is readable when [`try_accept`](Self::try_accept) has something; the [`Handshake`]s
/// that come of it are then driven one beside the other, so that a silent client holds up nobody.
///
/// ```
/// use sealane::{Channel, Listener};
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("service");
/// let listener = Listener::bind(&path)?;
/// let client = std::thread::spawn({
///     let path = path.clone();
///     move || Channel::connect(path)?.recv()
/// });
/// let mut channel = listener.accept()?;
/// channel.send(b"welcome")?;
/// assert_eq!(client.join().unwrap()?.control(), b"welcome");
/// drop(listener);
/// assert!(!path.exists());
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    /// The file to remove on drop. It stands before the socket, to be removed while that still listens: a file whose
    /// socket is closed may be taken over by another listener, which would then lose it.
    file: Option<SocketFile>,
    socket: OwnedFd,
    settings: Settings,
}

/// A socket's name in the file system; removed on drop by its owner, if it is still the same file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    owner: Owner,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owner.is_here()
            && identity(&self.path) == Some(self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the socket {} could not be removed: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Listener {
    pub(crate) fn new(path: &Path, settings: Settings) -> Result<Self> {
        let address = address("bind", path)?;
        let socket = new_socket(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
        // The file gets its mode from the socket's: there is no moment at which others could connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(Error::io("fchmod"))?;
        // Before anybody can connect, so that no packet comes without credentials.
        pass_credentials(&socket)?;
        if address.path().is_none() {
            bind(&socket, &address).map_err(Error::io_at("bind", path))?;
            listen(&socket, BACKLOG).map_err(Error::io_at("listen", path))?;
            return Ok(Self { file: None, socket, settings });
        }
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let lock = bind_or_take_over(&socket, &address, &path, Deadline::after(settings.timeout))?;
        let file =
            identity(&path).map(|identity| SocketFile { path: path.clone(), identity, owner: Owner::here() });
        listen(&socket, BACKLOG).map_err(Error::io_at("listen", &path))?;
        drop(lock);
        Ok(Self { file, socket, settings })
    }

    /// Accepts clients on a socket that somebody else made.
    pub(crate) fn on(socket: OwnedFd, settings: Settings) -> Result<Self> {
        let refuse = |found| Err(HandshakeError::NotListening { found }.into());
        if let Some(found) = other_kind(&socket)? {
            return refuse(found);
        }
        if sockopt::socket_acceptconn(&socket) != Ok(true) {
            return refuse("a socket that does not listen");
        }
        let socket = take(socket)?;
        pass_credentials(&socket)?;
        ioctl_fionbio(&socket, true).map_err(Error::io("ioctl(FIONBIO)"))?;
        Ok(Self { file: None, socket, settings })
    }

    /// Waits for a client, without limit, and for its handshake, until that one's deadline.
    ///
    /// A client that says nothing holds up the others for the handshake timeout. The application has no turn to refuse the
    /// client before it is given a ring, which it can keep for as long as it lives. So a server for strangers uses
    /// [`try_accept`](Self::try_accept), and looks at the [credentials](Handshake::peer_credentials) of each client.
    ///
    /// A server pauses on a shortage of its own only ([`Error::Io`]). What a client did wrong costs that client's own turn:
    /// a server that pauses for it too is one that bad clients can keep from honest ones.
    ///
    /// ```no_run
    /// use sealane::{Error, Listener};
    ///
    /// let listener = Listener::bind("/run/service")?;
    /// loop {
    ///     match listener.accept() {
    ///         Ok(channel) => drop(std::thread::spawn(move || drop(channel))),
    ///         // At the limit of open files, for instance, the next attempt would fail at once, too.
    ///         Err(error @ Error::Io { .. }) => {
    ///             eprintln!("not accepted: {error}");
    ///             std::thread::sleep(std::time::Duration::from_millis(10));
    ///         }
    ///         Err(error) => eprintln!("a client was not accepted: {error}"),
    ///     }
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Handshake`], [`Error::Timeout`] and [`Error::FdsLost`] are about this client: the listener works as before,
    /// and the next call takes the next client. [`Error::Io`] is about this process.
    pub fn accept(&self) -> Result<Channel> {
        self.accept_until(Deadline::Never)
    }

    /// Waits for a client for at most `timeout`; then for its handshake, until that one's own deadline.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept); [`Error::Timeout`] also if no client came in time.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Channel> {
        self.accept_until(Deadline::after(timeout))
    }

    fn accept_until(&self, deadline: Deadline) -> Result<Channel> {
        loop {
            if let Some(handshake) = self.try_accept()? {
                return handshake.finish();
            }
            if deadline.passed() {
                return Err(Error::Timeout);
            }
            sleep([(self.socket.as_fd(), PollFlags::IN)], deadline, None)?;
        }
    }

    /// Takes a client that has connected, if there is one; never blocks. Its handshake is still to be done.
    ///
    /// The client need not have said anything yet. To decide by its [credentials](Handshake::peer_credentials), call
    /// [`Handshake::advance`] until they are there, and wait for the handshake's descriptor in between, until its
    /// [deadline](Handshake::deadline). Then refuse it, or call `advance` on, which gives the client its ring.
    ///
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use sealane::{Channel, Error, Listener};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("socket");
    /// let listener = Listener::bind(&path)?;
    /// # let client = std::thread::spawn(move || Channel::connect(path));
    /// # poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap();
    /// let mut handshake = listener.try_accept()?.expect("the listener is readable");
    /// // A server of many waits for all handshakes at once, each until its deadline.
    /// let credentials = loop {
    ///     assert!(!handshake.advance()?, "nothing is given before the credentials were seen");
    ///     if let Some(credentials) = handshake.peer_credentials() {
    ///         break credentials;
    ///     }
    ///     poll(&mut [PollFd::new(&handshake, PollFlags::IN)], None).unwrap();
    /// };
    /// if credentials.uid == rustix::process::getuid().as_raw() {
    ///     handshake.finish()?.send(b"welcome")?;
    /// } else {
    ///     handshake.refuse();
    /// }
    /// # client.join().unwrap()?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`], for instance at this process's limit of open files: then the client goes on waiting.
    pub fn try_accept(&self) -> Result<Option<Handshake>> {
        if let Some(file) = &self.file {
            file.owner.claim();
        }
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(client) => {
                    let socket = Socket::from_fd(client)?;
                    return Handshake::new(socket, self.settings, Role::Listener).map(Some);
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(Error::io("accept")(error)),
            }
        }
    }

    /// The path that will be removed on drop; `None` for an abstract name, and for a socket that was given
    /// ([`Builder::listen_on`](crate::Builder::listen_on)).
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn new_socket(kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | flags, None);
    above_stdio(socket.map_err(Error::io("socket"))?)
}

/// The kernel adds the credentials of clients that connect from now on (`SO_PASSCRED`, `unix(7)`): accepted sockets inherit
/// this.
fn pass_credentials(listener: &OwnedFd) -> Result<()> {
    sockopt::set_socket_passcred(listener, true).map_err(Error::io("setsockopt(SO_PASSCRED)"))
}

/// The address of a name. `@name` is an abstract one; a file of that name is `./@name`. Errors name the `operation`.
fn address(operation: &'static str, path: &Path) -> Result<SocketAddrUnix> {
    let (name, is_abstract) = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => (name, true),
        name => (name, false),
    };
    let refuse =
        |why: String| Error::io_at(operation, path)(io::Error::new(io::ErrorKind::InvalidInput, why));
    if name.is_empty() {
        // To the kernel this is an abstract name of no bytes, which everybody would share, or a request for any name.
        return Err(refuse("a path, or @ and a name, expected; found no name".to_owned()));
    }
    if name.len() > MAX_NAME {
        let len = name.len();
        return Err(refuse(format!("a name of at most {MAX_NAME} bytes expected, one of {len} found")));
    }
    let address =
        if is_abstract { SocketAddrUnix::new_abstract_name(name) } else { SocketAddrUnix::new(path) };
    address.map_err(|_| refuse("a path without zero bytes expected".to_owned()))
}

/// Binds `socket` to a path. If a dead socket is there, its file is removed first.
/// Returns the lock of the path's directory, if that was needed; it is held until the socket listens.
///
/// A file is removed only if it is a socket of this user to which the kernel knows no listener. Three things could make a
/// living listener's file look so:
/// - It is replaced while it is looked at. So takers hold a lock of its directory, and listeners remove their own files
///   before they close.
/// - It is so new that its socket is not found yet: `bind(2)` makes the file first, and holds the directory until it has
///   finished (`unix_bind_bsd`, `net/unix/af_unix.c`). So a file is looked at, then waited for by a `bind` of our own, and
///   only then connected to.
/// - Its socket is bound, and does not listen yet. So the connecting socket is of another type, of which the kernel says
///   so (`EPROTOTYPE`) before it looks whether somebody listens; it also disturbs nobody, and never blocks.
fn bind_or_take_over(
    socket: &OwnedFd,
    address: &SocketAddrUnix,
    path: &Path,
    deadline: Deadline,
) -> Result<Option<DirectoryLock>> {
    let in_use = |why: String| Error::io_at("bind", path)(io::Error::new(io::ErrorKind::AddrInUse, why));
    let mut lock = None;
    loop {
        let found = fs::symlink_metadata(path);
        match bind(socket, address) {
            Ok(()) => return Ok(lock),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(Error::io_at("bind", path)(error)),
        }
        match found {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(in_use("a file that is no socket is there".to_owned()));
            }
            Ok(file) if file.uid() != geteuid().as_raw() => {
                let uid = file.uid();
                return Err(in_use(format!("a socket of another user (uid {uid}) is there")));
            }
            Ok(file) => {
                let probe = new_socket(SocketType::DGRAM, SocketFlags::NONBLOCK)?;
                match connect_socket(&probe, address) {
                    Err(Errno::CONNREFUSED) if lock.is_none() => {
                        lock = Some(DirectoryLock::of(path, deadline).map_err(|error| {
                            in_use(format!(
                                "nobody listens there, but its directory cannot be locked ({error}): remove the file"
                            ))
                        })?);
                    }
                    Err(Errno::CONNREFUSED) => remove_if_same(path, &file)?,
                    // It has gone in between.
                    Err(Errno::NOENT) => {}
                    _ => return Err(in_use("another process uses the socket there".to_owned())),
                }
            }
            // It has come in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io_at("lstat", path)(error)),
        }
        if deadline.passed() {
            return Err(in_use("the file there changes again and again".to_owned()));
        }
    }
}

/// Removes the file, unless another one has taken its place.
fn remove_if_same(path: &Path, file: &fs::Metadata) -> Result<()> {
    let signature = |file: &fs::Metadata| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec());
    if fs::symlink_metadata(path).is_ok_and(|found| signature(&found) == signature(file)) {
        log::info!("nobody listens at {}: it is taken over", path.display());
        fs::remove_file(path).map_err(Error::io_at("unlink", path))?;
    }
    Ok(())
}

/// The lock of a directory (`flock(2)`), which one process at a time holds that takes over a socket there.
#[derive(Debug)]
struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// Waits for it until the deadline.
    fn of(path: &Path, deadline: Deadline) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = openat(CWD, directory, flags, Mode::empty()).map_err(Error::io_at("open", directory))?;
        let lock = above_stdio(lock)?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(lock)),
                Err(Errno::WOULDBLOCK) if !deadline.passed() => drop(sleep([], deadline, Some(PAUSE))?),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io_at("flock", directory)(error)),
            }
        }
    }
}

/// A child that was forked meanwhile holds the same lock: closing it here is not enough.
impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// A socket that is connected to a listener. Waits for a place in its backlog until `patience`; without, not at all.
pub(crate) fn connect(path: &Path, patience: Option<Deadline>) -> Result<Socket> {
    let address = address("connect", path)?;
    let flags = if patience.is_none() { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let socket = new_socket(SocketType::SEQPACKET, flags)?;
    let limit = |time| {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, time)
            .map_err(Error::io("setsockopt(SO_SNDTIMEO)"))
    };
    loop {
        if let Some(deadline) = patience {
            // A full backlog has no readiness, but this bounds the wait; zero would mean for ever. It begins anew with
            // each call: after a signal (`EINTR`) it is what is left.
            limit(deadline.left().map(|left| left.max(Duration::from_micros(1))))?;
        }
        match connect_socket(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) if patience.is_some_and(Deadline::passed) => return Err(Error::Timeout),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if patience.is_some() => return Err(Error::Timeout),
            Err(Errno::AGAIN) => return Err(Error::Full),
            Err(error) => return Err(Error::io_at("connect", path)(error)),
        }
    }
    if patience.is_some() {
        limit(None)?;
    }
    Socket::from_fd(socket)
}
