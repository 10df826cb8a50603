//! Luma and chroma to red, green and blue.

use crate::low_byte;
use crate::sensor::PLANES;

/// BT.601, in 1/256; without the full range, luma is 16 to 235.
pub(crate) fn rgb([luma, cb, cr]: [u8; 3], full_range: bool) -> [u8; PLANES] {
    let (luma, cb, cr) = (i32::from(luma), i32::from(cb) - 128, i32::from(cr) - 128);
    let (luma, [rv, gu, gv, bu]) = if full_range {
        (256 * luma, [359, 88, 183, 454])
    } else {
        (298 * (luma - 16), [409, 100, 208, 516])
    };
    let clipped = |value: i32| low_byte(((value + 128) >> 8).clamp(0, 255).unsigned_abs() as usize);
    [clipped(luma + rv * cr), clipped(luma - gu * cb - gv * cr), clipped(luma + bu * cb)]
}

/// Rows of two pixels in four bytes (YUYV), `stride` bytes from one to the next, into planes.
pub(crate) fn planes_of_yuyv(rows: &[u8], stride: usize, width: usize, pixels: &mut [u8]) {
    let plane = pixels.len() / PLANES;
    for (y, row) in rows.chunks(stride).enumerate() {
        let pairs = row.as_chunks::<4>().0.iter().take(width / 2);
        let colours = pairs.flat_map(|&[left, cb, right, cr]| [[left, cb, cr], [right, cb, cr]]);
        for (x, colour) in colours.enumerate() {
            for (channel, value) in rgb(colour, false).into_iter().enumerate() {
                pixels[channel * plane + y * width + x] = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yuyv_is_taken_apart_without_what_lies_between_rows() {
        let (white, black) = ([235, 128, 235, 128], [16, 128, 16, 128]);
        let rows = [white, black, [9; 4], black, white].concat();
        let mut pixels = [7; 8 * PLANES];
        planes_of_yuyv(&rows, 12, 4, &mut pixels);
        assert_eq!(pixels, *[255, 255, 0, 0, 0, 0, 255, 255].repeat(PLANES));
    }
}
