//! [`Unread`]: the descriptors that one subscriber may not have read.
//!
//! Descriptors in flight count against the limit of this *user* (`RLIMIT_NOFILE`, `unix(7)`), so one that does not read would stop
//! the descriptors of all. Few are sent to it.

use std::{collections::VecDeque, time::Instant};

/// Most packets of descriptors that a subscriber may leave unread.
pub(super) const MAX_UNREAD: usize = 8;

/// How much a subscriber's socket may hold unread.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketLimits {
    /// Descriptors, but for those of one packet.
    pub(super) max_unread_fds: usize,
    /// Bytes that the kernel counts for a doorbell.
    pub(super) cost_of_bell: usize,
}

#[derive(Debug)]
pub(super) struct Unread {
    limits: PacketLimits,
    /// The packets that may be unread, oldest first: when they were sent, with how many descriptors.
    packets: VecDeque<(Instant, usize)>,
    /// Doorbells that were sent behind the last of them: they stay unread until the subscriber waits.
    bells_behind: usize,
    /// Packets that have been read.
    read: u64,
}

impl Unread {
    pub(super) fn new(limits: PacketLimits) -> Self {
        Self { limits, packets: VecDeque::new(), bells_behind: 0, read: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Notes a packet that was sent.
    pub(super) fn add(&mut self, fds: usize) {
        self.bells_behind = 0;
        self.packets.push_back((Instant::now(), fds));
    }

    /// Notes a doorbell that was sent.
    pub(super) fn add_bell(&mut self) {
        self.bells_behind = self.bells_behind.saturating_add(1);
    }

    /// Whether another packet of `count` descriptors may be sent.
    pub(super) fn may_add(&self, count: usize) -> bool {
        let fds = self.fds();
        let few = fds == 0 || fds.saturating_add(count) <= self.limits.max_unread_fds;
        self.packets.len() < MAX_UNREAD && few
    }

    /// Forgets packets that must have been read: those that are unread have no more than `bytes`, as the kernel counts them.
    /// Otherwise a subscriber that is always one message behind would seem to read none.
    pub(super) fn look(&mut self, bytes: usize) {
        let bells = self.bells_behind.saturating_mul(self.limits.cost_of_bell);
        let most = bytes.saturating_sub(bells).div_ceil(self.limits.cost_of_bell.max(1));
        while self.packets.len() > most {
            self.packets.pop_front();
            self.read = self.read.wrapping_add(1);
        }
    }

    /// Descriptors that may be unread.
    pub(super) fn fds(&self) -> usize {
        self.packets.iter().fold(0, |sum, (_, fds)| sum.saturating_add(*fds))
    }

    /// When the oldest was sent that may be unread.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.packets.front().map(|(sent, _)| *sent)
    }

    /// Packets that have been read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_in_order_and_bells_behind_them_do_not_count() {
        let mut unread = Unread::new(PacketLimits { max_unread_fds: 5, cost_of_bell: 100 });
        unread.add(40);
        assert!(!unread.may_add(1), "one packet may have any number");
        unread.add_bell();
        unread.look(250);
        assert_eq!((unread.fds(), unread.read()), (40, 0));
        unread.look(100);
        assert_eq!((unread.fds(), unread.read(), unread.may_add(40)), (0, 1, true));
        // A subscriber that is always one message behind reads.
        unread.add(2);
        let between = Instant::now();
        unread.add(3);
        unread.look(150);
        assert_eq!((unread.fds(), unread.read()), (5, 1), "a packet may cost more than a doorbell");
        assert!(unread.oldest().unwrap() <= between);
        unread.look(100);
        assert!(unread.oldest().unwrap() >= between);
        assert_eq!((unread.fds(), unread.read(), unread.may_add(2)), (3, 2, true));
    }
}
