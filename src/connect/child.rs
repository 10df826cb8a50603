//! Starting and ending a child process, and taking the socket that a parent left for this process.
//!
//! A [`Prepared`] hands the socket over; this is the code on both sides of it.

use std::{
    collections::BTreeSet,
    env, fmt, io,
    os::fd::{AsFd, RawFd},
    process::{Child, Command, ExitStatus},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::sockopt,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{
    connect::{Prepared, prepared::ENV_VAR},
    error::{Error, HandshakeError, Result},
    socket::seqpacket::Socket,
    sys::descriptor::{above_stdio, close_on_exec, duplicate, is_above_stdio},
    wait::{Deadline, lock_unless_lost, sleep},
};

/// The time that a child has to end by itself after a failed handshake, and again after it was killed.
const GRACE: Duration = Duration::from_secs(1);
/// Pause between two looks at a child without a pidfd.
const PAUSE: Duration = Duration::from_millis(5);

/// Cookies of the sockets that this process has taken. A socket can be taken once; its original stays open, so that nothing
/// else shows it.
static TAKEN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Starts `command` with its end of `prepared`, and leaves nothing of it in the command.
pub(crate) fn spawn(command: &mut Command, prepared: &Prepared) -> Result<Child> {
    prepared.attach(command);
    let child = command.spawn();
    detach(command, child)
}

/// Completes the start of a child with an [attached](Prepared::attach) channel: removes the variable from the command.
pub(crate) fn detach<C>(command: &mut Command, child: io::Result<C>) -> Result<C> {
    let child = child.map_err(Error::io_at("spawn", command.get_program().as_ref()));
    command.env_remove(ENV_VAR);
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

/// Ends a child that gets no channel, and returns the reason for which it gets none.
///
/// The child may report the reason and end by itself, before the handshake's deadline and within [`GRACE`]; the error then
/// has its exit status. Otherwise it is killed.
pub(crate) fn kill_and_reap(child: &mut impl Process, deadline: Instant, error: Error) -> Error {
    match wait_until(child, deadline.min(after_grace())) {
        Ok(Some(status)) => with_status(error, status),
        Ok(None) => {
            kill(child, deadline);
            error
        }
        // Other code has reaped the child, whose number may belong to another process by now.
        Err(_) => error,
    }
}

/// Kills and reaps a child. Waits for the rest of the time, and for [`GRACE`] at least.
pub(crate) fn kill(child: &mut impl Process, deadline: Instant) {
    let pid = child.pid();
    let ended = child.kill().and_then(|()| wait_until(child, deadline.max(after_grace())));
    match ended {
        Ok(Some(_)) => {}
        Ok(None) => log::warn!("the child process {pid:?} was killed and has not ended yet"),
        Err(error) => log::warn!("the child process {pid:?} could not be ended: {error}"),
    }
}

/// Adds the exit status to the error for a peer that closed the socket.
fn with_status(error: Error, status: ExitStatus) -> Error {
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

/// Waits for the child's end, and reaps it. `None` if it has not ended by the deadline.
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

/// The places of a name, for errors.
const IN_VARIABLE: &str = "the variable SEALANE_FD";
const AS_GIVEN: &str = "the name given";

/// Takes the socket that [`Prepared::attach`] left for this process.
pub(crate) fn inherited() -> Result<Socket> {
    let refuse = |found| HandshakeError::NotInherited { place: IN_VARIABLE, found };
    let value = env::var_os(ENV_VAR).ok_or_else(|| refuse("no such variable".to_owned()))?;
    let text = value.to_string_lossy();
    let name = parse(&text).ok_or_else(|| refuse(format!("{text:?}")))?;
    take(name, refuse)
}

/// Takes the socket that `name` names: a number with its cookie, or a number alone.
pub(super) fn inherited_as(name: &str) -> Result<Socket> {
    let refuse = |found| HandshakeError::NotInherited { place: AS_GIVEN, found };
    let number = || Some((name.parse().ok()?, None));
    let name = parse(name).or_else(number).ok_or_else(|| refuse(format!("{name:?}")))?;
    take(name, refuse)
}

/// Parses a number and a cookie.
fn parse(name: &str) -> Option<(RawFd, Option<u64>)> {
    let (number, cookie) = name.split_once(':')?;
    Some((number.parse().ok()?, Some(cookie.parse().ok()?)))
}

/// Takes the socket with a number.
///
/// UNTRUSTED: the number may belong to any part of the program. It is duplicated and left open; only the duplicate is checked
/// and used.
fn take((number, cookie): (RawFd, Option<u64>), refuse: impl Fn(String) -> HandshakeError) -> Result<Socket> {
    let no_socket =
        |error: &dyn fmt::Display| Error::from(refuse(format!("no socket at {number} ({error})")));
    if !is_above_stdio(number) {
        return Err(no_socket(&"a standard stream's number"));
    }
    let socket = duplicate(number).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BADF) => no_socket(&error),
        // The limit of open files is this process's own failure.
        _ => Error::io("fcntl(F_DUPFD_CLOEXEC)")(error),
    })?;
    let found = sockopt::socket_cookie(&socket).map_err(|error| no_socket(&error))?;
    if cookie.is_some_and(|cookie| cookie != found) {
        return Err(refuse(format!("another socket at {number}")).into());
    }
    let socket = Socket::from_fd(socket)?;
    close_on_exec(number).map_err(Error::io("fcntl(F_SETFD)"))?;
    // The last step, so that an attempt that has failed can be repeated.
    if lock_unless_lost(&TAKEN).is_some_and(|mut taken| taken.insert(found)) {
        Ok(socket)
    } else {
        Err(HandshakeError::AlreadyInherited.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_without_the_variable_has_inherited_nothing() {
        assert!(matches!(
            inherited(),
            Err(Error::Handshake(HandshakeError::NotInherited { place: "the variable SEALANE_FD", .. }))
        ));
    }
}
