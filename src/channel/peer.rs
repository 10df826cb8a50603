//! [`Peer`]: the process at the other end.

use std::{
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use crate::{
    error::{Reason, Refusal, Result},
    sys::cmsg::RawCredentials,
};

/// User and group that the kernel shows where it has no name for one (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65_534;

/// The identity of a process when it sent `Hello`, as the kernel vouches (`SCM_CREDENTIALS`, `unix(7)`): the numbers
/// as they are in *our* namespaces.
///
/// They are true of peers without privileges. Who has `CAP_SYS_ADMIN` in the user namespace of its pid namespace may name any
/// living process there, and who has `CAP_SETUID` or `CAP_SETGID` in its own user namespace any user or group that is mapped
/// there.
///
/// ```
/// let (a, _b) = sealane::Channel::pair()?;
/// let credentials = a.peer().credentials();
/// assert_eq!(credentials.pid.map(u32::from), Some(std::process::id()));
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Process; `None` if it is in no pid namespace that we see (`pid_namespaces(7)`): our own, and those below it.
    pub pid: Option<NonZeroU32>,
    /// User. One that our user namespace has no name for is shown as 65534 (`user_namespaces(7)`).
    pub uid: u32,
    /// Group; likewise.
    pub gid: u32,
}

/// Facts about the other side of a channel.
///
/// ```
/// let (a, _b) = sealane::Channel::pair()?;
/// assert_eq!(a.peer().version(), 1);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Peer {
    credentials: Credentials,
    pidfd: Option<Arc<OwnedFd>>,
    version: u32,
}

impl Credentials {
    /// UNTRUSTED: for a process that sent no credentials the kernel reports process 0, and no user and group. It
    /// reports the same for a process that has no number and user in our namespaces, so that is refused too. The
    /// exception is a process of ours that is `nameless` itself: its namespace has names for no process.
    pub(crate) fn of(raw: Option<RawCredentials>, nameless: bool) -> Result<Self, Refusal> {
        let refusal = Refusal { reason: Reason::Credentials, expected: 1, found: 0 };
        let RawCredentials { pid, uid, gid } = raw.ok_or(refusal)?;
        let pid = NonZeroU32::new(u32::try_from(pid).map_err(|_| refusal)?);
        if pid.is_none() && (uid, gid) == (OVERFLOW, OVERFLOW) && !nameless {
            return Err(refusal);
        }
        Ok(Self { pid, uid, gid })
    }
}

impl Peer {
    pub(crate) fn new(credentials: Credentials, pidfd: Option<Arc<OwnedFd>>, version: u32) -> Self {
        Self { credentials, pidfd, version }
    }

    /// The peer's credentials at the handshake.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// The process that said `Hello` (`pidfd_open(2)`), if [`Builder::peer_pidfd`](crate::Builder::peer_pidfd) asked for it
    /// and the kernel gave it (`SO_PASSPIDFD`, Linux 6.5). It is readable when that process has ended, in whatever way.
    ///
    /// A readable pidfd does not say whether the process was killed, and is not the end of the channel: a daemon's first
    /// process exits, and its fork continues. In an event loop:
    /// 1. Receive until `None`. [`Closer::close`](crate::Closer::close) drops what is left, so it is no first step.
    /// 2. Call [`recv_timeout`](crate::Receiver::recv_timeout) with some 20 ms (more on a busy machine). It ends with
    ///    [`Error::Disconnected`](crate::Error::Disconnected) if the process was killed, and with
    ///    [`Error::Timeout`](crate::Error::Timeout) if it exited by itself, or if the kernel does not say: see
    ///    [`Builder::peer_pidfd`](crate::Builder::peer_pidfd).
    /// 3. Unregister the pidfd, as it stays readable. After a timeout keep the channel, or close it.
    ///
    /// ```
    /// let builder = sealane::Channel::builder().peer_pidfd(true);
    /// let (a, b) = builder.pair()?;
    /// // Whether it is there is up to the kernel, for both alike.
    /// assert_eq!(a.peer().pidfd().is_some(), b.peer().pidfd().is_some());
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|pidfd| pidfd.as_fd())
    }

    /// The same, to be watched.
    pub(crate) fn pidfd_shared(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.clone()
    }

    /// The protocol version that both speak.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_peers_have_no_identity_and_peers_elsewhere_have_one() {
        let of = |pid, uid, gid| Credentials::of(Some(RawCredentials { pid, uid, gid }), false);
        let seen = |pid: u32, uid, gid| Ok(Credentials { pid: NonZeroU32::new(pid), uid, gid });
        let refused = Err(Refusal { reason: Reason::Credentials, expected: 1, found: 0 });
        assert_eq!(Credentials::of(None, true), refused);
        assert_eq!(of(0, OVERFLOW, OVERFLOW), refused);
        for pid in [-1, i32::MIN] {
            assert_eq!(of(pid, 0, 0), refused);
        }
        assert_eq!(of(0, 0, 0), seen(0, 0, 0));
        assert_eq!(of(0, OVERFLOW, 0), seen(0, OVERFLOW, 0));
        assert_eq!(of(0, 0, OVERFLOW), seen(0, 0, OVERFLOW));
        assert_eq!(of(7, OVERFLOW, OVERFLOW), seen(7, OVERFLOW, OVERFLOW));
        let nobody = RawCredentials { pid: 0, uid: OVERFLOW, gid: OVERFLOW };
        assert_eq!(Credentials::of(Some(nobody), true), seen(0, OVERFLOW, OVERFLOW));
    }
}
