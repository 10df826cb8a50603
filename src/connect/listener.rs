//! [`Listener`], and connecting to one.
//!
//! A listener takes over the path of a listener that was killed, and of no other: see [`bind_or_take_over`].

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
    connect::{Handshake, Role, Settings},
    error::{Error, HandshakeError, Result},
    socket::seqpacket::{Socket, other_kind, take},
    sys::{descriptor::above_stdio, owner::Owner},
    wait::{Deadline, sleep},
};

/// Bytes of the longest name of a socket: a path, or an abstract name behind its `@` (`unix(7)`).
const MAX_NAME: usize = 107;
/// Pause between two attempts to lock a directory, which the kernel does not announce.
const PAUSE: Duration = Duration::from_millis(5);
/// Number of clients that may wait to be accepted. The kernel reduces it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A socket at a path or an abstract name, which accepts clients.
///
/// Its descriptor is readable when [`try_accept`](Self::try_accept) has a client. An event loop then drives the
/// [`Handshake`]s of all clients side by side, so that a silent client delays no other.
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
    /// The file to remove on drop. The first field, so that it is removed while the socket still listens: once the socket is
    /// closed another listener may take the path over, and would lose its file.
    file: Option<SocketFile>,
    socket: OwnedFd,
    settings: Settings,
}

/// A socket's file. A drop by its owner removes it, if it is still the same file.
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
        // The file inherits its mode from the socket, so that other users cannot connect at any moment.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(Error::io("fchmod"))?;
        // This comes before any client can connect, so that no packet lacks credentials.
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

    /// Listens on a socket that another program bound.
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

    /// Waits for a client, without limit, and for its handshake, until the handshake's deadline.
    ///
    /// A silent client delays the others for the handshake timeout. The application cannot refuse a client before that is given
    /// a ring, which the client may keep for as long as it lives. A server for strangers therefore uses
    /// [`try_accept`](Self::try_accept), and looks at the [credentials](Handshake::peer_credentials) of each client.
    ///
    /// Pause only after a shortage of the server's own ([`Error::Io`]). A server that pauses after a client's fault too can be
    /// kept from its honest clients by bad ones.
    ///
    /// ```no_run
    /// use sealane::{Error, Listener};
    ///
    /// let listener = Listener::bind("/run/service")?;
    /// loop {
    ///     match listener.accept() {
    ///         Ok(channel) => drop(std::thread::spawn(move || drop(channel))),
    ///         // The next attempt would fail at once, for instance at the limit of open files.
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
    /// [`Error::Handshake`], [`Error::Timeout`] and [`Error::FdsLost`] are about this client: the next call takes the next
    /// client. [`Error::Io`] is about this process.
    pub fn accept(&self) -> Result<Channel> {
        self.accept_until(Deadline::Never)
    }

    /// Waits for a client for at most `timeout`, and then for its handshake, until the handshake's deadline.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept), and [`Error::Timeout`] if no client came in time.
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

    /// Takes a client that has connected, if there is one, and begins its handshake. Never blocks.
    ///
    /// The client may not have sent anything yet. To decide by its [credentials](Handshake::peer_credentials), call
    /// [`Handshake::advance`] until they are known, and wait for the handshake's descriptor in between, until its
    /// [deadline](Handshake::deadline). Then refuse the client, or call `advance` again, which gives it a ring.
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
    /// // A server with many clients waits for all handshakes at once, each until its deadline.
    /// let credentials = loop {
    ///     assert!(!handshake.advance()?, "the client gets nothing before its credentials are known");
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
    /// [`Error::Io`], for instance at this process's limit of open files. The client stays in the backlog then.
    pub fn try_accept(&self) -> Result<Option<Handshake>> {
        let begin = |socket| Handshake::new(socket, self.settings, Role::Listener);
        self.try_accept_socket()?.map(begin).transpose()
    }

    /// Takes a client that has connected, and nothing else.
    pub(crate) fn try_accept_socket(&self) -> Result<Option<Socket>> {
        if let Some(file) = &self.file {
            file.owner.claim();
        }
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(client) => return Socket::from_fd(client).map(Some),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(Error::io("accept")(error)),
            }
        }
    }

    /// The path that a drop removes; `None` for an abstract name, and for a socket of the application
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

/// Makes the kernel attach credentials to the packets of clients that connect from now on (`SO_PASSCRED`, `unix(7)`).
/// Accepted sockets inherit the option.
fn pass_credentials(listener: &OwnedFd) -> Result<()> {
    sockopt::set_socket_passcred(listener, true).map_err(Error::io("setsockopt(SO_PASSCRED)"))
}

/// The address of a name. `@name` is an abstract name; a file of that name is `./@name`. Errors name the `operation`.
fn address(operation: &'static str, path: &Path) -> Result<SocketAddrUnix> {
    let (name, is_abstract) = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => (name, true),
        name => (name, false),
    };
    let refuse =
        |why: String| Error::io_at(operation, path)(io::Error::new(io::ErrorKind::InvalidInput, why));
    if name.is_empty() {
        // The kernel would take this for an abstract name of no bytes, which all programs share, or for a request for any
        // name.
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

/// Binds `socket` to a path, after removing the file of a dead socket there.
///
/// Returns the lock of the path's directory, if that was needed. The caller holds it until the socket listens.
///
/// A file is removed only if it is a socket of this user without a listener. A living listener's file could look so in three
/// cases, each of which has a remedy:
/// - The file is replaced while we look at it. All processes that take over a path hold a lock of its directory, and
///   listeners remove their own files before they close.
/// - The file is so new that the kernel does not find its socket: `bind(2)` makes the file first, and holds the directory
///   until it has finished (`unix_bind_bsd`, `net/unix/af_unix.c`). We look at the file, then call `bind` ourselves, which
///   waits for that, and only then connect.
/// - The socket is bound, and does not listen yet. The connecting socket is of another type, which the kernel refuses
///   (`EPROTOTYPE`) before it looks for a listener. Such a connect never blocks, and the listener does not notice it.
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
                    // The file is gone by now.
                    Err(Errno::NOENT) => {}
                    _ => return Err(in_use("another process uses the socket there".to_owned())),
                }
            }
            // The file did not exist when we looked, and did when we called `bind`.
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

/// The lock of a directory (`flock(2)`). A process holds it while it takes over a socket there.
#[derive(Debug)]
struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// Takes the lock of the directory of `path`; waits until the deadline.
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

/// Unlocks explicitly, because a child that was forked meanwhile shares the lock, and keeps it when this copy is closed.
impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Connects a socket to a listener. Waits for a place in its backlog until `deadline`; does not wait without one.
pub(crate) fn connect(path: &Path, deadline: Option<Deadline>) -> Result<Socket> {
    let address = address("connect", path)?;
    let flags = if deadline.is_none() { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let socket = new_socket(SocketType::SEQPACKET, flags)?;
    let limit = |time| {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, time)
            .map_err(Error::io("setsockopt(SO_SNDTIMEO)"))
    };
    loop {
        if let Some(deadline) = deadline {
            // `poll(2)` does not report room in a backlog, so the socket's own timeout bounds the wait. Zero would mean no
            // limit. It counts from each call anew, so that after a signal (`EINTR`) the rest is set.
            limit(deadline.left().map(|left| left.max(Duration::from_micros(1))))?;
        }
        match connect_socket(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) if deadline.is_some_and(Deadline::passed) => return Err(Error::Timeout),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if deadline.is_some() => return Err(Error::Timeout),
            Err(Errno::AGAIN) => return Err(Error::Full),
            Err(error) => return Err(Error::io_at("connect", path)(error)),
        }
    }
    if deadline.is_some() {
        limit(None)?;
    }
    Socket::from_fd(socket)
}
