//! The overhead of the C interface over the Rust interface, between two processes. Everything that moves is compared.
//!
//! ```sh
//! cargo bench --package sealane-capi --bench overhead              # some seconds; fails if a ratio is over its limit
//! cargo bench --package sealane-capi --bench overhead -- --test    # everything once; no ratio is looked at
//! ```
//!
//! Each round measures the same work through both interfaces, one after the other, in turns. The table has the first deciles of
//! both and their ratio, since other processes only ever add to a round, and the median of the rounds' own ratios. On a machine
//! that does nothing else the two agree; elsewhere the smaller one counts.
//!
//! One program measures both, with the same loops and the same clock: it loads the shared library as it is installed, with
//! `dlopen(3)`. The other process is this program too, and uses the same interface.

#![expect(unsafe_code, reason = "functions of a C library are called, and get and give pointers")]

mod c;
#[path = "../../tests/support/installed.rs"]
mod installed;
mod rust;
mod worker;

use std::{
    cell::RefCell,
    env, fs,
    os::{
        fd::{AsFd, BorrowedFd},
        linux::fs::MetadataExt,
    },
    path::Path,
    process::{self, Child, Command},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::{
    installed::INSTALLED,
    worker::{Report, cpu_time},
};

/// Bytes of a request and of its reply.
const CALL: usize = 64;
/// Bytes of a payload: the statistics of a camera's frame.
const PAYLOAD: usize = 128 << 10;
/// Payloads that are sent before an answer is awaited: a mebibyte, of a ring of four.
const BURST: u64 = 8;
/// Rounds after which payloads go through fresh channels.
const ROUNDS_OF_A_PAIR: usize = 8;
const PATIENCE: Duration = Duration::from_mins(1);

/// This process's end of a channel, through one of the two interfaces.
trait End {
    /// Sends a request, with a descriptor or without one, and waits for the reply.
    fn call(&mut self, request: &[u8; CALL], fd: Option<BorrowedFd<'_>>) -> [u8; CALL];
    /// Lends a payload, fills it with `bytes`, and sends it.
    fn send(&mut self, bytes: &[u8]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    Rust,
    C,
}
use Interface::{C, Rust};

/// A worker process and the channel to it.
struct Pair {
    end: Box<dyn End>,
    worker: Child,
}

impl Pair {
    /// `blocks`: both ends sleep at once when they wait. Otherwise they spin first, which is the default.
    fn new(interface: Interface, blocks: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("channel");
        let spawn = || {
            let mut worker = Command::new(env::current_exe().unwrap());
            worker.arg("--worker").arg(format!("{interface:?}")).arg(&path).arg(INSTALLED.join("lib"));
            worker.args(blocks.then_some("blocks")).spawn().unwrap()
        };
        let (end, worker): (Box<dyn End>, _) = match interface {
            Rust => {
                let listener = rust::builder(blocks).listen(&path).unwrap();
                let worker = spawn();
                (Box::new(rust::Host(listener.accept_timeout(PATIENCE).unwrap())), worker)
            }
            C => {
                let listener = c::Listener::bind(&INSTALLED.join("lib"), &path, blocks);
                let worker = spawn();
                (Box::new(listener.accept()), worker)
            }
        };
        Self { end, worker }
    }

    fn report(&mut self, fd: Option<BorrowedFd<'_>>) -> Report {
        Report::from(self.end.call(&worker::REPORT, fd))
    }

    /// Nanoseconds of a call, when both ends are awake: after as many others, which wake them.
    fn call(&mut self, calls: u64, fd: Option<BorrowedFd<'_>>) -> f64 {
        let mut request = [7; CALL];
        let mut time = || {
            let begun = Instant::now();
            for number in 0..calls {
                request[8..16].copy_from_slice(&number.to_le_bytes());
                assert_eq!(self.end.call(&request, fd), worker::echo(request, fd.is_some()));
            }
            per(calls, begun.elapsed())
        };
        time();
        time()
    }

    /// Nanoseconds of both processes' CPU time for a payload. They share a CPU meanwhile, so that the number of wake-ups does
    /// not depend on what else this machine does.
    fn send(&mut self, payloads: u64, bytes: &[u8]) -> f64 {
        let cpus = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        let worker = Pid::from_child(&self.worker);
        sched_setaffinity(None, &one).unwrap();
        sched_setaffinity(Some(worker), &one).unwrap();
        let (started, before) = (cpu_time(), self.report(None));
        for _ in 0..payloads / BURST {
            (0..BURST).for_each(|_| self.end.send(bytes));
            self.report(None);
        }
        let after = self.report(None);
        let sent = payloads / BURST * BURST;
        assert_eq!(after.payloads - before.payloads, sent);
        let sum = worker::sum(bytes).wrapping_mul(sent);
        assert_eq!(after.sum, before.sum.wrapping_add(sum), "the payloads' bytes");
        let (here, there) = (cpu_time().checked_sub(started), after.cpu_time.checked_sub(before.cpu_time));
        sched_setaffinity(None, &cpus).unwrap();
        per(sent, here.unwrap() + there.unwrap())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn per(count: u64, time: Duration) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// A row of the table: its name, the ratio's limit, and one measurement of an interface.
struct Work<'w> {
    name: &'static str,
    limit: f64,
    measure: Box<dyn FnMut(Interface) -> f64 + 'w>,
    /// A value for each round, Rust's and C's.
    results: [Vec<f64>; 2],
}

impl<'w> Work<'w> {
    fn new(name: &'static str, limit: f64, measure: impl FnMut(Interface) -> f64 + 'w) -> Self {
        Self { name, limit, measure: Box::new(measure), results: Default::default() }
    }

    fn round(&mut self, number: usize) {
        let order = if number.is_multiple_of(2) { [Rust, C] } else { [C, Rust] };
        for interface in order {
            let result = (self.measure)(interface);
            self.results[usize::from(interface == C)].push(result);
        }
    }

    /// Prints a row of the table. False if both ratios are over the limit.
    fn print(&self) -> bool {
        let Self { name, limit, results: [rust, c], .. } = self;
        let ratios = c.iter().zip(rust).map(|(c, rust)| c / rust).collect();
        let [_, low, middle, high] = quantiles(ratios);
        let ([rust, ..], [c, ..]) = (quantiles(rust.clone()), quantiles(c.clone()));
        let ratio = c / rust;
        let (rust, c) = (rust / 1e3, c / 1e3);
        println!(
            "| {name} | {rust:.2} µs | {c:.2} µs | {ratio:.3} | {limit:.2} | {middle:.3} ({low:.3} to {high:.3}) |"
        );
        ratio.min(middle) <= *limit
    }
}

/// The first decile, the first quartile, the median and the third quartile.
fn quantiles(mut values: Vec<f64>) -> [f64; 4] {
    values.sort_by(f64::total_cmp);
    [10, 25, 50, 75].map(|percent| values[(values.len() - 1) * percent / 100])
}

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--worker") {
        let (path, lib) = (Path::new(&arguments[3]), Path::new(&arguments[4]));
        let blocks = arguments.len() > 5;
        return if arguments[2] == "C" { c::work(lib, path, blocks) } else { rust::work(path, blocks) };
    }
    // `cargo test` says neither.
    let measures = arguments.iter().any(|argument| argument == "--bench")
        && !arguments.iter().any(|argument| argument == "--test");
    let (rounds, calls, payloads) = if measures { (801, 100, 64) } else { (1, 100, 2 * BURST) };

    let pairs = |blocks| [Rust, C].map(|interface| Pair::new(interface, blocks));
    let [mut awake, mut asleep] = [false, true].map(pairs);
    let file = fs::File::open(env::current_exe().unwrap()).unwrap();
    for pair in awake.iter_mut().chain(&mut asleep) {
        assert_eq!(
            pair.report(Some(file.as_fd())).inode,
            file.metadata().unwrap().st_ino(),
            "the descriptor"
        );
        assert_eq!(pair.report(None).inode, 0);
    }
    let bytes: Vec<u8> = (0..=250).cycle().take(PAYLOAD).collect();
    let awake = RefCell::new(&mut awake);
    let asleep = RefCell::new(&mut asleep);
    let call = |interface, fd| awake.borrow_mut()[usize::from(interface == C)].call(calls, fd);
    let mut works = [
        Work::new("call of 64 B, awake", 1.1, |interface| call(interface, None)),
        Work::new("call of 64 B with a descriptor, awake", 1.1, |it| call(it, Some(file.as_fd()))),
        Work::new("128 KiB by loan and blocks, one way, CPU time of both processes", 1.05, |interface| {
            asleep.borrow_mut()[usize::from(interface == C)].send(payloads, &bytes)
        }),
    ];
    for number in 0_usize..rounds {
        // Where the memory of a ring happens to lie makes some per cent.
        if number > 0 && number.is_multiple_of(ROUNDS_OF_A_PAIR) {
            **asleep.borrow_mut() = pairs(true);
        }
        for work in &mut works {
            work.round(number);
        }
    }
    if !measures {
        println!("everything that moved is right");
        return;
    }
    println!(
        "| {rounds} rounds | Rust | C | C / Rust | at most | median of the rounds' ratios (quartiles) |"
    );
    println!("|---|---|---|---|---|---|");
    let over = works.iter().filter(|work| !work.print()).count();
    if over > 0 {
        eprintln!("over the limit: {over}");
        process::exit(1);
    }
}
