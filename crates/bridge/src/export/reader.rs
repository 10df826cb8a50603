//! [`Reader`]: the thread that has the subscription. It never calls Zenoh.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use sealane::{Builder, Message, Payload, Subscriber};

use super::{
    chunk::{Body, Bytes, Chunk},
    filling::Filling,
    queue::{Queue, Task},
    requests::{Request, Requests},
};
use crate::{
    counts::{Counts, add},
    settings::{Fds, Settings},
    wake::wait_readable,
    wire::{Place, call::CallError, pack::MAX_PACK},
};

/// Messages, and bytes of them, that are taken before the sender gets them: as many as it can be kept waiting for.
const BURST: usize = 64;
const BURST_BYTES: usize = MAX_PACK / 4;

/// Times between two attempts to subscribe.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// See the module.
pub(super) struct Reader {
    path: PathBuf,
    builder: Builder,
    fds: Fds,
    queue: Arc<Queue>,
    requests: Arc<Requests>,
    counts: Arc<Counts>,
}

/// A subscription that is read.
struct Reading<'r> {
    reader: &'r Reader,
    subscriber: Subscriber,
    /// The next message's place.
    place: Place,
    /// Messages that were missed before those that were received.
    missed: u64,
    filling: Filling,
    /// Requests that the publisher has not answered, by their numbers.
    open: BTreeMap<u64, Request>,
    /// Requests that found no room on their way to the publisher.
    refused: VecDeque<Request>,
}

impl Reader {
    pub(super) fn new(
        path: &Path,
        settings: &Settings,
        queue: &Arc<Queue>,
        requests: &Arc<Requests>,
        counts: &Arc<Counts>,
    ) -> Self {
        // A publisher's limits must not be higher than its subscriber's. 253 is the kernel's own (`unix(7)`, SCM_MAX_FD).
        let builder = Builder::default()
            .slow(settings.slow)
            .max_control(settings.max_control)
            .max_fds(253)
            .handshake_timeout(Duration::from_secs(1));
        Self {
            path: path.to_owned(),
            builder,
            fds: settings.fds,
            queue: Arc::clone(queue),
            requests: Arc::clone(requests),
            counts: Arc::clone(counts),
        }
    }

    /// Follows the publisher, and whoever takes its place, until it is told to stop.
    pub(super) fn run(self) {
        let mut retry = RETRY.0;
        while !self.requests.is_stopped() {
            match self.builder.subscribe(&self.path) {
                Ok(subscriber) => {
                    retry = RETRY.0;
                    let why = self.follow(subscriber);
                    self.counts.set_state(false, &format!("the publisher is gone: {why}"));
                }
                Err(why) => self.counts.set_state(false, &format!("no publisher: {why}")),
            }
            self.wait_without_publisher(Instant::now() + retry);
            retry = (retry * 2).min(RETRY.1);
        }
        self.queue.stop();
    }

    /// Answers requests that come while there is no publisher.
    fn wait_without_publisher(&self, until: Instant) {
        while !self.requests.is_stopped() && Instant::now() < until {
            for request in self.requests.drain() {
                request.answer(Err(CallError::NoPublisher));
            }
            if !self.requests.is_stopped() {
                wait_readable([self.requests.wake().as_fd()], Some(until));
            }
        }
    }

    /// Follows one subscription to its end.
    fn follow(&self, subscriber: Subscriber) -> sealane::Error {
        // Before its first message a subscription's number does not know of an offset: it counts what this publisher has had.
        let place = Place { run: subscriber.run().max(1), number: subscriber.number(), source: 0 };
        self.queue.tell(Task::Began(place));
        self.counts.set_state(true, &format!("following the publisher, {:?}", subscriber.granted()));
        add(&self.counts.counters.runs, 1);
        let mut reading = Reading {
            reader: self,
            subscriber,
            place,
            missed: 0,
            filling: Filling::default(),
            open: BTreeMap::new(),
            refused: VecDeque::new(),
        };
        let why = reading.run();
        reading.filling.flush(&self.queue, reading.place);
        // What was missed at the end, which no message has told.
        let missed = reading.subscriber.missed().saturating_sub(reading.missed);
        add(&self.counts.counters.missed, missed);
        reading.place.number += missed;
        match &why {
            // It goes on without us, and we come back to it.
            sealane::Error::TooSlow => {
                log::warn!("{}: the publisher has ended this bridge as too slow", self.path.display());
                self.queue.tell(Task::Left(reading.place));
            }
            _ if self.requests.is_stopped() => {}
            _ => self.queue.tell(Task::Ended(reading.place)),
        }
        for request in std::mem::take(&mut reading.open).into_values().chain(reading.refused) {
            request.answer(Err(CallError::NoPublisher));
        }
        why
    }
}

impl Reading<'_> {
    /// Reads until the subscription ends, or the reader is to stop.
    fn run(&mut self) -> sealane::Error {
        loop {
            if self.reader.requests.is_stopped() {
                return sealane::Error::Disconnected;
            }
            self.take_requests();
            let mut is_empty = false;
            for _ in 0..BURST {
                match self.subscriber.try_recv() {
                    Ok(Some(message)) => self.pass_on(message),
                    Ok(None) => {
                        is_empty = true;
                        break;
                    }
                    // The message is lost for want of descriptors here, and was numbered. What was missed before it comes with the next.
                    Err(sealane::Error::FdsLost { .. }) => {
                        self.place.number += 1;
                        add(&self.reader.counts.counters.refused, 1);
                    }
                    Err(why) => return why,
                }
                if self.filling.len() >= BURST_BYTES {
                    break;
                }
            }
            self.filling.flush(&self.reader.queue, self.place);
            self.reader.counts.number.store(self.place.number, Relaxed);
            self.reader.counts.lag.store(self.subscriber.lag(), Relaxed);
            if is_empty {
                self.wait();
            }
        }
    }

    /// Waits for messages, requests, room for requests, and their deadlines.
    fn wait(&self) {
        let deadlines = self.open.values().chain(&self.refused).map(|request| request.deadline);
        let deadline = deadlines.min();
        let (ring, wake) = (self.subscriber.as_fd(), self.reader.requests.wake().as_fd());
        if self.refused.is_empty() {
            wait_readable([ring, wake], deadline);
        } else {
            wait_readable([ring, wake, self.subscriber.room()], deadline);
        }
    }

    fn pass_on(&mut self, mut message: Message) {
        if let Some(request) = message.in_reply_to() {
            if let Some(request) = self.open.remove(&request.number()) {
                let has_fds = !message.fds().is_empty() && self.reader.fds == Fds::Refuse;
                request.answer(if has_fds {
                    Err(CallError::Descriptors)
                } else {
                    Ok(message.control().to_vec())
                });
            }
            return;
        }
        let counters = &self.reader.counts.counters;
        let missed = message.missed();
        if missed > 0 {
            add(&counters.missed, missed);
            // A publisher that is a bridge tells what a far peer has made up.
            self.missed = self.missed.saturating_add(missed);
            self.place.number = self.place.number.saturating_add(missed);
        }
        let place = Place { source: message.epoch(), ..self.place };
        self.place = Place { number: place.number.saturating_add(1), ..place };
        let without_fds = !message.fds().is_empty();
        if without_fds && self.reader.fds == Fds::Refuse {
            // Far subscribers miss it by its number.
            self.reader.counts.refuse(&counters.refused, &"a message with descriptors, which do not cross");
            return;
        }
        if without_fds {
            add(&counters.without_fds, 1);
        }
        let payload = message.take_payload();
        let (control, len) = (message.control(), payload.as_ref().map(Payload::len));
        // A publisher that has ended this subscription as too slow may overwrite what is copied.
        let is_whole = if Filling::takes(control.len(), len) {
            self.filling.add(place, control, payload.as_ref(), without_fds)
        } else {
            let holds = self.reader.queue.waits();
            let copy = |payload: Payload| {
                if holds && payload.len() > MAX_PACK / 4 {
                    return Ok(Bytes::Held(payload));
                }
                payload.try_to_vec().map(Bytes::Copied)
            };
            match payload.map(copy).transpose() {
                Ok(payload) => {
                    let body = Body::Message { control: control.to_vec(), payload, without_fds };
                    self.filling.push(Chunk { place, count: 1, body });
                    true
                }
                Err(_) => false,
            }
        };
        if !is_whole {
            add(&counters.missed, 1);
        }
    }

    /// Passes on what far subscribers ask, and ends what has waited too long.
    fn take_requests(&mut self) {
        let now = Instant::now();
        if !self.open.is_empty() {
            for (number, request) in self.open.extract_if(.., |_, request| request.deadline <= now) {
                if let Some(id) = self.subscriber.request_id(number) {
                    self.subscriber.cancel(id);
                }
                request.answer(Err(CallError::TimedOut));
            }
        }
        self.refused.extend(self.reader.requests.drain());
        while let Some(request) = self.refused.pop_front() {
            if request.deadline <= now {
                request.answer(Err(CallError::TimedOut));
                continue;
            }
            let sent = if request.wants_reply {
                self.subscriber.try_request(&request.control).map(Some)
            } else {
                self.subscriber.try_send(&request.control).map(|()| None)
            };
            match sent {
                Ok(Some(id)) => {
                    add(&self.reader.counts.counters.calls, 1);
                    self.open.insert(id.number(), request);
                }
                Ok(None) => {
                    add(&self.reader.counts.counters.calls, 1);
                    request.answer(Ok(Vec::new()));
                }
                Err(sealane::Error::Full | sealane::Error::FdsInFlight) => {
                    self.refused.push_front(request);
                    return;
                }
                Err(why) => request.answer(Err(call_error(&why))),
            }
        }
    }
}

/// What a far subscriber learns of a request that could not be sent.
fn call_error(why: &sealane::Error) -> CallError {
    match why {
        sealane::Error::ControlTooLarge { .. } => CallError::TooLarge,
        sealane::Error::TooManyRequests { .. } => CallError::Busy,
        sealane::Error::Disconnected => CallError::NoPublisher,
        other => CallError::Refused(other.to_string()),
    }
}
