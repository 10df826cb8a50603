//! What local subscribers bring about: they join and leave, ask, and get what came of it.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use sealane::{Event, Message, SubscriberId};

use super::{super::inbox::Answer, Local, TURN};
use crate::{
    counts::add,
    wire::{call::CallError, notice::Notice},
};

impl Local {
    /// True if there may be more to hear.
    ///
    /// UNTRUSTED: a subscriber that sends without end does not hold the source's messages up.
    pub(super) fn hear_subscribers(&mut self) -> sealane::Result<bool> {
        let (mut news, mut heard) = (false, 0);
        while heard < TURN
            && let Some(event) = self.publisher.next_event()?
        {
            heard += 1;
            match event {
                Event::Message(id, message) => self.ask(id, &message),
                Event::Joined(_) => (news, self.owes_place) = (true, true),
                Event::Left(id, why) => {
                    log::info!("{id:?} is gone: {why}");
                    news = true;
                }
                _ => {}
            }
        }
        if news {
            let subscribers = self.publisher.subscribers();
            self.counts.subscribers.store(u64::try_from(subscribers.len()).unwrap_or(u64::MAX), Relaxed);
            // Who has come back knows what it has missed by that.
            if self.owes_place {
                self.tell_place()?;
            }
            // Who has just come does not know that the source is gone.
            if let Some(Err(gone)) = self.presence.told
                && self.notices
            {
                self.tell(Notice::Gone(gone))?;
            }
        }
        let slowest = self.publisher.subscribers().iter().map(sealane::SubscriberInfo::lag).max();
        self.counts.lag.store(slowest.unwrap_or(0), Relaxed);
        Ok(heard == TURN)
    }

    /// A subscriber has sent something, or asks.
    fn ask(&mut self, subscriber: SubscriberId, message: &Message) {
        let token = message.reply_token();
        let sent = if message.fds().is_empty() {
            self.calls.push(subscriber, token, message.control())
        } else {
            Err(CallError::Descriptors)
        };
        add(&self.counts.counters.calls, 1);
        if let Err(why) = sent {
            self.answer(Answer { subscriber, token, result: Err(why), share: None });
        }
    }

    /// Gives subscribers what came of their requests. Returns when to try again, if some had no room for it.
    pub(super) fn reply(&mut self) -> Option<Instant> {
        for answer in self.inbox.answers() {
            self.answer(answer);
        }
        self.replies.try_again(&mut self.publisher, Instant::now())
    }

    fn answer(&mut self, answer: Answer) {
        if let Err(why) = &answer.result {
            let failed = add(&self.counts.counters.failed_calls, 1);
            if answer.token.is_none() && failed.is_power_of_two() {
                log::warn!("a message of a subscriber was lost: {why}");
            }
        }
        self.replies.give(&mut self.publisher, answer);
    }
}
