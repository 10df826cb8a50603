//! Hoarders of descriptors against a publisher of a user that is not root, with 256 descriptors: the kernel counts all that are in
//! flight by their user.
//!
//! Each test runs its body in a process of its own (this program again), as another user if root started it: root's
//! descriptors in flight are not counted. The tests take turns, and this binary is alone, for the same reason.

mod fan;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getuid, setrlimit};
use sealane::{Builder, Channel, Control, Error, Event, Publisher, Slow, Subscriber};

use crate::{
    fan::join,
    support::{
        hostile::{
            LONG,
            fanout::{FOREVER, NEVER, RawSubscriber},
            memory::TAIL,
        },
        role::rerun,
        threads::{SOON, bounded},
    },
};

/// The variable that is set where the body of a test runs.
const INSIDE: &str = "INSIDE";
const LIMIT: u64 = 256;
const PATIENCE: Duration = Duration::from_millis(500);
/// Descriptors of a message.
const FDS: usize = 40;

/// Runs `body`, of the test `test`, in a process with few rights and few descriptors.
fn unprivileged(test: impl Fn(), body: impl FnOnce()) {
    static TURNS: Mutex<()> = Mutex::new(());
    let _guard = bounded();
    if env::var_os(INSIDE).is_some() {
        let mut parent = Channel::inherited().unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
        body();
        return parent.sender.send_timeout("done", SOON).unwrap();
    }
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = rerun(test);
    command.env(INSIDE, "");
    if getuid().is_root() {
        command.uid(20_000 + process::id() % 40_000).gid(65_534);
    }
    let (mut channel, mut child) = Channel::spawn(command).unwrap();
    let word = channel.recv_timeout(2 * SOON);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(word.expect("the body has ended, without a panic").control(), b"done");
}

fn builder() -> Builder {
    Builder::default().ring_capacity(64 << 10).max_fds(FDS).slow(Slow::Wait(PATIENCE))
}

/// Publishes a message with descriptors, by any way, which the honest subscriber receives.
fn publish(publisher: &mut Publisher, honest: &mut Subscriber, file: &File, tries: bool) {
    let control = || Control::new(b"files").fds([file; FDS]);
    if tries {
        // Whatever an event loop would do.
        let deadline = Instant::now() + LONG;
        loop {
            match publisher.try_send(control()) {
                Ok(()) => break,
                Err(Error::Full | Error::FdsInFlight) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < deadline, "no try succeeds");
            while publisher.next_event().unwrap().is_some() {}
        }
    } else {
        publisher.send_timeout(control(), LONG).unwrap();
    }
    let message = honest.recv_timeout(LONG).unwrap();
    assert_eq!((message.control(), message.fds().len(), message.missed()), (&b"files"[..], FDS, 0));
}

fn hoarders(patience: u64, tries: bool) {
    let file = File::open("/dev/null").unwrap();
    let mut publisher = builder().publisher().unwrap();
    let mut honest = join(&mut publisher, &builder()).1;
    // They release the ring, and never read their sockets. Even a dozen of them leave room for the others.
    let hoarders: Vec<_> = (0..4).map(|_| RawSubscriber::join(&mut publisher, patience)).collect();
    for _ in 0..30 {
        publish(&mut publisher, &mut honest, &file, tries);
        for hoarder in &hoarders {
            hoarder.raw.set(TAIL, hoarder.published());
        }
    }
    if patience == FOREVER {
        while publisher.next_event().unwrap().is_some() {}
        assert_eq!(publisher.subscribers().len(), 1, "they are ended within their time");
    }
    assert_eq!(honest.missed(), 0);
}

#[test]
fn hoarders_that_are_waited_for_do_not_stop_the_descriptors_of_others() {
    unprivileged(hoarders_that_are_waited_for_do_not_stop_the_descriptors_of_others, || {
        hoarders(FOREVER, false);
    });
}

#[test]
fn hoarders_do_not_stop_a_publisher_that_never_waits() {
    unprivileged(hoarders_do_not_stop_a_publisher_that_never_waits, || hoarders(FOREVER, true));
}

#[test]
fn hoarders_that_may_be_overrun_do_not_stop_the_descriptors_of_others() {
    unprivileged(hoarders_that_may_be_overrun_do_not_stop_the_descriptors_of_others, || {
        hoarders(NEVER, false);
        hoarders(NEVER, true);
    });
}

/// A message that its subscriber loses for want of descriptors was published: the number at its source counts it.
#[test]
fn message_that_lost_its_descriptors_counts_in_the_number_at_its_source() {
    unprivileged(message_that_lost_its_descriptors_counts_in_the_number_at_its_source, || {
        for slow in [Slow::Wait(Duration::MAX), Slow::Overrun] {
            let file = File::open("/dev/null").unwrap();
            let mut publisher = builder().publisher().unwrap();
            let mut subscriber = join(&mut publisher, &builder().slow(slow)).1;
            publisher.number(100);
            publisher.send(Control::new(b"lost").fd(&file).fd(&file)).unwrap();
            publisher.send(b"not lost").unwrap();
            // One more fits: descriptors are numbered from the lowest free number on.
            let free = File::open("/dev/null").unwrap().as_raw_fd();
            let limit = |current| Rlimit { current: Some(current), maximum: Some(LIMIT) };
            setrlimit(Resource::Nofile, limit(u64::try_from(free).unwrap() + 1)).unwrap();
            let lost = subscriber.recv_timeout(SOON);
            setrlimit(Resource::Nofile, limit(LIMIT)).unwrap();
            assert!(matches!(lost, Err(Error::FdsLost { expected: 2, received: 1 })), "{lost:?}");
            assert_eq!((subscriber.number(), subscriber.missed()), (101, 0));
            assert_eq!(subscriber.recv_timeout(SOON).unwrap().control(), b"not lost");
            assert_eq!((subscriber.number(), subscriber.missed()), (102, 0));
        }
    });
}

/// When all that the user may have in flight is unread at some subscribers, their accounts are charged, also by calls that do not
/// wait, and never that of the one that has read everything.
#[test]
fn whoever_holds_descriptors_is_ended_not_whoever_is_sent_to() {
    unprivileged(whoever_holds_descriptors_is_ended_not_whoever_is_sent_to, || {
        for tries in [true, false] {
            let file = File::open("/dev/null").unwrap();
            let mut publisher = builder().publisher().unwrap();
            let (honest_id, mut honest) = join(&mut publisher, &builder());
            let reading = thread::spawn(move || {
                let mut count = 0;
                loop {
                    match honest.recv_timeout(LONG) {
                        Ok(message) => assert_eq!((message.fds().len(), message.missed()), (FDS, 0)),
                        Err(Error::Disconnected) => return count,
                        Err(error) => panic!("{error}"),
                    }
                    count += 1;
                }
            });
            // One packet may always be unread, and seven of 40 are more than 256.
            let mut hoarders: Vec<_> = (0..7).map(|_| RawSubscriber::join(&mut publisher, NEVER)).collect();
            let (mut sent, mut left, mut refused) = (0, 0, 0);
            let deadline = Instant::now() + LONG;
            // Some messages behind the last one that was refused.
            while sent < 5 || left == 0 || !hoarders.is_empty() {
                assert!(Instant::now() < deadline, "{sent} sent, {refused} refused, {left} left");
                let control = Control::default().fds([&file; FDS]);
                match if tries { publisher.try_send(control) } else { publisher.send_timeout(control, LONG) }
                {
                    Ok(()) => sent += 1,
                    Err(Error::FdsInFlight | Error::Full) => {
                        refused += 1;
                        sent = 0;
                    }
                    Err(error) => panic!("{error}"),
                }
                // The honest one has time to read: who is slower than its publisher would be charged, too.
                while let Some(event) = publisher.wait_event(Duration::from_millis(2)).unwrap() {
                    match event {
                        Event::Left(id, Error::TooSlow) => {
                            assert_ne!(id, honest_id, "the honest one is blamed");
                            left += 1;
                        }
                        // One that had not been sent any.
                        Event::Left(id, Error::Disconnected) => assert_ne!(id, honest_id),
                        other => panic!("{other:?}"),
                    }
                }
                // Their descriptors count until they close them.
                if left > 0 {
                    hoarders.clear();
                }
            }
            assert!(refused > 0, "the limit was not reached");
            let sent = publisher.stats().messages_sent;
            drop(publisher);
            assert_eq!(reading.join().unwrap(), sent);
        }
    });
}
