//! The algorithm process: statistics in, controls out. It checks everything that the pipeline sends, and reads it by value.

use std::os::fd::OwnedFd;

use sealane::{Channel, Control, Error, Message, Payload};

use crate::algorithm::{GreyWorld, step};
use crate::buffers::{Buffers, Layout};
use crate::permitted::enter_sandbox;
use crate::protocol::{BUFFERS, Controls, FrameReady, Register, Revoke};
use crate::sandbox::Sandbox;
use crate::sensor::Size;
use crate::statistics::{Grid, Histograms, Zone};
use crate::{Options, Result};

/// Answers frames until the pipeline closes the channel.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut builder = Channel::builder().ring_capacity(0).max_fds(BUFFERS);
    if let Some(capacity) = options.ring_capacity {
        builder = builder.max_peer_ring_capacity(capacity);
    }
    let mut channel = builder.inherited()?;
    if options.sandbox {
        enter_sandbox()?;
    }
    let mut registered = None;
    loop {
        match serve(&mut channel, &mut registered, options.sandbox) {
            Ok(()) => {}
            Err(error) if matches!(error.downcast_ref(), Some(Error::Disconnected)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Takes one message. The payload is released before the answer is sent: the pipeline then has its space back.
fn serve(channel: &mut Channel, registered: &mut Option<Registered>, sandboxed: bool) -> Result<()> {
    let mut message = channel.recv()?;
    if let Some(token) = message.reply_token() {
        let buffers = registered.take().map_or(0, |registered| registered.buffers.count());
        let revoke = Revoke { buffers: u32::try_from(buffers)? };
        if *message.control_as::<Revoke>()? != revoke {
            return Err(format!("other buffers are revoked than the {buffers} that were registered").into());
        }
        return Ok(channel.reply(token, Control::of(&revoke))?);
    }
    let Some(payload) = message.take_payload() else {
        *registered = Some(register(&mut message)?);
        return Ok(());
    };
    let registered = registered.as_mut().ok_or("a frame before its buffers were registered")?;
    let ready: &FrameReady = message.control_as()?;
    let mut controls = examine(ready, ready.buffer, &payload, registered)?;
    drop(payload);
    if sandboxed {
        (controls.acts_tried, controls.acts_refused) = (Sandbox::ACTS, Sandbox::try_to_escape());
    }
    channel.send(Control::of(&controls))?;
    Ok(())
}

/// The camera as the pipeline describes it.
pub(crate) struct Registered {
    pub(crate) buffers: Buffers,
    has_colour_gains: bool,
}

fn register(message: &mut Message) -> Result<Registered> {
    let fds = message.take_fds();
    accept(message.control_as()?, fds)
}

/// Checks a camera and its buffers.
pub(crate) fn accept(register: &Register, fds: Vec<OwnedFd>) -> Result<Registered> {
    let &Register { width, height, stride, has_colour_gains } = register;
    let size = Size::new(width.try_into()?, height.try_into()?);
    let size = size.ok_or_else(|| format!("frame buffers of {width}x{height} pixels"))?;
    let layout = match usize::try_from(stride)? {
        0 => Layout::Planes,
        stride if size.width.is_multiple_of(2) && stride >= 2 * size.width => Layout::Yuyv { stride },
        _ => return Err(format!("rows of {width} pixels in {stride} bytes").into()),
    };
    let buffers = Buffers::new(size, layout, fds)?;
    Ok(Registered { buffers, has_colour_gains: has_colour_gains != 0 })
}

/// Checks a frame, which is in this one of the registered buffers, and computes how to take the next.
pub(crate) fn examine(
    ready: &FrameReady,
    buffer: u32,
    payload: &Payload,
    registered: &mut Registered,
) -> Result<Controls> {
    let grid = grid(ready, payload)?;
    if !ready.settings.is_valid() {
        return Err(format!("a frame that no sensor can have taken: {:?}", ready.settings).into());
    }
    let histograms: Histograms = payload.read(0)?;
    let pixels = registered.buffers.size().pixels() as u64;
    if histograms
        .iter()
        .any(|histogram| histogram.iter().map(|&count| u64::from(count)).sum::<u64>() != pixels)
    {
        return Err(format!("a histogram that does not count {pixels} pixels").into());
    }
    let zones = payload.shared_at::<Zone>(Grid::OFFSET, grid.columns * grid.rows)?;
    let mut grey_world = GreyWorld::default();
    zones.for_each_block(|block| grey_world.add(block));

    // One row of zones, another in each frame, is measured once more in the frame buffer itself.
    let row = usize::try_from(ready.frame % u64::from(ready.rows))?;
    let buffer_agrees = row_agrees(&mut registered.buffers, buffer, grid, row, payload)?;

    let outcome = step(&histograms, &grey_world, &ready.settings, registered.has_colour_gains);
    Ok(Controls {
        frame: ready.frame,
        converged: outcome.converged.into(),
        buffer_agrees: buffer_agrees.into(),
        acts_tried: 0,
        acts_refused: 0,
        next: outcome.next,
        observed: outcome.observed,
    })
}

/// The grid of a frame's statistics.
pub(crate) fn grid(ready: &FrameReady, payload: &Payload) -> Result<Grid> {
    let grid = Grid { columns: ready.columns.try_into()?, rows: ready.rows.try_into()? };
    if grid.columns == 0 || grid.rows == 0 || grid.length() != payload.len() {
        return Err(format!("{} bytes of statistics for {grid:?}", payload.len()).into());
    }
    Ok(grid)
}

/// Whether a row of zones is what a buffer holds: it is measured there once more.
pub(crate) fn row_agrees(
    buffers: &mut Buffers,
    buffer: u32,
    grid: Grid,
    row: usize,
    payload: &Payload,
) -> Result<bool> {
    let mut measured = vec![Zone::default(); grid.columns];
    buffers.measure_zones(buffer, grid, row, &mut measured)?;
    let offset = Grid::OFFSET + row * grid.columns * size_of::<Zone>();
    Ok(payload.shared_at::<Zone>(offset, grid.columns)?.iter().eq(measured))
}
