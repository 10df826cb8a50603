//! The process that reads: it does as it is ordered, and says how much CPU it took.

use sealane::{Channel, Control};

use crate::{
    Options, Result,
    carriers::{Done, Order, SOCKETS, cpu_time, read_batch},
    keep_to_a_cpu,
};

/// The other process: follows orders until the channel is closed.
pub(crate) fn run(options: &Options) -> Result<()> {
    keep_to_a_cpu(true)?;
    let ring = options.ring_capacity.ok_or("the ring's capacity expected, none found")?;
    let mut channel = Channel::builder().ring_capacity(0).max_peer_ring_capacity(ring).inherited()?;
    let mut sockets = Vec::new();
    for _ in SOCKETS {
        sockets.push(channel.recv()?.take_fd().ok_or("a socket expected, none found")?);
    }
    loop {
        let request = match channel.recv() {
            Ok(request) => request,
            Err(sealane::Error::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (order, cpu) = (*request.control_as::<Order>()?, cpu_time());
        read_batch(options.size, order, &mut channel, &sockets)?;
        let token = request.reply_token().ok_or("an order that wants an answer expected, found another")?;
        let cpu = u64::try_from(cpu_time().saturating_sub(cpu).as_nanos())?;
        channel.reply(token, Control::of(&Done { cpu }))?;
    }
}
