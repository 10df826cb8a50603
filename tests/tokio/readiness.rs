//! Waiting where descriptors say little: messages from before, packets without messages, descriptors in flight, and tasks
//! that need not wait.

use std::{
    env,
    fs::File,
    future::{Future, poll_fn},
    io::IoSlice,
    os::unix::process::CommandExt,
    pin::pin,
    time::Duration,
};

use rustix::{
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
    process::{Resource, Rlimit, getuid, setrlimit},
};
use sealane::{
    Control, Error,
    tokio::{Channel, Receiver, Sender},
};
use tokio::{
    runtime,
    task::{JoinHandle, yield_now},
    time::timeout,
};

use crate::{builder, fill_socket, pair_of, polled, run, run_on, small, support::role::rerun};

/// User and group `nobody`.
const NOBODY: u32 = 65534;

/// Runs `test` again in a process of `nobody`, with few descriptors. True in that process; false when it has ended well.
pub(crate) fn is_rerun_as_nobody(test: impl Fn()) -> bool {
    const INSIDE: &str = "INSIDE";
    if env::var_os(INSIDE).is_none() {
        let mut command = rerun(test);
        command.env(INSIDE, "");
        if getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        assert!(command.status().unwrap().success());
        return false;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    true
}

#[test]
fn messages_from_before_the_conversion_are_found() {
    run(|| async {
        let (mut a, b) = builder().pair().unwrap();
        let (mut sender, mut receiver) = (a, b);
        // A receiver that is not armed: no descriptor reports the next messages.
        sender.loan(1).unwrap().send().unwrap();
        assert!(receiver.try_recv().unwrap().is_some());
        for _ in 0..3 {
            sender.loan(2).unwrap().send().unwrap();
        }
        let mut receiver = Channel::try_from(receiver).unwrap();
        for _ in 0..3 {
            assert_eq!(receiver.recv().await.unwrap().payload().unwrap().len(), 2);
        }
        // The halves work on their own again after the conversion.
        let receiving = tokio::spawn(async move {
            receiver.recv().await.unwrap();
            receiver
        });
        a = sender;
        a.send(b"awaited").unwrap();
        let mut b = receiving.await.unwrap().into_inner();
        a.send(b"blocked for").unwrap();
        assert_eq!(b.recv().unwrap().control(), b"blocked for");
    });
}

#[test]
fn doorbells_without_messages_hide_none() {
    // A doorbell, as docs/protocol.md has it.
    let mut doorbell = [0; 32];
    doorbell[0] = 5;
    run(move || async move {
        // About as many as one poll reads.
        for doorbells in [1, 63, 64, 65, 200] {
            let (mut a, b) = builder().pair().unwrap();
            for _ in 0..doorbells {
                let doorbell = [IoSlice::new(&doorbell)];
                sendmsg(&a.receiver, &doorbell, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT)
                    .unwrap();
            }
            let mut b = Channel::try_from(b).unwrap();
            let mut receiving = pin!(b.recv());
            assert!(polled(receiving.as_mut(), 10).await.is_none());
            a.loan(1).unwrap().send().unwrap();
            assert!(receiving.await.unwrap().payload().is_some());
        }
    });
}

#[test]
fn waiting_tasks_are_polled_only_when_something_changes() {
    run(|| async {
        let (mut a, mut b) = small();
        fill_socket(&mut a);
        // The task was woken once before, so tokio has a stored readiness.
        b.recv().await.unwrap();
        a.send(b"one more").await.unwrap();
        while b.try_recv().unwrap().is_some() {}
        a.loan(960).await.unwrap().send_with(&[0; 4096 - 64 - 960]).await.unwrap();
        let held = b.recv().await.unwrap();
        let (mut polls, mut receiving, mut lending) = (0, pin!(b.recv()), pin!(a.loan(960)));
        let waiting = poll_fn(|cx| {
            polls += 1;
            assert!(receiving.as_mut().poll(cx).is_pending());
            lending.as_mut().poll(cx)
        });
        assert!(timeout(Duration::from_millis(100), waiting).await.is_err());
        assert!(polls < 10, "{polls} polls");
        drop(held);
        drop(lending.await.unwrap());
    });
}

#[test]
fn tasks_that_never_wait_let_others_run() {
    async fn sends(mut sender: Sender) {
        for _ in 0..1000 {
            sender.loan(1).await.unwrap().send().unwrap();
        }
        for _ in 0..200 {
            sender.send(b"").await.unwrap();
        }
    }
    async fn receives(mut receiver: Receiver) {
        for _ in 0..1200 {
            receiver.recv().await.unwrap();
        }
    }
    async fn turns_beside(busy: JoinHandle<()>) -> usize {
        let mut turns = 0;
        while !busy.is_finished() {
            turns += 1;
            yield_now().await;
        }
        busy.await.unwrap();
        turns
    }
    run_on(runtime::Builder::new_current_thread(), || async {
        let (a, b) = pair_of(&builder());
        let ((sender, _back), (_forth, receiver)) = (a.split(), b.split());
        // All is sent before anything is received.
        assert!(turns_beside(tokio::spawn(sends(sender))).await > 5);
        assert!(turns_beside(tokio::spawn(receives(receiver))).await > 5);
    });
}

/// The rest of this is run as `nobody`: root's descriptors in flight are not counted.
#[test]
fn too_many_descriptors_in_flight_are_waited_for() {
    if !is_rerun_as_nobody(too_many_descriptors_in_flight_are_waited_for) {
        return;
    }
    run(|| async {
        let ((mut a, mut b), (mut other, mut reader)) = (small(), small());
        let null = File::open("/dev/null").unwrap();
        let fds = || Control::default().fds([&null; 8]);
        let sent = (0..10_000).find(|_| matches!(other.try_send(fds()), Err(Error::FdsInFlight))).unwrap();
        assert!(polled(a.send(fds()), 5).await.is_none());
        let mut sending = pin!(async {
            a.send(fds()).await.unwrap();
            a.loan(1).await.unwrap().send_with(fds()).await.unwrap();
            a.send(b"the next").await.unwrap();
        });
        assert!(polled(sending.as_mut(), 10).await.is_none());
        for _ in 0..sent {
            assert_eq!(reader.recv().await.unwrap().fds().len(), 8);
        }
        // Another channel has ended the shortage, which this one can find out only by trying again.
        sending.await;
        assert_eq!(b.recv().await.unwrap().fds().len(), 8);
        assert!(b.recv().await.unwrap().payload().is_some());
        assert_eq!(b.recv().await.unwrap().control(), b"the next");
    });
}
