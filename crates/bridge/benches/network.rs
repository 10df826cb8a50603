//! A bridge beside bare Zenoh: `cargo bench --bench network [-- --quick | --only NAME]`.
//!
//! Each measurement has processes of its own on the loopback. Bare Zenoh: one that puts, one whose callback reads. A bridge: a publisher,
//! an exporter, an importer, a subscriber. Every byte of a payload is written before it is sent, and read when it has come. Both wait
//! where a link takes nothing more (`CongestionControl::Block`), so that both carry everything. Rounds alternate.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sealane::{Builder, Slow};
use sealane_bridge::{Bridge, Network, Settings, WhenBehind};
use zenoh::{Wait, qos::CongestionControl};

/// Longest wait of one side for another.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a ring: the default, or room for eight payloads.
fn ring(size: usize) -> usize {
    (size * 8).max(4 << 20)
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["role", role, cpu, ref rest @ ..] => {
            pin(cpu.parse()?)?;
            play(role, rest)
        }
        ["--only", name, ..] => measure(false, name),
        _ => measure(words.contains(&"--quick") || words.contains(&"--test"), ""),
    }
}

/// Runs this thread, and those that it starts, on one CPU. A negative number is all of them.
fn pin(cpu: i64) -> Result<(), Failed> {
    if let Ok(cpu) = usize::try_from(cpu) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    Ok(())
}

fn play(role: &str, rest: &[&str]) -> Result<(), Failed> {
    match (role, rest) {
        ("put", [endpoint, size, gap]) => put(endpoint, size.parse()?, micros(gap)?),
        ("get", [endpoint, seconds]) => get(endpoint, seconds.parse()?),
        ("publish", [path, size, gap]) => publish(path, size.parse()?, micros(gap)?),
        ("export", [path, endpoint, plain]) => export(path, endpoint, *plain == "plain"),
        ("import", [path, endpoint, size]) => import(path, endpoint, size.parse()?),
        ("subscribe", [path, seconds]) => subscribe(path, seconds.parse()?),
        _ => Err(format!("no role {role} {rest:?}").into()),
    }
}

fn micros(text: &str) -> Result<Duration, Failed> {
    Ok(Duration::from_micros(text.parse()?))
}

/// Now, in nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Writes every byte: the time, then a pattern.
fn fill(payload: &mut [u8], number: u64) {
    payload.fill(u8::try_from(number & 0xff).unwrap_or(0));
    if let Some(stamp) = payload.first_chunk_mut() {
        *stamp = now().to_le_bytes();
    }
}

/// Counts of messages that have come, and their times on the way.
#[derive(Default)]
struct Meter {
    sum: AtomicU64,
    messages: AtomicU64,
    times: Mutex<Vec<u64>>,
}

impl Meter {
    fn take(&self, parts: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        let (mut first, mut sum) = (None, 0_u64);
        parts(&mut |bytes| {
            first = first.or_else(|| bytes.first_chunk().map(|stamp| u64::from_le_bytes(*stamp)));
            let words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
            sum = words.fold(sum, u64::wrapping_add);
        });
        self.sum.fetch_add(black_box(sum), Relaxed);
        let count = self.messages.fetch_add(1, Relaxed);
        if count.is_multiple_of(16) || count < 4096 {
            let time = first.map_or(0, |sent| now().saturating_sub(sent));
            if let Ok(mut times) = self.times.lock()
                && times.len() < 1 << 16
            {
                times.push(time);
            }
        }
    }

    /// Waits for the first message, then counts for a time, and prints what came.
    fn report(&self, seconds: f64, mut step: impl FnMut()) -> Result<(), Failed> {
        let mut run = |time: f64| {
            let start = Instant::now();
            while start.elapsed().as_secs_f64() < time {
                step();
            }
            start.elapsed().as_secs_f64()
        };
        let start = Instant::now();
        while self.messages.load(Relaxed) == 0 {
            run(0.01);
            if start.elapsed() > PATIENCE {
                return Err("no message came".into());
            }
        }
        run(0.2);
        self.times.lock().map_err(|_| "a thread has panicked")?.clear();
        let before = self.messages.load(Relaxed);
        let passed = run(seconds);
        let count = self.messages.load(Relaxed) - before;
        let mut times = std::mem::take(&mut *self.times.lock().map_err(|_| "a thread has panicked")?);
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
        println!("{} {} {}", f64::from(u32::try_from(count)?) / passed, at(50), at(99));
        Ok(())
    }
}

/// Zenoh with a bridge's settings: it finds and hears nobody by itself, and has 16 batches for each link.
fn bare(listen: &[&str], connect: &[&str]) -> Result<zenoh::Session, Failed> {
    let mut config = zenoh::Config::default();
    let mut set = |key: &str, value: String| config.insert_json5(key, &value);
    set("listen/endpoints", format!("{listen:?}"))?;
    set("connect/endpoints", format!("{connect:?}"))?;
    set("scouting/multicast/enabled", "false".into())?;
    set("scouting/gossip/enabled", "false".into())?;
    set("transport/link/tx/queue/size/data", "16".into())?;
    zenoh::open(config).wait()
}

fn put(endpoint: &str, size: usize, gap: Duration) -> Result<(), Failed> {
    let session = bare(&[endpoint], &[])?;
    let publisher = session.declare_publisher("stats").congestion_control(CongestionControl::Block).wait()?;
    while !publisher.matching_status().wait()?.matching() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for number in 0.. {
        let mut payload = vec![0; size];
        fill(&mut payload, number);
        publisher.put(payload).wait()?;
        pause(gap);
    }
    Ok(())
}

fn pause(gap: Duration) {
    if !gap.is_zero() {
        std::thread::sleep(gap);
    }
}

fn get(endpoint: &str, seconds: f64) -> Result<(), Failed> {
    let session = bare(&[], &[endpoint])?;
    let meter = std::sync::Arc::new(Meter::default());
    let taken = std::sync::Arc::clone(&meter);
    let callback = move |sample: zenoh::sample::Sample| {
        taken.take(|each| sample.payload().slices().for_each(each));
    };
    let _subscriber = session.declare_subscriber("stats").callback(callback).wait()?;
    meter.report(seconds, || std::thread::sleep(Duration::from_millis(5)))
}

fn publish(path: &str, size: usize, gap: Duration) -> Result<(), Failed> {
    let builder = Builder::default().ring_capacity(ring(size)).slow(Slow::Wait(Duration::MAX));
    let mut publisher = builder.publish(path)?;
    while publisher.subscribers().is_empty() {
        publisher.wait_event(PATIENCE)?;
    }
    for number in 0.. {
        let mut loan = publisher.loan(size)?;
        fill(&mut loan, number);
        loan.send()?;
        pause(gap);
    }
    Ok(())
}

fn export(path: &str, endpoint: &str, plain: bool) -> Result<(), Failed> {
    let mut settings = Settings::default();
    settings.plain = plain;
    settings.slow = Slow::Wait(Duration::MAX);
    settings.when_behind = WhenBehind::Wait(PATIENCE);
    settings.memory = 8 << 20;
    let network = Network::default().listen(endpoint);
    let _bridge = Bridge::open(&network)?.export("stats", path, &settings)?;
    forever()
}

fn import(path: &str, endpoint: &str, size: usize) -> Result<(), Failed> {
    let mut settings = Settings::default();
    settings.ring = ring(size);
    settings.slow = Slow::Wait(Duration::MAX);
    settings.memory = 1 << 30;
    let bridge = Bridge::open(&Network::default().connect(endpoint))?.import("stats", path, &settings)?;
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    println!("{}", serde_json::to_string(&bridge.status())?);
    Ok(())
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

fn subscribe(path: &str, seconds: f64) -> Result<(), Failed> {
    let start = Instant::now();
    let mut subscriber = loop {
        match sealane::Subscriber::connect(path) {
            Ok(subscriber) => break subscriber,
            Err(why) if start.elapsed() > PATIENCE => return Err(why.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let meter = Meter::default();
    meter.report(seconds, || {
        for _ in 0..64 {
            let Ok(message) = subscriber.recv_timeout(Duration::from_millis(5)) else { break };
            if let Some(payload) = message.payload() {
                meter.take(|each| payload.bytes().for_each_block(each));
            }
        }
    })
}

/// A role in a process of its own, killed with its value.
struct Role(Child);

impl Role {
    fn start(role: &str, cpu: i64, rest: &[&str]) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", role, &cpu.to_string()]).args(rest);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// The line that it prints at its end.
    fn line(&mut self) -> Result<String, Failed> {
        let output = self.0.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages a second, and the median and 99th percentile of nanoseconds on the way.
#[derive(Clone, Copy)]
struct Found {
    rate: f64,
    median: f64,
    tail: f64,
}

fn parse(line: &str) -> Result<Found, Failed> {
    let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [rate, median, tail] = numbers[..] else { return Err(format!("not a report: {line:?}").into()) };
    Ok(Found { rate, median, tail })
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    size: usize,
    plain: bool,
    limit: f64,
}

struct Setup<'s> {
    dir: &'s Path,
    seconds: f64,
    gap: u64,
    pinned: bool,
}

fn run(setup: &Setup<'_>, case: Case, bridged: bool) -> Result<Found, Failed> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (endpoint, size) = (format!("tcp/127.0.0.1:{port}"), case.size.to_string());
    let (gap, seconds) = (setup.gap.to_string(), setup.seconds.to_string());
    let (near, far) = if setup.pinned { (0, 1) } else { (-1, -1) };
    if !bridged {
        let _source = Role::start("put", near, &[&endpoint, &size, &gap])?;
        return parse(&Role::start("get", far, &[&endpoint, &seconds])?.line()?);
    }
    let path = |name: &str| -> PathBuf { setup.dir.join(format!("{name}-{port}")) };
    let (source, remote) = (path("source"), path("remote"));
    let (source, remote) = (source.to_str().ok_or("a path")?, remote.to_str().ok_or("a path")?);
    let mut importer = Role::start("import", far, &[remote, &endpoint, &size])?;
    let mut sink = Role::start("subscribe", far, &[remote, &seconds])?;
    let _exporter =
        Role::start("export", near, &[source, &endpoint, if case.plain { "plain" } else { "packed" }])?;
    let _source = Role::start("publish", near, &[source, &size, &gap])?;
    let found = parse(&sink.line()?)?;
    importer.0.stdin.take().ok_or("no input")?.write_all(b"\n")?;
    let status: serde_json::Value = serde_json::from_str(&importer.line()?)?;
    let lost = ["missed", "dropped", "refused"].map(|name| status[0]["count"][name].as_u64());
    if lost != [Some(0); 3] {
        eprintln!("{}: lost on the way: {status}", case.name);
    }
    Ok(found)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures the cases whose names have `only` in them.
fn measure(quick: bool, only: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let cases = [
        Case { name: "64 B, packed", size: 64, plain: false, limit: 0.85 },
        Case { name: "64 B, --plain", size: 64, plain: true, limit: 0.4 },
        Case { name: "64 KiB", size: 64 << 10, plain: false, limit: 0.85 },
        Case { name: "1 MiB", size: 1 << 20, plain: false, limit: 0.85 },
    ];
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.name.contains(only)).collect();
    let pairs = if quick { 1 } else { 10 };
    let setup = Setup { dir: dir.path(), seconds: if quick { 0.3 } else { 1.0 }, gap: 0, pinned: true };
    println!(
        "| flat out | bare Zenoh, messages/s | bridge | ratio (range) | must hold |\n|---|---:|---:|---|---|"
    );
    for &case in &cases {
        let (mut bare, mut bridged, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            let mut found = [0.0; 2];
            for step in 0..2 {
                let which = (pair + step) % 2;
                found[which] = run(&setup, case, which == 1)?.rate;
            }
            bare.push(found[0]);
            bridged.push(found[1]);
            ratios.push(found[1] / found[0]);
        }
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0), |(l, m), r| (r.min(l), r.max(m)));
        let ratio = median(ratios);
        let holds = if ratio >= case.limit { "holds" } else { "FAILS" };
        println!(
            "| {} | {:.0} | {:.0} | {ratio:.2} ({least:.2}-{most:.2}) | {} {holds} |",
            case.name,
            median(bare),
            median(bridged),
            case.limit
        );
    }
    let setup = Setup { gap: 1000, pinned: true, ..setup };
    println!("\n| one way, pinned, 1,000 a second | bare Zenoh, median (99 %) | bridge |\n|---|---|---|");
    for &case in &cases {
        let mut medians = [Vec::new(), Vec::new()];
        let mut tails = [Vec::new(), Vec::new()];
        for _ in 0..pairs.min(5) {
            for which in 0..2 {
                let found = run(&setup, case, which == 1)?;
                medians[which].push(found.median / 1000.0);
                tails[which].push(found.tail / 1000.0);
            }
        }
        let [bare, bridged] = medians.map(median);
        let [bare_tail, bridged_tail] = tails.map(median);
        println!("| {} | {bare:.0} µs ({bare_tail:.0}) | {bridged:.0} µs ({bridged_tail:.0}) |", case.name);
    }
    Ok(())
}
