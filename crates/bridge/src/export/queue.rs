//! [`Queue`]: what the reader has taken from the ring, until the sender has given it to Zenoh. Bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use zenoh::query::Query;

use crate::{
    counts::{Counts, add},
    settings::{Settings, WhenBehind},
    wire::{
        Place,
        call::CallError,
        pack::{self, ENTRY_LEN, MAX_PACK},
    },
};

/// What a chunk counts for besides its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 128;

/// Messages that go into one sample of Zenoh.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The first message's place.
    pub(super) place: Place,
    pub(super) count: u64,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// One message.
    Message { control: Vec<u8>, payload: Option<Vec<u8>>, without_fds: bool },
    /// A pack's bytes.
    Pack(Vec<u8>),
}

impl Chunk {
    /// Bytes of messages, and of their lengths.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Message { control, payload, .. } => {
                control.len().saturating_add(payload.as_ref().map_or(0, Vec::len))
            }
            Body::Pack(bytes) => bytes.len(),
        }
    }

    fn cost(&self) -> usize {
        self.len().saturating_add(OVERHEAD)
    }

    /// Appends the messages of `next`, if both are packs, the numbers go on, and one sample has room for both.
    fn append(&mut self, next: &Self) -> bool {
        let goes_on = Place { number: self.place.number.saturating_add(self.count), ..self.place };
        match (&mut self.body, &next.body) {
            (Body::Pack(bytes), Body::Pack(more))
                if goes_on == next.place && bytes.len() + more.len() <= MAX_PACK =>
            {
                bytes.extend_from_slice(more);
                self.count += next.count;
                true
            }
            _ => false,
        }
    }
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling(Option<Chunk>);

impl Filling {
    /// Whether a message of these lengths goes into a pack at all.
    pub(super) fn takes(control: usize, payload: Option<usize>) -> bool {
        control.saturating_add(payload.unwrap_or(0)) <= MAX_PACK / 4
    }

    /// The pack to append a message of `place` to, with its lengths written. What has to go before it is pushed to `queue`.
    pub(super) fn entry(
        &mut self,
        queue: &Queue,
        place: Place,
        control: usize,
        payload: Option<usize>,
        without_fds: bool,
    ) -> Option<&mut Vec<u8>> {
        let len = ENTRY_LEN + control + payload.unwrap_or(0);
        let fits = |chunk: &Chunk| {
            let next = Place { number: chunk.place.number + chunk.count, ..chunk.place };
            next == place && chunk.len() + len <= MAX_PACK
        };
        if self.0.as_ref().is_some_and(|chunk| !fits(chunk)) {
            self.flush(queue);
        }
        let chunk = self.0.get_or_insert_with(|| Chunk { place, count: 0, body: Body::Pack(Vec::new()) });
        let Body::Pack(bytes) = &mut chunk.body else { return None };
        if bytes.is_empty() {
            bytes.reserve(len.max(4096));
        }
        if !pack::push_lens(bytes, control, payload, without_fds) {
            return None;
        }
        chunk.count += 1;
        Some(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Chunk::len)
    }

    /// Gives the pack to the sender.
    pub(super) fn flush(&mut self, queue: &Queue) {
        if let Some(chunk) = self.0.take() {
            queue.push(chunk);
        }
    }
}

/// What the sender does next.
#[derive(Debug)]
pub(super) enum Task {
    /// A run is followed from this place on.
    Began(Place),
    Send(Chunk),
    /// The publisher is gone; this would have been its next message.
    Ended(Place),
    Answer(Query, Result<Vec<u8>, CallError>),
    /// Nothing happened until the deadline. All before this place was sent, or is lost.
    Beat(Option<Place>),
    /// The reader has ended, and all before this place was sent, or is lost.
    Stop(Option<Place>),
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<Task>,
    answers: VecDeque<(Query, Result<Vec<u8>, CallError>)>,
    bytes: usize,
    /// The place behind all that the reader has had.
    read: Option<Place>,
    stopped: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    when_behind: WhenBehind,
    memory: usize,
    counts: Arc<Counts>,
}

/// Answers that wait at most: a peer that asks without end is not answered without end.
const MAX_ANSWERS: usize = 1024;

impl Queue {
    pub(super) fn new(settings: &Settings, counts: Arc<Counts>) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            when_behind: settings.when_behind,
            memory: settings.memory,
            counts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds messages, or drops some as the topic's settings say. Waits for room only with [`WhenBehind::Wait`].
    pub(super) fn push(&self, chunk: Chunk) {
        let mut state = self.lock();
        if let Some(Task::Send(last)) = state.tasks.back_mut()
            && last.append(&chunk)
        {
            let len = chunk.len();
            self.set_bytes(&mut state, |bytes| bytes + len);
            return;
        }
        let cost = chunk.cost();
        // One message that is larger than all of the memory is still carried, alone.
        let has_room = |state: &State| state.bytes == 0 || state.bytes.saturating_add(cost) <= self.memory;
        if !has_room(&state) {
            match self.when_behind {
                WhenBehind::DropNewest => {}
                WhenBehind::DropOldest => while !has_room(&state) && self.drop_oldest(&mut state) {},
                WhenBehind::Wait(time) => {
                    let wait = self
                        .drained
                        .wait_timeout_while(state, time, |state| !has_room(state) && !state.stopped);
                    state = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
            if !has_room(&state) {
                add(&self.counts.counters.dropped, chunk.count);
                return;
            }
        }
        state.tasks.push_back(Task::Send(chunk));
        self.set_bytes(&mut state, |bytes| bytes + cost);
        drop(state);
        self.filled.notify_one();
    }

    fn drop_oldest(&self, state: &mut State) -> bool {
        let Some(at) = state.tasks.iter().position(|task| matches!(task, Task::Send(_))) else {
            return false;
        };
        if let Some(Task::Send(chunk)) = state.tasks.remove(at) {
            add(&self.counts.counters.dropped, chunk.count);
            self.set_bytes(state, |bytes| bytes.saturating_sub(chunk.cost()));
        }
        true
    }

    fn set_bytes(&self, state: &mut State, change: impl FnOnce(usize) -> usize) {
        state.bytes = change(state.bytes);
        self.counts.waiting.store(u64::try_from(state.bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// Notes the place behind all that the reader has had: messages that it did not push are lost.
    pub(super) fn note_read(&self, place: Place) {
        self.lock().read = Some(place);
    }

    /// Adds the beginning or the end of a run, which is never dropped.
    pub(super) fn tell(&self, task: Task) {
        let mut state = self.lock();
        if let Task::Began(place) | Task::Ended(place) = &task {
            state.read = Some(*place);
        }
        state.tasks.push_back(task);
        drop(state);
        self.filled.notify_one();
    }

    /// Adds an answer. It is sent before messages that wait.
    pub(super) fn answer(&self, query: Query, answer: Result<Vec<u8>, CallError>) {
        if answer.is_err() {
            add(&self.counts.counters.failed_calls, 1);
        }
        let mut state = self.lock();
        if state.answers.len() < MAX_ANSWERS {
            state.answers.push_back((query, answer));
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Nothing more comes.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// What to do next, until `deadline`.
    pub(super) fn next(&self, deadline: Instant) -> Task {
        let mut state = self.lock();
        loop {
            if let Some((query, answer)) = state.answers.pop_front() {
                return Task::Answer(query, answer);
            }
            if let Some(task) = state.tasks.pop_front() {
                if let Task::Send(chunk) = &task {
                    self.set_bytes(&mut state, |bytes| bytes.saturating_sub(chunk.cost()));
                    drop(state);
                    self.drained.notify_one();
                }
                return task;
            }
            if state.stopped {
                return Task::Stop(state.read);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Task::Beat(state.read);
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
