//! Parent and child: handing a socket to a program that we start, and taking it there.

use std::{
    env,
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
};

use command_fds::CommandFdExt;
use rustix::net::sockopt;

use crate::{
    error::{Error, HandshakeError, Result},
    raw::descriptor::adopt,
};

/// Names the child's descriptor and its cookie: `5:1234`.
const VARIABLE: &str = "SEALANE_FD";

/// Whether this process has taken what its parent left it. The descriptor's number says nothing of who owns it, so this
/// must be once, in the whole process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Starts `command` with `socket`, which no other child gets. It is closed here.
pub(crate) fn start(mut command: Command, socket: OwnedFd) -> Result<Child> {
    let cookie = sockopt::socket_cookie(&socket).map_err(Error::io("getsockopt(SO_COOKIE)"))?;
    command.env(VARIABLE, format!("{}:{cookie}", socket.as_raw_fd()));
    command.preserved_fds(vec![socket]);
    let child = command.spawn().map_err(Error::io("starting the child process"));
    // The descriptor lives in the command until here.
    drop(command);
    child
}

/// Kills and reaps a child that is of no use.
pub(crate) fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        log::warn!("the child process {} could not be ended: {error}", child.id());
    }
}

/// Takes the socket that [`start`] left for this process.
pub(crate) fn inherited() -> Result<OwnedFd> {
    let not_inherited = |found| HandshakeError::NotInherited { variable: VARIABLE, found };
    let value = env::var_os(VARIABLE).ok_or_else(|| not_inherited("no such variable".to_owned()))?;
    let text = value.to_string_lossy();
    let numbers =
        text.split_once(':').and_then(|(fd, cookie)| Some((fd.parse().ok()?, cookie.parse().ok()?)));
    let (fd, cookie) = numbers.ok_or_else(|| not_inherited(format!("{text:?}")))?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(HandshakeError::AlreadyInherited.into());
    }
    let adopted = adopt(fd, cookie);
    if !matches!(adopted, Ok(Some(_))) {
        TAKEN.store(false, Ordering::SeqCst);
    }
    match adopted {
        Ok(Some(socket)) => Ok(socket),
        Ok(None) => Err(not_inherited(format!("another socket at {fd}")).into()),
        Err(error) => Err(not_inherited(format!("no socket at {fd} ({error})")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_the_variable_has_inherited_nothing() {
        assert!(matches!(
            inherited(),
            Err(Error::Handshake(HandshakeError::NotInherited { variable: "SEALANE_FD", .. }))
        ));
    }
}
