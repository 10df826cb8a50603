//! A process is killed while it holds dmabufs: the device lives on, closes cleanly, and no buffer is left over.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use sealane::{Channel, Error};

use crate::{
    capture::{FrameReady, announce, register, registered, statistics},
    machine::{BUFFERS, Held, LONG, capture, next},
    support::role,
};

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn an_algorithm_that_is_killed_with_a_frame_leaves_nothing() {
    let before = Held::now();
    let (mut capture, format) = capture();
    let (mut channel, mut child) = Channel::spawn(role(role_holder)).unwrap();
    let own: Vec<_> = capture.export().unwrap().into_iter().map(|buffer| buffer.map().unwrap()).collect();
    register(&mut channel, &capture.export().unwrap(), format);
    let frame = next(&mut capture);
    announce(&mut channel, &own, frame.buffer, frame.sequence, format);
    assert_eq!(channel.recv_timeout(LONG).unwrap().control(), b"I have it");
    assert_eq!(Held::now().dmabufs, before_and(&before, 2 * BUFFERS), "two of each buffer, ours and theirs");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(channel);
    // The frame's buffer has come back, and the device still captures.
    capture.requeue(frame.buffer).unwrap();
    for _ in 0..2 * BUFFERS {
        let frame = next(&mut capture);
        capture.requeue(frame.buffer).unwrap();
    }
    drop((own, capture.stop().unwrap()));
    before.again();
}

#[test]
#[ignore = "a process of the test above"]
fn role_holder() {
    let mut channel = Channel::inherited().unwrap();
    let (_, buffers) = registered(&mut channel);
    let message = channel.recv().unwrap();
    let mut bytes = [0; 8];
    let ready: &FrameReady = message.control_as().unwrap();
    buffers[ready.buffer as usize].read_at(0, &mut bytes).unwrap();
    channel.send(b"I have it").unwrap();
    let _ = channel.recv();
    unreachable!("it is killed");
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn dmabufs_on_their_way_to_a_killed_process_are_freed() {
    let before = Held::now();
    let (capture, format) = capture();
    let (mut channel, mut child) = Channel::spawn(role(role_holder)).unwrap();
    // From here on it does not read.
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    assert!(waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap().1.stopped());
    for _ in 0..8 {
        register(&mut channel, &capture.export().unwrap(), format);
    }
    assert_eq!(Held::now().dmabufs, before_and(&before, 8 * BUFFERS), "held by nobody but the socket");
    child.kill().unwrap();
    child.wait().unwrap();
    drop((capture.stop().unwrap(), channel));
    before.again();
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn frames_of_a_killed_pipeline_can_be_read_until_they_are_dropped() {
    let before = Held::now();
    let (mut channel, mut child) = Channel::spawn(role(role_pipeline)).unwrap();
    let (_, buffers) = registered(&mut channel);
    let message = channel.recv_timeout(LONG).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));

    // The device is free for the next process, although we hold its buffers.
    let (mut capture, format) = capture();
    for _ in 0..2 * BUFFERS {
        let frame = next(&mut capture);
        capture.requeue(frame.buffer).unwrap();
    }
    let ready: &FrameReady = message.control_as().unwrap();
    let mut frame = vec![0; format.stride * format.height];
    buffers[ready.buffer as usize].read_at(0, &mut frame).unwrap();
    let told = message.payload().unwrap().shared::<u64>().unwrap().to_vec();
    assert!(told == statistics(&frame, format.height), "the frame is not what it was");
    assert_eq!(Held::now().dmabufs, before_and(&before, BUFFERS));
    drop((buffers, capture.stop().unwrap(), message, channel));
    before.again();
}

#[test]
#[ignore = "a process of the test above"]
fn role_pipeline() {
    let mut channel = Channel::inherited().unwrap();
    let (mut capture, format) = capture();
    register(&mut channel, &capture.export().unwrap(), format);
    let own: Vec<_> = capture.export().unwrap().into_iter().map(|buffer| buffer.map().unwrap()).collect();
    let frame = next(&mut capture);
    announce(&mut channel, &own, frame.buffer, frame.sequence, format);
    let _ = channel.recv();
    unreachable!("it is killed");
}

fn before_and(before: &Held, count: usize) -> usize {
    before.dmabufs + count
}
