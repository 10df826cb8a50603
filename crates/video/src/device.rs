//! A capture device: its format, its rate and its controls.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};
use zerocopy::FromZeros;

use crate::kernel::video::{
    CAPTURE, Capabilities, ControlValue, FIELD_NONE, GET_CONTROL, QUERY_CAPABILITIES, QUERY_CONTROL,
    QueryControl, SET_CONTROL, SET_FORMAT, SET_PARAMETERS, StreamParameters, VideoFormat,
};

/// An open device that captures whole frames into memory of its own.
#[derive(Debug)]
pub struct Device {
    file: File,
    driver: String,
}

/// The format of frames, as the device reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Bytes from the start of a row to that of the next.
    pub stride: usize,
    /// Bytes of a frame.
    pub bytes: usize,
}

/// Something to set on a device: `V4L2_CID_…` of `linux/v4l2-controls.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control(pub u32);

impl Control {
    /// `V4L2_CID_BRIGHTNESS`.
    pub const BRIGHTNESS: Self = Self(0x0098_0900);
    /// `V4L2_CID_GAIN`.
    pub const GAIN: Self = Self(0x0098_0913);
    /// `V4L2_CID_EXPOSURE_AUTO`.
    pub const EXPOSURE_AUTO: Self = Self(0x009a_0901);
    /// `V4L2_CID_EXPOSURE_ABSOLUTE`, in units of 100 µs.
    pub const EXPOSURE_ABSOLUTE: Self = Self(0x009a_0902);
}

/// The values that a control may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest.
    pub minimum: i32,
    /// The highest.
    pub maximum: i32,
}

impl Device {
    /// Opens a device, which must be able to capture.
    ///
    /// # Errors
    /// Those of `open(2)` and `VIDIOC_QUERYCAP`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
        let mut found = Capabilities::new_zeroed();
        QUERY_CAPABILITIES.make(&file, &mut found)?;
        let needed = Capabilities::VIDEO_CAPTURE | Capabilities::STREAMING;
        if found.device & needed != needed {
            let text = format!(
                "a device that can {:#x}, expected to capture and stream ({needed:#x})",
                found.device
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let driver = String::from_utf8_lossy(&found.driver).trim_end_matches('\0').to_owned();
        Ok(Self { file, driver })
    }

    /// Opens the first device of this driver.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn of_driver(driver: &str) -> io::Result<Self> {
        let mut devices = (0..64).filter_map(|number| Self::open(format!("/dev/video{number}")).ok());
        let found = devices.find(|device| device.driver == driver);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no capture device of {driver}")))
    }

    /// Sets the format to the nearest that the device has to that size, in YUYV: two pixels in four bytes.
    ///
    /// # Errors
    /// Those of `VIDIOC_S_FMT`; `Unsupported` if the device has other formats only.
    pub fn set_yuyv(&self, width: u32, height: u32) -> io::Result<Format> {
        const YUYV: [u8; 4] = *b"YUYV";
        let mut format = VideoFormat {
            kind: CAPTURE,
            width,
            height,
            pixel_format: YUYV,
            field: FIELD_NONE,
            ..VideoFormat::new_zeroed()
        };
        SET_FORMAT.make(self, &mut format)?;
        if format.pixel_format != YUYV || format.field != FIELD_NONE {
            let found = format.pixel_format.escape_ascii();
            let text = format!(
                "frames of format {found} and field order {}, expected YUYV and {FIELD_NONE}",
                format.field
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let number = |number: u32| usize::try_from(number).map_err(io::Error::other);
        Ok(Format {
            width: number(format.width)?,
            height: number(format.height)?,
            stride: number(format.bytes_per_line)?,
            bytes: number(format.image_bytes)?,
        })
    }

    /// Requests a frame rate; the device sets one that it has.
    ///
    /// # Errors
    /// Those of `VIDIOC_S_PARM`.
    pub fn set_rate(&self, frames_per_second: u32) -> io::Result<()> {
        let interval = [1, frames_per_second];
        SET_PARAMETERS
            .make(self, &mut StreamParameters { kind: CAPTURE, interval, ..StreamParameters::new_zeroed() })
    }

    /// The range of a control; `None` if the device has no such control.
    ///
    /// # Errors
    /// Those of `VIDIOC_QUERYCTRL`.
    pub fn range(&self, Control(id): Control) -> io::Result<Option<Range>> {
        let mut control = QueryControl { id, ..QueryControl::new_zeroed() };
        match QUERY_CONTROL.try_make(self.as_fd(), &mut control) {
            Ok(_) if control.flags & (QueryControl::DISABLED | QueryControl::READ_ONLY) != 0 => Ok(None),
            Ok(_) => Ok(Some(Range { minimum: control.minimum, maximum: control.maximum })),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(QUERY_CONTROL.failed(errno)),
        }
    }

    /// The value of a control.
    ///
    /// # Errors
    /// Those of `VIDIOC_G_CTRL`.
    pub fn control(&self, Control(id): Control) -> io::Result<i32> {
        let mut control = ControlValue { id, value: 0 };
        GET_CONTROL.make(self, &mut control)?;
        Ok(control.value)
    }

    /// Sets a control.
    ///
    /// # Errors
    /// Those of `VIDIOC_S_CTRL`.
    pub fn set_control(&self, Control(id): Control, value: i32) -> io::Result<()> {
        SET_CONTROL.make(self, &mut ControlValue { id, value })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
