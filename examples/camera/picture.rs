//! Frames as PNG files, which show the algorithm's effect.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sensor::{DISPLAY_GAMMA, Size};
use crate::statistics::planes;
use crate::{Result, low_byte, png};

/// A folder for the first frame and the last.
pub(crate) struct Album {
    folder: PathBuf,
    first: Vec<u8>,
}

impl Album {
    /// Makes the folder if there is none: before the run, which would be lost without it.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| named(folder, error))?;
        Ok(Self { folder: folder.to_owned(), first: Vec::new() })
    }

    /// Keeps the first frame.
    pub(crate) fn keep(&mut self, pixels: &[u8]) {
        if self.first.is_empty() {
            self.first = pixels.to_vec();
        }
    }

    /// Writes the first frame and the last, and gives their paths.
    pub(crate) fn save(&self, last: &[u8], size: Size, is_linear: bool) -> Result<Vec<PathBuf>> {
        let frames = [("first.png", &self.first[..]), ("last.png", last)];
        let save = |(name, pixels)| {
            let path = self.folder.join(name);
            write(&path, pixels, size, is_linear).map_err(|error| named(&path, error))?;
            Ok(path)
        };
        frames.into_iter().map(save).collect()
    }
}

/// Writes a frame, plane after plane, as a PNG. Linear light is encoded for a display, or it would look too dark.
fn write(path: &Path, pixels: &[u8], size: Size, is_linear: bool) -> Result<()> {
    let [red, green, blue] = planes(pixels, size.pixels());
    let shown = if is_linear { display_encoding() } else { std::array::from_fn(low_byte) };
    let colours = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]);
    let bytes: Vec<u8> = colours.map(|value| shown[usize::from(value)]).collect();

    Ok(fs::write(path, png::encode(size.width, size.height, &bytes)?)?)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.0 to 255.0")]
fn display_encoding() -> [u8; 256] {
    let mut linear = 0.0;
    [(); 256].map(|()| {
        let encoded = f64::powf(linear / 255.0, 1.0 / DISPLAY_GAMMA);
        linear += 1.0;
        (encoded * 255.0).round() as u8
    })
}

fn named(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    use super::*;
    use crate::temporary::Folder;

    /// Width and height, and the pixels of the only row.
    fn decoded(path: &Path) -> (u32, u32, Vec<u8>) {
        let file = fs::read(path).unwrap();
        let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        // A signature of 8 bytes and a header of 25, then the length and the name of the pixels.
        let row = decompress_to_vec_zlib(&file[41..41 + number(33) as usize]).unwrap();
        assert_eq!(row[0], 0, "the filter");
        (number(16), number(20), row[1..].to_vec())
    }

    #[test]
    fn the_first_frame_and_the_last_are_saved_pixel_by_pixel() {
        let folder = Folder::new().unwrap();
        let size = Size { width: 2, height: 1 };
        let mut album = Album::create(&folder.path().join("made/for/it")).unwrap();
        album.keep(&[1, 2, 3, 4, 5, 6]);
        album.keep(&[9; 6]);
        let paths = album.save(&[10, 20, 30, 40, 50, 60], size, false).unwrap();
        assert_eq!(decoded(&paths[0]), (2, 1, vec![1, 3, 5, 2, 4, 6]));
        assert_eq!(decoded(&paths[1]), (2, 1, vec![10, 30, 50, 20, 40, 60]));
    }

    #[test]
    fn linear_light_is_encoded_for_a_display() {
        let folder = Folder::new().unwrap();
        let album = Album { folder: folder.path().to_owned(), first: vec![0, 46, 255] };
        let paths = album.save(&[255, 0, 0], Size { width: 1, height: 1 }, true).unwrap();
        assert_eq!(decoded(&paths[0]), (1, 1, vec![0, 117, 255]));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let (_folder, file) = Folder::with_file(b"");
        let error = Album::create(&file.join("folder")).err().unwrap().to_string();
        assert!(error.contains("folder") && error.contains("os error"), "{error}");
    }
}
