//! Structures and requests of `linux/videodev2.h`: capture into memory of the device.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{fs::OFlags, ioctl::opcode};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{Request, given};

pub(crate) const QUERY_CAPABILITIES: Request<Capabilities> =
    Request::new("VIDIOC_QUERYCAP", opcode::read::<Capabilities>(b'V', 0));
pub(crate) const SET_FORMAT: Request<VideoFormat> =
    Request::new("VIDIOC_S_FMT", opcode::read_write::<VideoFormat>(b'V', 5));
pub(crate) const REQUEST_BUFFERS: Request<RequestBuffers> =
    Request::new("VIDIOC_REQBUFS", opcode::read_write::<RequestBuffers>(b'V', 8));
pub(crate) const QUEUE_BUFFER: Request<Buffer> =
    Request::new("VIDIOC_QBUF", opcode::read_write::<Buffer>(b'V', 15));
const EXPORT_BUFFER: Request<ExportBuffer> =
    Request::new("VIDIOC_EXPBUF", opcode::read_write::<ExportBuffer>(b'V', 16));
pub(crate) const DEQUEUE_BUFFER: Request<Buffer> =
    Request::new("VIDIOC_DQBUF", opcode::read_write::<Buffer>(b'V', 17));
pub(crate) const STREAM_ON: Request<u32> = Request::new("VIDIOC_STREAMON", opcode::write::<u32>(b'V', 18));
pub(crate) const STREAM_OFF: Request<u32> = Request::new("VIDIOC_STREAMOFF", opcode::write::<u32>(b'V', 19));
pub(crate) const SET_PARAMETERS: Request<StreamParameters> =
    Request::new("VIDIOC_S_PARM", opcode::read_write::<StreamParameters>(b'V', 22));
pub(crate) const GET_CONTROL: Request<ControlValue> =
    Request::new("VIDIOC_G_CTRL", opcode::read_write::<ControlValue>(b'V', 27));
pub(crate) const SET_CONTROL: Request<ControlValue> =
    Request::new("VIDIOC_S_CTRL", opcode::read_write::<ControlValue>(b'V', 28));
pub(crate) const QUERY_CONTROL: Request<QueryControl> =
    Request::new("VIDIOC_QUERYCTRL", opcode::read_write::<QueryControl>(b'V', 36));

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
pub(crate) const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_MMAP`: the device allocates its buffers.
pub(crate) const MEMORY_MMAP: u32 = 1;
/// `V4L2_FIELD_NONE`: whole frames.
pub(crate) const FIELD_NONE: u32 = 1;

/// A buffer of a device, as a dmabuf (`VIDIOC_EXPBUF`).
pub(crate) fn export(device: impl AsFd, index: u32) -> io::Result<OwnedFd> {
    // Without `RDWR` the kernel refuses every holder to map it for writing.
    let flags = (OFlags::RDONLY | OFlags::CLOEXEC).bits();
    let mut export = ExportBuffer { kind: CAPTURE, index, plane: 0, flags, fd: -1, reserved: [0; 11] };
    EXPORT_BUFFER.make(device, &mut export)?;
    Ok(given(export.fd))
}

/// `struct v4l2_capability`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Capabilities {
    pub(crate) driver: [u8; 16],
    card: [u8; 32],
    bus_info: [u8; 32],
    version: u32,
    of_all_devices: u32,
    pub(crate) device: u32,
    reserved: [u32; 3],
}

impl Capabilities {
    pub(crate) const VIDEO_CAPTURE: u32 = 0x1;
    pub(crate) const STREAMING: u32 = 0x0400_0000;
}

/// `struct v4l2_format` with a `struct v4l2_pix_format`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct VideoFormat {
    pub(crate) kind: u32,
    pub(crate) padding: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixel_format: [u8; 4],
    pub(crate) field: u32,
    pub(crate) bytes_per_line: u32,
    pub(crate) image_bytes: u32,
    pub(crate) colours: [u32; 6],
    pub(crate) unused: [u32; 38],
}

/// `struct v4l2_requestbuffers`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct RequestBuffers {
    pub(crate) count: u32,
    pub(crate) kind: u32,
    pub(crate) memory: u32,
    pub(crate) capabilities: u32,
    pub(crate) flags: [u8; 4],
}

/// `struct v4l2_buffer`, with memory of the device.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Buffer {
    pub(crate) index: u32,
    pub(crate) kind: u32,
    pub(crate) bytes_used: u32,
    pub(crate) flags: u32,
    field: u32,
    padding: u32,
    pub(crate) seconds: u64,
    pub(crate) microseconds: u64,
    timecode: [u32; 4],
    pub(crate) sequence: u32,
    pub(crate) memory: u32,
    offset: u64,
    length: u32,
    reserved: u32,
    request_fd: i32,
    padding_at_end: u32,
}

impl Buffer {
    /// `V4L2_BUF_FLAG_ERROR`: the frame's content may be wrong.
    pub(crate) const ERROR: u32 = 0x40;

    /// The buffer with this index, as the device's own memory.
    pub(crate) fn of(index: u32) -> Self {
        Self { index, kind: CAPTURE, memory: MEMORY_MMAP, ..Self::new_zeroed() }
    }
}

/// `struct v4l2_exportbuffer`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ExportBuffer {
    kind: u32,
    index: u32,
    plane: u32,
    flags: u32,
    fd: i32,
    reserved: [u32; 11],
}

/// `struct v4l2_streamparm` with a `struct v4l2_captureparm`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct StreamParameters {
    pub(crate) kind: u32,
    pub(crate) capability: u32,
    pub(crate) mode: u32,
    /// Seconds a frame, as a fraction.
    pub(crate) interval: [u32; 2],
    pub(crate) unused: [u32; 46],
}

/// `struct v4l2_control`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct ControlValue {
    pub(crate) id: u32,
    pub(crate) value: i32,
}

/// `struct v4l2_queryctrl`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct QueryControl {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) name: [u8; 32],
    pub(crate) minimum: i32,
    pub(crate) maximum: i32,
    pub(crate) step: i32,
    pub(crate) default: i32,
    pub(crate) flags: u32,
    pub(crate) reserved: [u32; 2],
}

impl QueryControl {
    pub(crate) const DISABLED: u32 = 0x1;
    pub(crate) const READ_ONLY: u32 = 0x4;
}

const _: () = {
    assert!(size_of::<Capabilities>() == 104);
    assert!(size_of::<VideoFormat>() == 208);
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<Buffer>() == 88);
    assert!(size_of::<ExportBuffer>() == 64);
    assert!(size_of::<StreamParameters>() == 204);
    assert!(size_of::<ControlValue>() == 8);
    assert!(size_of::<QueryControl>() == 68);
};
