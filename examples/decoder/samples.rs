//! Files to decode: nine of ten are images, every tenth is broken in one of ten ways.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use flate2::{Compression, write::ZlibEncoder};
use image::{DynamicImage, ImageFormat, RgbImage, codecs::jpeg::JpegEncoder};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlinkat};
use tempfile::TempDir;

use crate::Result;

/// The ways in which a file is broken. Its name has them.
const BROKEN: [&str; 10] =
    ["truncated", "garbage", "bomb", "directory", "device", "fifo", "huge", "changing", "empty", "link"];
/// Bytes into which a bomb of some 60 KiB is inflated.
const BOMB: usize = 64 << 20;

/// A folder of files, which is removed when it is dropped.
pub(crate) struct Samples {
    folder: TempDir,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Samples {
    pub(crate) fn new(count: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let images = images()?;
        let bomb = bomb()?;
        let mut changing = Vec::new();
        for number in 0..count {
            let (extension, image) = &images[number % images.len()];
            let at = |what: &str| folder.path().join(format!("{number:05}-{what}.{extension}"));
            if number % 10 != 9 {
                fs::write(at("image"), image)?;
                continue;
            }
            let how = BROKEN[number / 10 % BROKEN.len()];
            let path = at(how);
            match how {
                "truncated" => fs::write(path, &image[..image.len() / 2])?,
                "garbage" => fs::write(path, garbage(image, number))?,
                "bomb" => fs::write(path, &bomb)?,
                "directory" => fs::create_dir(path)?,
                // Only root makes devices.
                "device" => mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(1, 5))
                    .or_else(|_| symlinkat("/dev/zero", CWD, &path))?,
                "fifo" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
                "huge" => huge(&path)?,
                "changing" => {
                    fs::write(&path, image)?;
                    changing.push(path);
                }
                "empty" => fs::write(path, [])?,
                _ => symlinkat("/proc/self/mem", CWD, &path)?,
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writer =
            if changing.is_empty() { None } else { Some(start_writer(&changing, Arc::clone(&stop))?) };
        Ok(Self { folder, stop, writer })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Cuts files short, writes into them and makes them longer, until it is stopped.
fn start_writer(paths: &[PathBuf], stop: Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let files = paths.iter().map(|path| Ok((File::options().write(true).open(path)?, fs::read(path)?)));
    let files: Vec<_> = files.collect::<Result<_>>()?;
    Ok(thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(7);
        while !stop.load(Ordering::Relaxed) {
            for (file, image) in &files {
                // A full disk changes nothing any more, which is as good.
                let _ = file.set_len(random.u64(..=2 * image.len() as u64));
                let at = random.usize(..image.len());
                let _ = file.write_all_at(&image[at..], at as u64);
                let _ = file.write_all_at(&image[..at], 0);
            }
        }
    }))
}

/// A small image in each format.
fn images() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let image = DynamicImage::from(picture(320, 240, 7));
    let formats = [
        ("jpg", ImageFormat::Jpeg),
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("gif", ImageFormat::Gif),
        ("webp", ImageFormat::WebP),
        ("bmp", ImageFormat::Bmp),
        ("ppm", ImageFormat::Pnm),
    ];
    let encode = |(extension, format)| {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format)?;
        Ok((extension, file.into_inner()))
    };
    formats.into_iter().map(encode).collect()
}

/// A photograph, as decoders see it: slow changes, edges, and noise.
fn picture(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut random = fastrand::Rng::with_seed(seed);
    RgbImage::from_fn(width, height, |x, y| {
        let noise = random.u32(..16);
        let edge = if (x / 97 + y / 61) % 3 == 0 { 60 } else { 0 };
        let light = |scale: u32| {
            let light = u32::midpoint(x * scale / width, y * scale / height) + edge + noise;
            u8::try_from(light).unwrap_or(u8::MAX)
        };
        image::Rgb([light(180), light(140), light(100)])
    })
}

/// A photograph of 12 megapixels.
pub(crate) fn photograph(path: &Path, seed: u64) -> Result<()> {
    let file = BufWriter::new(File::create(path)?);
    Ok(JpegEncoder::new_with_quality(file, 90).encode_image(&picture(4000, 3000, seed))?)
}

/// An image whose bytes were hit here and there, the first ones excepted.
fn garbage(image: &[u8], seed: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut garbage = image.to_vec();
    for _ in 0..garbage.len() / 16 {
        let at = random.usize(16.min(garbage.len() - 1)..garbage.len());
        garbage[at] = random.u8(..);
    }
    garbage
}

/// A PNG of 64 x 64 pixels whose data is inflated to [`BOMB`] bytes.
fn bomb() -> Result<Vec<u8>> {
    let mut data = ZlibEncoder::new(Vec::new(), Compression::fast());
    data.write_all(&vec![0; BOMB])?;
    let mut file = Vec::new();
    png::Encoder::new(&mut file, 64, 64).write_header()?.write_chunk(png::chunk::IDAT, &data.finish()?)?;
    Ok(file)
}

/// A PNG whose header promises 3.6 billion pixels.
fn huge(path: &Path) -> Result<()> {
    let mut writer = png::Encoder::new(File::create(path)?, 60_000, 60_000).write_header()?;
    Ok(writer.write_chunk(png::chunk::IDAT, &[0; 64])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenth_file_is_broken_in_its_way() {
        let samples = Samples::new(100).unwrap();
        let mut names: Vec<_> = fs::read_dir(samples.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names.len(), 100);
        for (number, name) in names.iter().enumerate() {
            let kind = if number % 10 == 9 { BROKEN[number / 10] } else { "image" };
            assert!(name.starts_with(&format!("{number:05}-{kind}.")), "{name}");
        }
    }
}
