//! Mappings that fail leave nothing behind, and say why. They are counted in processes of their own.
#![expect(unsafe_code, reason = "what is locked, and who one is, has no safe interface here")]

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    fs::SealFlags,
    process::{Resource, Rlimit, getuid, setrlimit},
};
use sealane::{Channel, Error, Listener, SealedBuffer, SealedBufferMut};

use crate::support::{
    hostile::{Hello, LONG, Packet, Player, READY, SEALS, memfd, seqpacket_pair},
    role, socket_path,
    threads::bounded,
};

/// Bytes of address space, bytes that are locked (`proc_pid_status(5)`), and mappings.
fn memory() -> [usize; 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    [bytes("VmSize:"), bytes("VmLck:"), mappings]
}

/// Runs a role in a process of its own.
fn alone(test: impl Fn()) {
    let _guard = bounded();
    assert!(role(test).status().unwrap().success());
}

/// Prints a remark where standard output is not seen.
fn say(word: &str) {
    let _ = writeln!(io::stderr(), "{word}");
}

/// The same file, open for writing only.
fn write_only(file: &OwnedFd) -> OwnedFd {
    OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap().into()
}

#[test]
fn descriptors_that_cannot_be_mapped_leave_no_addresses_taken() {
    alone(is_sent_what_cannot_be_mapped);
}

#[test]
#[ignore = "the child of another test"]
fn is_sent_what_cannot_be_mapped() {
    let (_dir, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let hello = Hello::honest(16);
    let region = {
        let dense = memfd(hello.region(), hello.region(), SealFlags::empty());
        let region = write_only(&dense);
        rustix::fs::fcntl_add_seals(&region, SEALS).unwrap();
        region
    };
    let buffer = {
        let draft = memfd(1 << 20, 1 << 20, SealFlags::empty());
        let buffer = write_only(&draft);
        rustix::fs::fcntl_add_seals(&buffer, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
        buffer
    };
    let try_each = || {
        let client = Player::connect(&path);
        let (_space, for_peer) = seqpacket_pair();
        client.send(Packet::hello(&hello, vec![region.try_clone().unwrap(), for_peer]));
        client.send(Packet::new(READY));
        let handshake = listener.try_accept().unwrap().unwrap();
        drop(client);
        handshake.finish().unwrap_err();
        SealedBuffer::try_from(buffer.try_clone().unwrap()).unwrap_err();
    };
    try_each();
    let before = memory();
    for _ in 0..1000 {
        try_each();
    }
    assert_eq!(memory(), before, "address space, locked, mappings");
}

#[test]
fn a_limit_of_locked_memory_is_named_and_nothing_stays_behind() {
    alone(locks_all_that_it_maps);
}

#[test]
#[ignore = "the child of another test"]
fn locks_all_that_it_maps() {
    let limit = 4 << 20;
    if setrlimit(Resource::Memlock, Rlimit { current: Some(limit), maximum: Some(limit) }).is_err() {
        return say("left out: less may be locked here than this test wants");
    }
    if getuid().is_root() {
        // Root's locked memory is not limited. The raw system call changes this thread only, unlike the C library's.
        // SAFETY: `setresuid(2)` takes numbers; only the rights of this process change.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        if result != 0 {
            return say("left out: root may not become another user here");
        }
    }
    // SAFETY: `mlockall(2)` takes a number, and changes nothing that a program can read.
    let result = unsafe { libc::mlockall(libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());

    let is_named = |error: Error| {
        assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::OutOfMemory);
    };
    let try_each = || {
        is_named(Channel::builder().ring_capacity(1 << 20).pair().unwrap_err());
        is_named(Channel::builder().ring_capacity(3 << 20).pair().unwrap_err());
        is_named(SealedBufferMut::new(5 << 20).unwrap_err());
        is_named(received());
    };
    try_each();
    let before = memory();
    for _ in 0..10 {
        try_each();
    }
    assert_eq!(memory(), before, "address space, locked, mappings");
    // Smaller rings still fit.
    let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    a.send(b"small").unwrap();
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"small");
}

/// The reason for which a sealed buffer cannot be taken.
fn received() -> Error {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    SealedBuffer::try_from(memfd(5 << 20, 5 << 20, seals)).unwrap_err()
}

#[test]
fn threads_that_map_meanwhile_are_not_overwritten() {
    alone(maps_beside_other_threads);
}

#[test]
#[ignore = "the child of another test"]
fn maps_beside_other_threads() {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for byte in 1..4 {
            let done = &done;
            scope.spawn(move || {
                // So large that the allocator maps each of its own, where there is room.
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let mine = vec![byte; 300 << 10];
                    assert!(std::hint::black_box(&mine).iter().all(|found| *found == byte));
                }
            });
        }
        for _ in 0..300 {
            let (a, b) = Channel::builder().ring_capacity(256 << 10).pair().unwrap();
            drop((a, b));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
