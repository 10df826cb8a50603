//! Clients that behave well: all of them in one process, on one loop. They check every answer.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use sealane::{Channel, Control, Error, RequestId};

use crate::{
    Options, Result,
    protocol::{MAX_NANOS, Order, Outcome, PAYLOAD, STREAMED, Tally, settings},
};

/// How long the last answers of a round may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects all clients, then does round after round until `parent` is gone.
pub(crate) fn run(mut parent: Channel, options: &Options) -> Result<()> {
    parent.send(b"ready")?;
    parent.recv()?;
    let mut crowd = Crowd::connect(options)?;
    parent.send(b"connected")?;
    loop {
        let message = match parent.recv() {
            Err(Error::Disconnected) => return Ok(()),
            result => result?,
        };
        let (outcome, latencies) = crowd.round(*message.control_as::<Order>()?)?;
        let recorded = latencies.iter_recorded();
        let pairs: Vec<_> = recorded.map(|at| [at.value_iterated_to(), at.count_at_value()]).collect();
        let mut loan = parent.loan_slice::<[u64; 2]>(pairs.len())?;
        loan.copy_from_slice(&pairs);
        loan.send_with(Control::of(&outcome))?;
    }
}

struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
}

impl Crowd {
    fn connect(options: &Options) -> Result<Self> {
        let builder = settings(options);
        let poll = Poll::new()?;
        let mut clients = Vec::new();
        for number in 0..usize::try_from(options.clients)? {
            let channel = builder.connect(&options.socket)?;
            let (registry, token) = (poll.registry(), Token(number));
            // Whichever descriptor is readable, the client continues where it stopped.
            registry.register(&mut SourceFd(&channel.receiver.as_raw_fd()), token, Interest::READABLE)?;
            registry.register(&mut SourceFd(&channel.sender.as_raw_fd()), token, Interest::READABLE)?;
            clients.push(Client { channel, tally: Tally::default(), doing: Doing::Nothing });
        }
        Ok(Self { poll, events: Events::with_capacity(256), clients })
    }

    fn round(&mut self, order: Order) -> Result<(Outcome, Histogram<u64>)> {
        let begin = Instant::now();
        let mut round = Round {
            end: begin + Duration::from_millis(order.millis),
            flat_out: order.calls_per_second == 0,
            busy: 0,
            missed: 0,
            latencies: Histogram::new_with_max(MAX_NANOS, 3)?,
        };
        let streamed = |clients: &[Client]| clients.iter().map(|client| client.tally.messages).sum::<u64>();
        let streamed_before = streamed(&self.clients);
        let gap = Duration::from_secs(1).checked_div(u32::try_from(order.calls_per_second)?);
        let mut starts = (0..self.clients.len()).cycle();
        let mut next_start = begin;
        if round.flat_out {
            for client in &mut self.clients {
                round.start(client)?;
            }
        }
        loop {
            let now = Instant::now();
            let mut until = round.end + PATIENCE;
            if let Some(gap) = gap.filter(|_| now < round.end) {
                while next_start <= now
                    && let Some(number) = starts.next()
                {
                    round.start(&mut self.clients[number])?;
                    next_start += gap;
                }
                until = next_start;
            } else if round.busy == 0 {
                break;
            } else if now >= until {
                return Err(format!("{} calls were never answered", round.busy).into());
            }
            self.poll.poll(&mut self.events, Some(until.saturating_duration_since(Instant::now())))?;
            for event in &self.events {
                round.go_on(&mut self.clients[event.token().0])?;
            }
        }
        let messages = streamed(&self.clients) - streamed_before + round.latencies.len();
        let nanos = u64::try_from(begin.elapsed().as_nanos())?;
        Ok((Outcome { nanos, messages, missed: round.missed }, round.latencies))
    }
}

struct Round {
    end: Instant,
    flat_out: bool,
    /// Clients that have begun and not ended.
    busy: usize,
    missed: u64,
    latencies: Histogram<u64>,
}

impl Round {
    /// Begins a stream and a call, unless the last one is still under way.
    fn start(&mut self, client: &mut Client) -> Result<()> {
        if !matches!(client.doing, Doing::Nothing) {
            self.missed += 1;
            return Ok(());
        }
        client.doing = Doing::Streaming(STREAMED);
        self.busy += 1;
        self.go_on(client)
    }

    fn go_on(&mut self, client: &mut Client) -> Result<()> {
        while let Some(latency) = client.go_on()? {
            self.latencies.saturating_record(u64::try_from(latency.as_nanos())?);
            if self.flat_out && Instant::now() < self.end {
                client.doing = Doing::Streaming(STREAMED);
            } else {
                self.busy -= 1;
            }
        }
        Ok(())
    }
}

struct Client {
    channel: Channel,
    /// The tally that the hub must have.
    tally: Tally,
    doing: Doing,
}

enum Doing {
    Nothing,
    /// Payloads that are left to send.
    Streaming(u64),
    /// The time since which it waits for the answer.
    Asking(RequestId, Instant),
}

impl Client {
    /// Sends and receives until a call finds nothing, or the answer is there; then returns how long that took.
    fn go_on(&mut self) -> Result<Option<Duration>> {
        loop {
            match self.doing {
                Doing::Nothing => return Ok(None),
                Doing::Streaming(0) => {
                    let asked = Instant::now();
                    let Some(loan) = self.channel.try_loan(0)? else { return Ok(None) };
                    // Without control bytes it needs no packet, so this does not block.
                    let id = loan.request(Control::default())?;
                    self.doing = Doing::Asking(id, asked);
                }
                Doing::Streaming(left) => {
                    let Some(mut loan) = self.channel.try_loan(PAYLOAD)? else { return Ok(None) };
                    let byte = self.tally.messages.to_le_bytes()[0];
                    loan.fill(byte);
                    loan.send()?;
                    self.tally.messages += 1;
                    self.tally.sum += u64::from(byte) * u64::try_from(PAYLOAD)?;
                    self.doing = Doing::Streaming(left - 1);
                }
                Doing::Asking(id, asked) => {
                    let Some(message) = self.channel.try_recv()? else { return Ok(None) };
                    let answer = message.control_as::<Tally>()?;
                    if message.in_reply_to() != Some(id) || *answer != self.tally {
                        return Err(format!("expected {:?}, the hub has {answer:?}", self.tally).into());
                    }
                    self.doing = Doing::Nothing;
                    return Ok(Some(asked.elapsed()));
                }
            }
        }
    }
}
