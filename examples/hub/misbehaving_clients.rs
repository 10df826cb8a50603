//! Clients that behave badly, in a process that runs only on an idle processor (`SCHED_IDLE`, `sched(7)`): the measurement
//! is about their effect on the hub, not about the processors that they use.

use std::{os::fd::OwnedFd, thread, time::Duration};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sealane::{Channel, Control, Error};
use thread_priority::{
    NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::{
    Options, Result,
    output::note,
    protocol::{PAYLOAD, settings},
};

/// How often a slow client reads one answer.
const SLOW: Duration = Duration::from_millis(50);
/// How long a flood takes to swell: ring and socket hold more than the hub can listen to in that time.
const SWELL: Duration = Duration::from_micros(500);

/// Connects all of them and lets them misbehave until `parent` is gone, or this process is killed.
pub(crate) fn run(mut parent: Channel, options: &Options) -> Result<()> {
    // The threads that are begun later inherit it. A low priority would not do: such a thread keeps a processor for its whole
    // slice, some milliseconds, while a well-behaved one that was woken waits.
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, Normal(Idle))
        .map_err(|error| format!("pthread_setschedparam(SCHED_IDLE): {error}"))?;
    let _silent: Vec<_> = (0..options.silent).map(|_| say_nothing(options)).collect::<Result<_>>()?;
    let connect = |count| (0..count).map(|_| settings(options).connect(&options.socket));
    let slow: Vec<_> = connect(options.slow).collect::<sealane::Result<_>>()?;
    let flooding: Vec<_> = connect(options.flooding).collect::<sealane::Result<_>>()?;
    parent.send(b"connected")?;
    thread::spawn(|| tell(be_slow(slow)));
    thread::spawn(|| tell(flood(flooding)));
    // The threads end with the process.
    match parent.recv() {
        Err(Error::Disconnected) => Ok(()),
        other => Err(format!("the end was expected, {other:?} found").into()),
    }
}

/// These clients misbehave but break no rule, so the hub must not drop them.
fn tell(end: sealane::Result<()>) {
    if let Err(error) = end {
        note(format_args!("hub (trouble): {error}"));
    }
}

fn say_nothing(options: &Options) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(&options.socket)?)?;
    Ok(socket)
}

/// Asks as much as there is room for, by the socket and by the ring; reads one answer now and then.
fn be_slow(mut channels: Vec<Channel>) -> sealane::Result<()> {
    while !channels.is_empty() {
        for channel in &mut channels {
            while channel.sender.try_request(Control::default()).is_ok() {}
            while let Some(loan) = channel.try_loan(0)? {
                loan.request(Control::default())?;
            }
            channel.try_recv()?;
        }
        thread::sleep(SLOW);
    }
    Ok(())
}

/// Payloads, control messages and requests: as much as there is room for, all the time. Reads all answers, so that nothing
/// stops it.
fn flood(mut channels: Vec<Channel>) -> sealane::Result<()> {
    while !channels.is_empty() {
        for channel in &mut channels {
            while channel.try_recv()?.is_some() {}
            while channel.try_send(b"flood").is_ok() {}
            while let Some(loan) = channel.try_loan(PAYLOAD)? {
                loan.request(Control::default())?;
            }
        }
        thread::sleep(SWELL);
    }
    Ok(())
}
