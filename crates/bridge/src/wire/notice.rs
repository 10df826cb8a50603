//! Notices: what a bridge itself tells the subscribers at its path.
//!
//! A notice is a control message whose [`epoch`](sealane::Message::epoch) is 0, which no message of a source has. Its bytes are
//! ASCII text, so that whoever does not know it can still read it.

use std::{fmt, str::FromStr};

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
    const ALL: [Self; 5] = [
        Self::Here,
        Self::Gone(Gone::Ended),
        Self::Gone(Gone::Unreachable),
        Self::Gone(Gone::Silent),
        Self::Missed,
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
        str::from_utf8(message.control()).ok()?.parse().ok()
    }

    fn words(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Gone(Gone::Ended) => "gone: ended",
            Self::Gone(Gone::Unreachable) => "gone: unreachable",
            Self::Gone(Gone::Silent) => "gone: silent",
            Self::Missed => "missed",
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

#[cfg(test)]
mod tests {
    use super::*;

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
