//! The 3A statistics: their layout, which is what travels, and how they are computed in place.
//!
//! Histograms of the three planes, then a grid of zones, row by row. The finer the grid, the bigger the statistics.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sensor::{PLANES, Size};

/// From this value on, a pixel is saturated.
pub(crate) const SATURATED: u8 = 250;
/// Below this value in every plane, a pixel is mostly noise.
const DARK: u8 = 6;

pub(crate) type Histograms = [[u32; 256]; PLANES];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Zone {
    pub(crate) sums: [u32; PLANES],
    pub(crate) pixels: u32,
    pub(crate) saturated: u32,
    pub(crate) dark: u32,
    /// The sum of the squared differences between neighbours in the green plane.
    pub(crate) focus: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Statistics {
    histograms: Histograms,
    zones: [Zone],
}

/// How many zones there are across and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Grid {
    /// Where the zones begin in the statistics.
    pub(crate) const OFFSET: usize = size_of::<Histograms>();

    /// The squarest grid that makes the statistics at least `length` bytes.
    pub(crate) fn for_length(length: usize) -> Self {
        let zones = length.saturating_sub(Self::OFFSET).div_ceil(size_of::<Zone>()).max(1);
        let columns = zones.isqrt();
        Self { columns, rows: zones.div_ceil(columns) }
    }

    /// How long the statistics with this grid are; no real ones are as long as a saturated result.
    pub(crate) fn length(self) -> usize {
        self.columns.saturating_mul(self.rows).saturating_mul(size_of::<Zone>()).saturating_add(Self::OFFSET)
    }

    /// The pixel rows that a row of zones covers.
    pub(crate) fn pixel_rows(self, row: usize, size: Size) -> Range<usize> {
        share(row, self.rows, size.height)
    }
}

/// The pixels of one zone out of `count`: one at least, so that a grid may be finer than the frame.
fn share(index: usize, count: usize, pixels: usize) -> Range<usize> {
    let start = index * pixels / count;
    start..((index + 1) * pixels / count).max(start + 1)
}

/// Computes the statistics of frames. Owns nothing but the sums of one row of zones, by pixel column.
pub(crate) struct Meter {
    sums: [Vec<u32>; PLANES],
    saturated: Vec<u32>,
    dark: Vec<u32>,
    focus: Vec<u32>,
}

impl Meter {
    pub(crate) fn new(width: usize) -> Self {
        let columns = || vec![0; width];
        Self {
            sums: [columns(), columns(), columns()],
            saturated: columns(),
            dark: columns(),
            focus: columns(),
        }
    }

    /// Writes the statistics of `frame` over the content of `place`.
    ///
    /// # Panics
    ///
    /// If `place` is not as long as the grid says, or not aligned to eight bytes.
    pub(crate) fn measure(&mut self, frame: &[u8], size: Size, grid: Grid, place: &mut [u8]) {
        let statistics = Statistics::mut_from_bytes(place).expect("a loan for exactly these statistics");
        assert_eq!(statistics.zones.len(), grid.columns * grid.rows, "a loan for exactly this grid");
        let planes = planes(frame, size.pixels());

        statistics.histograms.as_flattened_mut().fill(0);
        let [red, green, blue] = &mut statistics.histograms;
        for ((&r, &g), &b) in planes[0].iter().zip(planes[1]).zip(planes[2]) {
            red[usize::from(r)] += 1;
            green[usize::from(g)] += 1;
            blue[usize::from(b)] += 1;
        }
        for (row, zones) in statistics.zones.chunks_exact_mut(grid.columns).enumerate() {
            let rows = grid.pixel_rows(row, size);
            let pixels = rows.start * size.width..rows.end * size.width;
            self.measure_zones(planes.map(|plane| &plane[pixels.clone()]), zones);
        }
    }

    /// Writes one row of zones, given the pixel rows that it covers in each plane.
    pub(crate) fn measure_zones(&mut self, planes: [&[u8]; PLANES], zones: &mut [Zone]) {
        let width = self.dark.len();
        let Self { sums, saturated, dark, focus } = self;
        for column_sums in sums.iter_mut().chain([&mut *saturated, &mut *dark, &mut *focus]) {
            column_sums.fill(0);
        }
        let [red, green, blue] = planes.map(|plane| plane.chunks_exact(width));
        let height = red.len();
        for ((red, green), blue) in red.zip(green).zip(blue) {
            for (sums, row) in sums.iter_mut().zip([red, green, blue]) {
                add(sums, row.iter().map(|&value| u32::from(value)));
            }
            let brightest = || red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| r.max(g).max(b));
            add(saturated, brightest().map(|value| u32::from(value >= SATURATED)));
            add(dark, brightest().map(|value| u32::from(value < DARK)));
            let edges = green.iter().zip(&green[1..]).map(|(&left, &right)| u16::from(left.abs_diff(right)));
            add(focus, edges.map(|edge| u32::from(edge * edge)));
        }
        let count = zones.len();
        for (index, zone) in zones.iter_mut().enumerate() {
            let columns = share(index, count, width);
            let total = |values: &[u32]| values[columns.clone()].iter().sum();
            *zone = Zone {
                sums: [total(&sums[0]), total(&sums[1]), total(&sums[2])],
                pixels: u32::try_from(columns.len() * height).unwrap_or(u32::MAX),
                saturated: total(saturated),
                dark: total(dark),
                focus: focus[columns.clone()].iter().map(|&value| u64::from(value)).sum(),
            };
        }
    }
}

/// The planes of `pixels` bytes each that follow one another in `bytes`.
pub(crate) fn planes(bytes: &[u8], pixels: usize) -> [&[u8]; PLANES] {
    std::array::from_fn(|plane| &bytes[plane * pixels..(plane + 1) * pixels])
}

fn add(sums: &mut [u32], values: impl Iterator<Item = u32>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_agree_with_a_naive_count() {
        let size = Size { width: 13, height: 7 };
        let frame: Vec<u8> = (0..size.frame_bytes()).map(|i| crate::low_byte(i * 89)).collect();
        for grid in [Grid { columns: 3, rows: 2 }, Grid { columns: 40, rows: 9 }] {
            let mut place = vec![0xaa_u64; grid.length() / 8];
            Meter::new(size.width).measure(&frame, size, grid, place.as_mut_bytes());
            let statistics = Statistics::ref_from_bytes(place.as_bytes()).unwrap();
            let (row, column) = (1, 2);
            let mut expected = Zone::default();
            for y in grid.pixel_rows(row, size) {
                for x in share(column, grid.columns, size.width) {
                    let pixel = |x| [0, 1, 2].map(|plane| frame[(plane * size.height + y) * size.width + x]);
                    for (sum, value) in expected.sums.iter_mut().zip(pixel(x)) {
                        *sum += u32::from(value);
                    }
                    let brightest = pixel(x).into_iter().max().unwrap();
                    expected.pixels += 1;
                    expected.saturated += u32::from(brightest >= SATURATED);
                    expected.dark += u32::from(brightest < DARK);
                    if x + 1 < size.width {
                        expected.focus += u64::from(pixel(x)[1].abs_diff(pixel(x + 1)[1])).pow(2);
                    }
                }
            }
            assert_eq!(statistics.zones[row * grid.columns + column], expected);
            assert_eq!(statistics.histograms.map(|histogram| histogram.iter().sum::<u32>()), [91; 3]);
        }
    }

    #[test]
    fn a_grid_is_at_least_as_long_as_asked_for() {
        for length in [0, 1 << 17, 4 << 20] {
            let found = Grid::for_length(length).length();
            assert!(found >= length && found < length + (1 << 15), "{found} for {length}");
        }
    }
}
