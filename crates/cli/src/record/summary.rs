//! [`Summary`]: the index at the end of an MCAP file, made from the records before it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::recording::records::{HEADING, MAGIC, op};

/// The data of a record that is being made.
#[derive(Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their length. A longer block cannot be written, and is left out.
    pub(crate) fn block(self, bytes: &[u8]) -> Self {
        match u32::try_from(bytes.len()) {
            Ok(len) => self.u32(len).bytes(bytes),
            Err(_) => self.u32(0),
        }
    }

    pub(crate) fn string(self, text: &str) -> Self {
        self.block(text.as_bytes())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Numbers by channel.
    fn numbers(self, numbers: &BTreeMap<u16, u64>) -> Self {
        let entries = numbers.iter().fold(Self::default(), |body, (&key, &value)| body.u16(key).u64(value));
        self.block(&entries.0)
    }
}

/// Writes a record.
pub(crate) fn write_record(output: &mut impl Write, opcode: u8, data: &[u8]) -> io::Result<()> {
    output.write_all(&[opcode])?;
    output.write_all(&(data.len() as u64).to_le_bytes())?;
    output.write_all(data)
}

/// Writes a record that was made here.
pub(crate) fn write_body(output: &mut impl Write, opcode: u8, body: &Body) -> io::Result<()> {
    write_record(output, opcode, &body.0)
}

/// Where something is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The times of messages, in nanoseconds since 1970: the earliest and the latest.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Times(Option<(u64, u64)>);

impl Times {
    pub(crate) fn add(&mut self, time: u64) {
        let (start, end) = self.0.unwrap_or((time, time));
        self.0 = Some((start.min(time), end.max(time)));
    }

    /// 0 where there are no messages.
    pub(crate) fn bounds(self) -> (u64, u64) {
        self.0.unwrap_or_default()
    }
}

/// Where a chunk is, and its messages.
#[derive(Debug)]
pub(crate) struct ChunkPlace {
    pub(crate) place: Place,
    pub(crate) times: Times,
    /// Offsets of the indexes of its messages, for each channel.
    pub(crate) indexes: BTreeMap<u16, u64>,
    pub(crate) indexes_len: u64,
    pub(crate) compression: String,
    pub(crate) compressed_size: u64,
    pub(crate) size: u64,
}

/// The index of a file, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// The records as they were read.
    pub(crate) schemas: BTreeMap<u16, Vec<u8>>,
    pub(crate) channels: BTreeMap<u16, Vec<u8>>,
    pub(crate) chunks: Vec<ChunkPlace>,
    /// Bodies of index records.
    pub(crate) attachments: Vec<Body>,
    pub(crate) metadata: Vec<Body>,
    pub(crate) messages: BTreeMap<u16, u64>,
    pub(crate) times: Times,
}

impl Summary {
    /// Messages of all channels.
    pub(crate) fn message_count(&self) -> u64 {
        self.messages.values().sum()
    }

    pub(crate) fn add_metadata(&mut self, place: Place, name: &str) {
        self.metadata.push(Body::default().u64(place.offset).u64(place.length).string(name));
    }

    /// Writes the end of a file: that of its data, the index, and the mark. `position` is where this begins; returns where it ends.
    pub(crate) fn write_end(&self, output: &mut impl Write, position: u64) -> io::Result<u64> {
        // No sum of all data: each chunk has its own.
        let mut end = Vec::new();
        write_body(&mut end, op::DATA_END, &Body::default().u32(0))?;
        output.write_all(&end)?;
        let start = position + end.len() as u64;

        let (mut summary, mut offsets) = (Vec::new(), Vec::new());
        let mut group = |opcode: u8, bodies: Vec<&[u8]>| -> io::Result<()> {
            let from = summary.len() as u64;
            bodies.into_iter().try_for_each(|data| write_record(&mut summary, opcode, data))?;
            let length = summary.len() as u64 - from;
            if length > 0 {
                let offset = Body::default().u8(opcode).u64(start + from).u64(length);
                write_body(&mut offsets, op::SUMMARY_OFFSET, &offset)?;
            }
            Ok(())
        };
        group(op::SCHEMA, self.schemas.values().map(Vec::as_slice).collect())?;
        group(op::CHANNEL, self.channels.values().map(Vec::as_slice).collect())?;
        group(op::STATISTICS, vec![self.statistics().as_slice()])?;
        let chunks: Vec<Body> = self.chunks.iter().map(ChunkPlace::body).collect();
        group(op::CHUNK_INDEX, chunks.iter().map(Body::as_slice).collect())?;
        group(op::ATTACHMENT_INDEX, self.attachments.iter().map(Body::as_slice).collect())?;
        group(op::METADATA_INDEX, self.metadata.iter().map(Body::as_slice).collect())?;

        let offsets_start = start + summary.len() as u64;
        summary.extend_from_slice(&offsets);
        // The footer's own sum covers it up to the sum.
        let footer = Body::default().u64(start).u64(offsets_start);
        summary.push(op::FOOTER);
        summary.extend_from_slice(&(footer.0.len() as u64 + 4).to_le_bytes());
        summary.extend_from_slice(&footer.0);
        output.write_all(&summary)?;
        let sum = crc32fast::hash(&summary).to_le_bytes();
        output.write_all(&sum)?;
        output.write_all(MAGIC)?;
        Ok(start + (summary.len() + sum.len() + MAGIC.len()) as u64)
    }

    fn statistics(&self) -> Body {
        let (start, end) = self.times.bounds();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Body::default()
            .u64(self.message_count())
            .u16(u16::try_from(self.schemas.len()).unwrap_or(u16::MAX))
            .u32(count(self.channels.len()))
            .u32(count(self.attachments.len()))
            .u32(count(self.metadata.len()))
            .u32(count(self.chunks.len()))
            .u64(start)
            .u64(end)
            .numbers(&self.messages)
    }
}

impl ChunkPlace {
    fn body(&self) -> Body {
        let (start, end) = self.times.bounds();
        Body::default()
            .u64(start)
            .u64(end)
            .u64(self.place.offset)
            .u64(self.place.length)
            .numbers(&self.indexes)
            .u64(self.indexes_len)
            .string(&self.compression)
            .u64(self.compressed_size)
            .u64(self.size)
    }
}

/// Bytes of a record with this data.
pub(crate) fn record_len(data: &[u8]) -> u64 {
    HEADING as u64 + data.len() as u64
}
