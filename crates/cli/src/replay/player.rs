//! [`Player`]: publishes recorded messages when they are due, and serves subscribers meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sealane::{Error, Publisher};

use super::Report;
use crate::{
    progress::Progress,
    recording::message::Recorded,
    stop::{LOOK, Stop},
};

/// How often subscribers are served while messages follow one another without a pause.
const SERVE: Duration = Duration::from_millis(1);

/// Events that are taken at once: a subscriber can send any number of messages.
const EVENTS: usize = 64;

/// A publisher of recorded messages.
#[derive(Debug)]
pub(crate) struct Player {
    publisher: Publisher,
    stop: Stop,
    rate: Option<f64>,
    begun: Instant,
    served: Instant,
    /// The time of the pass's first message, and when that was published.
    first: Option<(u64, Instant)>,
    last_sequence: Option<u64>,
    epochs: Epochs,
    pub(crate) report: Report,
    pub(crate) progress: Option<Progress>,
}

impl Player {
    pub(crate) fn new(publisher: Publisher, stop: Stop, rate: Option<f64>) -> Self {
        let now = Instant::now();
        Self {
            publisher,
            stop,
            rate,
            begun: now,
            served: now,
            first: None,
            last_sequence: None,
            epochs: Epochs::default(),
            report: Report::default(),
            progress: None,
        }
    }

    /// Waits until so many subscribers are there. False if a signal came first.
    pub(crate) fn wait_for(&mut self, count: usize) -> Result<bool> {
        while self.publisher.subscribers().len() < count {
            if self.stop.is_asked() {
                return Ok(false);
            }
            self.publisher.wait_event(LOOK)?;
        }
        self.begun = Instant::now();
        Ok(true)
    }

    pub(crate) fn begin_pass(&mut self) {
        (self.first, self.last_sequence) = (None, None);
        self.epochs.begin_pass();
        self.report.passes += 1;
    }

    /// Ends a pass. What was lost at its end is told by the first message of the next one.
    pub(crate) fn end_pass(&mut self, missed_at_end: u64) {
        if !self.stop.is_asked() {
            self.report.lost_at_end = self.report.lost_at_end.saturating_add(missed_at_end);
        }
    }

    /// Publishes a message when it is due. False if a signal came first.
    pub(crate) fn publish(&mut self, time: u64, message: &Recorded) -> Result<bool> {
        if !self.wait_until_due(time)? {
            return Ok(false);
        }
        let lost = std::mem::take(&mut self.report.lost_at_end).saturating_add(self.lost_before(message));
        self.publisher.lost(lost);
        self.publisher.epoch(self.epochs.of(message.epoch));
        while let Err(error) = self.try_publish(message) {
            if self.stop.is_asked() {
                return Ok(false);
            }
            if !error.is_timeout() {
                let context = format!("the message {} (--ring, --max-control)", message.sequence);
                return Err(error).context(context);
            }
            self.serve()?;
        }
        let payload_bytes = message.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        self.report.messages += 1;
        self.report.payload_bytes += payload_bytes;
        if let Some(progress) = &self.progress {
            progress.add(payload_bytes + message.control.len() as u64, lost);
        }
        self.report.lost = self.report.lost.saturating_add(lost);
        self.report.descriptors += u64::from(message.descriptors);
        self.last_sequence = Some(message.sequence);
        Ok(true)
    }

    /// Messages that were missed before a message. Where chunks of the file are damaged, the numbers of the messages tell more.
    fn lost_before(&self, message: &Recorded) -> u64 {
        let gap = self.last_sequence.and_then(|last| message.sequence.checked_sub(last)?.checked_sub(1));
        message.missed.max(gap.unwrap_or(0))
    }

    /// Publishes unless there is no room for some time. Nothing is published after an error.
    fn try_publish(&mut self, message: &Recorded) -> sealane::Result<()> {
        match &message.payload {
            None => self.publisher.send_timeout(&message.control, LOOK),
            Some(payload) => {
                let mut loan = self.publisher.loan_timeout(payload.len(), LOOK)?;
                loan.copy_from_slice(payload);
                loan.send_with_timeout(&message.control, LOOK)
            }
        }
    }

    /// Serves subscribers until a message is due. False if a signal came first.
    fn wait_until_due(&mut self, time: u64) -> Result<bool> {
        let Some(rate) = self.rate else {
            if self.served.elapsed() >= SERVE {
                self.serve()?;
            }
            return Ok(!self.stop.is_asked());
        };
        let &mut (first, begun) = self.first.get_or_insert_with(|| (time, Instant::now()));
        // A clock that was set back, or a file with other times, is no reason to wait.
        let after = Duration::from_nanos(time.saturating_sub(first)).as_secs_f64() / rate;
        let after = Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX);
        loop {
            if self.stop.is_asked() {
                return Ok(false);
            }
            let left = after.saturating_sub(begun.elapsed());
            if left.is_zero() {
                if self.served.elapsed() >= SERVE {
                    self.serve()?;
                }
                return Ok(true);
            }
            self.publisher.wait_event(left.min(LOOK))?;
            self.served = Instant::now();
        }
    }

    /// Lets newcomers in, and takes what subscribers say, which nobody here listens to.
    fn serve(&mut self) -> Result<(), Error> {
        self.served = Instant::now();
        for _ in 0..EVENTS {
            if self.publisher.next_event()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Ends the subscriptions. Subscribers that are waited for still read all.
    pub(crate) fn finish(self, report: &mut Report) {
        *report = self.report;
        report.seconds = self.begun.elapsed().as_secs_f64();
    }
}

/// The epochs of a replay. Those of a pass differ from those of the pass before.
#[derive(Debug, Default)]
struct Epochs {
    /// The least and the greatest recorded epoch.
    bounds: Option<(u64, u64)>,
    /// Counts of this pass.
    shift: u64,
    passes: u64,
}

impl Epochs {
    fn begin_pass(&mut self) {
        let span = self.bounds.map_or(1, |(least, greatest)| (greatest - least).wrapping_add(1));
        // All epochs were recorded: then any shift gives others to the same messages, but not to all.
        self.shift = self.passes.wrapping_mul(span.max(1));
        self.passes += 1;
    }

    fn of(&mut self, recorded: u64) -> u64 {
        let (least, greatest) = self.bounds.unwrap_or((recorded, recorded));
        self.bounds = Some((least.min(recorded), greatest.max(recorded)));
        recorded.wrapping_add(self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_has_epochs_of_its_own() {
        let mut epochs = Epochs::default();
        let mut pass = |recorded: &[u64]| {
            epochs.begin_pass();
            recorded.iter().map(|&epoch| epochs.of(epoch)).collect::<Vec<_>>()
        };
        assert_eq!(pass(&[0, 0, 7]), [0, 0, 7], "the first is as it was recorded");
        assert_eq!(pass(&[0, 0, 7]), [8, 8, 15]);
        assert_eq!(pass(&[0, 0, 7]), [16, 16, 23]);
        let mut epochs = Epochs::default();
        let mut pass = || {
            epochs.begin_pass();
            [epochs.of(u64::MAX), epochs.of(0)]
        };
        assert_eq!(pass(), [u64::MAX, 0]);
        assert_ne!(pass(), [u64::MAX, 0]);
    }
}
