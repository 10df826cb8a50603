//! Frame buffers: memfds that the pipeline fills and that the algorithm reads, never at the same time.
//!
//! Both go through the descriptor (`pread`, `pwrite`). A mapping would have to be read as memory that somebody else may be
//! changing: no `&[u8]` may be made of it, because nothing but good manners stops the pipeline from writing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::Result;
use crate::sensor::{PLANES, Size};
use crate::statistics::{Grid, Meter, Zone, planes};

/// Makes a buffer that can no longer change its size.
pub(crate) fn create(size: Size) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("frame", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = File::from(fd);
    file.set_len(size.frame_bytes() as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// What the algorithm was given: buffers of frames of one size.
pub(crate) struct Registered {
    size: Size,
    buffers: Vec<File>,
    meter: Meter,
    rows: Vec<u8>,
}

impl Registered {
    /// Accepts descriptors that a peer sent. That they are memfds of the right size for ever is what makes reading
    /// them prompt and whole: another file could be on a dead server, a pipe would never answer.
    pub(crate) fn new(size: Size, fds: Vec<OwnedFd>) -> Result<Self> {
        let expected = SealFlags::SHRINK | SealFlags::GROW;
        let buffers: Vec<_> = fds.into_iter().map(File::from).collect();
        for (id, buffer) in buffers.iter().enumerate() {
            if !rustix::fs::fcntl_get_seals(buffer).is_ok_and(|seals| seals.contains(expected)) {
                return Err(format!("frame buffer {id} is no memfd that keeps its size").into());
            }
            let (found, expected) = (buffer.metadata()?.len(), size.frame_bytes() as u64);
            if found != expected {
                return Err(format!("frame buffer {id} has {found} bytes, expected {expected}").into());
            }
        }
        Ok(Self { size, buffers, meter: Meter::new(size.width), rows: Vec::new() })
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Measures one row of zones in the buffer itself; `zones` holds one row of `grid`.
    pub(crate) fn measure_zones(
        &mut self,
        buffer: u32,
        grid: Grid,
        row: usize,
        zones: &mut [Zone],
    ) -> Result<()> {
        let file = usize::try_from(buffer).ok().and_then(|id| self.buffers.get(id));
        let file = file.ok_or_else(|| format!("frame buffer {buffer} is not registered"))?;
        let lines = grid.pixel_rows(row, self.size);
        let length = lines.len() * self.size.width;
        self.rows.resize(length * PLANES, 0);
        for (plane, part) in self.rows.chunks_exact_mut(length).enumerate() {
            let offset = plane * self.size.pixels() + lines.start * self.size.width;
            file.read_exact_at(part, offset as u64)?;
        }
        self.meter.measure_zones(planes(&self.rows, length), zones);
        Ok(())
    }
}
