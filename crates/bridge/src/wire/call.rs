//! Requests and messages of subscribers on their way to the publisher, and what comes back.
//!
//! A query's attachment says which of both it is, and how long the asker waits. An answer that is no reply of the publisher is an
//! error of Zenoh's, whose payload is a [`CallError`] in the form that subscribers get, too.

use std::{fmt, str::FromStr, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

use super::Malformed;

const MAGIC: [u8; 4] = *b"slc\x01";

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAsk {
    magic: [u8; 4],
    wants_reply: U32,
    timeout_ms: U32,
}

/// What a subscriber sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// A request; else a message, for which the answer only says that the publisher was given it.
    pub wants_reply: bool,
    /// How long the asker waits.
    pub timeout: Duration,
}

impl Ask {
    /// The attachment's bytes. A time beyond 49 days is 49 days.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let timeout_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        let wants_reply = u32::from(self.wants_reply);
        RawAsk { magic: MAGIC, wants_reply: wants_reply.into(), timeout_ms: timeout_ms.into() }
            .as_bytes()
            .to_vec()
    }

    /// What an attachment says.
    ///
    /// # Errors
    /// UNTRUSTED: [`Malformed::Call`] for anything but these bytes.
    pub fn parse(attachment: &[u8]) -> Result<Self, Malformed> {
        let refused = Malformed::Call(attachment.len());
        let raw = RawAsk::read_from_bytes(attachment).map_err(|_| refused)?;
        if raw.magic != MAGIC || raw.wants_reply.get() > 1 {
            return Err(refused);
        }
        let timeout = Duration::from_millis(raw.timeout_ms.get().into());
        Ok(Self { wants_reply: raw.wants_reply.get() == 1, timeout })
    }
}

/// Why a call through a bridge has no reply of the publisher.
///
/// A subscriber that is not this crate's gets it as the reply's control bytes, see [`CallError::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No bridge exports the topic, as far as this one knows.
    NobodyThere,
    /// A bridge exports the topic, but its publisher is not there.
    NoPublisher,
    /// The time was over first. Whether the publisher has seen the request is not known.
    TimedOut,
    /// A bridge on the way has as many open requests as it takes.
    Busy,
    /// The request or reply had descriptors, which do not cross.
    Descriptors,
    /// The request, or the reply, is longer than one of the two ends takes.
    TooLarge,
    /// What Zenoh or the far bridge said.
    Refused(String),
}

const PREFIX: &str = "sealane-bridge: call failed: ";

impl CallError {
    const PLAIN: [Self; 6] =
        [Self::NobodyThere, Self::NoPublisher, Self::TimedOut, Self::Busy, Self::Descriptors, Self::TooLarge];

    /// The error that a reply from a bridge is, if it is one: its control bytes begin with `sealane-bridge: call failed: `.
    #[must_use]
    pub fn of(reply: &[u8]) -> Option<Self> {
        str::from_utf8(reply).ok()?.parse().ok()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(match self {
            Self::NobodyThere => "no bridge exports this topic",
            Self::NoPublisher => "the publisher is not there",
            Self::TimedOut => "timed out",
            Self::Busy => "too many open requests",
            Self::Descriptors => "descriptors do not cross the network",
            Self::TooLarge => "request or reply too large",
            Self::Refused(why) => return write!(f, "refused: {why}"),
        })
    }
}

impl std::error::Error for CallError {}

/// Bytes that are no error of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a failed call of a bridge")]
pub struct NoCallError;

impl FromStr for CallError {
    type Err = NoCallError;

    fn from_str(text: &str) -> Result<Self, NoCallError> {
        let words = text.strip_prefix(PREFIX).ok_or(NoCallError)?;
        let plain =
            Self::PLAIN.into_iter().find(|error| error.to_string().strip_prefix(PREFIX) == Some(words));
        let refused = || words.strip_prefix("refused: ").map(|why| Self::Refused(why.to_owned()));
        plain.or_else(refused).ok_or(NoCallError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_and_errors_come_back_as_they_were() {
        let ask = Ask { wants_reply: true, timeout: Duration::from_millis(1500) };
        assert_eq!(Ask::parse(&ask.to_bytes()), Ok(ask));
        for error in CallError::PLAIN.into_iter().chain([CallError::Refused("no".into())]) {
            assert_eq!(CallError::of(error.to_string().as_bytes()), Some(error));
        }
        assert_eq!(CallError::of(b"2.0"), None);
    }

    #[test]
    fn other_bytes_are_no_ask() {
        let good = Ask { wants_reply: false, timeout: Duration::ZERO }.to_bytes();
        for wrong in [&good[..11], &[0; 12], b"", &[good.clone(), vec![0]].concat()] {
            assert_eq!(Ask::parse(wrong), Err(Malformed::Call(wrong.len())));
        }
    }
}
