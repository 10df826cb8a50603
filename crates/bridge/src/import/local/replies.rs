//! [`Replies`]: what came of subscribers' requests. Where one does not read its own, they wait for it alone.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use sealane::{Publisher, SubscriberId};

use super::super::inbox::Answer;
use crate::wire::call::CallError;

/// Time between two attempts, as a publisher does not say when a subscriber has read.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers that found no room, oldest first. They are bounded by what a subscriber may have open: see
/// [`Shares`](super::super::shares::Shares), and refusals by [`MAX_REQUESTS`](super::super::MAX_REQUESTS).
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: BTreeMap<SubscriberId, VecDeque<Answer>>,
    /// When they are tried again.
    again: Option<Instant>,
}

impl Replies {
    /// Gives a subscriber what came of its request, behind what waits for it.
    pub(super) fn give(&mut self, publisher: &mut Publisher, mut answer: Answer) {
        if let Some(waiting) = self.waiting.get_mut(&answer.subscriber) {
            waiting.push_back(answer);
        } else if !try_give(publisher, &mut answer) {
            self.again.get_or_insert_with(|| Instant::now() + PAUSE);
            self.waiting.insert(answer.subscriber, VecDeque::from([answer]));
        }
    }

    /// Tries what waits, if it is time. Returns when to try again.
    pub(super) fn try_again(&mut self, publisher: &mut Publisher, now: Instant) -> Option<Instant> {
        if self.again.is_none_or(|again| now < again) {
            return self.again;
        }
        self.waiting.retain(|_, waiting| {
            while waiting.front_mut().is_some_and(|answer| try_give(publisher, answer)) {
                waiting.pop_front();
            }
            !waiting.is_empty()
        });
        self.again = (!self.waiting.is_empty()).then(|| now + PAUSE);
        self.again
    }
}

/// False if there is no room for it.
fn try_give(publisher: &mut Publisher, answer: &mut Answer) -> bool {
    let Some(token) = answer.token else { return true };
    loop {
        let text;
        let bytes = match &answer.result {
            Ok(bytes) => bytes.as_slice(),
            Err(why) => {
                text = why.to_string();
                text.as_bytes()
            }
        };
        match publisher.reply(answer.subscriber, token, bytes) {
            Err(sealane::Error::Full | sealane::Error::FdsInFlight) => return false,
            Err(sealane::Error::ControlTooLarge { .. }) if answer.result != Err(CallError::TooLarge) => {
                answer.result = Err(CallError::TooLarge);
            }
            // The subscriber is gone.
            Err(_) | Ok(()) => return true,
        }
    }
}
