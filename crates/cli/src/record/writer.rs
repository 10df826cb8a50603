//! [`Writer`]: an MCAP file that is written from its mark to its end, with the index of what it has.

use std::io::{self, Write};

use crate::{
    record::summary::{Body, Place, Summary, record_len, write_body, write_record},
    recording::records::{MAGIC, op},
};

/// A file in the making.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    output: W,
    /// Bytes that were written.
    pub(crate) position: u64,
    pub(crate) summary: Summary,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(crate) fn begin(mut output: W) -> io::Result<Self> {
        output.write_all(MAGIC)?;
        Ok(Self { output, position: MAGIC.len() as u64, summary: Summary::default() })
    }

    pub(crate) fn write(&mut self, opcode: u8, data: &[u8]) -> io::Result<()> {
        write_record(&mut self.output, opcode, data)?;
        self.position += record_len(data);
        Ok(())
    }

    fn write_body(&mut self, opcode: u8, body: &Body) -> io::Result<()> {
        write_body(&mut self.output, opcode, body)?;
        self.position += record_len(body.as_slice());
        Ok(())
    }

    /// Writes a record that has its opcode and its length already. Where it is.
    pub(crate) fn write_whole(&mut self, record: &[u8]) -> io::Result<Place> {
        self.output.write_all(record)?;
        let place = Place { offset: self.position, length: record.len() as u64 };
        self.position += place.length;
        Ok(place)
    }

    pub(crate) fn write_header(&mut self, library: &str) -> io::Result<()> {
        self.write_body(op::HEADER, &Body::default().string("").string(library))
    }

    /// Writes the times and offsets of a chunk's messages of one channel, of eight bytes each. Its offset.
    pub(crate) fn write_index(&mut self, channel: u16, entries: &[u8]) -> io::Result<u64> {
        let offset = self.position;
        self.write_body(op::MESSAGE_INDEX, &Body::default().u16(channel).block(entries))?;
        Ok(offset)
    }

    pub(crate) fn write_metadata<'v>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> io::Result<()> {
        let entries = values.into_iter();
        let entries = entries.fold(Body::default(), |body, (key, value)| body.string(key).string(value));
        let body = Body::default().string(name).block(entries.as_slice());
        let place = Place { offset: self.position, length: record_len(body.as_slice()) };
        self.summary.add_metadata(place, name);
        self.write_body(op::METADATA, &body)
    }

    /// Writes the end of the file.
    pub(crate) fn write_end(&mut self) -> io::Result<()> {
        self.position = self.summary.write_end(&mut self.output, self.position)?;
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Gives back what was written to.
    pub(crate) fn into_inner(self) -> W {
        self.output
    }
}
