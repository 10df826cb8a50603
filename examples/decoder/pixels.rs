//! What the pool does with pixels: a thumbnail. Any bytes are pixels, so whoever made them can do no more than make an ugly one.

use std::{ffi::OsString, fs::Permissions, io::BufWriter, os::unix::fs::PermissionsExt, path::Path};

use image::{ImageFormat, RgbImage};
use sealane::Payload;

use crate::{Result, protocol::Shape};

/// The longer side of a thumbnail, in pixels.
const SIDE: usize = 160;
/// Samples each way that become one pixel of a thumbnail, at most.
const SAMPLES: usize = 4;

/// Decoded pixels: decoded here, or by a worker that may still be writing to them.
#[derive(Clone, Copy)]
pub(crate) enum Pixels<'a> {
    Own(&'a [u8]),
    Received(&'a Payload),
}

impl Pixels<'_> {
    /// Copies a row out: what was copied does not change any more.
    fn copy_row(self, offset: usize, row: &mut [u8]) -> Result<()> {
        match self {
            Self::Own(pixels) => {
                row.copy_from_slice(pixels.get(offset..offset + row.len()).ok_or("a short image")?);
            }
            Self::Received(payload) => payload.shared_at::<u8>(offset, row.len())?.copy_to_slice(row)?,
        }
        Ok(())
    }
}

/// Saves a thumbnail of the file of this name, if there is a folder for it. It replaces whatever has its name there, and follows no link.
pub(crate) fn save(folder: Option<&Path>, path: &Path, shape: Shape, pixels: Pixels<'_>) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    let mut name = OsString::from(path.file_name().ok_or("a file without a name")?);
    name.push(".png");
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
    thumbnail(shape, pixels)?.write_to(&mut BufWriter::new(&mut file), ImageFormat::Png)?;
    file.persist(folder.join(name))?;
    Ok(())
}

fn thumbnail(shape: Shape, pixels: Pixels<'_>) -> Result<RgbImage> {
    let (row_bytes, _) = shape.bytes().ok_or("no pixels")?;
    let [width, height, channels, depth] =
        [shape.width, shape.height, shape.channels, shape.depth].map(|number| number as usize);
    let longer = width.max(height);
    let [columns, rows] = [width, height].map(|side| (side * SIDE.min(longer) / longer).max(1));
    // Grey images have one sample for all colours. The second of two bytes is the upper one on these machines.
    let sample = |x: usize, colour: usize| {
        let channel = if channels < 3 { 0 } else { colour };
        (x * channels + channel) * depth + depth - 1
    };

    let mut thumbnail = Vec::with_capacity(columns * rows * 3);
    let mut row = vec![0; row_bytes];
    let mut sums = vec![[0_usize; 3]; columns];
    for target in 0..rows {
        sums.fill([0; 3]);
        let lines = samples(target, rows, height);
        for y in lines.clone() {
            pixels.copy_row(y * row_bytes, &mut row)?;
            for (column, sum) in sums.iter_mut().enumerate() {
                for x in samples(column, columns, width) {
                    for (colour, sum) in sum.iter_mut().enumerate() {
                        *sum += usize::from(row[sample(x, colour)]);
                    }
                }
            }
        }
        for (column, sum) in sums.iter().enumerate() {
            let count = lines.clone().count() * samples(column, columns, width).count();
            for sum in sum {
                thumbnail.push(u8::try_from(sum / count)?);
            }
        }
    }
    let image = RgbImage::from_raw(columns.try_into()?, rows.try_into()?, thumbnail);
    Ok(image.ok_or("a short thumbnail")?)
}

/// The places of `length` that become place `target` of `targets`: some of them, evenly spread.
fn samples(target: usize, targets: usize, length: usize) -> impl Iterator<Item = usize> + Clone {
    let [begin, end] = [target, target + 1].map(|target| target * length / targets);
    (begin..end).step_by((end - begin).div_ceil(SAMPLES).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_colour(width: u32, height: u32, pixel: &[u8], depth: u32) -> RgbImage {
        let shape = Shape { width, height, channels: pixel.len() as u32 / depth, depth };
        let pixels = pixel.repeat((width * height) as usize);
        thumbnail(shape, Pixels::Own(&pixels)).unwrap()
    }

    #[test]
    fn thumbnails_keep_proportions_and_colours() {
        for (width, height, columns, rows) in
            [(1, 1, 1, 1), (160, 90, 160, 90), (161, 161, 160, 160), (3200, 7, 160, 1), (5, 700, 1, 160)]
        {
            for (pixel, depth, colour) in [
                (&[9][..], 1, [9, 9, 9]),
                (&[9, 255], 1, [9, 9, 9]),
                (&[1, 2, 3], 1, [1, 2, 3]),
                (&[1, 2, 3, 255], 1, [1, 2, 3]),
                (&[0, 1, 0, 2, 0, 3], 2, [1, 2, 3]),
            ] {
                let image = one_colour(width, height, pixel, depth);
                assert_eq!(image.dimensions(), (columns, rows), "{width} x {height}");
                assert!(image.pixels().all(|pixel| pixel.0 == colour), "{pixel:?}");
            }
        }
    }

    #[test]
    fn images_that_are_short_are_refused() {
        let shape = Shape { width: 4, height: 4, channels: 3, depth: 1 };
        assert!(thumbnail(shape, Pixels::Own(&[0; 47])).is_err());
    }
}
