//! Programs that go into the background by `daemon(3)`, which forks: their channels work in the daemon.
#![expect(unsafe_code, reason = "`daemon` has no safe interface here")]

use std::{env, fs::File, io, path::Path};

use sealane::{Channel, Control, Error, Listener, SealedBuffer, SealedBufferMut};

use crate::support::{forks::end, hostile::LONG, is_abandoned, role, socket_path, threads::bounded};

const RING: usize = 64 << 10;
const PAYLOAD: usize = 16 << 10;
/// The path at which the daemon listens.
const PATH: &str = "DAEMONS_PATH";

/// Continues in a fork, in the background; the process that was started ends with status 0, and drops nothing.
fn daemon() {
    // SAFETY: the fork has this thread only, as in a program with one thread.
    let result = unsafe { libc::daemon(1, 1) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Memory that the allocator places anywhere.
fn heap() -> Vec<Vec<u8>> {
    (0..4).map(|_| vec![1; 3 << 20]).collect()
}

fn is_untouched(heap: &[Vec<u8>]) -> bool {
    heap.iter().flatten().all(|byte| *byte == 1)
}

/// Runs `body` in the daemon, which ends when that has returned. The message of a panic appears in the test's output.
fn in_daemon(body: impl FnOnce() + std::panic::UnwindSafe) -> ! {
    end(i32::from(std::panic::catch_unwind(body).is_err()))
}

#[test]
fn a_daemon_goes_on_with_its_channel() {
    let _guard = bounded();
    let (ended, its) = io::pipe().unwrap();
    let mut command = role(goes_into_the_background);
    command.stdin(its);
    let (channel, mut child) = Channel::builder().ring_capacity(RING).spawn(command).unwrap();
    let (mut sender, mut receiver) = channel.split();
    for byte in [1, 2, 3] {
        let mut loan = sender.loan(PAYLOAD).unwrap();
        loan.fill(byte);
        loan.send().unwrap();
    }
    assert!(child.wait().unwrap().success(), "the process that was started has ended");
    // The daemon has held the first payload since before the fork, and drops it.
    let mut loan = sender.loan_timeout(PAYLOAD, LONG).unwrap();
    loan.fill(4);
    loan.send().unwrap();

    let mut message = receiver.recv_timeout(LONG).unwrap();
    assert_eq!(message.control(), b"sealed");
    assert_eq!(message.payload().unwrap().to_vec(), [9; PAYLOAD]);
    let sealed = SealedBuffer::try_from(message.take_fds().remove(0)).unwrap();
    assert_eq!(*sealed, [7; 5000]);
    // The daemon has dropped its sender, and still receives.
    assert!(matches!(receiver.recv_timeout(LONG), Err(Error::Disconnected)));
    sender.send(b"end").unwrap();
    // The daemon then drops its receiver. Although it lives on, nothing stays open.
    while sender.send_timeout(b"?", LONG).is_ok() {}
    assert!(is_abandoned(&ended));
}

#[test]
#[ignore = "the child of another test"]
fn goes_into_the_background() {
    let mut channel = Channel::builder().ring_capacity(RING).inherited().unwrap();
    let held = channel.recv_timeout(LONG).unwrap();
    let mut draft = SealedBufferMut::new(5000).unwrap();
    draft.fill(7);
    daemon();
    in_daemon(std::panic::AssertUnwindSafe(move || {
        let heap = heap();
        assert_eq!(held.payload().unwrap().to_vec(), [1; PAYLOAD]);
        drop(held);
        for byte in [2, 3, 4] {
            let message = channel.recv_timeout(LONG).unwrap();
            assert_eq!(message.payload().unwrap().to_vec(), [byte; PAYLOAD]);
        }
        let sealed = draft.seal().unwrap();
        let mut loan = channel.loan(PAYLOAD).unwrap();
        loan.fill(9);
        loan.send_with(Control::new(b"sealed").fd(&sealed)).unwrap();
        let (sender, mut receiver) = channel.split();
        // A process that lives on with a duplicate keeps its own end open: the peer notices only the shutdown.
        let duplicate = rustix::io::dup(&receiver).unwrap();
        drop(sender);
        assert_eq!(receiver.recv_timeout(LONG).unwrap().control(), b"end");
        drop(receiver);
        assert!(is_untouched(&heap));
        drop((duplicate, sealed));
    }));
}

#[test]
fn a_daemon_goes_on_with_its_listener() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let (ended, its) = io::pipe().unwrap();
    let mut child = role(listens_in_the_background).env(PATH, &path).stdin(its).spawn().unwrap();
    assert!(child.wait().unwrap().success(), "the process that was started has ended");
    let mut client = Channel::connect(&path).unwrap();
    client.send(b"client").unwrap();
    assert_eq!(client.recv_timeout(LONG).unwrap().control(), b"welcome");
    assert!(!path.exists(), "the daemon has dropped its listener");
    drop(client);
    assert!(is_abandoned(&ended));
}

#[test]
#[ignore = "the child of another test"]
fn listens_in_the_background() {
    let path = env::var_os(PATH).unwrap();
    let listener = Listener::bind(Path::new(&path)).unwrap();
    daemon();
    in_daemon(std::panic::AssertUnwindSafe(move || {
        let heap = heap();
        let mut server = listener.accept().unwrap();
        assert_eq!(server.recv_timeout(LONG).unwrap().control(), b"client");
        drop(listener);
        server.send(b"welcome").unwrap();
        assert!(matches!(server.recv_timeout(LONG), Err(Error::Disconnected)));
        assert!(is_untouched(&heap));
    }));
}

#[test]
fn a_daemon_that_drops_what_it_has_keeps_its_own_memory() {
    let _guard = bounded();
    let (reader, writer) = io::pipe().unwrap();
    let mut child = role(drops_in_the_background).stdin(writer).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(io::read_to_string(File::from(std::os::fd::OwnedFd::from(reader))).unwrap(), "untouched");
}

#[test]
#[ignore = "the child of another test"]
fn drops_in_the_background() {
    let (mut a, b) = Channel::pair().unwrap();
    let loan = a.loan(1 << 20).unwrap();
    let drafts = [SealedBufferMut::new(1 << 20).unwrap(), SealedBufferMut::new(1).unwrap()];
    daemon();
    in_daemon(std::panic::AssertUnwindSafe(move || {
        let heap = heap();
        let mut loan = loan;
        loan.fill(9);
        assert!(is_untouched(&heap), "a loan is where it was");
        drop((loan, drafts, b));
        assert!(is_untouched(&heap), "nothing else is unmapped");
        // Standard input, which can be written to here.
        rustix::io::write(io::stdin(), b"untouched").unwrap();
    }));
}
