//! A process that is killed, or stopped for a while, at a random instant: its committed messages arrive, nothing arrives
//! partly, no call waits for it, and nothing of it is left.
//!
//! Descriptors and mappings are counted for the whole process, so this binary has one test only.

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs::File,
    hint::spin_loop,
    io::stdin,
    os::{
        fd::AsFd,
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    process::{Child, ExitStatus},
    thread,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::pwrite,
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};
use sealane::{Builder, Channel, Control, Error, HandshakeError};

use crate::support::{
    WAITS, left_over, role,
    script::{Files, Most, Random, Script},
    short_or_long,
    threads::{SOON, start},
};

const MOST: Most = Most { control: 500, fds: 3, payload: 3000 };

fn builder(random: &mut Random) -> Builder {
    Channel::builder().ring_capacity(8192).wait(WAITS[random.below(WAITS.len())])
}

#[test]
fn processes_killed_at_any_instant_leave_nothing_partial() {
    type Round = fn(&mut Random);
    let seed = Random::seed();
    println!("SEED={seed}");
    let mut random = Random(seed);
    let rounds: [(&str, Round); 4] = [
        ("a sender is killed", a_sender_is_killed),
        ("a receiver is killed", a_receiver_is_killed),
        ("killed in the handshake", killed_in_the_handshake),
        ("killed in a call", killed_in_a_call),
    ];
    let count = short_or_long(50, 2000);
    rounds[0].1(&mut random);
    let before = left_over();
    for (name, round) in rounds {
        for n in 0..count {
            let seed = random.next();
            round(&mut Random(seed));
            assert_eq!(left_over(), before, "{name}, round {n}: descriptors, regions mapped");
        }
        println!("{name}: {count} times");
        assert!(waitpid(None, WaitOptions::NOHANG).is_err(), "{name}: a child is left");
    }
}

/// Lets some time pass, mostly little: no more than the other process needs to do some things.
fn dawdle(random: &mut Random) {
    let most = [100, 1000, 10_000, 100_000, 1_000_000][random.below(5)];
    (0..random.below(most)).for_each(|_| spin_loop());
}

/// Kills a child, and checks that it lived until then: a child that found an error has ended by itself.
fn kill(mut child: Child) {
    child.kill().unwrap();
    let status: ExitStatus = start(move || child.wait().unwrap()).result();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "the child has failed: {status}");
}

/// Kills a child at a random time while `action` runs. Every other child was stopped for a while before, and some
/// are stopped when they are killed.
fn killing<T>(child: Child, random: &mut Random, action: impl FnOnce() -> T) -> T {
    let mut random = Random(random.next());
    let send = |child: &Child, signal| kill_process(Pid::from_child(child), signal).unwrap();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            if random.below(2) == 0 {
                for _ in 0..random.below(10) {
                    dawdle(&mut random);
                    send(&child, Signal::STOP);
                    dawdle(&mut random);
                    send(&child, Signal::CONT);
                }
            }
            dawdle(&mut random);
            if random.below(4) == 0 {
                send(&child, Signal::STOP);
                dawdle(&mut random);
            }
            kill(child);
        });
        let result = action();
        killer.join().unwrap();
        result
    })
}

/// Receives a peer's script until the peer is gone, and returns the number of messages.
fn receive_all(channel: &mut Channel, seed: u64) -> u64 {
    for (item, count) in Script::new(seed, MOST).zip(0..) {
        match channel.recv_timeout(SOON) {
            Ok(message) => item.check(&message),
            Err(Error::Disconnected) => return count,
            Err(error) => panic!("after {count} messages: {error}"),
        }
    }
    unreachable!("a script has no end")
}

fn a_sender_is_killed(random: &mut Random) {
    let seed = random.next();
    let committed = File::from(memfd_create("committed", MemfdFlags::CLOEXEC).unwrap());
    committed.write_all_at(&[0; 8], 0).unwrap();
    let mut command = role(sends_for_ever);
    command.env("SEED", seed.to_string()).stdin(committed.try_clone().unwrap());
    let (mut channel, child) = builder(random).spawn(command).unwrap();
    let received = killing(child, random, || receive_all(&mut channel, seed));
    let mut count = [0; 8];
    committed.read_exact_at(&mut count, 0).unwrap();
    let committed = u64::from_le_bytes(count);
    // The last one may have been committed, but not yet counted.
    assert!((committed..=committed + 1).contains(&received), "{committed} committed, {received} received");
}

/// Sends a script, and writes to the file that is its standard input how many messages it has committed.
#[test]
#[ignore = "the child of another test"]
fn sends_for_ever() {
    let (mut sender, _receiver) = Channel::builder().ring_capacity(8192).inherited().unwrap().split();
    let (files, count) = (Files::new(), stdin());
    for (item, committed) in Script::new(Random::seed(), MOST).zip(1_u64..) {
        item.send(&mut sender, &files).unwrap();
        pwrite(count.as_fd(), &committed.to_le_bytes(), 0).unwrap();
    }
}

fn a_receiver_is_killed(random: &mut Random) {
    let seed = random.next();
    let mut command = role(checks_for_ever);
    command.env("SEED", seed.to_string());
    let (channel, child) = builder(random).spawn(command).unwrap();
    let (mut sender, mut receiver) = channel.split();
    killing(child, random, || {
        let sending = start(move || {
            let files = Files::new();
            Script::new(seed, MOST).find_map(|item| item.send(&mut sender, &files).err())
        });
        assert!(matches!(sending.result(), Some(Error::Disconnected)));
    });
    assert!(matches!(receiver.recv_timeout(SOON), Err(Error::Disconnected)));
}

/// The child ends by itself only after a failure.
#[test]
#[ignore = "the child of another test"]
fn checks_for_ever() {
    let mut channel = Channel::builder().ring_capacity(8192).inherited().unwrap();
    let mut random = Random(Random::seed());
    let mut kept = Vec::new();
    for item in Script::new(Random::seed(), MOST) {
        let Ok(mut message) = channel.recv() else { break };
        item.check(&message);
        // Payloads that are kept for a while, and dropped in any order.
        kept.extend(message.take_payload().filter(|payload| payload.len() < 500));
        if random.below(4) == 0 {
            kept.clear();
        }
    }
    panic!("the parent is gone");
}

fn killed_in_the_handshake(random: &mut Random) {
    let (handshake, child) = builder(random).try_spawn(role(sends_nothing)).unwrap();
    let result = killing(child, random, || handshake.finish());
    match result {
        Ok(mut channel) => assert!(matches!(channel.recv_timeout(SOON), Err(Error::Disconnected))),
        Err(Error::Handshake(HandshakeError::Closed { .. })) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
#[ignore = "the child of another test"]
fn sends_nothing() {
    let _ = Channel::inherited().unwrap().recv();
    panic!("the parent is gone");
}

fn killed_in_a_call(random: &mut Random) {
    let (mut channel, child) = builder(random).spawn(role(answers_for_ever)).unwrap();
    killing(child, random, || {
        for n in 0_u64.. {
            let reply = if n % 2 == 0 {
                channel.call(Control::of(&n), SOON)
            } else {
                let loan = channel.sender.loan_timeout(3000, SOON);
                let request = loan.and_then(|loan| loan.request(Control::of(&n)));
                request.and_then(|request| channel.receiver.wait_reply(request, SOON))
            };
            match reply {
                Ok(reply) => assert_eq!(reply.control_as::<u64>().unwrap(), &n),
                Err(Error::Disconnected) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
#[ignore = "the child of another test"]
fn answers_for_ever() {
    let mut channel = Channel::builder().ring_capacity(8192).inherited().unwrap();
    while let Ok(request) = channel.recv() {
        let token = request.reply_token().unwrap();
        if request.payload().is_some() {
            let mut loan = channel.loan(3000).unwrap();
            loan.fill(1);
            loan.send_with(Control::new(request.control()).in_reply_to(token)).unwrap();
        } else {
            channel.reply(token, request.control()).unwrap();
        }
    }
    panic!("the parent is gone");
}
