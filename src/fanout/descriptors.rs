//! Descriptors of a message: sent to each subscriber, before the record that belongs to them.

use std::time::{Duration, Instant};

use crate::{
    channel::{Block, Control, stats::count},
    error::{Error, Result},
    fanout::{
        account::Want,
        gates::Gates,
        lane::{Lane, Sent},
        lanes::Lanes,
    },
    ring::Producer,
    wait::sleep,
};

/// Pause between two looks at a socket that is not read.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

impl Lanes {
    /// Sends a message's descriptors to all subscribers, before its record is published. Returns the attempt.
    ///
    /// # Errors
    /// If it fails, some subscribers may have the packet: they drop it, as there will be no record of this attempt.
    #[cold]
    pub(super) fn send_fds(
        &mut self,
        producer: &mut Producer<Gates>,
        control: &Control<'_>,
        block: Block,
    ) -> Result<u64> {
        self.attempt = self.attempt.wrapping_add(1);
        // A call that must not wait sends nothing if one has no room, so that the others do not get descriptors in vain.
        let wanted = control.fds.len();
        if block == Block::No && !self.all_have_packet_room(wanted) {
            self.word.rearm(0);
            if !self.all_have_packet_room(wanted) {
                self.schedule();
                return Err(Error::Full);
            }
        }
        let attempt = Attempt { number: self.attempt, start: Instant::now(), control, block };
        let (mut sent, mut result) = (0_usize, Ok(attempt.number));
        for at in 0..self.list.len() {
            match self.send_fds_to(at, &attempt, producer) {
                Ok(is_sent) => sent = sent.wrapping_add(is_sent.into()),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.settle(producer);
        self.sweep(producer);
        count(&mut self.stats.packets_sent, sent);
        count(&mut self.stats.fds_sent, sent.saturating_mul(control.fds.len()));
        result
    }

    /// Whether all who are waited for can take another packet of `count` descriptors. If not, they are charged for the time.
    fn all_have_packet_room(&mut self, count: usize) -> bool {
        let mut all = true;
        for lane in self.list.iter_mut().filter(|lane| lane.gates() && lane.end.is_none()) {
            all &= lane.has_packet_room(count) || lane.charge(Want::Socket(count));
        }
        all
    }

    /// Sends the descriptors to one subscriber, or leaves it out: then it misses the message. False if it is left out.
    fn send_fds_to(
        &mut self,
        at: usize,
        attempt: &Attempt<'_>,
        producer: &mut Producer<Gates>,
    ) -> Result<bool> {
        let block = attempt.block;
        loop {
            let Some(lane) = self.list.get_mut(at) else { return Ok(false) };
            let (culprit, refusal) = match lane.send_fds(attempt.number, attempt.control) {
                Sent::Yes => return Ok(lane.end.is_none()),
                Sent::Full if lane.gates() => {
                    (Some((lane, Want::Socket(attempt.control.fds.len()))), Error::Full)
                }
                Sent::Full => return Ok(false),
                Sent::Short(failure) => {
                    // Nobody can have read already what this call has sent.
                    let is_blamed = |sent| block != Block::No || sent < attempt.start;
                    let longest = self.longest_unread().filter(|(sent, _)| is_blamed(*sent));
                    (longest.map(|(_, lane)| (lane, Want::Descriptors)), failure.into())
                }
            };
            // Without a culprit no subscriber can help: this user's other programs hold the descriptors.
            let Some((lane, want)) = culprit else { return Err(refusal) };
            // The time runs on until the subscriber has read, so that calls which are refused again and again end it too.
            if lane.charge(want) {
                continue;
            }
            let Block::Until(deadline) = block else {
                self.word.rearm(0);
                self.schedule();
                return Err(refusal);
            };
            if deadline.passed() {
                return Err(Error::Timeout);
            }
            count(&mut self.stats.sleeps, 1);
            // The kernel announces room in a socket only from its half on, and descriptors in flight not at all.
            sleep([], self.earliest(deadline), Some(SHORT_PAUSE))?;
            self.settle(producer);
        }
    }

    /// The subscriber that has left descriptors unread for the longest time, and since when. One that reads is always behind those
    /// that do not.
    ///
    /// Nobody is blamed while descriptors of subscribers that were ended are in flight: until these close their ends, nobody else could
    /// help.
    fn longest_unread(&mut self) -> Option<(Instant, &mut Lane)> {
        let ended = |lane: &mut Lane| lane.end.is_some() && lane.unread_fds() > 0;
        if self.joining.departed.has_unread() || self.list.iter_mut().any(ended) {
            return None;
        }
        let lanes = self.list.iter_mut().filter(|lane| lane.end.is_none());
        lanes.filter_map(|lane| Some((lane.oldest_unread()?, lane))).min_by_key(|(sent, _)| *sent)
    }
}

/// One attempt to send a message's descriptors to all.
struct Attempt<'c> {
    number: u64,
    start: Instant,
    control: &'c Control<'c>,
    block: Block,
}
