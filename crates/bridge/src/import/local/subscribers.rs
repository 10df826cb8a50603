//! What local subscribers bring about: they join and leave, ask, and get what came of it.

use std::sync::atomic::Ordering::Relaxed;

use sealane::{Event, Message, SubscriberId};

use super::{
    super::{caller::Call, inbox::Answer},
    Local,
};
use crate::{
    counts::add,
    wire::{call::CallError, notice::Notice},
};

impl Local {
    pub(super) fn hear_subscribers(&mut self) -> sealane::Result<()> {
        let mut news = false;
        while let Some(event) = self.publisher.next_event()? {
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
        Ok(())
    }

    /// A subscriber has sent something, or asks.
    fn ask(&mut self, subscriber: SubscriberId, message: &Message) {
        let token = message.reply_token();
        let refused = if message.fds().is_empty() {
            let call = Call { subscriber, token, control: message.control().to_vec() };
            self.calls.push(call).err()
        } else {
            Some(CallError::Descriptors)
        };
        add(&self.counts.counters.calls, 1);
        if let Some(why) = refused {
            self.answers.push_back(Answer { subscriber, token, result: Err(why) });
        }
    }

    /// Gives subscribers what came of their requests.
    pub(super) fn reply(&mut self) {
        self.answers.append(&mut self.inbox.answers());
        while let Some(answer) = self.answers.pop_front() {
            let Answer { subscriber, token, result } = &answer;
            if let Err(why) = result {
                let failed = add(&self.counts.counters.failed_calls, 1);
                if token.is_none() && failed.is_power_of_two() {
                    log::warn!("a message of a subscriber was lost: {why}");
                }
            }
            let Some(token) = *token else { continue };
            let text;
            let bytes = match result {
                Ok(bytes) => bytes.as_slice(),
                Err(why) => {
                    text = why.to_string();
                    text.as_bytes()
                }
            };
            match self.publisher.reply(*subscriber, token, bytes) {
                Err(sealane::Error::Full | sealane::Error::FdsInFlight) => {
                    // The publisher's descriptor says when there is room.
                    self.answers.push_front(answer);
                    return;
                }
                Err(sealane::Error::ControlTooLarge { .. }) => {
                    let text = CallError::TooLarge.to_string();
                    let _ = self.publisher.reply(*subscriber, token, text.as_bytes());
                }
                // It is gone, or has cancelled its request.
                Err(_) | Ok(()) => {}
            }
        }
    }
}
