//! A link as the test sees it: it tells the relay process what to do, and waits for its answer.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Stdio},
    str::FromStr,
    sync::Mutex,
    time::Duration,
};

use super::{
    namespace::Namespace,
    relay::{self, ANSWER},
    running::Running,
};

/// How well a link carries frames, the same in both directions. The default is a perfect link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quality {
    /// How much later a frame arrives.
    pub(crate) delay: Duration,
    /// How many of a hundred frames are lost, by chance. The sequence of chances is the same in each run.
    pub(crate) loss: u8,
    /// The most bytes a second. Frames wait for a quarter of a second's worth, or 32 KiB if that is more; what is above is lost.
    pub(crate) rate: Option<u64>,
}

/// What a link has done with frames since it was made, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Frames that were carried to the other side.
    pub(crate) carried: u64,
    /// Frames that were lost by chance.
    pub(crate) lost: u64,
    /// Frames that were lost because the queue was full.
    pub(crate) full: u64,
    /// Frames that were lost because the link was cut.
    pub(crate) cut: u64,
}

/// The link between a host and the switch. A change is in force when the call returns.
///
/// A panic in a call means that the relay process has ended; its standard error is the test's.
#[derive(Debug)]
pub(crate) struct Link {
    relay: Mutex<Relay>,
    namespace: Namespace,
}

#[derive(Debug)]
struct Relay {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Running,
}

impl Link {
    /// Starts the relay in `namespace`, which has its two interfaces.
    pub(super) fn start(namespace: Namespace) -> Result<Self, String> {
        let mut command = relay::command(&namespace);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::start(&mut command);
        let commands = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut relay = Relay { commands, answers, _process: process };
        relay.answer().ok_or("the relay of a link cannot open its packet sockets")?;
        Ok(Self { relay: Mutex::new(relay), namespace })
    }

    /// Changes the quality, for frames that arrive from now on. A link that is cut stays cut.
    pub(crate) fn set(&self, Quality { delay, loss, rate }: Quality) {
        // No rate is written as 0; a rate of 0 would be a cut.
        assert!(loss <= 100 && rate != Some(0), "no such quality");
        self.request(&format!("set {} {loss} {}", delay.as_micros(), rate.unwrap_or(0)));
    }

    /// Loses all frames from now on, in both directions, and those under way. Interfaces stay up: no end is told.
    pub(crate) fn cut(&self) {
        self.request("cut");
    }

    /// Ends a cut.
    pub(crate) fn restore(&self) {
        self.request("restore");
    }

    /// What the link has done up to now.
    pub(crate) fn counts(&self) -> Counts {
        self.request("counts")
    }

    /// The namespace in which the relay runs.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn request(&self, command: &str) -> Counts {
        let mut relay = self.relay.lock().expect("the relay answers");
        writeln!(relay.commands, "{command}").expect("the relay runs");
        relay.answer().expect("the relay answers")
    }
}

impl Relay {
    /// The next answer. Other lines are libtest's.
    fn answer(&mut self) -> Option<Counts> {
        let mut line = String::new();
        while self.answers.read_line(&mut line).ok()? > 0 {
            if let Some(counts) = line.strip_prefix(ANSWER) {
                return counts.parse().ok();
            }
            line.clear();
        }
        None
    }
}

impl FromStr for Counts {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<_> = line.split_whitespace().flat_map(str::parse).collect();
        let [carried, lost, full, cut] = numbers[..] else { return Err("four counts") };
        Ok(Self { carried, lost, full, cut })
    }
}
