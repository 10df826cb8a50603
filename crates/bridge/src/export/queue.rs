//! [`Queue`]: what the reader has taken from the ring, until the sender has given it to Zenoh. Bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use sealane::Payload;
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

/// Bytes that wait at most where the publisher waits too: more would only be cold in the cache when it is sent.
const PIPELINE: usize = 512 << 10;

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
    Message { control: Vec<u8>, payload: Option<Bytes>, without_fds: bool },
    /// A pack's bytes.
    Pack(Vec<u8>),
}

/// A payload on its way.
#[derive(Debug)]
pub(super) enum Bytes {
    Copied(Vec<u8>),
    /// Still in the ring, which has no room for others meanwhile: where the publisher waits for us anyway. So it is read once, by the thread
    /// that needs it.
    Held(Payload),
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Held(payload) => payload.len(),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`sealane::Error::Overrun`] if the publisher has ended us, and written over them since.
    pub(super) fn into_vec(self) -> sealane::Result<Vec<u8>> {
        match self {
            Self::Copied(bytes) => Ok(bytes),
            Self::Held(payload) => payload.try_to_vec(),
        }
    }
}

impl Chunk {
    /// Bytes of messages, and of their lengths.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Message { control, payload, .. } => {
                control.len().saturating_add(payload.as_ref().map_or(0, Bytes::len))
            }
            Body::Pack(bytes) => bytes.len(),
        }
    }

    fn cost(&self) -> usize {
        self.len().saturating_add(OVERHEAD)
    }

    /// Whether it is a pack whose numbers go on at `place`, with room for `len` bytes more.
    fn takes(&self, place: Place, len: usize) -> bool {
        let next = Place { number: self.place.number.saturating_add(self.count), ..self.place };
        matches!(&self.body, Body::Pack(bytes) if bytes.len().saturating_add(len) <= MAX_PACK)
            && next == place
    }

    /// Appends the messages of another pack, if it takes them.
    fn append(&mut self, next: &Self) -> bool {
        let takes = self.takes(next.place, next.len());
        match (&mut self.body, &next.body) {
            (Body::Pack(bytes), Body::Pack(more)) if takes => {
                bytes.extend_from_slice(more);
                self.count += next.count;
                true
            }
            _ => false,
        }
    }
}

/// Messages on their way into the queue, so that it is locked once for many.
#[derive(Debug, Default)]
pub(super) struct Filling {
    chunks: Vec<Chunk>,
    len: usize,
}

impl Filling {
    /// Whether a message of these lengths goes into a pack at all.
    pub(super) fn takes(control: usize, payload: Option<usize>) -> bool {
        control.saturating_add(payload.unwrap_or(0)) <= MAX_PACK / 4
    }

    /// Appends a message of `place` to the last pack, or to a new one. False if it was overwritten meanwhile: then it is missed.
    pub(super) fn add(
        &mut self,
        place: Place,
        control: &[u8],
        payload: Option<&Payload>,
        without_fds: bool,
    ) -> bool {
        let payload_len = payload.map(Payload::len);
        let len = ENTRY_LEN + control.len() + payload_len.unwrap_or(0);
        if !self.chunks.last().is_some_and(|chunk| chunk.takes(place, len)) {
            self.chunks.push(Chunk { place, count: 0, body: Body::Pack(Vec::with_capacity(len.max(1024))) });
        }
        let Some(Chunk { count, body: Body::Pack(bytes), .. }) = self.chunks.last_mut() else { return false };
        let before = bytes.len();
        let mut is_whole = pack::push_lens(bytes, control.len(), payload_len, without_fds);
        bytes.extend_from_slice(control);
        if let Some(payload) = payload {
            payload.bytes().for_each_block(|block| bytes.extend_from_slice(block));
            is_whole &= payload.is_whole();
        }
        if is_whole {
            *count += 1;
            self.len += len;
            return true;
        }
        bytes.truncate(before);
        if *count == 0 {
            self.chunks.pop();
        }
        false
    }

    /// Adds a message that has a sample of its own.
    pub(super) fn push(&mut self, chunk: Chunk) {
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives all to the sender. What was read before `place` and is not among it is lost.
    pub(super) fn flush(&mut self, queue: &Queue, place: Place) {
        self.len = 0;
        queue.push(self.chunks.drain(..), place);
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
    /// The subscription has ended before this place, and the publisher goes on without it.
    Left(Place),
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

/// Answers that the sender takes at once, before messages that wait.
const ANSWERED: usize = 16;

/// Tasks that the sender takes at once, and so cannot be dropped any more.
const TAKEN: usize = 64;

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
        let most = if let WhenBehind::Wait(_) = settings.when_behind { PIPELINE } else { usize::MAX };
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            when_behind: settings.when_behind,
            memory: settings.memory.min(most),
            counts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds messages, or drops some as the topic's settings say. Waits for room only with [`WhenBehind::Wait`]. `read` is the place behind
    /// all that was read.
    fn push(&self, chunks: impl Iterator<Item = Chunk>, read: Place) {
        let mut state = self.lock();
        for chunk in chunks {
            state = self.push_one(state, chunk);
        }
        state.read = Some(read);
        let is_waiting = !state.tasks.is_empty();
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }

    fn push_one<'q>(&'q self, mut state: MutexGuard<'q, State>, chunk: Chunk) -> MutexGuard<'q, State> {
        if let Some(Task::Send(last)) = state.tasks.back_mut()
            && last.append(&chunk)
        {
            let len = chunk.len();
            self.set_bytes(&mut state, |bytes| bytes + len);
            return state;
        }
        let cost = chunk.cost();
        // One message that is larger than all of the memory is still carried, alone.
        let has_room = |state: &State| state.bytes == 0 || state.bytes.saturating_add(cost) <= self.memory;
        if !has_room(&state) {
            match self.when_behind {
                WhenBehind::DropNewest => {}
                WhenBehind::DropOldest => while !has_room(&state) && self.drop_oldest(&mut state) {},
                WhenBehind::Wait(time) => {
                    self.filled.notify_one();
                    let wait = self
                        .drained
                        .wait_timeout_while(state, time, |state| !has_room(state) && !state.stopped);
                    state = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
            if !has_room(&state) {
                add(&self.counts.counters.dropped, chunk.count);
                return state;
            }
        }
        state.tasks.push_back(Task::Send(chunk));
        self.set_bytes(&mut state, |bytes| bytes + cost);
        state
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

    /// Whether the publisher waits where this queue has no room.
    pub(super) fn waits(&self) -> bool {
        matches!(self.when_behind, WhenBehind::Wait(_))
    }

    /// Adds the beginning or the end of a run, which is never dropped.
    pub(super) fn tell(&self, task: Task) {
        let mut state = self.lock();
        if let Task::Began(place) | Task::Ended(place) | Task::Left(place) = &task {
            state.read = Some(*place);
        }
        state.tasks.push_back(task);
        drop(state);
        self.filled.notify_one();
    }

    /// Adds an answer. Answers and messages that wait take turns.
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

    /// What to do next, until `deadline`: at least one task, and whether others wait behind it.
    pub(super) fn next(&self, deadline: Instant) -> (VecDeque<Task>, bool) {
        let mut state = self.lock();
        loop {
            // UNTRUSTED: who asks without end does not hold messages up.
            let answered = state.answers.len().min(ANSWERED);
            let answers = state.answers.drain(..answered);
            let mut next: VecDeque<_> = answers.map(|(query, answer)| Task::Answer(query, answer)).collect();
            let mut bytes = 0;
            while bytes < MAX_PACK
                && next.len() < TAKEN
                && let Some(task) = state.tasks.pop_front()
            {
                if let Task::Send(chunk) = &task {
                    bytes += chunk.cost();
                }
                next.push_back(task);
            }
            if bytes > 0 {
                self.set_bytes(&mut state, |waiting| waiting.saturating_sub(bytes));
                let has_more = !state.tasks.is_empty();
                // The reader is woken for more than one message.
                if state.bytes <= self.memory / 2 {
                    drop(state);
                    self.drained.notify_one();
                }
                return (next, has_more);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if next.is_empty() && state.stopped {
                next.push_back(Task::Stop(state.read));
            } else if next.is_empty() && left == Duration::ZERO {
                next.push_back(Task::Beat(state.read));
            }
            if !next.is_empty() {
                return (next, false);
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use sealane::{Builder, Slow};

    use super::*;

    #[test]
    fn what_was_overwritten_while_it_was_held_is_not_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers");
        let slow = Slow::Wait(Duration::from_millis(20));
        let mut publisher = Builder::default().slow(slow).ring_capacity(1 << 16).publish(&path).unwrap();
        let joining = std::thread::spawn(move || Builder::default().slow(slow).subscribe(path).unwrap());
        while publisher.subscribers().is_empty() {
            publisher.wait_event(Duration::from_millis(10)).unwrap();
        }
        let mut subscriber = joining.join().unwrap();
        let mut publish = || publisher.loan(1000).unwrap().send_with(b"number").unwrap();
        publish();
        publish();
        let [first, second] = [(); 2].map(|()| subscriber.recv().unwrap());
        let mut filling = Filling::default();
        let place = |number| Place { run: 1, number, source: 0 };
        assert!(filling.add(place(0), b"number", first.payload(), false));
        let len = filling.len();
        // The publisher ends the subscription, and goes on over what it holds.
        (0..200).for_each(|_| publish());
        assert!(!filling.add(place(1), b"number", second.payload(), false));
        assert_eq!(filling.len(), len, "the pack is as it was");
        let mut filling = Filling::default();
        assert!(!filling.add(place(1), b"number", second.payload(), false));
        assert!(filling.chunks.is_empty());
    }
}
