//! The feature `tokio`: what is promised of channels, awaited; and that a future that is dropped loses nothing.

#![cfg(feature = "tokio")]
#![forbid(unsafe_code)]

use std::{
    fs,
    future::{Future, poll_fn},
    io::{BufRead, BufReader, Read, pipe},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    pin::{Pin, pin},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, recv, send,
        socket_with,
    },
    process::{Resource, Rlimit, getuid, setrlimit},
};
use script::{Files, Most, Random, Script};
use sealane::{
    Builder, Control, Error, Message, Result,
    tokio::{Channel, Listener, Receiver, Sender},
};
use support::role;
use tokio::{
    runtime,
    task::yield_now,
    time::{sleep, timeout},
};

#[path = "support/script.rs"]
#[expect(dead_code, reason = "it can also send without tokio")]
mod script;
mod support;

/// In what time anything must happen that must happen at all.
const SOON: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(50);

/// Runs a test on one thread, then on two.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let mut two_threads = runtime::Builder::new_multi_thread();
    two_threads.worker_threads(2);
    for builder in [&mut runtime::Builder::new_current_thread(), &mut two_threads] {
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async { timeout(SOON, test()).await.expect("the test ends") });
    }
}

/// Polls a future once, for a reason of its own: nothing has woken it.
async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().unwrap().poll(cx))).await
}

/// Polls a future so many times, then drops it.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_once(future.as_mut()).await {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

fn builder() -> Builder {
    sealane::Channel::builder()
}

fn pair_of(builder: &Builder) -> (Channel, Channel) {
    let (a, b) = builder.pair().unwrap();
    (a.try_into().unwrap(), b.try_into().unwrap())
}

/// Rings of one page, so that they are soon full.
fn small() -> (Channel, Channel) {
    pair_of(&builder().ring_capacity(4096))
}

fn is_disconnected<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| matches!(error, Error::Disconnected))
}

const MESSAGES: usize = 1500;
const MOST: Most = Most { control: 500, fds: 5, payload: 60_000 };

async fn send_script(mut sender: Sender, seed: u64) {
    let files = Files::new();
    for item in Script::new(seed, MOST).take(MESSAGES) {
        let control = item.control(&files);
        let Some(payload) = &item.payload else {
            sender.send(control).await.unwrap();
            continue;
        };
        let mut loan = sender.loan(payload.len()).await.unwrap();
        loan.copy_from_slice(payload);
        loan.send_with(control).await.unwrap();
    }
}

async fn check_script(receiver: &mut Receiver, seed: u64) {
    for item in Script::new(seed, MOST).take(MESSAGES) {
        item.check(&receiver.recv().await.unwrap());
    }
    assert!(is_disconnected(receiver.recv().await));
}

#[test]
fn what_one_task_sends_another_receives() {
    let seed = Random::seed();
    println!("SEED={seed}");
    run(|| async move {
        let (a, b) = pair_of(&builder().ring_capacity(64 << 10));
        let ((sender, _), (_, mut receiver)) = (a.split(), b.split());
        let sending = tokio::spawn(send_script(sender, seed));
        check_script(&mut receiver, seed).await;
        sending.await.unwrap();
    });
}

#[test]
fn what_one_process_sends_another_receives() {
    let seed = Random::seed();
    println!("SEED={seed}");
    run(|| async move {
        let mut command = role("sends_and_receives");
        command.env("SEED", seed.to_string());
        let builder = builder().ring_capacity(64 << 10);
        let (channel, mut child) = Channel::spawn_with(&builder, command).await.unwrap();
        let (sender, mut receiver) = channel.split();
        let sending = tokio::spawn(send_script(sender, seed));
        check_script(&mut receiver, !seed).await;
        sending.await.unwrap();
        assert!(child.wait().unwrap().success());
    });
}

#[test]
#[ignore = "the child of another test"]
fn sends_and_receives() {
    let seed = Random::seed();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = Channel::inherited_with(&builder().ring_capacity(64 << 10)).await.unwrap();
        assert!(Channel::inherited().await.is_err(), "it can be had once");
        let (sender, mut receiver) = channel.split();
        let sending = tokio::spawn(send_script(sender, !seed));
        check_script(&mut receiver, seed).await;
        sending.await.unwrap();
    });
}

#[test]
fn a_loan_waits_for_room_and_control_messages_pass() {
    run(|| async {
        let (mut a, mut b) = small();
        assert!(matches!(a.loan(4096).await, Err(Error::PayloadTooLarge { len: 4096, max: 4032 })));
        for fill in 0..20 {
            let mut loan = a.loan(1000).await.unwrap();
            loan.fill(fill);
            loan.send().unwrap();
            let payload = b.recv().await.unwrap().take_payload().unwrap();
            a.loan_slice::<u32>(708).await.unwrap().send().unwrap();
            assert!(a.try_loan(1).unwrap().is_none());
            a.send(b"passes").await.unwrap();
            assert_eq!(b.recv().await.unwrap().payload().unwrap().len(), 2832);
            assert_eq!(b.recv().await.unwrap().control(), b"passes");

            let mut waiting = pin!(a.loan(4032));
            assert!(poll_once(waiting.as_mut()).await.is_pending());
            assert!(polled(waiting.as_mut(), 50).await.is_none());
            assert_eq!(payload.to_vec(), [fill; 1000]);
            drop(payload);
            waiting.await.unwrap();
        }
    });
}

fn fill_socket(channel: &mut Channel) -> usize {
    (0..).find(|_| matches!(channel.try_send(&[0; 500]), Err(Error::Full))).unwrap()
}

#[test]
fn a_full_socket_is_waited_for() {
    run(|| async {
        let (mut a, mut b) = small();
        let null = fs::File::open("/dev/null").unwrap();
        let sent = fill_socket(&mut a);
        assert!(polled(a.send(b"never sent"), 5).await.is_none());
        assert!(polled(a.request(b"never sent"), 5).await.is_none());
        let loan = a.loan(10).await.unwrap();
        assert!(polled(loan.send_with(Control::new(b"never sent").fd(&null)), 5).await.is_none());

        let sending = tokio::spawn(async move {
            a.loan(10).await.unwrap().send_with(Control::new(b"with fd").fd(&null)).await.unwrap();
            a.send(b"last").await.unwrap();
            a
        });
        for _ in 0..sent {
            assert_eq!(b.recv().await.unwrap().control(), [0; 500]);
        }
        let message = b.recv().await.unwrap();
        assert_eq!((message.control(), message.fds().len()), (&b"with fd"[..], 1));
        assert_eq!(message.payload().unwrap().len(), 10);
        assert_eq!(b.recv().await.unwrap().control(), b"last");
        drop(sending.await.unwrap());
        assert!(is_disconnected(b.recv().await));
    });
}

#[test]
fn a_call_sees_what_was_set_before_it() {
    run(|| async {
        let (mut channel, mut child) = Channel::spawn(role("keeps_a_number")).await.unwrap();
        for i in 0..1000_u64 {
            channel.send(Control::of(&i)).await.unwrap();
            assert_eq!(channel.call(b"").await.unwrap().control_as::<u64>().unwrap(), &i);
        }
        drop(channel);
        assert!(child.wait().unwrap().success());
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
                b.loan(1500).await.unwrap().send_with(question.control()).await.unwrap();
            }
            b
        });
        for (n, request) in (0..).zip(&requests) {
            assert_eq!(a.wait_reply(*request).await.unwrap().control(), [n]);
            assert!(matches!(a.wait_reply(*request).await, Err(Error::NotOpen)));
        }
        assert_eq!(a.recv().await.unwrap().control(), b"before");
        for n in [2, 1, 0] {
            let message = a.recv().await.unwrap();
            assert_eq!((message.control(), message.payload().unwrap().len()), (&[n][..], 1500));
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
        assert!(polled(a.wait_reply(waited), 3).await.is_none());
        assert!(polled(a.wait_reply(given_up), 3).await.is_none());
        a.give_up(given_up);
        for control in [&b"dropped"[..], b"waited for twice", b"given up"] {
            let question = b.recv().await.unwrap();
            assert_eq!(question.control(), control);
            b.reply(question.reply_token().unwrap(), control).await.unwrap();
        }
        b.send(b"news").await.unwrap();
        assert_eq!(a.wait_reply(waited).await.unwrap().control(), b"waited for twice");
        assert!(matches!(a.wait_reply(given_up).await, Err(Error::NotOpen)));
        assert_eq!(a.recv().await.unwrap().control(), b"news");
        assert_eq!(a.stats().late_replies, 2);
    });
}

#[test]
fn late_replies_hide_no_message() {
    run(|| async {
        // As many packets as one look reads, and some less and more: tokio tells of new ones only.
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
                a.wait_reply(waiting).await.unwrap();
            } else {
                assert_eq!(a.recv().await.unwrap().in_reply_to(), Some(waiting));
            }
            assert_eq!(a.recv().await.unwrap().control(), b"news");
            assert_eq!(a.stats().late_replies, late);
        }
    });
}
