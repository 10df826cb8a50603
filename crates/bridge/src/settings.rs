//! [`Settings`] of a topic.

use std::time::Duration;

use crate::error::{Error, Result};

/// What becomes of messages that come faster than they can be passed on, once a topic's memory is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBehind {
    /// The oldest that wait are dropped. For what is only worth something while it is new.
    DropOldest,
    /// The newest are dropped.
    DropNewest,
    /// The publisher waits, for this time at most for each message that finds no room; then the newest are dropped. Links that do not
    /// take more are waited for as long, too. Only for exports: a bridge that imports never holds the network up.
    Wait(Duration),
}

/// What becomes of a message that has descriptors, which do not cross the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fds {
    /// It is not passed on, and counts as missed.
    #[default]
    Refuse,
    /// It is passed on without them. The bridges count it.
    LeaveOut,
}

/// How one topic is carried. The same type for both directions: what only one of them needs says so.
///
/// ```
/// use std::time::Duration;
/// use sealane_bridge::{Settings, WhenBehind};
///
/// let mut settings = Settings::default();
/// settings.when_behind = WhenBehind::Wait(Duration::from_secs(1));
/// assert_eq!(settings.memory, 64 << 20);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Export: the bridge's wish to the publisher. Import: the rule for local subscribers. Default: waits for 100 ms.
    pub slow: sealane::Slow,
    /// What is dropped when a topic is behind. Default: [`WhenBehind::DropNewest`].
    pub when_behind: WhenBehind,
    /// Most bytes that wait in the bridge. Default: 64 MiB.
    pub memory: usize,
    /// Messages with descriptors. Default: [`Fds::Refuse`].
    pub fds: Fds,
    /// Export: one sample of Zenoh a message, for its other users. Default: small messages share one.
    pub plain: bool,
    /// Import: bytes of the local publisher's ring. Default: 4 MiB.
    pub ring: usize,
    /// Most control bytes of a message, on both sides. Default: 64 KiB.
    pub max_control: usize,
    /// Import: most local subscribers. Default: 16.
    pub max_subscribers: usize,
    /// Export: the time between two beats, which say that the source is there, and where it stands. Default: 200 ms.
    pub beat: Duration,
    /// Import: the source is gone when nothing was heard for this time. Default: 2 s.
    pub silence: Duration,
    /// The longest that a request waits for its reply: a local subscriber's at an import, any at an export. Default: 5 s.
    pub call_timeout: Duration,
    /// Import: whether subscribers are told that the source is gone, back, or has lost messages at its end
    /// ([`Notice`](crate::Notice)). Default: yes.
    pub notices: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slow: sealane::Slow::default(),
            when_behind: WhenBehind::DropNewest,
            memory: 64 << 20,
            fds: Fds::default(),
            plain: false,
            ring: 4 << 20,
            max_control: 64 << 10,
            max_subscribers: 16,
            beat: Duration::from_millis(200),
            silence: Duration::from_secs(2),
            call_timeout: Duration::from_secs(5),
            notices: true,
        }
    }
}

impl Settings {
    /// Import: the longest message that fits into half of the [`ring`](Self::ring), control bytes included.
    #[must_use]
    pub fn max_message(&self) -> usize {
        (self.ring / 2).saturating_add(self.max_control)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::Setting(why));
        if self.memory == 0 {
            return refuse("memory: at least one byte expected, 0 found".into());
        }
        if self.beat.is_zero() {
            return refuse("beat: a time above 0 expected".into());
        }
        if self.silence < self.beat.saturating_mul(2) {
            let (silence, beat) = (self.silence, self.beat);
            return refuse(format!(
                "silence: {silence:?} is less than two beats of {beat:?}, so a source that is there would count as gone"
            ));
        }
        Ok(())
    }
}
