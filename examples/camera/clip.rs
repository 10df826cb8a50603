//! Recorded input: 8-bit YUV4MPEG2 from a file or from standard input, as `ffmpeg -i FILE -f yuv4mpegpipe -` writes it.
//!
//! A regular file can start again at its end; any other source ends there. A clip that is cut off, or continues with
//! something else, ends after its last whole picture, and says what came there.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use y4m::{Colorspace, Decoder};

use crate::Result;
use crate::colour::rgb;
use crate::sensor::{PLANES, Played, Size, Source};

type Input = Tallied<BufReader<Box<dyn Read>>>;

/// The line before each picture, as ffmpeg writes it.
const PICTURE_HEADER: &str = "FRAME\n";

pub(crate) struct Clip {
    decoder: Decoder<Input>,
    tally: Rc<Cell<Tally>>,
    format: Format,
    picture: [Vec<u8>; PLANES],
    path: PathBuf,
    loops: bool,
    /// How many pictures were read since the clip was opened.
    pictures: u64,
    /// How many pictures a regular file is long enough for.
    expected: Option<u64>,
    length: Option<u64>,
    damage: Option<String>,
}

/// The properties that must be the same again after a rewind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Format {
    size: Size,
    /// How many times fewer chroma samples than pixels there are across and down; `None` without chroma.
    chroma: Option<(usize, usize)>,
    full_range: bool,
}

impl Clip {
    /// Opens a clip; `-` is standard input. If it is a regular file, it is played again and again if it `loops`.
    pub(crate) fn open(path: &Path, loops: bool) -> Result<Self> {
        let (input, file_length): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let tally = Rc::new(Cell::new(Tally::default()));
        let input = Tallied { input: BufReader::new(input), tally: Rc::clone(&tally) };
        let decoder = Decoder::new(input).map_err(explain)?;
        let format = Format::of(&decoder)?;
        let header = tally.take().header;
        let picture_length = (PICTURE_HEADER.len() + format.picture_bytes()) as u64;
        Ok(Self {
            decoder,
            tally,
            format,
            picture: std::array::from_fn(|_| vec![0; format.size.pixels()]),
            path: path.to_owned(),
            loops: loops && file_length.is_some(),
            pictures: 0,
            expected: file_length.map(|length| length.saturating_sub(header) / picture_length),
            length: None,
            damage: None,
        })
    }

    /// Takes note of how the clip ends: it may be played again.
    fn ended(&mut self, error: &y4m::Error) -> Result<()> {
        let Tally { header, picture, .. } = self.tally.take();
        let (number, expected) = (self.pictures, self.format.picture_bytes());
        let damage = match error {
            _ if header == 0 => None,
            y4m::Error::EOF => {
                Some(format!("truncated: expected {expected} bytes for frame {number}, found {picture}"))
            }
            error => {
                Some(format!("damaged: expected the line FRAME for frame {number}, found another ({error})"))
            }
        };
        if self.pictures == 0 {
            let damage = damage.map_or(String::new(), |damage| format!(": {damage}"));
            return Err(format!("the clip holds no whole picture{damage}").into());
        }
        if self.length.is_none() {
            (self.length, self.damage) = (Some(self.pictures), damage);
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<()> {
        let again = Self::open(&self.path, self.loops)?;
        if again.format != self.format {
            return Err("the clip changed its format while it was read".into());
        }
        let (length, damage) = (self.length, self.damage.take());
        *self = Self { length, damage, ..again };
        Ok(())
    }
}

impl Source for Clip {
    fn size(&self) -> Size {
        self.format.size
    }

    fn advance(&mut self) -> Result<bool> {
        loop {
            self.tally.take();
            match self.decoder.read_frame() {
                Ok(frame) => {
                    self.format.decode(&frame, &mut self.picture);
                    self.pictures += 1;
                    return Ok(true);
                }
                Err(error @ (y4m::Error::EOF | y4m::Error::ParseError(_))) => self.ended(&error)?,
                Err(error) => return Err(explain(error)),
            }
            if !self.loops {
                return Ok(false);
            }
            self.rewind()?;
        }
    }

    fn row(&self, plane: usize, y: usize) -> &[u8] {
        let width = self.format.size.width;
        &self.picture[plane][y * width..(y + 1) * width]
    }

    fn expected_length(&self) -> Option<u64> {
        self.expected
    }

    fn played(&self) -> Option<Played> {
        let is_file = self.path != Path::new("-");
        let name = if is_file { self.path.display().to_string() } else { "standard input".into() };
        Some(Played { name, length: self.length, damage: self.damage.clone() })
    }
}

/// How many bytes were read of a header, which ends with its line, and of the picture after it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    header: u64,
    picture: u64,
    in_picture: bool,
}

/// A reader that counts bytes, because the decoder does not report its position.
struct Tallied<R> {
    input: R,
    tally: Rc<Cell<Tally>>,
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(place)?;
        let mut tally = self.tally.get();
        let header = match place[..length].iter().position(|&byte| byte == b'\n') {
            _ if tally.in_picture => 0,
            None => length,
            Some(end) => end + 1,
        };
        tally.in_picture |= header < length || place[..header].ends_with(b"\n");
        tally.header += header as u64;
        tally.picture += (length - header) as u64;
        self.tally.set(tally);
        Ok(length)
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

    fn picture_bytes(&self) -> usize {
        let Size { width, height } = self.size;
        let samples = |(across, down)| width.div_ceil(across) * height.div_ceil(down);
        width * height + self.chroma.map_or(0, |chroma| 2 * samples(chroma))
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

/// Explains the decoder's terse errors to the user.
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
    use crate::temporary::Folder;

    const GREY_2X1: &str = "YUV4MPEG2 W2 H1 Cmono";

    /// A file with this header, and after it pictures, each with its own.
    fn file(header: &str, pictures: &[&[u8]]) -> (Folder, PathBuf) {
        let pictures = pictures.iter().flat_map(|picture| [PICTURE_HEADER.as_bytes(), picture]);
        let parts = [header.as_bytes(), b"\n"].into_iter().chain(pictures);
        Folder::with_file(&parts.collect::<Vec<_>>().concat())
    }

    fn clip(header: &str, picture: &[u8]) -> Result<Clip> {
        let (_folder, file) = file(header, &[picture]);
        let mut clip = Clip::open(&file, true)?;
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
            (
                "YUV4MPEG2 W3 H3 Cmono",
                &[0; 8],
                "no whole picture: truncated: expected 9 bytes for frame 0, found 8",
            ),
            ("YUV4MPEG2 W9000 H3 Cmono", &[0; 8], "9000x3"),
        ] {
            let error = clip(header, picture).err().expect(header).to_string();
            assert!(error.contains(found), "{header}: {error}");
        }
    }
    #[test]
    fn a_clip_is_played_once_or_in_a_loop() {
        let (_folder, file) = file(GREY_2X1, &[&[16, 16], &[235, 235]]);
        let mut once = Clip::open(&file, false).unwrap();
        assert_eq!(once.expected_length(), Some(2));
        let seen = [(); 3].map(|()| once.advance().unwrap().then(|| once.row(0, 0)[0]));
        assert_eq!(seen, [Some(0), Some(255), None]);
        assert_eq!(once.played().unwrap().length, Some(2));

        let mut looped = Clip::open(&file, true).unwrap();
        let seen = [(); 5].map(|()| looped.advance().unwrap().then(|| looped.row(0, 0)[0]));
        assert_eq!(seen, [Some(0), Some(255), Some(0), Some(255), Some(0)]);
        assert_eq!(looped.played().unwrap().length, Some(2));
    }

    #[test]
    fn the_whole_pictures_of_a_truncated_clip_are_played_and_its_damage_is_said() {
        for loops in [false, true] {
            for (end, found) in [(&b"FRAME\n\x10"[..], 1), (b"FRAME\n", 0), (b"FRA", 0)] {
                let (_folder, file) = file(GREY_2X1, &[&[16, 16], &[&[235, 235], end].concat()]);
                let mut clip = Clip::open(&file, loops).unwrap();
                let seen = [(); 3].map(|()| clip.advance().unwrap().then(|| clip.row(0, 0)[1]));
                assert_eq!(seen, [Some(0), Some(255), loops.then_some(0)]);
                let Played { length, damage, .. } = clip.played().unwrap();
                let expected = format!("truncated: expected 2 bytes for frame 2, found {found}");
                assert_eq!((length, damage), (Some(2), Some(expected)));
            }
        }
    }

    #[test]
    fn a_clip_that_goes_on_with_something_else_ends_there() {
        let (_folder, file) = file(GREY_2X1, &[b"\x10\x10HELLO\nworld"]);
        let mut clip = Clip::open(&file, false).unwrap();
        assert!(clip.advance().unwrap() && !clip.advance().unwrap());
        let Played { length, damage, .. } = clip.played().unwrap();
        assert_eq!(length, Some(1));
        assert!(damage.unwrap().starts_with("damaged: expected the line FRAME for frame 1"));
    }

    #[test]
    fn a_whole_clip_has_no_damage() {
        let (_folder, file) = file(GREY_2X1, &[&[16, 16]]);
        let mut clip = Clip::open(&file, false).unwrap();
        assert_eq!(clip.played().unwrap().length, None, "its end was not reached");
        assert!(clip.advance().unwrap() && !clip.advance().unwrap());
        let name = file.display().to_string();
        assert_eq!(clip.played(), Some(Played { name, length: Some(1), damage: None }));
    }
}
