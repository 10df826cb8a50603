//! PNG files, encoded here: a library for them would be a seventh of what this example builds.

use std::{iter::once, num::TryFromIntError};

use miniz_oxide::deflate::compress_to_vec_zlib;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Eight bits a colour, red, green and blue; compressed and filtered by the only methods there are; not interlaced.
const FORMAT: [u8; 5] = [8, 2, 0, 0, 0];
/// A level from 0 to 10.
const COMPRESSION: u8 = 6;

/// A picture as a PNG file. `rgb` has three bytes a pixel, row by row.
pub(crate) fn encode(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, TryFromIntError> {
    let size = [u32::try_from(width)?, u32::try_from(height)?].map(u32::to_be_bytes);
    // A row begins with the number of its filter: 0 is none.
    let rows: Vec<u8> = rgb.chunks(3 * width).flat_map(|row| once(&0).chain(row)).copied().collect();
    let chunks = [
        chunk(*b"IHDR", &[size.as_flattened(), &FORMAT].concat())?,
        chunk(*b"IDAT", &compress_to_vec_zlib(&rows, COMPRESSION))?,
        chunk(*b"IEND", &[])?,
    ];
    Ok([SIGNATURE, &chunks.concat()].concat())
}

/// The length of the content, the name, the content, and the checksum of the last two.
fn chunk(name: [u8; 4], content: &[u8]) -> Result<Vec<u8>, TryFromIntError> {
    let length = u32::try_from(content.len())?;
    let body = [&name, content].concat();
    Ok([&length.to_be_bytes(), &body[..], &checksum(&body).to_be_bytes()].concat())
}

/// CRC-32 (ISO 3309).
fn checksum(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}
