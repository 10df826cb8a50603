//! A process whose standard streams are closed, as a daemon's often are: no descriptor of ours takes their numbers, so that
//! nothing printed goes into a socket.
//!
//! The streams are a process's, so each case is a process of its own.
#![expect(unsafe_code, reason = "no safe interface closes a descriptor by its number, or writes to one")]

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    panic, process, thread,
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    net::{bind, listen},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use sealane::{Channel, Control, Error, Listener, SealedBuffer, SealedBufferMut};

use crate::support::{
    hostile::{LONG, abstract_name, address, seqpacket, seqpacket_pair},
    role, socket_path,
    threads::bounded,
};

/// The streams to close, as in `02`.
const CLOSED: &str = "SEALANE_TEST_CLOSED";

/// Closes the streams that the environment names, and lets failures be seen nevertheless: in the file `SEALANE_TEST_LOG`.
fn close_streams() -> Vec<RawFd> {
    let log = File::options().append(true).open(env::var_os("SEALANE_TEST_LOG").unwrap()).unwrap();
    let log = File::from(fcntl_dupfd_cloexec(&log, 20).unwrap());
    panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(&log, "{panic}");
        process::exit(1);
    }));
    let closed = env::var(CLOSED).unwrap();
    let closed: Vec<RawFd> = closed.chars().map(|stream| stream.to_string().parse().unwrap()).collect();
    for stream in &closed {
        // SAFETY: contract of `close(2)`: a number; the standard library does not rely on its file.
        assert_eq!(unsafe { libc::close(*stream) }, 0);
    }
    closed
}

/// Asserts that nothing is open under these numbers, so that printed text goes nowhere.
#[track_caller]
fn assert_free(streams: &[RawFd]) {
    for stream in streams {
        let found = fs::read_link(format!("/proc/self/fd/{stream}"));
        assert!(found.is_err(), "{stream} is {found:?}");
        // SAFETY: contract of `write(2)`: one live byte.
        let written = unsafe { libc::write(*stream, b"x".as_ptr().cast(), 1) };
        assert_eq!(written, -1);
    }
}

/// All ways to close some of the three.
const CASES: [&str; 7] = ["0", "1", "2", "01", "02", "12", "012"];

fn in_each_case(test: impl Fn() + Copy) {
    let _guard = bounded();
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let log = directory.path().join(case);
        File::create(&log).unwrap();
        let mut command = role(test);
        command.env(CLOSED, case).env("SEALANE_TEST_LOG", &log);
        let status = command.status().unwrap();
        assert!(status.success(), "{case} closed: {status}: {}", fs::read_to_string(log).unwrap());
    }
}

#[test]
fn a_process_without_standard_streams_has_channels_above_them() {
    in_each_case(has_no_standard_streams);
}

fn talk(a: &mut Channel, b: &mut Channel, closed: &[RawFd]) {
    let file = File::open("/proc/self/exe").unwrap();
    // The process may have taken one of the numbers itself.
    let file = fcntl_dupfd_cloexec(file, 3).unwrap();
    a.loan(3).unwrap().send_with(Control::new(b"files").fds([&file, &file, &file, &file])).unwrap();
    a.send(Control::default().fd(&file)).unwrap();
    for count in [4, 1] {
        let fds = b.recv_timeout(LONG).unwrap().take_fds();
        assert_eq!(fds.len(), count);
        assert!(fds.iter().all(|fd| fd.as_raw_fd() > 2), "{fds:?}");
        assert_free(closed);
    }
}

#[test]
#[ignore = "the child of another test"]
fn has_no_standard_streams() {
    let closed = &*close_streams();
    let (mut a, mut b) = Channel::pair().unwrap();
    assert_free(closed);
    talk(&mut a, &mut b, closed);

    // A socket from the caller may have such a number.
    let (ours, theirs) = seqpacket_pair();
    assert!(ours.as_raw_fd() < 3);
    let (ours, theirs) = (Channel::builder().handshake(ours), Channel::builder().handshake(theirs));
    assert_free(closed);
    let theirs = thread::spawn(|| theirs.unwrap().finish().unwrap());
    talk(&mut ours.unwrap().finish().unwrap(), &mut theirs.join().unwrap(), closed);
    let socket = seqpacket();
    let name = abstract_name();
    bind(&socket, &address(&name)).unwrap();
    listen(&socket, 1).unwrap();
    let given = Channel::builder().listen_on(socket).unwrap();
    assert_free(closed);

    let (_directory, path) = socket_path();
    bind(seqpacket(), &address(&path)).unwrap();
    let taken_over = Listener::bind(&path).unwrap();
    assert_free(closed);
    for (listener, name) in [(&given, name), (&taken_over, path)] {
        let client = Channel::builder().try_connect(name).unwrap();
        assert_free(closed);
        let client = thread::spawn(|| client.finish().unwrap());
        talk(&mut listener.accept().unwrap(), &mut client.join().unwrap(), closed);
    }

    let buffer = SealedBufferMut::new(4096).unwrap();
    assert_free(closed);
    let buffer = buffer.seal().unwrap();
    let low = buffer.as_fd().as_raw_fd();
    assert!(low > 2);
    let copy: OwnedFd = rustix::io::dup(&buffer).unwrap();
    assert!(copy.as_raw_fd() < 3);
    let _copy = SealedBuffer::try_from(copy).unwrap();
    assert_free(closed);

    let (mut channel, mut child) = Channel::spawn(role(answers_without_standard_streams)).unwrap();
    assert_free(closed);
    channel.send(b"hello").unwrap();
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"hello");
    drop(channel);
    assert!(child.wait().unwrap().success());
    // A child that gets no channel is waited for by a descriptor.
    assert!(matches!(Channel::spawn(process::Command::new("true")), Err(Error::Handshake(_))));
    assert_free(closed);
    #[cfg(feature = "tokio")]
    tokio_has_duplicates_above_them(closed);
    process::exit(0);
}

/// The runtime's own descriptors may be there, and no others.
#[cfg(feature = "tokio")]
fn tokio_has_duplicates_above_them(closed: &[RawFd]) {
    let (a, b) = Channel::pair().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let found = |stream: &RawFd| fs::read_link(format!("/proc/self/fd/{stream}")).ok();
    let before: Vec<_> = closed.iter().map(found).collect();
    let _channels = [a, b].map(|channel| sealane::tokio::Channel::try_from(channel).unwrap());
    assert_eq!(closed.iter().map(found).collect::<Vec<_>>(), before);
}

#[test]
#[ignore = "the child of another test"]
fn answers_without_standard_streams() {
    let closed = close_streams();
    let mut channel = Channel::inherited().unwrap();
    assert_free(&closed);
    let message = channel.recv_timeout(LONG).unwrap();
    channel.send(message.control()).unwrap();
    assert!(matches!(channel.recv(), Err(Error::Disconnected)));
    process::exit(0);
}

#[test]
fn descriptors_that_cannot_be_moved_above_the_standard_streams_are_lost_by_name() {
    in_each_case(has_no_descriptors_left_but_theirs);
}

#[test]
#[ignore = "the child of another test"]
fn has_no_descriptors_left_but_theirs() {
    let closed = close_streams();
    let (mut a, mut b) = Channel::pair().unwrap();
    let file = fcntl_dupfd_cloexec(File::open("/proc/self/exe").unwrap(), 3).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), ..getrlimit(Resource::Nofile) }).unwrap();
    let mut taken: Vec<OwnedFd> = std::iter::from_fn(|| fcntl_dupfd_cloexec(&file, 3).ok()).collect();
    assert_free(&closed);
    // One descriptor arrives above the streams, and the second finds only their numbers free.
    taken.pop().unwrap();
    a.send(Control::default().fds([&file, &file])).unwrap();
    a.send(Control::default().fd(&file)).unwrap();
    let lost = b.recv_timeout(LONG);
    assert!(matches!(lost, Err(Error::FdsLost { expected: 2, received: 0 | 1 })), "{lost:?}");
    assert_free(&closed);
    assert_eq!(b.recv_timeout(LONG).unwrap().fds().len(), 1);
    taken.extend(fcntl_dupfd_cloexec(&file, 3));
    for _ in 0..2 {
        assert!(matches!(Channel::pair(), Err(Error::Io { .. })));
        assert!(matches!(Listener::bind(abstract_name()), Err(Error::Io { .. })));
        assert!(matches!(SealedBufferMut::new(1), Err(Error::Io { .. })));
        assert_free(&closed);
    }
    drop(taken);
    talk(&mut a, &mut b, &closed);
    process::exit(0);
}
