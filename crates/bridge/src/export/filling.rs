//! [`Filling`]: what the reader has read, and has not given to the queue yet.

use sealane::Payload;

use super::{
    chunk::{Body, Chunk},
    queue::Queue,
};
use crate::wire::{
    Place,
    pack::{self, ENTRY_LEN, MAX_PACK},
};

/// Messages on their way into the queue, so that it is locked once for many.
#[derive(Debug, Default)]
pub(super) struct Filling {
    chunks: Vec<Chunk>,
    len: usize,
}

impl Filling {
    /// Whether a message of these lengths goes into a pack at all.
    pub(super) fn takes(control: usize, payload: Option<usize>) -> bool {
        control.saturating_add(payload.unwrap_or(0)) <= MAX_PACK / 4
    }

    /// Appends a message of `place` to the last pack, or to a new one. False if it was overwritten meanwhile: then it is missed.
    pub(super) fn add(
        &mut self,
        place: Place,
        control: &[u8],
        payload: Option<&Payload>,
        without_fds: bool,
    ) -> bool {
        let payload_len = payload.map(Payload::len);
        let len = ENTRY_LEN + control.len() + payload_len.unwrap_or(0);
        if !self.chunks.last().is_some_and(|chunk| chunk.takes(place, len)) {
            self.chunks.push(Chunk { place, count: 0, body: Body::Pack(Vec::with_capacity(len.max(1024))) });
        }
        let Some(Chunk { count, body: Body::Pack(bytes), .. }) = self.chunks.last_mut() else { return false };
        let before = bytes.len();
        let mut is_whole = pack::push_lens(bytes, control.len(), payload_len, without_fds);
        bytes.extend_from_slice(control);
        if let Some(payload) = payload {
            payload.bytes().for_each_block(|block| bytes.extend_from_slice(block));
            is_whole &= payload.is_whole();
        }
        if is_whole {
            *count += 1;
            self.len += len;
            return true;
        }
        bytes.truncate(before);
        if *count == 0 {
            self.chunks.pop();
        }
        false
    }

    /// Adds a message that has a sample of its own.
    pub(super) fn push(&mut self, chunk: Chunk) {
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives all to the sender. What was read before `place` and is not among it is lost.
    pub(super) fn flush(&mut self, queue: &Queue, place: Place) {
        self.len = 0;
        queue.push(self.chunks.drain(..), place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealane::{Builder, Slow};

    use super::*;

    #[test]
    fn what_was_overwritten_while_it_was_held_is_not_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers");
        let slow = Slow::Wait(Duration::from_millis(20));
        let mut publisher = Builder::default().slow(slow).ring_capacity(1 << 16).publish(&path).unwrap();
        let joining = std::thread::spawn(move || Builder::default().slow(slow).subscribe(path).unwrap());
        while publisher.subscribers().is_empty() {
            publisher.wait_event(Duration::from_millis(10)).unwrap();
        }
        let mut subscriber = joining.join().unwrap();
        let mut publish = || publisher.loan(1000).unwrap().send_with(b"number").unwrap();
        publish();
        publish();
        let [first, second] = [(); 2].map(|()| subscriber.recv().unwrap());
        let mut filling = Filling::default();
        let place = |number| Place { run: 1, number, source: 0 };
        assert!(filling.add(place(0), b"number", first.payload(), false));
        let len = filling.len();
        // The publisher ends the subscription, and goes on over what it holds.
        (0..200).for_each(|_| publish());
        assert!(!filling.add(place(1), b"number", second.payload(), false));
        assert_eq!(filling.len(), len, "the pack is as it was");
        let mut filling = Filling::default();
        assert!(!filling.add(place(1), b"number", second.payload(), false));
        assert!(filling.chunks.is_empty());
    }
}
