//! The bytes of a payload: a pattern that one end writes and the other sums up and checks, the same for all transports.
//!
//! Whether the reader or the writer is the slower one decides how full a ring is, and so which caches the payloads are in. So
//! there are two writers. The fast one is `memset(3)`, which no reader outruns; the slow one computes each word from the one
//! before, at some 3 GiB/s, and keeps every reader waiting.

use std::ops::{Deref, DerefMut};

use anyhow::{Result, ensure};

use crate::cell::Writer;

/// A payload, or a piece of one, as the receiver sees it.
pub(crate) trait Bytes {
    fn len(&self) -> usize;
    /// The wrapping sum of all words; a view has only whole ones.
    fn sum(&self) -> u64;
}

impl Bytes for &[u8] {
    #[inline]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline]
    fn sum(&self) -> u64 {
        let words = |chunk: &[u8; 64]| {
            let (words, _) = chunk.as_chunks::<8>();
            std::array::from_fn(|i| u64::from_ne_bytes(words[i]))
        };
        let (chunks, rest) = self.as_chunks::<64>();
        let sums = chunks.iter().fold([0; 8], |sums, chunk| add(sums, words(chunk)));
        let (rest, _) = rest.as_chunks::<8>();
        rest.iter().fold(total(sums), |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
    }
}

/// Adds eight words at a time to eight sums, which suits vector instructions best.
#[inline]
pub(crate) fn add(mut sums: [u64; 8], words: [u64; 8]) -> [u64; 8] {
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = sum.wrapping_add(word);
    }
    sums
}

/// The sum of what [`add`] has added.
#[inline]
pub(crate) fn total(sums: [u64; 8]) -> u64 {
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Private memory for a payload, or a piece of one, of a transport that copies it.
///
/// It begins at a cache line, as payloads in shared memory do. Copying takes up to a quarter longer where the heap happens to
/// place it otherwise.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + 63];
        let start = bytes.as_ptr().align_offset(64);
        Self { bytes, start, len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// The words of message `number`, which its writer writes piece by piece; their wrapping sum tells it from other messages.
pub(crate) struct Pattern {
    writer: Writer,
    word: u64,
    /// Words that are not written yet.
    left: u64,
    /// The wrapping sum of these.
    sum: u64,
}

impl Pattern {
    #[inline]
    pub(crate) fn new(writer: Writer, number: u64, size: usize) -> Self {
        // The byte's period is 255 messages, and it is never 0. So neither the last message of one of 2, 4, 8 … slots nor
        // memory that was never written passes for this message.
        let byte = (number % 255) as u8 + 1;
        let word = match writer {
            Writer::Fast => u64::from_ne_bytes([byte; 8]),
            Writer::Slow => (2 * number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let left = size as u64 / 8;
        Self { writer, word, left, sum: word.wrapping_mul(left) }
    }

    /// Writes every byte of the payload's next piece.
    #[inline]
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        match self.writer {
            Writer::Fast => bytes.fill(self.word as u8),
            Writer::Slow => self.compute(bytes),
        }
    }

    /// Writes the words of an xorshift generator, each computed from the one before. The payload's last word makes up the sum.
    fn compute(&mut self, bytes: &mut [u8]) {
        for place in bytes.as_chunks_mut::<8>().0 {
            self.word ^= self.word << 13;
            self.word ^= self.word >> 7;
            self.word ^= self.word << 17;
            self.left -= 1;
            let word = if self.left == 0 { self.sum } else { self.word };
            self.sum = self.sum.wrapping_sub(word);
            *place = word.to_ne_bytes();
        }
    }
}

/// Whether a message of `len` bytes has the sum of the pattern's words.
#[inline]
pub(crate) fn check(number: u64, size: usize, pattern: Option<Pattern>, len: usize, sum: u64) -> Result<()> {
    let expected = pattern.map_or(0, |pattern| pattern.sum);
    ensure!(
        len == size && sum == expected,
        "message {number}: expected {size} bytes with the sum {expected:#x}, found {len} with {sum:#x}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writer: Writer, number: u64, pieces: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; pieces.iter().sum()];
        let mut pattern = Pattern::new(writer, number, bytes.len());
        let mut rest = bytes.as_mut_slice();
        for piece in pieces {
            let (first, others) = rest.split_at_mut(*piece);
            pattern.fill(first);
            rest = others;
        }
        bytes
    }

    #[test]
    fn a_payload_written_in_pieces_has_the_pattern_s_sum() {
        for writer in [Writer::Fast, Writer::Slow] {
            for pieces in [&[8][..], &[64], &[4096, 8, 64, 128], &[1 << 20]] {
                let bytes = written(writer, 7, pieces);
                let sum = bytes.as_slice().sum();
                check(7, bytes.len(), Some(Pattern::new(writer, 7, bytes.len())), bytes.len(), sum).unwrap();
            }
        }
    }

    #[test]
    fn a_word_of_another_message_is_found() {
        for writer in [Writer::Fast, Writer::Slow] {
            for other in [6, 8, 7 + 256, 7 + 1024] {
                let mut bytes = written(writer, 7, &[4096]);
                bytes[512..520].copy_from_slice(&written(writer, other, &[4096])[512..520]);
                let sum = bytes.as_slice().sum();
                check(7, 4096, Some(Pattern::new(writer, 7, bytes.len())), 4096, sum).unwrap_err();
            }
        }
    }
}
