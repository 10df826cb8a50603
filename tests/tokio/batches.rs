//! Batches and streams, awaited.

use std::{
    fs::File,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use futures_util::StreamExt;
use sealane::{Control, Error};
use tokio::task::yield_now;

use crate::{builder, is_disconnected, pair_of, poll_once, run, small};

#[test]
fn batches_pass_a_full_ring() {
    const COUNT: u64 = 2_000;
    run(|| async {
        let (mut a, mut b) = small();
        let sending = tokio::spawn(async move {
            for first in (0..COUNT).step_by(100) {
                let mut batch = a.sender.batch();
                for n in first..first + 100 {
                    // The ring has room for 32 of them: waiting for more wakes the receiver.
                    let mut loan = batch.loan_slice::<u64>(8).await.unwrap();
                    loan.fill(n);
                    loan.send().unwrap();
                }
            }
            assert!(a.sender.stats().doorbells_sent < COUNT, "one of many wakes the receiver");
        });
        let mut n = 0;
        while n < COUNT {
            let mut batch = b.receiver.recv_batch().await.unwrap();
            while let Some(message) = batch.next() {
                assert_eq!(message.payload().unwrap().read::<u64>(0).unwrap(), n);
                n += 1;
            }
        }
        sending.await.unwrap();
        assert!(is_disconnected(b.receiver.recv_batch().await.map(drop)));
    });
}

#[test]
fn a_batch_wakes_the_receiver_when_it_is_flushed_or_dropped() {
    run(|| async {
        let (mut a, mut b) = small();
        for is_dropped in [false, true] {
            let mut batch = a.sender.batch();
            {
                let mut receiving = std::pin::pin!(b.receiver.recv_batch());
                assert!(poll_once(receiving.as_mut()).await.is_pending());
                batch.try_loan(8).unwrap().unwrap().send().unwrap();
                assert_eq!(batch.stats().doorbells_sent, u64::from(is_dropped));
                if is_dropped {
                    drop(batch);
                } else {
                    batch.flush();
                }
                assert_eq!(receiving.await.unwrap().next().unwrap().payload().unwrap().len(), 8);
            }
        }
        assert!(b.receiver.try_recv_batch().unwrap().is_none());
    });
}

/// Every kind of message wakes the task that waits for a stream's next item. It is sent by another task.
#[test]
fn a_stream_wakes_its_task() {
    run(|| async {
        let (mut a, mut b) = small();
        for round in 0..100_u32 {
            let sending = tokio::spawn(async move {
                yield_now().await;
                let number = round.to_le_bytes();
                let file = File::open("/dev/null").unwrap();
                match round % 3 {
                    0 => a.send(&number).await.unwrap(),
                    1 => a.loan(8).await.unwrap().send_with(&number).await.unwrap(),
                    _ => a.loan(8).await.unwrap().send_with(Control::new(&number).fd(&file)).await.unwrap(),
                }
                a
            });
            let message = b.receiver.next().await.unwrap().unwrap();
            assert_eq!(*message.control_as::<u32>().unwrap(), round);
            a = sending.await.unwrap();
        }
    });
}

#[test]
fn a_stream_ends_with_the_peer_after_all_that_was_sent() {
    run(|| async {
        let (mut a, mut b) = pair_of(&builder());
        for n in 0..3 {
            a.loan(n).await.unwrap().send().unwrap();
        }
        drop(a);
        let lengths: Vec<_> =
            (&mut b.receiver).map(|message| message.unwrap().payload().unwrap().len()).collect().await;
        assert_eq!(lengths, [0, 1, 2]);
        assert!(b.receiver.next().await.is_none(), "it stays ended");
        assert!(is_disconnected(b.recv().await));
    });
}

/// A task that polls a stream with messages yields, and is woken again.
#[test]
fn a_stream_with_messages_yields_now_and_then() {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }
    run(|| async {
        let (mut a, mut b) = pair_of(&builder());
        for _ in 0..1000 {
            a.loan(8).await.unwrap().send().unwrap();
        }
        // The budget belongs to a task, so this is one.
        let task = tokio::spawn(async move {
            let flag = Arc::new(Flag(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&flag));
            let mut cx = Context::from_waker(&waker);
            let mut received = 0;
            while std::pin::pin!(b.receiver.next()).poll(&mut cx).is_ready() {
                received += 1;
            }
            // tokio wakes the task at the end of this turn.
            (received, flag, b)
        });
        let (received, flag, mut b) = task.await.unwrap();
        assert!((1..1000).contains(&received), "{received}");
        while !flag.0.load(SeqCst) {
            yield_now().await;
        }
        for _ in received..1000 {
            b.receiver.next().await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_call_over_the_halves_of_two_channels_sends_nothing() {
    run(|| async {
        let ((a, mut b), (c, _d)) = (small(), small());
        let mut mixed = a;
        mixed.receiver = c.receiver;
        assert!(matches!(mixed.call(b"?").await, Err(Error::UnknownRequest)));
        assert!(b.try_recv().unwrap().is_none());
    });
}

#[test]
fn loans_that_were_not_sent_come_back() {
    run(|| async {
        let (mut a, mut b) = pair_of(&builder().max_control(10));
        let long = [0; 11];
        let unsent = a.loan(5).await.unwrap().try_send_with(&long).unwrap_err();
        let unsent = unsent.into_loan().try_request(&long).unwrap_err();
        assert!(matches!(unsent.error(), Error::ControlTooLarge { len: 11, max: 10 }));
        let request = unsent.into_loan().try_request(b"?").unwrap();
        let token = b.recv().await.unwrap().reply_token().unwrap();
        let unsent = b.loan(7).await.unwrap().try_reply(token, &long).unwrap_err();
        unsent.into_loan().try_reply(token, b"!").unwrap();
        let reply = a.receiver.wait_reply(request).await.unwrap();
        assert_eq!((reply.payload().unwrap().len(), reply.control()), (7, &b"!"[..]));
    });
}
