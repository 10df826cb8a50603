//! Descriptors by number: moving them off the standard streams, a descriptor that a parent left, one that a child is to
//! inherit, and the end of a process that a pidfd names.
//!
//! Invariant: no descriptor of this library has the number of a standard stream, see [`above_stdio`].

#[cfg(feature = "tokio")]
use std::mem::ManuallyDrop;
use std::{
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Weak,
};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::error::{Error, Result};

/// The lowest number of a descriptor of ours. Lower numbers belong to the standard streams, open or closed.
const LOWEST: RawFd = 3;

/// Moves a descriptor off the numbers of the standard streams. Other descriptors stay as they are.
///
/// The kernel gives out the lowest free number. In a process with closed standard streams that is one of theirs, and the
/// process's output would go into a socket or a region.
///
/// # Errors
/// [`Error::Io`], if this process may open no more; the descriptor is closed.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    if is_above_stdio(fd.as_raw_fd()) {
        return Ok(fd);
    }
    fcntl_dupfd_cloexec(&fd, LOWEST).map_err(Error::io("fcntl(F_DUPFD_CLOEXEC)"))
}

/// True if `number` belongs to no standard stream.
pub(crate) fn is_above_stdio(number: RawFd) -> bool {
    number >= LOWEST
}

/// Duplicates the descriptor `number`, which may have any owner, or none. The duplicate is close-on-exec and above the
/// standard streams.
///
/// # Errors
/// Those of `fcntl(2)`: `EBADF` if the number is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl(2)` with `F_DUPFD_CLOEXEC` takes integers and accesses no memory. It reads the table of descriptors, and
    // answers `EBADF` for a number that is not open; the original is neither closed nor changed.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, LOWEST) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `OwnedFd::from_raw_fd` demands an open descriptor without another owner. The kernel has just installed this
    // number for us (`fcntl(2)`), and only this function knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Makes the descriptor `number`, which may have any owner, close-on-exec.
///
/// # Errors
/// Those of `fcntl(2)`.
pub(crate) fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: `fcntl(2)` with `F_SETFD` takes integers and accesses no memory. It closes nothing, and answers `EBADF` for a
    // number that is not open.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the children of `command` inherit a descriptor, under its number, for as long as it is open here.
///
/// The command does not keep the descriptor open. Once it is closed, the command starts children without it.
pub(crate) fn pass_on(command: &mut Command, fd: Weak<OwnedFd>) {
    // The closure runs in the child. The fork's copy of the owner's `Arc` is never dropped there, so that this reference is
    // never the last one, whose drop would free memory.
    let inherit = move || match fd.upgrade() {
        Some(fd) => fcntl_setfd(&*fd, FdFlags::empty()).map_err(io::Error::from),
        None => Ok(()),
    };
    // SAFETY: `CommandExt::pre_exec` demands that the closure, which runs between `fork` and `exec`, does only what is
    // async-signal-safe (`signal-safety(7)`) and leaves this process's memory as it was. The closure increments and
    // decrements an atomic count and calls `fcntl(2)`. It takes no lock, allocates nothing (an `io::Error` of an errno is
    // that number), and frees nothing, as said above.
    unsafe { command.pre_exec(inherit) };
}

/// Closes a socket that tokio watches, and leaves its registration in place.
///
/// A fork shares the `epoll(7)` instance with its parent, so that deregistering its copy would deregister the parent's.
#[cfg(feature = "tokio")]
pub(crate) fn close_registered(socket: tokio::net::UnixDatagram) {
    let number = ManuallyDrop::new(socket).as_raw_fd();
    // SAFETY: `OwnedFd::from_raw_fd` demands an open descriptor without another owner. The socket, taken by value, was the
    // owner, and `ManuallyDrop` keeps it from closing the number.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// A `pidfd_info` of Linux 6.13; later versions append (`linux/pidfd.h`).
#[derive(Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Process, thread group and parent; real, effective, saved and file-system user and group.
    ids: [u32; 11],
    /// Status as in `wait(2)`.
    exit_code: i32,
}
const _: () = assert!(size_of::<PidfdInfo>() == 64);
/// `linux/pidfd.h`; Linux 6.13.
const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xff, 11);
/// Asks for `exit_code`, and says that it is known: after the process was waited for (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 8;

/// The status, as in `wait(2)`, of a process that was waited for. `None` where the kernel does not know or tell it.
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: `ioctl(2)` with `PIDFD_GET_INFO` reads and writes as many bytes at the pointer as the size that the request's
    // number contains. `_IOWR::<PidfdInfo>` has put that size there, and `info` is a live local variable of that type, whose
    // fields are integers, of which any value is valid. Other files and older kernels answer `ENOTTY` or `EINVAL`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
