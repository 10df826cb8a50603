//! Forks of a process whose runtime watches channels: a channel that a fork drops stays watched in the parent.

#[path = "../support/mod.rs"]
mod support;

use std::{
    future::Future as _,
    pin::pin,
    task::{Context, Poll, Waker},
};

use sealane::tokio::{Channel, Listener};

use crate::support::{forks::in_fork, hostile::LONG, socket_path, threads::bounded};

fn runtime() -> tokio::runtime::Runtime {
    // The runtime has one thread, since a fork has no copies of others.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_fork_that_drops_a_registered_channel_leaves_it_registered() {
    let _guard = bounded();
    runtime().block_on(async {
        let (a, mut b) = sealane::Channel::pair().unwrap();
        let a = in_fork(Channel::try_from(a).unwrap(), drop);
        let (sender, mut receiver) = in_fork(a.split(), drop);
        let mut recv = pin!(receiver.recv());
        let poll = recv.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Pending), "{poll:?}");
        b.send(b"news").unwrap();
        // Only the runtime can report it, as the receiver has waited already.
        let message = tokio::time::timeout(LONG, recv).await.expect("it is still watched").unwrap();
        assert_eq!(message.control(), b"news");
        drop(sender);
    });
}

#[test]
fn a_fork_that_drops_a_registered_listener_leaves_it_registered() {
    let _guard = bounded();
    let (_dir, path) = socket_path();
    runtime().block_on(async {
        let mut listener = in_fork(Listener::bind(&path).unwrap(), drop);
        let mut accept = pin!(listener.accept());
        let poll = accept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Pending), "{poll:?}");
        let client = Channel::connect(&path);
        let (server, client) = tokio::time::timeout(LONG, async { tokio::join!(accept, client) })
            .await
            .expect("it is still watched");
        drop((server.unwrap(), client.unwrap()));
    });
    assert!(!path.exists());
}

#[test]
fn a_fork_that_uses_a_registered_channel_owns_it() {
    let _guard = bounded();
    let runtime = runtime();
    let (a, mut b) = sealane::Channel::pair().unwrap();
    let a = runtime.block_on(async { Channel::try_from(a) }).unwrap();
    let (_a, runtime) = in_fork((a, runtime), |(mut a, runtime)| {
        runtime.block_on(a.send(b"from the fork")).unwrap();
        drop(a);
    });
    assert_eq!(b.recv_timeout(LONG).unwrap().control(), b"from the fork");
    assert!(matches!(b.recv_timeout(LONG), Err(sealane::Error::Disconnected)));
    drop(runtime);
}
