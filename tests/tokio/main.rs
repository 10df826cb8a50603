//! The feature `tokio`: the promises of channels, awaited; and a dropped future loses nothing.

#![cfg(feature = "tokio")]

use std::{
    future::{Future, poll_fn},
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::mpsc::{self, RecvTimeoutError},
    task::Poll,
    thread,
    time::Duration,
};

use sealane::{Builder, Error, tokio::Channel};
use support::{is_disconnected, script};
use tokio::{process::Command, runtime, task::yield_now, time::timeout};

mod batches;
mod calls;
mod dropping;
mod ends;
mod establishing;
mod fanout;
mod readiness;
mod streaming;
#[path = "../support/mod.rs"]
mod support;

/// The time in which a test must end: long enough for a busy machine, but bounded.
const SOON: Duration = Duration::from_mins(1);

/// Runs a test on one thread, then on two.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F + Send + Copy + 'static) {
    run_on(runtime::Builder::new_current_thread(), test);
    let mut two_threads = runtime::Builder::new_multi_thread();
    two_threads.worker_threads(2);
    run_on(two_threads, test);
}

/// Runs a test on a runtime in a thread of its own, so that a call which blocks the runtime's clock is found too.
fn run_on<F: Future<Output = ()>>(mut builder: runtime::Builder, test: impl Fn() -> F + Send + 'static) {
    let (end, ended) = mpsc::channel();
    let running = thread::spawn(move || {
        // Dropped with the thread, which shows that it has ended.
        let _end: mpsc::Sender<()> = end;
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async { timeout(SOON, test()).await.expect("the test ends") });
    });
    assert_eq!(ended.recv_timeout(2 * SOON), Err(RecvTimeoutError::Disconnected), "some call blocks");
    if let Err(panic) = running.join() {
        resume_unwind(panic);
    }
}

/// This program as a child that plays the role of a test.
fn role<Test: Fn()>(test: Test) -> Command {
    support::role(test).into()
}

/// Polls a future once, without a wake-up.
async fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().unwrap().poll(cx))).await
}

/// Polls a future up to `times` times, then drops it.
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

/// Fills the socket, and returns the number of messages.
fn fill_socket(channel: &mut Channel) -> usize {
    (0..10_000).find(|_| matches!(channel.try_send(&[0; 500]), Err(Error::Full))).unwrap()
}
