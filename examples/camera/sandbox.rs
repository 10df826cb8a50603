//! The algorithm's sandbox: of all system calls only those that a channel and its frame buffers need, and no files.
//!
//! Entered once the channel is there. What it allows is also the list of docs/sandbox.md.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::net::UnixDatagram;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::fs::OFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::{Result, output::note};

/// System calls of a `Receiver` and a `Sender` after the handshake: packets and descriptors; sleeping; the end.
const CHANNEL: [i64; 8] = [
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_ppoll,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_futex,
];
/// System calls of the standard library and its allocator, and the clock where it is one.
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
/// System calls of the algorithm itself, which reads frame buffers. Dmabufs are mapped, too, and there is one more call for them.
const BUFFERS: [i64; 3] = [libc::SYS_pread64, libc::SYS_fstat, libc::SYS_fstatfs];
/// The permitted commands of `fcntl(2)`: the state of a descriptor, the seals of a memfd, a copy of what the kernel
/// put below 3.
///
/// Nothing else: with `F_SETOWN`, `F_SETSIG` and `O_ASYNC` the kernel sends any signal to any process of this user, whenever
/// the descriptor becomes readable.
const FCNTL: [i32; 4] = [libc::F_GETFD, libc::F_GETFL, libc::F_GET_SEALS, libc::F_DUPFD_CLOEXEC];

/// The process's sandbox: there is one, and no way out.
pub(crate) struct Sandbox;

impl Sandbox {
    /// Shuts this process in, for good. Files, and the processes outside, are out of reach twice over: by landlock, as far as
    /// the kernel has it (files: Linux 5.13, signals and abstract sockets: 6.12), and by seccomp, without which there is no
    /// sandbox.
    pub(crate) fn enter() -> Result<()> {
        let outside = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .restrict_self()?;
        if outside.ruleset == RulesetStatus::NotEnforced {
            note(format_args!(
                "camera algorithm: this kernel has no landlock; seccomp alone keeps files out of reach"
            ));
        }
        let calls = CHANNEL.into_iter().chain(RUNTIME).chain(BUFFERS);
        let mut allowed: BTreeMap<i64, _> = calls.map(|call| (call, Vec::new())).collect();
        // `ioctl` is allowed for one request only, that of a dmabuf which is looked at. `FIOSETOWN`, with which
        // `fcntl`'s way to a signal begins as well, is not among them.
        allowed.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![is(1, video::SYNC_REQUEST)?])?]);
        let commands = FCNTL
            .into_iter()
            .map(|command| -> Result<_> { Ok(SeccompRule::new(vec![is(1, command.cast_unsigned())?])?) });
        allowed.insert(libc::SYS_fcntl, commands.collect::<Result<_>>()?);
        // A received socket that is closed is not to linger.
        let [level, option] = [libc::SOL_SOCKET, libc::SO_LINGER].map(i32::cast_unsigned);
        allowed.insert(libc::SYS_setsockopt, vec![SeccompRule::new(vec![is(1, level)?, is(2, option)?])?]);
        let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let filter =
            SeccompFilter::new(allowed, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
        apply_filter(&BpfProgram::try_from(filter)?)?;
        Ok(())
    }

    /// Tries what it must not: opening a file, making a socket, having signals sent by the kernel. How many of the three were
    /// refused.
    pub(crate) fn try_to_escape() -> u32 {
        let signals = OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned());
        let refused = [
            File::open("/dev/null").err(),
            UnixDatagram::unbound().err(),
            rustix::fs::fcntl_setfl(rustix::stdio::stderr(), signals).err().map(Error::from),
        ];
        let refused =
            refused.into_iter().flatten().filter(|error| error.kind() == ErrorKind::PermissionDenied);
        u32::try_from(refused.count()).unwrap_or(0)
    }

    /// How many acts [`try_to_escape`](Self::try_to_escape) tries.
    pub(crate) const ACTS: u32 = 3;
}

/// The condition that this 32-bit argument of a system call is `value`.
fn is(argument: u8, value: u32) -> Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())?)
}
