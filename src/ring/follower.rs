//! [`Follower`]: a subscriber's place in its publisher's ring.
//!
//! Invariant: a record that comes out was whole after its header was copied, before anything in the header was judged.

use std::{
    sync::{
        Arc,
        atomic::{Ordering::Acquire, fence},
    },
    time::Duration,
};

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
    wait::{Deadline, Woken},
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

    /// How often the publisher has woken those who doze. What we store later is stored later: see [`doze`](Self::doze).
    pub(crate) fn wakes(&self) -> u64 {
        let wakes = self.cursor.peer.load(Word::Wakes);
        // ORDERING: pairs with the Release in `Lanes::wake_dozing`. A publisher that sees an epoch of ours that is stored after
        // this wakes us by a value that was not loaded here.
        fence(Acquire);
        wakes
    }

    /// Sleeps until the publisher wakes those who doze, unless it has done so since there were so many `wakes`.
    pub(crate) fn doze(&self, wakes: u64, at_most: Duration) -> Woken {
        self.cursor.peer.sleep_while(Word::Wakes, wakes, at_most).into()
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
        self.leave(left, 0);
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

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, sync::atomic::Ordering::Release, time::Duration};

    use zerocopy::IntoBytes;

    use super::*;
    use crate::{
        memory::region::{OwnRegion, map_peer},
        protocol::{MessageHeader, RecordHeader, Source, to_usize},
        socket::{link::Link, seqpacket::Socket},
    };

    const WAITED_FOR: Slow = Slow::Wait(Duration::ZERO);
    const RING: u64 = 4096;

    /// The region of a publisher, and the follower of a subscriber that joined at the position `from`. The region has the
    /// subscriber's own words, too.
    fn follow(slow: Slow, from: u64) -> (OwnRegion, Follower) {
        let own = OwnRegion::create(to_usize(RING), true, false, Deadline::Never).unwrap();
        let peer = map_peer(own.memfd.as_fd(), own.geometry, true).unwrap();
        let [a, b, c] = [(); 3].map(|()| Socket::from_fd(Socket::pair().unwrap().0));
        // The other ends are closed, and doorbells go nowhere.
        let link = Link::new(1, a.unwrap(), b.unwrap(), c.unwrap());
        let first_position = Position::new(from);
        let intake = Releases::of_subscription(peer, Arc::new(link), own.words.clone(), first_position);
        let terms = Terms { slow, first_sequence: 0, first_position, lost: 0 };
        set(&own, Word::Head, from);
        (own, Follower::new(intake, terms))
    }

    fn set(own: &OwnRegion, word: Word, value: u64) {
        own.words.word(word).store(value, Release);
    }

    fn mark(own: &OwnRegion, [claimed, latest, head]: [u64; 3]) {
        set(own, Word::Claimed, claimed);
        set(own, Word::Latest, latest);
        set(own, Word::Head, head);
    }

    /// Writes the record of message `sequence` at the position `start`: a header, and 64 bytes of payload.
    fn write(own: &mut OwnRegion, start: u64, sequence: u64) -> PublishedRecord {
        let record = Record::new(MessageHeader::new(sequence, false, None), 64);
        let published = PublishedRecord { record, has_payload: true, attempt: 0, source: Source::default() };
        assert!(own.ring.write(start % RING, RecordHeader::published(published).as_bytes()));
        published
    }

    /// Takes the next record.
    fn take(follower: &mut Follower) -> Span {
        let record = follower.next().unwrap().unwrap().record;
        follower.advance(record)
    }

    /// The end of what the publisher is told of.
    fn tail(follower: &Follower) -> u64 {
        follower.intake().tail().get()
    }

    #[test]
    fn marks_are_believed_up_to_their_limits() {
        let (own, mut follower) = follow(Slow::Overrun, 0);
        let mut look = |marks| {
            mark(&own, marks);
            follower.look().map(|_| ())
        };
        assert_eq!([(); 2].map(|()| look([128, 64, 256])), [Ok(()); 2], "the same once more");
        let (end, most) = (Position::END.get(), 256 + RING);
        for (marks, violation) in [
            ([128, 64, 192], ProtocolError::Head { from: 256, limit: end, found: 192 }),
            ([128, 64, end], ProtocolError::Head { from: 256, limit: end, found: end }),
            ([64, 64, 256], ProtocolError::Claimed { from: 128, limit: most, found: 64 }),
            ([most + 64, 64, 256], ProtocolError::Claimed { from: 128, limit: most, found: most + 64 }),
            ([128, 0, 256], ProtocolError::Latest { from: 64, limit: 256, found: 0 }),
            ([128, 320, 256], ProtocolError::Latest { from: 64, limit: 256, found: 320 }),
            ([129, 64, 256], ProtocolError::Misaligned { found: 129 }),
            ([128, 65, 256], ProtocolError::Misaligned { found: 65 }),
            ([128, 64, 257], ProtocolError::Misaligned { found: 257 }),
        ] {
            assert_eq!(look(marks), Err(violation), "{marks:?}");
        }
        assert_eq!(look([most, 256, 256]), Ok(()), "all at their limits");
        assert_eq!(look([most, 256, end - CACHE_LINE]), Ok(()), "the last head");
    }

    #[test]
    fn record_is_taken_only_if_it_is_whole() {
        for slow in [WAITED_FOR, Slow::Overrun] {
            let (mut own, mut follower) = follow(slow, 128);
            let is_waited_for = slow == WAITED_FOR;
            assert_eq!(follower.is_waited_for(), is_waited_for);
            assert_eq!((follower.next(), follower.try_plain(0, 0)), (Ok(None), None));
            assert!(!follower.head_moved() && follower.is_at_head());
            let first = write(&mut own, 128, 0);
            mark(&own, [256, 128, 256]);
            assert!(follower.head_moved());
            assert_eq!(follower.try_plain(0, 0), Some(first.record));
            assert_eq!((follower.try_plain(1, 0), follower.try_plain(0, 1)), (None, None), "another one");
            assert_eq!(follower.next(), Ok(Some(first)));
            assert!(!follower.head_moved() && !follower.is_at_head());
            assert_eq!(
                (follower.position().get(), follower.known_end().get(), follower.lag()),
                (128, 256, 128)
            );
            take(&mut follower);
            assert!(follower.is_at_head());
            assert_eq!((follower.next(), follower.lag(), follower.held()), (Ok(None), 0, (1, 128)));
            // The first record is held. It is whole as long as no more than a ring's length from there is claimed.
            let second = write(&mut own, 256, 1);
            mark(&own, [128 + RING, 256, 384]);
            assert_eq!((follower.next(), follower.try_plain(1, 0)), (Ok(Some(second)), Some(second.record)));
            set(&own, Word::Claimed, 192 + RING);
            if is_waited_for {
                assert_eq!((follower.next(), follower.try_plain(1, 0)), (Err(Fault::Overrun), None));
            } else {
                assert_eq!(
                    (follower.next(), follower.try_plain(1, 0)),
                    (Ok(Some(second)), Some(second.record))
                );
                set(&own, Word::Claimed, 256 + RING);
                assert_eq!(follower.next(), Ok(Some(second)));
                set(&own, Word::Claimed, 320 + RING);
                assert_eq!((follower.next(), follower.try_plain(1, 0)), (Err(Fault::Overrun), None));
            }
        }
    }

    #[test]
    fn quick_call_leaves_a_violation_to_the_slow_one() {
        let (own, mut follower) = follow(Slow::Overrun, 0);
        set(&own, Word::Head, 65);
        assert_eq!(follower.try_plain(0, 0), None);
        assert_eq!(follower.next(), Err(Fault::Violation(ProtocolError::Misaligned { found: 65 })));
    }

    #[test]
    fn record_that_is_passed_gives_its_space_back() {
        for slow in [WAITED_FOR, Slow::Overrun] {
            let (mut own, mut follower) = follow(slow, 128);
            let first = write(&mut own, 128, 0);
            write(&mut own, 256, 1);
            mark(&own, [384, 256, 384]);
            assert_eq!(follower.next(), Ok(Some(first)));
            follower.pass(first.record);
            assert_eq!((tail(&follower), follower.position().get()), (256, 256));
            if slow == WAITED_FOR {
                assert_eq!(follower.held(), (0, 0));
            }
            let span = take(&mut follower);
            assert_eq!((tail(&follower), follower.held().1), (256, 128), "it is held");
            follower.intake().release(span, 1);
            assert_eq!(tail(&follower), 384);
        }
    }

    #[test]
    fn padding_gives_its_space_back_and_a_record_follows() {
        for slow in [WAITED_FOR, Slow::Overrun] {
            let (mut own, mut follower) = follow(slow, RING - 128);
            assert!(own.ring.write(RING - 128, RecordHeader::padding(64).as_bytes()));
            let first = write(&mut own, RING, 0);
            mark(&own, [RING + 128, RING, RING + 128]);
            assert_eq!(follower.try_plain(0, 0), None, "padding is no record");
            assert_eq!(follower.next(), Ok(Some(first)));
            assert_eq!((follower.position().get(), tail(&follower)), (RING, RING));
            assert_eq!(follower.held().1, 0);
        }
    }

    #[test]
    fn jump_goes_to_the_newest_whole_record_and_never_backwards() {
        // Positions before and behind, with the marks between them.
        for (from, marks, to) in [
            (128, [512, 384, 512], 384),
            (128, [384 + RING, 384, 512], 384),
            (128, [448 + RING, 384, 512], 512),
            // A record that is overrun is not read again, nor one before it.
            (384, [512, 384, 512], 512),
            (448, [512, 384, 512], 512),
            (512, [512, 384, 512], 512),
        ] {
            let (own, mut follower) = follow(Slow::Overrun, from);
            mark(&own, marks);
            assert_eq!(follower.jump(), Ok(()));
            assert_eq!(
                (follower.position().get(), follower.known_end().get()),
                (to, 512),
                "{from} {marks:?}"
            );
            assert_eq!((follower.skipped(), tail(&follower)), (to - from, to), "{from} {marks:?}");
        }
    }

    #[test]
    fn newest_record_is_there_if_it_is_not_before_the_next_one() {
        for slow in [WAITED_FOR, Slow::Overrun] {
            // Positions before and behind, with the marks and the answer between them.
            for (from, marks, is_there, to) in [
                (128, [512, 384, 512], true, 384),
                (128, [128 + RING, 384, 512], true, 384),
                (384, [512, 384, 512], true, 384),
                (448, [512, 384, 512], false, 448),
                (512, [512, 384, 512], false, 512),
                // Nothing begins at the head.
                (128, [512, 512, 512], false, 512),
                (512, [512, 512, 512], false, 512),
                // The newest is overrun, and so is the next one: reading that finds it out.
                (128, [448 + RING, 384, 512], true, 128),
            ] {
                let (own, mut follower) = follow(slow, from);
                mark(&own, marks);
                assert_eq!(follower.skip_to_latest(), Ok(is_there), "{from} {marks:?}");
                let places = (follower.position().get(), follower.known_end().get(), tail(&follower));
                assert_eq!(places, (to, 512, to), "{from} {marks:?}");
                assert_eq!((follower.skipped(), follower.held()), (to - from, (0, 0)), "{from} {marks:?}");
            }
        }
    }

    #[test]
    fn bytes_that_were_left_out_are_counted_up_to_the_next_record() {
        let (mut own, mut follower) = follow(Slow::Overrun, 0);
        write(&mut own, 512, 7);
        for head in [256, 512] {
            mark(&own, [640, 0, head]);
            follower.jump().unwrap();
        }
        assert_eq!(follower.skipped(), 512, "of both jumps");
        mark(&own, [640, 512, 640]);
        take(&mut follower);
        assert_eq!(follower.skipped(), 0);
    }

    #[test]
    fn end_stays_where_it_was_first_seen() {
        let (mut own, mut follower) = follow(Slow::Overrun, 0);
        let first = write(&mut own, 0, 0);
        write(&mut own, 128, 1);
        mark(&own, [256, 0, 128]);
        set(&own, Word::Messages, 7);
        assert_eq!((follower.has_end(), follower.messages()), (false, 7));
        set(&own, Word::Messages, 8);
        assert_eq!(follower.messages(), 8, "there is no end yet");
        follower.end_here();
        // The publisher continues with others.
        mark(&own, [384, 256, 384]);
        set(&own, Word::Messages, 10);
        follower.end_here();
        assert_eq!((follower.has_end(), follower.messages()), (true, 8));
        assert_eq!(follower.next(), Ok(Some(first)));
        take(&mut follower);
        assert_eq!((follower.next(), follower.is_at_head()), (Ok(None), true));
        assert_eq!(follower.skip_to_latest(), Ok(false), "the newest is behind the end");
        assert_eq!(follower.position().get(), 128);
    }

    #[test]
    fn end_is_not_before_what_was_seen() {
        let (mut own, mut follower) = follow(Slow::Overrun, 0);
        write(&mut own, 0, 0);
        write(&mut own, 128, 1);
        mark(&own, [256, 128, 256]);
        take(&mut follower);
        set(&own, Word::Head, 64);
        follower.end_here();
        // The publisher takes it back before the next look.
        set(&own, Word::Head, 256);
        take(&mut follower);
        assert_eq!((follower.next(), follower.is_at_head()), (Ok(None), true));
    }

    #[test]
    fn publisher_is_held_up_by_what_it_waits_for_and_we_hold() {
        for slow in [WAITED_FOR, Slow::Overrun] {
            let (mut own, mut follower) = follow(slow, 0);
            write(&mut own, 0, 0);
            mark(&own, [128, 0, 128]);
            let span = take(&mut follower);
            for (epoch, needs, is_held_up) in
                [(1, 128, true), (2, 128, false), (3, 192, false), (5, 64, true)]
            {
                set(&own, Word::SenderEpoch, epoch);
                set(&own, Word::SenderNeeds, needs);
                assert_eq!(follower.holds_up_peer(), is_held_up && slow == WAITED_FOR, "{needs}");
            }
            follower.intake().release(span, 1);
            assert!(!follower.holds_up_peer());
        }
    }

    #[test]
    fn reader_that_comes_close_again_and_again_rests_once_it_has_read_all() {
        let (mut own, mut follower) = follow(Slow::Overrun, 0);
        // Each look finds one record, and eight of those are ignored.
        for n in 0..9 {
            assert!(!follower.is_close(), "{n}");
            write(&mut own, n * 128, n);
            let head = (n + 1) * 128;
            mark(&own, [head, n * 128, head]);
            follower.next().unwrap().unwrap();
            assert!(!follower.is_close(), "{n}: it is to be read yet");
            take(&mut follower);
            // Looks that find nothing do not count.
            (0..3).for_each(|_| assert_eq!(follower.next(), Ok(None)));
        }
        assert!(follower.is_close());
        follower.back_off(Deadline::after(Duration::ZERO));
        assert!(!follower.is_close());
    }
}
