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
    os::unix::process::CommandExt,
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
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
const PATIENCE: Duration = Duration::from_millis(200);
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
        let deadline = std::time::Instant::now() + LONG;
        loop {
            match publisher.try_send(control()) {
                Ok(()) => break,
                Err(Error::Full | Error::FdsInFlight) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(std::time::Instant::now() < deadline, "no try succeeds");
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
    unprivileged(hoarders_that_are_waited_for_do_not_stop_the_descriptors_of_others, || hoarders(FOREVER, false));
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

/// When all that the user may have in flight is unread at one subscriber, its account is charged, also by calls that do not wait.
#[test]
fn whoever_holds_most_descriptors_is_ended_not_whoever_is_sent_to() {
    unprivileged(whoever_holds_most_descriptors_is_ended_not_whoever_is_sent_to, || {
        for tries in [true, false] {
            let file = File::open("/dev/null").unwrap();
            // One packet may always be unread: with as many lanes it is too many.
            let mut publisher = builder().max_fds(FDS).publisher().unwrap();
            let mut honest = join(&mut publisher, &builder()).1;
            let hoarders: Vec<_> = (0..7).map(|_| RawSubscriber::join(&mut publisher, NEVER)).collect();
            let mut refused = false;
            let deadline = std::time::Instant::now() + LONG;
            let mut left = 0;
            // 7 packets of 40 are more than 256.
            while left == 0 && std::time::Instant::now() < deadline {
                let result = if tries {
                    publisher.try_send(Control::default().fds([&file; FDS]))
                } else {
                    publisher.send_timeout(Control::default().fds([&file; FDS]), LONG)
                };
                match result {
                    Ok(()) => drop(honest.recv_timeout(LONG).unwrap()),
                    Err(Error::FdsInFlight | Error::Full) => refused = true,
                    Err(error) => panic!("{error}"),
                }
                while let Some(event) = publisher.next_event().unwrap() {
                    match event {
                        Event::Left(id, Error::TooSlow) => {
                            assert!(hoarders.iter().any(|hoarder| hoarder.id == id), "the honest one is blamed");
                            left += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(left > 0 && (refused || !tries), "nobody was ended");
            // The descriptors count until those who hold them close them.
            drop(hoarders);
            for _ in 0..20 {
                publish(&mut publisher, &mut honest, &file, tries);
                while publisher.next_event().unwrap().is_some() {}
            }
        }
    });
}
