//! Many channels in one event loop: the cost of a message by their number.
//!
//! The loop is `mio`'s. It receives from each readable channel until `None`, so every receiver is armed again when it waits.
//! The client sends a burst, and waits until all of it is received. In a burst of one message the receiver sleeps, so that a
//! message takes a doorbell, an event, and two reads of the socket for any number of channels. The memory that is touched
//! differs.
//!
//! - `threads=1`: the client's and the loop's work are done in turn by one thread. Nobody is woken.
//! - `threads=2`: as between processes, the loop sleeps on a CPU of its own when a burst begins, and is woken. The time is
//!   that from the first message's sending until the loop has taken the last.
//! - `threads=2,time=cpu`: likewise, and the time is the CPU time of the loop's thread: the server's cost without the clients'.
//! - `burst=1`: one message, to a channel at random. `burst=32`: 32 messages, each to a channel at random; only the first
//!   to a channel needs a doorbell. `burst=each`: one message to every channel, in random order.
//!
//! An iteration is one message.

use std::{
    hint::spin_loop,
    mem,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use sealane::Closer;

use crate::{
    cpus::{self, Pinned},
    endpoints::bytes,
    event_loop::{Burst, Client, Kind, RING, Server, establish},
};

const CHANNELS: [usize; 4] = [1, 10, 100, 1000];
/// Descriptors of both ends of a channel, and of everything else.
const DESCRIPTORS: (usize, usize) = (8, 64);
/// Payloads of 64 bytes that one ring takes wherever its head stands: 128 bytes each, and twice the 1,024 that a loan reserves.
const BURST: usize = 32;
const _: () = assert!(BURST * 128 + 2 * 1088 <= RING);

/// After which a loop that has nothing to do sleeps.
const PAUSE: Duration = Duration::from_micros(20);
/// Some ten seconds or more, where a burst takes a few milliseconds.
const MOST_SPINS: u64 = 1 << 28;

const WAYS: [(&str, Way); 3] = [
    ("threads=1", Way::OneThread),
    ("threads=2", Way::TwoThreads(Time::Passed)),
    ("threads=2,time=cpu", Way::TwoThreads(Time::OfTheLoop)),
];
const KINDS: [(&str, Kind); 3] =
    [("payload=64B", Kind::Payload), ("control=8B", Kind::Control), ("bare_datagram=8B", Kind::Bare)];
const BURSTS: [(&str, Burst); 3] =
    [("1", Burst::Random(1)), ("32", Burst::Random(BURST)), ("each", Burst::Each)];

#[derive(Clone, Copy)]
enum Way {
    OneThread,
    TwoThreads(Time),
}

/// The time that is measured.
#[derive(Clone, Copy)]
enum Time {
    Passed,
    /// The CPU time of the loop's thread.
    OfTheLoop,
}

pub(crate) fn channels(c: &mut Criterion) {
    let most = most_channels();
    let mut group = c.benchmark_group("many");
    group.sampling_mode(SamplingMode::Flat).sample_size(30);
    for count in CHANNELS {
        if count > most {
            eprintln!("many: {count} channels are left out: this process may open descriptors for {most}");
            continue;
        }
        let mut ends = None;
        let ways = KINDS.into_iter().flat_map(|kind| WAYS.map(|way| (kind, way)));
        for ((kind_name, kind), (way_name, way)) in ways {
            for (burst_name, burst) in BURSTS {
                let switches = format!("{kind_name},{way_name},burst={burst_name},ring={}", bytes(RING));
                group.bench_function(BenchmarkId::new(switches, count), |bench| {
                    let (client, server) = ends.get_or_insert_with(|| establish(count));
                    match way {
                        Way::OneThread => in_one_thread(bench, client, server, kind, burst),
                        Way::TwoThreads(time) => in_two_threads(bench, client, server, kind, burst, time),
                    }
                });
            }
        }
    }
    group.finish();
}

/// How many channels this process may open, with the limit of descriptors raised as far as it may.
fn most_channels() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let (each, other) = DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(usize::MAX, |limit| limit.saturating_sub(other) / each)
}

fn in_one_thread(
    bench: &mut Bencher<'_>,
    client: &mut Client,
    server: &mut Server,
    kind: Kind,
    burst: Burst,
) {
    let mut round = || {
        let sent = client.send(kind, burst);
        while server.taken < client.sent {
            server.look();
        }
        sent
    };
    round();
    let _pinned = Pinned::first();
    bench.iter_custom(|rounds| {
        let started = Instant::now();
        let sent: u32 = (0..rounds).map(|_| round()).sum();
        started.elapsed() * u32::try_from(rounds).unwrap() / sent
    });
    assert_eq!(server.sum, client.sum);
}

fn in_two_threads(
    bench: &mut Bencher<'_>,
    client: &mut Client,
    server: &mut Server,
    kind: Kind,
    burst: Burst,
    time: Time,
) {
    let (taken, loop_cpu) = (AtomicU64::new(client.sent), AtomicU64::new(0));
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            cpus::second();
            while server.look() {
                if matches!(time, Time::OfTheLoop) {
                    loop_cpu.store(thread_cpu_nanos(), Ordering::Relaxed);
                }
                taken.store(server.taken, Ordering::Release);
            }
        });
        let _wakes = WakesOnPanic(client.closer());
        let mut before = 0;
        let mut round = || {
            let started = Instant::now();
            let sent = client.send(kind, burst);
            let mut spins = 0_u64;
            while taken.load(Ordering::Acquire) < client.sent {
                assert!(!serving.is_finished() && spins < MOST_SPINS, "the loop does not take what was sent");
                spins += 1;
                spin_loop();
            }
            let took = started.elapsed();
            while started.elapsed() < took + PAUSE {
                spin_loop();
            }
            let cpu = loop_cpu.load(Ordering::Relaxed);
            let loop_took = Duration::from_nanos(cpu - mem::replace(&mut before, cpu));
            match time {
                Time::Passed => took / sent,
                Time::OfTheLoop => loop_took / sent,
            }
        };
        round();
        let pinned = Pinned::first();
        bench.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
        drop(pinned);
        client.stop();
    });
    assert_eq!(server.sum, client.sum);
}

fn thread_cpu_nanos() -> u64 {
    let time = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    time.as_nanos().try_into().unwrap()
}

/// Ends a channel of the loop's when this thread panics, so that the loop's thread does not sleep for ever.
struct WakesOnPanic(Closer);

impl Drop for WakesOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}
