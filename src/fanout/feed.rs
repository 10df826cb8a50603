//! [`Feed`]: the receive path of a subscriber. It takes messages out of its publisher's ring, with their descriptors, and
//! replies out of its socket. `wait` has its steps of waiting, `plain` the quick way of most messages.
//!
//! Refuses messages beyond our limits, sequences that do not fit to what was left out, and replies to nothing.

mod end;
mod in_place;
mod packets;
mod plain;
mod wait;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    channel::{Attachments, LeftOut, Limits, Message, Payload, Stats, Story, stats::count},
    error::{Error, ProtocolError, Result},
    fanout::ticks::Ticks,
    memory::aligned_bytes::AlignedBytes,
    protocol::{Attempts, CACHE_LINE, Position, PublishedRecord, Source, Taken, Terms, Word},
    ring::{Fault, Follower, Releases},
    socket::{death::Watch, doorbell::ControlWord, link::Link},
    sys::own_region::ControlPage,
    wait::{Budget, Doze, SleepWord, Spinner},
};

/// The receive path of a subscriber: everything but its backlog.
pub(crate) struct Feed {
    pub(super) link: Arc<Link>,
    pub(super) follower: Follower,
    /// Packets of descriptors wait here for their records.
    attempts: Attempts<Box<Attachments>>,
    /// The socket was empty when all up to here was published: no packet comes for these records.
    drained: Position,
    /// Replies that came while something else was read.
    replies: VecDeque<Result<Message>>,
    /// A message on its way out, see [`fetch`](Self::fetch).
    fetched: Option<Message>,
    /// Number of the next reply.
    next_reply: u64,
    word: SleepWord<ControlWord>,
    spinner: Spinner,
    doze: Doze,
    /// The next sleep is a doze: the publisher's wakes before it, and its longest time.
    dozing: Option<(u64, Duration)>,
    watch: Watch,
    /// End of file was read: no message comes but those that are in the ring.
    eof: bool,
    /// Looks for the end of the subscription.
    ticks: Ticks,
    /// The publisher said that it ends us for slowness.
    is_too_slow: bool,
    pub(super) limits: Limits,
    pub(super) stats: Stats,
    /// Number of the next message of the ring.
    sequence: u64,
    /// What was last seen of the publisher's source.
    source: Source,
    /// Messages missed, in all and since the last one that was given out.
    pub(super) missed: u64,
    missed_since: u64,
}

/// Which message is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The next one.
    Next,
    /// The newest with a payload.
    Latest,
    /// The next one that was published, left where it lies.
    InPlace,
}

/// Why there is no message yet.
enum Missing {
    Fault(Fault),
    /// The descriptors of a message were not sent to us, which is waited for.
    Descriptors,
    /// The message was left out.
    LeftOut,
    Other(Error),
}

impl From<Fault> for Missing {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ProtocolError> for Missing {
    fn from(violation: ProtocolError) -> Self {
        Self::Fault(Fault::Violation(violation))
    }
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Feed {
    pub(super) fn new(
        intake: Arc<Releases>,
        words: ControlPage,
        limits: Limits,
        terms: Terms,
        watch: Watch,
        spinner: Spinner,
    ) -> Self {
        Self {
            link: Arc::clone(&intake.link),
            follower: Follower::new(intake, terms),
            attempts: Attempts::new(),
            drained: Position::default(),
            replies: VecDeque::new(),
            fetched: None,
            next_reply: 0,
            word: SleepWord::new(ControlWord::new(words, Word::ReceiverEpoch)),
            spinner,
            doze: Doze::default(),
            dozing: None,
            watch,
            eof: false,
            ticks: Ticks::default(),
            is_too_slow: false,
            limits,
            stats: Stats::default(),
            sequence: terms.first_sequence,
            source: Source { lost: terms.lost, ..Source::default() },
            missed: 0,
            missed_since: 0,
        }
    }

    /// The message that is wanted, if it is here. `None` also if the budget is spent before.
    pub(super) fn poll(&mut self, wanted: Wanted, budget: &mut Budget) -> Result<Option<Message>> {
        if wanted == Wanted::Next
            && let Some(reply) = self.replies.pop_front()
        {
            self.word.disarm();
            if let Ok(reply) = &reply {
                self.count(reply);
            }
            return reply.map(Some);
        }
        self.look_for_end();
        let mut free = None;
        loop {
            let record = match self.find(wanted) {
                Ok(None) => return Ok(None),
                Ok(Some(record)) => Ok(record),
                Err(fault) => Err(fault.into()),
            };
            match record.and_then(|record| self.take(record, wanted, budget)) {
                Ok(Some(message)) => {
                    self.word.disarm();
                    return Ok(Some(message));
                }
                Ok(None) => return Ok(None),
                Err(missing) => {
                    if !self.go_on(missing, budget, &mut free)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next record that is wanted.
    ///
    /// UNTRUSTED: the newest record may have no payload, as the mark may stand anywhere. Before there is one it stands at the
    /// ring's first record, whatever that is.
    fn find(&mut self, wanted: Wanted) -> Result<Option<PublishedRecord>, Fault> {
        if wanted == Wanted::Latest && !self.follower.skip_to_latest()? {
            return Ok(None);
        }
        let record = self.follower.next()?;
        Ok(record.filter(|record| wanted != Wanted::Latest || record.has_payload))
    }

    /// Goes on after a message that cannot be had, if this subscriber may miss some. False if the budget is spent.
    ///
    /// UNTRUSTED: a publisher can have us jump again and again. Each jump is paid for. Records that are left out are not, up to the
    /// `free` position, the end of what was known at the first: nothing says that a message behind them can be had, and a call that
    /// must not wait would end before it.
    #[cold]
    fn go_on(&mut self, missing: Missing, budget: &mut Budget, free: &mut Option<Position>) -> Result<bool> {
        match missing {
            Missing::Other(error) => return Err(error),
            Missing::Fault(Fault::Violation(violation)) => return Err(self.link.violated(violation)),
            Missing::Fault(Fault::Overrun) if self.follower.is_waited_for() => return Err(Error::TooSlow),
            // The publisher goes on after it has ended us, and sends us nothing more.
            Missing::Descriptors if self.eof => {
                return Err(self.end(Wanted::Next));
            }
            Missing::Descriptors => {
                return Err(self.link.violated(ProtocolError::NoDescriptors { sequence: self.sequence }));
            }
            Missing::Fault(Fault::Overrun) => {
                self.follower.jump().map_err(|violation| self.link.violated(violation))?;
            }
            Missing::LeftOut => {
                if self.follower.position() <= *free.get_or_insert(self.follower.known_end()) {
                    return Ok(true);
                }
            }
        }
        budget.spend()
    }

    /// Takes a record, with its descriptors, as a message. `None` if the budget is spent.
    fn take(
        &mut self,
        published: PublishedRecord,
        wanted: Wanted,
        budget: &mut Budget,
    ) -> Result<Option<Message>, Missing> {
        let PublishedRecord { record, has_payload, attempt, source } = published;
        let gap = self.check_sequence(record.heading.sequence, source)?;
        let mut extras = None;
        if attempt != 0 {
            match self.fds_of(attempt, budget)? {
                Taken::Here(packet) => extras = Some(packet),
                Taken::Read => return Ok(None),
                Taken::Missing if self.follower.is_waited_for() && !self.attempts.has_dropped(attempt) => {
                    return Err(Missing::Descriptors);
                }
                // It was left out: by the publisher, or here, by a call that looked for the newest message.
                Taken::Missing => {
                    self.follower.pass(record);
                    self.note(record.heading.sequence, source, gap.saturating_add(1));
                    return Err(Missing::LeftOut);
                }
            }
        }
        if record.control_len() > 0 {
            let (max, found) = (self.limits.max_control, record.control_len());
            if found > max {
                return Err(ProtocolError::ControlLength { max, found }.into());
            }
            let control = AlignedBytes::copy(self.follower.control(record));
            extras.get_or_insert_default().control = control;
        }
        let payload = if self.follower.is_waited_for() || wanted == Wanted::InPlace {
            // The control bytes may have been overwritten while they were copied.
            if record.control_len() > 0 && !self.follower.is_whole() {
                return Err(Fault::Overrun.into());
            }
            let span = self.follower.advance(record);
            let intake = self.follower.intake();
            if has_payload {
                Some(Payload::new(Arc::clone(intake), span, record.payload_len()))
            } else {
                intake.release(span, 1);
                None
            }
        } else {
            let payload = self.copy_payload(record).ok_or(Fault::Overrun)?;
            has_payload.then_some(payload)
        };
        self.note(record.heading.sequence, source, gap);
        let story = Story { missed: std::mem::take(&mut self.missed_since), epoch: source.epoch };
        if story != Story::default() {
            extras.get_or_insert_default().story = story;
        }
        if let Some(expected) = extras.as_ref().and_then(|extras| extras.lost) {
            // Messages missed before it are counted with the next one.
            self.missed_since = story.missed;
            let received = extras.map_or(0, |extras| extras.fds.len());
            return Err(Error::FdsLost { expected, received }.into());
        }
        let message = Message::new(record.heading, self.link.id, extras, payload);
        self.count(&message);
        Ok(Some(message))
    }

    /// Notes that messages before this one were received, and left out. The messages missed before those are counted already.
    pub(super) fn leave_out(&mut self, left_out: LeftOut, mut message: Message) -> Message {
        message.add_missed(left_out.count.saturating_add(left_out.missed));
        if left_out.count > 0 {
            self.stats.messages_received = self.stats.messages_received.saturating_sub(left_out.count);
            self.missed = self.missed.saturating_add(left_out.count);
            self.follower.intake().show_missed(self.missed);
        }
        message
    }

    fn count(&mut self, message: &Message) {
        count(&mut self.stats.messages_received, 1);
        count(&mut self.stats.bytes_received, message.len());
        count(&mut self.stats.fds_received, message.fds().len());
    }

    /// Messages that were left out before this one.
    ///
    /// UNTRUSTED: no more than the bytes that were left out can hold.
    fn check_sequence(&self, found: u64, source: Source) -> Result<u64, ProtocolError> {
        let from = self.sequence;
        let limit = from.saturating_add(self.follower.skipped() / CACHE_LINE);
        if found < from || found > limit {
            return Err(if limit == from {
                ProtocolError::Sequence { expected: from, found }
            } else {
                ProtocolError::Gap { from, limit, found }
            });
        }
        if source.lost < self.source.lost {
            return Err(ProtocolError::SourceLost { from: self.source.lost, found: source.lost });
        }
        Ok(found.wrapping_sub(from))
    }

    /// Notes a record that was read, and messages that were missed before it, here and at the source.
    fn note(&mut self, sequence: u64, source: Source, missed: u64) {
        let missed = missed.saturating_add(source.lost.wrapping_sub(self.source.lost));
        (self.sequence, self.source) = (sequence.wrapping_add(1), source);
        self.miss(missed);
    }

    /// The number, at the source, of the message behind the last one that was taken.
    ///
    /// UNTRUSTED: it is the publisher's word, and may be any number.
    pub(super) fn number(&self) -> u64 {
        self.source.number(self.sequence)
    }

    fn miss(&mut self, count: u64) {
        if count > 0 {
            self.missed = self.missed.saturating_add(count);
            self.missed_since = self.missed_since.saturating_add(count);
            self.follower.intake().show_missed(self.missed);
        }
    }

    /// The descriptors of an attempt. They were sent before the record was published, so they are in the socket, if at all.
    fn fds_of(&mut self, attempt: u64, budget: &mut Budget) -> Result<Taken<Box<Attachments>>> {
        let mut may_read = true;
        loop {
            match self.attempts.take(attempt) {
                Taken::Read if self.eof || self.follower.position() < self.drained => {
                    return Ok(Taken::Missing);
                }
                Taken::Read if may_read => {}
                taken => return Ok(taken),
            }
            let known = self.follower.known_end();
            if self.read_packet()? {
                may_read = budget.spend()?;
            } else {
                self.drained = known;
            }
        }
    }
}
