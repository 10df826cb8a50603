//! The rig of the tests that cross the network: hosts, links and relays.

mod hosts;
#[path = "hosts/tcp_relay_work.rs"]
mod tcp_relay_work;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use hosts::{Host, Hosts, Quality, Running, namespace::processes_in};

/// Tells a role where its peer listens, or to listen.
const PEER: &str = "SEALANE_TEST_PEER";

/// The largest payload of a datagram over IPv4.
const LARGEST_DATAGRAM: usize = 65507;

/// The bytes `from..to` of the stream that all tests send.
fn stream(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|at| u8::try_from(at % 251).expect("below 251")).collect()
}

/// Says a line at standard output, where libtest may have left one open.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    write!(stdout, "\n{line}\n").and_then(|()| stdout.flush()).expect("the test reads");
}

/// Receives one connection, says how much came at each step, and answers with the sum.
#[test]
#[ignore = "a process that other tests start"]
fn receiver() {
    if env::var_os(PEER).is_none() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    say(&format!("port {}", listener.local_addr().unwrap().port()));
    let (mut connection, _) = listener.accept().unwrap();
    let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
    loop {
        let len = connection.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        assert_eq!(buffer[..len], stream(got, got + len), "the stream after {got} bytes");
        got += len;
        say(&format!("got {got}"));
    }
    connection.write_all(&got.to_le_bytes()).unwrap();
}

/// Sends as many bytes as each line says, and after the last line the end; then says what the receiver has got.
#[test]
#[ignore = "a process that other tests start"]
fn sender() {
    let Ok(peer) = env::var(PEER) else { return };
    let mut connection = TcpStream::connect(peer).unwrap();
    let mut sent = 0;
    for line in io::stdin().lines() {
        let more: usize = line.unwrap().parse().unwrap();
        connection.write_all(&stream(sent, sent + more)).unwrap();
        sent += more;
    }
    connection.shutdown(Shutdown::Write).unwrap();
    let mut got = [0; size_of::<usize>()];
    connection.read_exact(&mut got).unwrap();
    say(&format!("got {}", usize::from_le_bytes(got)));
}

/// Answers each datagram with itself.
#[test]
#[ignore = "a process that other tests start"]
fn datagram_echo() {
    if env::var_os(PEER).is_none() {
        return;
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    say(&format!("port {}", socket.local_addr().unwrap().port()));
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..len], from).unwrap();
    }
}

/// Sends datagrams of several sizes, and says how many came back.
#[test]
#[ignore = "a process that other tests start"]
fn datagram_sender() {
    let Ok(peer) = env::var(PEER) else { return };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(peer).unwrap();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    for size in [0, 1, 1472, 1473, LARGEST_DATAGRAM] {
        socket.send(&stream(0, size)).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], stream(0, size));
    }
    say("got 5");
}

/// A role that runs on a host.
struct Role {
    commands: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    _process: Running,
}

impl Role {
    fn start<Test: Fn()>(host: &Host, test: Test, peer: &str) -> Self {
        let mut command = host.role(test);
        command.env(PEER, peer).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::start(&mut command);
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { commands: process.stdin.take(), lines, _process: process }
    }

    /// A role that listens, and where.
    fn listen<Test: Fn()>(host: &Host, test: Test) -> (Self, String) {
        let mut role = Self::start(host, test, "");
        let port = role.next("port ");
        (role, format!("{}:{port}", host.address()))
    }

    /// The number in the next line that begins with `word`.
    fn next(&mut self, word: &str) -> usize {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the role has ended");
            if let Some(number) = line.strip_prefix(word) {
                return number.trim().parse().unwrap();
            }
        }
    }

    /// Waits until the receiver has got `bytes`.
    fn wait_for(&mut self, bytes: usize) {
        while self.next("got ") < bytes {}
    }

    fn send(&mut self, bytes: usize) {
        writeln!(self.commands.as_ref().unwrap(), "{bytes}").unwrap();
    }

    /// Ends the sender's input, and returns what the receiver has got.
    fn finish(mut self) -> usize {
        self.commands = None;
        self.next("got ")
    }
}

/// Sends `bytes` from one host to another, and says how long that took.
fn transfer(from: &Host, to: &Host, bytes: usize) -> Duration {
    let (_receiver, address) = Role::listen(to, receiver);
    let begin = Instant::now();
    let mut sender = Role::start(from, sender, &address);
    sender.send(bytes);
    assert_eq!(sender.finish(), bytes);
    begin.elapsed()
}

#[test]
fn hosts_reach_each_other() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, other, (far, _link)) = (hosts.near(), hosts.near(), hosts.far());
    for (from, to) in [(&near, &other), (&near, &far), (&far, &near), (&near, &near)] {
        transfer(from, to, 3_000_000);
    }
}

#[test]
fn a_link_carries_datagrams_of_all_sizes() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let ((a, _link_a), (b, link_b)) = (hosts.far(), hosts.far());
    let (_echo, address) = Role::listen(&a, datagram_echo);
    assert_eq!(Role::start(&b, datagram_sender, &address).finish(), 5);
    assert_eq!(link_b.counts().lost + link_b.counts().full, 0);
}

#[test]
fn a_stream_outlives_a_cut_with_nothing_lost() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, (far, link)) = (hosts.near(), hosts.far());
    let (mut receiver, address) = Role::listen(&near, receiver);
    let mut sender = Role::start(&far, sender, &address);
    sender.send(100_000);
    receiver.wait_for(100_000);

    link.cut();
    let at_the_cut = link.counts();
    sender.send(100_000);
    while link.counts().cut < at_the_cut.cut + 2 {
        thread::yield_now();
    }
    assert_eq!(link.counts().carried, at_the_cut.carried);

    link.restore();
    assert_eq!(sender.finish(), 200_000);
}

#[test]
fn a_stream_is_whole_after_losses() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, (far, link)) = (hosts.near(), hosts.far());
    link.set(Quality { loss: 5, ..Quality::default() });
    transfer(&near, &far, 500_000);
    assert_ne!(link.counts().lost, 0);
}

#[test]
fn a_slow_link_takes_its_time() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, (far, link)) = (hosts.near(), hosts.far());
    link.set(Quality { rate: Some(1_000_000), ..Quality::default() });
    assert!(transfer(&near, &far, 500_000) >= Duration::from_millis(500));

    // A connection is opened, used and confirmed in two round trips.
    link.set(Quality { delay: Duration::from_millis(50), ..Quality::default() });
    assert!(transfer(&far, &near, 1) >= Duration::from_millis(200));
}

/// The name of a host's namespace, in which a program and its abandoned child run.
fn busy(host: &Host) -> (PathBuf, Running) {
    let mut command = host.command("sh");
    let mut shell = Running::start(
        command.args(["-c", "setsid sleep 1000 & echo; exec sleep 1000"]).stdout(Stdio::piped()),
    );
    shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let name = host.namespace().name().to_owned();
    // The holder of the namespace is the third.
    assert_eq!(processes_in(&name).len(), 3);
    (name, shell)
}

#[test]
fn nothing_is_left_over() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (near, (far, link)) = (hosts.near(), hosts.far());
    let (name, _shell) = busy(&near);
    near.kill_all();
    assert_eq!(processes_in(&name).len(), 1);
    let (far_name, _far_shell) = busy(&far);
    let middle = link.namespace().name().to_owned();
    assert_eq!(processes_in(&middle).len(), 2);

    drop((hosts, link, near, far));
    for name in [name, far_name, middle] {
        assert!(processes_in(&name).is_empty());
    }
}

#[test]
fn nothing_is_left_over_after_a_panic() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let mut name = PathBuf::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let (host, _link) = hosts.far();
        let (found, _shell) = busy(&host);
        name = found;
        panic!("on purpose");
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert!(processes_in(&name).is_empty());
}
