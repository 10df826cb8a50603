//! The bytes of a payload: a pattern that one end writes and the other sums up and checks, the same for all transports.
//!
//! The pattern is one word, repeated: a multiple of the message's number by an odd constant. A word of another message
//! changes the sum, and writing and adding run at the speed of memory.

use std::ops::{Deref, DerefMut};

use anyhow::{Result, ensure};

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

/// The word that message `number` consists of.
#[inline]
pub(crate) fn pattern(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes every byte.
#[inline]
pub(crate) fn fill(bytes: &mut [u8], word: u64) {
    let mut line = [0; 64];
    for part in line.as_chunks_mut::<8>().0 {
        *part = word.to_ne_bytes();
    }
    let (chunks, rest) = bytes.as_chunks_mut::<64>();
    for chunk in chunks {
        *chunk = line;
    }
    let len = rest.len();
    rest.copy_from_slice(&line[..len]);
}

/// Whether a message was found to consist of `word`, as it should.
#[inline]
pub(crate) fn check(number: u64, size: usize, word: u64, len: usize, sum: u64) -> Result<()> {
    let expected = word.wrapping_mul(size as u64 / 8);
    ensure!(
        len == size && sum == expected,
        "message {number}: expected {size} bytes with the sum {expected:#x}, found {len} with {sum:#x}"
    );
    Ok(())
}
