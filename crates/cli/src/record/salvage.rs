//! [`Salvage`]: copies the records of a file that are whole, and indexes them.
//!
//! Invariant: every message that is copied belongs to a channel that is described before it, and that to a schema.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use anyhow::{Result, bail, ensure};

use crate::{
    record::{
        summary::{Body, ChunkPlace, Place, Times, record_len},
        writer::Writer,
    },
    recording::{
        chunk::Chunk,
        damages::Damages,
        fields::Fields,
        layout::{Channel, Entry, Metadata, Schema},
        records::{Cut, HEADING, Records, op},
    },
};

/// A copy in the making.
#[derive(Debug)]
pub(crate) struct Salvage<W> {
    pub(crate) file: Writer<W>,
    /// The parts that were left out, and the reasons.
    pub(crate) damages: Damages,
    /// The end of the data was read.
    pub(crate) has_ended: bool,
    /// The end of the index was read.
    pub(crate) has_footer: bool,
    /// Messages that are kept though no sum tells whether their bytes are right.
    pub(crate) unchecked: u64,
    /// Bytes of records that were left out, up to where reading has ended.
    pub(crate) left_out: u64,
    /// Bytes that are kept of the record within which the file ends.
    pub(crate) kept_of_cut: u64,
    /// Nothing is written: places are those in the file that is read.
    pub(crate) only_reads: bool,
}

/// The records of a chunk that the index needs.
#[derive(Debug, Default)]
struct Contents {
    schemas: BTreeMap<u16, Vec<u8>>,
    channels: BTreeMap<u16, Vec<u8>>,
    /// For each channel: time and offset of each message.
    messages: BTreeMap<u16, Vec<(u64, u64)>>,
    times: Times,
}

impl<W: Write> Salvage<W> {
    /// Begins a file.
    pub(crate) fn begin(output: W) -> Result<Self> {
        Ok(Self {
            file: Writer::begin(output)?,
            damages: Damages::default(),
            has_ended: false,
            has_footer: false,
            unchecked: 0,
            left_out: 0,
            kept_of_cut: 0,
            only_reads: false,
        })
    }

    /// Copies up to the end of the data, or to where the file is cut. Errors are those of writing.
    pub(crate) fn copy<R: Read>(&mut self, records: &mut Records<R>) -> Result<()> {
        while !self.has_ended {
            let from = if self.only_reads { records.position() } else { self.file.position };
            match records.read() {
                Ok(Some((opcode @ (op::DATA_END | op::FOOTER), _))) => {
                    (self.has_ended, self.has_footer) = (true, opcode == op::FOOTER);
                }
                Ok(Some((opcode, data))) => self.take(opcode, data, from)?,
                Ok(None) => {
                    self.damaged(&anyhow::anyhow!("the file has no end: it was not completed"));
                    break;
                }
                Err(error) => {
                    match records.cut().filter(|cut| cut.opcode == op::CHUNK && !self.only_reads) {
                        Some(cut) => self.take_cut(cut, records.position(), &error)?,
                        None => self.damaged(&error),
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, opcode: u8, data: &[u8], offset: u64) -> Result<()> {
        let place = Place { offset, length: record_len(data) };
        let indexed = match opcode {
            op::CHUNK => return self.take_chunk(data, place),
            // Made anew, as what they say may be wrong.
            op::MESSAGE_INDEX
            | op::CHUNK_INDEX
            | op::STATISTICS
            | op::SUMMARY_OFFSET
            | op::ATTACHMENT_INDEX
            | op::METADATA_INDEX
            // The first header was copied before.
            | op::HEADER => return Ok(()),
            op::SCHEMA | op::CHANNEL | op::MESSAGE => {
                let mut contents = Contents::default();
                self.look_at(&mut contents, opcode, data, 0).map(|()| self.keep(contents))
            }
            op::ATTACHMENT => attachment_index(data, place).map(|body| self.file.summary.attachments.push(body)),
            op::METADATA => Metadata::parse(data).map(|metadata| self.file.summary.add_metadata(place, metadata.name)),
            _ => Ok(()),
        };
        match indexed {
            Ok(()) => Ok(self.file.write(opcode, data)?),
            Err(error) => {
                self.leave_out(place, &error);
                Ok(())
            }
        }
    }

    /// Copies what is whole of the chunk within which the file ends: as another chunk, with a sum of its own.
    fn take_cut(&mut self, cut: Cut<'_>, at: u64, error: &anyhow::Error) -> Result<()> {
        let mut chunk = match Chunk::open_cut(cut) {
            Ok(chunk) => chunk,
            Err(reason) => {
                self.damaged(&anyhow::anyhow!("{error:#}; nothing of this chunk is kept: {reason:#}"));
                return Ok(());
            }
        };
        let (mut contents, mut end, mut reason) = (Contents::default(), 0, None);
        for (offset, opcode, record) in chunk.walk() {
            if let Err(error) = self.look_at(&mut contents, opcode, &record, offset) {
                reason = Some(error);
                break;
            }
            end = offset + record_len(&record);
        }
        chunk.records.truncate(usize::try_from(end)?);
        chunk.compressed_size = end;
        let messages: u64 = contents.messages.values().map(|of_channel| of_channel.len() as u64).sum();
        let heading = (HEADING + chunk.heading_len()) as u64;
        let (there, expected) = (cut.data.len() as u64, cut.len);
        let rest = (HEADING as u64 + there).saturating_sub(heading + end);
        let what = match reason {
            Some(reason) => format!(
                "{rest} bytes at the end of a chunk, from a record on that is not what it says ({reason:#})"
            ),
            None if rest > 0 => format!("{rest} bytes at the end of a chunk, of a message that is not whole"),
            None => "the rest of a chunk, of which nothing is there".to_owned(),
        };
        self.damaged(&anyhow::anyhow!(
            "{what}: the file ends within the chunk at byte {at}, {expected} bytes expected, {there} found. The {messages} messages \
             before that are kept, and not checked, as the chunk's CRC is that of all of its bytes"
        ));
        if end == 0 {
            return Ok(());
        }
        (self.unchecked, self.kept_of_cut) = (messages, heading + end);
        let data = chunk.encode(contents.times.bounds());
        let place = Place { offset: self.file.position, length: record_len(&data) };
        self.write_chunk(&chunk, &data, place, contents)
    }

    fn take_chunk(&mut self, data: &[u8], place: Place) -> Result<()> {
        let mut contents = Contents::default();
        let opened = Chunk::open(data).and_then(|chunk| {
            for (offset, opcode, record) in chunk.walk() {
                self.look_at(&mut contents, opcode, &record, offset)?;
            }
            Ok(chunk)
        });
        let chunk = match opened {
            Ok(chunk) => chunk,
            Err(error) => {
                self.leave_out(place, &error);
                return Ok(());
            }
        };
        self.write_chunk(&chunk, data, place, contents)
    }

    fn write_chunk(&mut self, chunk: &Chunk, data: &[u8], place: Place, contents: Contents) -> Result<()> {
        self.file.write(op::CHUNK, data)?;
        let (start, mut indexes) = (self.file.position, BTreeMap::new());
        let index = if self.only_reads { &BTreeMap::new() } else { &contents.messages };
        for (&channel, messages) in index {
            let entries =
                messages.iter().flat_map(|(time, offset)| [time.to_le_bytes(), offset.to_le_bytes()]);
            let entries: Vec<u8> = entries.flatten().collect();
            indexes.insert(channel, self.file.write_index(channel, &entries)?);
        }
        self.file.summary.chunks.push(ChunkPlace {
            place,
            times: contents.times,
            indexes,
            indexes_len: self.file.position - start,
            compression: chunk.compression.clone(),
            compressed_size: chunk.compressed_size,
            size: chunk.records.len() as u64,
        });
        self.keep(contents);
        Ok(())
    }

    /// Notes what the index needs of a record, of the file or of a chunk.
    fn look_at(&self, contents: &mut Contents, opcode: u8, data: &[u8], offset: u64) -> Result<()> {
        match opcode {
            op::SCHEMA => {
                let id = Schema::parse(data)?.id;
                ensure!(id != 0, "a schema with the number 0");
                add(&self.file.summary.schemas, &mut contents.schemas, id, data, "schema")?;
            }
            op::CHANNEL => {
                let channel = Channel::parse(data)?;
                let schema = channel.schema;
                if schema != 0
                    && !self.file.summary.schemas.contains_key(&schema)
                    && !contents.schemas.contains_key(&schema)
                {
                    bail!("a channel of the schema {schema}, which is not described");
                }
                add(&self.file.summary.channels, &mut contents.channels, channel.id, data, "channel")?;
            }
            op::MESSAGE => {
                let Entry { channel, log_time, .. } = Entry::parse(data)?;
                if !self.file.summary.channels.contains_key(&channel)
                    && !contents.channels.contains_key(&channel)
                {
                    bail!("a message of the channel {channel}, which is not described");
                }
                contents.messages.entry(channel).or_default().push((log_time, offset));
                contents.times.add(log_time);
            }
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, contents: Contents) {
        self.file.summary.schemas.extend(contents.schemas);
        self.file.summary.channels.extend(contents.channels);
        for (channel, messages) in contents.messages {
            *self.file.summary.messages.entry(channel).or_default() += messages.len() as u64;
            for (time, _) in messages {
                self.file.summary.times.add(time);
            }
        }
    }

    fn leave_out(&mut self, place: Place, error: &anyhow::Error) {
        self.left_out = self.left_out.saturating_add(place.length);
        self.damaged(error);
    }

    pub(crate) fn damaged(&mut self, error: &anyhow::Error) {
        self.damages.add(error);
    }
}

/// Adds a description. The same number may not describe something else.
fn add(
    known: &BTreeMap<u16, Vec<u8>>,
    new: &mut BTreeMap<u16, Vec<u8>>,
    id: u16,
    data: &[u8],
    what: &str,
) -> Result<()> {
    if let Some(other) = known.get(&id).or(new.get(&id)) {
        ensure!(other == data, "the {what} {id} is described twice, and differs");
    } else {
        new.insert(id, data.to_vec());
    }
    Ok(())
}

fn attachment_index(data: &[u8], place: Place) -> Result<Body> {
    let mut fields = Fields::new(data);
    let (log_time, create_time) = (fields.u64()?, fields.u64()?);
    let (name, media_type) = (fields.string()?, fields.string()?);
    let len = fields.u64()?;
    fields.bytes(len)?;
    let crc = fields.u32()?;
    ensure!(fields.rest().is_empty(), "bytes behind an attachment");
    // 0 says that there is no sum.
    let sum = crc32fast::hash(data.get(..data.len().saturating_sub(size_of::<u32>())).unwrap_or_default());
    ensure!(crc == 0 || crc == sum, "an attachment with the CRC {crc:#010x} expected, {sum:#010x} found");
    let places = Body::default().u64(place.offset).u64(place.length);
    Ok(places.u64(log_time).u64(create_time).u64(len).string(name).string(media_type))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A small file with all kinds of records that its writer knows.
    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer =
            mcap::WriteOptions::new().chunk_size(Some(200)).create(Cursor::new(&mut bytes)).unwrap();
        let schema = writer.add_schema("a", "b", b"c").unwrap();
        let channels =
            ["x", "y"].map(|topic| writer.add_channel(schema, topic, "z", &BTreeMap::new()).unwrap());
        for number in 0..20_u32 {
            let channel_id = channels[number as usize % 2];
            let log_time = 100 - u64::from(number);
            let header = mcap::records::MessageHeader {
                channel_id,
                sequence: number,
                log_time,
                publish_time: log_time,
            };
            writer.write_to_known_channel(&header, &[7; 20]).unwrap();
        }
        let name = String::from("note");
        let metadata = [("key".to_owned(), "value".to_owned())].into();
        writer.write_metadata(&mcap::records::Metadata { name: name.clone(), metadata }).unwrap();
        let data = (&b"bytes"[..]).into();
        writer
            .attach(&mcap::Attachment { log_time: 1, create_time: 2, name, media_type: "m".into(), data })
            .unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    /// Salvages a file with a header, and reads what comes of it with another reader. The number of messages.
    fn salvage(bytes: &[u8]) -> Option<usize> {
        let mut records = Records::new(bytes).ok()?;
        let mut salvage = Salvage::begin(Vec::new()).unwrap();
        salvage.file.write_header("test").unwrap();
        salvage.copy(&mut records).unwrap();
        let expected = salvage.file.summary.message_count();
        salvage.file.write_end().unwrap();
        let output = salvage.file.into_inner();
        let summary = mcap::Summary::read(&output).unwrap().expect("an index");
        assert_eq!(summary.stats.as_ref().unwrap().message_count, expected);
        let found = mcap::MessageStream::new(&output).unwrap().map(Result::unwrap).count();
        assert_eq!(found as u64, expected);
        let chunks = summary.chunk_indexes.iter();
        let indexed: usize = chunks
            .map(|chunk| summary.stream_chunk(&output, chunk).unwrap().map(Result::unwrap).count())
            .sum();
        assert!(indexed <= found);
        for attachment in &summary.attachment_indexes {
            assert_eq!(&*mcap::read::attachment(&output, attachment).unwrap().data, b"bytes");
        }
        for index in &summary.metadata_indexes {
            mcap::read::metadata(&output, index).unwrap();
        }
        Some(found)
    }

    #[test]
    fn whole_files_are_copied_as_they_are() {
        assert_eq!(salvage(&file()), Some(20));
    }

    #[test]
    fn files_that_were_changed_anywhere_become_whole_ones() {
        let file = file();
        let mut random = fastrand::Rng::with_seed(19);
        let mut kept = 0;
        for round in 0..20_000 {
            let mut bytes = file.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(8..bytes.len());
                bytes[at] = if random.bool() { random.u8(..) } else { [0, 1, 0x7f, 0xff][random.usize(..4)] };
            }
            bytes.truncate(if round % 3 == 0 { random.usize(8..=bytes.len()) } else { bytes.len() });
            kept += salvage(&bytes).unwrap();
        }
        assert!(kept > 20_000, "{kept}");
    }
}
