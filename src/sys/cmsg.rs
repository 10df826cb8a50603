//! Descriptors by number: those that the kernel hands us with a packet, one that a parent left us, one that a child is to
//! have, and socket options that have no safe wrapper.
//!
//! No descriptor of this library has the number of a standard stream: see [`above_stdio`].

#[cfg(feature = "tokio")]
use std::mem::ManuallyDrop;
use std::{
    ffi::c_int,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Weak,
};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use zerocopy::FromBytes;

use crate::{
    error::{Error, Result},
    protocol::packet::SCM_MAX_FD,
};

/// The lowest number that a descriptor of ours may have. Those below belong to the standard streams, open or closed.
const LOWEST: RawFd = 3;

/// Bytes for the ancillary data of one packet: 253 descriptors, the credentials, a pidfd, and room to spare. A shorter buffer
/// would make the kernel cut the data (`MSG_CTRUNC`), which would then look like a shortage of our own.
const ANCILLARY: usize = 1536;

/// A `cmsghdr`, as the kernel writes it on 64-bit Linux (`cmsg(3)`).
#[derive(FromBytes, Clone, Copy)]
#[repr(C)]
struct AncillaryHeader {
    len: usize,
    level: c_int,
    kind: c_int,
}
const HEADER: usize = size_of::<AncillaryHeader>();
const _: () = assert!(
    ANCILLARY
        > 3 * HEADER + SCM_MAX_FD.next_multiple_of(2) * 4 + size_of::<libc::ucred>().next_multiple_of(8) + 8
);

/// What the kernel says of a sender, before anybody looked at it. All fields may be anything.
#[derive(FromBytes, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RawCredentials {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One `recvmsg(2)`.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// Bytes of the packet that are in the buffer.
    pub(crate) len: usize,
    /// The packet was longer than the buffer.
    pub(crate) cut: bool,
    /// The kernel dropped descriptors, for want of room in our table of them.
    pub(crate) fds_cut: bool,
    pub(crate) credentials: Option<RawCredentials>,
    /// The sender's process (`SCM_PIDFD`), or why the kernel could not open it: with `SO_PASSPIDFD` only.
    pub(crate) pidfd: Option<io::Result<OwnedFd>>,
}

/// How [`receive`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// What is there.
    Now,
    /// Waits for a packet if there is none, and the socket blocks at all.
    Wait,
    /// What is there, and leaves it there (`MSG_PEEK`). Its descriptors are installed by this too: the next read brings
    /// others for the same files.
    Peek,
}

/// Where the kernel puts ancillary data.
#[repr(align(8))]
pub(crate) struct Ancillary([u8; ANCILLARY]);

impl Ancillary {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self([0; ANCILLARY]))
    }
}

/// Reads one packet. Descriptors that came with it are appended to `fds`, all of them close-on-exec.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    ancillary: &mut Ancillary,
    fds: &mut Vec<OwnedFd>,
    how: Read,
) -> io::Result<Receipt> {
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a `msghdr` is plain numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = length(ANCILLARY)?;
    let flags = libc::MSG_CMSG_CLOEXEC
        | match how {
            Read::Now => libc::MSG_DONTWAIT,
            Read::Wait => 0,
            Read::Peek => libc::MSG_DONTWAIT | libc::MSG_PEEK,
        };
    // SAFETY: contract of `recvmsg(2)`: the message names one buffer and one ancillary buffer, both writable for the
    // lengths given and borrowed uniquely.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;

    let mut receipt = Receipt {
        len: len.min(bytes.len()),
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_cut: message.msg_flags & libc::MSG_CTRUNC != 0,
        credentials: None,
        pidfd: None,
    };
    let filled = length(message.msg_controllen).unwrap_or(0);
    let mut rest = ancillary.0.get(..filled.min(ANCILLARY)).unwrap_or_default();
    while let Ok((header, _)) = AncillaryHeader::read_from_prefix(rest) {
        let Some(data) = rest.get(HEADER..header.len) else { break };
        match (header.level, header.kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for number in data.as_chunks().0 {
                    // SAFETY: contract of `from_raw_fd`: the kernel has just installed this descriptor for us, and nobody
                    // else knows its number.
                    fds.push(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*number)) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                receipt.credentials = RawCredentials::read_from_bytes(data).ok();
            }
            (libc::SOL_SOCKET, SCM_PIDFD) => {
                receipt.pidfd = RawFd::read_from_bytes(data).ok().map(|number| {
                    if number < 0 {
                        return Err(io::Error::from_raw_os_error(number.saturating_neg()));
                    }
                    // SAFETY: contract of `from_raw_fd`: as above, where the kernel opened the process at all.
                    Ok(unsafe { OwnedFd::from_raw_fd(number) })
                });
            }
            // Other kinds come only if somebody switched them on (timestamps, ...), which `quiet` undoes.
            _ => {}
        }
        rest = rest.get(header.len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    Ok(receipt)
}

/// A length in another type: `msg_controllen` is a `size_t` in glibc, and a `socklen_t` in musl.
fn length<A: TryInto<B>, B>(len: A) -> io::Result<B> {
    len.try_into().map_err(|_| io::Error::other("a length that this C library has no number for"))
}

/// Moves a descriptor off the numbers of the standard streams, and closes it there.
///
/// The kernel gives out the lowest free number. In a process whose standard streams are closed that would be one of
/// theirs, and whatever the process prints would go into a socket or a region. A descriptor above them stays where it is.
///
/// # Errors
/// [`Error::Io`], if this process may open no more; the descriptor is closed.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    if is_above_stdio(fd.as_raw_fd()) {
        return Ok(fd);
    }
    fcntl_dupfd_cloexec(&fd, LOWEST).map_err(Error::io("fcntl(F_DUPFD_CLOEXEC)"))
}

/// Whether `number` belongs to no standard stream.
pub(crate) fn is_above_stdio(number: RawFd) -> bool {
    number >= LOWEST
}

/// Duplicates the descriptor `number`, whoever owns it. The duplicate is close-on-exec and above the standard streams.
///
/// # Errors
/// Those of `fcntl(2)`: `EBADF` if the number is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: contract of `fcntl(2)` with `F_DUPFD_CLOEXEC`: it takes numbers and touches no memory. Of a number that is
    // not open it says so.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, LOWEST) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: contract of `from_raw_fd`: the kernel has just installed this descriptor for us, and nobody else knows its
    // number.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Keeps the descriptor `number`, whoever owns it, from the programs that this process executes.
///
/// # Errors
/// Those of `fcntl(2)`.
pub(crate) fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: contract of `fcntl(2)` with `F_SETFD`: it takes numbers and touches no memory. Of a number that is not open
    // it says so.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the programs that `command` starts have a descriptor, under its number, for as long as it is open here. The
/// command does not keep it open, and starts programs without it afterwards.
pub(crate) fn pass_on(command: &mut Command, fd: Weak<OwnedFd>) {
    // Runs in the child. There its owner's reference stays for ever, so that this one is never the last, which would free
    // memory.
    let inherit = move || match fd.upgrade() {
        Some(fd) => fcntl_setfd(&*fd, FdFlags::empty()).map_err(io::Error::from),
        None => Ok(()),
    };
    // SAFETY: contract of `pre_exec`: between `fork` and `exec` the closure does only what is async-signal-safe
    // (`signal-safety(7)`), and leaves no trace in memory: two atomic counts and `fcntl(2)`. It allocates and frees
    // nothing: an `io::Error` of a number is that number.
    unsafe { command.pre_exec(inherit) };
}

/// Closes the descriptor of a socket that tokio watches, and leaves its registration as it is: to deregister it in a fork
/// would deregister it in the process that it was forked from, as both have the same `epoll(7)` instance.
#[cfg(feature = "tokio")]
pub(crate) fn close_registered(socket: tokio::net::UnixDatagram) {
    let number = ManuallyDrop::new(socket).as_raw_fd();
    // SAFETY: contract of `from_raw_fd`: the socket owned the descriptor, and can close it no more.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Socket options by which ancillary data comes unasked (`socket(7)`, `unix(7)`): `SO_PASSSEC`, `SO_PASSPIDFD` (which
/// installs a descriptor with each packet), and the timestamps `SO_TIMESTAMP`, `SO_TIMESTAMPNS` and `SO_TIMESTAMPING`, old
/// and new.
const UNASKED: [c_int; 8] = [libc::SO_PASSSEC, SO_PASSPIDFD, 29, 35, 37, 63, 64, 65];
/// Whether a descriptor of the sending process comes with each packet (Linux 6.5), and as what.
const SO_PASSPIDFD: c_int = 76;
const SCM_PIDFD: c_int = 4;
/// `SO_PASSRIGHTS`: whether descriptors may be sent to this socket (Linux 6.16).
const SO_PASSRIGHTS: c_int = 83;

/// Switches off what `UNASKED` lists. An option that this kernel does not know cannot be on.
pub(crate) fn quiet(socket: BorrowedFd<'_>) {
    for option in UNASKED {
        let _ = set(socket, option, 0);
    }
}

/// Lets the kernel refuse descriptors that are sent to this socket, where it can (Linux 6.16).
pub(crate) fn refuse_fds(socket: BorrowedFd<'_>) {
    let _ = set(socket, SO_PASSRIGHTS, 0);
}

/// Asks the kernel for a descriptor of the process that sends each packet, or not. Kernels before Linux 6.5 give none.
pub(crate) fn pass_pidfd(socket: BorrowedFd<'_>, pass: bool) {
    let _ = set(socket, SO_PASSPIDFD, pass.into());
}

/// Bytes that were sent through this socket and not yet read, as the kernel counts them against `SO_SNDBUF` (`SIOCOUTQ`,
/// `unix(7)`).
pub(crate) fn unread_by_peer(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut unread: c_int = 0;
    // SAFETY: contract of `ioctl(2)` with `TIOCOUTQ`: it writes one `c_int`, to a live one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result == 0 { Ok(usize::try_from(unread).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// A `pidfd_info` as Linux 6.13 has it; later versions append (`linux/pidfd.h`).
#[derive(Default)]
#[repr(C)]
struct ProcessInfo {
    mask: u64,
    cgroup: u64,
    /// Process, thread group and parent; real, effective, saved and file-system user and group.
    ids: [u32; 11],
    /// As `wait(2)` has it.
    exit_code: i32,
}
const _: () = assert!(size_of::<ProcessInfo>() == 64);
/// `linux/pidfd.h`; Linux 6.13.
const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<ProcessInfo>(0xff, 11);
/// That `exit_code` is asked for, and known: after the process was waited for (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 8;

/// How a process ended that was waited for, as `wait(2)` has it; `None` where the kernel does not know, or say.
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = ProcessInfo { mask: PIDFD_INFO_EXIT, ..ProcessInfo::default() };
    // SAFETY: contract of `ioctl(2)` with `PIDFD_GET_INFO`: it reads and writes a live `ProcessInfo`, whose size is part of
    // the number. Other files, and older kernels, do not know the number.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

fn set(socket: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    let len = length(size_of::<c_int>())?;
    // SAFETY: contract of `setsockopt(2)`: the value is a live `c_int` of the length given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{
        protocol::packet::{Kind, PacketHeader},
        socket::seqpacket::{SendFailure, Socket},
    };

    #[test]
    fn the_ancillary_buffer_has_a_length_in_every_c_library() {
        assert_eq!(length::<usize, usize>(ANCILLARY).unwrap(), 1536, "glibc: size_t");
        assert_eq!(length::<usize, u32>(ANCILLARY).unwrap(), 1536, "musl: socklen_t");
        assert_eq!(length::<u32, usize>(1536).unwrap(), ANCILLARY);
        assert!(length::<usize, u32>(usize::MAX).is_err());
    }

    #[test]
    fn the_kernel_refuses_descriptors_where_it_can() {
        let packet = PacketHeader::plain(Kind::Control, 0);
        let refuse: [fn(OwnedFd) -> Socket; 2] = [Socket::own_credit, |fd| {
            let socket = Socket::adopt(fd).unwrap();
            socket.refuse_fds();
            socket
        }];
        for refuse in refuse {
            let (ours, theirs) = Socket::pair().unwrap();
            let theirs = Socket::adopt(theirs).unwrap();
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
