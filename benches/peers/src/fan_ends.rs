//! The two kinds of ends of fan-out: a [`Publish`] sends to all, and a [`Receive`] is one that receives.

use anyhow::Result;

use crate::{fan_cell::FanCell, link::Link, payload::Bytes};

/// The end of the process that publishes.
pub(crate) trait Publish: Sized {
    /// Connects with all subscribers, each at the other end of a link.
    fn connect(cell: &FanCell, links: &[Link]) -> Result<Self>;

    /// Publishes a payload of `len` bytes, which `fill` writes: once, or once for each subscriber.
    fn publish(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<()>;
}

/// A payload as a subscriber has read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The number of the message, from 0.
    pub(crate) number: u64,
    pub(crate) len: usize,
    /// The wrapping sum of its words.
    pub(crate) sum: u64,
}

impl Seen {
    /// Reads every byte.
    #[inline]
    pub(crate) fn read(number: u64, view: &impl Bytes) -> Self {
        Self { number, len: view.len(), sum: view.sum() }
    }
}

/// The end of a process that receives.
pub(crate) trait Receive: Sized {
    fn connect(cell: &FanCell, link: &Link) -> Result<Self>;

    /// Waits for a message and reads it. `None` if it was overwritten meanwhile: it is missed.
    fn receive(&mut self) -> Result<Option<Seen>>;
}
