//! The simulated camera: a source before the simulated sensor, whose frames go to memfds.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::buffers::{self, Layout};
use crate::camera::{Camera, Frame};
use crate::protocol::{BUFFERS, Settings};
use crate::sensor::{Played, Size, Source, capture};

pub(crate) struct Simulation {
    source: Box<dyn Source>,
    pool: Vec<File>,
    is_free: [bool; BUFFERS],
    settings: Settings,
    /// How long a frame takes.
    interval: Option<Duration>,
    due: Instant,
}

impl Simulation {
    /// Films `source`, at this rate or as fast as possible.
    pub(crate) fn new(source: Box<dyn Source>, frames_per_second: Option<u32>) -> Result<Self> {
        let size = source.size();
        Ok(Self {
            source,
            pool: (0..BUFFERS).map(|_| buffers::create(size)).collect::<io::Result<_>>()?,
            is_free: [true; BUFFERS],
            settings: Settings::WRONG,
            interval: frames_per_second.map(|rate| Duration::from_secs(1) / rate),
            due: Instant::now(),
        })
    }
}

impl Camera for Simulation {
    fn size(&self) -> Size {
        self.source.size()
    }

    fn expected_length(&self) -> Option<u64> {
        self.source.expected_length()
    }

    fn played(&self) -> Option<Played> {
        self.source.played()
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn layout(&self) -> Layout {
        Layout::Planes
    }

    fn has_colour_gains(&self) -> bool {
        true
    }

    fn buffers(&self) -> Vec<BorrowedFd<'_>> {
        self.pool.iter().map(AsFd::as_fd).collect()
    }

    fn take(&mut self, pixels: &mut [u8]) -> Result<Option<Frame>> {
        if let Some(interval) = self.interval {
            thread::sleep(self.due.saturating_duration_since(Instant::now()));
            self.due += interval;
        }
        let buffer = self.is_free.iter().position(|is_free| *is_free).ok_or("no frame buffer is free")?;
        if !self.source.advance()? {
            return Ok(None);
        }
        capture(&*self.source, &self.settings, pixels);
        self.pool[buffer].write_all_at(pixels, 0)?;
        self.is_free[buffer] = false;
        Ok(Some(Frame { buffer, taken_with: self.settings }))
    }

    fn release(&mut self, buffer: usize) -> Result<()> {
        self.is_free[buffer] = true;
        Ok(())
    }

    fn apply(&mut self, settings: &Settings) -> Result<()> {
        self.settings = *settings;
        Ok(())
    }
}
