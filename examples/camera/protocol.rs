//! The messages between the two processes. Each side checks a message before it uses it.
//!
//! The pipeline registers its frame buffers once: a control message with [`Register`] and one fd per buffer, whose ids are
//! their places in that message. Then comes a payload per frame, the statistics, with [`FrameReady`] as its control
//! bytes. The algorithm answers each with a control message, [`Controls`]; that releases the frame's buffer. At the end
//! comes a request with [`Revoke`]: the algorithm closes its buffers, and then replies with the same.
//!
//! A pipeline that publishes registers nothing. Each frame is a message to all subscribers, with [`Published`] as its control bytes
//! and one fd. The algorithm answers with [`Controls`] there too, other subscribers with [`Free`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many frame buffers are in use. The algorithm accepts no more.
pub(crate) const BUFFERS: usize = 4;

#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Register {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from a row to the next for dmabufs of YUYV; 0 for memfds of planes.
    pub(crate) stride: u32,
    /// Whether the camera has colour gains.
    pub(crate) has_colour_gains: u32,
}

#[derive(Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Revoke {
    /// How many buffers there are.
    pub(crate) buffers: u32,
}

#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct FrameReady {
    pub(crate) frame: u64,
    /// The registered buffer that holds the frame; no process writes to it until the answer.
    pub(crate) buffer: u32,
    /// The grid of the statistics.
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    pub(crate) reserved: u32,
    /// The settings of the frame.
    pub(crate) settings: Settings,
}

/// How to take a frame.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Settings {
    pub(crate) exposure_us: f64,
    pub(crate) analogue_gain: f64,
    pub(crate) red_gain: f64,
    pub(crate) blue_gain: f64,
}

impl Settings {
    /// Too short an exposure, and no colour gains: the algorithm has something to do.
    pub(crate) const WRONG: Self =
        Self { exposure_us: 2500.0, analogue_gain: 1.0, red_gain: 1.0, blue_gain: 1.0 };
    pub(crate) const MIN_EXPOSURE_US: f64 = 50.0;
    /// A frame at 30 Hz cannot be exposed for longer.
    pub(crate) const MAX_EXPOSURE_US: f64 = 33_000.0;
    pub(crate) const MAX_ANALOGUE_GAIN: f64 = 16.0;
    pub(crate) const MIN_COLOUR_GAIN: f64 = 0.125;
    pub(crate) const MAX_COLOUR_GAIN: f64 = 8.0;

    /// Whether a sensor can do this. Not for a NaN.
    pub(crate) fn is_valid(&self) -> bool {
        let colour = Self::MIN_COLOUR_GAIN..=Self::MAX_COLOUR_GAIN;
        (Self::MIN_EXPOSURE_US..=Self::MAX_EXPOSURE_US).contains(&self.exposure_us)
            && (1.0..=Self::MAX_ANALOGUE_GAIN).contains(&self.analogue_gain)
            && colour.contains(&self.red_gain)
            && colour.contains(&self.blue_gain)
    }
}

/// The algorithm's measurements of a frame.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Observation {
    /// 0.0 to 255.0.
    pub(crate) mean_luma: f64,
    pub(crate) red_to_green: f64,
    pub(crate) blue_to_green: f64,
    /// The mean squared difference between neighbours.
    pub(crate) focus: f64,
}

impl Observation {
    pub(crate) fn is_valid(&self) -> bool {
        [self.mean_luma, self.red_to_green, self.blue_to_green, self.focus].into_iter().all(f64::is_finite)
    }
}

#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Controls {
    /// The frame that this answers.
    pub(crate) frame: u64,
    /// Whether exposure and white balance were right in that frame.
    pub(crate) converged: u32,
    /// Whether the statistics agree with the content of the frame's buffer.
    pub(crate) buffer_agrees: u32,
    /// Forbidden acts that a sandboxed algorithm tried meanwhile, and how many of them it was refused.
    pub(crate) acts_tried: u32,
    pub(crate) acts_refused: u32,
    /// How to take the next frame.
    pub(crate) next: Settings,
    pub(crate) observed: Observation,
}

/// Comes with the statistics of a published frame, and with its buffer's descriptor. A subscriber that has just joined knows
/// nothing else.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Published {
    pub(crate) camera: Register,
    pub(crate) ready: FrameReady,
}

/// A subscriber's message: it reads this frame no more, nor any frame before it. The algorithm's [`Controls`] mean the same.
///
/// If it is a request, the reply is a [`Share`].
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Free {
    pub(crate) frame: u64,
    /// The subscriber's counts of frames so far.
    pub(crate) received: u64,
    pub(crate) missed: u64,
}

/// Whether the frame's buffer was the subscriber's until it said [`Free`]. If not, the camera may have written to it meanwhile.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Share {
    pub(crate) frame: u64,
    pub(crate) was_kept: u64,
}
