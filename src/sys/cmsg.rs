//! `recvmsg(2)`, and the ancillary data of a packet: descriptors, credentials and a pidfd, owned from the first moment.

use std::{
    ffi::c_int,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use zerocopy::FromBytes;

use crate::protocol::packet::SCM_MAX_FD;

/// Bytes for the ancillary data of one packet: 253 descriptors, the credentials, a pidfd, and room to spare. A shorter buffer
/// would make the kernel truncate the data (`MSG_CTRUNC`), which looks like a shortage of descriptors.
const ANCILLARY: usize = 1536;
/// Ancillary data of one process: a pidfd (`linux/socket.h`, Linux 6.5).
const SCM_PIDFD: c_int = 4;

/// A `cmsghdr` of 64-bit Linux (`cmsg(3)`).
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

/// The kernel's word about a sender, unchecked: every field may have any value.
#[derive(FromBytes, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RawCredentials {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Everything about a received packet but its bytes and descriptors.
#[derive(Debug)]
pub(crate) struct RecvMeta {
    /// Bytes of the packet that are in the buffer.
    pub(crate) len: usize,
    /// The packet was longer than the buffer (`MSG_TRUNC`).
    pub(crate) truncated: bool,
    /// The kernel dropped descriptors, as this process may have no more of them (`MSG_CTRUNC`).
    pub(crate) fds_truncated: bool,
    pub(crate) credentials: Option<RawCredentials>,
    /// The sender's process (`SCM_PIDFD`), or the reason for which the kernel did not open it. Only with `SO_PASSPIDFD`.
    pub(crate) pidfd: Option<io::Result<OwnedFd>>,
}

/// The way in which [`recvmsg`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Returns at once.
    Now,
    /// Waits for a packet, if the socket is a blocking one.
    Wait,
    /// Returns at once, and leaves the packet in the socket (`MSG_PEEK`). The kernel installs the packet's descriptors all
    /// the same; the next read brings others for the same files.
    Peek,
}

/// The buffer for ancillary data, aligned as `cmsg(3)` demands.
#[repr(align(8))]
pub(crate) struct Ancillary([u8; ANCILLARY]);

impl Ancillary {
    pub(crate) fn new() -> Self {
        Self([0; ANCILLARY])
    }
}

/// Reads one packet to `bytes`. Descriptors that come with it are appended to `fds`; all of them are close-on-exec.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub(crate) fn recvmsg(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    ancillary: &mut Ancillary,
    fds: &mut impl Extend<OwnedFd>,
    how: Read,
) -> io::Result<RecvMeta> {
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: `assume_init` demands a valid value. A `msghdr` consists of integers and raw pointers (and padding, in musl),
    // for all of which zeros are valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = as_length(ANCILLARY)?;
    let flags = libc::MSG_CMSG_CLOEXEC
        | match how {
            Read::Now => libc::MSG_DONTWAIT,
            Read::Wait => 0,
            Read::Peek => libc::MSG_DONTWAIT | libc::MSG_PEEK,
        };
    // SAFETY: `recvmsg(2)` writes to the `msghdr`, to at most `iov_len` bytes at `iov_base`, and to at most `msg_controllen`
    // bytes at `msg_control`; no name is asked for. `message` and `buffer` are live local variables. `bytes` and `ancillary`
    // are borrowed uniquely until the return, have exactly the lengths given, and any bytes are valid in them. The kernel
    // keeps no pointer past the return.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;

    let mut meta = RecvMeta {
        len: len.min(bytes.len()),
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
        credentials: None,
        pidfd: None,
    };
    let filled = as_length(message.msg_controllen).unwrap_or(0);
    let mut rest = ancillary.0.get(..filled.min(ANCILLARY)).unwrap_or_default();
    // The headers are read by offsets within the buffer, instead of by the pointers of `CMSG_NXTHDR`.
    while let Ok((header, _)) = AncillaryHeader::read_from_prefix(rest) {
        let Some(data) = rest.get(HEADER..header.len) else { break };
        match (header.level, header.kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                fds.extend(data.as_chunks().0.iter().map(|number| {
                    // SAFETY: `OwnedFd::from_raw_fd` demands an open descriptor without another owner. The kernel installed
                    // this number during the call above (`SCM_RIGHTS`, `unix(7)`), and each stands in the data once.
                    unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*number)) }
                }));
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                meta.credentials = RawCredentials::read_from_bytes(data).ok();
            }
            (libc::SOL_SOCKET, SCM_PIDFD) => {
                meta.pidfd = RawFd::read_from_bytes(data).ok().map(|number| {
                    if number < 0 {
                        return Err(io::Error::from_raw_os_error(number.saturating_neg()));
                    }
                    // SAFETY: `OwnedFd::from_raw_fd` demands an open descriptor without another owner. The kernel installed
                    // this number during the call above (`SCM_PIDFD`); a negative one, an errno, was returned before.
                    Ok(unsafe { OwnedFd::from_raw_fd(number) })
                });
            }
            // Other kinds (timestamps, ...) need a socket option, which `disable_ancillary_options` has switched off.
            _ => {}
        }
        rest = rest.get(header.len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    Ok(meta)
}

/// Converts a length to the C library's type: `msg_controllen` is a `size_t` in glibc, and a `socklen_t` in musl.
pub(super) fn as_length<A: TryInto<B>, B>(len: A) -> io::Result<B> {
    len.try_into().map_err(|_| io::Error::other("a length that this C library has no number for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancillary_buffer_has_a_length_in_every_c_library() {
        assert_eq!(as_length::<usize, usize>(ANCILLARY).unwrap(), 1536, "glibc: size_t");
        assert_eq!(as_length::<usize, u32>(ANCILLARY).unwrap(), 1536, "musl: socklen_t");
        assert_eq!(as_length::<u32, usize>(1536).unwrap(), ANCILLARY);
        assert!(as_length::<usize, u32>(usize::MAX).is_err());
    }
}
