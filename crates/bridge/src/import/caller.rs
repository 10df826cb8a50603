//! [`Caller`]: the thread that asks in the name of local subscribers. Zenoh may block it.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sealane::{ReplyToken, SubscriberId};
use zenoh::{
    Wait,
    query::{ConsolidationMode, QueryTarget, Reply},
};

use super::{
    inbox::{Answer, Inbox},
    shares::{Share, Shares},
};
use crate::{
    renewal::Current,
    settings::Settings,
    waiting::Waiting,
    wire::{
        Keys,
        call::{Ask, CallError},
    },
};

/// Bytes of a far bridge's reason that are read at most.
const MAX_REASON: usize = 256;
const MAX_REASON_READ: u64 = 256;

/// What a local subscriber has sent.
#[derive(Debug)]
struct Call {
    share: Share,
    /// `None` for a message, which has no reply.
    token: Option<ReplyToken>,
    control: Vec<u8>,
}

/// Requests that were not asked yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: Waiting<Call>,
    shares: Arc<Shares>,
}

impl Calls {
    /// Adds what a subscriber has sent; never blocks.
    ///
    /// UNTRUSTED: it sends as much as it likes.
    pub(super) fn push(
        &self,
        subscriber: SubscriberId,
        token: Option<ReplyToken>,
        control: &[u8],
    ) -> Result<(), CallError> {
        let share = Shares::take(&self.shares, subscriber).ok_or(CallError::Busy)?;
        // Shares bound them.
        self.waiting.push(Call { share, token, control: control.to_vec() }, usize::MAX);
        Ok(())
    }

    /// Nothing more is asked.
    pub(super) fn stop(&self) {
        self.waiting.abandon();
    }
}

/// See the module.
pub(super) struct Caller {
    session: Current,
    key: String,
    timeout: Duration,
    max_reply: usize,
    calls: Arc<Calls>,
    inbox: Arc<Inbox>,
}

impl Caller {
    pub(super) fn new(
        session: &Current,
        keys: &Keys,
        settings: &Settings,
        calls: &Arc<Calls>,
        inbox: &Arc<Inbox>,
    ) -> Self {
        let (calls, inbox) = (Arc::clone(calls), Arc::clone(inbox));
        let (timeout, max_reply) = (settings.call_timeout, settings.max_control);
        Self { session: session.clone(), key: keys.calls(), timeout, max_reply, calls, inbox }
    }

    pub(super) fn run(self) {
        while let Some(call) = self.calls.waiting.next() {
            self.ask(call);
        }
    }

    fn ask(&self, call: Call) {
        let Call { share, token, control } = call;
        let ask = Ask { wants_reply: token.is_some(), timeout: self.timeout };
        let asked = Asked {
            first: Mutex::new(None),
            share: Some(share),
            token,
            max_reply: self.max_reply,
            inbox: Arc::clone(&self.inbox),
        };
        // The exporter gives up at the timeout. Its answer that it did so is waited for a little longer.
        let timeout = self.timeout.saturating_add(Duration::from_millis(200));
        let sent = self
            .session
            .get()
            .get(self.key.as_str())
            .payload(control)
            .attachment(ask.to_bytes())
            .target(QueryTarget::BestMatching)
            .consolidation(ConsolidationMode::None)
            .timeout(timeout)
            .callback(move |reply| asked.take(&reply))
            .wait();
        if let Err(why) = sent {
            log::debug!("{}: {why}", self.key);
        }
    }
}

/// A request that Zenoh has. Zenoh drops it when no reply comes any more; then the subscriber gets the first one, or the reason
/// why there is none.
struct Asked {
    first: Mutex<Option<Result<Vec<u8>, CallError>>>,
    share: Option<Share>,
    token: Option<ReplyToken>,
    max_reply: usize,
    inbox: Arc<Inbox>,
}

impl Asked {
    /// UNTRUSTED: any peer may reply, with what it likes.
    fn take(&self, reply: &Reply) {
        let answer = match reply.result() {
            Ok(sample) if sample.payload().len() > self.max_reply => Err(CallError::TooLarge),
            Ok(sample) => Ok(sample.payload().to_bytes().into_owned()),
            Err(error) => {
                let mut bytes = Vec::with_capacity(MAX_REASON);
                // A reader of bytes in memory does not fail.
                let _ = error.payload().reader().take(MAX_REASON_READ).read_to_end(&mut bytes);
                let text = String::from_utf8_lossy(&bytes);
                Err(match CallError::of(text.as_bytes()) {
                    Some(why) => why,
                    None if text == "Timeout" => CallError::TimedOut,
                    None => CallError::Refused(text.into_owned()),
                })
            }
        };
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // A reply goes before an error of another bridge that exports the same.
        if first.as_ref().is_none_or(|first| first.is_err() && answer.is_ok()) {
            *first = Some(answer);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = first.unwrap_or(Err(CallError::NobodyThere));
        if let Some(share) = self.share.take() {
            let subscriber = share.subscriber();
            self.inbox.answer(Answer { subscriber, token: self.token, result, share: Some(share) });
        }
    }
}
