//! A real camera: a V4L2 capture device, whose own buffers go to the algorithm as dmabufs, for reading only.
//!
//! The algorithm's wishes are set on the device as exposure time and gain, or as brightness if that is all that there
//! is. At the end the device gets back its earlier settings.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use video::{Capture, Control, Device, DmaBuf, Format, Mapping, Range};

use crate::Result;
use crate::buffers::Layout;
use crate::camera::{Camera, Frame};
use crate::colour::planes_of_yuyv;
use crate::protocol::{BUFFERS, Settings};
use crate::sensor::Size;

/// The requested size; the device may have another one.
const SIZE: Size = Size { width: 640, height: 480 };
const DEFAULT_RATE: u32 = 30;
/// `V4L2_EXPOSURE_MANUAL` of `linux/v4l2-controls.h`.
const MANUAL: i32 = 1;
/// How long a device may take for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Webcam {
    capture: Capture,
    buffers: Vec<Mapping>,
    size: Size,
    stride: usize,
    raw: Vec<u8>,
    exposure: Exposure,
    /// From which moment on frames are taken with which settings, by the clock of the frames' times.
    in_force: VecDeque<(Duration, Settings)>,
    /// Between setting the exposure and the first frame that has it.
    latency: Duration,
    /// The earlier values of controls, in the order in which they were changed.
    before: Vec<(Control, i32)>,
}

/// The control that sets the device's exposure.
enum Exposure {
    Time { time: Range, gain: Option<Range> },
    Brightness(Range),
}

impl Webcam {
    pub(crate) fn open(path: &Path, frames_per_second: Option<u32>) -> Result<Self> {
        let device = Device::open(path)?;
        let format = device.set_yuyv(u32::try_from(SIZE.width)?, u32::try_from(SIZE.height)?)?;
        let Format { width, height, stride, .. } = format;
        let size = Size::new(width, height).filter(|size| size.width % 2 == 0);
        let size = size.ok_or_else(|| format!("the device gives {width}x{height} pixels"))?;
        let rate = frames_per_second.unwrap_or(DEFAULT_RATE);
        device.set_rate(rate)?;
        let exposure = Exposure::of(&device)?;

        let capture = Capture::start(device, u32::try_from(BUFFERS)?)?;
        let map = |buffer: DmaBuf| buffer.map();
        let buffers = capture.export()?.into_iter().map(map).collect::<io::Result<_>>()?;
        // A sensor that is exposed by time is one frame ahead; gains that are computed after it are not.
        let ahead = if matches!(exposure, Exposure::Time { .. }) { 2 } else { 0 };
        let latency = Duration::from_secs(ahead) / rate;
        let raw = vec![0; Layout::Yuyv { stride }.bytes(width, height)];
        let in_force = VecDeque::from([(Duration::ZERO, Settings::WRONG)]);
        let before = Vec::new();
        let mut webcam = Self { capture, buffers, size, stride, raw, exposure, in_force, latency, before };
        webcam.take_over()?;
        Ok(webcam)
    }

    /// Saves the device's settings, and switches its automatic modes off.
    fn take_over(&mut self) -> Result<()> {
        let device = self.capture.device();
        let has_automatic = device.range(Control::EXPOSURE_AUTO)?.is_some();
        let automatic = has_automatic.then_some(Control::EXPOSURE_AUTO);
        for control in automatic.into_iter().chain(self.exposure.controls()) {
            self.before.push((control, device.control(control)?));
        }
        if let Some(automatic) = automatic {
            device.set_control(automatic, MANUAL)?;
        }
        self.apply(&Settings::WRONG)
    }
}

impl Camera for Webcam {
    fn size(&self) -> Size {
        self.size
    }

    fn is_linear(&self) -> bool {
        false
    }

    fn layout(&self) -> Layout {
        Layout::Yuyv { stride: self.stride }
    }

    /// Those that have a white balance do it themselves.
    fn has_colour_gains(&self) -> bool {
        false
    }

    fn buffers(&self) -> Vec<BorrowedFd<'_>> {
        self.buffers.iter().map(AsFd::as_fd).collect()
    }

    fn take(&mut self, pixels: &mut [u8]) -> Result<Option<Frame>> {
        let frame = loop {
            let frame = self.capture.next(PATIENCE)?;
            let frame = frame.ok_or_else(|| format!("no frame in {} s", PATIENCE.as_secs()))?;
            if !frame.is_damaged && frame.bytes >= self.raw.len() {
                break frame;
            }
            self.capture.requeue(frame.buffer)?;
        };
        let buffer = usize::try_from(frame.buffer)?;
        self.buffers[buffer].read_at(0, &mut self.raw)?;
        planes_of_yuyv(&self.raw, self.stride, self.size.width, pixels);
        while self.in_force.get(1).is_some_and(|(from, _)| *from <= frame.taken) {
            self.in_force.pop_front();
        }
        Ok(Some(Frame { buffer, taken_with: self.in_force[0].1 }))
    }

    fn release(&mut self, buffer: usize) -> Result<()> {
        Ok(self.capture.requeue(u32::try_from(buffer)?)?)
    }

    fn apply(&mut self, settings: &Settings) -> Result<()> {
        let device = self.capture.device();
        let settings = self.exposure.set(device, settings)?;
        if self.in_force.back().is_none_or(|(_, last)| *last != settings) {
            let now = Duration::try_from(clock_gettime(ClockId::Monotonic))?;
            self.in_force.push_back((now + self.latency, settings));
        }
        Ok(())
    }
}

impl Drop for Webcam {
    fn drop(&mut self) {
        for (control, value) in self.before.drain(..).rev() {
            // The device may be gone.
            let _ = self.capture.device().set_control(control, value);
        }
    }
}

impl Exposure {
    fn of(device: &Device) -> Result<Self> {
        if let Some(time) = device.range(Control::EXPOSURE_ABSOLUTE)? {
            return Ok(Self::Time { time, gain: device.range(Control::GAIN)? });
        }
        let brightness = device.range(Control::BRIGHTNESS)?.map(Self::Brightness);
        brightness.ok_or_else(|| "the device has neither exposure time nor brightness to set".into())
    }

    fn controls(&self) -> Vec<Control> {
        match self {
            Self::Time { gain: None, .. } => vec![Control::EXPOSURE_ABSOLUTE],
            Self::Time { gain: Some(_), .. } => vec![Control::EXPOSURE_ABSOLUTE, Control::GAIN],
            Self::Brightness(_) => vec![Control::BRIGHTNESS],
        }
    }

    /// Sets the device to the nearest that it can do, and says what that is.
    fn set(&self, device: &Device, wanted: &Settings) -> io::Result<Settings> {
        let mut set = Settings { red_gain: 1.0, blue_gain: 1.0, ..*wanted };
        match self {
            Self::Time { time, gain } => {
                // The control counts in units of 100 µs.
                let value = nearest(wanted.exposure_us / 100.0, *time);
                device.set_control(Control::EXPOSURE_ABSOLUTE, value)?;
                set.exposure_us =
                    (f64::from(value) * 100.0).clamp(Settings::MIN_EXPOSURE_US, Settings::MAX_EXPOSURE_US);
                if let Some(gain) = gain {
                    let share = (wanted.analogue_gain - 1.0) / (Settings::MAX_ANALOGUE_GAIN - 1.0);
                    device.set_control(Control::GAIN, at(share, *gain))?;
                } else {
                    set.analogue_gain = 1.0;
                }
            }
            Self::Brightness(range) => {
                // It adds, where exposure multiplies: the logarithm of the one is the nearest to the other.
                let share = (wanted.exposure_us / Settings::MIN_EXPOSURE_US).ln()
                    / (Settings::MAX_EXPOSURE_US / Settings::MIN_EXPOSURE_US).ln();
                device.set_control(Control::BRIGHTNESS, at(share, *range))?;
                set.analogue_gain = 1.0;
            }
        }
        Ok(set)
    }
}

/// The value that stands at a share of the range.
fn at(share: f64, range: Range) -> i32 {
    let span = f64::from(range.maximum) - f64::from(range.minimum);
    nearest(f64::from(range.minimum) + share * span, range)
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range before")]
fn nearest(value: f64, range: Range) -> i32 {
    value.round().clamp(range.minimum.into(), range.maximum.into()) as i32
}
