//! [`Chunk`]: many records of an MCAP file, compressed or not, and checked as a whole before any of them is used.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes};

use crate::recording::{
    fields::Fields,
    records::{Cut, HEADING, MAX_RECORD, op},
};

/// A chunk whose records are whole.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) compression: String,
    /// Bytes of the records as they are in the file.
    pub(crate) compressed_size: u64,
    /// Bytes before the records in the chunk's data.
    pub(crate) records: Bytes,
}

impl Chunk {
    /// Decompresses a chunk, and checks its sum and the lengths of its records.
    pub(crate) fn open(data: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(data);
        let (_start, _end, size, crc) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u32()?);
        let compression = fields.string()?.to_owned();
        let compressed_size = fields.u64()?;
        let compressed = fields.bytes(compressed_size)?;
        ensure!(size <= MAX_RECORD, "a chunk of {size} bytes: at most {MAX_RECORD} expected");
        let records = decompress(compressed, &compression, size).context("a chunk")?;
        let found = records.len() as u64;
        ensure!(found == size, "a chunk of {size} bytes expected, {found} found");
        // 0 says that there is no sum.
        let sum = crc32fast::hash(&records);
        ensure!(crc == 0 || crc == sum, "a chunk with the CRC {crc:#010x} expected, {sum:#010x} found");
        let chunk = Self { compression, compressed_size, records };
        let mut walk = chunk.walk();
        walk.by_ref().for_each(drop);
        ensure!(walk.rest.is_empty(), "a chunk ends within a record, at byte {}", walk.offset);
        Ok(chunk)
    }

    /// The whole records of a chunk within which the file ends: the first ones, if they are not compressed. Their bytes are not checked,
    /// since the sum is that of all records.
    pub(crate) fn open_cut(cut: Cut<'_>) -> Result<Self> {
        let mut fields = Fields::new(cut.data);
        fields.bytes(28)?;
        let compression = fields.string()?;
        ensure!(compression.is_empty(), "its records are compressed ({compression:?}) as a whole");
        // UNTRUSTED: the lengths of the chunk and of its records only bound what is taken of the bytes that are there.
        let announced = usize::try_from(fields.u64()?).unwrap_or(usize::MAX);
        let there = fields.rest();
        let mut records = Bytes::copy_from_slice(&there[..announced.min(there.len())]);
        let mut walk = Walk { rest: records.clone(), offset: 0 };
        // Other records do not belong into a chunk: they are holes in the file, or other bytes that were never records.
        while walk.peek().is_some_and(|opcode| matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE)) {
            if walk.next().is_none() {
                break;
            }
        }
        records.truncate(usize::try_from(walk.offset)?);
        Ok(Self { compression: String::new(), compressed_size: walk.offset, records })
    }

    /// Bytes of the chunk's data before its records, as a file has them.
    pub(crate) fn heading_len(&self) -> usize {
        8 + 8 + 8 + 4 + 4 + self.compression.len() + 8
    }

    /// The chunk's data, as a file has them, of an uncompressed chunk with these times.
    pub(crate) fn encode(&self, (start, end): (u64, u64)) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.heading_len() + self.records.len());
        data.put_u64_le(start);
        data.put_u64_le(end);
        data.put_u64_le(self.records.len() as u64);
        data.put_u32_le(crc32fast::hash(&self.records));
        data.put_u32_le(0);
        data.put_u64_le(self.records.len() as u64);
        data.put_slice(&self.records);
        data
    }

    /// The records: offset, opcode and data of each.
    pub(crate) fn walk(&self) -> Walk {
        Walk { rest: self.records.clone(), offset: 0 }
    }
}

/// UNTRUSTED: no more than the announced size is decompressed, and memory grows with what is.
fn decompress(compressed: &[u8], compression: &str, size: u64) -> Result<Bytes> {
    let limit = size.saturating_add(1);
    let mut records = Vec::new();
    match compression {
        "" => records.extend_from_slice(compressed),
        "lz4" => {
            lz4_flex::frame::FrameDecoder::new(compressed).take(limit).read_to_end(&mut records)?;
        }
        "zstd" => {
            ruzstd::decoding::StreamingDecoder::new(compressed)?.take(limit).read_to_end(&mut records)?;
        }
        other => bail!("the compression lz4 or zstd, or none, expected, {other:?} found"),
    }
    Ok(records.into())
}

/// Walks over records in memory. Ends before a record that is not whole.
#[derive(Debug)]
pub(crate) struct Walk {
    rest: Bytes,
    offset: u64,
}

impl Walk {
    /// The opcode of the next record, which may not be whole.
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }
}

impl Iterator for Walk {
    type Item = (u64, u8, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let (heading, behind) = self.rest.split_at_checked(HEADING)?;
        let (&opcode, len) = heading.split_first()?;
        let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
        if len > behind.len() {
            return None;
        }
        let mut record = self.rest.split_to(HEADING + len);
        let at = self.offset;
        self.offset += record.len() as u64;
        Some((at, opcode, record.split_off(HEADING)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: u64, data: &[u8]) -> Vec<u8> {
        [&[op::MESSAGE][..], &len.to_le_bytes(), data].concat()
    }

    fn chunk(size: u64, crc: u32, compression: &str, records: &[u8]) -> Vec<u8> {
        let name_len = u32::try_from(compression.len()).unwrap();
        let mut data = [[0_u8; 16].as_slice(), &size.to_le_bytes(), &crc.to_le_bytes()].concat();
        data.extend_from_slice(&name_len.to_le_bytes());
        data.extend_from_slice(compression.as_bytes());
        data.extend_from_slice(&(records.len() as u64).to_le_bytes());
        data.extend_from_slice(records);
        data
    }

    #[test]
    fn chunks_that_are_not_what_they_say_are_errors() {
        let good = record(3, b"abc");
        let (len, crc) = (good.len() as u64, crc32fast::hash(&good));
        let opened = Chunk::open(&chunk(len, crc, "", &good)).unwrap();
        assert_eq!(opened.walk().collect::<Vec<_>>(), [(0, op::MESSAGE, Bytes::from_static(b"abc"))]);
        assert!(Chunk::open(&chunk(len, 0, "", &good)).is_ok(), "no sum");
        let long = record(u64::MAX, b"abc");
        for (what, data) in [
            ("a sum", chunk(len, crc ^ 1, "", &good)),
            ("a length", chunk(len + 1, crc, "", &good)),
            ("a huge length", chunk(1 << 60, 0, "zstd", &good)),
            ("a compression", chunk(len, crc, "rot13", &good)),
            ("compressed bytes", chunk(len, crc, "zstd", &good)),
            ("compressed bytes", chunk(len, crc, "lz4", &good)),
            ("a record's length", chunk(long.len() as u64, 0, "", &long)),
            ("a record's heading", chunk(4, 0, "", &good[..4])),
            ("nothing", Vec::new()),
        ] {
            assert!(Chunk::open(&data).is_err(), "{what}");
        }
    }

    #[test]
    fn a_chunk_that_is_cut_anywhere_has_its_first_records() {
        let records = [record(3, b"abc"), record(0, b""), record(5, b"defgh")].concat();
        let data = chunk(records.len() as u64, 7, "", &records);
        let heading = data.len() - records.len();
        let open =
            |data: &[u8], len: usize| Chunk::open_cut(Cut { opcode: op::CHUNK, len: len as u64, data });
        for end in 0..data.len() {
            let whole = [12, 21].into_iter().filter(|bytes| heading + bytes <= end).count();
            match open(&data[..end], data.len()) {
                Err(_) => assert!(end < heading, "{end}"),
                Ok(cut) => {
                    assert_eq!(cut.walk().count(), whole, "{end}");
                    let again = Chunk::open(&cut.encode((1, 2))).unwrap();
                    assert_eq!(again.records, cut.records);
                }
            }
        }
        // Lengths that nobody vouches for, and holes.
        for (what, tail) in [
            ("a record's length", record(u64::MAX, b"abc")),
            ("a record's length", record(1 << 29, b"abc")),
            ("a hole", vec![0; 4096]),
            ("an opcode", [&[op::METADATA][..], &[0; 8]].concat()),
        ] {
            let data = chunk(1 << 60, 7, "", &[record(3, b"abc"), tail].concat());
            assert_eq!(open(&data, 1 << 29).unwrap().records.len(), 12, "{what}");
        }
        let mut short = chunk(12, 7, "", &records);
        short[heading - 8..heading].copy_from_slice(&12_u64.to_le_bytes());
        assert_eq!(open(&short, 1 << 20).unwrap().walk().count(), 1, "the chunk says that it ends there");
        assert!(open(&chunk(1, 7, "zstd", b"abc"), 1000).is_err());
    }

    #[test]
    fn compressed_chunks_are_opened_and_bombs_are_not() {
        let records: Vec<u8> =
            std::iter::repeat_with(|| record(1000, &[7; 1000])).take(1000).flatten().collect();
        let (size, crc) = (records.len() as u64, crc32fast::hash(&records));
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut lz4, &records).unwrap();
        let lz4 = lz4.finish().unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            records.as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for (name, compressed) in [("lz4", lz4), ("zstd", zstd)] {
            assert!(compressed.len() < records.len() / 10);
            assert_eq!(Chunk::open(&chunk(size, crc, name, &compressed)).unwrap().walk().count(), 1000);
            let bomb = Chunk::open(&chunk(100, 0, name, &compressed)).unwrap_err();
            assert!(bomb.to_string().contains("100 bytes expected, 101 found"), "{bomb}");
        }
    }
}
