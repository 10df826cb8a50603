//! [`Output`]: one MCAP file that is being written. What it has up to the last flush can be read, whatever happens then.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mcap::{
    WriteOptions,
    records::{MessageHeader, Metadata},
    write::NoSeek,
};

use crate::{
    record::tally::Tally,
    recording::{
        layout::{BEGIN, END},
        message::{ENCODING, SCHEMA, schema},
    },
};

/// Bytes of a chunk after which it is ended.
const CHUNK: u64 = 4 << 20;

/// The longest time for which a message is not in the file yet.
pub(crate) const FLUSH: Duration = Duration::from_secs(1);

/// Bytes that a file's indexes take for each message.
const OF_MESSAGE: u64 = 16;

/// Bytes that a file's indexes take for each chunk, at most.
const OF_CHUNK: u64 = 256;

/// Bytes of a file's end besides those, at most.
const OF_FILE: u64 = 8 << 10;

/// Bytes of a message's record besides its data.
const MESSAGE_HEADING: u64 = 31;

/// A file that is being written.
pub(crate) struct Output {
    writer: mcap::Writer<NoSeek<Counted>>,
    written: Rc<Cell<u64>>,
    channel: u16,
    /// Whether each flush waits for the disk.
    syncs: Option<File>,
    /// When the first message of the chunk came.
    pending_since: Option<Instant>,
    pending: u64,
    chunks: u64,
    /// Bytes up to the end of the last flush.
    whole: u64,
    pub(crate) tally: Tally,
}

/// The beginning of a file.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    pub(crate) topic: String,
    /// The metadata of [`BEGIN`].
    pub(crate) about: BTreeMap<String, String>,
}

impl Output {
    /// Begins a file. With `syncs`, each flush waits for the disk.
    pub(crate) fn begin(file: File, heading: &Heading, syncs: bool) -> Result<Self> {
        let syncs = syncs.then(|| file.try_clone().context("dup")).transpose()?;
        let written = Rc::new(Cell::new(0));
        let counted = Counted { file: BufWriter::new(file), written: Rc::clone(&written) };
        // Without seeking a chunk is written when it is complete, and so a file that is cut ends with a complete one. Chunks are
        // ended here, so that it is known up to where the file is whole. Each has a sum of its own.
        let options = WriteOptions::new()
            .library(concat!("sealane ", env!("CARGO_PKG_VERSION")))
            .compression(None)
            .disable_seeking(true)
            .chunk_size(None)
            .calculate_data_section_crc(false);
        let mut writer = options.create(NoSeek::new(counted))?;
        writer.write_metadata(&Metadata { name: BEGIN.into(), metadata: heading.about.clone() })?;
        let schema = writer.add_schema(SCHEMA, ENCODING, &schema())?;
        let channel = writer.add_channel(schema, &heading.topic, ENCODING, &BTreeMap::new())?;
        let mut output = Self {
            writer,
            written,
            channel,
            syncs,
            pending_since: None,
            pending: 0,
            chunks: 0,
            whole: 0,
            tally: Tally::default(),
        };
        output.flush()?;
        Ok(output)
    }

    /// Writes a message: its number, the time of its receipt in nanoseconds since 1970, and its bytes.
    pub(crate) fn write(&mut self, sequence: u64, log_time: u64, data: &[u8], now: Instant) -> Result<()> {
        // MCAP's numbers have 32 bits; the message has all.
        let sequence = u32::try_from(sequence & u64::from(u32::MAX))?;
        let header = MessageHeader { channel_id: self.channel, sequence, log_time, publish_time: log_time };
        self.writer.write_to_known_channel(&header, data)?;
        self.pending_since.get_or_insert(now);
        self.pending += MESSAGE_HEADING + data.len() as u64;
        if self.pending >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Until when the chunk has to be ended.
    pub(crate) fn flush_due(&self) -> Option<Instant> {
        self.pending_since.map(|since| since + FLUSH)
    }

    /// Ends the chunk, so that all messages are in the file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush()?;
        self.sync()?;
        (self.pending_since, self.pending) = (None, 0);
        self.chunks += 1;
        self.whole = self.written.get();
        Ok(())
    }

    /// Bytes of the file if it were ended behind one more message, at most.
    pub(crate) fn size_with(&self, data: usize) -> u64 {
        let more = self.pending + MESSAGE_HEADING + OF_MESSAGE + data as u64;
        self.written.get() + more + self.tally.messages * OF_MESSAGE + (self.chunks + 1) * OF_CHUNK + OF_FILE
    }

    /// Ends the file with its index, and with `about` as metadata. Returns its bytes, and an error after which the file ends where it
    /// was flushed last.
    pub(crate) fn finish(mut self, mut about: BTreeMap<String, String>) -> (u64, Option<anyhow::Error>) {
        about.extend(self.tally.to_metadata());
        let end = Metadata { name: END.into(), metadata: about };
        let finished = self.writer.write_metadata(&end).and_then(|()| self.writer.finish());
        match finished.map_err(anyhow::Error::from).and_then(|_| self.sync()) {
            Ok(()) => (self.written.get(), None),
            Err(error) => (self.abandon(), Some(error)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.syncs.as_ref().map_or(Ok(()), |file| file.sync_data().context("fdatasync"))
    }

    /// Leaves the file as it was flushed last, since nothing more can be written: it has no end, but all of it can be read. Returns
    /// its bytes.
    fn abandon(self) -> u64 {
        // The rest in the buffers is dropped, not written.
        let (file, _) = self.writer.into_inner().into_inner().file.into_parts();
        // A pipe has no length, and keeps what it got.
        let _ = file.set_len(self.whole);
        self.whole
    }
}

/// Counts the bytes that are written to a file.
pub(crate) struct Counted {
    file: BufWriter<File>,
    written: Rc<Cell<u64>>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.written.set(self.written.get() + len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
