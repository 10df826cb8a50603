//! The other process, apart from its interface: what it adds up and answers.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::fstat,
    time::{ClockId, clock_gettime},
};

use crate::CALL;

/// The request that is answered by a [`Report`]. All others come back.
pub(crate) const REPORT: [u8; CALL] = [1; CALL];

/// The reply to any other request: the same bytes, and whether a descriptor came.
pub(crate) fn echo(mut request: [u8; CALL], with_fd: bool) -> [u8; CALL] {
    request[1] = with_fd.into();
    request
}

/// The sum of a payload's words, as it is made of each of its blocks. Not inlined, so that both interfaces' blocks go through
/// the same instructions.
#[inline(never)]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes);
    words.fold(0, u64::wrapping_add)
}

pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// The worker's counts: payloads that it has received, and its CPU time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    pub(crate) payloads: u64,
    pub(crate) sum: u64,
    pub(crate) cpu_time: Duration,
    /// The file of the descriptor that came with the question; 0 without one.
    pub(crate) inode: u64,
}

impl From<[u8; CALL]> for Report {
    fn from(reply: [u8; CALL]) -> Self {
        let word = |index: usize| u64::from_le_bytes(reply.as_chunks().0[index]);
        Self { payloads: word(0), sum: word(1), cpu_time: Duration::from_nanos(word(2)), inode: word(3) }
    }
}

impl Report {
    pub(crate) fn add(&mut self, block: &[u8]) {
        self.sum = self.sum.wrapping_add(sum(block));
    }

    /// The reply to a request. The descriptor is closed.
    pub(crate) fn answer(&self, request: &[u8], fd: Option<OwnedFd>) -> [u8; CALL] {
        let request = request.try_into().expect("a request");
        if request != REPORT {
            return echo(request, fd.is_some());
        }
        let inode = fd.map_or(0, |fd| fstat(fd).unwrap().st_ino);
        let cpu_time = u64::try_from(cpu_time().as_nanos()).unwrap();
        let mut reply = [0; CALL];
        let words = [self.payloads, self.sum, cpu_time, inode];
        for (place, word) in reply.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        reply
    }
}
