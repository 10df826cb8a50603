//! Ends wake all waiting calls, and committed messages arrive before them.

use std::{fs::File, future::Future, pin::Pin};

use rustix::event::{PollFd, PollFlags, poll};
use sealane::{Control, Result, tokio::Channel};

use crate::{builder, fill_socket, is_disconnected, poll_once, role, run, small};

type Waiting<'c> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'c>>;

/// Calls that wait for a peer that does nothing.
const WAITS: [fn(&mut Channel) -> Waiting<'_>; 6] = [
    |channel| Box::pin(async { channel.recv().await.map(drop) }),
    |channel| Box::pin(async { channel.call(b"?").await.map(drop) }),
    |channel| {
        Box::pin(async {
            let request = channel.request(b"?").await?;
            channel.receiver.wait_reply(request).await.map(drop)
        })
    },
    |channel| {
        Box::pin(async {
            // The sender fills the ring.
            channel.loan(960).await?.send_with(&[0; 4096 - 64 - 960]).await?;
            channel.loan(960).await.map(drop)
        })
    },
    |channel| {
        fill_socket(channel);
        Box::pin(async { channel.send(b"one more").await })
    },
    |channel| {
        fill_socket(channel);
        Box::pin(async {
            let file = File::open("/dev/null").unwrap();
            let loan = channel.loan(1).await?;
            loan.send_with(Control::default().fd(&file)).await
        })
    },
];

async fn is_woken_by(mut channel: Channel, wait: fn(&mut Channel) -> Waiting<'_>, end: impl FnOnce()) {
    let mut waiting = wait(&mut channel);
    assert!(poll_once(waiting.as_mut()).await.is_pending());
    end();
    assert!(is_disconnected(waiting.await));
    assert!(is_disconnected(channel.recv().await));
    assert!(is_disconnected(channel.send(b"anybody there?").await));
}

#[test]
fn a_closing_peer_wakes_all_waiting_calls() {
    run(|| async {
        for wait in WAITS {
            let (a, b) = small();
            is_woken_by(a, wait, || drop(b)).await;
        }
    });
}

#[test]
fn a_killed_peer_wakes_all_waiting_calls() {
    run(|| async {
        for wait in WAITS {
            let builder = builder().ring_capacity(4096);
            let command = role(does_nothing);
            let (mut channel, mut child) = Channel::spawn_with(&builder, command).await.unwrap();
            // The child reads nothing any more, not even the rest of the handshake.
            channel.recv().await.unwrap();
            is_woken_by(channel, wait, || child.start_kill().unwrap()).await;
            child.wait().await.unwrap();
        }
    });
}

#[test]
#[ignore = "the child of another test"]
fn does_nothing() {
    let mut channel = sealane::Channel::inherited().unwrap();
    channel.send(b"established").unwrap();
    // The child lives until the parent is gone or kills it.
    poll(&mut [PollFd::new(&channel.receiver, PollFlags::RDHUP)], None).unwrap();
}

#[test]
fn a_closer_wakes_both_halves_and_the_peer() {
    run(|| async {
        for wait in WAITS {
            let (a, mut b) = small();
            let closer = a.closer();
            is_woken_by(a, wait, || closer.close()).await;
            while let Ok(message) = b.recv().await {
                drop(message);
            }
            assert!(is_disconnected(b.send(b"anybody there?").await));
        }
    });
}

#[test]
fn committed_messages_arrive_before_the_end() {
    run(|| async {
        let (a, b) = small();
        let ((mut sender, mut back), (mut forth, mut receiver)) = (a.split(), b.split());
        sender.loan(100).await.unwrap().send().unwrap();
        sender.send(b"last words").await.unwrap();
        drop(sender);
        assert_eq!(receiver.recv().await.unwrap().payload().unwrap().len(), 100);
        assert_eq!(receiver.recv().await.unwrap().control(), b"last words");
        for _ in 0..3 {
            assert!(is_disconnected(receiver.recv().await));
        }
        // The other direction lives until its receiver is gone.
        forth.send(b"still there").await.unwrap();
        assert_eq!(back.recv().await.unwrap().control(), b"still there");
        drop(back);
        assert!(is_disconnected(forth.send(b"").await) && is_disconnected(forth.loan(1).await));
    });
}
