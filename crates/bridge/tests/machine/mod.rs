//! Roles that run on a host, and a test's hold of them: lines go in at standard input, and answers come out.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use sealane::{Event, Publisher};
use sealane_bridge::{Bridge, Network, Notice, Received, Settings, Subscriber};

use crate::hosts::{Host, Running};

/// Bytes of each message's payload.
pub(crate) const PAYLOAD: usize = 1000;

const LONG: Duration = Duration::from_mins(1);
const NETWORK: &str = "SEALANE_TEST_NETWORK";
const SUBSCRIBERS: &str = "SEALANE_TEST_SUBSCRIBERS";
/// How an answer begins. Other lines are libtest's.
const ANSWER: &str = "answer ";
const NOTICE: &str = "notice ";

/// A role that runs on a host.
pub(crate) struct Machine {
    commands: ChildStdin,
    lines: BufReader<ChildStdout>,
    notices: Vec<String>,
    _process: Running,
}

impl Machine {
    /// Starts a role, and waits until its bridge is open.
    pub(crate) fn start<Test: Fn()>(host: &Host, role: Test, network: &str, subscribers: usize) -> Self {
        let mut command = host.role(role);
        command.env(NETWORK, network).env(SUBSCRIBERS, subscribers.to_string());
        let mut process = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let lines = BufReader::new(process.stdout.take().unwrap());
        let commands = process.stdin.take().unwrap();
        let mut machine = Self { commands, lines, notices: Vec::new(), _process: process };
        machine.answer();
        machine
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        loop {
            let line = self.line();
            if let Some(answer) = line.strip_prefix(ANSWER) {
                return answer.to_owned();
            }
            if let Some(notice) = line.strip_prefix(NOTICE) {
                self.notices.push(notice.to_owned());
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the role has ended");
        line.trim_end().to_owned()
    }

    /// Publishes `count` messages with numbers from `from` on. Returns the next number.
    pub(crate) fn publish(&mut self, from: u64, count: u64) -> u64 {
        assert_eq!(self.ask(&format!("publish {count}")), (from + count).to_string());
        from + count
    }

    /// Publishes until all subscribers of `importers` have had a message. Returns the next number.
    pub(crate) fn publish_until_seen(&mut self, importers: &mut [&mut Self]) -> u64 {
        self.go_on_until_seen(0, importers)
    }

    /// The same with numbers from `from` on.
    pub(crate) fn go_on_until_seen(&mut self, from: u64, importers: &mut [&mut Self]) -> u64 {
        let (deadline, mut sent) = (Instant::now() + LONG, from);
        while importers.iter_mut().any(|importer| importer.seen() == 0) {
            assert!(Instant::now() < deadline, "nothing crosses");
            sent = self.publish(sent, 1);
            thread::sleep(Duration::from_millis(10));
        }
        sent
    }

    /// The number that the last of the subscribers expects next; 0 if it has had no message.
    pub(crate) fn seen(&mut self) -> u64 {
        self.ask("seen").parse().unwrap()
    }

    /// Waits until all subscribers have had, or were told to have missed, all numbers before `number`.
    pub(crate) fn reach(&mut self, number: u64) {
        assert_eq!(self.ask(&format!("reach {number}")), "reached");
    }

    /// The reply to a call.
    pub(crate) fn call(&mut self) -> String {
        self.ask("call")
    }

    /// Ends the publisher, but not the bridge.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.ask("end"), "ended");
    }

    /// Waits for a notice, among those that have come since the last one that was waited for.
    pub(crate) fn notice(&mut self, words: &str) {
        let is_it = |notice: &str| notice.strip_prefix("sealane-bridge: ") == Some(words);
        if let Some(at) = self.notices.iter().position(|notice| is_it(notice)) {
            self.notices.drain(..=at);
            return;
        }
        self.notices.clear();
        loop {
            let line = self.line();
            if line.strip_prefix(NOTICE).is_some_and(is_it) {
                return;
            }
        }
    }
}

/// Says a line at standard output, where libtest may have left one open.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    write!(stdout, "\n{line}\n").and_then(|()| stdout.flush()).expect("the test reads");
}

fn answer(answer: impl std::fmt::Display) {
    say(&format!("{ANSWER}{answer}"));
}

/// The network that a test has described, and a folder for sockets; `None` if no test has started this.
fn network() -> Option<(Network, tempfile::TempDir)> {
    let text = env::var(NETWORK).ok()?;
    let network = text.split(';').fold(Network::default(), |network, part| match part.split_once(' ') {
        Some(("listen", endpoint)) => network.listen(endpoint),
        Some(("connect", endpoint)) => network.connect(endpoint),
        _ => network.router(),
    });
    Some((network, tempfile::tempdir().unwrap()))
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.beat = Duration::from_millis(50);
    settings.silence = Duration::from_secs(1);
    settings
}

#[test]
#[ignore = "a process that other tests start"]
pub(crate) fn router() {
    let Some((network, _dir)) = network() else { return };
    let _bridge = Bridge::open(&network).unwrap();
    answer("open");
    while io::stdin().lines().next().is_some() {}
}

/// Publishes numbers, and answers calls.
#[test]
#[ignore = "a process that other tests start"]
pub(crate) fn exporter() {
    let Some((network, dir)) = network() else { return };
    let path = dir.path().join("source");
    let mut publisher = Publisher::bind(&path).unwrap();
    let _bridge = Bridge::open(&network).unwrap().export("stats", &path, &settings()).unwrap();
    while publisher.subscribers().is_empty() {
        publisher.wait_event(Duration::from_millis(20)).unwrap();
    }
    let (sender, commands) = mpsc::channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    answer("open");
    let mut number = 0_u64;
    loop {
        match commands.try_recv() {
            Ok(command) if command == "end" => break,
            Ok(command) => {
                let count: u64 = command.strip_prefix("publish ").unwrap().parse().unwrap();
                for _ in 0..count {
                    publisher.loan(PAYLOAD).unwrap().send_with(&number.to_le_bytes()).unwrap();
                    number += 1;
                }
                answer(number);
            }
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {
                if let Some(Event::Message(id, message)) =
                    publisher.wait_event(Duration::from_millis(5)).unwrap()
                    && let Some(token) = message.reply_token()
                {
                    publisher.reply(id, token, &[b"echo ", message.control()].concat()).unwrap();
                }
            }
        }
    }
    drop(publisher);
    answer("ended");
    while commands.recv().is_ok() {}
}

/// The number that each subscriber expects next.
type Expected = Arc<(Mutex<Vec<u64>>, Condvar)>;

/// Receives numbers, and compares them with what was missed.
#[test]
#[ignore = "a process that other tests start"]
pub(crate) fn importer() {
    let Some((network, dir)) = network() else { return };
    let path = dir.path().join("remote");
    let _bridge = Bridge::open(&network).unwrap().import("stats", &path, &settings()).unwrap();
    let count: usize = env::var(SUBSCRIBERS).unwrap().parse().unwrap();
    let expected: Expected = Arc::new((Mutex::new(vec![0; count]), Condvar::new()));
    for index in 0..count {
        let subscriber = Subscriber::connect(&path, LONG).unwrap();
        let expected = Arc::clone(&expected);
        thread::spawn(move || subscribe(index, subscriber, &expected));
    }
    answer("open");
    let least = |expected: &[u64]| expected.iter().copied().min().unwrap();
    for command in io::stdin().lines().map_while(Result::ok) {
        let (numbers, changed) = &*expected;
        match command.split_once(' ') {
            Some(("reach", number)) => {
                let number = number.parse().unwrap();
                let waiting = |numbers: &mut Vec<u64>| least(numbers) < number;
                let (numbers, late) =
                    changed.wait_timeout_while(numbers.lock().unwrap(), LONG, waiting).unwrap();
                if late.timed_out() { answer(format!("only at {numbers:?}")) } else { answer("reached") }
            }
            None if command == "seen" => answer(least(&numbers.lock().unwrap())),
            _ => {
                // A subscriber of its own: one that only calls keeps all messages that come.
                let mut caller = Subscriber::connect(&path, LONG).unwrap();
                match caller.call(b"gain?", LONG) {
                    Ok(reply) => answer(String::from_utf8_lossy(reply.control())),
                    Err(why) => answer(why),
                }
            }
        }
    }
}

/// Ends the process if a number is not the one that is due, so that the test fails.
fn subscribe(index: usize, mut subscriber: Subscriber, (numbers, changed): &(Mutex<Vec<u64>>, Condvar)) {
    let mut expected = None;
    loop {
        match subscriber.recv(LONG).unwrap() {
            Some(Received::Message(message)) => {
                let number = u64::from_le_bytes(message.control().try_into().unwrap());
                let due = expected.map_or(number, |expected| expected + message.missed());
                if number != due || message.payload().unwrap().len() != PAYLOAD {
                    say(&format!("{number} instead of {due}"));
                    std::process::exit(1);
                }
                expected = Some(number + 1);
            }
            Some(Received::Notice(notice, missed)) => {
                expected = expected.map(|expected| expected + missed);
                if index == 0 && notice != Notice::Missed {
                    say(&format!("{NOTICE}{notice}"));
                }
            }
            _ => continue,
        }
        numbers.lock().unwrap()[index] = expected.unwrap_or(0);
        changed.notify_all();
    }
}
