//! Signals: a handler that runs while somebody waits, without `SA_RESTART` (`sigaction(2)`), ends no wait.
#![expect(unsafe_code, reason = "no safe interface sets a handler that interrupts calls")]

use std::{
    mem::MaybeUninit,
    ptr,
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Instant,
};

use rustix::{
    process::getpid,
    thread::{Pid, gettid},
};
use sealane::{Channel, Control, Result, Wait};
use threads::{SOON, start};

#[path = "support/threads.rs"]
mod threads;

const SIGNALS: usize = 10;
const WAITS: [Wait; 2] = [Wait::Adaptive { max_spin: std::time::Duration::from_micros(50) }, Wait::Block];

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

/// From now on `SIGUSR1` interrupts calls.
fn set_handler() {
    // SAFETY: zero is a value of all fields: no flags, so calls are not begun again, and no signals that are blocked.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handle as *const () as usize;
    // SAFETY: contract of `sigaction(2)`: a live action, whose handler only adds to an atomic.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// Interrupts `thread`, and waits until it has been.
fn interrupt(thread: Pid) {
    let before = HANDLED.load(SeqCst);
    let (process, thread) = (getpid().as_raw_nonzero().get(), thread.as_raw_nonzero().get());
    // SAFETY: contract of `tgkill(2)`: numbers, of a thread of this process.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
    assert_eq!(result, 0);
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

/// One test, as it is one handler for the whole process.
#[test]
fn a_signal_ends_no_wait() {
    set_handler();
    for wait in WAITS {
        let channel = || Channel::builder().ring_capacity(4096).wait(wait).pair().unwrap();
        let control = |message: sealane::Message| message.control().to_vec();
        let packet = |peer: &mut Channel| peer.send(b"packet").unwrap();
        assert_eq!(goes_on(channel(), move |a| a.recv().map(control), packet), b"packet");
        assert_eq!(goes_on(channel(), move |a| a.recv_timeout(3 * SOON).map(control), packet), b"packet");
        let record = |peer: &mut Channel| peer.loan(8).unwrap().send_with(b"record").unwrap();
        assert_eq!(goes_on(channel(), move |a| a.recv().map(control), record), b"record");
        assert_eq!(goes_on(channel(), move |a| a.recv_timeout(3 * SOON).map(control), record), b"record");
        // Who waits for room, in the ring and in the socket.
        let (mut a, b) = channel();
        a.loan(4000).unwrap().send().unwrap();
        goes_on((a, b), |a| a.loan(4000).map(drop), |b| drop(b.recv().unwrap()));
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
