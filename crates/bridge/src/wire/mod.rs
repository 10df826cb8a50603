//! What crosses the network: formats and their checks, without I/O.
//!
//! Each sample has an *attachment*, which begins with a [`Head`]. Nothing in it is believed: see [`Head::parse`],
//! [`pack::Entries`], [`beat::parse`] and [`call`].

pub mod beat;
pub mod call;
pub mod notice;
pub mod pack;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// Where a message stands at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The publisher's run: see [`sealane::Subscriber::run`]. Not 0.
    pub run: u64,
    /// The number among all messages of that run, from 0: see [`sealane::Subscriber::number`].
    pub number: u64,
    /// The publisher's own word of *its* source, if it passes a stream on ([`sealane::Message::epoch`]); else 0.
    pub source: u64,
}

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One message. The sample's payload is the message's; the control bytes follow the head in the attachment.
    Message,
    /// Several messages, one after the other in the sample's payload. [`Place::number`] is the first one's; the others count on.
    Pack,
    /// No message: [`Place::number`] is the next one's. The payload tells how earlier runs ended.
    Beat,
}

/// Flag of a [`Kind::Message`]: it has no payload, which differs from an empty one.
const WITHOUT_PAYLOAD: u8 = 1;
/// Flag of a [`Kind::Message`]: it had descriptors, which were left out.
const WITHOUT_FDS: u8 = 2;
/// Flag of a [`Kind::Beat`]: the run has ended, and the number is final.
const ENDED: u8 = 4;
/// Flag of a [`Kind::Message`] or [`Kind::Pack`]: the next one follows at once.
const MORE: u8 = 8;

/// The first bytes of every attachment: `slb` and the format's version.
const MAGIC: [u8; 4] = *b"slb\x01";

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: [u8; 4],
    kind: u8,
    flags: u8,
    reserved: U16,
    run: U64,
    number: U64,
    source: U64,
}

/// Length of a head in bytes.
pub const HEAD_LEN: usize = size_of::<RawHead>();

/// The fixed part of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the format")]
pub struct Head {
    /// What the sample is.
    pub kind: Kind,
    /// Its place.
    pub place: Place,
    /// A message that has no payload.
    pub without_payload: bool,
    /// A message whose descriptors were left out.
    pub without_fds: bool,
    /// A beat of a run that has ended.
    pub ended: bool,
    /// Messages whose next one follows at once: subscribers that sleep may be woken by that one.
    pub more: bool,
}

/// Why something from the network was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// No attachment of ours.
    #[error("no attachment that begins with a bridge's head of {HEAD_LEN} bytes, but one of {found} bytes")]
    NoHead {
        /// Bytes of the attachment; 0 without one.
        found: usize,
    },
    /// Another version of the format.
    #[error("format version {expected} expected, {found} found")]
    Version {
        /// Ours.
        expected: u8,
        /// The peer's.
        found: u8,
    },
    /// A kind that is not known.
    #[error("unknown kind of sample {0}")]
    Kind(u8),
    /// Flags that are not known for the kind, or bytes that must be zero.
    #[error("unknown flags {flags:#x} or reserved bytes {reserved:#x}")]
    Flags {
        /// The flags.
        flags: u8,
        /// The reserved bytes.
        reserved: u16,
    },
    /// A run 0, or a number beyond the end of counting.
    #[error("impossible place: run {run:#x}, number {number}")]
    Place {
        /// The run.
        run: u64,
        /// The number.
        number: u64,
    },
    /// A sample's payload ends inside of a message, or is empty.
    #[error("a pack ends at byte {len}, inside of message {index}")]
    Pack {
        /// Bytes of the pack.
        len: usize,
        /// Which of its messages.
        index: u64,
    },
    /// More than is allowed.
    #[error("{what} of {found} bytes, at most {max} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A beat's list of runs.
    #[error("a beat's list of runs has {0} bytes")]
    Runs(usize),
    /// A sample of Zenoh that says that something was deleted.
    #[error("a deletion, which is no sample of a bridge")]
    Deletion,
    /// A request or reply.
    #[error("a request's or reply's head of {0} bytes is none")]
    Call(usize),
}

impl Head {
    /// A head of a kind, without flags.
    #[must_use]
    pub fn new(kind: Kind, place: Place) -> Self {
        Self { kind, place, without_payload: false, without_fds: false, ended: false, more: false }
    }

    /// The head of an attachment, and what follows it.
    ///
    /// # Errors
    /// UNTRUSTED: whatever is not exactly what this version writes is [`Malformed`].
    pub fn parse(attachment: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let no_head = Malformed::NoHead { found: attachment.len() };
        let (raw, rest) = RawHead::read_from_prefix(attachment).map_err(|_| no_head)?;
        let [a, b, c, version] = raw.magic;
        if [a, b, c] != MAGIC[..3] {
            return Err(no_head);
        }
        if version != MAGIC[3] {
            return Err(Malformed::Version { expected: MAGIC[3], found: version });
        }
        let (kind, known) = match raw.kind {
            0 => (Kind::Message, WITHOUT_PAYLOAD | WITHOUT_FDS | MORE),
            1 => (Kind::Pack, MORE),
            2 => (Kind::Beat, ENDED),
            other => return Err(Malformed::Kind(other)),
        };
        let (flags, reserved) = (raw.flags, raw.reserved.get());
        if flags & !known != 0 || reserved != 0 {
            return Err(Malformed::Flags { flags, reserved });
        }
        let place = Place { run: raw.run.get(), number: raw.number.get(), source: raw.source.get() };
        place.check()?;
        let has = |flag| flags & flag != 0;
        let head = Self {
            kind,
            place,
            without_payload: has(WITHOUT_PAYLOAD),
            without_fds: has(WITHOUT_FDS),
            ended: has(ENDED),
            more: has(MORE),
        };
        Ok((head, rest))
    }

    /// The head's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD_LEN] {
        let kind = match self.kind {
            Kind::Message => 0,
            Kind::Pack => 1,
            Kind::Beat => 2,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.without_payload, WITHOUT_PAYLOAD)
            | flag(self.without_fds, WITHOUT_FDS)
            | flag(self.ended, ENDED)
            | flag(self.more, MORE);
        let Place { run, number, source } = self.place;
        let raw = RawHead {
            magic: MAGIC,
            kind,
            flags,
            reserved: U16::ZERO,
            run: run.into(),
            number: number.into(),
            source: source.into(),
        };
        let mut bytes = [0; HEAD_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }
}

impl Place {
    /// Numbers end here, so that no sum of them overflows.
    pub const MOST: u64 = 1 << 63;

    fn check(self) -> Result<(), Malformed> {
        let Self { run, number, .. } = self;
        if run == 0 || number >= Self::MOST { Err(Malformed::Place { run, number }) } else { Ok(()) }
    }

    /// The epoch that subscribers far away see. Not 0, which is that of a bridge's own notices.
    #[must_use]
    pub fn epoch(self) -> u64 {
        // Both are random or small: a product with an odd number keeps them apart.
        let epoch = self.run ^ self.source.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if epoch == 0 { self.run } else { epoch }
    }
}

/// The keys of a topic. Parts that begin with `@` are not matched by another program's wildcards.
#[derive(Debug, Clone)]
pub struct Keys {
    topic: String,
}

impl Keys {
    /// Those of a topic.
    #[must_use]
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned() }
    }

    /// Messages: samples of the kinds [`Kind::Message`] and [`Kind::Pack`].
    #[must_use]
    pub fn messages(&self) -> &str {
        &self.topic
    }

    /// Samples of the kind [`Kind::Beat`].
    #[must_use]
    pub fn beats(&self) -> String {
        format!("{}/@beat", self.topic)
    }

    /// Requests, and messages of subscribers.
    #[must_use]
    pub fn calls(&self) -> String {
        format!("{}/@call", self.topic)
    }

    /// The token of a run, which is there as long as somebody exports it.
    #[must_use]
    pub fn token(&self, run: u64) -> String {
        format!("{}/@alive/{run:016x}", self.topic)
    }

    /// All tokens of the topic.
    #[must_use]
    pub fn tokens(&self) -> String {
        format!("{}/@alive/*", self.topic)
    }

    /// The run of a token.
    ///
    /// UNTRUSTED: any peer may declare what it likes.
    #[must_use]
    pub fn run_of(&self, token: &str) -> Option<u64> {
        let digits = token.strip_prefix(&self.topic)?.strip_prefix("/@alive/")?;
        let run = u64::from_str_radix(digits, 16).ok()?;
        // Signs and capital letters are not ours.
        (run != 0 && self.token(run) == token).then_some(run)
    }
}

/// An entry of a beat's list and of a pack use the same integers.
pub(crate) type Le32 = U32;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { run: 7, number: 9, source: 1 };

    #[test]
    fn heads_come_back_as_they_were() {
        for kind in [Kind::Message, Kind::Pack, Kind::Beat] {
            let mut head = Head::new(kind, PLACE);
            head.without_payload = kind == Kind::Message;
            head.without_fds = kind == Kind::Message;
            head.ended = kind == Kind::Beat;
            head.more = kind != Kind::Beat;
            let mut bytes = head.to_bytes().to_vec();
            bytes.extend(b"rest");
            assert_eq!(Head::parse(&bytes), Ok((head, &b"rest"[..])));
        }
    }

    #[test]
    fn every_wrong_byte_is_refused_or_says_something_else() {
        let good = Head::new(Kind::Pack, PLACE).to_bytes();
        for at in 0..8 {
            for value in 0..=u8::MAX {
                let mut bytes = good;
                bytes[at] = value;
                let parsed = Head::parse(&bytes);
                let as_it_was = bytes == good;
                let says_else = at == 4 && value <= 2 || at == 5 && value == MORE;
                assert_eq!(parsed.is_ok(), as_it_was || says_else, "byte {at} is {value}: {parsed:?}");
            }
        }
        for len in 0..HEAD_LEN {
            assert_eq!(Head::parse(&good[..len]), Err(Malformed::NoHead { found: len }));
        }
    }

    #[test]
    fn impossible_places_are_refused() {
        for (run, number) in [(0, 0), (1, Place::MOST), (1, u64::MAX)] {
            let bytes = Head::new(Kind::Beat, Place { run, number, source: 0 }).to_bytes();
            assert_eq!(Head::parse(&bytes), Err(Malformed::Place { run, number }));
        }
    }

    #[test]
    fn a_token_names_its_run() {
        let keys = Keys::new("camera/stats");
        assert_eq!(keys.run_of(&keys.token(0xfe)), Some(0xfe));
        for wrong in [
            "camera/stats/@alive/fe",
            "camera/stats/@alive/00000000000000FE",
            "camera/stats/@alive/+0000000000000fe",
            "camera/stats/@alive/0000000000000000",
            "camera/stats/@alive/zzzzzzzzzzzzzzzz",
            "other/@alive/00000000000000fe",
        ] {
            assert_eq!(keys.run_of(wrong), None, "{wrong}");
        }
    }
}
