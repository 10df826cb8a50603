//! Requests and replies: a call sees the messages sent before it, and a dropped call is cancelled.

use std::time::Duration;

use sealane::{Control, Error, tokio::Channel};
use tokio::{runtime, time::timeout};

use crate::{is_disconnected, polled, role, run, small};

#[test]
fn a_call_sees_what_was_set_before_it() {
    run(|| async {
        let (mut channel, mut child) = Channel::spawn(role(keeps_a_number)).await.unwrap();
        for i in 0..1000_u64 {
            channel.send(Control::of(&i)).await.unwrap();
            assert_eq!(channel.call(b"").await.unwrap().control_as::<u64>().unwrap(), &i);
        }
        drop(channel);
        assert!(child.wait().await.unwrap().success());
    });
}

#[test]
#[ignore = "the child of another test"]
fn keeps_a_number() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut channel = Channel::inherited().await.unwrap();
        let mut number = u64::MAX;
        while let Ok(message) = channel.recv().await {
            match message.reply_token() {
                Some(token) => channel.reply(token, Control::of(&number)).await.unwrap(),
                None => number = *message.control_as().unwrap(),
            }
        }
    });
}

#[test]
fn replies_come_in_any_order_and_what_comes_meanwhile_is_kept() {
    run(|| async {
        let (mut a, mut b) = small();
        let mut requests = Vec::new();
        for n in 0..3_u8 {
            requests.push(a.request(&[n]).await.unwrap());
        }
        let answering = tokio::spawn(async move {
            let mut questions = Vec::new();
            for _ in 0..3 {
                questions.push(b.recv().await.unwrap());
            }
            b.send(b"before").await.unwrap();
            for question in questions.iter().rev() {
                b.reply(question.reply_token().unwrap(), question.control()).await.unwrap();
                b.loan(900).await.unwrap().send_with(question.control()).await.unwrap();
            }
            b
        });
        for (n, request) in (0..).zip(&requests) {
            assert_eq!(a.receiver.wait_reply(*request).await.unwrap().control(), [n]);
            assert!(matches!(a.receiver.wait_reply(*request).await, Err(Error::UnknownRequest)));
        }
        assert_eq!(a.recv().await.unwrap().control(), b"before");
        for n in [2, 1, 0] {
            let message = a.recv().await.unwrap();
            assert_eq!((message.control(), message.payload().unwrap().len()), (&[n][..], 900));
        }
        drop(answering.await.unwrap());
        assert!(is_disconnected(a.recv().await));
    });
}

#[test]
fn a_call_that_is_dropped_is_given_up_and_a_wait_is_not() {
    run(|| async {
        let (mut a, mut b) = small();
        assert!(timeout(Duration::ZERO, a.call(b"dropped")).await.is_err());
        let waited = a.request(b"waited for twice").await.unwrap();
        let given_up = a.request(b"given up").await.unwrap();
        assert!(polled(a.receiver.wait_reply(waited), 3).await.is_none());
        assert!(polled(a.receiver.wait_reply(given_up), 3).await.is_none());
        a.receiver.cancel(given_up);
        for control in [&b"dropped"[..], b"waited for twice", b"given up"] {
            let question = b.recv().await.unwrap();
            assert_eq!(question.control(), control);
            b.reply(question.reply_token().unwrap(), control).await.unwrap();
        }
        b.send(b"news").await.unwrap();
        assert_eq!(a.receiver.wait_reply(waited).await.unwrap().control(), b"waited for twice");
        assert!(matches!(a.receiver.wait_reply(given_up).await, Err(Error::UnknownRequest)));
        assert_eq!(a.recv().await.unwrap().control(), b"news");
        assert_eq!(a.stats().late_replies, 2);
    });
}

#[test]
fn late_replies_hide_no_message() {
    run(|| async {
        // About as many packets as one poll reads: tokio reports new ones only.
        for late in [60, 63, 64, 65, 130, 200] {
            let (mut a, mut b) = small();
            for _ in 0..late {
                assert!(polled(a.call(b"?"), 1).await.is_none());
            }
            let waiting = a.request(b"!").await.unwrap();
            for _ in 0..=late {
                let token = b.recv().await.unwrap().reply_token().unwrap();
                b.reply(token, b"").await.unwrap();
            }
            b.send(b"news").await.unwrap();
            if late % 2 == 0 {
                a.receiver.wait_reply(waiting).await.unwrap();
            } else {
                assert_eq!(a.recv().await.unwrap().in_reply_to(), Some(waiting));
            }
            assert_eq!(a.recv().await.unwrap().control(), b"news");
            assert_eq!(a.stats().late_replies, late);
        }
    });
}
