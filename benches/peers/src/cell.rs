//! [`Cell`]: one transport at one work and size, and how it is measured once: by two processes of this program.

use std::{
    fmt,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use crate::{child::Part, transports::Transport};

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Payloads are written, sent, and read, every byte.
    Stream,
    /// Payloads are sent, and nobody touches them.
    Handoff,
    /// As stream, with payloads of 64 bytes.
    Small,
    /// A payload is written, sent, read, and answered by another.
    Roundtrip,
    /// A message without a payload is sent and answered.
    Control,
    /// As control, with a descriptor each way.
    Fd,
    /// Nothing is sent, and the receiver waits.
    Idle,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

impl Work {
    /// The sizes that are measured unless others are asked for.
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            Self::Stream => &[4 << 10, 64 << 10, 1 << 20, 8 << 20],
            Self::Handoff => &[4 << 10, 64 << 10, 1 << 20, 8 << 20, 16 << 20],
            Self::Small | Self::Roundtrip | Self::Control | Self::Fd | Self::Idle => &[64],
        }
    }
}

impl Work {
    /// Payloads that shared memory has room for at least. A hand-over takes no time, so that with few of them one would
    /// measure how long it takes to say that one of them is free.
    pub(crate) fn depth(self) -> usize {
        if self == Self::Handoff { 16 } else { 4 }
    }
}

/// The first process sends, or asks; the second receives, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    First,
    Second,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) transport: Transport,
    pub(crate) work: Work,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Bytes of shared memory in each direction.
    pub(crate) ring: usize,
    pub(crate) seconds: f64,
    pub(crate) one_core: bool,
}

impl Cell {
    /// Payloads that the ring has room for.
    pub(crate) fn slots(&self) -> usize {
        (self.ring / self.size).max(2)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {} bytes", self.transport, self.work, self.size)
    }
}

/// One measurement: a line of JSON.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) first: Part,
    pub(crate) second: Part,
}

/// The descriptor in a child that leads to the other.
pub(crate) const LINK: i32 = 3;

impl Cell {
    /// Starts both processes and waits for what they say.
    pub(crate) fn measure(&self, round: usize) -> Result<Sample> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let first = self.start(Side::First, a)?;
        let second = match self.start(Side::Second, b) {
            Ok(second) => second,
            Err(error) => {
                let _ = finish(first);
                return Err(error);
            }
        };
        let (first, second) = (finish(first), finish(second));
        // Who fails first is rarely who is looked at first: report both.
        match (first, second) {
            (Ok(first), Ok(second)) => Ok(Sample { round, cell: self.clone(), first, second }),
            (Err(a), Err(b)) => bail!("first process: {a:#}; second process: {b:#}"),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn start(&self, side: Side, link: OwnedFd) -> Result<Child> {
        let side = match side {
            Side::First => "first",
            Side::Second => "second",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["child", side, &serde_json::to_string(self)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.fd_mappings(vec![FdMapping { parent_fd: link, child_fd: LINK }])?;
        command.spawn().context("starting a process of the cell")
    }
}

fn finish(child: Child) -> Result<Part> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("reading what a process said")
}
