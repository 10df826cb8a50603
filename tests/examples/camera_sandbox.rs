//! The sandbox of the example `camera`: a process in it reaches no other process.
#![expect(unsafe_code, reason = "fcntl(2) and ioctl(2) as an attacker calls them")]

use std::{
    env,
    io::{Read, Write, stdin},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{ExitStatus, Stdio, exit},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{permitted::enter_sandbox, sandbox::Sandbox, support::role};

/// Name the victim's process, and whether the attacker enters the sandbox first.
const VICTIM: &str = "SEALANE_TEST_VICTIM";
const SANDBOXED: &str = "SEALANE_TEST_SANDBOXED";

/// How the victim ends whose process the attacker tries to end.
fn attack(way: impl Fn(), sandboxed: bool) -> ExitStatus {
    let mut victim = role(the_victim).stdin(Stdio::piped()).spawn().unwrap();
    let mut attacker = role(way);
    attacker.env(VICTIM, victim.id().to_string()).env(SANDBOXED, u8::from(sandboxed).to_string());
    let status = attacker.status().unwrap();
    assert!(status.success(), "the attacker came to its end: {status}");
    drop(victim.stdin.take());
    victim.wait().unwrap()
}

fn check(way: impl Fn() + Copy) {
    let unprotected = attack(way, false);
    assert!(unprotected.signal().is_some(), "outside the sandbox this is an attack: {unprotected}");
    let protected = attack(way, true);
    assert!(protected.success(), "{protected}");
}

#[test]
fn the_sandbox_keeps_fcntl_from_killing_a_process() {
    check(asks_fcntl_for_signals);
}

#[test]
fn the_sandbox_keeps_ioctl_from_ending_a_process() {
    check(asks_ioctl_for_signals);
}

#[test]
fn every_forbidden_act_is_refused() {
    let status = role(tries_to_escape).status().unwrap();
    assert_eq!(status.code(), Some(i32::try_from(Sandbox::ACTS).unwrap()));
}

/// The thread of a test ends with its panic, and the process with its tests. (Where `exit(2)` is refused, the thread tries for ever.)
#[test]
fn a_thread_that_panics_in_the_sandbox_ends() {
    assert_eq!(role(panics).status().unwrap().code(), Some(101));
}

#[test]
#[ignore = "the child of another test"]
fn panics() {
    // The kernel ends a thread that tries for ever.
    setrlimit(Resource::Cpu, Rlimit { current: Some(2), maximum: Some(2) }).unwrap();
    enter_sandbox().unwrap();
    panic!("a bug, on request");
}

#[test]
#[ignore = "the child of another test"]
fn the_victim() {
    stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The victim, a socket for which signals can be asked, and its other end.
fn attacker() -> (i32, UnixStream, UnixStream) {
    let victim = env::var(VICTIM).unwrap().parse().unwrap();
    let (watched, other) = UnixStream::pair().unwrap();
    if env::var(SANDBOXED).unwrap() == "1" {
        enter_sandbox().unwrap();
    }
    (victim, watched, other)
}

#[test]
#[ignore = "the child of another test"]
fn asks_fcntl_for_signals() {
    const F_SETSIG: i32 = 10;
    let (victim, watched, mut other) = attacker();
    let asks = [(libc::F_SETOWN, victim), (F_SETSIG, libc::SIGKILL), (libc::F_SETFL, libc::O_ASYNC)];
    for (command, argument) in asks {
        // SAFETY: contract of `fcntl(2)`: these commands take a number, and touch no memory.
        unsafe { libc::fcntl(watched.as_raw_fd(), command, argument) };
    }
    other.write_all(b"!").unwrap();
    exit(0);
}

#[test]
#[ignore = "the child of another test"]
fn asks_ioctl_for_signals() {
    const FIOSETOWN: libc::Ioctl = 0x8901;
    const FIOASYNC: libc::Ioctl = 0x5452;
    let (victim, watched, mut other) = attacker();
    for (request, argument) in [(FIOSETOWN, victim), (FIOASYNC, 1)] {
        // SAFETY: contract of `ioctl(2)`: these requests read an `int`.
        unsafe { libc::ioctl(watched.as_raw_fd(), request, &raw const argument) };
    }
    other.write_all(b"!").unwrap();
    exit(0);
}

#[test]
#[ignore = "the child of another test"]
fn tries_to_escape() {
    enter_sandbox().unwrap();
    exit(Sandbox::try_to_escape().try_into().unwrap());
}
