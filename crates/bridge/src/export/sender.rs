//! [`Sender`]: the thread that gives messages to Zenoh. It may be blocked there; then the queue says what is dropped.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use zenoh::{Wait, bytes::ZBytes};

use super::{
    chunk::{Body, Bytes, Chunk},
    declared::Declared,
    queue::{Queue, Task},
};
use crate::{
    counts::{Counts, add},
    settings::Settings,
    wire::{
        Head, Kind, Place,
        beat::{self, Ended},
        pack::{Entries, Entry},
    },
};

/// See the module.
pub(super) struct Sender {
    /// Locked while the session is replaced.
    declared: Arc<Mutex<Declared>>,
    beat: Duration,
    plain: bool,
    queue: Arc<Queue>,
    counts: Arc<Counts>,
    /// The next message's place, of the run that is followed or was last.
    next: Option<Place>,
    has_ended: bool,
    /// Runs before that one.
    ended: VecDeque<Ended>,
}

impl Sender {
    pub(super) fn new(
        declared: &Arc<Mutex<Declared>>,
        settings: &Settings,
        queue: &Arc<Queue>,
        counts: &Arc<Counts>,
    ) -> Self {
        Self {
            declared: Arc::clone(declared),
            beat: settings.beat,
            plain: settings.plain,
            queue: Arc::clone(queue),
            counts: Arc::clone(counts),
            next: None,
            has_ended: false,
            ended: VecDeque::new(),
        }
    }

    fn declared(&self) -> MutexGuard<'_, Declared> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the queue has until the reader has ended.
    pub(super) fn run(mut self) {
        let mut next_beat = Instant::now();
        let (mut tasks, mut others_wait) = (VecDeque::new(), false);
        loop {
            if tasks.is_empty() {
                // A beat is due also while messages keep coming.
                if next_beat <= Instant::now() {
                    self.send_beat();
                    next_beat = Instant::now() + self.beat;
                }
                (tasks, others_wait) = self.queue.next(next_beat);
            }
            let Some(task) = tasks.pop_front() else { continue };
            match task {
                Task::Send(chunk) => self.send(chunk, others_wait || !tasks.is_empty()),
                Task::Began(place) => self.begin(place),
                Task::Ended(place) => {
                    (self.next, self.has_ended) = (Some(place), true);
                    self.send_beat();
                    self.declared().set_run(None);
                }
                Task::Left(place) => self.catch_up(Some(place)),
                Task::Beat(read) => {
                    self.catch_up(read);
                    self.send_beat();
                    next_beat = Instant::now() + self.beat;
                }
                Task::Stop(read) => {
                    self.catch_up(read);
                    self.send_beat();
                    return;
                }
            }
        }
    }

    /// All before `read` was sent, or is lost.
    fn catch_up(&mut self, read: Option<Place>) {
        if let (Some(next), Some(read)) = (&mut self.next, read)
            && next.run == read.run
        {
            next.number = next.number.max(read.number);
        }
    }

    /// Another subscription: of the same run, or of one that follows.
    fn begin(&mut self, place: Place) {
        if let Some(last) = self.next.filter(|last| last.run != place.run) {
            if self.ended.len() == beat::MAX_RUNS {
                self.ended.pop_front();
            }
            self.ended.push_back(Ended { run: last.run, end: last.number });
        }
        // Who comes back to a run may have been told of more messages than it began with.
        let known = self.next.filter(|last| last.run == place.run && last.number > place.number);
        (self.next, self.has_ended) = (Some(known.unwrap_or(place)), false);
        self.declared().set_run(Some(place.run));
        self.send_beat();
    }

    /// Sends messages. `more` says that others follow at once.
    fn send(&mut self, chunk: Chunk, more: bool) {
        let Chunk { place, count, body } = chunk;
        self.next = Some(Place { number: place.number + count, ..place });
        match body {
            Body::Pack(bytes) if self.plain => self.send_each(place, &bytes, count, more),
            Body::Pack(bytes) => {
                self.put(Head { more, ..Head::new(Kind::Pack, place) }, &[], Some(bytes), count);
            }
            Body::Message { control, payload, without_fds } => {
                let head = Head { without_fds, more, ..Head::new(Kind::Message, place) };
                match payload.map(Bytes::into_vec).transpose() {
                    Ok(payload) => self.put(head, &control, payload, 1),
                    Err(why) => self.counts.refuse(&self.counts.counters.missed, &why),
                }
            }
        }
    }

    /// Sends the messages of a pack as samples of their own.
    fn send_each(&self, first: Place, pack: &[u8], count: u64, more: bool) {
        for (index, entry) in (0..count).zip(Entries::of(pack).flatten()) {
            let Entry { control, payload, without_fds } = entry;
            let (place, more) = (Place { number: first.number + index, ..first }, more || index + 1 < count);
            let head = Head { without_fds, more, ..Head::new(Kind::Message, place) };
            self.put(head, control, payload.map(<[u8]>::to_vec), 1);
        }
    }

    /// Gives Zenoh a sample of so many messages.
    fn put(&self, head: Head, control: &[u8], payload: Option<Vec<u8>>, count: u64) {
        let head = Head { without_payload: payload.is_none(), ..head }.to_bytes();
        let payload = payload.unwrap_or_default();
        let len = payload.len() + control.len();
        // An array saves an allocation.
        let attachment =
            if control.is_empty() { ZBytes::from(head) } else { ZBytes::from([&head, control].concat()) };
        let counters = &self.counts.counters;
        match self.declared().messages.put(payload).attachment(attachment).wait() {
            Ok(()) => {
                add(&counters.messages, count);
                add(&counters.bytes, u64::try_from(len).unwrap_or(u64::MAX));
                add(&counters.samples, 1);
            }
            Err(why) => {
                self.counts.refuse(&counters.dropped, &why);
                add(&counters.dropped, count.saturating_sub(1));
            }
        }
    }

    /// Says where the source stands.
    fn send_beat(&self) {
        let Some(place) = self.next else { return };
        let head = Head { ended: self.has_ended, ..Head::new(Kind::Beat, place) };
        let beat = beat::to_bytes(&self.ended);
        let sent = self.declared().beats.put(beat).attachment(head.to_bytes().to_vec()).wait();
        if let Err(why) = sent {
            log::debug!("{}: no beat: {why}", self.counts.topic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counts::Role, wire::Keys};

    #[test]
    fn who_comes_back_to_a_run_takes_nothing_back() {
        let counts = Arc::new(Counts::new("stats", Role::Export, String::new(), ""));
        let settings = Settings::default();
        let queue = Arc::new(Queue::new(&settings, Arc::clone(&counts)));
        let session = zenoh::open(crate::Network::default().config().unwrap()).wait().unwrap();
        let declared = Declared::new(&session, &Keys::new("stats"), &settings).unwrap();
        let declared = Arc::new(Mutex::new(declared));
        let mut sender = Sender::new(&declared, &settings, &queue, &counts);
        let place = |run, number| Place { run, number, source: 0 };
        sender.begin(place(1, 10));
        sender.catch_up(Some(place(1, 20)));
        sender.begin(place(1, 15));
        assert_eq!(sender.next, Some(place(1, 20)));
        sender.begin(place(1, 25));
        sender.begin(place(2, 3));
        assert_eq!(sender.next, Some(place(2, 3)));
        assert!(sender.ended.iter().eq(&[Ended { run: 1, end: 25 }]));
    }
}
