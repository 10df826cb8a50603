//! A viewer: it reads every byte of the frames that it receives, and sends its counts after the last one.

use sealane::{Control, SharedSlice, Subscriber};
use zerocopy::FromBytes;

use crate::{
    Carrier, Options, Policy, Result,
    carriers::{Counts, Stamp},
    usage::{cpu_time, now},
};

/// The counts of this viewer, as they grow.
#[derive(Default)]
struct Seen {
    received: u64,
    torn: u64,
    latencies: Vec<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let builder = options.builder(options.size);
    let carrier = *options.carrier.first().ok_or("a carrier expected, found none")?;
    match carrier {
        Carrier::Publisher => {
            let mut subscriber = builder.subscribe_inherited()?;
            let counts = watch(options, |seen| next_published(options.policy, &mut subscriber, seen))?;
            let counts = Counts { missed: subscriber.missed(), ..counts };
            Ok(subscriber.send(Control::of(&counts))?)
        }
        Carrier::Channels => {
            let mut channel = builder.ring_capacity(0).inherited()?;
            let mut counts = watch(options, |seen| {
                let message = channel.recv()?;
                let payload = message.payload().ok_or("a frame expected, found none")?;
                seen.look(message.control(), payload.bytes()).map(Some)
            })?;
            counts.missed = options.frames - counts.received;
            Ok(channel.send(Control::of(&counts))?)
        }
    }
}

/// Receives frames until the last one, which is never overrun.
fn watch(options: &Options, mut next: impl FnMut(&mut Seen) -> Result<Option<u64>>) -> Result<Counts> {
    let (mut seen, cpu) = (Seen::default(), cpu_time());
    while next(&mut seen)? != Some(options.frames - 1) {}
    let cpu = u64::try_from(cpu_time().saturating_sub(cpu).as_nanos())?;
    let Seen { received, torn, mut latencies } = seen;
    let middle = latencies.len() / 2;
    let latency = *latencies.select_nth_unstable(middle).1;
    Ok(Counts { received, torn, latency, cpu, missed: 0 })
}

/// Receives a frame, or learns that it was overrun while it was read. Returns its number.
fn next_published(policy: Policy, subscriber: &mut Subscriber, seen: &mut Seen) -> Result<Option<u64>> {
    if policy == Policy::Newest {
        let message = subscriber.recv_latest()?;
        let payload = message.payload().ok_or("a frame expected, found none")?;
        return seen.look(message.control(), payload.bytes()).map(Some);
    }
    // A frame that was overrun while it was read is no torn one: it counts as missed.
    let mut trial = Seen { latencies: std::mem::take(&mut seen.latencies), ..Seen::default() };
    let number = subscriber.recv_with(|message| {
        let payload = message.payload().ok_or("a frame expected, found none")?;
        trial.look(message.control(), payload)
    })?;
    if number.is_some() {
        seen.received += trial.received;
        seen.torn += trial.torn;
    }
    seen.latencies = trial.latencies;
    number.transpose()
}

impl Seen {
    /// Reads a frame. Returns its number.
    fn look(&mut self, control: &[u8], pixels: SharedSlice<'_, u8>) -> Result<u64> {
        let received = now();
        let stamp = Stamp::read_from_bytes(control)
            .map_err(|_| format!("expected the stamp of a frame, found {} bytes", control.len()))?;
        let sum = sum(pixels.cast::<u64>()?);
        self.latencies.push(received.saturating_sub(stamp.nanoseconds));
        self.received += 1;
        self.torn += u64::from(sum != stamp.sum);
        Ok(stamp.number)
    }
}

/// By value and in place: the publisher owns the memory, and may be changing it. Eight words at a time, in eight sums, are what
/// vector instructions do best.
fn sum(words: SharedSlice<'_, u64>) -> u64 {
    let sums = words.array_chunks::<8>().fold([0_u64; 8], |mut sums, words| {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(word);
        }
        sums
    });
    sums.into_iter().fold(0, u64::wrapping_add)
}
