//! [`Queue`]: what the reader has taken from the ring, until the sender has given it to Zenoh. Bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::chunk::Chunk;
use crate::{
    counts::{Counts, add},
    settings::{Settings, WhenBehind},
    wire::{Place, pack::MAX_PACK},
};

/// Bytes that wait at most where the publisher waits too: more would only be cold in the cache when it is sent.
const PIPELINE: usize = 512 << 10;

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
    /// Nothing happened until the deadline. All before this place was sent, or is lost.
    Beat(Option<Place>),
    /// The reader has ended, and all before this place was sent, or is lost.
    Stop(Option<Place>),
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<Task>,
    bytes: usize,
    /// The place behind all that the reader has had.
    read: Option<Place>,
    stopped: bool,
}

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
    pub(super) fn push(&self, chunks: impl Iterator<Item = Chunk>, read: Place) {
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
            let mut next = VecDeque::new();
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
