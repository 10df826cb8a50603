//! Recorded input: 8-bit YUV4MPEG2 from a file or from standard input, as `ffmpeg -i FILE -f yuv4mpegpipe -` writes it.
//!
//! A regular file starts again at its end; anything else is over then.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use y4m::{Colorspace, Decoder};

use crate::Result;
use crate::colour::rgb;
use crate::sensor::{PLANES, Size, Source};

type Input = BufReader<Box<dyn Read>>;

pub(crate) struct Clip {
    decoder: Decoder<Input>,
    format: Format,
    picture: [Vec<u8>; PLANES],
    /// The file to open again at the end.
    rewind: Option<PathBuf>,
    /// Whether a picture was decoded since the clip was opened: an empty one must not be rewound for ever.
    has_pictures: bool,
}

/// All that must be the same again after a rewind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Format {
    size: Size,
    /// How many times fewer chroma samples than pixels there are across and down; `None` without chroma.
    chroma: Option<(usize, usize)>,
    full_range: bool,
}

impl Clip {
    /// Opens a clip; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (input, rewind): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path)?;
            let rewind = file.metadata()?.is_file().then(|| path.to_owned());
            (Box::new(file), rewind)
        };
        let decoder = Decoder::new(BufReader::new(input)).map_err(explain)?;
        let format = Format::of(&decoder)?;
        let picture = std::array::from_fn(|_| vec![0; format.size.pixels()]);
        Ok(Self { decoder, format, picture, rewind, has_pictures: false })
    }
}

impl Source for Clip {
    fn size(&self) -> Size {
        self.format.size
    }

    fn advance(&mut self) -> Result<bool> {
        loop {
            match self.decoder.read_frame() {
                Ok(frame) => {
                    self.format.decode(&frame, &mut self.picture);
                    self.has_pictures = true;
                    return Ok(true);
                }
                Err(y4m::Error::EOF) if !self.has_pictures => {
                    return Err("the clip holds no whole picture".into());
                }
                Err(y4m::Error::EOF) => {
                    let Some(path) = &self.rewind else { return Ok(false) };
                    let again = Self::open(path)?;
                    if again.format != self.format {
                        return Err("the clip changed its format while it was read".into());
                    }
                    *self = again;
                }
                Err(error) => return Err(explain(error)),
            }
        }
    }

    fn row(&self, plane: usize, y: usize) -> &[u8] {
        let width = self.format.size.width;
        &self.picture[plane][y * width..(y + 1) * width]
    }
}

impl Format {
    fn of(decoder: &Decoder<Input>) -> Result<Self> {
        let (width, height) = (decoder.get_width(), decoder.get_height());
        let size = Size::new(width, height).ok_or_else(|| {
            format!("{width}x{height} pixels, but the edges may be 1 to {}", Size::MAX_EDGE)
        })?;
        let chroma = match decoder.get_colorspace() {
            Colorspace::Cmono => None,
            Colorspace::C420 | Colorspace::C420jpeg | Colorspace::C420paldv | Colorspace::C420mpeg2 => {
                Some((2, 2))
            }
            Colorspace::C422 => Some((2, 1)),
            Colorspace::C444 => Some((1, 1)),
            deep => {
                return Err(
                    format!("pixel format {deep:?}, but 8 bits are expected (-pix_fmt yuv420p)").into()
                );
            }
        };
        let mut tags = decoder.get_raw_params().split(|&byte| byte == b' ');
        let full_range = tags.any(|tag| tag == b"XCOLORRANGE=FULL");
        Ok(Self { size, chroma, full_range })
    }

    fn decode(&self, frame: &y4m::Frame<'_>, picture: &mut [Vec<u8>; PLANES]) {
        let Size { width, height } = self.size;
        let neutral = [128];
        for y in 0..height {
            let pixels = y * width..(y + 1) * width;
            let (across, cb, cr) = match self.chroma {
                None => (width, &neutral[..], &neutral[..]),
                Some((across, down)) => {
                    let length = width.div_ceil(across);
                    let samples = y / down * length..(y / down + 1) * length;
                    (across, &frame.get_u_plane()[samples.clone()], &frame.get_v_plane()[samples])
                }
            };
            let luma = &frame.get_y_plane()[pixels.clone()];
            let [red, green, blue] = picture.each_mut().map(|plane| &mut plane[pixels.clone()]);
            for (x, &luma) in luma.iter().enumerate() {
                [red[x], green[x], blue[x]] = rgb([luma, cb[x / across], cr[x / across]], self.full_range);
            }
        }
    }
}

/// Says what the decoder's terse errors mean for who gave the file.
fn explain(error: y4m::Error) -> Box<dyn std::error::Error> {
    match error {
        y4m::Error::EOF => "the clip ends before its first picture".into(),
        y4m::Error::IoError(error) => error.into(),
        y4m::Error::UnknownColorspace => "the clip's pixel format is none of 420, 422, 444, mono".into(),
        y4m::Error::ParseError(error) => format!("no valid YUV4MPEG2 stream: {error}").into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(header: &str, picture: &[u8]) -> Result<Clip> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, [header.as_bytes(), b"\nFRAME\n", picture].concat())?;
        let mut clip = Clip::open(file.path())?;
        // Twice, so that it is rewound.
        assert!(clip.advance()? && clip.advance()?);
        Ok(clip)
    }

    #[test]
    fn every_chroma_layout_is_read_at_odd_sizes() {
        for (format, chroma) in
            [("420jpeg", 4), ("420paldv", 4), ("420mpeg2", 4), ("422", 6), ("444", 9), ("mono", 0)]
        {
            let picture = [vec![235; 9], vec![128; 2 * chroma]].concat();
            let clip = clip(&format!("YUV4MPEG2 W3 H3 F30:1 C{format}"), &picture).unwrap();
            for plane in 0..PLANES {
                assert_eq!(clip.row(plane, 2), [255; 3], "{format}");
            }
        }
    }

    #[test]
    fn the_colour_range_is_respected() {
        let clip = clip("YUV4MPEG2 W1 H1 F30:1 C444 XCOLORRANGE=FULL", &[76, 85, 255]).unwrap();
        assert_eq!([clip.row(0, 0), clip.row(1, 0), clip.row(2, 0)], [[254], [0], [0]]);
    }

    #[test]
    fn bad_clips_are_named() {
        for (header, picture, found) in [
            ("RIFF", &[][..], "no valid"),
            ("YUV4MPEG2 W3 H3 C420p10", &[0; 36], "8 bits"),
            ("YUV4MPEG2 W3 H3 C411", &[0; 36], "none of"),
            ("YUV4MPEG2 W3 H3 Cmono", &[0; 8], "no whole picture"),
            ("YUV4MPEG2 W9000 H3 Cmono", &[0; 8], "9000x3"),
        ] {
            let error = clip(header, picture).err().expect(header).to_string();
            assert!(error.contains(found), "{header}: {error}");
        }
    }
}
