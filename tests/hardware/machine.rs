//! The machine that the tests run in: its capture device, and the resources that are in use on it.

use std::{
    fs,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use video::{Capture, Device, Format, Frame};

/// Longer than anything here takes, in a machine that is emulated.
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// Buffers of the device.
pub(crate) const BUFFERS: usize = 4;

/// Has the device capture small frames.
pub(crate) fn capture() -> (Capture, Format) {
    let device = Device::of_driver("vivid").unwrap();
    let format = device.set_yuyv(320, 180).unwrap();
    device.set_rate(30).unwrap();
    (Capture::start(device, u32::try_from(BUFFERS).unwrap()).unwrap(), format)
}

/// The next frame of a device that works.
pub(crate) fn next(capture: &mut Capture) -> Frame {
    let frame = capture.next(LONG).unwrap().expect("the device gives frames");
    assert!(!frame.is_damaged, "{frame:?}");
    frame
}

/// Resources that a test can leave behind: dmabufs of the machine, their bytes, and descriptors of this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) dmabufs: usize,
    bytes: usize,
    descriptors: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let info = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
        // Its last line that says anything: `Total 2 objects, 8192 bytes`.
        let total = info.lines().rfind(|line| line.starts_with("Total")).unwrap();
        let mut numbers = total.split(' ').filter_map(|word| word.parse().ok());
        let (dmabufs, bytes) = (numbers.next().unwrap(), numbers.next().unwrap());
        Self { dmabufs, bytes, descriptors: fs::read_dir("/proc/self/fd").unwrap().count() }
    }

    /// Waits until all that was taken since has been given back: the kernel takes a buffer apart a moment after its last
    /// descriptor is closed.
    pub(crate) fn again(self) {
        let deadline = Instant::now() + LONG;
        while Self::now() != self {
            assert!(Instant::now() < deadline, "{:?} is held, expected {self:?}", Self::now());
            thread::yield_now();
        }
    }
}

/// How many descriptors of dmabufs this process has.
pub(crate) fn open_dmabufs() -> usize {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.filter(|link| link.starts_with("/dmabuf:")).count()
}

/// How a child ended, that ends by itself.
pub(crate) fn ending(mut child: Child) -> ExitStatus {
    let deadline = Instant::now() + LONG;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if Instant::now() > deadline => panic!("a child does not end"),
            None => thread::yield_now(),
        }
    }
}
