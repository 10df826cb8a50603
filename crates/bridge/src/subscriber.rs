//! [`Subscriber`]: a subscriber at a bridge's path that comes back when the bridge is started again.

use std::{
    collections::VecDeque,
    ops::Deref,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sealane::{Builder, Control, Message, Payload, RequestId};

use crate::{
    error::Result,
    tally::{Before, Tally},
    wire::{
        call::CallError,
        notice::{Notice, Standing},
    },
};

/// A message, or what the bridge itself has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// A message of the source.
    Message(Box<BridgedMessage>),
    /// The bridge's own words. [`Notice::Missed`] comes with the number of messages.
    Notice(Notice, u64),
}

/// A message of the source, and what was lost before it.
#[derive(Debug)]
pub struct BridgedMessage {
    message: Message,
    missed: u64,
}

impl BridgedMessage {
    /// Messages that were lost just before it, wherever that was: also those that passed while the bridge was not running.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The message alone.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for BridgedMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A subscriber at the path of a bridge that imports. When the bridge is gone it waits for the next one, and still tells exactly what was
/// missed, by the numbers that messages have at their source.
///
/// Any [`sealane::Subscriber`] can read at a bridge's path. This one tells notices from messages, failed calls from replies, and
/// comes back.
///
/// ```no_run
/// use std::time::Duration;
/// use sealane_bridge::{Received, Subscriber};
///
/// let mut subscriber = Subscriber::connect("/run/remote/stats", Duration::from_secs(5))?;
/// loop {
///     match subscriber.recv(Duration::from_secs(1))? {
///         Some(Received::Message(message)) => println!("{:?}, {} missed", message.control(), message.missed()),
///         Some(Received::Notice(notice, _)) => println!("{notice}"),
///         _ => println!("nothing for a second"),
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), sealane_bridge::Error>(())
/// ```
#[derive(Debug)]
pub struct Subscriber {
    path: PathBuf,
    builder: Builder,
    connected: Option<sealane::Subscriber>,
    tally: Tally,
    /// What came while a reply was awaited.
    kept: VecDeque<Received>,
}

impl Received {
    fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.control().len() + message.payload().map_or(0, Payload::len),
            Self::Notice(..) => 0,
        }
    }
}

/// What is kept while a reply is awaited: as much as a [`sealane::Subscriber`] keeps.
const KEPT_MESSAGES: usize = 64;
const KEPT_BYTES: usize = 4 << 20;

/// Time between two attempts to come back.
const RETRY: Duration = Duration::from_millis(20);

impl Subscriber {
    /// Subscribes at a bridge's path. Waits for the bridge for at most `timeout`.
    ///
    /// # Errors
    /// Those of [`sealane::Builder::subscribe`], the last one when the time is over.
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self> {
        Self::connect_with(&Builder::default(), path, timeout)
    }

    /// Like [`connect`](Self::connect), with settings of its own.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_with(builder: &Builder, path: impl AsRef<Path>, timeout: Duration) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let mut this = Self {
            path,
            builder: builder.clone(),
            connected: None,
            tally: Tally::default(),
            kept: VecDeque::new(),
        };
        let deadline = deadline(timeout);
        while let Err(why) = this.try_connect() {
            if !wait_a_little(deadline) {
                return Err(why.into());
            }
        }
        Ok(this)
    }

    fn try_connect(&mut self) -> sealane::Result<&mut sealane::Subscriber> {
        if self.connected.is_none() {
            self.connected = Some(self.builder.subscribe(&self.path)?);
            self.tally.come_back();
        }
        self.connected.as_mut().ok_or(sealane::Error::Disconnected)
    }

    /// Waits for the next message or notice, for at most `timeout`; `None` if there was none. While the bridge is gone it tries to come back.
    ///
    /// # Errors
    /// [`Error::Sealane`](crate::Error::Sealane) for what a bridge that is started again cannot mend: a violation of the protocol
    /// ([`sealane::Error::Protocol`]), or descriptors that could not be had.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Received>> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(Some(kept));
        }
        let deadline = deadline(timeout);
        loop {
            let Ok(subscriber) = self.try_connect() else {
                if !wait_a_little(deadline) {
                    return Ok(None);
                }
                continue;
            };
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match subscriber.recv_timeout(left) {
                Ok(message) => {
                    if let Some(received) = self.receive(message) {
                        return Ok(Some(received));
                    }
                }
                Err(why) if why.is_timeout() => return Ok(None),
                // The bridge has ended, or was too fast: it may be there again.
                Err(sealane::Error::Disconnected | sealane::Error::TooSlow) => self.connected = None,
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// What a message is to the user: nothing, if it only says where the source stands.
    fn receive(&mut self, message: Message) -> Option<Received> {
        // Nothing is kept in the subscription, so this is the number of the message behind this one.
        let next = self.connected.as_ref().map_or(0, sealane::Subscriber::number);
        let (sequence, missed) = (message.sequence(), message.missed());
        match Notice::of(&message) {
            _ if message.in_reply_to().is_some() => None,
            None => {
                let before = self.tally.message(sequence, message.epoch(), next.wrapping_sub(1), missed);
                self.known(before)
                    .map(|missed| Received::Message(Box::new(BridgedMessage { message, missed })))
            }
            Some(Notice::Place) => {
                let standing = str::from_utf8(message.control()).ok().and_then(Standing::of)?;
                let missed = self.tally.standing(sequence, &standing, missed);
                (missed > 0).then_some(Received::Notice(Notice::Missed, missed))
            }
            Some(notice) => {
                let before = self.tally.notice(sequence, next, missed);
                self.known(before).map(|missed| Received::Notice(notice, missed))
            }
        }
    }

    /// The messages missed, if that is known. Else it comes back to be told.
    fn known(&mut self, before: Before) -> Option<u64> {
        match before {
            Before::Missed(missed) => return Some(missed),
            Before::ToldSoon => {}
            Before::Unknown => self.connected = None,
        }
        None
    }

    /// Asks the source's publisher, through both bridges. Messages that come meanwhile are kept, up to 64 and 4 MiB.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) if there is no reply of the publisher, and why; [`Error::Sealane`](crate::Error::Sealane)
    /// as from [`sealane::Subscriber::call`].
    pub fn call<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<Message> {
        let deadline = deadline(timeout);
        let Ok(subscriber) = self.try_connect() else { return Err(CallError::NobodyThere.into()) };
        let request = subscriber.request_timeout(control, timeout)?;
        let reply = self.wait_reply(request, deadline).inspect_err(|why| match why {
            sealane::Error::Disconnected | sealane::Error::TooSlow => self.connected = None,
            _ => self.connected.iter().for_each(|subscriber| subscriber.cancel(request)),
        })?;
        match CallError::of(reply.control()) {
            Some(why) => Err(why.into()),
            None => Ok(reply),
        }
    }

    /// Receives until the reply is here. What comes before it is counted now, and kept.
    fn wait_reply(&mut self, request: RequestId, deadline: Option<Instant>) -> sealane::Result<Message> {
        loop {
            let subscriber = self.connected.as_mut().ok_or(sealane::Error::Disconnected)?;
            let bytes: usize = self.kept.iter().map(Received::len).sum();
            if self.kept.len() >= KEPT_MESSAGES || bytes >= KEPT_BYTES {
                return Err(sealane::Error::Backlog);
            }
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let message = subscriber.recv_timeout(left)?;
            if message.in_reply_to() == Some(request) {
                return Ok(message);
            }
            let received = self.receive(message);
            self.kept.extend(received);
        }
    }

    /// Sends a message to the source's publisher, through both bridges. Whether it arrives, the bridge's status counts.
    ///
    /// # Errors
    /// Those of [`sealane::Subscriber::send_timeout`].
    pub fn send<'c>(&mut self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()> {
        Ok(self.try_connect()?.send_timeout(control, timeout)?)
    }

    /// The subscription at the bridge, if the bridge is there.
    #[must_use]
    pub fn inner(&self) -> Option<&sealane::Subscriber> {
        self.connected.as_ref()
    }
}

/// `None` is for ever.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// False if the time is over.
fn wait_a_little(deadline: Option<Instant>) -> bool {
    let left = deadline.map_or(RETRY, |at| at.saturating_duration_since(Instant::now()));
    std::thread::sleep(left.min(RETRY));
    !left.is_zero()
}
