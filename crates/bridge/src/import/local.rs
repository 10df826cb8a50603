//! [`Local`]: the publisher on this machine, and what it knows of the source. It never calls Zenoh.
//!
//! A thread of its own has it most of the time. Small samples are published at once by the thread of Zenoh's that brings them, if
//! that need not wait for anything: they are there sooner, and no thread is woken.

mod replies;
mod subscribers;
mod telling;

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use sealane::Publisher;

use self::replies::Replies;
use super::{
    caller::Calls,
    inbox::{Arrived, Content, Inbox},
    presence::Presence,
    publishing::{Bytes, Publishing, Room},
};
use crate::{
    counts::{Counts, add},
    follow::{Follow, Verdict},
    renewal::Wish,
    settings::Settings,
    wake::wait_readable,
    wire::{notice::Notice, pack::Entries},
};

/// Bytes of a sample that is published by the thread which brings it. Larger ones would keep the next from being received meanwhile.
const AT_ONCE: usize = 128 << 10;

/// Samples that are published before subscribers are heard again, and what is heard of these meanwhile.
const TURN: usize = 64;

/// The longest that subscribers are left asleep although a message is there, since its sample promised that another one follows at once.
const DOZE: Duration = Duration::from_millis(1);

/// When subscribers that sleep are woken for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waking {
    /// Immediately.
    AtOnce,
    /// Immediately. The thread checks every [`DOZE`] whether a wake is owed.
    Watched,
    /// Later: they were not woken for the last message, as another one was to follow.
    Owed,
}

/// What a turn came to.
enum Turn {
    /// There may be more.
    Again,
    /// Nothing was there; when to look after the source again.
    Idle(Option<Instant>),
}

/// See the module.
pub(super) struct Local {
    publisher: Publisher,
    follow: Follow,
    presence: Presence,
    /// For another session, if the source is silent.
    renewal: Wish,
    /// Messages that were lost, which no subscriber has been told yet.
    untold: u64,
    /// What its messages say of their source.
    source: u64,
    /// The number of the source's next message that is published here.
    next: u64,
    /// Subscribers have not been told that another run is followed.
    owes_place: bool,
    waking: Waking,
    notices: bool,
    inbox: Arc<Inbox>,
    calls: Arc<Calls>,
    counts: Arc<Counts>,
    replies: Replies,
    /// A sample that found no room, and how many of its messages are done.
    rest: Option<(Arrived, u64)>,
}

impl Local {
    pub(super) fn new(
        publisher: Publisher,
        settings: &Settings,
        inbox: &Arc<Inbox>,
        calls: &Arc<Calls>,
        counts: &Arc<Counts>,
        renewal: Wish,
    ) -> Self {
        Self {
            publisher,
            follow: Follow::default(),
            presence: Presence::new(settings.silence),
            renewal,
            untold: 0,
            source: 0,
            next: 0,
            owes_place: false,
            waking: Waking::AtOnce,
            notices: settings.notices,
            inbox: Arc::clone(inbox),
            calls: Arc::clone(calls),
            counts: Arc::clone(counts),
            replies: Replies::default(),
            rest: None,
        }
    }

    /// A sample that has just come, in one of Zenoh's threads. Never blocks.
    pub(super) fn arrive(this: &Mutex<Self>, inbox: &Inbox, arrived: Arrived) {
        let arrived = match this.try_lock() {
            Ok(mut local) if inbox.is_empty() => match local.publish_at_once(arrived) {
                Ok(None) => return,
                Ok(Some(arrived)) => arrived,
                Err(why) => return inbox.fail(why),
            },
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => arrived,
        };
        inbox.put(arrived);
    }

    /// Publishes what arrives until it is told to stop. A publisher that fails ends the topic, and its subscribers see the end.
    pub(super) fn run(this: &Mutex<Self>, events: &OwnedFd, inbox: &Inbox) {
        let lock = || -> MutexGuard<'_, Self> { this.lock().unwrap_or_else(PoisonError::into_inner) };
        while !inbox.is_stopped() {
            let turn = inbox.failure().map_or_else(|| lock().turn(), Err);
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Idle(look_again)) => {
                    if !inbox.arm() {
                        wait_readable([events.as_fd(), inbox.wake().as_fd()], look_again);
                    }
                }
                Err(why) => {
                    lock().counts.set_state(false, &format!("the local publisher failed: {why}"));
                    log::error!("the topic ends here: {why}");
                    return;
                }
            }
        }
    }

    fn turn(&mut self) -> sealane::Result<Turn> {
        let mut taken = 0;
        if let Some((arrived, done)) = self.rest.take() {
            taken += 1;
            self.publish_messages(arrived, done, Room::Wait)?;
        }
        while taken < TURN
            && self.rest.is_none()
            && let Some(arrived) = self.inbox.take()
        {
            self.publish(arrived)?;
            taken += 1;
        }
        let is_watching = self.waking == Waking::Owed;
        self.waking = if is_watching { Waking::Watched } else { Waking::AtOnce };
        self.publisher.batch().flush();
        let look_again = self.look_after_source()?;
        let hears_more = self.hear_subscribers()?;
        let try_again = self.reply();
        if taken > 0 || hears_more {
            return Ok(Turn::Again);
        }
        let soon = is_watching.then(|| Instant::now() + DOZE);
        Ok(Turn::Idle(look_again.into_iter().chain(try_again).chain(soon).min()))
    }

    /// Leaves it to the next sample to wake subscribers, or to the thread, whichever comes first.
    ///
    /// UNTRUSTED: the next sample may be lost, or was never meant to come.
    fn wake_later(&mut self) {
        if std::mem::replace(&mut self.waking, Waking::Owed) == Waking::AtOnce {
            self.inbox.wake_up();
        }
    }

    /// Publishes a small sample if nothing is before it, nothing but messages is to be told, and there is room. Else gives it back.
    fn publish_at_once(&mut self, arrived: Arrived) -> sealane::Result<Option<Arrived>> {
        let place = arrived.head.place;
        let is_plain = arrived.len() <= AT_ONCE
            && self.rest.is_none()
            && self.follow.run() == Some(place.run)
            && !self.follow.has_ended()
            && self.presence.told == Some(Ok(()))
            && !self.owes_place;
        if !is_plain || matches!(arrived.content, Content::Beat(_)) {
            return Ok(Some(arrived));
        }
        match self.follow.messages(place, arrived.count(), false) {
            Verdict::Take { missed, skip } => {
                self.miss(missed);
                self.source = place.source;
                self.presence.hear(Instant::now(), false);
                self.counts.number.store(place.number + arrived.count(), Relaxed);
                let more = arrived.head.more;
                self.publish_messages(arrived, skip, Room::Try)?;
                if self.rest.is_some() {
                    self.inbox.wake_up();
                } else if more {
                    self.wake_later();
                } else {
                    self.publisher.batch().flush();
                }
            }
            Verdict::Stale | Verdict::Foreign => {
                add(&self.counts.counters.stale, 1);
            }
        }
        Ok(None)
    }

    /// Whether another run may take the place of the one that is followed: that one is not heard any more.
    fn may_change(&mut self) -> bool {
        let has_token = self.follow.run().is_some_and(|run| self.inbox.has_token(run));
        !matches!(self.presence.look(Instant::now(), has_token).0, Some(Ok(())))
    }

    fn publish(&mut self, arrived: Arrived) -> sealane::Result<()> {
        let (place, count) = (arrived.head.place, arrived.count());
        let followed = self.follow.run();
        let may_change = followed.is_some_and(|run| run != place.run) && self.may_change();
        self.follow.hold(followed.is_some_and(|run| self.inbox.has_token(run)));
        let counters = &self.counts.counters;
        let skip = if let Content::Beat(ended) = &arrived.content {
            let heard = self.follow.beat(place, arrived.head.ended, ended, may_change);
            if heard.is_foreign {
                add(&counters.foreign, 1);
            }
            self.miss(heard.missed);
            None
        } else {
            match self.follow.messages(place, count, may_change) {
                Verdict::Take { missed, skip } => {
                    self.miss(missed);
                    Some(skip)
                }
                Verdict::Stale => {
                    add(&counters.stale, 1);
                    return Ok(());
                }
                Verdict::Foreign => {
                    add(&counters.foreign, 1);
                    return Ok(());
                }
            }
        };
        if followed != self.follow.run() {
            add(&self.counts.counters.runs, 1);
            self.presence.change();
            self.owes_place = true;
        }
        if self.follow.run() == Some(place.run) {
            self.source = place.source;
            self.presence.hear(Instant::now(), self.follow.has_ended());
            self.counts.number.store(place.number + count, Relaxed);
        }
        if let Some(skip) = skip {
            self.next = place.number.saturating_add(skip);
            self.look_after_source()?;
            if self.owes_place {
                self.tell_place()?;
            }
            return self.publish_messages(arrived, skip, Room::Wait);
        }
        self.next = self.follow.expected().unwrap_or(0);
        if self.owes_place {
            self.tell_place()?;
        } else if self.untold > 0 && self.notices {
            self.tell(Notice::Missed)?;
        }
        Ok(())
    }

    fn miss(&mut self, missed: u64) {
        add(&self.counts.counters.missed, missed);
        self.untold = self.untold.saturating_add(missed);
    }

    /// Publishes the messages of a sample, but for the first `done`, and wakes nobody. What finds no room becomes the rest.
    fn publish_messages(&mut self, arrived: Arrived, mut done: u64, room: Room) -> sealane::Result<()> {
        let place = arrived.head.place;
        self.publisher.lost(std::mem::take(&mut self.untold));
        self.publisher.epoch(place.epoch());
        self.publisher.number(place.number.saturating_add(done));
        let mut local = Publishing::new(&mut self.publisher, &self.counts, room, &mut self.untold);
        let mut is_full = false;
        match &arrived.content {
            Content::Message { control, payload } => {
                let payload = (!arrived.head.without_payload).then_some(Bytes::Sample(payload));
                is_full = !local.publish(control, payload.as_ref(), arrived.head.without_fds)?;
            }
            Content::Pack(bytes, _) => {
                let skip = usize::try_from(done).unwrap_or(usize::MAX);
                for entry in Entries::of(bytes).flatten().skip(skip) {
                    if !local.publish(
                        entry.control,
                        entry.payload.map(Bytes::Slice).as_ref(),
                        entry.without_fds,
                    )? {
                        is_full = true;
                        break;
                    }
                    done += 1;
                }
            }
            Content::Beat(_) => {}
        }
        if is_full {
            self.next = place.number.saturating_add(done);
            self.rest = Some((arrived, done));
        } else {
            self.next = place.number.saturating_add(arrived.count());
            add(&self.counts.counters.samples, 1);
        }
        Ok(())
    }
}
