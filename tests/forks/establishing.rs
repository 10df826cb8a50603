//! Forks that establish channels with one another.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use sealane::{Channel, Listener};

use crate::support::{
    forks,
    hostile::{self, abstract_name, seqpacket_pair},
    threads::bounded,
};

/// Forks have the same memory: random numbers drawn from its state are the same in all of them.
#[test]
fn two_forks_of_one_process_are_no_reflection_of_each_other() {
    let _guard = bounded();
    let _: HashMap<u8, u8> = HashMap::new();
    let (a, b) = seqpacket_pair();
    let meet = |fd: std::os::fd::OwnedFd| {
        let mut channel =
            Channel::builder().handshake(fd).unwrap().finish().expect("a sibling is no reflection");
        channel.send(b"hello").unwrap();
        assert_eq!(channel.recv().unwrap().control(), b"hello");
        // Kept until both have read.
        std::mem::forget(channel);
    };
    let (a, first) = forks::fork(a, meet);
    let (b, second) = forks::fork(b, meet);
    drop((a, b));
    first.wait();
    second.wait();
}

#[test]
fn a_fork_is_a_client_of_its_parents_listener() {
    let _guard = bounded();
    let _: HashMap<u8, u8> = HashMap::new();
    let name = abstract_name();
    let builder = Channel::builder();
    let (ready, go) = hostile::pipe();
    let ((), client) = forks::fork((), |()| {
        let _ = rustix::io::read(&ready, &mut [0_u8; 1]);
        builder.connect(&name).expect("it is another process");
    });
    let listener = Listener::bind(&name).unwrap();
    rustix::io::write(&go, b"x").unwrap();
    let _ = listener.accept().map(std::mem::forget);
    client.wait();
}

/// A daemon that drops a payload, and then only sends.
#[test]
fn a_payload_that_a_fork_dropped_is_given_back_at_its_first_use_of_any_half() {
    let _guard = bounded();
    let (mut peer, mut ours) = Channel::builder().ring_capacity(4096).pair().unwrap();
    let most = peer.limits().max_payload;
    // The control bytes fill the rest of the ring.
    peer.loan(most).unwrap().send_with(&vec![0; 4096 - 64 - most]).unwrap();
    let payload = ours.recv().unwrap().take_payload().unwrap();
    assert!(peer.try_loan(most).unwrap().is_none());
    let _kept = forks::in_fork((payload, ours), |(payload, mut ours)| {
        drop(payload);
        ours.send(b"still here").unwrap();
        // It is alive when the peer looks.
        std::mem::forget(ours);
    });
    assert_eq!(peer.recv().unwrap().control(), b"still here");
    assert!(peer.try_loan(most).unwrap().is_some(), "the fork has used the channel");
}

#[test]
fn workers_that_listen_on_a_duplicate_leave_the_path_to_the_server() {
    let _guard = bounded();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service");
    let small = Channel::builder().ring_capacity(4096);
    let listener = small.listen(&path).unwrap();
    let client = small.try_connect(&path).unwrap();
    let listener = forks::in_fork(listener, |listener| {
        let worker = small.listen_on(listener.as_fd().try_clone_to_owned().unwrap()).unwrap();
        drop(listener);
        assert!(worker.try_accept().unwrap().is_some());
        drop(worker);
    });
    drop(client);
    let client = small.try_connect(&path).expect("a worker has ended, and the server listens");
    assert!(listener.try_accept().unwrap().is_some());
    drop((client, listener));
    assert!(!path.exists());
}

/// The fork has no copy of a thread that is in the ledger, so it can never wait for that thread.
#[test]
fn a_fork_of_a_busy_process_lets_go_of_a_payload() {
    let _guard = bounded();
    let (mut peer, mut ours) = Channel::builder().ring_capacity(4096).pair().unwrap();
    for _ in 0..2 {
        peer.loan(10).unwrap().send().unwrap();
    }
    let payloads = [(); 2].map(|()| ours.recv().unwrap().take_payload().unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (over, ours) = (&over, &ours);
        scope.spawn(move || {
            while !over.load(Relaxed) {
                let _ = ours.receiver.held();
            }
        });
        let mut payloads = payloads;
        for _ in 0..20 {
            payloads = forks::in_fork(payloads, drop);
        }
        over.store(true, Relaxed);
    });
}
