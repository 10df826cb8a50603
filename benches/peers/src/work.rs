//! What a transport is to the works, and the writing and reading of payloads, which is the same for all of them.
//!
//! The pattern of a payload is one word, repeated: a multiple of the message's number by an odd constant. The reader adds
//! up all words and compares. A word of another message changes the sum, and writing and adding run at the speed of memory.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Result, bail, ensure};

use crate::{
    cell::{Cell, Side},
    link::Link,
};

/// One end of a transport, connected both ways. Compiled for each transport, so that none pays for being one of many.
pub(crate) trait End: Sized {
    /// A payload, or a piece of one, as the receiver sees it.
    type View<'a>: Bytes;

    /// Connects to the other process, which calls this too.
    fn establish(side: Side, cell: &Cell, link: &Link) -> Result<Self>;

    /// Sends a payload of `len` bytes; waits for room. `fill` writes it, once, or piece by piece where the transport has
    /// no place for the whole.
    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<()>;

    /// Waits for a payload, of which the receiver knows that it has `len` bytes, and lets `read` see it, or its pieces.
    fn receive(&mut self, len: usize, read: impl FnMut(Self::View<'_>)) -> Result<()>;

    /// Sends `count` payloads, numbered from 0, in whichever way is best for many.
    #[inline]
    fn send_many(&mut self, len: usize, count: u64, fill: impl FnMut(u64, &mut [u8])) -> Result<()> {
        send_each(self, len, count, fill)
    }

    /// Receives `count` payloads, numbered from 0, in whichever way is best for many. `read` may see each in pieces.
    #[inline]
    fn receive_many(&mut self, len: usize, count: u64, read: impl FnMut(u64, Self::View<'_>)) -> Result<()> {
        receive_each(self, len, count, read)
    }

    /// Sends bytes, and a descriptor if there is one, as a message without a payload.
    fn send_control(&mut self, _bytes: &[u8], _fd: Option<BorrowedFd<'_>>) -> Result<()> {
        bail!("this transport has no messages without payloads");
    }

    /// Waits for a message without a payload, with a descriptor if `fds` says so.
    fn receive_control(&mut self, _fds: bool, _read: impl FnOnce(&[u8])) -> Result<Vec<OwnedFd>> {
        bail!("this transport has no messages without payloads");
    }
}

/// Sends one by one.
#[inline]
pub(crate) fn send_each<E: End>(
    end: &mut E,
    len: usize,
    count: u64,
    mut fill: impl FnMut(u64, &mut [u8]),
) -> Result<()> {
    (0..count).try_for_each(|number| end.send(len, |bytes| fill(number, bytes)))
}

/// Receives one by one.
#[inline]
pub(crate) fn receive_each<E: End>(
    end: &mut E,
    len: usize,
    count: u64,
    mut read: impl FnMut(u64, E::View<'_>),
) -> Result<()> {
    (0..count).try_for_each(|number| end.receive(len, |view| read(number, view)))
}

/// What can be done with a view.
pub(crate) trait Bytes {
    fn len(&self) -> usize;
    /// The wrapping sum of all words; there are only whole ones.
    fn sum(&self) -> u64;
}

/// Eight words at a time, in eight sums: what vector instructions do best.
fn add(mut sums: [u64; 8], words: [u64; 8]) -> [u64; 8] {
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = sum.wrapping_add(word);
    }
    sums
}

fn total(sums: [u64; 8]) -> u64 {
    sums.into_iter().fold(0, u64::wrapping_add)
}

impl Bytes for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

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

/// By the way that the documentation calls the fastest: chunks of 64 bytes, by value.
impl Bytes for sealane::SharedSlice<'_, u8> {
    fn len(&self) -> usize {
        sealane::SharedSlice::len(self)
    }

    fn sum(&self) -> u64 {
        let words = self.cast::<u64>().expect("only whole words are sent");
        let mut chunks = words.array_chunks::<8>();
        let sums = chunks.by_ref().fold([0; 8], add);
        chunks.remainder().iter().fold(total(sums), u64::wrapping_add)
    }
}

/// The word that message `number` consists of.
pub(crate) fn pattern(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes every byte.
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

/// Sends message `number`, written as a whole.
#[inline]
pub(crate) fn send_filled<E: End>(end: &mut E, size: usize, number: u64) -> Result<()> {
    let word = pattern(number);
    end.send(size, |bytes| fill(bytes, word))
}

/// Receives message `number`, reads and checks all of it.
#[inline]
pub(crate) fn receive_checked<E: End>(end: &mut E, size: usize, number: u64) -> Result<()> {
    let (mut sum, mut len) = (0_u64, 0);
    end.receive(size, |view| {
        sum = sum.wrapping_add(view.sum());
        len += view.len();
    })?;
    check(number, size, pattern(number), len, sum)
}

/// Whether a message was found to consist of `word`, as it should.
#[inline]
fn check(number: u64, size: usize, word: u64, len: usize, sum: u64) -> Result<()> {
    let expected = word.wrapping_mul(size as u64 / 8);
    ensure!(
        len == size && sum == expected,
        "message {number}: expected {size} bytes with the sum {expected:#x}, found {len} with {sum:#x}"
    );
    Ok(())
}

/// Sends messages 0 to `count`, each written as a whole, or not at all if nobody is to `touch` them.
#[inline]
pub(crate) fn send_stream<E: End>(end: &mut E, size: usize, count: u64, touch: bool) -> Result<()> {
    end.send_many(size, count, |number, bytes| {
        if touch {
            fill(bytes, pattern(number));
        }
    })
}

/// Receives messages 0 to `count`, and reads and checks all of each, or only the lengths if nobody is to `touch` them.
#[inline]
pub(crate) fn receive_stream<E: End>(end: &mut E, size: usize, count: u64, touch: bool) -> Result<()> {
    let (mut current, mut sum, mut len) = (0, 0_u64, 0);
    let mut so_far = Ok(());
    let mut over = |number, len, sum| {
        if so_far.is_ok() {
            so_far = check(number, size, if touch { pattern(number) } else { 0 }, len, sum);
        }
    };
    end.receive_many(size, count, |number, view| {
        if number != current {
            over(current, len, sum);
            (current, sum, len) = (number, 0, 0);
        }
        len += view.len();
        if touch {
            sum = sum.wrapping_add(view.sum());
        }
    })?;
    over(current, len, sum);
    so_far
}

/// Sends message `number` without a payload.
#[inline]
pub(crate) fn send_control<E: End>(
    end: &mut E,
    bytes: &mut [u8],
    number: u64,
    fd: Option<BorrowedFd<'_>>,
) -> Result<()> {
    fill(bytes, pattern(number));
    end.send_control(bytes, fd)
}

/// Receives message `number` without a payload, checks it, and closes its descriptor.
#[inline]
pub(crate) fn receive_control<E: End>(end: &mut E, size: usize, number: u64, fds: bool) -> Result<()> {
    let (mut sum, mut len) = (0, 0);
    let received = end.receive_control(fds, |bytes| (sum, len) = (bytes.sum(), bytes.len()))?;
    let expected = pattern(number).wrapping_mul(size as u64 / 8);
    ensure!(
        len == size && sum == expected && received.len() == usize::from(fds),
        "message {number}: expected {size} bytes with the sum {expected:#x} and {} descriptors, found {len} with {sum:#x} and {}",
        u8::from(fds),
        received.len()
    );
    Ok(())
}
