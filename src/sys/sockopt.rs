//! Socket options that have no safe wrapper.

use std::{
    ffi::c_int,
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::cmsg::as_length;

/// Socket options by which ancillary data comes with every packet (`socket(7)`, `unix(7)`): `SO_PASSSEC`, `SO_PASSPIDFD`
/// (which installs a descriptor each time), and the timestamps `SO_TIMESTAMP`, `SO_TIMESTAMPNS` and `SO_TIMESTAMPING`, by
/// their old and new numbers.
const ANCILLARY_OPTIONS: [c_int; 8] = [libc::SO_PASSSEC, SO_PASSPIDFD, 29, 35, 37, 63, 64, 65];
/// Each packet brings a descriptor of the sending process (Linux 6.5).
const SO_PASSPIDFD: c_int = 76;
/// The socket accepts descriptors (Linux 6.16).
const SO_PASSRIGHTS: c_int = 83;

/// Switches off all of `ANCILLARY_OPTIONS`. Errors are ignored: an option that this kernel does not know is not on.
pub(crate) fn disable_ancillary_options(socket: BorrowedFd<'_>) {
    for option in ANCILLARY_OPTIONS {
        let _ = set(socket, option, 0);
    }
}

/// Makes the kernel refuse descriptors that are sent to this socket (Linux 6.16; no effect before).
pub(crate) fn refuse_fds(socket: BorrowedFd<'_>) {
    let _ = set(socket, SO_PASSRIGHTS, 0);
}

/// Makes each packet bring a descriptor of the process that sent it, or not (Linux 6.5; no effect before).
pub(crate) fn pass_pidfd(socket: BorrowedFd<'_>, pass: bool) {
    let _ = set(socket, SO_PASSPIDFD, pass.into());
}

/// Bytes that were sent through this socket and not yet read, as the kernel counts them against `SO_SNDBUF` (`SIOCOUTQ`,
/// `unix(7)`).
pub(crate) fn unread_by_peer(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut unread: c_int = 0;
    // SAFETY: `ioctl(2)` with `TIOCOUTQ` (`SIOCOUTQ`) writes one `c_int` at the pointer. `unread` is a live local variable of
    // that type.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result == 0 { Ok(usize::try_from(unread).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    let len = as_length(size_of::<c_int>())?;
    // SAFETY: `setsockopt(2)` reads `len` bytes at the pointer. `value` is a live local variable of that size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::{
        protocol::packet::{Kind, PacketHeader},
        socket::seqpacket::{SendFailure, Socket},
    };

    #[test]
    fn kernel_refuses_descriptors_where_it_can() {
        let packet = PacketHeader::plain(Kind::Control, 0);
        let refuse: [fn(OwnedFd) -> Socket; 2] = [Socket::own_space, |fd| {
            let socket = Socket::from_fd(fd).unwrap();
            socket.refuse_fds();
            socket
        }];
        for refuse in refuse {
            let (ours, theirs) = Socket::pair().unwrap();
            let theirs = Socket::from_fd(theirs).unwrap();
            let knows = set(ours.as_fd(), SO_PASSRIGHTS, 1).is_ok();
            let ours = refuse(ours);
            match theirs.send(packet, &[], &[ours.as_fd()]) {
                Err(SendFailure::Other(error)) if knows => {
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                }
                result => assert!(result.is_ok() && !knows, "knows the option: {knows}, {result:?}"),
            }
            theirs.send(packet, &[], &[]).unwrap();
        }
    }
}
