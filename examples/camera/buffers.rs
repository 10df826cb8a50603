//! Frame buffers: memory that the camera fills and that the algorithm reads, never at the same time.
//!
//! Memfds are read through the descriptor (`pread`), dmabufs through a mapping, since they have no other way: both by copy.
//! No `&[u8]` may be made of a mapping, because nothing but good manners stops the other side from writing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use video::{DmaBuf, Mapping};

use crate::Result;
use crate::colour::planes_of_yuyv;
use crate::sensor::{PLANES, Size};
use crate::statistics::{Grid, Meter, Zone, planes};

/// Makes a memfd for one frame, that can no longer change its size.
pub(crate) fn create(size: Size) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("frame", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = File::from(fd);
    file.set_len(size.frame_bytes() as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// The kind of a frame's buffer, and the frame's layout in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A memfd: red, green and blue, one plane after the other.
    Planes,
    /// A dmabuf: two pixels in four bytes, with this number of bytes from a row to the next.
    Yuyv { stride: usize },
}

impl Layout {
    /// How many bytes that many rows take.
    pub(crate) fn bytes(self, width: usize, rows: usize) -> usize {
        match self {
            Self::Planes => width * rows * PLANES,
            // The last row need not be followed by anything.
            Self::Yuyv { stride } => stride * (rows - 1) + 2 * width,
        }
    }
}

enum Buffer {
    Memfd(File),
    DmaBuf(Mapping),
}

impl Buffer {
    /// Accepts a descriptor that a peer sent. It must be a memfd or a dmabuf that can never become shorter than this,
    /// which makes reading it prompt and whole: another file could be on a dead server, a pipe would never answer.
    fn accept(fd: OwnedFd, layout: Layout, expected: usize) -> Result<Self> {
        let (buffer, found) = if layout == Layout::Planes {
            let seals = SealFlags::SHRINK | SealFlags::GROW;
            if !rustix::fs::fcntl_get_seals(&fd).is_ok_and(|found| found.contains(seals)) {
                return Err("no memfd that keeps its size".into());
            }
            let file = File::from(fd);
            let found = usize::try_from(rustix::fs::fstat(&file)?.st_size)?;
            (Self::Memfd(file), found)
        } else {
            let dmabuf = DmaBuf::try_from(fd)?;
            let found = dmabuf.len();
            (Self::DmaBuf(dmabuf.map()?), found)
        };
        if found < expected {
            return Err(format!("{found} bytes, expected {expected}").into());
        }
        Ok(buffer)
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memfd(file) => file.read_exact_at(bytes, offset as u64),
            Self::DmaBuf(mapping) => mapping.read_at(offset, bytes),
        }
    }
}

/// The buffers that the algorithm has: frames of one size.
pub(crate) struct Buffers {
    size: Size,
    layout: Layout,
    list: Vec<Buffer>,
    meter: Meter,
    raw: Vec<u8>,
    rows: Vec<u8>,
}

impl Buffers {
    /// Accepts descriptors that a peer sent.
    pub(crate) fn new(size: Size, layout: Layout, fds: Vec<OwnedFd>) -> Result<Self> {
        let expected = layout.bytes(size.width, size.height);
        let accept = |(id, fd)| {
            Buffer::accept(fd, layout, expected).map_err(|error| format!("frame buffer {id}: {error}"))
        };
        let list = fds.into_iter().enumerate().map(accept).collect::<std::result::Result<_, _>>()?;
        let (raw, rows) = (Vec::new(), Vec::new());
        Ok(Self { size, layout, list, meter: Meter::new(size.width), raw, rows })
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// Measures one row of zones in the buffer itself; `zones` holds one row of `grid`.
    pub(crate) fn measure_zones(
        &mut self,
        buffer: u32,
        grid: Grid,
        row: usize,
        zones: &mut [Zone],
    ) -> Result<()> {
        let buffer_with_id = usize::try_from(buffer).ok().and_then(|id| self.list.get(id));
        let buffer = buffer_with_id.ok_or_else(|| format!("frame buffer {buffer} is not registered"))?;
        let (lines, width) = (grid.pixel_rows(row, self.size), self.size.width);
        let length = lines.len() * width;
        self.rows.resize(length * PLANES, 0);
        match self.layout {
            Layout::Planes => {
                for (plane, part) in self.rows.chunks_exact_mut(length).enumerate() {
                    buffer.read_at(plane * self.size.pixels() + lines.start * width, part)?;
                }
            }
            Layout::Yuyv { stride } => {
                self.raw.resize(self.layout.bytes(width, lines.len()), 0);
                buffer.read_at(lines.start * stride, &mut self.raw)?;
                planes_of_yuyv(&self.raw, stride, width, &mut self.rows);
            }
        }
        self.meter.measure_zones(planes(&self.rows, length), zones);
        Ok(())
    }
}
