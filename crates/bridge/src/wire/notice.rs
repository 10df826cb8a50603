//! Notices: what a bridge itself tells the subscribers at its path.
//!
//! A notice is a control message whose [`epoch`](sealane::Message::epoch) is 0, which no message of a source has. Its bytes are
//! ASCII text, so that whoever does not know it can still read it.

use std::{fmt, str::FromStr};

use super::{Place, beat::Ended};

/// What a bridge tells the subscribers at its path.
///
/// ```
/// use sealane_bridge::{Gone, Notice};
///
/// let notice: Notice = "sealane-bridge: gone: ended".parse().unwrap();
/// assert_eq!(notice, Notice::Gone(Gone::Ended));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The source is there.
    Here,
    /// The source is gone, and why.
    Gone(Gone),
    /// Messages were lost, and none has followed yet: the notice's [`missed`](sealane::Message::missed) says how many.
    Missed,
    /// Where the source stands. [`Subscriber`](crate::Subscriber) needs it when it comes back, and does not show it.
    Place,
}

/// Why a source is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// Its publisher has ended, as the far bridge says.
    Ended,
    /// The far bridge has ended, or the link to it is cut and Zenoh has noticed.
    Unreachable,
    /// Nothing was heard for the time that was set.
    Silent,
}

const PREFIX: &str = "sealane-bridge: ";

impl Notice {
    const ALL: [Self; 6] = [
        Self::Here,
        Self::Gone(Gone::Ended),
        Self::Gone(Gone::Unreachable),
        Self::Gone(Gone::Silent),
        Self::Missed,
        Self::Place,
    ];

    /// The notice that a message is, if it is one.
    ///
    /// ```
    /// # use sealane_bridge::Notice;
    /// # let (mut ours, mut theirs) = sealane::Channel::pair()?;
    /// # ours.send(b"sealane-bridge: here")?;
    /// # let message = theirs.recv()?;
    /// match Notice::of(&message) {
    ///     Some(notice) => println!("{notice}"),
    ///     None => println!("a message of the source"),
    /// }
    /// # Ok::<(), sealane::Error>(())
    /// ```
    #[must_use]
    pub fn of(message: &sealane::Message) -> Option<Self> {
        if message.epoch() != 0 || message.payload().is_some() || message.in_reply_to().is_some() {
            return None;
        }
        let text = str::from_utf8(message.control()).ok()?;
        if Standing::of(text).is_some() { Some(Self::Place) } else { text.parse().ok() }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Gone(Gone::Ended) => "gone: ended",
            Self::Gone(Gone::Unreachable) => "gone: unreachable",
            Self::Gone(Gone::Silent) => "gone: silent",
            Self::Missed => "missed",
            Self::Place => "at",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.words())
    }
}

/// A text that is no notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a notice of a bridge")]
pub struct NoNotice;

impl FromStr for Notice {
    type Err = NoNotice;

    fn from_str(text: &str) -> Result<Self, NoNotice> {
        let words = text.strip_prefix(PREFIX).ok_or(NoNotice)?;
        Self::ALL.into_iter().find(|notice| notice.words() == words).ok_or(NoNotice)
    }
}

/// What a notice of the kind [`Notice::Place`] says.
///
/// ```text
/// sealane-bridge: at RUN SOURCE NUMBER after RUN NUMBER …      (runs and sources hexadecimal, numbers decimal)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The place of the next message.
    pub next: Place,
    /// Runs before that one, oldest first.
    pub earlier: Vec<Ended>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { run, number, source } = self.next;
        write!(f, "{} {run:x} {source:x} {number} after", Notice::Place)?;
        self.earlier.iter().try_for_each(|Ended { run, end }| write!(f, " {run:x} {end}"))
    }
}

impl Standing {
    /// UNTRUSTED: whoever publishes at a bridge's path says what it likes.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let mut words =
            text.strip_prefix(PREFIX)?.strip_prefix(Notice::Place.words())?.split_ascii_whitespace();
        let mut hex = || u64::from_str_radix(words.next()?, 16).ok();
        let (run, source) = (hex()?, hex()?);
        let number = words.next()?.parse().ok()?;
        let next = Place { run, number, source };
        let mut earlier = Vec::new();
        if words.next() != Some("after") {
            return None;
        }
        while let Some(run) = words.next() {
            earlier.push(Ended { run: u64::from_str_radix(run, 16).ok()?, end: words.next()?.parse().ok()? });
        }
        Some(Self { next, earlier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were() {
        let earlier = vec![Ended { run: 1, end: 20 }, Ended { run: u64::MAX, end: 0 }];
        for earlier in [Vec::new(), earlier] {
            let standing = Standing { next: Place { run: 0xfe, number: 105, source: 7 }, earlier };
            assert_eq!(Standing::of(&standing.to_string()), Some(standing));
        }
        let text = Standing { next: Place { run: 1, number: 2, source: 3 }, earlier: Vec::new() }.to_string();
        assert_eq!(text, "sealane-bridge: at 1 3 2 after");
        for wrong in ["", " 1", " 1 x", " 1 -3", " -1"] {
            assert!(Standing::of(&format!("{text}{wrong}")).is_none() || wrong.is_empty(), "{wrong:?}");
        }
        assert_eq!(Standing::of("sealane-bridge: at 1 3 2"), None);
    }

    #[test]
    fn notices_come_back_as_they_were() {
        for notice in Notice::ALL {
            assert_eq!(notice.to_string().parse(), Ok(notice));
        }
        for none in ["", "here", "sealane-bridge: ", "sealane-bridge: gone"] {
            assert_eq!(none.parse::<Notice>(), Err(NoNotice), "{none:?}");
        }
    }
}
