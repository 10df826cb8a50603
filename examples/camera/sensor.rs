//! The simulated sensor: turns a source's picture into the linear frame that a camera would give with these settings.
//!
//! A source is display-encoded; the sensor decodes it, lights it with the illuminant, exposes and amplifies it, clips,
//! applies the colour gains and clips again, all in one table of 256 entries per plane.

use crate::Result;
use crate::protocol::Settings;

/// Red, green and blue, one plane after the other.
pub(crate) const PLANES: usize = 3;

/// Tungsten light, which the white balance has to undo.
const ILLUMINANT: [f64; PLANES] = [1.0, 0.72, 0.42];

/// The exposure at which, with gain 1, a white of the source is just white in the frame.
const REFERENCE_EXPOSURE_US: f64 = 10_000.0;

/// How sources and displays encode light: its power of one over this.
pub(crate) const DISPLAY_GAMMA: f64 = 2.2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Size {
    /// The longest edge that is accepted, from a file or a peer: any sum in the statistics then fits into its field.
    pub(crate) const MAX_EDGE: usize = 4096;

    pub(crate) fn new(width: usize, height: usize) -> Option<Self> {
        let fits = |edge| (1..=Self::MAX_EDGE).contains(&edge);
        (fits(width) && fits(height)).then_some(Self { width, height })
    }

    pub(crate) fn pixels(self) -> usize {
        self.width * self.height
    }

    pub(crate) fn frame_bytes(self) -> usize {
        self.pixels() * PLANES
    }
}

/// The part of a recording that was played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) name: String,
    /// How many whole pictures the recording has; `None` if its end was not reached.
    pub(crate) length: Option<u64>,
    /// The fault at its end, where there is more than whole pictures.
    pub(crate) damage: Option<String>,
}

/// Where pictures come from.
pub(crate) trait Source {
    fn size(&self) -> Size;
    /// Continues with the next picture; `false` at the end.
    fn advance(&mut self) -> Result<bool>;
    /// One display-encoded row of the present picture.
    fn row(&self, plane: usize, y: usize) -> &[u8];
    /// How many pictures there are to expect, if that is known.
    fn expected_length(&self) -> Option<u64> {
        None
    }
    /// The part that was played, if it is a recording.
    fn played(&self) -> Option<Played> {
        None
    }
}

/// Captures the present picture of `source` into `frame`, plane after plane.
pub(crate) fn capture(source: &dyn Source, settings: &Settings, frame: &mut [u8]) {
    let Size { width, height } = source.size();
    let colour_gains = [settings.red_gain, 1.0, settings.blue_gain];
    let brightness = settings.exposure_us / REFERENCE_EXPOSURE_US * settings.analogue_gain;
    for (plane, pixels) in frame.chunks_exact_mut(width * height).enumerate() {
        let response = response(ILLUMINANT[plane] * brightness, colour_gains[plane]);
        for (y, row) in pixels.chunks_exact_mut(width).enumerate() {
            for (pixel, &light) in row.iter_mut().zip(source.row(plane, y)) {
                *pixel = response[usize::from(light)];
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to 0.0..=1.0 before")]
fn response(brightness: f64, colour_gain: f64) -> [u8; 256] {
    let mut encoded = 0.0;
    [(); 256].map(|()| {
        let light = f64::powf(encoded / 255.0, DISPLAY_GAMMA);
        encoded += 1.0;
        let on_sensor = (light * brightness).min(1.0);
        ((on_sensor * colour_gain).min(1.0) * 255.0).round() as u8
    })
}
