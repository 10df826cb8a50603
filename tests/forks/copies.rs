//! Forks of a process that has channels: copies that a fork drops are not noticed, copies that it uses are its own.

use std::{
    cell::RefCell,
    io::{PipeWriter, Read, pipe},
    os::fd::AsFd,
    process,
    time::Duration,
};

use sealane::{Channel, Error, HandshakeError, Listener, SealedBuffer, SealedBufferMut, Sender};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::support::{
    forks::{Fork, end, fork, in_fork, split},
    hostile::{LONG, readable},
    role, socket_path,
    threads::bounded,
};

const RING: usize = 64 << 10;
const PAYLOAD: usize = 16 << 10;

fn pair() -> (Channel, Channel) {
    Channel::builder().ring_capacity(RING).pair().unwrap()
}

/// Both ends live, in both directions.
fn works(a: &mut Channel, b: &mut Channel) {
    a.send(b"there").unwrap();
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"there");
    b.send(b"back").unwrap();
    assert_eq!(a.recv_timeout(LONG).unwrap().control(), b"back");
    assert!(matches!((a.try_recv(), b.try_recv()), (Ok(None), Ok(None))));
}

fn send(sender: &mut Sender, byte: u8) {
    let mut loan = sender.loan_timeout(PAYLOAD, LONG).unwrap();
    loan.fill(byte);
    loan.send().unwrap();
}

/// Sends payloads until there is no room, and says how many.
fn fill(sender: &mut Sender, byte: u8) -> usize {
    let mut sent = 0;
    while let Some(mut loan) = sender.try_loan(PAYLOAD).unwrap() {
        loan.fill(byte);
        loan.send().unwrap();
        sent += 1;
    }
    sent
}

#[test]
fn a_fork_that_drops_a_channel_is_not_noticed() {
    let _guard = bounded();
    let (mut a, mut b) = pair();
    works(&mut a, &mut b);
    for _ in 0..2 {
        a = in_fork(a, drop);
        works(&mut a, &mut b);
    }
    // Halves, in either order.
    let halves = in_fork((a.split(), b.split()), |((_sender, receiver), _peer)| drop(receiver));
    let ((sender, mut receiver), (mut peer_sender, peer_receiver)) = halves;
    peer_sender.send(b"still there").unwrap();
    assert_eq!(receiver.recv_timeout(LONG).unwrap().control(), b"still there");
    // The peer notices the drops of this process.
    drop((peer_sender, peer_receiver));
    assert!(matches!(receiver.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(sender);
}

#[test]
fn a_fork_that_exits_is_not_noticed() {
    thread_local! {
        static KEPT: RefCell<Option<Channel>> = const { RefCell::new(None) };
    }
    let _guard = bounded();
    let (mut a, mut b) = pair();
    let (c, mut d) = pair();
    KEPT.set(Some(c));
    a = in_fork(a, |_a| process::exit(0));
    works(&mut a, &mut b);
    works(&mut KEPT.take().unwrap(), &mut d);
}

#[test]
fn a_payload_keeps_its_bytes_whatever_a_fork_drops() {
    let _guard = bounded();
    let (a, b) = pair();
    let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
    for byte in [1, 2, 3] {
        send(&mut sender, byte);
    }
    let first = receiver.recv_timeout(LONG).unwrap();
    let second = receiver.recv_timeout(LONG).unwrap().take_payload().unwrap();
    let held = in_fork((first, second), drop);
    receiver = in_fork(receiver, drop);
    assert_eq!(fill(&mut sender, 4), 0, "there is no room, as two payloads are held and one is to be read");
    let bytes = |payload: &sealane::Payload| payload.to_vec();
    assert_eq!(bytes(held.0.payload().unwrap()), [1; PAYLOAD]);
    assert_eq!(bytes(&held.1), [2; PAYLOAD]);
    // Payloads that this process drops are released.
    assert_eq!(receiver.held().count, 2);
    drop(held);
    assert_eq!(receiver.recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), [3; PAYLOAD]);
    assert!(fill(&mut sender, 4) > 0);
}

#[test]
fn a_fork_that_drops_batches_and_loans_is_not_noticed() {
    let _guard = bounded();
    let (a, b) = pair();
    let ((mut sender, _a), (_b, mut receiver)) = (a.split(), b.split());
    for byte in [1, 2, 3] {
        send(&mut sender, byte);
    }
    let mut batch = receiver.recv_batch().unwrap();
    assert_eq!(batch.next().unwrap().payload().unwrap().len(), PAYLOAD);
    let mut batch = in_fork(batch, drop);
    assert_eq!(fill(&mut sender, 4), 0, "the batch has not given back anything");
    let mut bytes = 2;
    while let Some(message) = batch.next() {
        assert_eq!(message.payload().unwrap().to_vec(), [bytes; PAYLOAD]);
        bytes += 1;
    }
    drop(batch);
    let mut loan = sender.loan_timeout(PAYLOAD, LONG).unwrap();
    loan.fill(5);
    let loan = in_fork(loan, drop);
    loan.send().unwrap();
    assert_eq!(receiver.recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), [5; PAYLOAD]);
    assert!(matches!(receiver.try_recv(), Ok(None)));
    // Forked in the middle of a sender's batch: both processes come to its end, and only one rings.
    let is_readable = || readable([receiver.as_fd()], Duration::ZERO)[0];
    let mut batch = sender.batch();
    let mut loan = batch.loan(PAYLOAD).unwrap();
    loan.fill(6);
    loan.send().unwrap();
    if let Some(fork) = split() {
        fork.wait();
    } else {
        drop(batch);
        end(0);
    }
    assert!(!is_readable());
    drop(batch);
    assert!(is_readable());
    assert_eq!(receiver.recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), [6; PAYLOAD]);
    assert!(matches!(receiver.try_recv(), Ok(None)));
}

#[test]
fn a_fork_that_sends_owns_the_channel() {
    let _guard = bounded();
    let uses: [fn(&mut Channel); 4] = [
        |a| a.send(b"used").unwrap(),
        |a| a.loan(4).unwrap().send_with(b"used").unwrap(),
        |a| a.try_send(b"used").unwrap(),
        |a| assert!(a.request(b"used").is_ok()),
    ];
    for r#use in uses {
        let (a, mut b) = pair();
        let _a = in_fork(a, |mut a| {
            r#use(&mut a);
            drop(a);
        });
        assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"used");
        assert!(matches!(b.recv_timeout(LONG), Err(Error::Disconnected)));
    }
    // A loan that the fork has inherited is used, too.
    let (mut a, mut b) = pair();
    let _loan = in_fork(a.loan(4).unwrap(), |loan| loan.send_with(b"used").unwrap());
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"used");
}

#[test]
fn a_fork_that_receives_owns_the_channel() {
    let _guard = bounded();
    let uses: [fn(&mut Channel); 5] = [
        |b| drop(b.recv().unwrap()),
        |b| drop(b.recv_timeout(LONG).unwrap()),
        |b| drop(b.try_recv().unwrap().unwrap()),
        |b| drop(b.receiver.recv_batch().unwrap()),
        |b| drop(b.receiver.try_recv_batch().unwrap().unwrap()),
    ];
    for r#use in uses {
        let (mut a, b) = pair();
        a.loan(4).unwrap().send().unwrap();
        let _b = in_fork(b, |mut b| {
            r#use(&mut b);
            drop(b);
        });
        assert!(matches!(a.send(b"nobody hears it"), Err(Error::Disconnected)));
        assert!(matches!(a.recv_timeout(LONG), Err(Error::Disconnected)));
    }
}

#[test]
fn a_fork_of_a_fork_owns_nothing_until_it_uses_it() {
    let _guard = bounded();
    let (a, mut b) = pair();
    let _a = in_fork(a, |mut a| {
        a.send(b"child").unwrap();
        a = in_fork(a, drop);
        a.send(b"child, still").unwrap();
        let (a, grandchild) = fork(a, |mut a| {
            a.send(b"grandchild").unwrap();
            drop(a);
        });
        grandchild.wait();
        // The peer would notice the drop of the process that used it last.
        std::mem::forget(a);
    });
    for word in [&b"child"[..], b"child, still", b"grandchild"] {
        assert_eq!(b.recv_timeout(LONG).unwrap().control(), word);
    }
    assert!(matches!(b.recv_timeout(LONG), Err(Error::Disconnected)));
}

#[test]
fn a_closer_ends_the_channel_in_a_fork_too() {
    let _guard = bounded();
    let (a, mut b) = pair();
    let a = in_fork(a, |a| a.closer().close());
    assert!(matches!(b.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(a);
}

#[test]
fn payloads_dropped_by_a_fork_release_space_once_it_receives() {
    let _guard = bounded();
    for sends_first in [false, true] {
        let (a, b) = pair();
        let (mut sender, _a) = a.split();
        let (peer_sender, mut receiver) = b.split();
        for byte in [1, 2, 3] {
            send(&mut sender, byte);
        }
        let held = receiver.recv_timeout(LONG).unwrap();
        assert_eq!(fill(&mut sender, 4), 0);
        let b = in_fork((held, peer_sender, receiver), |(held, mut peer_sender, mut receiver)| {
            drop(held);
            assert_eq!(receiver.held().count, 0);
            // Like a daemon.
            if sends_first {
                peer_sender.send(b"first").unwrap();
            }
            for byte in [2, 3] {
                assert_eq!(receiver.recv_timeout(LONG).unwrap().payload().unwrap().to_vec(), [byte; PAYLOAD]);
            }
            // A drop of these would end the channel.
            std::mem::forget((peer_sender, receiver));
        });
        // All three have been given back: two have room at the ring's start, and the rest is left out.
        assert_eq!(fill(&mut sender, 5), 2);
        // The channel is the fork's: the copies that were left here have nothing to say.
        std::mem::forget(b);
    }
}

#[test]
fn a_fork_that_drops_a_handshake_is_not_noticed() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let mut client = in_fork(Channel::builder().try_connect(&path).unwrap(), drop);
    let mut server = in_fork(listener.try_accept().unwrap().unwrap(), drop);
    while !(client.advance().unwrap() & server.advance().unwrap()) {
        (client, server) = in_fork((client, server), drop);
    }
    works(&mut client.finish().unwrap(), &mut server.finish().unwrap());
}

#[test]
fn a_handshake_that_is_dropped_ends_for_its_peer_although_a_fork_keeps_a_copy() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let client = Channel::builder().handshake_timeout(LONG).try_connect(&path).unwrap();
    let mut server = listener.try_accept().unwrap().unwrap();
    assert!(!server.advance().unwrap());
    let (server, writer, kept) = kept_by_a_fork(server);
    drop(server);
    let ended = client.finish();
    assert!(matches!(ended, Err(Error::Handshake(HandshakeError::Closed { .. }))), "{ended:?}");
    drop(writer);
    kept.wait();
}

#[test]
fn a_server_forks_and_its_fork_completes_the_handshake() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let listener = Listener::bind(&path).unwrap();
    let client = Channel::builder().try_connect(&path).unwrap();
    let (reader, writer) = pipe().unwrap();
    let server = listener.try_accept().unwrap().unwrap();
    let ((server, mut reader, writer), fork) = fork((server, reader, writer), |(server, _reader, writer)| {
        let mut channel = server.finish().unwrap();
        drop(writer);
        assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"?");
        channel.send(b"!").unwrap();
    });
    drop((server, writer));
    let mut client = client.finish().unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the fork has its channel");
    client.send(b"?").unwrap();
    assert_eq!(client.recv_timeout(LONG).unwrap().control(), b"!");
    fork.wait();
}

#[test]
fn a_fork_that_drops_a_listener_leaves_its_file() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let listener = in_fork(Listener::bind(&path).unwrap(), drop);
    assert!(path.exists());
    let client = Channel::builder().try_connect(&path).unwrap();
    let mut server = listener.try_accept().unwrap().unwrap();
    let mut client = in_fork(client, drop);
    while !(client.advance().unwrap() & server.advance().unwrap()) {}
    works(&mut client.finish().unwrap(), &mut server.finish().unwrap());
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_fork_that_accepts_owns_the_listener() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    let _listener = in_fork(Listener::bind(&path).unwrap(), |listener| {
        assert!(listener.try_accept().unwrap().is_none());
        drop(listener);
    });
    assert!(!path.exists());
}

/// A fork that keeps `value` until the writer is dropped.
fn kept_by_a_fork<T>(value: T) -> (T, PipeWriter, Fork) {
    let (reader, writer) = pipe().unwrap();
    let ((value, reader, writer), kept) = fork((value, reader, writer), |(_value, mut reader, writer)| {
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
    drop(reader);
    (value, writer, kept)
}

#[test]
fn a_buffer_that_a_fork_has_too_is_sealed() {
    let _guard = bounded();
    for len in [1, 4096, 100_000] {
        let mut draft = SealedBufferMut::new(len).unwrap();
        draft.fill(7);
        let (draft, end, kept) = kept_by_a_fork(draft);
        // Twice, as each process may.
        let draft = in_fork(draft, |draft| assert_eq!(*draft.seal().unwrap(), *vec![7; len]));
        let sealed = draft.seal().unwrap();
        assert_eq!(*sealed, *vec![7; len]);
        assert!(rustix::io::pwrite(&sealed, b"x", 0).is_err());
        let received = SealedBuffer::try_from(sealed.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(*received, *vec![7; len]);
        drop(end);
        kept.wait();
    }
}

#[test]
fn process_ids_distinguish_forks_where_no_page_can_be_wiped() {
    assert!(role(without_wiped_pages).status().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn without_wiped_pages() {
    let _guard = bounded();
    let wipes = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        libc::MADV_WIPEONFORK.cast_unsigned().into(),
    );
    let rules = vec![SeccompRule::new(vec![wipes.unwrap()]).unwrap()];
    let refuse = SeccompAction::Errno(libc::EINVAL.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new([(libc::SYS_madvise, rules)].into(), SeccompAction::Allow, refuse, architecture);
    apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();

    let (mut a, mut b) = pair();
    a = in_fork(a, drop);
    works(&mut a, &mut b);
    let _a = in_fork(a, |mut a| {
        a.send(b"child").unwrap();
        drop(in_fork(a, drop));
    });
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"child");
    assert!(matches!(b.recv_timeout(LONG), Err(Error::Disconnected)));
}
