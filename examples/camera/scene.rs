//! The built-in scene: a chart of grey and coloured patches on a shaded, textured wall, over which the camera pans.
//!
//! It owns one panorama, twice as wide as the picture, drawn once. The colours come in complementary pairs, so that the
//! scene is grey on average, as the grey-world assumption wants it.

use crate::sensor::{PLANES, Size, Source};
use crate::{Result, low_byte};

/// Reflectances, display-encoded. Each colour is followed by its complement.
#[rustfmt::skip]
const PATCHES: [[u8; 3]; 12] = [
    [200, 60, 60], [75, 196, 196], [60, 180, 75], [196, 95, 189], [70, 80, 200], [194, 190, 75],
    [225; 3], [40; 3], [180; 3], [80; 3], [130; 3], [110; 3],
];

pub(crate) struct Scene {
    size: Size,
    panorama: [Vec<u8>; PLANES],
    frame: usize,
}

impl Scene {
    pub(crate) fn new(size: Size) -> Self {
        let panorama = std::array::from_fn(|plane| {
            let pixels = (0..size.height).flat_map(|y| (0..2 * size.width).map(move |x| (x, y)));
            pixels.map(|(x, y)| reflectance(x, y, size)[plane]).collect()
        });
        Self { size, panorama, frame: 0 }
    }
}

impl Source for Scene {
    fn size(&self) -> Size {
        self.size
    }

    fn advance(&mut self) -> Result<bool> {
        self.frame += 1;
        Ok(true)
    }

    fn row(&self, plane: usize, y: usize) -> &[u8] {
        let width = self.size.width;
        // One pixel a frame, to the right end and back.
        let offset = width.abs_diff(self.frame % (2 * width));
        &self.panorama[plane][2 * width * y + offset..][..width]
    }
}

/// The reflectance at a place of the panorama: a patch in the middle of each cell of the chart, the wall around it.
fn reflectance(x: usize, y: usize, size: Size) -> [u8; 3] {
    let (cell_width, cell_height) = ((size.width / 6).max(1), (size.height / 4).max(1));
    let (column, row) = (x / cell_width, y / cell_height);
    let margin = |within: usize, cell: usize| within < cell / 6 || within >= cell - cell / 6;
    let on_wall = margin(x % cell_width, cell_width) || margin(y % cell_height, cell_height);
    let base = if on_wall {
        [low_byte(90 + 80 * y / size.height); 3]
    } else {
        // Seven is coprime to twelve: neighbours differ and every patch comes equally often.
        PATCHES[(column + 7 * row) % PATCHES.len()]
    };
    let grain = noise(x, y) % 16;
    base.map(|channel| channel.saturating_add(grain).saturating_sub(8))
}

/// The same grain for the same place in every run (an integer hash).
fn noise(x: usize, y: usize) -> u8 {
    let mixed = x.wrapping_mul(0x9e37_79b9).wrapping_add(y.wrapping_mul(0x85eb_ca6b));
    low_byte((mixed ^ (mixed >> 15)).wrapping_mul(0xc2b2_ae35) >> 24)
}
