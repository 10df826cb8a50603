//! The source of frames: it fills buffers, which the algorithm gets once.

use std::os::fd::BorrowedFd;

use crate::Result;
use crate::buffers::Layout;
use crate::protocol::Settings;
use crate::sensor::{Played, Size};

/// A camera. Its buffers are numbered from 0 on, [`BUFFERS`](crate::protocol::BUFFERS) of them.
pub(crate) trait Camera {
    fn size(&self) -> Size;

    /// How many frames there are to expect, if that is known.
    fn expected_length(&self) -> Option<u64> {
        None
    }

    /// The recording that was played, if the camera is one.
    fn played(&self) -> Option<Played> {
        None
    }

    /// Whether pixels are proportional to light, as a sensor has them, or encoded for a display.
    fn is_linear(&self) -> bool;

    fn layout(&self) -> Layout;

    /// Whether the settings' colour gains have an effect.
    fn has_colour_gains(&self) -> bool;

    /// The descriptors of the buffers, in order.
    fn buffers(&self) -> Vec<BorrowedFd<'_>>;

    /// Takes the next frame into a buffer that is free, and gives its pixels, plane after plane; `None` at the end.
    ///
    /// One buffer at least must be free. It is so no longer, until [`release`](Self::release).
    fn take(&mut self, pixels: &mut [u8]) -> Result<Option<Frame>>;

    /// Frees a buffer: its content may be overwritten.
    fn release(&mut self, buffer: usize) -> Result<()>;

    /// Says how frames are to be taken from now on.
    fn apply(&mut self, settings: &Settings) -> Result<()>;
}

/// A frame that was taken.
pub(crate) struct Frame {
    pub(crate) buffer: usize,
    pub(crate) taken_with: Settings,
}
