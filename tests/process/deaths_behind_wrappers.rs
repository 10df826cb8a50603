//! A peer that is killed while another process holds a copy of its socket: a shell that started it, or a child that it has
//! forked. A channel that asked for the peer's pidfd learns of the death.

use std::{
    io::{Read, stdin},
    os::fd::AsRawFd,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, getpid, kill_process},
};
use sealane::{Builder, Channel, Error, Wait};

use crate::support::{
    forks::{end, split},
    hostile::LONG,
    role,
    threads::{bounded, bounded_by},
};

/// The time of a wait that must not end.
const SHORT: Duration = Duration::from_millis(200);

fn builder() -> Builder {
    Channel::builder().ring_capacity(4096).peer_pidfd(true)
}

/// A channel to a peer that the shell's script `wrap` starts, if there is one. The peer ends with its standard input.
struct Started {
    channel: Channel,
    child: Child,
    input: Option<ChildStdin>,
}

impl Started {
    fn new(builder: &Builder, wrap: Option<&str>, role: Command) -> Self {
        let mut command = match wrap {
            None => role,
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", script, "sh"]).arg(role.get_program()).args(role.get_args());
                shell.stdout(Stdio::null());
                shell
            }
        };
        command.stdin(Stdio::piped());
        let (mut channel, mut child) = builder.spawn(command).unwrap();
        assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"up");
        let input = child.stdin.take();
        Self { channel, child, input }
    }

    /// True if this kernel opens a peer's process for us (Linux 6.5), and reports how a process ended that is no
    /// child of ours (6.15).
    fn can_tell(&self, how: bool) -> bool {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let can = self.channel.peer().pidfd().is_some() && (!how || version >= (6, 15));
        if !can {
            eprintln!("left out: Linux {release} does not tell");
        }
        can
    }

    /// Kills the process that sent `Hello`, and waits for its end.
    fn kill(&self) {
        let pid = self.channel.peer().credentials().pid.unwrap().get();
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        self.ended();
    }

    /// Waits until the process that sent `Hello` has ended.
    fn ended(&self) {
        let pidfd = self.channel.peer().pidfd().unwrap();
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec::try_from(LONG).unwrap())), Ok(1));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The process lives until the test closes its input.
fn stay() {
    let _ = stdin().read(&mut [0]);
}

fn up() -> Channel {
    let mut channel = builder().inherited().unwrap();
    channel.send(b"up").unwrap();
    channel
}

#[test]
#[ignore = "the child of another test"]
fn stays() {
    let _channel = up();
    stay();
}

#[test]
#[ignore = "the child of another test"]
fn stays_with_a_helper() {
    let channel = up();
    if split().is_none() {
        stay();
        end(0);
    }
    stay();
    drop(channel);
}

#[test]
#[ignore = "the child of another test"]
fn becomes_a_daemon() {
    let mut channel = up();
    if split().is_some() {
        end(0);
    }
    while let Ok(message) = channel.recv() {
        channel.send(message.control()).unwrap();
    }
    drop(channel);
    end(0);
}

#[test]
#[ignore = "the child of another test"]
fn exits_before_its_helper() {
    let _channel = up();
    if split().is_some() {
        end(0);
    }
    stay();
    end(0);
}

#[test]
#[ignore = "the child of another test"]
fn sends_much_and_is_killed() {
    let mut channel = up();
    if split().is_none() {
        stay();
        end(0);
    }
    channel.loan(100).unwrap().send_with(b"first").unwrap();
    channel.send(b"second").unwrap();
    channel.loan(100).unwrap().send().unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// A name, the shell's script around the peer, the peer, and whether only `PIDFD_GET_INFO` reports how it ended.
type Case = (&'static str, Option<&'static str>, fn() -> Command, bool);

const CASES: [Case; 4] = [
    ("alone", None, || role(stays), false),
    ("under a shell that goes on", Some(r#""$@"; cat"#), || role(stays), true),
    ("beside a shell that goes on", Some(r#"exec 3<&0; "$@" <&3 & cat"#), || role(stays), true),
    ("with a helper", None, || role(stays_with_a_helper), false),
];

#[test]
fn a_killed_peer_ends_every_wait_although_somebody_holds_its_socket() {
    type Waits = fn(&mut Channel) -> Result<(), Error>;
    let _guard = bounded_by(4 * LONG);
    let waits: [(&str, Waits); 5] = [
        ("a limit", |channel| channel.recv_timeout(LONG).map(drop)),
        ("no limit", |channel| channel.recv().map(drop)),
        ("room in the ring", |channel| {
            loop {
                channel.loan(900)?.send()?;
            }
        }),
        ("room in the socket", |channel| {
            loop {
                channel.send(b"?")?;
            }
        }),
        ("a reply", |channel| channel.call(b"?", LONG).map(drop)),
    ];
    for (case, wrap, role, how) in CASES {
        for (what, wait) in waits {
            for spin in [Wait::default(), Wait::Spin] {
                let mut started = Started::new(&builder().wait(spin), wrap, role());
                if !started.can_tell(how) {
                    return;
                }
                started.kill();
                let result = wait(&mut started.channel);
                assert!(matches!(result, Err(Error::Disconnected)), "{case}, {what}, {spin:?}: {result:?}");
                // Both halves have ended.
                let ends: [Waits; 3] = [
                    |channel| channel.recv().map(drop),
                    |channel| channel.send(b"?"),
                    |channel| channel.loan(8).map(drop),
                ];
                for end in ends {
                    let result = end(&mut started.channel);
                    assert!(
                        matches!(result, Err(Error::Disconnected)),
                        "{case}, {what}, {spin:?}: {result:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn waiting_calls_are_woken_by_the_death() {
    let _guard = bounded();
    let started = Started::new(&builder().wait(Wait::Block), None, role(stays_with_a_helper));
    if !started.can_tell(false) {
        return;
    }
    let pid = started.channel.peer().credentials().pid.unwrap().get().cast_signed();
    let stat = format!("/proc/self/task/{}/stat", rustix::thread::gettid().as_raw_nonzero());
    let killer = std::thread::spawn(move || {
        // The state stands behind the name (`proc_pid_stat(5)`).
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    });
    let mut started = started;
    assert!(matches!(started.channel.recv(), Err(Error::Disconnected)));
    killer.join().unwrap();
}

#[test]
fn messages_committed_by_a_killed_peer_are_delivered_first() {
    let _guard = bounded();
    let mut started = Started::new(&builder(), None, role(sends_much_and_is_killed));
    if !started.can_tell(false) {
        return;
    }
    started.ended();
    assert_eq!(started.channel.recv().unwrap().control(), b"first");
    assert_eq!(started.channel.recv().unwrap().control(), b"second");
    assert_eq!(started.channel.recv().unwrap().payload().unwrap().len(), 100);
    assert!(matches!(started.channel.recv(), Err(Error::Disconnected)));
}

#[test]
fn a_daemon_whose_first_process_has_ended_lives() {
    let _guard = bounded();
    let mut started = Started::new(&builder().wait(Wait::Block), None, role(becomes_a_daemon));
    if !started.can_tell(false) {
        return;
    }
    started.ended();
    for _ in 0..2 {
        let before = started.channel.stats().sleeps;
        assert!(matches!(started.channel.recv_timeout(SHORT), Err(Error::Timeout)));
        let sleeps = started.channel.stats().sleeps - before;
        assert!(sleeps < 5, "{sleeps} sleeps: woken again and again");
        started.channel.send(b"?").unwrap();
        started.channel.recv_timeout(LONG).unwrap();
    }
}

#[test]
fn a_peer_that_exits_by_itself_is_seen_when_the_last_copy_is_closed() {
    let _guard = bounded();
    let mut started = Started::new(&builder(), None, role(exits_before_its_helper));
    if !started.can_tell(false) {
        return;
    }
    started.ended();
    assert!(matches!(started.channel.recv_timeout(SHORT), Err(Error::Timeout)));
    started.channel.send(b"nobody reads it").unwrap();
    drop(started.input.take());
    assert!(matches!(started.channel.recv(), Err(Error::Disconnected)));
}

/// An event loop as the page of `Peer::pidfd` describes it.
#[test]
fn a_short_wait_tells_how_a_peer_ended_and_calls_that_do_not_wait_tell_nothing() {
    let _guard = bounded();
    // Each has forked a helper by then, which holds the socket.
    for (role, is_killed) in [(role(sends_much_and_is_killed), true), (role(exits_before_its_helper), false)]
    {
        let mut started = Started::new(&builder(), None, role);
        if !started.can_tell(false) {
            return;
        }
        started.ended();
        while started.channel.try_recv().unwrap().is_some() {}
        for _ in 0..3 {
            assert!(started.channel.try_recv().unwrap().is_none());
            assert!(matches!(started.channel.recv_timeout(Duration::ZERO), Err(Error::Timeout)));
        }
        let end = started.channel.recv_timeout(if is_killed { LONG } else { SHORT }).unwrap_err();
        assert_eq!(matches!(end, Error::Disconnected), is_killed, "{end:?}");
        assert_eq!(matches!(end, Error::Timeout), !is_killed, "{end:?}");
    }
}

#[test]
fn the_pidfd_is_of_the_greeting_process_and_only_on_request() {
    let _guard = bounded();
    let (a, b) = Channel::pair().unwrap();
    assert!(a.peer().pidfd().is_none() && b.peer().pidfd().is_none());
    let started = Started::new(&builder(), Some(r#""$@"; cat"#), role(stays));
    if !started.can_tell(false) {
        return;
    }
    let pidfd = started.channel.peer().pidfd().unwrap();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let info = info.unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
    let seen = started.channel.peer().credentials().pid.unwrap();
    assert_eq!(pid, seen.to_string());
    assert_ne!(seen.get(), started.child.id(), "that is the shell");
    assert_ne!(seen.get(), getpid().as_raw_nonzero().get().cast_unsigned());
}
