//! The subscribers of a pipeline that publishes: the algorithm, a preview and a recorder, each a process of its own.
//!
//! | | policy | gets | gives a buffer back |
//! |---|---|---|---|
//! | algorithm | is waited for | all frames | with its controls |
//! | recorder | is waited for | all frames | with [`Free`] |
//! | preview | may be overrun | the newest frame | with [`Free`], as a request |
//!
//! A subscriber knows only after it has read a buffer whether that held one frame all the time. A subscriber that is waited for may
//! use what it has read if it could still send: the pipeline ends a subscriber before the camera gets that one's buffers. The
//! preview's buffers may be taken back at any time; the reply says whether that has happened.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use sealane::{Builder, Control, Error, Message, Payload, Slow, Subscriber};
use serde_json::{Value, json};

use crate::isolated::{Registered, accept, examine, grid, row_agrees};
use crate::output::print;
use crate::permitted::enter_sandbox;
use crate::protocol::{Controls, FrameReady, Free, Published, Share};
use crate::sandbox::Sandbox;
use crate::shares::PATIENCE;
use crate::{Options, Result};

/// How long the pipeline may take for a reply. A preview that is stopped meanwhile sees the time pass, too.
const REPLY: Duration = Duration::from_mins(1);

/// A subscriber's frames. The sum is the number that was published while it was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) missed: u64,
    /// Those among the received ones whose buffers were taken back before the subscriber was done.
    pub(crate) taken_back: u64,
}

impl Counts {
    fn json(self) -> Value {
        json!({ "received": self.received, "missed": self.missed, "taken_back": self.taken_back })
    }

    /// Reads what [`json`](Self::json) has made. UNTRUSTED: it comes from another process, and is shown, no more.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text)?;
        let count = |name| value[name].as_u64().ok_or_else(|| format!("no count {name} in {value}"));
        Ok(Self { received: count("received")?, missed: count("missed")?, taken_back: count("taken_back")? })
    }

    fn print(self, role: &str, as_json: bool) -> Result<()> {
        if as_json {
            return Ok(print(self.json())?);
        }
        let Self { received, missed, taken_back } = self;
        let what = format_args!("{received} frames received, {missed} missed, {taken_back} taken back");
        Ok(print(format_args!("camera {role}: {what}"))?)
    }
}

/// Computes controls for each frame, for the pipeline that has started this process.
pub(crate) fn control(options: &Options) -> Result<()> {
    let mut subscriber = builder(options, Slow::Wait(PATIENCE))?.subscribe_inherited()?;
    if options.sandbox {
        enter_sandbox()?;
    }
    let mut counts = Counts::default();
    while let Some(message) = some(subscriber.recv())? {
        counts.received += 1;
        let mut frame = Frame::open(message)?;
        let mut controls = examine(&frame.ready, 0, &frame.statistics, &mut frame.camera)?;
        // Room in the ring first, and the buffer closed: both are the pipeline's again.
        drop(frame);
        if options.sandbox {
            (controls.acts_tried, controls.acts_refused) = (Sandbox::ACTS, Sandbox::try_to_escape());
        }
        if some(subscriber.send(Control::of::<Controls>(&controls)))?.is_none() {
            counts.taken_back += 1;
        }
    }
    counts.missed = subscriber.missed();
    counts.print("algorithm", true)
}

/// Looks at the newest frame again and again, until the pipeline ends.
pub(crate) fn preview(path: &Path, options: &Options) -> Result<()> {
    let mut subscriber = builder(options, Slow::Overrun)?.subscribe(path)?;
    let mut counts = Counts::default();
    while let Some(message) = some(subscriber.recv_latest())? {
        counts.received += 1;
        let mut frame = Frame::open(message)?;
        let row = frame.ready.frame % u64::from(frame.ready.rows.max(1));
        let agrees = frame.rows_agree(usize::try_from(row)?..=usize::try_from(row)?)?;
        let number = frame.ready.frame;
        drop(frame);
        // Only now it is known whether what was read is one frame.
        if !was_kept(&mut subscriber, number, counts)? {
            counts.taken_back += 1;
        } else if !agrees {
            return Err(differs(number));
        }
    }
    counts.missed = subscriber.missed();
    counts.print("preview", options.json)
}

/// Gives a frame back, and asks whether its buffer held that frame until now.
fn was_kept(subscriber: &mut Subscriber, frame: u64, counts: Counts) -> Result<bool> {
    let free = Free { frame, received: counts.received, missed: subscriber.missed() };
    let Some(reply) = some(subscriber.call(Control::of(&free), REPLY))? else { return Ok(false) };
    let share: &Share = reply.control_as()?;
    if share.frame != frame {
        return Err(format!("a reply for frame {}, expected {frame}", share.frame).into());
    }
    Ok(share.was_kept != 0)
}

/// Takes all frames and checks each of their pixels, until the pipeline ends.
pub(crate) fn record(path: &Path, options: &Options) -> Result<()> {
    let mut subscriber = builder(options, Slow::Wait(PATIENCE))?.subscribe(path)?;
    let mut counts = Counts::default();
    let mut next = None;
    while let Some(message) = some(subscriber.recv())? {
        counts.received += 1;
        let missed = message.missed();
        let mut frame = Frame::open(message)?;
        let number = frame.ready.frame;
        if next.is_some_and(|next| number != next + missed) {
            return Err(format!("frame {number} after {missed} were missed, expected {next:?}").into());
        }
        next = number.checked_add(1);
        let rows = usize::try_from(frame.ready.rows)?;
        let agrees = frame.rows_agree(0..=rows.saturating_sub(1))?;
        drop(frame);
        let free = Free { frame: number, received: counts.received, missed: subscriber.missed() };
        if some(subscriber.send(Control::of(&free)))?.is_none() {
            counts.taken_back += 1;
        } else if !agrees {
            return Err(differs(number));
        }
    }
    counts.missed = subscriber.missed();
    counts.print("recorder", options.json)
}

/// The settings of a subscriber, which begins here.
fn builder(options: &Options, slow: Slow) -> Result<Builder> {
    if options.attached {
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    let builder = Builder::default().max_fds(1).slow(slow);
    Ok(match options.ring_capacity {
        Some(capacity) => builder.max_peer_ring_capacity(capacity),
        None => builder,
    })
}

/// `None` at the end of the subscription.
fn some<T>(result: sealane::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Disconnected) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn differs(frame: u64) -> Box<dyn std::error::Error> {
    format!("frame {frame}: the statistics are not those of its buffer").into()
}

/// A frame that was published, and its buffer, which is the only one here.
struct Frame {
    ready: FrameReady,
    statistics: Payload,
    camera: Registered,
}

impl Frame {
    /// Checks what came.
    fn open(mut message: Message) -> Result<Self> {
        let fds = message.take_fds();
        let statistics = message.take_payload().ok_or("a frame without statistics")?;
        let Published { camera, ready } = message.control_as::<Published>()?;
        let (camera, ready) = (accept(camera, fds)?, ready.clone());
        Ok(Self { ready, statistics, camera })
    }

    fn rows_agree(&mut self, mut rows: std::ops::RangeInclusive<usize>) -> Result<bool> {
        let grid = grid(&self.ready, &self.statistics)?;
        let Self { camera, statistics, .. } = self;
        rows.try_fold(true, |agree, row| {
            Ok(agree && row_agrees(&mut camera.buffers, 0, grid, row, statistics)?)
        })
    }
}
