//! The process that starts the others, gives orders, and takes their measure.

use std::{
    env,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use sealane::{Channel, Control, Message};

use crate::{
    Options, Result,
    protocol::{COUNTERS, Counters, MAX_NANOS, Order, Outcome},
    report::{Facts, Rounds, micros, number},
    system::{Usage, kernel_memory, open_as_many_files_as_allowed},
};

/// Rounds at a steady pace, of each kind.
const ROUNDS: u32 = 5;
/// The time within which each step must happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the progress bar moves, and how often to look again.
const TICK: Duration = Duration::from_millis(50);

pub(crate) fn run(options: &Options) -> Result<Facts> {
    open_as_many_files_as_allowed()?;
    let dir = tempfile::tempdir()?;
    let start = Start { options, socket: &dir.path().join("hub") };
    let progress = Progress::new(options);
    let mut facts = Facts::new();
    facts.add("clients", options.clients);
    facts.add("ring_capacity", options.ring_capacity);

    let mut hub = start.process("server", options.clients)?;
    hub.counters()?;
    let mut clients = start.process("clients", options.clients)?;
    clients.expect(b"ready")?;
    let before = Footprint::of(&hub, &clients)?;
    let begin = Instant::now();
    clients.channel.send(b"connect")?;
    clients.expect(b"connected")?;
    facts.add_number("connected_per_second", f64::from(options.clients) / begin.elapsed().as_secs_f64());

    let has_bad = options.silent + options.slow + options.flooding + options.dying > 0;
    let millis = u64::from(options.seconds) * 1000;
    let flat_out = Order { millis: millis / 4, calls_per_second: 0 };
    // The rest of the time.
    let kinds = if has_bad { 2 } else { 1 };
    let steady =
        Order { millis: millis * 3 / 4 / u64::from(ROUNDS * kinds), calls_per_second: options.pace.into() };

    let round = clients.round("flat out", flat_out, &progress, || ())?;
    let seconds = number(round.outcome.nanos) / 1e9;
    facts.add_number("messages_per_second", number(round.outcome.messages) / seconds);
    facts.add_number("calls_per_second", number(round.latencies.len()) / seconds);
    facts.add_number("call_p50_us", micros(&round.latencies, 0.5));
    facts.add_number("call_p99_us", micros(&round.latencies, 0.99));
    // By now all memory has been touched that ever will be.
    Footprint::of(&hub, &clients)?.since(before, options.clients, &mut facts);

    let (mut without, mut with) = (Rounds::default(), Rounds::default());
    let mut messages_beside_bad = 0;
    for _ in 0..ROUNDS {
        without.add(&clients.round("a steady pace", steady, &progress, || ())?);
        if has_bad {
            let trouble = start.trouble()?;
            let mut dying = start.dying(steady)?;
            let messages = hub.counters()?.messages;
            with.add(&clients.round("with bad clients", steady, &progress, || drop(dying.take()))?);
            messages_beside_bad += hub.counters()?.messages - messages;
            drop(trouble);
            hub.wait_for_guests(options.clients)?;
        }
    }
    facts.add("steady_calls_per_second", options.pace);
    without.report(["steady_call_p50_us", "steady_call_p99_us", "steady_calls_missed"], &mut facts);
    if has_bad {
        with.report(
            ["beside_bad_call_p50_us", "beside_bad_call_p99_us", "beside_bad_calls_missed"],
            &mut facts,
        );
        let seconds = number(steady.millis * u64::from(ROUNDS)) / 1e3;
        facts.add_number("beside_bad_messages_per_second", number(messages_beside_bad) / seconds);
        let Counters { left, timed_out, failed, .. } = hub.counters()?;
        facts.add("bad_clients_dropped", left);
        facts.add("bad_handshakes_timed_out", timed_out);
        facts.add("bad_handshakes_failed", failed);
    }
    Ok(facts)
}

/// How to start the other processes: this program, in another role.
struct Start<'a> {
    options: &'a Options,
    socket: &'a Path,
}

impl Start<'_> {
    fn process(&self, role: &str, clients: u32) -> Result<Process> {
        let Options { ring_capacity, per_user, silent, slow, flooding, .. } = self.options;
        let mut command = Command::new(env::current_exe()?);
        command.arg("--role").arg(role).arg("--socket").arg(self.socket);
        for (name, value) in [
            ("--clients", &clients),
            ("--ring-capacity", ring_capacity),
            ("--per-user", per_user),
            ("--silent", silent),
            ("--slow", slow),
            ("--flooding", flooding),
        ] {
            command.arg(name).arg(value.to_string());
        }
        let (channel, child) = Channel::spawn(command)?;
        Ok(Process { channel, child })
    }

    fn trouble(&self) -> Result<Process> {
        let mut trouble = self.process("trouble", self.options.clients)?;
        trouble.expect(b"connected")?;
        Ok(trouble)
    }

    /// Clients that are at work, if there are to be any that die.
    fn dying(&self, order: Order) -> Result<Option<Process>> {
        if self.options.dying == 0 {
            return Ok(None);
        }
        let mut dying = self.process("clients", self.options.dying)?;
        dying.expect(b"ready")?;
        dying.channel.send(b"connect")?;
        dying.expect(b"connected")?;
        dying.channel.send(Control::of(&order))?;
        Ok(Some(dying))
    }
}

/// Another process. Killed, if it still lives, when dropped.
struct Process {
    channel: Channel,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The result of one round.
pub(crate) struct Round {
    pub(crate) outcome: Outcome,
    pub(crate) latencies: Histogram<u64>,
}

impl Process {
    fn expect(&mut self, word: &[u8]) -> Result<()> {
        let message = self.channel.recv_timeout(PATIENCE)?;
        if message.control() == word { Ok(()) } else { Err("another word was expected".into()) }
    }

    /// Reads the counters of a hub.
    fn counters(&mut self) -> Result<Counters> {
        Ok(*self.channel.call(COUNTERS, PATIENCE)?.control_as()?)
    }

    /// Waits until a hub has dropped the bad clients.
    fn wait_for_guests(&mut self, count: u32) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.counters()?.guests > count.into() {
            if Instant::now() > end {
                return Err("the hub keeps clients that are gone".into());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Runs a round of the clients, and calls `half_time` in the middle.
    fn round(
        &mut self,
        name: &'static str,
        order: Order,
        progress: &Progress,
        mut half_time: impl FnMut(),
    ) -> Result<Round> {
        progress.0.set_message(name);
        let (begin, shown) = (Instant::now(), progress.0.position());
        let half = Duration::from_millis(order.millis / 2);
        self.channel.send(Control::of(&order))?;
        loop {
            match self.channel.recv_timeout(TICK) {
                Ok(message) => return Round::new(&message),
                Err(error) if error.is_timeout() && begin.elapsed() < half + half + PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
            let passed = u64::try_from(begin.elapsed().as_millis())?;
            progress.0.set_position(shown + passed.min(order.millis));
            if begin.elapsed() > half {
                half_time();
            }
        }
    }
}

impl Round {
    fn new(message: &Message) -> Result<Self> {
        let mut latencies = Histogram::new_with_max(MAX_NANOS, 3)?;
        for [nanos, count] in message.payload().ok_or("latencies were expected")?.shared::<[u64; 2]>()? {
            latencies.record_n(nanos, count)?;
        }
        Ok(Self { outcome: *message.control_as()?, latencies })
    }
}

/// The resources that hub and clients use, and the kernel for them.
#[derive(Clone, Copy)]
struct Footprint {
    hub: Usage,
    clients: Usage,
    kernel: u64,
}

impl Footprint {
    fn of(hub: &Process, clients: &Process) -> Result<Self> {
        let usage = |process: &Process| Usage::of(process.child.id());
        Ok(Self { hub: usage(hub)?, clients: usage(clients)?, kernel: kernel_memory()? })
    }

    /// The resources that each client has added.
    fn since(self, before: Self, clients: u32, facts: &mut Facts) {
        let mut add = |name, now: u64, before: u64| {
            facts.add_number(name, number(now.saturating_sub(before)) / f64::from(clients));
        };
        add("hub_pss_kib_per_client", self.hub.pss, before.hub.pss);
        add("hub_pss_shared_kib_per_client", self.hub.pss_shared, before.hub.pss_shared);
        add("client_pss_kib_per_client", self.clients.pss, before.clients.pss);
        add("kernel_slab_and_page_tables_kib_per_client", self.kernel, before.kernel);
        add("hub_fds_per_client", self.hub.fds, before.hub.fds);
        add("client_fds_per_client", self.clients.fds, before.clients.fds);
    }
}

/// A bar that counts milliseconds.
struct Progress(ProgressBar);

impl Progress {
    fn new(options: &Options) -> Self {
        let bar = if options.json {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(u64::from(options.seconds) * 1000)
        };
        let style = ProgressStyle::with_template("{spinner} {wide_bar} {eta} left, {msg}");
        Self(bar.with_style(style.expect("a valid template")))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
