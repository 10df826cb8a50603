//! [`Listener`] and connecting: sockets with a name.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::PollFlags,
    fs::{Mode, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect as connect_socket,
        listen, socket_with, sockopt,
    },
};

use crate::{
    channel::Channel,
    error::{Error, Result},
    handshake::{Handshake, Role, Settings},
    socket::{Socket, sleep},
    wait::Deadline,
};

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
    socket: OwnedFd,
    settings: Settings,
    /// What to remove on drop.
    file: Option<SocketFile>,
}

/// A socket's name in the file system; removed on drop, if it is still the same file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity)
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
        let address = address(path)?;
        let socket = new_socket(SocketFlags::NONBLOCK)?;
        // The file gets its mode from the socket's: there is no moment at which others could connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(Error::io("fchmod"))?;
        // Before anybody can connect, so that no packet comes without credentials.
        sockopt::set_socket_passcred(&socket, true).map_err(Error::io("setsockopt(SO_PASSCRED)"))?;
        bind(&socket, &address).map_err(Error::io_at("bind", path))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = match address.path() {
            Some(_) => identity(&path).map(|identity| SocketFile { path, identity }),
            None => None,
        };
        listen(&socket, BACKLOG).map_err(Error::io("listen"))?;
        Ok(Self { socket, settings, file })
    }

    /// Waits for a client, without limit, and for its handshake, until that one's deadline.
    ///
    /// An [`Error::Handshake`], [`Error::Timeout`] or [`Error::FdsLost`] is about this client; the listener goes on. A client
    /// that says nothing holds up the others for the handshake timeout. Nobody is asked whether the client may have a ring,
    /// which it can keep for as long as it lives. So a server for strangers uses [`try_accept`](Self::try_accept), and looks at
    /// [`Handshake::peer_credentials`].
    ///
    /// # Errors
    /// Those of [`try_accept`](Self::try_accept) and [`Handshake::finish`].
    pub fn accept(&self) -> Result<Channel> {
        loop {
            if let Some(handshake) = self.try_accept()? {
                return handshake.finish();
            }
            sleep([(self.socket.as_fd(), PollFlags::IN)], Deadline::Never, None)?;
        }
    }

    /// Takes a client that has connected, if there is one; never blocks. Its handshake is still to be done.
    ///
    /// # Errors
    /// [`Error::Io`], for instance at this process's limit of open files: then the client goes on waiting.
    pub fn try_accept(&self) -> Result<Option<Handshake>> {
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(client) => {
                    let socket = Socket::adopt(client)?;
                    return Handshake::new(socket, self.settings, Role::Listener).map(Some);
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(Error::io("accept")(error)),
            }
        }
    }

    /// The path that will be removed on drop; `None` for an abstract name.
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

fn new_socket(flags: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | flags, None)
        .map_err(Error::io("socket"))
}

/// `@name` is an abstract name; a file of that name is `./@name`.
fn address(path: &Path) -> Result<SocketAddrUnix> {
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(path),
    }
    .map_err(Error::io_at("making a socket address (at most 107 bytes) of", path))
}

/// A socket that is connected to a listener. Waits for a place in its backlog for at most `patience`; without, not at all.
pub(crate) fn connect(path: &Path, patience: Option<Duration>) -> Result<Socket> {
    let address = address(path)?;
    let socket = new_socket(if patience.is_none() { SocketFlags::NONBLOCK } else { SocketFlags::empty() })?;
    let limit = |time| {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, time)
            .map_err(Error::io("setsockopt(SO_SNDTIMEO)"))
    };
    if let Some(patience) = patience {
        // A full backlog has no readiness, but this bounds the wait; zero would mean for ever.
        limit(Some(patience.max(Duration::from_micros(1))))?;
    }
    let connected = loop {
        match connect_socket(&socket, &address) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    match connected {
        Ok(()) => {}
        Err(Errno::AGAIN) if patience.is_some() => return Err(Error::Timeout),
        Err(Errno::AGAIN) => return Err(Error::Full),
        Err(error) => return Err(Error::io_at("connect", path)(error)),
    }
    if patience.is_some() {
        limit(None)?;
    }
    Socket::adopt(socket)
}
