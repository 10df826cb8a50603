//! Decoding: the bytes of a file become pixels, in memory that the caller has for them.

use std::{
    error::Error,
    fs::File,
    io::{Cursor, ErrorKind},
    os::unix::fs::FileExt,
};

use image::{ImageDecoder, ImageReader, Limits};

use crate::{Result, protocol::Shape};

/// Bytes that a decoder may allocate for itself, besides the pixels.
pub(crate) const SCRATCH: u64 = 256 << 20;

/// All bytes of a file that had `size` bytes when it was opened, and has `max` bytes at most.
///
/// The position of the descriptor stays as it is: another process may have the same.
pub(crate) fn read(file: &File, size: u64, max: u64) -> Result<Vec<u8>> {
    let too_long = || format!("more than {max} bytes (--max-file)");
    if size > max {
        return Err(too_long().into());
    }
    // One more, so that the end is seen, and that a file which grows meanwhile is noticed.
    let mut bytes = vec![0; usize::try_from(size)? + 1];
    let mut length = 0;
    loop {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if length == bytes.len() {
            if length as u64 > max {
                return Err(too_long().into());
            }
            bytes.resize(length.saturating_mul(2).min(usize::try_from(max)? + 1), 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// An image whose header was read.
pub(crate) struct Picture<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    pub(crate) shape: Shape,
}

impl<'a> Picture<'a> {
    /// Reads the header, and refuses images of more than `max_pixels`.
    pub(crate) fn new(bytes: &'a [u8], max_pixels: u64) -> Result<Self> {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        if reader.format().is_none() {
            return Err("no image: neither BMP, GIF, JPEG, PNG, PNM, QOI nor WebP".into());
        }
        let mut decoder = reader.into_decoder().map_err(sentence)?;
        let (width, height) = decoder.dimensions();
        let color = decoder.color_type();
        let channels = u32::from(color.channel_count());
        let shape = Shape { width, height, channels, depth: u32::from(color.bytes_per_pixel()) / channels };
        if shape.pixels() > max_pixels {
            return Err(
                format!("{width} x {height} pixels; at most {max_pixels} accepted (--max-pixels)").into()
            );
        }
        let same = shape.bytes().filter(|&(_, all)| all as u64 == decoder.total_bytes());
        same.ok_or_else(|| format!("{width} x {height} pixels of the kind {color:?}"))?;
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(SCRATCH);
        decoder.set_limits(limits).map_err(sentence)?;
        Ok(Self { decoder: Box::new(decoder), shape })
    }

    /// Decodes into memory of exactly the shape's bytes.
    pub(crate) fn decode(self, pixels: &mut [u8]) -> Result<()> {
        Ok(self.decoder.read_image_boxed(pixels).map_err(sentence)?)
    }
}

/// An error and its causes, in one line.
fn sentence(error: impl Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_that_grow_are_read_whole_or_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        for claimed in [0, 1, 999, 1000, 1024] {
            assert_eq!(read(&file, claimed, 1024).unwrap(), [7; 1000], "{claimed}");
            assert_eq!(read(&file, claimed.min(1000), 1000).unwrap(), [7; 1000], "{claimed}");
        }
        assert!(read(&file, 10, 999).unwrap_err().to_string().contains("--max-file"));
        assert!(read(&file, 1000, 999).unwrap_err().to_string().contains("--max-file"));
    }
}
