//! The clip: frames in memory, each with the sum of its words, so that publishing one is a copy and nothing else.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use y4m::{Colorspace, Decoder};

use crate::Result;

/// Frames are multiples of a cache line. The frames of a file are padded with zeros.
pub(crate) const LINE: usize = 64;
/// Frames of the generated clip. More than any ring holds, so that a frame and its successor in the same place differ.
const GENERATED: usize = 1009;
/// Bytes of a file's frames that are kept, at most.
const MAX_CLIP: usize = 512 << 20;

/// Frames in memory.
pub(crate) struct Clip {
    bytes: Vec<u8>,
    /// Where each frame begins, and the sum of its words.
    frames: Vec<(usize, u64)>,
    size: usize,
}

impl Clip {
    /// A camera that pans over noise: each frame is the one before, moved by a cache line.
    pub(crate) fn generated(size: usize) -> Self {
        let (mut word, len) = (0x9e37_79b9_7f4a_7c15_u64, size + GENERATED * LINE);
        let noise = std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_ne_bytes()
        });
        let bytes: Vec<u8> = noise.take(len / 8).flatten().collect();
        let starts = (0..GENERATED).map(|frame| frame * LINE);
        // The sum of a frame is that of the one before, without the line that left and with the line that came.
        let mut total = sum(&bytes[..size]);
        let frames = starts.map(|start| {
            let frame = (start, total);
            let (gone, come) = (&bytes[start..start + LINE], &bytes[start + size..][..LINE]);
            total = total.wrapping_sub(sum(gone)).wrapping_add(sum(come));
            frame
        });
        let frames = frames.collect();
        Self { bytes, frames, size }
    }

    /// The frames of a YUV4MPEG2 file, as they lie in it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let failed = |reason: &str| format!("the clip {}: {reason}", path.display());
        let file =
            File::open(path).map_err(|error| failed(&format!("{error}: name a file that can be read")))?;
        Self::decode(BufReader::new(file)).map_err(|reason| failed(&reason.to_string()).into())
    }

    fn decode(input: impl Read) -> Result<Self> {
        let unreadable =
            |error| format!("expected a YUV4MPEG2 stream, found {error:?}: convert it with ffmpeg");
        let mut decoder = Decoder::new(input).map_err(unreadable)?;
        let colours = decoder.get_colorspace();
        if decoder.get_bytes_per_sample() != 1 || matches!(colours, Colorspace::Cmono12) {
            return Err(format!(
                "expected 8 bits a sample, found {colours:?}: convert it with -pix_fmt yuv420p"
            )
            .into());
        }
        let (mut bytes, mut frames, mut size) = (Vec::new(), Vec::new(), 0);
        loop {
            let start = bytes.len();
            match decoder.read_frame() {
                Ok(frame) => {
                    for plane in [frame.get_y_plane(), frame.get_u_plane(), frame.get_v_plane()] {
                        bytes.extend_from_slice(plane);
                    }
                }
                Err(y4m::Error::EOF) => break,
                Err(error) => {
                    let number = frames.len();
                    return Err(
                        format!("expected frame {number}, found {error:?}: the file is damaged").into()
                    );
                }
            }
            bytes.resize(bytes.len().next_multiple_of(LINE), 0);
            size = bytes.len() - start;
            if bytes.len() > MAX_CLIP {
                let max = MAX_CLIP >> 20;
                return Err(format!("expected {max} MiB of frames at most, found more: cut it").into());
            }
            frames.push((start, sum(&bytes[start..])));
        }
        if frames.is_empty() {
            return Err("expected a frame, found none: the file is cut off".into());
        }
        Ok(Self { bytes, frames, size })
    }

    /// Bytes of a frame.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The bytes of a frame, and their sum. After the last frame comes the first.
    pub(crate) fn frame(&self, number: u64) -> (&[u8], u64) {
        let count = self.frames.len() as u64;
        let (start, sum) = self.frames[usize::try_from(number % count).unwrap_or(0)];
        (&self.bytes[start..][..self.size], sum)
    }
}

/// The wrapping sum of the words of whole cache lines.
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_generated_frames_are_right_and_differ() {
        let clip = Clip::generated(3 * LINE);
        let sums: Vec<u64> = (0..GENERATED as u64).map(|number| clip.frame(number).1).collect();
        for (number, total) in sums.iter().enumerate() {
            assert_eq!(sum(clip.frame(number as u64).0), *total, "frame {number}");
        }
        assert!(sums.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(clip.frame(GENERATED as u64), clip.frame(0));
    }

    #[test]
    fn frames_of_a_file_are_padded_and_played_again() {
        let clip = Clip::decode(&b"YUV4MPEG2 W2 H1 Cmono\nFRAME\n\x01\x02FRAME\n\x03\x04"[..]).unwrap();
        assert_eq!(clip.size(), LINE);
        let firsts = [0, 1, 2].map(|number| clip.frame(number).0[..3].to_vec());
        assert_eq!(firsts, [[1, 2, 0], [3, 4, 0], [1, 2, 0]]);
    }

    #[test]
    fn bad_clips_are_named() {
        for (bytes, expected) in [
            (&b"RIFF"[..], "expected a YUV4MPEG2 stream"),
            (b"YUV4MPEG2 W2 H1 Cmono\n", "expected a frame, found none"),
            (b"YUV4MPEG2 W2 H1 C420p10\nFRAME\n", "expected 8 bits a sample"),
            (b"YUV4MPEG2 W2 H1 Cmono\nFRAME\n\x01\x02HELLO\n\x01\x02", "expected frame 1"),
        ] {
            let error = Clip::decode(bytes).err().expect(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
