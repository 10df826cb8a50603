//! What is ready, done in turn: handshakes, packets of subscribers, their doorbells, and the alarm.

use crate::{
    channel::stats::count,
    error::Result,
    fanout::{
        Event, SubscriberId,
        gates::Gates,
        lanes::{Lanes, MAX_EVENTS},
        poll::Token,
    },
    protocol::Position,
    ring::Producer,
    wait::{Budget, Outcome},
};

impl Lanes {
    /// Does what is ready: one packet of each lane in turn, if `receive` says so. False if there was nothing.
    pub(super) fn turn(&mut self, producer: &mut Producer<Gates>, receive: bool) -> Result<bool> {
        let mut worked = false;
        // Two sockets of each lane, those of handshakes, and the listener's.
        let count = self.list.len().saturating_mul(2).saturating_add(self.joining.len()).saturating_add(1);
        for token in self.poll.ready(count)? {
            worked |= receive || !matches!(token, Token::Socket(_));
            match token {
                Token::Listener => self.accept(),
                Token::Timer => {
                    self.poll.read_timer();
                    self.advance_all(producer);
                }
                Token::Joining(id) => self.advance_one(id, producer),
                Token::Socket(id) => self.on_readable(id, receive),
                Token::Space(id) => self.on_bell(id, producer),
            }
        }
        self.settle(producer);
        self.sweep(producer);
        self.joining.departed.forget_read();
        self.schedule();
        Ok(worked)
    }

    /// The next event. `Empty` only if nothing is ready any more: then what comes next is a new edge of the descriptor.
    pub(super) fn find_event(&mut self, producer: &mut Producer<Gates>) -> Result<Outcome<Event>> {
        self.claim();
        let mut budget = Budget::once();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Outcome::Done(event));
            }
            if !budget.spend()? {
                return Ok(Outcome::Spent);
            }
            if !self.turn(producer, true)? && self.events.is_empty() {
                return Ok(Outcome::Empty);
            }
        }
    }

    fn on_readable(&mut self, id: SubscriberId, receive: bool) {
        let Some(at) = self.list.iter().position(|lane| lane.id == id) else { return };
        if receive {
            self.hear(at);
        } else if let Some(lane) = self.list.get_mut(at) {
            lane.look_for_death();
        }
    }

    /// Reads one packet of a lane. False if there is none, or it has ended.
    fn hear(&mut self, at: usize) -> bool {
        let Some(lane) = self.list.get_mut(at) else { return false };
        match lane.receive() {
            Ok(Outcome::Done(message)) => {
                count(&mut self.stats.messages_received, 1);
                count(&mut self.stats.bytes_received, message.control().len());
                count(&mut self.stats.fds_received, message.fds().len());
                self.events.push_back(Event::Message(lane.id, message));
            }
            Ok(Outcome::Empty) => return false,
            Ok(_) => {}
            Err(error) if error.is_fatal() => {
                lane.end = Some(error);
                return false;
            }
            // A message is lost for want of descriptors of our own; its subscriber goes on.
            Err(error) => log::warn!("a message of a subscriber is lost: {error}"),
        }
        true
    }

    /// Reads the last words of a subscriber that has gone: a call that publishes notices that ahead of them. A program that does not
    /// listen gets few.
    pub(super) fn hear_last(&mut self, at: usize) {
        let mut budget = Budget::once();
        while self.events.len() < MAX_EVENTS && budget.spend().unwrap_or(false) && self.hear(at) {}
    }

    fn on_bell(&mut self, id: SubscriberId, producer: &mut Producer<Gates>) {
        // If that fails, the sweep ends whoever failed.
        let _ = producer.refresh_tail();
        self.read_bell(id, &producer.readers);
    }

    /// Reads one doorbell for room. Only one of a subscriber that still lacks ends the epoch: the others have said all that they had
    /// to say.
    pub(super) fn read_bell(&mut self, id: SubscriberId, gates: &Gates) -> bool {
        let (epochs, needs) = (self.word.epochs, Position::new(self.word.needs));
        let Some(lane) = self.lane(id) else { return false };
        match lane.read_bell(epochs) {
            Ok(true) => {
                if gates.tail(id).is_some_and(|tail| tail < needs) {
                    self.word.disarm();
                }
                count(&mut self.stats.doorbells_received, 1);
                true
            }
            Ok(false) => false,
            Err(error) => {
                lane.end = Some(error);
                false
            }
        }
    }
}
