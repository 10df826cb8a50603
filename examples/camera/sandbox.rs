//! The algorithm's sandbox: of all system calls only those that a channel and its frame buffers need, and no files.
//!
//! Entered once the channel is there. What it allows is also the list of docs/security.md.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::{Result, output::note};

/// What a `Receiver` and a `Sender` call once the handshake is done: packets and descriptors; sleeping; the end.
const CHANNEL: [i64; 9] = [
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_ppoll,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_futex,
];
/// What the standard library and its allocator call, and the clock where it is a system call.
const RUNTIME: [i64; 10] = [
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_exit_group,
];
/// What the algorithm itself calls: it looks at frame buffers. Dmabufs are mapped, too, and there is one more call for them.
const BUFFERS: [i64; 5] =
    [libc::SYS_pread64, libc::SYS_fcntl, libc::SYS_fstat, libc::SYS_statx, libc::SYS_fstatfs];

/// The process's sandbox: there is one, and no way out.
pub(crate) struct Sandbox;

impl Sandbox {
    /// Shuts this process in, for good. Files are out of reach twice over: by landlock, where the kernel has it, and by
    /// seccomp, without which there is no sandbox.
    pub(crate) fn enter() -> Result<()> {
        let files =
            Ruleset::default().handle_access(AccessFs::from_all(ABI::V1))?.create()?.restrict_self()?;
        if files.ruleset == RulesetStatus::NotEnforced {
            note(format_args!(
                "camera algorithm: this kernel has no landlock; seccomp alone keeps files out of reach"
            ));
        }
        let calls = CHANNEL.into_iter().chain(RUNTIME).chain(BUFFERS);
        let mut allowed: BTreeMap<i64, _> = calls.map(|call| (call, Vec::new())).collect();
        // Of all that `ioctl` can do, the one request of a dmabuf that is looked at.
        let syncs =
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, video::SYNC_REQUEST.into())?;
        allowed.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![syncs])?]);
        let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let filter =
            SeccompFilter::new(allowed, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
        apply_filter(&BpfProgram::try_from(filter)?)?;
        Ok(())
    }

    /// Tries what it must not: opening a file, making a socket. How many of the two were refused.
    pub(crate) fn try_to_escape() -> u32 {
        let refused = [File::open("/dev/null").err(), UnixDatagram::unbound().err()];
        let refused =
            refused.into_iter().flatten().filter(|error| error.kind() == ErrorKind::PermissionDenied);
        u32::try_from(refused.count()).unwrap_or(0)
    }

    /// How many acts [`try_to_escape`](Self::try_to_escape) tries.
    pub(crate) const ACTS: u32 = 2;
}
