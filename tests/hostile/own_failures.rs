//! Failures of our own, in sandboxes that refuse system calls, are reported here, and the peer learns that they are not its
//! fault.
//!
//! A filter (`seccomp(2)`) binds the thread that sets it, until the thread ends.

use std::{collections::BTreeMap, thread};

use sealane::{Channel, Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::support::{
    hostile::{self, Hello, Packet, Player, SEALS, memfd, seqpacket_pair},
    threads::bounded,
};

/// From now on the kernel answers `call` with `errno` in this thread, if `rules` say so.
fn refuse(call: libc::c_long, rules: Vec<SeccompRule>, errno: libc::c_int) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}

/// Runs `call` in a thread of its own.
fn apart<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(call).join().unwrap()
}

#[test]
fn a_sandbox_that_keeps_us_from_looking_is_our_own_failure() {
    let _guard = bounded();
    let command = |number: libc::c_int| {
        let number = number.cast_unsigned().into();
        let equal = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number).unwrap();
        vec![SeccompRule::new(vec![equal]).unwrap()]
    };
    for (call, rules) in [
        (libc::SYS_fstat, vec![]),
        (libc::SYS_fcntl, command(libc::F_GETFL)),
        (libc::SYS_fcntl, command(libc::F_GET_SEALS)),
        (libc::SYS_madvise, vec![]),
        (libc::SYS_getsockopt, vec![]),
    ] {
        let (player, result) = apart(move || {
            let (player, ours) = Player::pair();
            // Our region is made already; only the peer's is still to be checked.
            let handshake = Channel::builder().ring_capacity(1).handshake(ours).unwrap();
            let hello = Hello::honest(1);
            let region = memfd(hello.region(), hello.region(), SEALS);
            player.send(Packet::hello(&hello, vec![region, seqpacket_pair().0]));
            refuse(call, rules, libc::EPERM);
            (player, handshake.finish().map(drop))
        });
        assert!(
            matches!(&result, Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM)),
            "{call}: {result:?}"
        );
        let heard = player.hear_all();
        assert_eq!(heard.last().unwrap().refusal(), (19, 0, 1), "{call}");
    }
}

#[test]
fn a_region_that_cannot_be_made_is_no_fault_of_the_peer() {
    let _guard = bounded();
    let (player, ours) = Player::pair();
    let result = apart(move || {
        refuse(libc::SYS_memfd_create, vec![], libc::EPERM);
        Channel::builder().handshake(ours).map(drop)
    });
    assert!(matches!(result, Err(Error::Io { operation: "memfd_create", .. })), "{result:?}");
    let refusal = player.hear().unwrap().refusal();
    assert_eq!(refusal, (19, 0, 1));
    let (player, ours) = Player::pair();
    let mut body = 19_u64.to_le_bytes().to_vec();
    body.extend([0; 8]);
    body.extend(1_u64.to_le_bytes());
    player.send(Packet { body, ..Packet::new(hostile::REJECT) });
    let error = Channel::builder().handshake(ours).unwrap().finish().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("failed by itself") && text.contains("Operation not permitted"), "{text}");
}

/// Before some version of Linux a signal undoes a whole `fallocate(2)`: under a timer a long one never ended.
#[test]
fn memory_is_allocated_under_a_timer_that_interrupts_each_long_call() {
    let _guard = bounded();
    let result: Result<()> = apart(|| {
        // Like a timer that is faster than the allocation of 1 MiB.
        let long = SeccompCondition::new(3, SeccompCmpArgLen::Qword, SeccompCmpOp::Gt, 1 << 20).unwrap();
        refuse(libc::SYS_fallocate, vec![SeccompRule::new(vec![long]).unwrap()], libc::EINTR);
        Channel::pair().map(drop)
    });
    result.unwrap();
}

/// Like a signal for each page.
#[test]
fn memory_that_can_never_be_allocated_ends_at_the_deadline() {
    let _guard = bounded();
    let result: Result<()> = apart(|| {
        refuse(libc::SYS_fallocate, vec![], libc::EINTR);
        Channel::builder().handshake_timeout(std::time::Duration::from_millis(10)).pair().map(drop)
    });
    assert!(matches!(result, Err(Error::Timeout)), "{result:?}");
}
