//! Signals: a handler that runs during a wait, with `SA_RESTART` (`sigaction(2)`) or without, ends no wait; and a timer
//! that ticks again and again keeps no call past its limit.
//!
//! Handlers are the whole process's, so this binary is alone.
#![expect(unsafe_code, reason = "no safe interface sets a handler that interrupts calls")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    mem::MaybeUninit,
    process::Command,
    ptr,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socketpair},
    process::getpid,
    thread::{Pid, gettid},
};
use sealane::{Builder, Channel, Control, Error, Result, Wait};

use crate::support::{
    hostile::seqpacket,
    role, socket_path,
    threads::{SOON, Started, start},
};

/// The period of a timer.
const TICK: Duration = Duration::from_millis(2);
/// A deadline of many periods.
const LIMIT: Duration = Duration::from_millis(200);
const SIGNALS: usize = 10;
const WAITS: [Wait; 2] = [Wait::Adaptive { max_spin: Duration::from_micros(50) }, Wait::Block];

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Installs handlers: `SIGUSR1` interrupts calls, and `SIGUSR2` those that the kernel does not restart by itself.
fn set_handlers() {
    for (signal, flags) in [(libc::SIGUSR1, 0), (libc::SIGUSR2, libc::SA_RESTART)] {
        // SAFETY: zero is a value of all fields: no flags, and no signals that are blocked.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = flags;
        // SAFETY: contract of `sigaction(2)`: a live action, whose handler only adds to an atomic.
        let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0);
    }
}

fn send(signal: libc::c_int, thread: Pid) {
    let (process, thread) = (getpid().as_raw_nonzero().get(), thread.as_raw_nonzero().get());
    // SAFETY: contract of `tgkill(2)`: numbers, of a thread of this process.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    assert_eq!(result, 0);
}

/// Interrupts `thread`, and waits until it has been.
fn interrupt(thread: Pid) {
    let before = HANDLED.load(SeqCst);
    send(libc::SIGUSR1, thread);
    let end = Instant::now() + SOON;
    while HANDLED.load(SeqCst) == before {
        assert!(Instant::now() < end, "the handler has not run");
        thread::yield_now();
    }
}

/// Lets `wait` sleep on one end, interrupts it again and again, and ends the wait by `end` on the other.
fn goes_on<T: Send + 'static>(
    (mut a, mut b): (Channel, Channel),
    wait: impl FnOnce(&mut Channel) -> Result<T> + Send + 'static,
    end: impl FnOnce(&mut Channel),
) -> T {
    let (tell, thread) = mpsc::channel();
    let mut waiting = start(move || {
        tell.send(gettid()).unwrap();
        wait(&mut a)
    });
    let thread = thread.recv().unwrap();
    for _ in 0..SIGNALS {
        waiting = waiting.asleep();
        interrupt(thread);
    }
    let waiting = waiting.asleep();
    end(&mut b);
    waiting.result().unwrap()
}

/// A call in a thread of its own, under a timer that ticks until it has returned.
fn ticking<T: Send + 'static>(signal: libc::c_int, call: impl FnOnce() -> T + Send + 'static) -> Started<T> {
    start(move || {
        let (thread, over) = (gettid(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    send(signal, thread);
                    thread::sleep(TICK);
                }
            });
            let result = call();
            over.store(true, SeqCst);
            result
        })
    })
}

/// Waits until a timer has ticked some more.
fn ticks() {
    let (before, end) = (HANDLED.load(SeqCst), Instant::now() + SOON);
    while HANDLED.load(SeqCst) < before + SIGNALS {
        assert!(Instant::now() < end, "nothing ticks");
        thread::yield_now();
    }
}

#[test]
fn a_timer_keeps_no_channel_from_being_established_or_given_up_in_time() {
    set_handlers();
    let (directory, path) = socket_path();
    let patient = Channel::builder().handshake_timeout(SOON);
    let hasty = Channel::builder().handshake_timeout(LIMIT);
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        ticking(signal, Channel::pair).result().unwrap();

        // The backlog stays full.
        let name = path.with_extension("full");
        let busy = seqpacket();
        bind(&busy, &SocketAddrUnix::new(&name).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| hasty.try_connect(&name).ok()).collect();
        let connecting = ticking(signal, {
            let (hasty, name) = (hasty.clone(), name.clone());
            move || hasty.connect(name)
        });
        let result = connecting.result();
        assert!(matches!(result, Err(Error::Timeout)), "{result:?}");
        // The backlog gets space.
        let connecting = ticking(signal, {
            let (patient, name) = (patient.clone(), name.clone());
            move || patient.connect(name)
        });
        ticks();
        let before = waiting.len();
        drop(waiting);
        for _ in 0..=before {
            let client = accept(&busy).unwrap();
            let _ = patient.handshake(client).unwrap().finish();
        }
        connecting.result().unwrap();
        std::fs::remove_file(&name).unwrap();

        // The path is taken over, after a wait for its lock.
        bind(seqpacket(), &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let lock = std::fs::File::open(&directory).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let listen_at = |builder: &Builder| {
            let (builder, path) = (builder.clone(), path.clone());
            move || builder.listen(path)
        };
        assert!(ticking(signal, listen_at(&hasty)).result().is_err());
        let listening = ticking(signal, listen_at(&patient));
        ticks();
        flock(&lock, FlockOperation::Unlock).unwrap();
        let listener = listening.result().unwrap();

        // One client never comes, and one comes late.
        let accepting = ticking(signal, move || (listener.accept_timeout(LIMIT), listener));
        let (nobody, listener) = accepting.result();
        assert!(matches!(nobody, Err(Error::Timeout)), "{nobody:?}");
        let accepting = ticking(signal, move || listener.accept());
        ticks();
        let client = ticking(signal, {
            let (patient, path) = (patient.clone(), path.clone());
            move || patient.connect(path)
        });
        accepting.result().unwrap();
        client.result().unwrap();

        // The peer sends nothing.
        let (ours, _silent) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let handshake = hasty.handshake(ours).unwrap();
        assert!(matches!(ticking(signal, || handshake.finish()).result(), Err(Error::Timeout)));

        // One child answers under a timer of its own, and one has to be killed.
        let spawn = |builder: &Builder, mut command: Command| {
            let builder = builder.clone();
            command.env("SIGNAL", signal.to_string());
            ticking(signal, move || builder.spawn(command))
        };
        let (mut channel, mut child) = spawn(&patient, role(inherits_under_a_timer)).result().unwrap();
        assert_eq!(channel.recv_timeout(SOON).unwrap().control(), b"here");
        assert!(child.wait().unwrap().success());
        let mut silent = Command::new("sleep");
        silent.arg("1000");
        assert!(matches!(spawn(&hasty, silent).result(), Err(Error::Timeout)));
    }
}

#[test]
#[ignore = "the child of another test"]
fn inherits_under_a_timer() {
    set_handlers();
    let signal = std::env::var("SIGNAL").unwrap().parse().unwrap();
    let mut channel = ticking(signal, Channel::inherited).result().unwrap();
    channel.send(b"here").unwrap();
}

#[test]
fn a_signal_ends_no_wait() {
    set_handlers();
    for wait in WAITS {
        let channel = || Channel::builder().ring_capacity(4096).wait(wait).pair().unwrap();
        let control = |message: sealane::Message| message.control().to_vec();
        let packet = |peer: &mut Channel| peer.send(b"packet").unwrap();
        assert_eq!(goes_on(channel(), move |a| a.recv().map(control), packet), b"packet");
        assert_eq!(goes_on(channel(), move |a| a.recv_timeout(3 * SOON).map(control), packet), b"packet");
        let record = |peer: &mut Channel| peer.loan(8).unwrap().send_with(b"record").unwrap();
        assert_eq!(goes_on(channel(), move |a| a.recv().map(control), record), b"record");
        assert_eq!(goes_on(channel(), move |a| a.recv_timeout(3 * SOON).map(control), record), b"record");
        // The calls wait for space, in the ring and in the socket.
        let (mut a, b) = channel();
        a.loan(960).unwrap().send_with(&[0; 4096 - 64 - 960]).unwrap();
        goes_on((a, b), |a| a.loan(960).map(drop), |b| drop(b.recv().unwrap()));
        let (mut a, b) = channel();
        while a.try_send(&[0; 500]).is_ok() {}
        goes_on(
            (a, b),
            |a| a.send(Control::new(b"last")),
            |b| {
                while b.recv_timeout(SOON).unwrap().control() != b"last" {}
            },
        );
    }
}
