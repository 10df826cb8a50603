//! The messages between the pool and a worker.
//!
//! A [`Job`] is a request, with the file's descriptor. Its reply is an [`Answer`]: the pixels are its payload, or a sentence follows it
//! that says why there are none.

use std::str;

use clap::ValueEnum;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;

/// The first message of a worker that is in its sandbox. One that could not enter it sends the reason instead.
pub(crate) const READY: &[u8] = b"ready";
/// The longest sentence of a worker, in bytes.
pub(crate) const MAX_SENTENCE: usize = 200;

/// A file to decode.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Job {
    /// Length of the file when it was opened, in bytes.
    pub(crate) size: u64,
    /// A number of [`Trick`].
    pub(crate) trick: u32,
    pub(crate) padding: u32,
}

/// An act of a worker that misbehaves on purpose, to show that the pool survives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[repr(u32)]
pub(crate) enum Trick {
    #[value(skip)]
    None,
    /// Ends by SIGABRT, as a failed assertion in C does
    Abort,
    /// Panics
    Panic,
    /// Exits in the middle of its work
    Exit,
    /// Runs out of stack
    Overflow,
    /// Answers, and then exits
    Leave,
    /// Closes its channel, and goes on
    Close,
    /// Sends messages that nobody asked for
    Babble,
    /// Answers with a size that its pixels do not have
    Lie,
    #[value(skip)]
    Hang,
    /// Tries what its sandbox forbids, then decodes.
    #[value(skip)]
    Escape,
}

impl Trick {
    const ALL: [Self; 11] = [
        Self::None,
        Self::Abort,
        Self::Panic,
        Self::Exit,
        Self::Overflow,
        Self::Leave,
        Self::Close,
        Self::Babble,
        Self::Lie,
        Self::Hang,
        Self::Escape,
    ];
    /// The ways of `--crash-every`, one after the other.
    pub(crate) const CRASHES: [Self; 4] = [Self::Abort, Self::Panic, Self::Exit, Self::Overflow];

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&trick| trick as u32 == number)
    }
}

/// The pixels of an image: rows from the top, samples of one pixel beside each other, in the byte order of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Samples of a pixel: grey; grey, alpha; red, green, blue; red, green, blue, alpha.
    pub(crate) channels: u32,
    /// Bytes of a sample: 1 or 2.
    pub(crate) depth: u32,
}

impl Shape {
    /// Bytes of a row and of all rows, if such an image exists.
    pub(crate) fn bytes(self) -> Option<(usize, usize)> {
        let Self { width, height, channels, depth } = self;
        if width == 0 || height == 0 || !(1..=4).contains(&channels) || !(1..=2).contains(&depth) {
            return None;
        }
        let row = usize::try_from(width).ok()?.checked_mul(usize::try_from(channels * depth).ok()?)?;
        Some((row, row.checked_mul(usize::try_from(height).ok()?)?))
    }

    pub(crate) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// The beginning of a reply.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Answer {
    /// All zeros if there are no pixels.
    pub(crate) shape: Shape,
    pub(crate) acts_tried: u32,
    pub(crate) acts_refused: u32,
}

impl Answer {
    /// No pixels, and no acts.
    pub(crate) const NONE: Self =
        Self { shape: Shape { width: 0, height: 0, channels: 0, depth: 0 }, acts_tried: 0, acts_refused: 0 };

    /// A reply's control bytes without pixels.
    pub(crate) fn with_sentence(self, sentence: &str) -> Vec<u8> {
        let end = sentence.floor_char_boundary(MAX_SENTENCE);
        [self.as_bytes(), &sentence.as_bytes()[..end]].concat()
    }

    /// Takes a reply's control bytes apart. The sentence may contain anything that a terminal obeys.
    pub(crate) fn parse(control: &[u8]) -> Result<(Self, &str)> {
        let (answer, sentence) =
            Self::read_from_prefix(control).map_err(|_| format!("a reply of {} bytes", control.len()))?;
        if sentence.len() > MAX_SENTENCE {
            return Err(format!("a sentence of {} bytes", sentence.len()).into());
        }
        Ok((answer, str::from_utf8(sentence)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tricks_are_their_own() {
        for trick in Trick::ALL {
            assert_eq!(Trick::from_number(trick as u32), Some(trick));
        }
        assert_eq!(Trick::from_number(11), None);
    }

    #[test]
    fn impossible_shapes_have_no_bytes() {
        let shape = Shape { width: 3, height: 2, channels: 3, depth: 2 };
        assert_eq!(shape.bytes(), Some((18, 36)));
        for wrong in [
            Shape { width: 0, ..shape },
            Shape { height: 0, ..shape },
            Shape { channels: 0, ..shape },
            Shape { channels: 5, ..shape },
            Shape { depth: 0, ..shape },
            Shape { depth: 3, ..shape },
        ] {
            assert_eq!(wrong.bytes(), None, "{wrong:?}");
        }
        let largest = Shape { width: u32::MAX, height: u32::MAX, channels: 4, depth: 2 };
        assert_eq!(largest.bytes(), None, "2^67 bytes");
    }

    #[test]
    fn sentences_are_cut_between_letters() {
        let control = Answer::NONE.with_sentence(&"é".repeat(MAX_SENTENCE));
        let (answer, sentence) = Answer::parse(&control).unwrap();
        assert_eq!((answer.shape, sentence.len()), (Answer::NONE.shape, MAX_SENTENCE));
        assert!(Answer::parse(&control[..20]).is_err());
        assert!(Answer::parse(&[&control[..], b"!"].concat()).is_err());
    }
}
