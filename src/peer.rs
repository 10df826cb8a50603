//! [`Peer`]: who is at the other end.

use crate::{
    error::{Reason, Refusal, Result},
    raw::descriptor::RawCredentials,
};

/// Who a process was when it said `Hello`, as the kernel vouches (`SCM_CREDENTIALS`, `unix(7)`): the numbers as they are
/// in *our* namespaces.
///
/// ```
/// let (a, _b) = sealane::Channel::pair()?;
/// assert_eq!(a.peer().credentials().pid, std::process::id());
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is known of the other side of a channel.
///
/// ```
/// let (a, _b) = sealane::Channel::pair()?;
/// assert_eq!(a.peer().version(), 1);
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    credentials: Credentials,
    version: u32,
}

impl Credentials {
    /// UNTRUSTED: a process that named no credentials, or that our namespaces cannot name, is process 0.
    pub(crate) fn of(raw: Option<RawCredentials>) -> Result<Self, Refusal> {
        let refusal = Refusal { reason: Reason::Credentials, expected: 1, found: 0 };
        let RawCredentials { pid, uid, gid } = raw.ok_or(refusal)?;
        match u32::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(Self { pid, uid, gid }),
            _ => Err(refusal),
        }
    }
}

impl Peer {
    pub(crate) fn new(credentials: Credentials, version: u32) -> Self {
        Self { credentials, version }
    }

    /// Who it was at the handshake.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// The protocol version that both speak.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}
