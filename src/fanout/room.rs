//! Waiting for slow subscribers: for room in the ring, and in their sockets. Each has its time, after which it is ended.

use std::{os::fd::AsFd, sync::atomic::Ordering::Relaxed, time::Instant};

use rustix::event::{PollFd, PollFlags};

use crate::{
    channel::{Block, stats::count},
    error::{Error, Result},
    fanout::{account::Want, gates::Gates, lane::Lane, lanes::Lanes},
    protocol::{Position, RecordSize, Word},
    ring::Producer,
    wait::{Budget, Deadline, News, Outcome, SpinResult, WaitState, Waiter, run, sleep_on},
};

impl Lanes {
    /// Reserves the place of a record of `size` bytes, after waiting until there is room for it.
    ///
    /// # Errors
    /// [`Error::Full`] if the call must not block; [`Error::Timeout`].
    #[inline]
    pub(super) fn reserve(
        &mut self,
        producer: &mut Producer<Gates>,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        self.begin(producer, size.bytes());
        if producer.reserve_at_a_glance(size) { Ok(()) } else { self.make_room(producer, size, block) }
    }

    #[cold]
    pub(super) fn make_room(
        &mut self,
        producer: &mut Producer<Gates>,
        size: RecordSize,
        block: Block,
    ) -> Result<()> {
        if producer.is_exhausted() {
            self.close();
            return Err(Error::Disconnected);
        }
        if self.has_room(producer, size)? {
            if let Block::Until(deadline) = block {
                self.pace(producer, size, deadline)?;
            }
        } else {
            self.flush();
            count(&mut self.stats.waits_for_space, 1);
            self.words.word(Word::Waits).store(self.stats.waits_for_space, Relaxed);
            match block {
                Block::No if self.arm_for(producer, size)? => {}
                Block::No => return Err(Error::Full),
                Block::Until(deadline) => self.wait_for_room(producer, size, deadline)?,
            }
        }
        producer.reserve(size)?;
        Ok(())
    }

    /// Lets subscribers that are awake catch up, if more is in flight than caches hold.
    fn pace(&mut self, producer: &mut Producer<Gates>, size: RecordSize, deadline: Deadline) -> Result<()> {
        let gates = &producer.readers;
        let worthwhile = !gates.list.is_empty() && !gates.any_sleeps() && self.spinner.may_spin();
        if worthwhile && producer.should_pace(size) {
            self.flush();
            producer.pace(size, deadline)?;
        }
        Ok(())
    }

    /// Whether there is room for `size` bytes. If not, the subscribers that it lacks are charged for the time, and those whose time
    /// is used up are ended.
    fn has_room(&mut self, producer: &mut Producer<Gates>, size: RecordSize) -> Result<bool> {
        loop {
            let has_room = producer.has_room(size)?;
            if !producer.readers.broken.is_empty() {
                self.sweep(producer);
                continue;
            }
            if has_room {
                self.settle_room();
                self.refused = self.refused.filter(|refused| *refused > size);
                return Ok(true);
            }
            let (needs, now) = (Position::new(producer.needed_tail(size)), Instant::now());
            let mut ended = false;
            for lane in &mut self.list {
                if producer.readers.tail(lane.id).is_none_or(|tail| tail >= needs) {
                    continue;
                }
                lane.account.charge(Want::Room(needs), now);
                if lane.account.is_empty(now) {
                    lane.end = Some(Error::TooSlow);
                    ended = true;
                }
            }
            if !ended {
                return Ok(false);
            }
            self.sweep(producer);
            // A subscriber that counts no more gives room.
            producer.refresh_tail()?;
        }
    }

    /// There is the room for which somebody was charged.
    fn settle_room(&mut self) {
        let mut now = None;
        for lane in &mut self.list {
            if let Some(Want::Room(_)) = lane.account.want() {
                lane.account.settle(*now.get_or_insert_with(Instant::now));
            }
        }
    }

    /// Arms the descriptor for room. True if there is room after all.
    fn arm_for(&mut self, producer: &mut Producer<Gates>, size: RecordSize) -> Result<bool> {
        self.read_bells(producer);
        self.sweep(producer);
        let least = self.refused.map_or(size, |refused| refused.min(size));
        self.refused = Some(least);
        self.word.rearm(producer.needed_tail(least));
        let has_room = self.has_room(producer, size)?;
        if has_room {
            self.word.disarm();
        }
        self.schedule();
        Ok(has_room)
    }

    /// Reads the doorbells of all lanes that are waited for. True if there were some.
    fn read_bells(&mut self, producer: &Producer<Gates>) -> bool {
        let mut rang = false;
        for at in 0..self.list.len() {
            let Some(id) = self.list.get(at).filter(|lane| lane.gates()).map(|lane| lane.id) else {
                continue;
            };
            let mut budget = Budget::once();
            while budget.spend().unwrap_or(false) && self.read_bell(id, &producer.readers) {
                rang = true;
            }
        }
        rang
    }

    fn wait_for_room(
        &mut self,
        producer: &mut Producer<Gates>,
        size: RecordSize,
        deadline: Deadline,
    ) -> Result<()> {
        let (mut state, mut budget) = (WaitState::blocking(News::Space), Budget::until(deadline));
        let mut wait = RoomWait { lanes: self, producer, size };
        let result = loop {
            match run(&mut wait, &mut state, &mut budget) {
                Ok(Outcome::Changed) => wait.producer.back_off(size),
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.word.disarm();
        if self.spinner.done() {
            count(&mut self.stats.spins_paid, 1);
        }
        self.sweep(producer);
        self.schedule();
        result
    }

    /// The moment at which somebody's time is used up, or the call's.
    pub(super) fn earliest(&self, deadline: Deadline) -> Deadline {
        let ends = self.list.iter().filter_map(|lane| lane.account.ends_at()).min();
        match (ends, deadline) {
            (Some(end), Deadline::At(at)) => Deadline::At(end.min(at)),
            (Some(end), Deadline::Never) => Deadline::At(end),
            (None, deadline) => deadline,
        }
    }

    /// Looks whether those who are waited for are gone.
    fn look_for_deaths(&mut self) {
        self.list.iter_mut().filter(|lane| lane.account.want().is_some()).for_each(Lane::look_for_death);
    }
}

/// One wait for room in the ring.
struct RoomWait<'w> {
    lanes: &'w mut Lanes,
    producer: &'w mut Producer<Gates>,
    size: RecordSize,
}

impl Waiter for RoomWait<'_> {
    type Item = ();

    fn attempt(&mut self, _: &mut Budget) -> Result<Option<()>> {
        Ok(self.lanes.has_room(self.producer, self.size)?.then_some(()))
    }

    fn spin(&mut self, deadline: Deadline) -> SpinResult {
        let deadline = self.lanes.earliest(deadline);
        let producer = &self.producer;
        self.lanes.spinner.spin(deadline, || producer.tail_moved())
    }

    fn poll_socket(&mut self) -> Result<()> {
        self.lanes.read_bells(self.producer);
        self.lanes.look_for_deaths();
        self.lanes.sweep(self.producer);
        Ok(())
    }

    fn arm(&mut self) -> bool {
        self.lanes.word.arm(self.producer.needed_tail(self.size))
    }

    fn has_news(&mut self) -> Result<bool> {
        self.lanes.has_room(self.producer, self.size)
    }

    fn read(&mut self) -> Result<bool> {
        let rang = self.lanes.read_bells(self.producer);
        Ok(self.lanes.sweep(self.producer) || rang)
    }

    /// A doorbell of the lane that is lacked ends the sleep at once, and those of others are read after it.
    fn sleeps_in_a_read(&self, _: Deadline) -> bool {
        true
    }

    fn sleep(&mut self, deadline: Deadline) -> Result<bool> {
        let lanes = &mut *self.lanes;
        count(&mut lanes.stats.sleeps, 1);
        let deadline = lanes.earliest(deadline);
        // One lane is enough, since all that are lacked must ring: each of the others would end the sleep too early. Doorbells are
        // sent in the order of the list, so the last lane is likely to ring last.
        let (readers, needs) = (&self.producer.readers, Position::new(self.producer.needed_tail(self.size)));
        let lacks = |lane: &&Lane| readers.tail(lane.id).is_some_and(|tail| tail < needs);
        let Some(lane) = lanes.list.iter().rfind(lacks) else { return Ok(true) };
        let id = lane.id;
        let mut fds = vec![
            PollFd::from_borrowed_fd(lane.link.space_rx.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(lane.link.socket.as_fd(), PollFlags::empty()),
        ];
        fds.extend(lane.watch.awaited());
        sleep_on(&mut fds, deadline, None)?;
        // The death of another lane is noticed when that is the one which is lacked.
        let may_be_dead = fds.iter().skip(1).any(|fd| !fd.revents().is_empty());
        drop(fds);
        if may_be_dead && let Some(lane) = lanes.list.iter_mut().find(|lane| lane.id == id) {
            lane.look_for_death();
            lanes.sweep(self.producer);
        }
        Ok(false)
    }
}
