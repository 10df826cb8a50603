//! Socket options that add ancillary data to each packet are switched off before we read, since no code would close its
//! descriptors.
//!
//! Descriptors are counted for the whole process, so this binary has one test only.
#![expect(unsafe_code, reason = "no safe interface has these options")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    ffi::c_int,
    fs,
    os::fd::{AsFd, AsRawFd},
};

use libc::{SO_PASSCRED, SO_PASSSEC, SO_TIMESTAMP, SO_TIMESTAMPNS, SOL_SOCKET};
use sealane::Channel;

use crate::support::{
    hostile::{self, LONG, Packet, Player, READY, SEALS, memfd, seqpacket_pair},
    threads::bounded,
};

/// A descriptor of its sender with each packet (Linux 6.5).
const SO_PASSPIDFD: c_int = 76;
const OPTIONS: [c_int; 5] = [SO_PASSPIDFD, SO_PASSSEC, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_PASSCRED];

/// Whether the kernel knows the option.
fn switch_on(socket: &impl AsFd, option: c_int) -> bool {
    let value: c_int = 1;
    // SAFETY: contract of `setsockopt(2)`: a live `c_int` of the length given.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), SOL_SOCKET, option, (&raw const value).cast(), 4)
    };
    result == 0
}

fn is_on(socket: &impl AsFd, option: c_int) -> bool {
    let (mut value, mut len) = (0, 4);
    // SAFETY: contract of `getsockopt(2)`: a live `c_int` of the length given.
    let result = unsafe {
        let to: *mut c_int = &raw mut value;
        libc::getsockopt(socket.as_fd().as_raw_fd(), SOL_SOCKET, option, to.cast(), &raw mut len)
    };
    result == 0 && value != 0
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn packets_bring_nothing_that_was_not_sent_with_them() {
    let _guard = bounded();
    let (player, ours) = Player::pair();
    let known = OPTIONS.map(|option| switch_on(&ours, option));
    assert!(known[1..].iter().all(|known| *known), "{known:?}");
    assert_eq!(is_on(&ours, SO_PASSPIDFD), known[0]);
    let again = ours.try_clone().unwrap();

    let hello = hostile::Hello::honest(1);
    player
        .send(Packet::hello(&hello, vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0]));
    player.send(Packet::new(READY));
    let mut channel = Channel::builder().handshake(ours).unwrap().finish().unwrap();
    assert_eq!(OPTIONS.map(|option| is_on(&again, option)), [false; 5]);
    let before = descriptors();
    for sequence in 0..50 {
        player.send(Packet::control(sequence));
        assert!(channel.recv_timeout(LONG).unwrap().fds().is_empty());
    }
    assert_eq!(descriptors(), before);
}
