//! Wake-ups are never lost: two processes on one CPU with rings of one message, both ways at once. Each step needs the
//! other process to sleep and to be woken.
//!
//! A lost wake-up shows as a wait that lasts to its deadline although its message is there. The processes pin themselves to
//! a CPU, so this binary is alone.

#[path = "../support/mod.rs"]
mod support;

use std::{
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use sealane::{Builder, Channel, Closer, Error, Message, Receiver, Sender, Wait};

use crate::support::{role, short_or_long, threads::SOON};

/// The control byte of each message: the stream has more, its sender's process has slept often enough, or it is the
/// last.
const MORE: u8 = 0;
const ENOUGH: u8 = 1;
const LAST: u8 = 2;

/// How both processes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Always asleep.
    Block,
    /// The same, but receivers set no deadline, so that they sleep in `recvmsg(2)`.
    ForEver,
    /// The default on one CPU.
    Default,
    /// The default on more CPUs, although both run on one: they spin uselessly before they sleep.
    SpinInVain,
    /// No call sleeps: the process sleeps in `poll(2)`, as an event loop.
    EventLoop,
}

impl Way {
    const ALL: [Self; 5] = [Self::Block, Self::ForEver, Self::Default, Self::SpinInVain, Self::EventLoop];
    const VARIABLE: &str = "WAY";

    fn builder(self) -> Builder {
        let blocks = matches!(self, Self::Block | Self::ForEver);
        let wait = if blocks { Wait::Block } else { Wait::default() };
        // One page: a message of the largest size fills it.
        Channel::builder().ring_capacity(1).wait(wait)
    }

    fn command(self) -> Command {
        let mut command = role(the_other_process);
        command.env(Self::VARIABLE, Self::ALL.iter().position(|way| *way == self).unwrap().to_string());
        command
    }

    /// The channel to the parent; that of the parent to the child is made by `spawn`.
    fn inherited() -> (Self, Channel) {
        let way = Self::ALL[std::env::var(Self::VARIABLE).unwrap().parse::<usize>().unwrap()];
        let channel = way.pinned(|| way.builder().inherited().unwrap());
        (way, channel)
    }

    /// Makes a channel, and pins this thread, and those that it starts, to one CPU, before or after that.
    fn pinned<T>(self, make: impl FnOnce() -> T) -> T {
        if self == Self::SpinInVain {
            let channel = make();
            pin();
            channel
        } else {
            pin();
            make()
        }
    }

    fn receive(self, receiver: &mut Receiver, sleeps: &mut u64) -> Message {
        if self == Self::ForEver {
            // If the sender is not woken, the peer finds no space in time, and closes the channel.
            return receiver.recv().unwrap();
        }
        if self != Self::EventLoop {
            return in_time(|| receiver.recv_timeout(SOON).unwrap());
        }
        loop {
            match receiver.try_recv().unwrap() {
                Some(message) => return message,
                None => wait_for(&receiver, sleeps),
            }
        }
    }

    /// Sends the next message: a payload that fills the ring, with or without control bytes, or a packet without one.
    fn send(self, sender: &mut Sender, kind: u8, n: u64, sleeps: &mut u64) {
        let control = [kind];
        let alone = n % 4 == 3;
        if self != Self::EventLoop {
            return in_time(|| {
                if alone {
                    return sender.send_timeout(&control, SOON).unwrap();
                }
                let loan = sender.loan_timeout(sender.limits().max_payload - 64, SOON).unwrap();
                loan.send_with(&control).unwrap();
            });
        }
        let len = sender.limits().max_payload - 64;
        loop {
            let sent = if alone {
                match sender.try_send(&control) {
                    Err(Error::Full) => false,
                    result => result.map(|()| true).unwrap(),
                }
            } else {
                sender.try_loan(len).unwrap().map(|loan| loan.send_with(&control).unwrap()).is_some()
            };
            if sent {
                return;
            }
            wait_for(&sender, sleeps);
        }
    }
}

/// Puts this thread on the first of the CPUs that it may use.
fn pin() {
    let may = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| may.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}

/// Runs a call that may wait. It must not wait for its whole time, which would mean that only the deadline woke it.
fn in_time<T>(wait: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = wait();
    assert!(began.elapsed() < SOON, "a wake-up was lost");
    result
}

/// Ends a channel if its thread panics, so that its peer does not wait for ever.
struct EndsWithUs(Closer);

impl Drop for EndsWithUs {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}

fn wait_for(fd: &impl AsFd, sleeps: &mut u64) {
    *sleeps += 1;
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec::try_from(SOON).unwrap())).unwrap();
    assert_eq!(ready, 1, "a wake-up was lost");
}

/// Sleeps of a sender and of a receiver.
type Sleeps = [u64; 2];

/// How often each thread of either process sleeps, at least.
fn many() -> u64 {
    short_or_long(10_000, 1_000_000)
}

/// Sends and receives at once, until both sides have slept often enough.
fn both_ways(way: Way, channel: Channel) -> Sleeps {
    let (mut sender, mut receiver) = channel.split();
    let [received_enough, theirs, ended] = [const { AtomicBool::new(false) }; 3];
    let slept = |polls: u64, sleeps: u64| if way == Way::EventLoop { polls } else { sleeps };
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let _end = EndsWithUs(sender.closer());
            let mut polls = 0;
            for n in 0.. {
                let enough = received_enough.load(Relaxed) && slept(polls, sender.stats().sleeps) >= many();
                let last = ended.load(Relaxed) || (enough && theirs.load(Relaxed));
                let kind = if last {
                    LAST
                } else if enough {
                    ENOUGH
                } else {
                    MORE
                };
                way.send(&mut sender, kind, n, &mut polls);
                if last {
                    break;
                }
            }
            slept(polls, sender.stats().sleeps)
        });
        let mut polls = 0;
        loop {
            let message = way.receive(&mut receiver, &mut polls);
            match message.control() {
                [LAST] => break,
                [kind] => theirs.store(*kind == ENOUGH, Relaxed),
                other => panic!("{other:?}"),
            }
            received_enough.store(slept(polls, receiver.stats().sleeps) >= many(), Relaxed);
        }
        ended.store(true, Relaxed);
        [sending.join().unwrap(), slept(polls, receiver.stats().sleeps)]
    })
}

fn none_is_lost(way: Way) {
    let (channel, mut child) = way.pinned(|| way.builder().spawn(way.command()).unwrap());
    let began = Instant::now();
    let here = both_ways(way, channel);
    println!("{way:?}: {here:?} sleeps of the sender and of the receiver here, in {:?}", began.elapsed());
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn the_other_process() {
    let (way, channel) = Way::inherited();
    let there = both_ways(way, channel);
    assert!(there.iter().all(|sleeps| *sleeps >= many()), "{way:?}: {there:?} sleeps there");
}

#[test]
fn sleeping_waits_lose_no_wake_up() {
    none_is_lost(Way::Block);
}

#[test]
fn waits_without_a_limit_lose_no_wake_up() {
    none_is_lost(Way::ForEver);
}

#[test]
fn default_waits_lose_no_wake_up() {
    none_is_lost(Way::Default);
}

#[test]
fn waits_after_a_useless_spin_lose_no_wake_up() {
    none_is_lost(Way::SpinInVain);
}

#[test]
fn event_loops_lose_no_wake_up() {
    none_is_lost(Way::EventLoop);
}
