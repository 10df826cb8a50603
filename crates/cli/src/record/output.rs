//! [`Output`]: one MCAP file that is being written. What it has up to the last flush can be read, whatever happens then.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufWriter,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    record::{
        batch::{Batch, INDEX_ENTRY, MESSAGE_HEADING, Staged},
        summary::Body,
        tally::Tally,
        writer::Writer,
    },
    recording::{
        layout::{BEGIN, END},
        message::{ENCODING, Received, SCHEMA, schema},
        records::op,
    },
};

/// Bytes of a chunk after which it is ended: with less than a cache of the processor holds, the kernel copies what is there still.
const CHUNK: usize = 1 << 20;

/// The same where each flush waits for the disk, so that it waits less often.
const SYNCED_CHUNK: usize = 4 << 20;

/// The longest time for which a message is not in the file yet.
pub(crate) const FLUSH: Duration = Duration::from_secs(1);

/// Bytes that a file's indexes take for each chunk, at most.
const OF_CHUNK: u64 = 256;

/// Bytes of a file's end besides those, at most.
const OF_FILE: u64 = 8 << 10;

/// The numbers of a file's only schema, and of its only channel.
const SCHEMA_ID: u16 = 1;
const CHANNEL_ID: u16 = 0;

/// A file that is being written.
pub(crate) struct Output {
    writer: Writer<BufWriter<File>>,
    /// Messages that are not in the file yet.
    batch: Batch,
    /// Whether each flush waits for the disk.
    syncs: Option<File>,
    /// When the first message of the chunk came.
    pending_since: Option<Instant>,
    tally: Tally,
    /// Up to the end of the last flush.
    whole: Contents,
    /// A write has failed: nothing follows.
    failed: bool,
}

/// The bytes and the messages of a file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Contents {
    pub(crate) bytes: u64,
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
        let mut writer = Writer::begin(BufWriter::new(file))?;
        writer.write_header(concat!("sealane ", env!("CARGO_PKG_VERSION")))?;
        writer.write_metadata(BEGIN, pairs(&heading.about))?;
        let schema = Body::default().u16(SCHEMA_ID).string(SCHEMA).string(ENCODING).block(&schema());
        let channel = Body::default().u16(CHANNEL_ID).u16(SCHEMA_ID).string(&heading.topic).string(ENCODING);
        // No metadata of the channel.
        let channel = channel.block(&[]);
        let mut batch = Batch::new(if syncs.is_some() { SYNCED_CHUNK } else { CHUNK });
        for (opcode, body) in [(op::SCHEMA, &schema), (op::CHANNEL, &channel)] {
            batch.add(opcode, body.as_slice());
        }
        writer.summary.schemas.insert(SCHEMA_ID, schema.as_slice().to_vec());
        writer.summary.channels.insert(CHANNEL_ID, channel.as_slice().to_vec());
        let (tally, whole) = (Tally::default(), Contents::default());
        let mut output = Self { writer, batch, syncs, pending_since: None, tally, whole, failed: false };
        output.flush()?;
        Ok(output)
    }

    /// Copies a message, which is not written before [`write`](Self::write).
    pub(crate) fn stage(&mut self, message: &Received<'_>) -> Result<Staged> {
        self.batch.stage(message)
    }

    /// Takes a message that was copied for another file.
    pub(crate) fn take_over(&mut self, staged: &Staged, from: &Self) {
        self.batch.take_over(staged, &from.batch);
    }

    /// Writes the message that was copied last: one that is whole. `log_time` is that of its receipt, in nanoseconds since 1970.
    pub(crate) fn write(&mut self, staged: &Staged, log_time: u64, now: Instant) -> Result<()> {
        self.batch.join(staged, CHANNEL_ID, log_time);
        self.tally.add(staged);
        self.pending_since.get_or_insert(now);
        if self.batch.is_full() { self.flush() } else { Ok(()) }
    }

    /// Until when the chunk has to be ended.
    pub(crate) fn flush_due(&self) -> Option<Instant> {
        self.pending_since.map(|since| since + FLUSH)
    }

    /// Ends the chunk, so that all messages are in the file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.failed = true;
        self.batch.write(&mut self.writer, CHANNEL_ID)?;
        self.writer.flush()?;
        self.sync()?;
        self.failed = false;
        self.pending_since = None;
        self.whole = Contents { bytes: self.writer.position, tally: self.tally.clone() };
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tally.messages == 0
    }

    /// Bytes of the file if it were ended behind one more message, at most.
    pub(crate) fn size_with(&self, staged: &Staged) -> u64 {
        let records = self.batch.len() + MESSAGE_HEADING + staged.len;
        let pending = records + (self.batch.messages() + 1) * INDEX_ENTRY;
        let chunks = self.writer.summary.chunks.len() as u64 + 1;
        self.writer.position + pending as u64 + chunks * OF_CHUNK + OF_FILE
    }

    /// Ends the file with its index, and with `about` as metadata. Returns what it has, and an error after which it ends where it was
    /// flushed last.
    pub(crate) fn finish(mut self, mut about: BTreeMap<String, String>) -> (Contents, Option<anyhow::Error>) {
        about.extend(self.tally.to_metadata());
        match self.end(&about) {
            Ok(()) => (Contents { bytes: self.writer.position, tally: self.tally }, None),
            Err(error) => (self.abandon(), Some(error)),
        }
    }

    fn end(&mut self, about: &BTreeMap<String, String>) -> Result<()> {
        if self.failed {
            bail!("nothing follows a write that has failed");
        }
        if self.batch.messages() > 0 {
            self.flush()?;
        }
        self.writer.write_metadata(END, pairs(about))?;
        self.writer.write_end()?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.syncs.as_ref().map_or(Ok(()), |file| file.sync_data().context("fdatasync"))
    }

    /// Leaves the file as it was flushed last, since nothing more can be written: it has no end, but all of it can be read. Returns
    /// what it has.
    fn abandon(self) -> Contents {
        // The rest in the buffer is dropped, not written.
        let (file, _) = self.writer.into_inner().into_parts();
        // A pipe has no length, and keeps what it got.
        let _ = file.set_len(self.whole.bytes);
        self.whole
    }
}

fn pairs(values: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}
