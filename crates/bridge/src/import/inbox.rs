//! [`Inbox`]: what came from the network, until it is published. Bounded in bytes; who puts something in is never blocked.

use std::{
    collections::{BTreeSet, VecDeque},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use sealane::{ReplyToken, SubscriberId};
use zenoh::{
    bytes::ZBytes,
    sample::{Sample, SampleKind},
};

use super::shares::Share;
use crate::{
    counts::{Counts, add},
    settings::{Settings, WhenBehind},
    wake::Wake,
    wire::{
        Head, Kind, Malformed,
        beat::{self, Ended},
        call::CallError,
        pack::{Entries, MAX_PACK},
    },
};

/// Bytes that a sample counts for besides its own.
const OVERHEAD: usize = 256;

/// Payloads below this are copied to wait. Zenoh receives up to 64 KiB at once.
const SMALL: usize = 64 << 10;

/// Tokens of a topic that are remembered: of so many runs that are exported at once.
const MAX_TOKENS: usize = 64;

/// A sample that is well formed.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) head: Head,
    pub(super) content: Content,
    cost: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    Message {
        control: Vec<u8>,
        payload: ZBytes,
    },
    /// A pack of so many messages.
    Pack(Vec<u8>, u64),
    Beat(Vec<Ended>),
}

impl Arrived {
    /// Messages in it.
    pub(super) fn count(&self) -> u64 {
        match self.content {
            Content::Message { .. } => 1,
            Content::Pack(_, count) => count,
            Content::Beat(_) => 0,
        }
    }

    /// Bytes, as they came.
    pub(super) fn len(&self) -> usize {
        self.cost - OVERHEAD
    }

    /// Has a small payload in memory of its own. As it came it is a part of all that was received with it, which would stay, too.
    fn keep(&mut self) {
        if let Content::Message { payload, .. } = &mut self.content
            && payload.len() < SMALL
        {
            *payload = ZBytes::from(payload.to_bytes().into_owned());
        }
    }

    /// UNTRUSTED: everything, see [`Head::parse`] and [`Entries`].
    fn parse(sample: &Sample, max_message: usize, max_control: usize) -> Result<Self, Malformed> {
        if sample.kind() == SampleKind::Delete {
            return Err(Malformed::Deletion);
        }
        let no_head = Malformed::NoHead { found: 0 };
        let attachment = sample.attachment().ok_or(no_head)?.to_bytes();
        let (head, control) = Head::parse(&attachment)?;
        let payload = sample.payload();
        let limit = |what, found, max| {
            if found > max { Err(Malformed::TooLarge { what, found, max }) } else { Ok(()) }
        };
        let content = match head.kind {
            Kind::Message => {
                limit("control bytes", control.len(), max_control)?;
                limit("a payload", payload.len(), if head.without_payload { 0 } else { max_message })?;
                Content::Message { control: control.to_vec(), payload: payload.clone() }
            }
            Kind::Pack => {
                limit("control bytes of a pack", control.len(), 0)?;
                limit("a pack", payload.len(), MAX_PACK)?;
                let bytes = payload.to_bytes().into_owned();
                let count = Entries::count(&bytes)?;
                Content::Pack(bytes, count)
            }
            Kind::Beat => {
                limit("control bytes of a beat", control.len(), 0)?;
                Content::Beat(beat::parse(&payload.to_bytes())?)
            }
        };
        let cost = payload.len().saturating_add(attachment.len()).saturating_add(OVERHEAD);
        Ok(Self { head, content, cost })
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) subscriber: SubscriberId,
    /// `None` for a message, which has no reply.
    pub(super) token: Option<ReplyToken>,
    pub(super) result: Result<Vec<u8>, CallError>,
    /// `None` for a request that was refused.
    #[expect(dead_code, reason = "it is held as long as the answer waits")]
    pub(super) share: Option<Share>,
}

#[derive(Debug, Default)]
struct State {
    arrived: VecDeque<Arrived>,
    bytes: usize,
    /// As many as are open, see [`Shares`](super::shares::Shares).
    answers: VecDeque<Answer>,
    tokens: BTreeSet<u64>,
    failure: Option<sealane::Error>,
    stopped: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Wake,
    memory: usize,
    drops_oldest: bool,
    max_message: usize,
    max_control: usize,
    counts: Arc<Counts>,
}

impl Inbox {
    pub(super) fn new(settings: &Settings, wake: Wake, counts: Arc<Counts>) -> Self {
        Self {
            state: Mutex::default(),
            wake,
            memory: settings.memory,
            drops_oldest: settings.when_behind == WhenBehind::DropOldest,
            max_message: settings.max_message(),
            max_control: settings.max_control,
            counts,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sample from one of Zenoh's threads, if it is well formed. A message that is refused is missed by its number.
    pub(super) fn check(&self, sample: &Sample) -> Option<Arrived> {
        let parsed = Arrived::parse(sample, self.max_message, self.max_control);
        parsed.inspect_err(|why| self.counts.refuse(&self.counts.counters.malformed, why)).ok()
    }

    /// Adds a sample, or drops some as the topic's settings say; they are missed by their numbers.
    pub(super) fn put(&self, mut arrived: Arrived) {
        arrived.keep();
        let dropped = &self.counts.counters.dropped;
        let mut state = self.lock();
        let was_empty = state.arrived.is_empty();
        // One message that is larger than all of the memory is still carried, alone.
        while state.bytes > 0 && state.bytes.saturating_add(arrived.cost) > self.memory {
            if !self.drops_oldest {
                add(dropped, arrived.count());
                return;
            }
            let Some(oldest) = state.arrived.pop_front() else { break };
            add(dropped, oldest.count());
            state.bytes = state.bytes.saturating_sub(oldest.cost);
        }
        state.bytes = state.bytes.saturating_add(arrived.cost);
        state.arrived.push_back(arrived);
        self.counts.waiting.store(u64::try_from(state.bytes).unwrap_or(u64::MAX), Relaxed);
        drop(state);
        if was_empty {
            self.wake.wake();
        }
    }

    /// Counts a token that is none.
    pub(super) fn refuse_token(&self) {
        self.counts.refuse(&self.counts.counters.malformed, &"a token that names no run");
    }

    /// Notes that a run's token is there, or gone.
    ///
    /// UNTRUSTED: anybody may declare tokens. So many are remembered.
    pub(super) fn set_token(&self, run: u64, is_there: bool) {
        let mut state = self.lock();
        if !is_there {
            state.tokens.remove(&run);
        } else if state.tokens.len() < MAX_TOKENS {
            state.tokens.insert(run);
        } else {
            drop(state);
            return self.counts.refuse(&self.counts.counters.malformed, &"too many tokens of one topic");
        }
        drop(state);
        self.wake.wake();
    }

    /// Whether a run's token is there.
    pub(super) fn has_token(&self, run: u64) -> bool {
        self.lock().tokens.contains(&run)
    }

    /// Nothing is known of any token.
    pub(super) fn forget_tokens(&self) {
        self.lock().tokens.clear();
        self.wake.wake();
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().arrived.is_empty()
    }

    /// The publisher has failed in one of Zenoh's threads.
    pub(super) fn fail(&self, why: sealane::Error) {
        self.lock().failure = Some(why);
        self.wake_up();
    }

    pub(super) fn failure(&self) -> Option<sealane::Error> {
        self.lock().failure.take()
    }

    /// Has the publisher's thread look again.
    pub(super) fn wake_up(&self) {
        self.wake.wake();
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.lock().answers.push_back(answer);
        self.wake.wake();
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.wake.wake();
    }

    /// The next sample. `None` also if all is to stop.
    pub(super) fn take(&self) -> Option<Arrived> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        let arrived = state.arrived.pop_front()?;
        state.bytes = state.bytes.saturating_sub(arrived.cost);
        self.counts.waiting.store(u64::try_from(state.bytes).unwrap_or(u64::MAX), Relaxed);
        Some(arrived)
    }

    /// The answers that came.
    pub(super) fn answers(&self) -> VecDeque<Answer> {
        std::mem::take(&mut self.lock().answers)
    }

    /// Makes what wakes quiet again: what comes from now on wakes. True if there is something already.
    pub(super) fn arm(&self) -> bool {
        self.wake.clear();
        let state = self.lock();
        !state.arrived.is_empty() || !state.answers.is_empty() || state.failure.is_some() || state.stopped
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    pub(super) fn wake(&self) -> &impl AsFd {
        &self.wake
    }
}
