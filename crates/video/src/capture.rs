//! A device that captures: its buffers go round between it and us.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
};
use zerocopy::FromZeros;

use crate::{
    Device, DmaBuf,
    kernel::video::{
        self, Buffer, CAPTURE, DEQUEUE_BUFFER, MEMORY_MMAP, QUEUE_BUFFER, REQUEST_BUFFERS, RequestBuffers,
        STREAM_OFF, STREAM_ON,
    },
};

/// A device that captures. The device fills buffers in its hands; those in ours hold frames.
#[derive(Debug)]
pub struct Capture {
    device: Device,
    buffers: u32,
}

/// A frame, in a buffer that is now in our hands.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The index of the buffer.
    pub buffer: u32,
    /// Bytes that the device has written.
    pub bytes: usize,
    /// Counts all frames, also those that were lost because no buffer was free.
    pub sequence: u32,
    /// When the frame was taken, by the monotonic clock.
    pub taken: Duration,
    /// Whether the device says that the frame is damaged.
    pub is_damaged: bool,
}

impl Capture {
    /// Has the device allocate `count` buffers, and starts it.
    ///
    /// # Errors
    /// Those of `VIDIOC_REQBUFS`, `VIDIOC_QBUF` and `VIDIOC_STREAMON`; `Unsupported` if the device wants another number.
    pub fn start(device: Device, count: u32) -> io::Result<Self> {
        let buffers = request_buffers(&device, count)?;
        let capture = Self { device, buffers };
        if buffers != count {
            let text = format!("a device that captures into {buffers} buffers, expected {count}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        for buffer in 0..buffers {
            capture.requeue(buffer)?;
        }
        STREAM_ON.make(&capture, &mut { CAPTURE })?;
        Ok(capture)
    }

    /// The device, to set controls.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device's buffers as dmabufs, in the order of their indices, for reading only: a holder cannot write.
    ///
    /// # Errors
    /// Those of `VIDIOC_EXPBUF`.
    pub fn export(&self) -> io::Result<Vec<DmaBuf>> {
        (0..self.buffers).map(|index| DmaBuf::try_from(video::export(self, index)?)).collect()
    }

    /// Takes the next frame, if there is one in time.
    ///
    /// # Errors
    /// Those of `poll(2)` and `VIDIOC_DQBUF`.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Option<Frame>> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut interest = [PollFd::new(&self.device, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut interest, Some(&timeout)))? == 0 {
            return Ok(None);
        }
        let mut buffer = Buffer::of(0);
        match DEQUEUE_BUFFER.try_make(self.as_fd(), &mut buffer) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(DEQUEUE_BUFFER.failed(errno)),
        }
        Ok(Some(Frame {
            buffer: buffer.index,
            bytes: usize::try_from(buffer.bytes_used).map_err(io::Error::other)?,
            sequence: buffer.sequence,
            taken: Duration::from_secs(buffer.seconds) + Duration::from_micros(buffer.microseconds),
            is_damaged: buffer.flags & Buffer::ERROR != 0,
        }))
    }

    /// Gives a buffer back to the device, which writes to it from now on.
    ///
    /// # Errors
    /// Those of `VIDIOC_QBUF`.
    pub fn requeue(&self, buffer: u32) -> io::Result<()> {
        QUEUE_BUFFER.make(self, &mut Buffer::of(buffer))
    }

    /// Stops the device and takes its buffers from it. Exported ones live on, as long as a descriptor of them is open.
    ///
    /// # Errors
    /// Those of `VIDIOC_STREAMOFF` and `VIDIOC_REQBUFS`.
    pub fn stop(self) -> io::Result<Device> {
        STREAM_OFF.make(&self, &mut { CAPTURE })?;
        request_buffers(&self.device, 0)?;
        Ok(self.device)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn request_buffers(device: &Device, count: u32) -> io::Result<u32> {
    let mut buffers =
        RequestBuffers { count, kind: CAPTURE, memory: MEMORY_MMAP, ..RequestBuffers::new_zeroed() };
    REQUEST_BUFFERS.make(device, &mut buffers)?;
    Ok(buffers.count)
}
