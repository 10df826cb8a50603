//! The lists of system calls in docs/sandbox.md are complete: each part of the library runs under a filter that allows what
//! the page names, and nothing else.
#![expect(unsafe_code, reason = "a handler of SIGSYS, which says what was missing")]

use std::{
    collections::BTreeMap,
    env,
    hint::spin_loop,
    io::stdin,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixListener, process::ExitStatusExt},
    },
    process::{Child, Command, abort, exit},
    ptr,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sealane::{Builder, Channel, Control, Error, Event, SealedBuffer, SealedBufferMut, Slow};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::support::{role, threads::SOON};

const PAGE: &str = include_str!("../../docs/sandbox.md");
/// Where a role listens, or connects.
const SOCKET: &str = "SEALANE_TEST_SOCKET";
/// The time of waits that end with a timeout.
const BRIEFLY: Duration = Duration::from_millis(1);

macro_rules! numbers {
    ($($name:ident $number:ident)*) => { [$((stringify!($name), libc::$number)),*] };
}

/// The system calls that the page names.
fn numbers() -> BTreeMap<&'static str, i64> {
    let mut numbers = BTreeMap::from(numbers! {
        accept4 SYS_accept4 bind SYS_bind brk SYS_brk clock_gettime SYS_clock_gettime close SYS_close
        connect SYS_connect epoll_create1 SYS_epoll_create1 epoll_ctl SYS_epoll_ctl epoll_pwait SYS_epoll_pwait
        exit SYS_exit exit_group SYS_exit_group fallocate SYS_fallocate fchmod SYS_fchmod fcntl SYS_fcntl
        flock SYS_flock fstat SYS_fstat fstatfs SYS_fstatfs ftruncate SYS_ftruncate futex SYS_futex
        getpeername SYS_getpeername getpid SYS_getpid getsockopt SYS_getsockopt getuid SYS_getuid
        getcwd SYS_getcwd geteuid SYS_geteuid getgid SYS_getgid getrandom SYS_getrandom gettid SYS_gettid ioctl SYS_ioctl listen SYS_listen madvise SYS_madvise memfd_create SYS_memfd_create
        mmap SYS_mmap mprotect SYS_mprotect mremap SYS_mremap munmap SYS_munmap openat SYS_openat ppoll SYS_ppoll
        prlimit64 SYS_prlimit64 read SYS_read recvmsg SYS_recvmsg restart_syscall SYS_restart_syscall
        rt_sigaction SYS_rt_sigaction rt_sigprocmask SYS_rt_sigprocmask rt_sigreturn SYS_rt_sigreturn sched_getaffinity SYS_sched_getaffinity
        sched_yield SYS_sched_yield sendmsg SYS_sendmsg
        sendto SYS_sendto setsockopt SYS_setsockopt shutdown SYS_shutdown sigaltstack SYS_sigaltstack
        socket SYS_socket socketpair SYS_socketpair statx SYS_statx sysinfo SYS_sysinfo
        tgkill SYS_tgkill        timerfd_create SYS_timerfd_create timerfd_settime SYS_timerfd_settime
        waitid SYS_waitid write SYS_write
    });
    // Where there is no such call, the C library makes this one.
    #[cfg(not(target_arch = "x86_64"))]
    numbers.insert("unlink", libc::SYS_unlinkat);
    #[cfg(target_arch = "x86_64")]
    numbers.insert("unlink", libc::SYS_unlink);
    numbers
}

/// The part of the page below a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let mut found = PAGE.split("\n## ").filter(|section| section.starts_with(heading));
    found.next().unwrap_or_else(|| panic!("docs/sandbox.md has no part {heading:?}"))
}

/// All words in backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The system calls in a part's table: those of `role`, and those of every side.
fn table(heading: &str, role: &str) -> Vec<&'static str> {
    let rows = section(heading).lines().filter(|line| line.starts_with("| `"));
    rows.filter(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        cells.get(2).is_none_or(|roles| roles.contains("every side") || words(roles).any(|word| word == role))
    })
    .flat_map(|row| words(row.trim_matches('|').split('|').next().unwrap()))
    .collect()
}

/// The standard library's own.
fn runtime() -> impl Iterator<Item = &'static str> {
    let text = section("A channel").split("the standard library's own:").nth(1).unwrap();
    words(text).filter(|word| !word.starts_with("F_"))
}

/// From here on this thread makes these calls, those of the standard library and no others; the name of another one is printed,
/// and is the end.
fn allow_only(calls: impl IntoIterator<Item = &'static str>) {
    install_handler();
    let numbers = numbers();
    let number = |call| *numbers.get(call).unwrap_or_else(|| panic!("{call}: add its number to this test"));
    // A test reports to its parent by writing.
    let calls = calls.into_iter().chain(runtime()).map(number).chain([libc::SYS_write]);
    let rules = calls.map(|call| (call, Vec::new())).collect();
    let architecture = env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, architecture).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

fn install_handler() {
    extern "C" fn say(_: i32, info: *const [i32; 7]) {
        // SAFETY: a `siginfo_t` has 128 bytes; of SIGSYS, the call's number is behind three numbers, padding and an address.
        let [.., number] = unsafe { info.read() };
        eprintln!("system call {number} is not in docs/sandbox.md");
        // `exit` would wait for the locks of whatever was interrupted.
        // SAFETY: `_exit(2)` ends the process.
        unsafe { libc::_exit(1) };
    }
    // SAFETY: all of a `sigaction` may be zero.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = say as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: contract of `sigaction(2)`: a live structure, whose handler takes what `SA_SIGINFO` gives.
    unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) };
}

fn builder() -> Builder {
    Channel::builder().ring_capacity(1 << 16).handshake_timeout(SOON)
}

/// Uses both directions: a payload, a descriptor, a reply.
fn exchange(a: &mut Channel, b: &mut Channel) {
    a.loan(100).unwrap().request(Control::default().fd(&stdin())).unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    b.reply(message.reply_token().unwrap(), b"reply").unwrap();
    assert_eq!(a.recv_timeout(SOON).unwrap().control(), b"reply");
}

fn passes(child: &mut Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: what is missing in docs/sandbox.md is said above");
}

fn passes_alone(role: &mut Command) {
    passes(&mut role.spawn().unwrap());
}

#[test]
fn a_crash_makes_the_calls_that_are_listed() {
    let status = role(crashes).status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
}

#[test]
#[ignore = "the child of another test"]
fn crashes() {
    allow_only(table("A crash", ""));
    abort();
}

#[test]
fn a_channel_makes_the_calls_that_are_listed() {
    passes_alone(&mut role(uses_a_channel));
}

#[test]
#[ignore = "the child of another test"]
fn uses_a_channel() {
    let (mut a, mut b) = builder().pair().unwrap();
    allow_only(table("A channel", ""));
    exchange(&mut a, &mut b);
    a.send(&[7; 200]).unwrap();
    a.send(&[7; 2000]).unwrap();
    assert_eq!(b.recv().unwrap().control().len(), 200);
    drop(b.recv_timeout(SOON).unwrap());
    assert!(matches!(b.recv_timeout(BRIEFLY), Err(Error::Timeout)));
    assert!(b.try_recv().unwrap().is_none());
    while let Some(loan) = a.try_loan(10_000).unwrap() {
        loan.send().unwrap();
    }
    assert!(!a.sender.has_space(10_000).unwrap());
    assert!(matches!(a.sender.loan_timeout(10_000, BRIEFLY), Err(Error::Timeout)));
    while a.try_send(&[0; 1000]).is_ok() {}
    let mut held = Vec::new();
    while let Some(mut message) = b.try_recv().unwrap() {
        held.extend(message.take_payload());
    }
    assert!(a.sender.has_space(10_000).is_ok());
    drop(held);
    drop(a);
    assert!(matches!(b.recv(), Err(Error::Disconnected)));
    drop(b);
    exit(0);
}

#[test]
fn both_sides_of_a_connection_make_the_calls_that_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    // A server that was killed has left its socket there.
    drop(UnixListener::bind(dir.path().join("socket")).unwrap());
    let start = |mut role: Command| role.env(SOCKET, "socket").current_dir(&dir).spawn().unwrap();
    let (mut server, mut client) = (start(role(listens)), start(role(connects)));
    if !client.wait().unwrap().success() {
        // It would wait for a client for ever.
        server.kill().unwrap();
    }
    passes(&mut client);
    passes(&mut server);
}

#[test]
#[ignore = "the child of another test"]
fn listens() {
    let path = env::var_os(SOCKET).unwrap();
    allow_only(table("The handshake", "listen"));
    let listener = builder().listen(path).unwrap();
    let mut channel = listener.accept().unwrap();
    drop(listener);
    assert!(matches!(channel.recv(), Err(Error::Disconnected)));
    exit(0);
}

#[test]
#[ignore = "the child of another test"]
fn connects() {
    let path = env::var_os(SOCKET).unwrap();
    allow_only(table("The handshake", "connect"));
    let end = Instant::now() + SOON;
    // The server has yet to listen.
    let channel = loop {
        match builder().connect(&path) {
            Err(Error::Io { .. }) if Instant::now() < end => spin_loop(),
            result => break result.unwrap(),
        }
    };
    drop(channel);
    exit(0);
}

#[test]
fn a_child_makes_the_calls_that_are_listed() {
    let (channel, mut child) = builder().spawn(role(inherits)).unwrap();
    drop(channel);
    passes(&mut child);
}

#[test]
#[ignore = "the child of another test"]
fn inherits() {
    allow_only(table("The handshake", "inherited"));
    let mut channel = builder().inherited().unwrap();
    assert!(matches!(channel.recv(), Err(Error::Disconnected)));
    exit(0);
}

#[test]
fn an_adopted_socket_makes_the_calls_that_are_listed() {
    passes_alone(&mut role(adopts));
}

#[test]
#[ignore = "the child of another test"]
fn adopts() {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    allow_only(table("The handshake", "handshake").into_iter().chain(table("A channel", "")));
    let [mut a, mut b] = [a, b].map(|socket| builder().handshake(socket).unwrap());
    while !a.advance().unwrap() | !b.advance().unwrap() {}
    exchange(&mut a.finish().unwrap(), &mut b.finish().unwrap());
    exit(0);
}

#[test]
fn publisher_and_subscriber_make_the_calls_that_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let start = |mut role: Command| role.env(SOCKET, "socket").current_dir(&dir).spawn().unwrap();
    let (mut publisher, mut subscriber) = (start(role(publishes)), start(role(subscribes)));
    if !subscriber.wait().unwrap().success() {
        publisher.kill().unwrap();
    }
    passes(&mut subscriber);
    passes(&mut publisher);
}

#[test]
#[ignore = "the child of another test"]
fn publishes() {
    let path = env::var_os(SOCKET).unwrap();
    let calls = table("The handshake", "listen").into_iter().chain(table("A channel", ""));
    allow_only(calls.chain(table("A publisher", "")));
    let slow = Slow::Wait(BRIEFLY);
    let mut publisher = builder().max_fds(1).slow(slow).publish(path).unwrap();
    let mut asked = false;
    loop {
        match publisher.wait_event(SOON).unwrap().expect("the subscriber comes and goes") {
            Event::Joined(_) => {
                publisher.send(Control::new(b"first").fd(&stdin())).unwrap();
                publisher.loan(100).unwrap().send_with(&[7; 2000]).unwrap();
            }
            Event::Message(id, message) => {
                publisher.reply(id, message.reply_token().unwrap(), b"reply").unwrap();
                asked = true;
                // It holds the first payload.
                while let Some(loan) = publisher.try_loan(10_000).unwrap() {
                    loan.send().unwrap();
                }
                let _ = publisher.loan_timeout(10_000, BRIEFLY / 2);
                publisher.loan(10_000).unwrap().send().unwrap();
            }
            Event::Left(_, Error::TooSlow) if asked => break,
            other => panic!("{other:?}"),
        }
    }
    drop(publisher);
    exit(0);
}

#[test]
#[ignore = "the child of another test"]
fn subscribes() {
    let path = env::var_os(SOCKET).unwrap();
    allow_only(table("The handshake", "connect").into_iter().chain(table("A channel", "")));
    let end = Instant::now() + SOON;
    // The publisher has yet to listen.
    let mut subscriber = loop {
        match builder().max_fds(1).subscribe(&path) {
            Err(Error::Io { .. }) if Instant::now() < end => spin_loop(),
            result => break result.unwrap(),
        }
    };
    assert_eq!(subscriber.recv().unwrap().fds().len(), 1);
    let held = subscriber.recv_timeout(SOON).unwrap();
    assert_eq!(subscriber.call(b"question", SOON).unwrap().control(), b"reply");
    let error = loop {
        if let Err(error) = subscriber.recv_timeout(SOON) {
            break error;
        }
    };
    assert!(matches!(error, Error::TooSlow), "{error:?}");
    drop((held, subscriber));
    exit(0);
}

#[test]
fn a_sealed_buffer_makes_the_calls_that_are_listed() {
    passes_alone(&mut role(seals));
}

#[test]
#[ignore = "the child of another test"]
fn seals() {
    let copy = |buffer: &SealedBuffer| -> OwnedFd { buffer.as_fd().try_clone_to_owned().unwrap() };
    let pipe = rustix::pipe::pipe().unwrap().0;
    allow_only(table("A `SealedBuffer`", ""));
    let mut draft = SealedBufferMut::new(10_000).unwrap();
    draft.fill(7);
    let buffer = draft.seal().unwrap();
    assert_eq!(*SealedBuffer::try_from(copy(&buffer)).unwrap(), [7; 10_000]);
    assert!(matches!(SealedBuffer::try_from(pipe), Err(Error::Sealed(_))));
    drop(buffer);
    exit(0);
}
