//! [`pair`]: a pair of connected sockets, of which each process has one; and [`PIECE`], how much goes through one at a time.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{cell::Side, link::Link};

/// Bytes of the largest piece of a payload that goes through a socket or a pipe: it is read while it is in the cache.
pub(crate) const PIECE: usize = 64 << 10;

/// The end of this process. No process has both ends, so that each sees the other end.
pub(crate) fn pair(side: Side, link: &Link, kind: SocketType) -> Result<OwnedFd> {
    match side {
        Side::First => {
            let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            link.send(b"socket", &[theirs.as_fd()])?;
            Ok(ours)
        }
        Side::Second => link.receive()?.1.pop().context("expected a descriptor, found none"),
    }
}
