//! [`Messages`]: the messages of a recording, in the order of the file.
//!
//! Skips chunks that are damaged, and ends where the file is cut: a recorder that was killed leaves such files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Seek},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::recording::{
    chunk::{Chunk, Walk},
    damages::Damages,
    layout::{BEGIN, Channel, END, Entry, MAX_PAYLOAD, MISSED_AT_END, Metadata, Schema},
    message::{ENCODING, Recorded, SCHEMA},
    records::{Records, op},
};

/// Reads the messages of a recording.
#[derive(Debug)]
pub(crate) struct Messages {
    records: Records<BufReader<File>>,
    walk: Option<Walk>,
    /// The schemas that are that of a published message.
    schemas: BTreeSet<u16>,
    /// The topics of all channels, and whether their messages are published ones.
    channels: BTreeMap<u16, (String, bool)>,
    has_ended: bool,
    /// The file ends within the record that was read last: nothing more is read.
    is_cut: bool,
    notes: Notes,
}

/// The notes of a recording besides its messages.
#[derive(Debug, Default, Clone)]
pub(crate) struct Notes {
    /// Bytes of the longest payload that its publisher could publish.
    pub(crate) max_payload: Option<u64>,
    /// Messages that were missed behind the last one.
    pub(crate) missed_at_end: u64,
    /// Messages of other kinds, which are left out.
    pub(crate) foreign: u64,
    pub(crate) damages: Damages,
}

/// Most topics that are named.
const MAX_TOPICS: usize = 10;

impl Messages {
    /// Reads from the begin of a file.
    pub(crate) fn new(file: &File) -> Result<Self> {
        let mut file = file.try_clone().context("dup")?;
        file.rewind().context("lseek: a file expected, no pipe")?;
        Ok(Self {
            records: Records::new(BufReader::new(file))?,
            walk: None,
            schemas: BTreeSet::new(),
            channels: BTreeMap::new(),
            has_ended: false,
            is_cut: false,
            notes: Notes::default(),
        })
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The next message, and the time of its receipt in nanoseconds since 1970.
    pub(crate) fn read(&mut self) -> Result<Option<(u64, Recorded)>> {
        while !self.has_ended {
            if let Some(walk) = &mut self.walk {
                match walk.next() {
                    None => self.walk = None,
                    Some((_, opcode, data)) => {
                        if let Some(message) = self.take(opcode, &data)? {
                            return Ok(Some(message));
                        }
                    }
                }
            } else if self.is_cut {
                self.has_ended = true;
            } else if let Some(message) = self.read_record()? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn read_record(&mut self) -> Result<Option<(u64, Recorded)>> {
        let (opcode, data) = match self.records.read() {
            Ok(Some((op::CHUNK, data))) => {
                match Chunk::open(data) {
                    Ok(chunk) => self.walk = Some(chunk.walk()),
                    Err(error) => self.damaged(&error),
                }
                return Ok(None);
            }
            Ok(Some((opcode, data))) => (opcode, Bytes::copy_from_slice(data)),
            Ok(None) => {
                self.damaged(&anyhow::anyhow!("the file has no end: it was not completed"));
                self.has_ended = true;
                return Ok(None);
            }
            Err(error) => {
                // Its first messages may be whole.
                let cut = self.records.cut().filter(|cut| cut.opcode == op::CHUNK);
                self.walk = cut.and_then(|cut| Chunk::open_cut(cut).ok()).map(|chunk| chunk.walk());
                let kept =
                    if self.walk.is_some() { "; its first messages are whole, and not checked" } else { "" };
                self.damaged(&anyhow::anyhow!("{error:#}{kept}"));
                self.is_cut = true;
                return Ok(None);
            }
        };
        self.take(opcode, &data)
    }

    /// Takes a record, of the file or of a chunk. A record that is not what it says is a damage.
    fn take(&mut self, opcode: u8, data: &Bytes) -> Result<Option<(u64, Recorded)>> {
        let taken = match opcode {
            op::SCHEMA => self.take_schema(data).map(|()| None),
            op::CHANNEL => return self.take_channel(data).map(|()| None),
            op::MESSAGE => self.take_message(data),
            op::METADATA => self.take_metadata(data).map(|()| None),
            op::DATA_END | op::FOOTER => {
                self.has_ended = true;
                Ok(None)
            }
            _ => Ok(None),
        };
        Ok(taken.unwrap_or_else(|error| {
            self.damaged(&error);
            None
        }))
    }

    fn take_schema(&mut self, data: &[u8]) -> Result<()> {
        let schema = Schema::parse(data)?;
        if (schema.name, schema.encoding) == (SCHEMA, ENCODING) {
            self.schemas.insert(schema.id);
        }
        Ok(())
    }

    fn take_channel(&mut self, data: &[u8]) -> Result<()> {
        let Ok(channel) = Channel::parse(data).inspect_err(|error| self.damaged(error)) else {
            return Ok(());
        };
        let is_ours = channel.encoding == ENCODING && self.schemas.contains(&channel.schema);
        let mut others = self.channels.values().filter(|(topic, ours)| *ours && topic != channel.topic);
        if is_ours && let Some((other, _)) = others.next() {
            bail!(
                "the messages of one publisher expected, those of {other:?} and {:?} found: take one of them out \
                 by `mcap filter --include-topic-regex`",
                channel.topic
            );
        }
        self.channels.insert(channel.id, (channel.topic.to_owned(), is_ours));
        Ok(())
    }

    fn take_message(&mut self, data: &Bytes) -> Result<Option<(u64, Recorded)>> {
        let entry = Entry::parse(data)?;
        match self.channels.get(&entry.channel) {
            Some((_, true)) => {
                let message = Recorded::decode_from(data.slice_ref(entry.data))?;
                Ok(Some((entry.log_time, message)))
            }
            Some((_, false)) => {
                self.notes.foreign += 1;
                Ok(None)
            }
            None => bail!("a message of the channel {}, which is not described", entry.channel),
        }
    }

    fn take_metadata(&mut self, data: &[u8]) -> Result<()> {
        let metadata = Metadata::parse(data)?;
        if metadata.name == BEGIN {
            self.notes.max_payload = metadata.number(MAX_PAYLOAD)?;
        } else if metadata.name == END {
            self.notes.missed_at_end = metadata.number(MISSED_AT_END)?.unwrap_or(0);
        }
        Ok(())
    }

    fn damaged(&mut self, error: &anyhow::Error) {
        self.notes.damages.add(error);
    }

    /// The topics whose messages are no published ones.
    pub(crate) fn foreign_topics(&self) -> Vec<&str> {
        let foreign = self.channels.values().filter(|(_, is_ours)| !is_ours);
        foreign.map(|(topic, _)| topic.as_str()).take(MAX_TOPICS).collect()
    }

    /// Whether there is a channel of published messages.
    pub(crate) fn is_recording(&self) -> bool {
        self.channels.values().any(|(_, is_ours)| *is_ours)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write};

    use prost::Message as _;

    use super::*;
    use crate::recording::message::schema;

    /// A recording of twenty messages in several chunks.
    fn recording() -> Vec<u8> {
        let mut bytes = Vec::new();
        let options = mcap::WriteOptions::new().chunk_size(Some(200));
        let mut writer = options.create(std::io::Cursor::new(&mut bytes)).unwrap();
        let values = [(MAX_PAYLOAD.to_owned(), "1000".to_owned())].into();
        writer.write_metadata(&mcap::records::Metadata { name: BEGIN.into(), metadata: values }).unwrap();
        let schema = writer.add_schema(SCHEMA, ENCODING, &schema()).unwrap();
        let channel_id = writer.add_channel(schema, "/sealane/p", ENCODING, &BTreeMap::new()).unwrap();
        for number in 0..20_u32 {
            let message = Recorded { sequence: number.into(), missed: 1, ..Recorded::default() };
            let header =
                mcap::records::MessageHeader { channel_id, sequence: number, log_time: 1, publish_time: 1 };
            writer.write_to_known_channel(&header, &message.encode_to_vec()).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(usize, Notes)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut messages = Messages::new(&file)?;
        let mut count = 0;
        while messages.read()?.is_some() {
            count += 1;
        }
        Ok((count, messages.notes().clone()))
    }

    #[test]
    fn a_recording_has_its_messages_and_notes() {
        let (count, notes) = read(&recording()).unwrap();
        assert_eq!((count, notes.max_payload, notes.foreign), (20, Some(1000), 0));
        assert!(notes.damages.is_empty());
    }

    #[test]
    fn recordings_that_were_changed_anywhere_are_read_as_far_as_they_are_whole() {
        let file = recording();
        let mut random = fastrand::Rng::with_seed(19);
        let (mut all, mut damaged) = (0, 0);
        for _ in 0..3000 {
            let mut bytes = file.clone();
            let at = random.usize(8..bytes.len());
            bytes[at] = if random.bool() { random.u8(..) } else { 0xff };
            // Two publishers in one file are an error of the file as a whole.
            if let Ok((count, notes)) = read(&bytes) {
                all += count;
                damaged += usize::from(!notes.damages.is_empty());
            }
        }
        assert!(all > 30_000 && damaged > 500, "{all} messages, {damaged} files with damages");
    }
}
