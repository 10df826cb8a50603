//! [`Reader`]: reads control pages of other processes, in a child process.
//!
//! A read of foreign memory can hang: `process_vm_readv(2)` waits at a page under `userfaultfd(2)` for as long as the page's process
//! likes. `/proc/PID/mem` fails there (`access_remote_vm` does not retry; Linux 6.18). No interface promises that it does not wait, so
//! a child reads, and is killed when it does not answer in time.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::FileExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Unread, page::BYTES};

/// How long one read may take.
pub(super) const DEADLINE: Duration = Duration::from_millis(200);
/// The hidden subcommand that the child runs.
pub(crate) const SUBCOMMAND: &str = "read-pages";
/// Requests that are under way at once: they, and their answers, are fewer bytes than a pipe holds.
const AT_ONCE: usize = 64;
/// Children that were killed and have not ended. The kernel keeps them until their page answers.
const MAX_STUCK: usize = 16;

const REQUEST: usize = 12;
const ANSWER: usize = 1 + BYTES;

/// A control page: where it is in which process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) pid: u32,
    pub(super) address: u64,
}

impl Request {
    fn encode(self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..4].copy_from_slice(&self.pid.to_le_bytes());
        bytes[4..].copy_from_slice(&self.address.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; REQUEST]) -> Self {
        let [a, b, c, d, address @ ..] = bytes;
        Self { pid: u32::from_le_bytes([a, b, c, d]), address: u64::from_le_bytes(address) }
    }

    fn read(self) -> Result<[u8; BYTES], Unread> {
        let mut page = [0; BYTES];
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        match memory.and_then(|memory| memory.read_exact_at(&mut page, self.address)) {
            Ok(()) => Ok(page),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Unread::Forbidden),
            Err(_) => Err(Unread::Unreadable),
        }
    }
}

/// The child's work: answers requests until there are no more.
pub(crate) fn serve() -> Result<ExitCode> {
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut request = [0; REQUEST];
    while requests.read_exact(&mut request).is_ok() {
        let mut answer = [0; ANSWER];
        match Request::decode(request).read() {
            Ok(page) => answer[1..].copy_from_slice(&page),
            Err(Unread::Forbidden) => answer[0] = 1,
            Err(_) => answer[0] = 2,
        }
        answers.write_all(&answer)?;
        answers.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pages that were read, in the order of the requests.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) pages: Vec<Result<[u8; BYTES], Unread>>,
    /// The request behind them has hung.
    pub(super) hung: bool,
}

/// A child that reads.
struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

/// Reads control pages, and outlives those that hang.
pub(super) struct Reader {
    /// How a child is started.
    command: Command,
    worker: Option<Worker>,
    stuck: Vec<Child>,
}

impl Reader {
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND);
        Self::with(command)
    }

    fn with(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self { worker: Some(Worker::start(&mut command)?), command, stuck: Vec::new() })
    }

    /// Reads pages, until one hangs.
    pub(super) fn read(&mut self, requests: &[Request]) -> Result<Answers> {
        let mut pages = Vec::new();
        self.stuck.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        for requests in requests.chunks(AT_ONCE) {
            if self.stuck.len() >= MAX_STUCK {
                pages.resize(pages.len() + requests.len(), Err(Unread::NotTried));
                continue;
            }
            let worker = match &mut self.worker {
                Some(worker) => worker,
                none => none.insert(Worker::start(&mut self.command)?),
            };
            let encoded: Vec<u8> = requests.iter().flat_map(|request| request.encode()).collect();
            let mut alive = worker.requests.write_all(&encoded).is_ok();
            for _ in requests {
                alive = alive && worker.answer(&mut pages).is_ok();
            }
            if !alive {
                // A child that has ended by itself hangs for good as well: its request is given up.
                self.discard();
                return Ok(Answers { pages, hung: true });
            }
        }
        Ok(Answers { pages, hung: false })
    }

    /// Kills the child, and does not wait for its end.
    fn discard(&mut self) {
        if let Some(Worker { mut child, .. }) = self.worker.take() {
            let _ = child.kill();
            self.stuck.push(child);
        }
    }
}

impl Worker {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.spawn().context("starting the process that reads the memory of others")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) = pipes.context("the pipes to the process that reads")?;
        Ok(Self { child, requests, answers })
    }

    /// Takes the next answer within the deadline.
    fn answer(&mut self, pages: &mut Vec<Result<[u8; BYTES], Unread>>) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let (mut answer, mut filled) = ([0; ANSWER], 0);
        while filled < ANSWER {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::new(&self.answers, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.answers.read(&mut answer[filled..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        let [status, page @ ..] = answer;
        pages.push(match status {
            0 => Ok(page),
            1 => Err(Unread::Forbidden),
            _ => Err(Unread::Unreadable),
        });
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(Worker { mut child, requests, .. }) = self.worker.take() {
            // It ends by itself when there are no more requests, and it waits for nothing else now.
            drop(requests);
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_do_not_answer_are_given_up_one_by_one_and_not_for_ever() {
        let mut silent = Command::new("sleep");
        silent.arg("1000");
        let mut reader = Reader::with(silent).unwrap();
        let requests = [Request { pid: 1, address: 0 }; 3];
        let answers = reader.read(&requests).unwrap();
        assert!(answers.hung && answers.pages.is_empty());
        // A child that ends by itself is no better.
        reader.command = Command::new("true");
        reader.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let answers = reader.read(&requests).unwrap();
        assert!(answers.hung && answers.pages.is_empty());
        // Children that cannot even be killed would be kept; there is no more than a number of them.
        reader.stuck.clear();
        for _ in 0..MAX_STUCK {
            reader.stuck.push(Command::new("sleep").arg("1000").spawn().unwrap());
        }
        let answers = reader.read(&requests).unwrap();
        assert_eq!((answers.pages, answers.hung), (vec![Err(Unread::NotTried); 3], false));
        for child in &mut reader.stuck {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn requests_are_read_back() {
        let request = Request { pid: 4_000_000_000, address: 0x7f12_3456_789a_bcde };
        let Request { pid, address } = Request::decode(request.encode());
        assert_eq!((pid, address), (request.pid, request.address));
    }
}
