//! A user that is not root, with 64 descriptors: running out of them is an error that loses nothing else, and passes.
//!
//! Each test runs its body in a process of its own (this program again), as another user if root started it: root's
//! descriptors in flight are not counted. They are counted by user, so the tests take turns, and no two runs share a user.
//! This binary is alone for the same reason.

#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    fs::File,
    os::unix::process::CommandExt,
    process::{self, Child},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, WaitOptions, getgid, getuid, setrlimit, wait},
};
use sealane::{Channel, Control, Error, HandshakeError, Listener, Reason, Result, SealedBufferMut};

use crate::support::{
    role::rerun,
    threads::{SOON, start},
};

const SHORT: Duration = Duration::from_millis(20);
/// The variable that is set where the body of a test runs.
const INSIDE: &str = "INSIDE";

/// A child that does not outlive its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Process, user and group of the peer.
fn identity(channel: &Channel) -> [u32; 3] {
    let seen = channel.peer().credentials();
    [seen.pid.map_or(0, u32::from), seen.uid, seen.gid]
}

/// Runs `body`, of the test `test`, in a process with few rights and few descriptors.
fn unprivileged(test: impl Fn(), body: impl FnOnce()) {
    static TURNS: Mutex<()> = Mutex::new(());
    if env::var_os(INSIDE).is_some() {
        let mut parent = Channel::inherited().unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
        body();
        return parent.sender.send_timeout(Control::of(&identity(&parent)), SOON).unwrap();
    }
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let mut command = rerun(test);
    command.env(INSIDE, "");
    let (mut its_user, mut its_group) = (user, group);
    if user == 0 {
        (its_user, its_group) = (20_000 + process::id() % 40_000, 65_534);
        command.uid(its_user).gid(its_group);
    }
    let (mut channel, child) = Channel::spawn(command).unwrap();
    let child = Ends(child);
    assert_eq!(identity(&channel), [child.0.id(), its_user, its_group]);
    let word = channel.recv_timeout(SOON).expect("the body has ended, without a panic");
    assert_eq!(word.control_as::<[u32; 3]>().unwrap(), &[process::id(), user, group]);
}

/// Takes all descriptors that this process may still have but `free`.
fn leave(free: usize) -> Vec<File> {
    let mut taken = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(Errno::from_io_error(&error), Some(Errno::MFILE));
    taken.truncate(taken.len().checked_sub(free).expect("so many are left"));
    taken
}

/// How many descriptors this process may still have.
fn left() -> usize {
    leave(0).len()
}

/// Tries without a free descriptor, with one, and so on until it succeeds. The attempt can close the taken ones.
fn needs_descriptors<T>(mut attempt: impl FnMut(&mut Vec<File>) -> Result<T>) {
    let before = left();
    for free in 0.. {
        let mut taken = leave(free);
        let result = attempt(&mut taken);
        drop(taken);
        match result {
            Ok(_) if free > 0 => break,
            Err(Error::Io { .. }) => {}
            Err(Error::FdsLost { .. }) if free > 0 => {}
            result => panic!("with {free} descriptors left: {:?}", result.err()),
        }
        assert_eq!(left(), before, "some have leaked");
    }
    assert_eq!(left(), before, "some have leaked");
}

/// Sends descriptors until too many are in flight, and returns the number of messages.
fn flood(channel: &mut Channel, file: &File) -> usize {
    let mut count = 0;
    loop {
        match channel.try_send(Control::default().fds([file; 8])) {
            Ok(()) => count += 1,
            Err(Error::FdsInFlight) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn another_user_is_known_as_such_at_both_ends() {
    unprivileged(another_user_is_known_as_such_at_both_ends, || {});
}

#[test]
fn establishing_at_the_limit_is_an_error_and_leaks_nothing() {
    unprivileged(establishing_at_the_limit_is_an_error_and_leaks_nothing, || {
        let name = format!("@sealane-unprivileged-{}", process::id());
        needs_descriptors(|_| Channel::pair());
        needs_descriptors(|_| Listener::bind(&name));
        needs_descriptors(|_| SealedBufferMut::new(100)?.seal());
        needs_descriptors(|_| {
            let (channel, child) = Channel::spawn(rerun(waits).arg("--ignored"))?;
            Ok((channel, Ends(child)))
        });
        assert_eq!(wait(WaitOptions::NOHANG).unwrap_err(), Errno::CHILD, "all children have been reaped");

        let listener = Listener::bind(&name).unwrap();
        needs_descriptors(|taken| {
            let result = meet(&listener, &name, taken);
            taken.clear();
            // These clients have given up.
            while result.is_err() && listener.try_accept().unwrap().is_some() {}
            result
        });
    });
}

/// Both ends of a connection, step by step.
fn meet(listener: &Listener, name: &str, taken: &mut Vec<File>) -> Result<(Channel, Channel)> {
    let mut client = Channel::builder().try_connect(name)?;
    let mut server = match listener.try_accept() {
        Ok(server) => server.expect("somebody has connected"),
        Err(error) => {
            taken.clear();
            assert!(listener.try_accept().unwrap().is_some(), "the client has gone on waiting");
            return Err(error);
        }
    };
    loop {
        let complete = client.advance()?;
        match server.advance() {
            Ok(true) if complete => return Ok((client.finish()?, server.finish()?)),
            Ok(_) => {}
            Err(error) => {
                drop(server);
                let closed = client.finish();
                assert!(
                    matches!(&closed, Err(Error::Handshake(HandshakeError::Rejected(refusal)))
                        if refusal.reason == Reason::OwnFailure),
                    "{closed:?}"
                );
                return Err(error);
            }
        }
    }
}

#[test]
#[ignore = "the child of another test"]
fn waits() {
    // There is no channel if the parent ran out of descriptors in the middle.
    let _ = Channel::inherited().and_then(|mut channel| channel.recv());
}

#[test]
fn channels_up_to_the_limit_of_descriptors_work() {
    unprivileged(channels_up_to_the_limit_of_descriptors_work, || {
        let fill = || -> Vec<_> {
            std::iter::from_fn(|| Channel::builder().ring_capacity(4096).pair().ok()).collect()
        };
        let mut channels = fill();
        for (a, b) in &mut channels {
            let request = a.loan(100).unwrap().request(b"?").unwrap();
            let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
            b.reply(token, b"!").unwrap();
            assert_eq!(a.receiver.wait_reply(request, SOON).unwrap().control(), b"!");
        }
        let count = channels.len();
        assert!((5..64).contains(&count), "{count} channels");
        drop(channels);
        assert_eq!(fill().len(), count);
    });
}

#[test]
fn a_receiver_at_its_limit_loses_that_message_and_goes_on() {
    unprivileged(a_receiver_at_its_limit_loses_that_message_and_goes_on, || {
        let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
        let (null, most) = (File::open("/dev/null").unwrap(), a.limits().max_payload);
        let send = |a: &mut Channel, payload: bool| {
            let control = Control::new(b"five descriptors").fds([&null; 5]);
            if payload {
                a.sender.loan_timeout(most, SOON).unwrap().send_with(control)
            } else {
                a.send(control)
            }
        };
        let before = left();
        for free in 0..5 {
            for payload in [false, true] {
                a.send(b"before").unwrap();
                send(&mut a, payload).unwrap();
                a.send(b"after").unwrap();
                let taken = leave(free);
                assert_eq!(b.recv_timeout(SOON).unwrap().control(), b"before");
                let lost = b.recv_timeout(SOON).unwrap_err();
                assert!(matches!(lost, Error::FdsLost { expected: 5, received } if received == free));
                assert!(!lost.is_fatal());
                assert_eq!(b.try_recv().unwrap().unwrap().control(), b"after");
                drop(taken);
                assert_eq!(left(), before);
                assert_eq!(b.receiver.held().count, 0);
                assert!(a.sender.has_space(most).unwrap());
            }
        }
        send(&mut a, true).unwrap();
        let message = b.recv_timeout(SOON).unwrap();
        assert_eq!((message.fds().len(), message.payload().unwrap().len()), (5, most));
    });
}

#[test]
fn a_reply_that_is_lost_is_not_waited_for_again() {
    unprivileged(a_reply_that_is_lost_is_not_waited_for_again, || {
        let (mut a, mut b) = Channel::pair().unwrap();
        let request = a.request(b"?").unwrap();
        let token = b.recv_timeout(SOON).unwrap().reply_token().unwrap();
        let null = File::open("/dev/null").unwrap();
        b.reply(token, Control::default().fd(&null)).unwrap();
        let all = leave(0);
        assert!(matches!(
            a.receiver.wait_reply(request, SOON),
            Err(Error::FdsLost { expected: 1, received: 0 })
        ));
        drop(all);
        assert!(matches!(a.receiver.wait_reply(request, SOON), Err(Error::UnknownRequest)));
    });
}

#[test]
fn descriptors_in_flight_are_back_pressure() {
    unprivileged(descriptors_in_flight_are_back_pressure, || {
        let (mut a, mut b) = Channel::pair().unwrap();
        let (mut c, mut d) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let one = || Control::new(b"one").fd(&null);
        let before = left();
        let mut flooded = flood(&mut a, &null);

        assert!(matches!(c.try_send(one()), Err(Error::FdsInFlight)));
        assert!(matches!(c.sender.try_request(one()), Err(Error::FdsInFlight)));
        let unsent = c.try_loan(8).unwrap().unwrap().try_send_with(one()).unwrap_err();
        assert!(matches!(unsent.error(), Error::FdsInFlight));
        drop(unsent);
        assert!(matches!(c.sender.send_timeout(one(), SHORT), Err(Error::Timeout)));
        assert!(matches!(c.call(one(), SHORT), Err(Error::Timeout)));
        // Messages without descriptors pass, and nothing else has passed.
        c.send(b"first").unwrap();
        c.loan(8).unwrap().send_with(b"second").unwrap();
        assert_eq!(d.recv_timeout(SOON).unwrap().control(), b"first");
        assert_eq!(d.recv_timeout(SOON).unwrap().control(), b"second");
        assert!(d.try_recv().unwrap().is_none());

        // A waiting call continues when a peer has read, its own or another one.
        let waiting: [fn(&mut Channel, Control<'_>) -> Result<()>; 3] = [
            |channel, control| channel.send(control),
            |channel, control| channel.loan(8).unwrap().send_with(control),
            |channel, control| channel.request(control).map(drop),
        ];
        for send in waiting {
            let file = null.try_clone().unwrap();
            let sending = start(move || (send(&mut c, Control::new(b"one").fd(&file)), c)).asleep();
            assert_eq!(b.recv_timeout(SOON).unwrap().fds().len(), 8);
            let sent;
            (sent, c) = sending.result();
            sent.unwrap();
            flooded = flooded - 1 + flood(&mut a, &null);
        }
        let file = null.try_clone().unwrap();
        let sending = start(move || (a.send(Control::default().fds([&file; 8])), a)).asleep();
        for _ in 0..flooded {
            assert_eq!(b.recv_timeout(SOON).unwrap().fds().len(), 8);
        }
        let (sent, _a) = sending.result();
        sent.unwrap();
        assert_eq!(b.recv_timeout(SOON).unwrap().fds().len(), 8);
        for _ in waiting {
            assert_eq!(d.recv_timeout(SOON).unwrap().fds().len(), 1);
        }
        assert!(b.try_recv().unwrap().is_none() && d.try_recv().unwrap().is_none());
        assert_eq!(left(), before);
    });
}

#[test]
fn handshakes_wait_while_too_many_descriptors_are_in_flight() {
    unprivileged(handshakes_wait_while_too_many_descriptors_are_in_flight, || {
        let (mut a, mut b) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let name = format!("@sealane-unprivileged-{}", process::id());
        let listener = Listener::bind(&name).unwrap();
        let before = left();
        let flooded = flood(&mut a, &null);
        let builder = Channel::builder().handshake_timeout(SHORT);
        assert!(matches!(Channel::pair(), Err(Error::FdsInFlight)));
        assert!(matches!(builder.connect(&name), Err(Error::FdsInFlight | Error::Timeout)));
        let child = builder.spawn(rerun(waits).arg("--ignored"));
        assert!(matches!(child, Err(Error::FdsInFlight | Error::Timeout)));
        assert_eq!(wait(WaitOptions::NOHANG).unwrap_err(), Errno::CHILD, "it has been reaped");
        assert!(listener.accept().is_err(), "the first client is gone");
        assert_eq!(left(), before);

        let connecting = start(move || Channel::builder().handshake_timeout(SOON).connect(name)).asleep();
        let accepting = start(move || listener.accept()).asleep();
        for _ in 0..flooded {
            b.recv_timeout(SOON).unwrap();
        }
        let (mut client, mut server) = (connecting.result().unwrap(), accepting.result().unwrap());
        client.send(Control::default().fd(&null)).unwrap();
        assert_eq!(server.recv_timeout(SOON).unwrap().fds().len(), 1);
    });
}
