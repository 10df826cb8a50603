//! Parent and child: handing a socket to a program that we start, and taking it there.
//!
//! There is one mechanism: [`Prepared`]. `Builder::spawn` is made of it.

use std::{
    collections::BTreeSet,
    env, fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::{Errno, FdFlags, fcntl_setfd},
    net::sockopt,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    connect::handshake::Handshake,
    error::{Error, HandshakeError, Result},
    socket::seqpacket::Socket,
    sys::cmsg::{above_stdio, close_on_exec, duplicate, is_above_stdio, pass_on},
    wait::{Deadline, sleep},
};

/// Names the child's descriptor and its cookie: `5:1234`.
const VARIABLE: &str = "SEALANE_FD";

/// How long a child whose handshake has failed may take to end by itself, and then to be killed.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Pause between two looks at a child that no descriptor can be had for.
const PAUSE: Duration = Duration::from_millis(5);

/// The sockets (by cookie) that this process has taken: each can be had once. Their originals stay open, so only this tells.
static TAKEN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// A channel to a child that is yet to be started, in whatever way: made by [`Builder::prepare`](crate::Builder::prepare).
///
/// It has two ends: a handshake for this process, and a descriptor for the child. Its text names the latter: given to
/// [`Builder::inherited_as`](crate::Builder::inherited_as) in the child, it becomes the channel there.
///
/// | the child is started by | it gets its end by |
/// |---|---|
/// | a [`Command`] of one's own | [`attach`](Self::attach), and [`Channel::inherited`](crate::Channel::inherited) there |
/// | a library, which executes a program | [`inheritable`](Self::inheritable), and the text as an argument |
/// | `posix_spawn(3)`, or a launcher that gives descriptors other numbers | [`AsFd`], and the new number as an argument |
/// | `fork(2)` alone (which needs `unsafe`; execute a program if you can) | the text; then the child drops its copy of this |
///
/// Once the child runs, [`started`](Self::started) closes this process's copy of the child's end. No channel comes of it
/// before: with that copy open, the end of the child could not be noticed. If a `Prepared` is dropped, both ends are closed.
///
/// ```
/// use sealane::Channel;
/// use std::os::fd::{AsFd, AsRawFd};
/// use std::process::Command;
///
/// // A program of one's own command: what `Channel::spawn` does.
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
    /// The child's end: close-on-exec, but in the children of commands that it is attached to.
    end: Arc<OwnedFd>,
    cookie: u64,
}

impl Prepared {
    /// Takes a handshake, and the other end of its socket.
    pub(crate) fn new(handshake: Handshake, end: OwnedFd) -> Result<Self> {
        let cookie = sockopt::socket_cookie(&end).map_err(Error::io("getsockopt(SO_COOKIE)"))?;
        Ok(Self { handshake, end: Arc::new(end), cookie })
    }

    /// Lets the child that `command` starts inherit its end, and names it in the variable `SEALANE_FD`, where
    /// [`Channel::inherited`](crate::Channel::inherited) looks for it. For one child.
    ///
    /// After [`started`](Self::started) the command hands on no descriptor. The variable stays in it, and names nothing; to
    /// attach another `Prepared` replaces it.
    pub fn attach(&self, command: &mut Command) {
        command.env(VARIABLE, self.to_string());
        pass_on(command, Arc::downgrade(&self.end));
    }

    /// Makes the child's end inheritable, for programs that other code executes, until the guard is dropped.
    ///
    /// Every program inherits it that *any* thread of this process executes meanwhile. A launcher that can hand on a
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

    /// Closes this process's copy of the child's end: to be called when the child runs.
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

/// While this lives, programs that this process executes inherit the child's end of a [`Prepared`] channel: see
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
    // Only a sandbox refuses this for an open descriptor.
    if let Err(error) = fcntl_setfd(fd, flags) {
        log::warn!("fcntl(F_SETFD) of a child's end failed: {error}");
    }
}

/// Starts `command` with its end of `prepared`, and leaves nothing of it in the command.
pub(crate) fn start(command: &mut Command, prepared: &Prepared) -> Result<Child> {
    prepared.attach(command);
    let child = command.spawn();
    detach(command, child)
}

/// Completes the start of a child with an [attached](Prepared::attach) channel: removes the variable from the command.
pub(crate) fn detach<C>(command: &mut Command, child: io::Result<C>) -> Result<C> {
    let child = child.map_err(Error::io_at("starting the child process", command.get_program().as_ref()));
    command.env_remove(VARIABLE);
    child
}

/// A child process of the standard library, or of tokio.
pub(crate) trait Process {
    /// `None` once it has been reaped.
    fn pid(&self) -> Option<Pid>;
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>>;
    fn kill(&mut self) -> io::Result<()>;
}

impl Process for Child {
    fn pid(&self) -> Option<Pid> {
        Some(Pid::from_child(self))
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.try_wait()
    }

    fn kill(&mut self) -> io::Result<()> {
        self.kill()
    }
}

/// Ends a child that gets no channel, and returns why it gets none.
///
/// The child may report the reason, and end by itself, before the handshake's deadline and within [`GRACE`]; its exit
/// status is then known too. Else it is killed.
pub(crate) fn end(child: &mut impl Process, deadline: Instant, error: Error) -> Error {
    match wait_until(child, deadline.min(after_grace())) {
        Ok(Some(status)) => with_status(error, status),
        Ok(None) => {
            kill(child, deadline);
            error
        }
        // It has ended, and somebody else has reaped it: its number may be another process's.
        Err(_) => error,
    }
}

/// Kills and reaps a child that is of no use. Waits for what is left of the time, and for [`GRACE`] at least.
pub(crate) fn kill(child: &mut impl Process, deadline: Instant) {
    let pid = child.pid();
    let ended = child.kill().and_then(|()| wait_until(child, deadline.max(after_grace())));
    match ended {
        Ok(Some(_)) => {}
        Ok(None) => log::warn!("the child process {pid:?} was killed and has not ended yet"),
        Err(error) => log::warn!("the child process {pid:?} could not be ended: {error}"),
    }
}

/// A child that went away in the middle of its handshake, and has ended, is more than a closed socket.
pub(crate) fn with_status(error: Error, status: ExitStatus) -> Error {
    match error {
        Error::Handshake(HandshakeError::Closed { awaited }) => {
            HandshakeError::ChildEnded { awaited, status }.into()
        }
        error => error,
    }
}

pub(crate) fn after_grace() -> Instant {
    let now = Instant::now();
    now.checked_add(GRACE).unwrap_or(now)
}

/// Waits until the child has ended, and reaps it. `None` if it has not by the deadline.
fn wait_until(child: &mut impl Process, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let deadline = Deadline::At(deadline);
    let pidfd = child.pid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let pidfd = pidfd.and_then(|pidfd| above_stdio(pidfd).ok());
    loop {
        let status = child.try_wait()?;
        if status.is_some() || deadline.passed() {
            return Ok(status);
        }
        match &pidfd {
            Some(pidfd) => drop(sleep([(pidfd.as_fd(), PollFlags::IN)], deadline, None)?),
            None => drop(sleep([], deadline, Some(PAUSE))?),
        }
    }
}

/// Where a name was looked for.
const IN_VARIABLE: &str = "the variable SEALANE_FD";
const AS_GIVEN: &str = "the name given";

/// Takes the socket that [`Prepared::attach`] left for this process.
pub(crate) fn inherited() -> Result<Socket> {
    let refuse = |found| HandshakeError::NotInherited { place: IN_VARIABLE, found };
    let value = env::var_os(VARIABLE).ok_or_else(|| refuse("no such variable".to_owned()))?;
    let text = value.to_string_lossy();
    let name = parse(&text).ok_or_else(|| refuse(format!("{text:?}")))?;
    take(name, refuse)
}

/// Takes the socket that a name names, with its cookie, or without.
pub(crate) fn inherited_as(name: &str) -> Result<Socket> {
    let refuse = |found| HandshakeError::NotInherited { place: AS_GIVEN, found };
    let number = || Some((name.parse().ok()?, None));
    let name = parse(name).or_else(number).ok_or_else(|| refuse(format!("{name:?}")))?;
    take(name, refuse)
}

/// A number and a cookie.
fn parse(name: &str) -> Option<(RawFd, Option<u64>)> {
    let (number, cookie) = name.split_once(':')?;
    Some((number.parse().ok()?, Some(cookie.parse().ok()?)))
}

/// UNTRUSTED: the number may be anybody's. It is duplicated, and left open: only the duplicate is checked and used.
fn take((number, cookie): (RawFd, Option<u64>), refuse: impl Fn(String) -> HandshakeError) -> Result<Socket> {
    let no_socket =
        |error: &dyn fmt::Display| Error::from(refuse(format!("no socket at {number} ({error})")));
    if !is_above_stdio(number) {
        return Err(no_socket(&"a standard stream's number"));
    }
    let socket = duplicate(number).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BADF) => no_socket(&error),
        // A limit of ours.
        _ => Error::io("fcntl(F_DUPFD_CLOEXEC)")(error),
    })?;
    let found = sockopt::socket_cookie(&socket).map_err(|error| no_socket(&error))?;
    if cookie.is_some_and(|cookie| cookie != found) {
        return Err(refuse(format!("another socket at {number}")).into());
    }
    let socket = Socket::adopt(socket)?;
    close_on_exec(number).map_err(Error::io("fcntl(F_SETFD)"))?;
    // Last: what failed so far may be tried again.
    if TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(found) {
        Ok(socket)
    } else {
        Err(HandshakeError::AlreadyInherited.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_the_variable_has_inherited_nothing() {
        assert!(matches!(
            inherited(),
            Err(Error::Handshake(HandshakeError::NotInherited { place: "the variable SEALANE_FD", .. }))
        ));
    }
}
