//! What a publisher says of its subscribers, and what they bring about: [`SubscriberInfo`], [`Newcomer`], [`Event`].

use std::time::Duration;

use crate::{
    channel::{Credentials, Message},
    error::Error,
    protocol::Slow,
};

/// A subscriber, as its publisher names it. Never used again for another one of the same publisher.
///
/// ```
/// # use sealane::{Builder, SubscriberId};
/// use std::collections::HashMap;
///
/// let mut names: HashMap<SubscriberId, &str> = HashMap::new();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub(super) u64);

/// A subscriber, as [`Publisher::subscribers`](crate::Publisher::subscribers) shows it.
///
/// ```no_run
/// # let mut publisher = sealane::Builder::default().publisher()?;
/// for subscriber in publisher.subscribers() {
///     println!("{:?} is {} bytes behind", subscriber.credentials().pid, subscriber.lag());
/// }
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SubscriberInfo {
    pub(super) id: SubscriberId,
    pub(super) credentials: Credentials,
    pub(super) policy: Slow,
    pub(super) lag: u64,
    pub(super) account: Duration,
    pub(super) waits: u64,
    pub(super) missed: u64,
}

impl SubscriberInfo {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// Its process, user and group, when it joined.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// What it was granted.
    #[must_use]
    pub fn policy(&self) -> Slow {
        self.policy
    }

    /// Bytes of the ring, headers and padding included, that it has not released, or not read if nobody waits for it. Its own
    /// word: a hostile one may say what it likes, between 0 and all that was published since it joined.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.lag
    }

    /// The time for which it would still be waited for: see [`Slow::Wait`]. For a subscriber that may be overrun it counts only
    /// while its unread descriptors keep the publisher from sending others.
    #[must_use]
    pub fn account(&self) -> Duration {
        self.account
    }

    /// Times that the publisher began to lack it. One spell counts once, however long it is, and however many calls are refused in it.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.waits
    }

    /// Messages that it says that it has missed. Its own word.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// A process that wishes to subscribe, before it has cost memory or seen anything: see
/// [`Publisher::admit`](crate::Publisher::admit).
///
/// ```
/// # let mut publisher = sealane::Builder::default().publisher()?;
/// // Three of each user at most.
/// publisher.admit(|newcomer| {
///     let uid = newcomer.credentials().uid;
///     let others = newcomer.present().iter().filter(|other| other.credentials().uid == uid);
///     (others.count() < 3).then(|| newcomer.wish())
/// });
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Debug)]
pub struct Newcomer<'p> {
    pub(super) credentials: Credentials,
    pub(super) wish: Slow,
    pub(super) present: &'p [SubscriberInfo],
}

impl Newcomer<'_> {
    /// Its process, user and group, as the kernel vouches.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// The policy that it wishes for. `Slow::Wait(Duration::MAX)` if it has no wish: it takes what it is granted.
    #[must_use]
    pub fn wish(&self) -> Slow {
        self.wish
    }

    /// Those who are subscribers already, or were admitted and are about to be.
    #[must_use]
    pub fn present(&self) -> &[SubscriberInfo] {
        self.present
    }
}

/// What subscribers have brought about: from [`Publisher::next_event`](crate::Publisher::next_event).
///
/// ```
/// use sealane::{Event, Publisher};
///
/// fn serve(publisher: &mut Publisher) -> sealane::Result<()> {
///     while let Some(event) = publisher.next_event()? {
///         match event {
///             Event::Joined(id) => println!("{id:?} reads from now on"),
///             Event::Message(id, message) => {
///                 if let Some(token) = message.reply_token() {
///                     publisher.reply(id, token, b"yes")?;
///                 }
///             }
///             Event::Left(id, reason) => println!("{id:?} is gone: {reason}"),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A subscriber reads from now on.
    Joined(SubscriberId),
    /// A subscriber has sent a message.
    Message(SubscriberId, Message),
    /// A subscriber is gone: [`Error::Disconnected`] by itself, [`Error::TooSlow`] because its time was used up,
    /// [`Error::Protocol`] for a violation. Or one that was [added](crate::Publisher::add) has not joined, for the reason given; a
    /// client of the publisher's path that does not join is no event.
    Left(SubscriberId, Error),
}

impl Event {
    pub(super) fn subscriber(&self) -> SubscriberId {
        let (Self::Joined(id) | Self::Message(id, _) | Self::Left(id, _)) = self;
        *id
    }
}
