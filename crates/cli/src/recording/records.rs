//! [`Records`]: the records of an MCAP file, one after the other: an opcode, a length, and that many bytes.

use std::io::Read;

use anyhow::{Result, bail, ensure};

/// The opcodes of records.
pub(crate) mod op {
    pub(crate) const HEADER: u8 = 0x01;
    pub(crate) const FOOTER: u8 = 0x02;
    pub(crate) const SCHEMA: u8 = 0x03;
    pub(crate) const CHANNEL: u8 = 0x04;
    pub(crate) const MESSAGE: u8 = 0x05;
    pub(crate) const CHUNK: u8 = 0x06;
    pub(crate) const MESSAGE_INDEX: u8 = 0x07;
    pub(crate) const CHUNK_INDEX: u8 = 0x08;
    pub(crate) const ATTACHMENT: u8 = 0x09;
    pub(crate) const ATTACHMENT_INDEX: u8 = 0x0a;
    pub(crate) const STATISTICS: u8 = 0x0b;
    pub(crate) const METADATA: u8 = 0x0c;
    pub(crate) const METADATA_INDEX: u8 = 0x0d;
    pub(crate) const SUMMARY_OFFSET: u8 = 0x0e;
    pub(crate) const DATA_END: u8 = 0x0f;
}

/// Bytes of the longest record that is read, and of the longest chunk after decompression. A record of a message is at most half of
/// a ring, and a recorder accepts rings of up to this size.
pub(crate) const MAX_RECORD: u64 = 1 << 30;

/// The mark at the begin and at the end of an MCAP file.
pub(crate) const MAGIC: &[u8; 8] = b"\x89MCAP0\r\n";

/// Bytes of an opcode and a length.
pub(crate) const HEADING: usize = 9;

/// Reads records from a file that may end anywhere.
#[derive(Debug)]
pub(crate) struct Records<R> {
    input: R,
    position: u64,
    data: Vec<u8>,
    /// The record that the file ends within, of which `data` has what is there.
    cut: Option<(u8, u64)>,
}

/// A record within which the file ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut<'d> {
    pub(crate) opcode: u8,
    /// Bytes of its data, as it says: no more than [`MAX_RECORD`].
    pub(crate) len: u64,
    /// The bytes that are there.
    pub(crate) data: &'d [u8],
}

impl<R: Read> Records<R> {
    /// Reads the mark at the begin of the file.
    pub(crate) fn new(mut input: R) -> Result<Self> {
        let mut magic = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        ensure!(magic == MAGIC, "an MCAP file expected, which begins with {MAGIC:x?}; found {magic:x?}");
        Ok(Self { input, position: MAGIC.len() as u64, data: Vec::new(), cut: None })
    }

    /// The offset behind the last record that was read whole.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads the next record: its opcode and its data. `None` at the end of the file, if that is the end of a record too.
    pub(crate) fn read(&mut self) -> Result<Option<(u8, &[u8])>> {
        self.read_up_to(HEADING as u64)?;
        let Some((&[opcode], len)) = self.data.split_first_chunk() else { return Ok(None) };
        let Ok(len) = len.try_into().map(u64::from_le_bytes) else {
            bail!("the file ends within the heading of a record, at byte {}", self.position);
        };
        ensure!(
            len <= MAX_RECORD,
            "a record of {len} bytes (opcode {opcode:#04x}) at byte {}: at most {MAX_RECORD} expected",
            self.position
        );
        // UNTRUSTED: memory is taken for the bytes that are there, not for those that are announced.
        self.read_up_to(len)?;
        let found = self.data.len() as u64;
        if found < len {
            self.cut = Some((opcode, len));
            bail!(
                "the file ends within a record (opcode {opcode:#04x}) at byte {}: {len} bytes expected, {found} found",
                self.position
            );
        }
        self.position = self.position.saturating_add(HEADING as u64).saturating_add(len);
        Ok(Some((opcode, &self.data)))
    }

    fn read_up_to(&mut self, len: u64) -> Result<()> {
        self.data.clear();
        self.input.by_ref().take(len).read_to_end(&mut self.data)?;
        Ok(())
    }

    /// The record within which the file ends, once [`read`](Self::read) has found that.
    pub(crate) fn cut(&self) -> Option<Cut<'_>> {
        self.cut.map(|(opcode, len)| Cut { opcode, len, data: &self.data })
    }

    /// The bytes behind the last record, up to `len` of them.
    pub(crate) fn rest(&mut self, len: u64) -> Result<&[u8]> {
        self.read_up_to(len)?;
        Ok(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[u8]) -> Vec<u8> {
        [MAGIC, records].concat()
    }

    #[test]
    fn lengths_beyond_the_file_are_errors_and_take_no_memory() {
        for len in [4_u64, MAX_RECORD, MAX_RECORD + 1, 1 << 60, u64::MAX] {
            let bytes = file(&[&[op::MESSAGE][..], &len.to_le_bytes(), b"abc"].concat());
            let mut records = Records::new(bytes.as_slice()).unwrap();
            let error = records.read().unwrap_err().to_string();
            assert!(error.contains("at byte 8") && error.contains("expected"), "{error}");
            assert!(records.data.capacity() < 4096, "{}", records.data.capacity());
            assert_eq!(records.position(), 8);
            let cut = records.cut().map(|cut| (cut.opcode, cut.len, cut.data));
            assert_eq!(cut, (len <= MAX_RECORD).then_some((op::MESSAGE, len, &b"abc"[..])));
        }
    }

    #[test]
    fn a_file_that_ends_behind_a_record_has_an_end() {
        let bytes = file(&[&[op::MESSAGE][..], &3_u64.to_le_bytes(), b"abc"].concat());
        let mut records = Records::new(bytes.as_slice()).unwrap();
        assert_eq!(records.read().unwrap(), Some((op::MESSAGE, &b"abc"[..])));
        assert_eq!(records.position(), 20);
        assert_eq!(records.read().unwrap(), None);
        for end in 9..20 {
            let mut records = Records::new(&bytes[..end]).unwrap();
            assert!(records.read().is_err(), "{end}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"\x89MCAP0\r", b"#!/bin/sh\n"] {
            assert!(Records::new(bytes).is_err());
        }
    }
}
