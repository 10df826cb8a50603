//! What becomes of a frame, without any system call: the queue of one direction of a link.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::link::{Counts, Quality};

/// The most bytes that wait in one direction, whatever the quality.
const MOST: usize = 64 << 20;

/// The least queue in front of a rate, in bytes.
const LEAST_QUEUE: u64 = 32 << 10;

/// One direction of a link: frames in the order in which they came, each with the time when it is due.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the last byte that was let in has passed the rate limit.
    free_at: Instant,
    /// The state of xorshift64, never 0.
    chance: u64,
}

impl Lane {
    /// An empty direction. `seed` is not 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, free_at: Instant::now(), chance: seed }
    }

    /// Lets in a frame that came at `now`, or loses it and counts that.
    pub(crate) fn offer(&mut self, frame: &[u8], now: Instant, quality: &Quality, counts: &mut Counts) {
        if self.percent() < quality.loss {
            counts.lost += 1;
            return;
        }
        let mut passed = now;
        if let Some(rate) = quality.rate {
            let queue = (rate / 4).max(LEAST_QUEUE);
            let begin = self.free_at.max(now);
            if begin - now > time_of(queue, rate) {
                counts.full += 1;
                return;
            }
            passed = begin + time_of(frame.len() as u64, rate);
        }
        if self.bytes + frame.len() > MOST {
            counts.full += 1;
            return;
        }
        if quality.rate.is_some() {
            self.free_at = passed;
        }
        self.bytes += frame.len();
        self.queue.push_back((passed + quality.delay, frame.to_vec()));
    }

    /// When the first frame is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// The first frame, if it is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (_, frame) = self.queue.pop_front_if(|(due, _)| *due <= now)?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// Loses all frames, and says how many those were.
    pub(crate) fn clear(&mut self) -> u64 {
        let lost = self.queue.len() as u64;
        self.queue.clear();
        self.bytes = 0;
        self.free_at = Instant::now();
        lost
    }

    /// Forgets what an earlier rate has promised.
    pub(crate) fn forget_rate(&mut self) {
        self.free_at = Instant::now();
    }

    /// A number below 100.
    fn percent(&mut self) -> u8 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        u8::try_from((self.chance >> 32) % 100).expect("below 100")
    }
}

/// How long `bytes` take at `rate` bytes a second.
fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}
