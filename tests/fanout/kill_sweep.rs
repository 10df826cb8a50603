//! Subscribers that are killed, or stopped for a while, at a random instant: the publisher goes on, the others receive everything,
//! and nothing of the killed ones is left.
//!
//! Descriptors, mappings and memory are counted for the whole process, so this binary has one test only.

mod fan;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    hint::spin_loop,
    os::unix::process::ExitStatusExt,
    process::Child,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use sealane::{Builder, Control, Error, Event, Publisher, Slow, Subscriber, SubscriberId};

use crate::support::{
    left_over, role,
    script::Random,
    short_or_long,
    threads::{SOON, bounded_by, start},
};

const RING: usize = 32 << 10;
const MOST: usize = 4000;
/// Long, as a stopped process is waited for, and a busy machine may not run one for a while.
const PATIENCE: Duration = Duration::from_secs(2);
const CHILDREN: usize = 8;

fn builder() -> Builder {
    Builder::default().ring_capacity(RING).max_fds(4).slow(Slow::Wait(PATIENCE))
}

/// Length and contents of a message's payload.
fn contents(sequence: u64) -> (usize, u8) {
    (Random(sequence).below(MOST), sequence.to_le_bytes()[0])
}

fn publish(publisher: &mut Publisher, file: &fs::File) {
    let sequence = publisher.stats().messages_sent;
    let (len, byte) = contents(sequence);
    let mut loan = publisher.loan(len).unwrap();
    loan.fill(byte);
    let control = sequence.to_le_bytes();
    let control = Control::new(&control);
    loan.send_with(if sequence.is_multiple_of(7) { control.fd(file) } else { control }).unwrap();
}

/// Publishes a message if there is room for it.
fn try_publish(publisher: &mut Publisher) {
    let sequence = publisher.stats().messages_sent;
    let (len, byte) = contents(sequence);
    if let Some(mut loan) = publisher.try_loan(len).unwrap() {
        loan.fill(byte);
        // Not one with descriptors: they are no reason to wait here.
        if !sequence.is_multiple_of(7) {
            loan.send_with(&sequence.to_le_bytes()).unwrap();
        }
    }
}

/// Receives one message and checks all of it.
fn check(subscriber: &mut Subscriber) -> Result<(), Error> {
    let message = subscriber.recv_timeout(SOON)?;
    let (len, byte) = contents(message.sequence());
    assert_eq!(message.control(), message.sequence().to_le_bytes());
    assert_eq!(message.fds().len(), usize::from(message.sequence().is_multiple_of(7)));
    match message.payload().unwrap().try_to_vec() {
        Ok(bytes) => assert!(bytes == vec![byte; len], "payload of {}", message.sequence()),
        Err(error) => assert!(matches!(error, Error::Overrun), "{error}"),
    }
    Ok(())
}

struct Fan {
    publisher: Publisher,
    children: Vec<(SubscriberId, Child)>,
    file: fs::File,
}

impl Fan {
    fn spawn(&mut self, random: &mut Random) {
        let mut command = role(checks_for_ever);
        command.env("POLICY", ["wait", "overrun"][random.below(2)]);
        self.children.push(self.publisher.spawn(command).unwrap());
    }

    /// Hears all that has happened: nobody leaves but those who are killed.
    fn hear(&mut self, killed: &mut Vec<SubscriberId>) {
        while let Some(event) = self.publisher.next_event().unwrap() {
            match event {
                Event::Left(id, Error::Disconnected) if killed.contains(&id) => {
                    killed.retain(|other| *other != id);
                }
                // Its time was over while it was stopped.
                Event::Left(id, Error::TooSlow) if killed.contains(&id) => {
                    killed.retain(|other| *other != id);
                }
                Event::Message(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Kills some children while messages are published.
    fn round(&mut self, random: &mut Random) {
        let mut killed = Vec::new();
        for _ in 0..=random.below(3) {
            let at = random.below(self.children.len());
            let (id, mut child) = self.children.swap_remove(at);
            let pid = Pid::from_child(&child);
            let (before, stopped) = (random.below(60), random.below(3) == 0);
            for _ in 0..before {
                publish(&mut self.publisher, &self.file);
            }
            if stopped {
                kill_process(pid, Signal::STOP).unwrap();
                // A call that waits would use up the time that this user has.
                try_publish(&mut self.publisher);
            }
            let most = random.one_of(&[100, 10_000, 1_000_000]);
            (0..random.below(most)).for_each(|_| spin_loop());
            child.kill().unwrap();
            let status = start(move || child.wait().unwrap()).result();
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "the child has failed: {status}");
            killed.push(id);
        }
        let deadline = Instant::now() + SOON;
        while !killed.is_empty() {
            publish(&mut self.publisher, &self.file);
            self.hear(&mut killed);
            assert!(Instant::now() < deadline, "{killed:?} are still there");
        }
    }
}

/// Pages of this process in memory, without those of files.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

#[test]
fn killed_subscribers_leave_nothing_and_hold_up_nobody() {
    let _guard = bounded_by(20 * SOON);
    let seed = Random::seed();
    println!("SEED={seed}");
    let mut random = Random(seed);
    let empty = left_over();
    let mut publisher = builder().publisher().unwrap();
    let (_, mut honest) = fan::join(&mut publisher, &builder());
    let honest = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            match check(&mut honest) {
                Ok(()) => count += 1,
                Err(Error::Disconnected) => return (count, honest.missed()),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let file = fs::File::open("/dev/null").unwrap();
    let mut fan = Fan { publisher, children: Vec::new(), file };
    let (mut before, mut memory) = (None, Vec::new());
    for round in 0..short_or_long(25, 1000) {
        while fan.children.len() < CHILDREN {
            fan.spawn(&mut random);
        }
        // The honest one has descriptors as long as it has not caught up.
        let first = *before.get_or_insert_with(left_over);
        let deadline = Instant::now() + SOON;
        while left_over() != first {
            assert!(Instant::now() < deadline, "round {round}: {:?} instead of {first:?}", left_over());
            fan.hear(&mut Vec::new());
        }
        memory.push(resident());
        fan.round(&mut random);
    }
    // The first rounds fill buffers of threads and of the allocator.
    let (early, late) = (memory[memory.len() / 4], memory[memory.len() - 1]);
    assert!(late < early + 4096, "memory has grown: {early} KiB, {late} KiB");
    let sent = fan.publisher.stats().messages_sent;
    drop(fan.publisher);
    for (_, mut child) in fan.children {
        // The end is no failure for them.
        assert!(start(move || child.wait().unwrap()).result().success());
    }
    assert_eq!(honest.join().unwrap(), (sent, 0));
    drop(fan.file);
    assert_eq!(left_over(), empty, "descriptors, regions mapped");
    assert!(waitpid(None, WaitOptions::NOHANG).is_err(), "a child is left");
}

#[test]
#[ignore = "the child of another test"]
fn checks_for_ever() {
    let slow = match std::env::var("POLICY").unwrap().as_str() {
        "wait" => Slow::Wait(Duration::MAX),
        _ => Slow::Overrun,
    };
    let mut subscriber = builder().slow(slow).subscribe_inherited().unwrap();
    let mut before = None;
    loop {
        match check(&mut subscriber) {
            Ok(()) => {
                if slow != Slow::Overrun {
                    assert_eq!(subscriber.missed(), 0);
                }
                // Some that are held for a while, and a word to the publisher.
                if subscriber.stats().messages_received.is_multiple_of(4) {
                    before = None;
                    let _ = subscriber.try_send("still here");
                } else if before.is_none() {
                    match subscriber.try_recv() {
                        Ok(message) => before = message,
                        Err(Error::Disconnected | Error::TooSlow) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Err(Error::Disconnected | Error::TooSlow) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
