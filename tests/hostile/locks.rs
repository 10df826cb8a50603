//! A peer that holds the kernel's lock of a file that it sends: no call of ours on the file waits for that lock.
//!
//! The peer writes to the sealed file from memory whose page faults are never answered (`userfaultfd(2)`; a file on a
//! FUSE server would do as well). Linux 6.16 and later refuse before they read that memory; earlier versions read
//! first, with the lock held.
#![expect(unsafe_code, reason = "the peer does what no safe interface offers")]

use std::{
    ffi::c_long,
    io::stdin,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Stdio,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::SealFlags,
};
use sealane::{Channel, SealedBuffer};

use crate::support::{
    hostile::{HELLO, Hello, LONG, Packet, Player, READY, SEALS, memfd, page, seqpacket_pair},
    role,
    threads::bounded,
};

#[test]
fn a_peer_that_holds_a_files_lock_holds_up_nobody() {
    let _guard = bounded();
    let (ours, theirs) = seqpacket_pair();
    let mut child = role(holds_locks).stdin(Stdio::from(theirs)).spawn().unwrap();
    let Ok(mut channel) = Channel::builder().handshake(ours).unwrap().finish() else {
        assert_eq!(child.wait().unwrap().code(), Some(0));
        return println!("left out: no rights to use userfaultfd for the kernel's faults");
    };
    let buffer = channel.recv_timeout(LONG).unwrap().take_fds().remove(0);
    assert_eq!(SealedBuffer::try_from(buffer).unwrap().len(), usize::try_from(page()).unwrap());
    drop(channel);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
#[ignore = "the child of another test"]
fn holds_locks() {
    let Some(memory) = unanswering_memory() else { std::process::exit(0) };
    // The longest time that a useless wait of the process takes.
    // SAFETY: `alarm(2)` only sets a timer.
    unsafe { libc::alarm(60) };
    let player = Player::from(stdin().as_fd().try_clone_to_owned().unwrap());
    let hello = Hello::honest(1);
    let region = memfd(hello.region(), hello.region(), SEALS);
    let immutable = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
    let buffer = memfd(page(), page(), immutable);
    for file in [&region, &buffer] {
        write_for_ever(file.try_clone().unwrap(), memory);
    }
    player.send(Packet::hello(&hello, vec![region, seqpacket_pair().0]));
    player.send(Packet::new(READY));
    player.send(Packet { fds: vec![buffer], ..Packet::control(0) });
    assert_eq!((player.hear().unwrap().kind, player.hear().unwrap().kind), (HELLO, READY));
    poll(&mut [PollFd::new(&player, PollFlags::RDHUP)], None).unwrap();
    std::process::exit(0);
}

/// A page whose first access waits for ever, if this process may make one.
fn unanswering_memory() -> Option<usize> {
    let call = |number: c_long, a: usize, b: usize, c: usize| {
        // SAFETY: `userfaultfd(2)`, and `ioctl(2)` with pointers to live arrays of the right length.
        unsafe { libc::syscall(number, a, b, c) }
    };
    let fd = usize::try_from(call(libc::SYS_userfaultfd, 0, 0, 0)).ok()?;
    let len = usize::try_from(page()).unwrap();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    // The calls `UFFDIO_API`, and `UFFDIO_REGISTER` for missing pages.
    let mut api = [0xaa_u64, 0, 0];
    let mut range = [u64::try_from(at.addr()).unwrap(), page(), 1, 0];
    let api = call(libc::SYS_ioctl, fd, 0xc018_aa3f, api.as_mut_ptr().addr());
    let register = call(libc::SYS_ioctl, fd, 0xc020_aa00, range.as_mut_ptr().addr());
    (api == 0 && register == 0).then_some(at.addr())
}

/// Starts to write to `file` from `memory`, in a thread of its own, and waits until that sleeps or is refused.
fn write_for_ever(file: OwnedFd, memory: usize) {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        // SAFETY: a mapping of a page, which nothing else uses.
        unsafe { libc::pwrite(file.as_raw_fd(), std::ptr::with_exposed_provenance(memory), 4096, 0) };
        drop(tell);
    });
    let stat = std::path::Path::new("/proc").join(told.recv().unwrap()).join("stat");
    let waits = |stat: String| stat.contains(") S ") || stat.contains(") D ");
    while told.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected)
        && !std::fs::read_to_string(&stat).is_ok_and(waits)
    {
        thread::yield_now();
    }
}
