//! [`Batch`]: a chunk of an MCAP file in the making.
//!
//! A message is copied once, from the ring to where it stays. It joins the chunk when it is known that it is whole.
//! Invariant: up to `end` the memory has the chunk's heading, and records that are whole.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anyhow::Result;
use bytes::BufMut;
use crc32fast::Hasher;

use crate::{
    record::{
        summary::{ChunkPlace, Times},
        writer::Writer,
    },
    recording::{
        message::Received,
        records::{HEADING, op},
    },
};

/// Bytes of a chunk's record before its records: the heading, two times, the size, the CRC, no name of a compression, the size again.
const CHUNK_HEADING: usize = HEADING + 8 + 8 + 8 + 4 + 4 + 8;

/// Bytes of a message's record before its data: the heading, the channel, the number, two times.
pub(crate) const MESSAGE_HEADING: usize = HEADING + 2 + 4 + 8 + 8;

/// Bytes of a message in the index of its chunk: a time and an offset.
pub(crate) const INDEX_ENTRY: usize = 8 + 8;

/// Bytes that are summed at once: fewer than a cache of the processor holds, so that they are there still.
const SUMMED_AT_ONCE: usize = 64 << 10;

/// A chunk in the making.
#[derive(Debug)]
pub(crate) struct Batch {
    /// All of it is initialised, so that what is copied is not zeroed before.
    memory: Vec<u8>,
    /// Bytes of records with which it is full.
    size: usize,
    end: usize,
    /// The sum of the records up to `summed`.
    sum: Hasher,
    summed: usize,
    index: Vec<u8>,
    times: Times,
}

/// A message that lies behind the records, and is not known to be whole yet.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Bytes of its data.
    pub(crate) len: usize,
    pub(crate) sequence: u64,
    /// Messages that were missed just before it.
    pub(crate) missed: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) control_bytes: u64,
    pub(crate) descriptors: u64,
}

impl Batch {
    /// An empty chunk, which is full once its records have `size` bytes. The last message may be of any length.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            memory: vec![0; CHUNK_HEADING + size],
            size,
            end: CHUNK_HEADING,
            sum: Hasher::new(),
            summed: CHUNK_HEADING,
            index: Vec::new(),
            times: Times::default(),
        }
    }

    /// Bytes of the records.
    pub(crate) fn len(&self) -> usize {
        self.end - CHUNK_HEADING
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.size
    }

    pub(crate) fn messages(&self) -> usize {
        self.index.len() / INDEX_ENTRY
    }

    /// Adds a record.
    pub(crate) fn add(&mut self, opcode: u8, data: &[u8]) {
        let mut place = self.place(HEADING + data.len());
        place.put_u8(opcode);
        place.put_u64_le(data.len() as u64);
        place.put_slice(data);
        self.grow(HEADING + data.len());
    }

    /// Copies a message. The one that was copied before is dropped, unless it has joined.
    pub(crate) fn stage(&mut self, message: &Received<'_>) -> Result<Staged> {
        let len = message.encoded_len();
        let place = self.place(MESSAGE_HEADING + len);
        message.encode(&mut place[MESSAGE_HEADING..])?;
        Ok(Staged {
            len,
            sequence: message.sequence,
            missed: message.missed,
            payload_bytes: message.payload.map_or(0, |payload| payload.len() as u64),
            control_bytes: message.control.len() as u64,
            descriptors: message.descriptors.into(),
        })
    }

    /// Takes a message that was copied from another chunk.
    pub(crate) fn take_over(&mut self, staged: &Staged, from: &Self) {
        let data = from.end + MESSAGE_HEADING;
        self.place(MESSAGE_HEADING + staged.len)[MESSAGE_HEADING..]
            .copy_from_slice(&from.memory[data..data + staged.len]);
    }

    /// Lets a message join. `time` is that of its receipt, in nanoseconds since 1970.
    pub(crate) fn join(&mut self, staged: &Staged, channel: u16, time: u64) {
        let offset = self.len() as u64;
        let len = MESSAGE_HEADING + staged.len;
        let mut place = self.place(len);
        place.put_u8(op::MESSAGE);
        place.put_u64_le((len - HEADING) as u64);
        place.put_u16_le(channel);
        // MCAP's numbers have 32 bits; the message has all.
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are wanted")]
        place.put_u32_le(staged.sequence as u32);
        place.put_u64_le(time);
        place.put_u64_le(time);
        self.index.put_u64_le(time);
        self.index.put_u64_le(offset);
        self.times.add(time);
        self.grow(len);
    }

    /// Writes the chunk, and the index of its messages, which are all of one channel. Then it is empty.
    pub(crate) fn write(&mut self, writer: &mut Writer<impl Write>, channel: u16) -> io::Result<()> {
        self.sum_up();
        let size = self.len() as u64;
        let (start, end) = self.times.bounds();
        let sum = std::mem::take(&mut self.sum).finalize();
        let mut heading = &mut self.memory[..CHUNK_HEADING];
        heading.put_u8(op::CHUNK);
        heading.put_u64_le((self.end - HEADING) as u64);
        heading.put_u64_le(start);
        heading.put_u64_le(end);
        heading.put_u64_le(size);
        heading.put_u32_le(sum);
        heading.put_u32_le(0);
        heading.put_u64_le(size);
        let place = writer.write_whole(&self.memory[..self.end])?;
        let (before, mut indexes) = (writer.position, BTreeMap::new());
        let messages = self.messages() as u64;
        if messages > 0 {
            indexes.insert(channel, writer.write_index(channel, &self.index)?);
            *writer.summary.messages.entry(channel).or_default() += messages;
            writer.summary.times.add(start);
            writer.summary.times.add(end);
        }
        writer.summary.chunks.push(ChunkPlace {
            place,
            times: self.times,
            indexes,
            indexes_len: writer.position - before,
            compression: String::new(),
            compressed_size: size,
            size,
        });
        (self.end, self.summed) = (CHUNK_HEADING, CHUNK_HEADING);
        self.index.clear();
        self.times = Times::default();
        Ok(())
    }

    /// The bytes behind the records.
    fn place(&mut self, len: usize) -> &mut [u8] {
        let end = self.end + len;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        &mut self.memory[self.end..end]
    }

    fn grow(&mut self, len: usize) {
        self.end += len;
        if self.end - self.summed >= SUMMED_AT_ONCE {
            self.sum_up();
        }
    }

    fn sum_up(&mut self) {
        self.sum.update(&self.memory[self.summed..self.end]);
        self.summed = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, control: &[u8]) -> Received<'_> {
        Received { sequence, missed: 0, epoch: 0, descriptors: 0, control, payload: None }
    }

    /// The messages of a file with one chunk: their numbers, times and data.
    fn file(batch: &mut Batch) -> Vec<(u32, u64, Vec<u8>)> {
        let mut writer = Writer::begin(Vec::new()).unwrap();
        writer.write_header("test").unwrap();
        batch.write(&mut writer, 0).unwrap();
        writer.write_end().unwrap();
        let position = writer.position;
        let bytes = writer.into_inner();
        assert_eq!(bytes.len() as u64, position);
        let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
        let messages = mcap::MessageStream::new(&bytes).unwrap().map(|message| {
            let message = message.unwrap();
            (message.sequence, message.log_time, message.data.to_vec())
        });
        let messages: Vec<_> = messages.collect();
        assert_eq!(summary.stats.unwrap().message_count, messages.len() as u64);
        messages
    }

    /// A chunk with a channel, and no message.
    fn batch() -> Batch {
        let mut batch = Batch::new(100);
        let channel = crate::record::summary::Body::default().u16(0).u16(0).string("topic").string("");
        batch.add(op::CHANNEL, channel.block(&[]).as_slice());
        batch
    }

    #[test]
    fn messages_that_do_not_join_leave_no_trace() {
        let mut batch = batch();
        let (long, dropped) = (vec![7; 100_000], vec![1; 200_000]);
        for (number, control) in [(1, &b"one"[..]), (2, &long[..]), (3, b"")] {
            batch.stage(&message(9, &dropped)).unwrap();
            let message = message(number, control);
            let staged = batch.stage(&message).unwrap();
            batch.join(&staged, 0, 10 * number);
        }
        batch.stage(&message(9, b"and one at the end")).unwrap();
        assert!(batch.is_full());
        let found = file(&mut batch);
        let heads: Vec<_> = found.iter().map(|(number, time, data)| (*number, *time, data.len())).collect();
        // The number has two bytes, the heading of control bytes two or four.
        assert_eq!(heads, [(1, 10, 2 + 2 + 3), (2, 20, 2 + 4 + 100_000), (3, 30, 2)]);
        assert!(found[1].2.ends_with(&long));
        assert_eq!((batch.len(), batch.messages()), (0, 0));
    }

    #[test]
    fn a_message_moves_to_another_chunk() {
        let (mut one, mut other) = (batch(), batch());
        let staged = one.stage(&message(u64::MAX, b"it moves")).unwrap();
        other.take_over(&staged, &one);
        other.join(&staged, 0, 5);
        let found = file(&mut other);
        assert_eq!((found.len(), found[0].0, found[0].1), (1, u32::MAX, 5));
        assert!(found[0].2.ends_with(b"it moves"));
        assert_eq!(file(&mut one), []);
    }
}
