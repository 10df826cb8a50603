//! A publisher, and subscribers that come and go: some leave, some are stopped for a while, some are killed. Each one checks all that
//! it gets, and that this and what it missed make up what was published.

use std::{
    fmt,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sealane::{
    Error, Event, HandshakeError, Limits, Message, Payload, Publisher, Reason, SealedBuffer, Slow,
    Subscriber, SubscriberId,
};

use crate::{
    Options, Result,
    output::print,
    process::{self, Reading, Trend},
    script::{Item, Random, STOP, buffers},
};

/// Subscribers at a time.
const MOST: usize = 8;
/// Messages between two changes, on average.
const CHANGE: usize = 300;
/// Longest time for which a subscriber is stopped: more than it is waited for.
const STOPPED: usize = 700;
/// The time for which it is waited for, also when the others keep it from running.
const PATIENCE: Duration = Duration::from_millis(500);
/// The time until one more is tried, when this user's subscribers have used up theirs.
const REST: Duration = Duration::from_millis(100);
/// The time within which each step must happen.
const SOON: Duration = Duration::from_secs(30);

/// Why a subscriber is expected to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// By itself, or not at all.
    Free,
    /// It may have been too slow. It goes on at this moment, if it is still stopped.
    Stopped(Option<Instant>),
    Killed,
}

struct Member {
    id: SubscriberId,
    child: Child,
    fate: Fate,
    /// Whether it has told its counts, which it does last.
    has_told: bool,
}

impl Member {
    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

/// The events so far.
#[derive(Debug, Default)]
struct Counts {
    joined: u64,
    left: u64,
    stopped: u64,
    too_slow: u64,
    killed: u64,
    /// Not admitted, for want of time left to this user.
    refused: u64,
    received: u64,
    missed: u64,
}

struct Fan<'o> {
    options: &'o Options,
    publisher: Publisher,
    members: Vec<Member>,
    buffers: Vec<SealedBuffer>,
    random: Random,
    seed: u64,
    counts: Counts,
    /// Nobody is admitted before.
    rest: Instant,
}

impl fmt::Display for Fan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { joined, left, stopped, too_slow, killed, refused, received, missed } = self.counts;
        let sent = self.publisher.stats().messages_sent;
        write!(
            f,
            "{sent} published; {joined} joined, {left} left, {stopped} stopped, {too_slow} too slow, {killed} killed, {refused} \
             refused; those who told: {received} received, {missed} missed"
        )
    }
}

impl Fan<'_> {
    fn publish(&mut self) -> Result<()> {
        let n = self.publisher.stats().messages_sent;
        let item = Item::published(self.seed, n, most_payload(self.publisher.limits()));
        let control = item.control(&self.buffers);
        match item.payload {
            None => self.publisher.send_timeout(control, SOON)?,
            Some(len) => {
                let mut loan = self.publisher.loan_timeout(len, SOON)?;
                item.fill(&mut loan);
                loan.send_with_timeout(control, SOON)?;
            }
        }
        Ok(())
    }

    /// One more joins, one is stopped, or one is killed.
    fn change(&mut self) -> Result<()> {
        let action = self.random.below(4);
        if self.members.len() < MOST / 2 || (action < 2 && self.members.len() < MOST) {
            return if Instant::now() < self.rest { Ok(()) } else { self.spawn() };
        }
        let at = self.random.below(self.members.len());
        let Some(member) = self.members.get_mut(at) else { return Ok(()) };
        match action {
            0..3 if member.fate == Fate::Free => {
                let time = Duration::from_millis(u64::try_from(self.random.below(STOPPED))?);
                member.fate = Fate::Stopped(Instant::now().checked_add(time));
                member.signal(Signal::STOP)?;
                self.counts.stopped += 1;
            }
            3 if member.fate != Fate::Killed => {
                member.fate = Fate::Killed;
                member.signal(Signal::KILL)?;
                self.counts.killed += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        let policy = ["wait", "overrun"][self.random.below(2)];
        // Some leave by themselves.
        let most = match self.random.below(2) {
            0 => self.random.below(20_000),
            _ => usize::MAX,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--fanout", "--subscriber", policy, "--seed", &self.seed.to_string()]);
        command.args(["--messages", &most.to_string()]);
        command.args(["--ring-capacity", &self.options.ring_capacity.to_string()]);
        match self.publisher.spawn(command) {
            Ok((id, child)) => {
                self.members.push(Member { id, child, fate: Fate::Free, has_told: false });
                self.counts.joined += 1;
            }
            // Others of this user were too slow.
            Err(Error::Handshake(HandshakeError::Refused(refusal))) if refusal.reason == Reason::Patience => {
                self.counts.refused += 1;
                self.rest = Instant::now() + REST;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Lets those go on that were stopped for long enough.
    fn wake(&mut self, now: Instant) -> Result<()> {
        for member in &mut self.members {
            if let Fate::Stopped(Some(until)) = member.fate
                && until <= now
            {
                member.signal(Signal::CONT)?;
                member.fate = Fate::Stopped(None);
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Message(id, message) => {
                let told: [u64; 2] = read_counts(&message)?;
                self.counts.received += told[0];
                self.counts.missed += told[1];
                for member in self.members.iter_mut().filter(|member| member.id == id) {
                    member.has_told = true;
                }
            }
            Event::Left(id, reason) => {
                let at = self.members.iter().position(|member| member.id == id);
                let mut member = self.members.swap_remove(at.ok_or("somebody left who never joined")?);
                // A stopped process ends only when it goes on.
                if let Fate::Stopped(Some(_)) = member.fate {
                    member.signal(Signal::CONT)?;
                }
                let status = member.child.wait()?;
                match reason {
                    // One that was not stopped may have been kept from running by the others.
                    Error::TooSlow => self.counts.too_slow += 1,
                    Error::Disconnected if member.fate == Fate::Killed || member.has_told => {
                        self.counts.left += 1;
                    }
                    reason => {
                        return Err(format!("a subscriber ({:?}) has left: {reason}", member.fate).into());
                    }
                }
                if !status.success() && member.fate != Fate::Killed {
                    return Err(format!("a subscriber has failed: {status}").into());
                }
            }
            other => return Err(format!("nothing else expected, {other:?} found").into()),
        }
        Ok(())
    }

    /// Publishes for a second.
    fn run(&mut self, end: Instant) -> Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.publish()?;
            if self.random.below(CHANGE) == 0 {
                self.change()?;
            }
            self.wake(now)?;
            while let Some(event) = self.publisher.next_event()? {
                self.hear(event)?;
            }
        }
    }

    /// All leave, and have told what they got.
    fn end(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Fate::Stopped(until @ Some(_)) = &mut member.fate {
                *until = Some(Instant::now());
            }
        }
        self.wake(Instant::now())?;
        self.publisher.send_timeout(STOP, SOON)?;
        let deadline = Instant::now() + SOON;
        while !self.members.is_empty() {
            if Instant::now() > deadline {
                return Err(format!("{} subscribers do not leave", self.members.len()).into());
            }
            if let Some(event) = self.publisher.wait_event(Duration::from_millis(100))? {
                self.hear(event)?;
            }
        }
        Ok(())
    }
}

/// Publishes to subscribers that come and go, and watches its own descriptors and memory.
pub(crate) fn publish(options: &Options, seed: u64) -> Result<()> {
    let before = Reading::of("self")?;
    let publisher = options.builder()?.slow(Slow::Wait(PATIENCE)).publisher()?;
    let mut fan = Fan {
        options,
        publisher,
        members: Vec::new(),
        buffers: buffers()?,
        random: Random(!seed),
        seed,
        counts: Counts::default(),
        rest: Instant::now(),
    };
    let mut trend = Trend::default();
    let begun = Instant::now();
    let mut run = || {
        for reading in 1..=options.readings() {
            fan.run(begun + reading * process::EVERY)?;
            trend.note(Reading::of("self")?);
            if let Some(second) = process::second(reading) {
                print(format_args!("{second:>6} s: {fan}; {trend}"))?;
            }
        }
        fan.end()
    };
    let result = run();
    // Those who are left after a failure must not go on without their publisher, stopped or not.
    for member in &mut fan.members {
        let _ = member.child.kill();
        let _ = member.child.wait();
    }
    result?;
    let summary = fan.to_string();
    drop(fan);
    // All have left. Until then the number of subscribers decides how many descriptors there are.
    Reading::of("self")?.settled(before.descriptors)?;
    trend.judge_memory("the publisher")?;
    print(format_args!("in all: {summary}"))?;
    Ok(print(
        "verdict: all messages whole, each one received or counted as missed, descriptors and memory flat",
    )?)
}

/// One subscriber: checks all messages until the last one, or so many.
pub(crate) fn subscribe(options: &Options, seed: u64, policy: &str) -> Result<()> {
    let slow = match policy {
        "wait" => Slow::Wait(Duration::MAX),
        "overrun" => Slow::Overrun,
        other => return Err(format!("wait or overrun expected, {other} found").into()),
    };
    let mut subscriber = match options.builder()?.slow(slow).subscribe_inherited() {
        // The publisher counts that.
        Err(Error::Handshake(HandshakeError::Rejected(refusal))) if refusal.reason == Reason::Patience => {
            return Ok(());
        }
        result => result?,
    };
    let (mut received, mut first, mut next) = (0, None, 0);
    let mut random = Random(u64::from(std::process::id()));
    loop {
        let mut message = match subscriber.recv_timeout(SOON) {
            Ok(message) => message,
            // The publisher knows whether this was to be expected.
            Err(Error::TooSlow) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        received += 1;
        let (sequence, missed) = (message.sequence(), message.missed());
        let first = *first.get_or_insert(sequence - missed);
        if first + received + subscriber.missed() != sequence + 1 || sequence < next + missed {
            let missed = subscriber.missed();
            return Err(format!(
                "from {first} to {sequence}: {received} received and {missed} missed, which do not make it up"
            )
            .into());
        }
        next = sequence + 1;
        let is_last = message.control() == STOP && message.payload().is_none();
        if !is_last
            && !check(&mut message, &Item::published(seed, sequence, most_payload(subscriber.limits())))?
        {
            return Ok(());
        }
        drop(message);
        if is_last || received >= options.messages {
            return tell(&mut subscriber, received);
        }
        // A slow one, now and then.
        if random.below(2000) == 0 {
            thread::sleep(Duration::from_millis(u64::try_from(random.below(20))?));
        }
    }
}

/// Bytes of the longest payload: its control bytes have room beside it.
fn most_payload(limits: Limits) -> usize {
    limits.max_payload / 2
}

/// Compares a message with what was published. False if it was written over, after this subscriber was ended.
fn check(message: &mut Message, item: &Item) -> Result<bool> {
    let taken = message.take_fds();
    item.check(message, taken)?;
    let Some(payload) = message.payload() else { return Ok(true) };
    let result = item.check_payload(payload);
    if Payload::is_whole(payload) { result.map(|()| true) } else { Ok(false) }
}

/// Tells the publisher how many messages were received and missed.
fn tell(subscriber: &mut Subscriber, received: u64) -> Result<()> {
    let counts = [received, subscriber.missed()].map(u64::to_le_bytes).concat();
    match subscriber.send_timeout(&counts, SOON) {
        Ok(()) | Err(Error::TooSlow | Error::Disconnected) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn read_counts(message: &Message) -> Result<[u64; 2]> {
    match message.control().as_chunks::<8>() {
        ([received, missed], []) => Ok([*received, *missed].map(u64::from_le_bytes)),
        _ => Err(format!("two counts expected, {} bytes found", message.control().len()).into()),
    }
}
