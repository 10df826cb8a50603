//! [`Follower`]: a subscriber's place in its publisher's ring.
//!
//! Invariant: a record that comes out was whole after its header was copied, before anything in the header was judged.

use std::sync::Arc;

use crate::{
    error::ProtocolError,
    protocol::{CACHE_LINE, Position, PublishedRecord, Record, Slow, Terms, Word, to_u64},
    ring::{
        claim::{Newest, is_whole},
        cursor::Cursor,
        pacing::Pacer,
        release::{Releases, Span},
    },
    sys::foreign::VolatileBytes,
    wait::Deadline,
};

/// The reason for which the next record cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The publisher broke the protocol.
    Violation(ProtocolError),
    /// What was read, or what we hold, may have been overwritten.
    Overrun,
}

impl From<ProtocolError> for Fault {
    fn from(violation: ProtocolError) -> Self {
        Self::Violation(violation)
    }
}

/// The subscriber's place in the publisher's ring.
#[derive(Debug)]
pub(crate) struct Follower {
    intake: Arc<Releases>,
    cursor: Cursor,
    /// The marks as they were last seen: they may not go backwards.
    seen: Newest,
    /// The publisher waits until we release what we have read.
    is_waited_for: bool,
    pace: Pacer,
    /// Records taken.
    taken: u64,
    /// Bytes that were left out since the last record.
    skipped: u64,
    /// Where our subscription ends, and how many messages were published by then.
    end: Option<(Position, u64)>,
}

impl Follower {
    pub(crate) fn new(intake: Arc<Releases>, terms: Terms) -> Self {
        let start = terms.first_position;
        let seen = Newest { claimed: Position::default(), latest: Position::default(), head: start };
        Self {
            cursor: Cursor::new(intake.peer.clone(), start),
            pace: Pacer::new(intake.peer.capacity()),
            intake,
            seen,
            is_waited_for: terms.slow != Slow::Overrun,
            taken: 0,
            skipped: 0,
            end: None,
        }
    }

    #[inline]
    pub(crate) fn intake(&self) -> &Arc<Releases> {
        &self.intake
    }

    #[inline]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_waited_for
    }

    /// See [`Cursor::head_moved`].
    pub(crate) fn head_moved(&self) -> bool {
        self.cursor.head_moved()
    }

    /// Whether all that is known to be published has been read.
    pub(crate) fn is_at_head(&self) -> bool {
        self.cursor.is_at_head()
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> Position {
        self.cursor.position
    }

    /// The end of what is known to be published.
    pub(crate) fn known_end(&self) -> Position {
        self.cursor.head
    }

    /// Bytes that were left out since the last record that was taken.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether we have read all that we know of, close behind a publisher that seems to go on.
    #[inline]
    pub(crate) fn is_close(&self) -> bool {
        self.pace.close && self.cursor.is_at_head()
    }

    /// Waits a moment, 10 µs at most, for as long as the publisher goes on, until it has a lead.
    #[cold]
    pub(crate) fn back_off(&mut self, deadline: Deadline) {
        self.pace.rest(&self.cursor.peer, self.cursor.head, deadline);
    }

    /// The next record, if it has been published, and is all of message `sequence`, after `lost` messages that were lost at their
    /// source: else [`next`](Self::next) says what there is.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a record must stay in registers on its way out")]
    pub(crate) fn try_plain(&mut self, sequence: u64, lost: u64) -> Option<Record> {
        if self.cursor.available == 0 {
            self.refresh().ok()?;
            if self.cursor.available == 0 {
                return None;
            }
        }
        self.cursor.prefetch_payload();
        let header = self.cursor.header().ok()?;
        if self.is_whole() { header.check_plain(sequence, lost, self.cursor.available) } else { None }
    }

    /// The next record, if one has been published.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<PublishedRecord>, Fault> {
        if self.cursor.available == 0 {
            self.refresh()?;
            if self.cursor.available == 0 {
                return Ok(None);
            }
        }
        loop {
            self.cursor.prefetch_payload();
            let header = self.cursor.header()?;
            if !self.is_whole() {
                return Err(Fault::Overrun);
            }
            match header.check_published(self.cursor.available) {
                Ok(record) => return Ok(Some(record)),
                Err(violation) => {
                    let padding = self.cursor.check_padding(header, violation)?;
                    self.cursor.pass(padding);
                    self.leave(padding, 0);
                }
            }
        }
    }

    /// Whether what was read until now of the record that stands here is as it was published, and so is all that we hold.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        let start = if self.is_waited_for { self.intake.tail() } else { self.cursor.position };
        is_whole(&self.cursor.peer, start)
    }

    /// Sees what has been published.
    #[inline]
    fn refresh(&mut self) -> Result<(), ProtocolError> {
        let head = self.look()?.head;
        let from = self.cursor.head;
        if head != from {
            self.pace.on_poll(head.since(from));
        }
        self.cursor.see(head);
        Ok(())
    }

    /// Loads the publisher's marks.
    ///
    /// UNTRUSTED: all of them only grow; nothing is claimed more than a ring's length ahead, and the newest record does not begin
    /// behind what is published.
    fn look(&mut self) -> Result<Newest, ProtocolError> {
        let (found, seen) = (Newest::of(&self.cursor.peer), self.seen);
        let Newest { claimed, latest, head } = found;
        if head < seen.head || head >= Position::END {
            let (from, limit) = (seen.head.get(), Position::END.get());
            return Err(ProtocolError::Head { from, limit, found: head.get() });
        }
        let limit = head.after(to_u64(self.cursor.peer.capacity()));
        if claimed < seen.claimed || claimed > limit {
            let (from, limit) = (seen.claimed.get(), limit.get());
            return Err(ProtocolError::Claimed { from, limit, found: claimed.get() });
        }
        if latest < seen.latest || latest > head {
            let (from, limit) = (seen.latest.get(), head.get());
            return Err(ProtocolError::Latest { from, limit, found: latest.get() });
        }
        for found in [claimed.get(), latest.get(), head.get()] {
            if !found.is_multiple_of(CACHE_LINE) {
                return Err(ProtocolError::Misaligned { found });
            }
        }
        self.seen = found;
        let end = self.end.map_or(head, |(end, _)| end);
        Ok(Newest { head: head.min(end), latest: latest.min(end), ..found })
    }

    /// Whether the end of the subscription is known.
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// The rest is what has been published at the first call: the publisher has ended the subscription, and may continue with others.
    pub(crate) fn end_here(&mut self) {
        if self.has_end() {
            return;
        }
        let load = |word| self.cursor.peer.load(word);
        // UNTRUSTED: no end is before what was seen.
        let head = Position::new(load(Word::Head)).max(self.cursor.head);
        self.end = Some((head, load(Word::Messages)));
    }

    /// Goes to the newest record after an overrun: to one with a payload, if that is whole, else to the end of what is published. Never
    /// backwards.
    pub(crate) fn jump(&mut self) -> Result<(), ProtocolError> {
        let Newest { latest, head, .. } = self.look()?;
        let latest = if is_whole(&self.cursor.peer, latest) { latest } else { head };
        // What is overrun is not read again: the newest payload may be before messages without one.
        self.go_to(if latest > self.cursor.position { latest } else { head }, head);
        Ok(())
    }

    /// Leaves out what is before the newest record with a payload, if that is to be read yet. True if there is one.
    pub(crate) fn skip_to_latest(&mut self) -> Result<bool, Fault> {
        let Newest { latest, head, .. } = self.look()?;
        if latest > self.cursor.position && is_whole(&self.cursor.peer, latest) {
            self.go_to(latest, head);
        } else {
            self.cursor.see(head.max(self.cursor.head));
        }
        Ok(latest >= self.cursor.position && head > latest)
    }

    fn go_to(&mut self, position: Position, head: Position) {
        let left = Span { start: self.cursor.position, end: position, at: self.cursor.at };
        self.skipped = self.skipped.saturating_add(left.len());
        self.cursor.jump(position, head);
        if left.len() > 0 {
            self.leave(left, 0);
        }
    }

    /// Gives the space back of what is not read, or not held: so many records that were taken.
    fn leave(&mut self, span: Span, records: u64) {
        if self.is_waited_for {
            self.intake.release(span, records);
        } else {
            self.intake.show(span.end);
        }
    }

    /// The control bytes of `record`, which [`next`](Self::next) gave.
    pub(crate) fn control(&self, record: Record) -> VolatileBytes<'_> {
        self.cursor.control(record)
    }

    /// The payload of `record`, which [`next`](Self::next) gave.
    pub(crate) fn payload(&self, record: Record) -> VolatileBytes<'_> {
        self.cursor.payload(record)
    }

    /// Moves past `record`, which [`next`](Self::next) gave. Its space is held until the span is released.
    #[inline]
    pub(crate) fn advance(&mut self, record: Record) -> Span {
        self.taken = self.taken.wrapping_add(1);
        self.skipped = 0;
        self.cursor.advance(record.size())
    }

    /// Moves past `record` and keeps nothing of it.
    #[inline]
    pub(crate) fn pass(&mut self, record: Record) {
        let span = self.advance(record);
        self.leave(span, 1);
    }

    /// Bytes that are published and not read.
    pub(crate) fn lag(&self) -> u64 {
        Position::new(self.cursor.peer.load(Word::Head)).since(self.cursor.position)
    }

    /// Messages that the publisher says that it has published.
    pub(crate) fn messages(&self) -> u64 {
        self.end.map_or_else(|| self.cursor.peer.load(Word::Messages), |(_, messages)| messages)
    }

    /// Records taken and not released, and their bytes.
    pub(crate) fn held(&self) -> (u64, u64) {
        self.intake.held(self.taken, self.cursor.position)
    }

    /// Whether the publisher waits for space that it had if all that was taken were released.
    pub(crate) fn holds_up_peer(&self) -> bool {
        self.is_waited_for && self.intake.holds_up_peer(self.cursor.position)
    }
}
