//! [`Prepared`]: a socket for a child process, and the ways in which the child gets it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::Command,
    sync::Arc,
};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::{connect::Handshake, error::Result, socket::seqpacket::Socket, sys::descriptor::pass_on};

/// The environment variable that names the child's descriptor and its cookie: `5:1234`.
pub(super) const ENV_VAR: &str = "SEALANE_FD";

/// A channel to a child that is started later, in any way: made by [`Builder::prepare`](crate::Builder::prepare).
///
/// It has two ends: a handshake for this process, and a descriptor for the child. Its text names the descriptor. In the
/// child, [`Builder::inherited_as`](crate::Builder::inherited_as) makes the channel of that text.
///
/// | the child is started by | the child gets its end by |
/// |---|---|
/// | a [`Command`] of yours | [`attach`](Self::attach), and [`Channel::inherited`](crate::Channel::inherited) there |
/// | a library, which executes a program | [`inheritable`](Self::inheritable), and the text as an argument |
/// | `posix_spawn(3)`, or a launcher that gives descriptors other numbers | [`AsFd`], and the new number as an argument |
/// | `fork(2)` alone (which needs `unsafe`; execute a program if you can) | the text; then the child drops its copy of this |
///
/// When the child runs, [`started`](Self::started) closes this process's copy of the child's end and gives the handshake.
/// There is no other way to the channel: with that copy open, the end of the child could not be noticed. A drop closes both
/// ends.
///
/// ```
/// use sealane::Channel;
/// use std::os::fd::{AsFd, AsRawFd};
/// use std::process::Command;
///
/// // A program that your own command starts, as in `Channel::spawn`.
/// let prepared = Channel::builder().prepare()?;
/// let mut command = Command::new("true");
/// prepared.attach(&mut command);
/// let mut child = command.spawn().unwrap();
/// let handshake = prepared.started();
/// assert!(handshake.finish().is_err(), "this program knows of no channel");
/// child.wait().unwrap();
///
/// // A launcher that gives the child's end another number. A thread plays the child here.
/// let prepared = Channel::builder().prepare()?;
/// let end = prepared.as_fd().try_clone_to_owned().unwrap();
/// let child = std::thread::spawn(move || {
///     let number = end.as_raw_fd().to_string();
///     Channel::builder().inherited_as(&number)?.recv()
/// });
/// let mut channel = prepared.started().finish()?;
/// channel.send(b"welcome")?;
/// assert_eq!(child.join().unwrap()?.control(), b"welcome");
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "both ends are closed when this is dropped"]
pub struct Prepared {
    handshake: Handshake,
    /// The child's end: close-on-exec except in the children of commands that it is attached to.
    end: Arc<OwnedFd>,
    cookie: u64,
}

impl Prepared {
    /// Joins a handshake and the other end of its socket.
    pub(crate) fn new(handshake: Handshake, end: OwnedFd) -> Result<Self> {
        let cookie = Socket::cookie(&end)?;
        Ok(Self { handshake, end: Arc::new(end), cookie })
    }

    /// Lets the child that `command` starts inherit its end, named in the variable `SEALANE_FD`, where
    /// [`Channel::inherited`](crate::Channel::inherited) looks for it. The command may start one child in this way.
    ///
    /// After [`started`](Self::started) the command hands on no descriptor. The variable stays in the command and names
    /// nothing; attaching another `Prepared` replaces it.
    pub fn attach(&self, command: &mut Command) {
        command.env(ENV_VAR, self.to_string());
        pass_on(command, Arc::downgrade(&self.end));
    }

    /// Makes the child's end inheritable, for programs that other code executes, until the guard is dropped.
    ///
    /// Every program that *any* thread of this process executes meanwhile inherits it. A launcher that can hand on a
    /// descriptor by itself (`posix_spawn_file_actions_adddup2(3)`) needs no guard.
    ///
    /// ```
    /// use sealane::Channel;
    /// use std::process::Command;
    ///
    /// let mut prepared = Channel::builder().prepare()?;
    /// let link = format!("/proc/self/fd/{}", prepared.to_string().split_once(':').unwrap().0);
    /// let inherits = || Command::new("readlink").arg(&link).output().unwrap().status.success();
    /// assert!(!inherits());
    /// let guard = prepared.inheritable();
    /// assert!(inherits());
    /// drop(guard);
    /// assert!(!inherits());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    pub fn inheritable(&mut self) -> Inheritable<'_> {
        set_flags(&self.end, FdFlags::empty());
        Inheritable { prepared: self }
    }

    /// Closes this process's copy of the child's end, and returns the handshake. Call it when the child runs.
    ///
    /// The first [`advance`](Handshake::advance), or [`finish`](Handshake::finish), allocates the ring. Call either at once, so
    /// that both processes allocate their rings at the same time.
    ///
    /// The handshake's [deadline](Handshake::deadline) began with [`Builder::prepare`](crate::Builder::prepare).
    pub fn started(self) -> Handshake {
        self.handshake
    }
}

/// The child's end, close-on-exec.
impl AsFd for Prepared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// The number of the child's end, and its cookie (`SO_COOKIE`, `socket(7)`): `5:1234`.
impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.end.as_raw_fd(), self.cookie)
    }
}

/// A guard: while it lives, programs that this process executes inherit the child's end of a [`Prepared`] channel. See
/// [`Prepared::inheritable`].
///
/// ```
/// let mut prepared = sealane::Channel::builder().prepare()?;
/// let name = prepared.to_string();
/// let inheritable = prepared.inheritable();
/// // A launcher starts the child, with `name` as an argument.
/// drop(inheritable);
/// let handshake = prepared.started();
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the descriptor is inheritable until this is dropped"]
pub struct Inheritable<'p> {
    prepared: &'p mut Prepared,
}

impl Drop for Inheritable<'_> {
    fn drop(&mut self) {
        set_flags(&self.prepared.end, FdFlags::CLOEXEC);
    }
}

fn set_flags(fd: &OwnedFd, flags: FdFlags) {
    // The call fails for an open descriptor only in a sandbox.
    if let Err(error) = fcntl_setfd(fd, flags) {
        log::warn!("fcntl(F_SETFD) of a child's end failed: {error}");
    }
}
