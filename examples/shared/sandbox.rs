//! A sandbox for a process with a channel: of all system calls only those that a channel needs, and no files.
//!
//! Entered once the channel is there. Its list is also that of docs/sandbox.md; a program adds the calls of its own work.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Signal, getpid, kill_process};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
const RUNTIME: [i64; 7] = [
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit_group,
];
/// System calls of a process that crashes: without them a crash is a loop. The standard library's handler of SIGSEGV gives the signal back to
/// the kernel and lets the instruction fail again (`rt_sigaction`); `abort(3)` sends itself SIGABRT; a thread that has panicked ends (`exit`).
const CRASH: [i64; 5] =
    [libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_getpid, libc::SYS_gettid, libc::SYS_exit];
/// The permitted commands of `fcntl(2)`: the state of a descriptor, the seals of a memfd, a copy of what the kernel
/// put below 3.
///
/// Nothing else: with `F_SETOWN`, `F_SETSIG` and `O_ASYNC` the kernel sends any signal to any process of this user, whenever
/// the descriptor becomes readable.
const FCNTL: [i32; 4] = [libc::F_GETFD, libc::F_GETFL, libc::F_GET_SEALS, libc::F_DUPFD_CLOEXEC];

/// The process's sandbox: there is one, and no way out.
pub(crate) struct Sandbox {
    allowed: BTreeMap<i64, Vec<SeccompRule>>,
}

impl Sandbox {
    /// A sandbox in which a channel works, and nothing else.
    pub(crate) fn for_channel() -> Result<Self> {
        let mut sandbox = Self { allowed: BTreeMap::new() }.allow(&CHANNEL).allow(&RUNTIME).allow(&CRASH);
        // Memory, and none that is executed.
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into());
        let plain = SeccompCondition::new(2, SeccompCmpArgLen::Dword, executable, 0)?;
        sandbox.allowed.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![plain])?]);
        sandbox = sandbox.allow_if(libc::SYS_madvise, &[(2, libc::MADV_DONTNEED.cast_unsigned())])?;
        // Remarks. Any other descriptor may be one that was inherited.
        sandbox = sandbox.allow_if(libc::SYS_write, &[(0, libc::STDERR_FILENO.cast_unsigned())])?;
        // Signals to this process itself, and to no other.
        sandbox = sandbox.allow_if(libc::SYS_tgkill, &[(0, std::process::id())])?;
        for command in FCNTL {
            sandbox = sandbox.allow_if(libc::SYS_fcntl, &[(1, command.cast_unsigned())])?;
        }
        // A received socket that is closed is not to linger.
        let [level, option] = [libc::SOL_SOCKET, libc::SO_LINGER].map(i32::cast_unsigned);
        sandbox.allow_if(libc::SYS_setsockopt, &[(1, level), (2, option)])
    }

    /// Permits these system calls, whatever their arguments.
    pub(crate) fn allow(mut self, calls: &[i64]) -> Self {
        self.allowed.extend(calls.iter().map(|&call| (call, Vec::new())));
        self
    }

    /// Permits a system call with these 32-bit arguments, each given by its index, besides those that are permitted already.
    pub(crate) fn allow_if(mut self, call: i64, arguments: &[(u8, u32)]) -> Result<Self> {
        let conditions = arguments.iter().map(|&(index, value)| {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
        });
        let rule = SeccompRule::new(conditions.collect::<std::result::Result<_, _>>()?)?;
        self.allowed.entry(call).or_default().push(rule);
        Ok(self)
    }

    /// Shuts this process in, for good. Files, networks and the processes outside are out of reach twice over: by landlock, as
    /// far as the kernel has it (files: Linux 5.13, TCP: 6.7, signals and abstract sockets: 6.12), and by seccomp, without which
    /// there is no sandbox. True if this kernel has landlock.
    pub(crate) fn enter(self) -> Result<bool> {
        let outside = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V6))?
            .handle_access(AccessNet::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .restrict_self()?;
        let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let machine = std::env::consts::ARCH.try_into()?;
        let filter = SeccompFilter::new(self.allowed, refuse, SeccompAction::Allow, machine)?;
        apply_filter(&BpfProgram::try_from(filter)?)?;
        Ok(outside.ruleset != RulesetStatus::NotEnforced)
    }

    /// Tries what it must not, and counts the acts that were refused: opening a file, making a socket, having signals sent by the
    /// kernel, sending one, starting a program.
    pub(crate) fn try_to_escape() -> u32 {
        let signals = OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned());
        let refused = [
            File::open("/dev/null").err(),
            UnixDatagram::unbound().err(),
            fcntl_setfl(rustix::stdio::stderr(), signals).err().map(io::Error::from),
            kill_process(getpid(), Signal::CONT).err().map(io::Error::from),
            Command::new("/bin/true").spawn().err(),
        ];
        let refused =
            refused.into_iter().flatten().filter(|error| error.kind() == ErrorKind::PermissionDenied);
        u32::try_from(refused.count()).unwrap_or(0)
    }

    /// How many acts [`try_to_escape`](Self::try_to_escape) tries.
    pub(crate) const ACTS: u32 = 5;
    /// The acts in words.
    pub(crate) const ACTS_IN_WORDS: &str =
        "open a file, make a socket, have a signal sent, send one, start a program";
}
