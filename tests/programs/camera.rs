//! A camera pipeline and its isolated algorithm: statistics and the frame's descriptor go out, controls come back when they
//! are there, and no frame waits long for them.

use std::{fs::File, time::Duration};

use sealane::{
    Channel, Control, Message, Result,
    zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout},
};

use crate::threads::{SOON, start};

const FRAMES: u64 = 30;
const ZONES: usize = 32 * 24;
const TARGET: u64 = 500;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[zerocopy(crate = "sealane::zerocopy")]
#[repr(C)]
struct Frame {
    id: u64,
    exposure: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[zerocopy(crate = "sealane::zerocopy")]
#[repr(C)]
struct Controls {
    frame: u64,
    exposure: u64,
}

fn algorithm(mut channel: Channel) -> Result<u64> {
    for message in channel.receiver.iter() {
        let mut message = message?;
        let frame = *message.control_as::<Frame>()?;
        // The frame itself, for an algorithm that looks at pixels.
        let _buffer = message.take_fds();
        let Some(statistics) = message.payload() else { continue };
        let zones = statistics.shared::<u32>()?;
        let mean = zones.iter().map(u64::from).sum::<u64>() / zones.len() as u64;
        let exposure = frame.exposure * TARGET / mean.max(1);
        channel.sender.send(Control::of(&Controls { frame: frame.id, exposure }))?;
    }
    Ok(channel.stats().messages_sent)
}

/// Returns the last exposure.
fn pipeline(mut channel: Channel) -> Result<u64> {
    let buffer = File::open("/dev/null").unwrap();
    let mut exposure = 1000;
    let mut last = None;
    let apply = |message: &Message, last: &mut Option<u64>| -> Result<u64> {
        let controls = *message.control_as::<Controls>()?;
        *last = Some(controls.frame);
        Ok(controls.exposure)
    };
    for id in 0..FRAMES {
        let mut zones = channel.loan_slice::<u32>(ZONES)?;
        // A scene of brightness 2.
        zones.fill(u32::try_from(2 * exposure).unwrap());
        zones.send_with(Control::of(&Frame { id, exposure }).fd(&buffer))?;
        match channel.recv_timeout(Duration::from_millis(5)) {
            Ok(message) => exposure = apply(&message, &mut last)?,
            // Late controls are for a later frame.
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
    while last != Some(FRAMES - 1) {
        exposure = apply(&channel.recv_timeout(SOON)?, &mut last)?;
    }
    Ok(exposure)
}

#[test]
fn camera_pipeline() {
    let (a, b) = Channel::pair().unwrap();
    let algorithm = start(move || algorithm(b)).asleep();
    assert_eq!(pipeline(a).unwrap(), TARGET / 2);
    assert_eq!(algorithm.result().unwrap(), FRAMES);
}
