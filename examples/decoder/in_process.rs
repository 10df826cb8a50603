//! The same work without workers, to compare: a file that breaks the decoder breaks the program.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Options, Result,
    decode::{self, Picture},
    files,
    pixels::{self, Pixels},
    pool::Outcome,
    protocol::Shape,
};

/// Decodes all files, one after the other.
pub(crate) fn run(
    options: &Options,
    files: impl Iterator<Item = PathBuf>,
    done: impl Fn(&Path, Outcome, Duration),
) {
    // Memory that is used again, as a ring is.
    let mut memory = Vec::new();
    for path in files {
        let begin = Instant::now();
        let outcome = match files::open(&path) {
            Err(error) => Outcome::NotOpened(error),
            Ok((file, size)) => match decode::read(&file, size, options.limits.max_file)
                .and_then(|bytes| decode(&bytes, options.limits.max_pixels, &mut memory))
            {
                Err(error) => Outcome::Refused(error.to_string()),
                Ok((shape, pixels)) => {
                    let saved = pixels::save(options.save.as_deref(), &path, shape, Pixels::Own(pixels));
                    Outcome::of_decoded(shape, 1, saved)
                }
            },
        };
        done(&path, outcome, begin.elapsed());
    }
}

fn decode<'a>(bytes: &[u8], max_pixels: u64, memory: &'a mut Vec<u8>) -> Result<(Shape, &'a [u8])> {
    let picture = Picture::new(bytes, max_pixels)?;
    let shape = picture.shape;
    let (_, length) = shape.bytes().ok_or("no pixels")?;
    if memory.len() < length {
        memory.resize(length, 0);
    }
    let pixels = &mut memory[..length];
    picture.decode(pixels)?;
    Ok((shape, pixels))
}
