//! [`Lanes`]: all subscribers of a publisher, what they have brought about, and how they end. `turn` does what is ready.

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::atomic::{
        Ordering::{Relaxed, Release, SeqCst},
        fence,
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

use crate::{
    channel::{Limits, Stats, stats::count},
    connect::Settings,
    error::{Error, Result},
    fanout::{
        Event, SubscriberId, SubscriberInfo,
        account::Want,
        gates::Gates,
        joining::Joining,
        lane::Lane,
        poll::{Poll, Token},
        ticks::{self, Ticks},
        unread::PacketLimits,
    },
    protocol::{Position, RecordSize, Source, Word, to_usize},
    ring::Producer,
    socket::{doorbell::SenderWord, seqpacket::Socket},
    sys::{own_region::ControlPage, owner::Owner},
    wait::{Bells, Notified, SleepWord, Spinner},
};

/// The part of this process's limit of open files that one lane may leave unread in descriptors: with 16 lanes, half of those that
/// this user may have in flight (`RLIMIT_NOFILE`, `unix(7)`).
const UNREAD_PART: u64 = 32;
/// Events that are kept for a program that does not ask for them. Beyond that, nothing is told of those who have come and gone.
pub(super) const MAX_EVENTS: usize = 256;

/// The newest message with a payload, if no descriptors came with it, or behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    pub(super) start: Position,
    pub(super) sequence: u64,
    /// [`Source::lost`] before it.
    pub(super) lost: u64,
}

/// The subscribers, and all of a publisher but the writer of its ring.
pub(crate) struct Lanes {
    pub(super) list: Vec<Lane>,
    pub(super) infos: Vec<SubscriberInfo>,
    pub(super) joining: Joining,
    pub(super) events: VecDeque<Event>,
    pub(super) poll: Poll,
    pub(super) words: ControlPage,
    /// One word for all lanes.
    pub(super) word: SleepWord<SenderWord>,
    /// The least record for which a call that must not wait was refused room: the descriptor signals that.
    pub(super) refused: Option<RecordSize>,
    pub(super) spinner: Spinner,
    owner: Owner,
    pub(super) limits: Limits,
    pub(super) packets: PacketLimits,
    pub(super) stats: Stats,
    /// The sequence number of the next message.
    pub(super) sequence: u64,
    pub(super) source: Source,
    /// The last attempt to send descriptors.
    pub(super) attempt: u64,
    pub(super) newest: Option<Newest>,
    /// Bytes published since the subscribers were notified last.
    pub(super) unnotified: u64,
    /// Something may have to be done that no call has noticed: looks for that.
    ticks: Ticks,
    calls: u64,
    /// Calls are seldom: each may take the time for a look.
    is_idle: bool,
    /// Events that wait to be taken make the descriptor readable. A runtime takes them without that.
    pub(super) announces_events: bool,
}

impl Lanes {
    pub(super) fn new(
        settings: &Settings,
        words: ControlPage,
        limits: Limits,
        joining: Joining,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let limit = getrlimit(Resource::Nofile).current;
        let packets = PacketLimits {
            max_unread_fds: limit.map_or(usize::MAX, |limit| to_usize(limit / UNREAD_PART)),
            cost_of_bell: Socket::cost_of_header()?,
        };
        if let Some(listener) = joining.listener() {
            poll.add(listener, Token::Listener)?;
        }
        Ok(Self {
            list: Vec::new(),
            infos: Vec::new(),
            joining,
            events: VecDeque::new(),
            poll,
            word: SleepWord::new(SenderWord::new(words.clone())),
            refused: None,
            words,
            spinner: Spinner::new(settings.wait, false),
            owner: Owner::here(),
            limits,
            packets,
            stats: Stats::default(),
            sequence: 0,
            source: Source::default(),
            attempt: 0,
            newest: None,
            unnotified: 0,
            ticks: Ticks::default(),
            calls: 0,
            is_idle: true,
            announces_events: true,
        })
    }

    pub(super) fn lane(&mut self, id: SubscriberId) -> Option<&mut Lane> {
        self.list.iter_mut().find(|lane| lane.id == id)
    }

    /// Makes the publisher this process's, because it uses it.
    #[inline]
    pub(super) fn claim(&self) {
        if !self.owner.is_here_at_a_glance() {
            self.owner.claim();
            for lane in &self.list {
                let _ = lane.link.check();
            }
        }
    }

    /// True if this process has made or used the publisher.
    pub(super) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Begins a call that publishes something of `size` bytes: here subscribers join and leave, if it is time to look.
    #[inline]
    pub(super) fn begin(&mut self, producer: &mut Producer<Gates>, size: u64) {
        self.claim();
        self.calls = self.calls.wrapping_add(1);
        if self.is_idle || size >= ticks::LARGE || self.calls.is_multiple_of(ticks::MESSAGES) {
            self.look_around(producer);
        }
    }

    /// Looks at those who join and leave, once a tick of the coarse clock (1 to 10 ms).
    #[cold]
    fn look_around(&mut self, producer: &mut Producer<Gates>) {
        if self.ticks.has_ticked() {
            self.is_idle = self.list.is_empty();
            // An error here comes again in `next_event`, which reports it.
            let _ = self.turn(producer, false);
        }
    }

    /// Stops to charge those who have done what was wanted.
    pub(super) fn settle(&mut self, producer: &mut Producer<Gates>) {
        if self.list.iter().all(|lane| lane.account.want().is_none()) {
            return;
        }
        let _ = producer.refresh_tail();
        let now = Instant::now();
        for lane in self.list.iter_mut().filter(|lane| lane.end.is_none()) {
            let is_done = match lane.account.want() {
                Some(Want::Room(needs)) => producer.readers.tail(lane.id).is_none_or(|tail| tail >= needs),
                None => continue,
                want => lane.has_read(want),
            };
            if is_done {
                lane.account.settle(now);
            } else if lane.account.is_empty(now) {
                lane.end = Some(Error::TooSlow);
            }
        }
    }

    /// Ends the lanes that have come to their end. True if there were some: what is wanted may be there without them.
    pub(super) fn sweep(&mut self, producer: &mut Producer<Gates>) -> bool {
        for (id, violation) in std::mem::take(&mut producer.readers.broken) {
            if let Some(lane) = self.lane(id) {
                lane.violated(violation);
            }
        }
        self.list.iter().filter(|lane| lane.end.is_some()).for_each(|lane| producer.readers.remove(lane.id));
        let before = self.list.len();
        while let Some(at) = self.list.iter().position(|lane| lane.end.is_some()) {
            if self.list.get(at).is_some_and(|lane| matches!(lane.end, Some(Error::Disconnected))) {
                self.hear_last(at);
            }
            let lane = self.list.swap_remove(at);
            self.part_with(lane);
        }
        let has_ended = self.list.len() < before;
        if has_ended {
            self.schedule();
        }
        has_ended
    }

    /// Ends one lane, which is no gate any more.
    fn part_with(&mut self, mut lane: Lane) {
        let reason = lane.end.take().unwrap_or(Error::Disconnected);
        log::debug!("subscriber {:?} ends: {reason}", lane.id);
        self.poll.delete(lane.link.socket.as_fd());
        self.poll.delete(lane.link.space_rx.as_fd());
        lane.account.close(Instant::now());
        self.joining.departed.add(&mut lane);
        if matches!(reason, Error::TooSlow) {
            lane.say_too_slow();
        }
        lane.link.close();
        self.tell_left(lane.id, reason);
    }

    /// Tells the program that a lane has ended. One that does not listen is told of few.
    fn tell_left(&mut self, id: SubscriberId, reason: Error) {
        let has_joined = |event: &Event| matches!(event, Event::Joined(joined) if *joined == id);
        if self.events.len() >= MAX_EVENTS && self.events.iter().any(has_joined) {
            self.events.retain(|event| event.subscriber() != id);
        } else {
            self.events.push_back(Event::Left(id, reason));
        }
    }

    /// A lane's doorbells: it has been shown no epoch but the present one.
    pub(super) fn bells(&self) -> Bells {
        Bells::after(self.word.epochs.saturating_sub(u64::from(self.word.is_armed())))
    }

    /// Sets the alarm to the next moment at which something has to be done that no descriptor announces.
    pub(super) fn schedule(&mut self) {
        let now = (self.announces_events && !self.events.is_empty()).then(Instant::now);
        let accounts = self.list.iter().filter_map(|lane| lane.account.ends_at()).min();
        let next = [now, accounts, self.joining.next_alarm()].into_iter().flatten().min();
        self.poll.set_alarm(next);
    }

    /// Wakes the subscribers that sleep, for all that was published.
    #[inline]
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.unnotified) > 0 && !self.list.is_empty() {
            self.notify();
        }
    }

    #[inline]
    pub(super) fn notify(&mut self) {
        // ORDERING: pairs with the fence in `SleepWord::rearm`, see `Notifier::notify`: one for all.
        fence(SeqCst);
        let mut dozing = 0_u32;
        for lane in &mut self.list {
            match lane.notify() {
                Notified::NoNeed => {}
                Notified::OnFutex => dozing = dozing.saturating_add(1),
                Notified::Sent => {
                    self.is_idle = true;
                    count(&mut self.stats.doorbells_sent, 1);
                }
                Notified::Gone => {
                    self.is_idle = true;
                    lane.end = Some(Error::Disconnected);
                }
            }
        }
        if dozing > 0 {
            self.is_idle = true;
            self.wake_dozing(dozing);
            count(&mut self.stats.doorbells_sent, 1);
        }
    }

    /// Wakes so many of those who doze.
    fn wake_dozing(&self, count: u32) {
        let wakes = self.words.word(Word::Wakes);
        // ORDERING: pairs with the fence in `Follower::wakes`. Who is about to sleep, and whose epoch we have seen, finds it changed.
        wakes.store(wakes.load(Relaxed).wrapping_add(1), Release);
        self.words.wake(Word::Wakes, count);
    }

    /// Ends all lanes. The listener goes first: a subscriber that comes back at once finds nobody, rather than one that is about to go.
    pub(super) fn close(&mut self) {
        if self.is_ours() {
            self.joining.stop_listening(&self.poll);
            self.list.iter().for_each(|lane| lane.link.close());
            // Those who doze see the end at once.
            self.wake_dozing(i32::MAX.unsigned_abs());
        }
    }

    /// Shows how all subscribers stand.
    pub(super) fn refresh_infos(&mut self, head: Position) -> &[SubscriberInfo] {
        let now = Instant::now();
        self.infos.clear();
        self.infos.extend(self.list.iter().map(|lane| lane.info(head, now)));
        &self.infos
    }
}

/// The longest pause between two attempts while descriptors or memory are short.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
