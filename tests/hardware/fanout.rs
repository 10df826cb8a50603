//! A publisher whose frames are in the device's buffers, and subscribers that hold them: a buffer goes back to the device when the
//! last subscriber has said so, or is gone.

use std::{process::Child, time::Duration};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use sealane::{
    Builder, Control, Event, Publisher, ReplyToken, Slow, SubscriberId, SubscriberInfo,
    zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout},
};
use video::{Capture, DmaBuf, Format, Frame, Mapping};

use crate::{
    capture::statistics,
    machine::{BUFFERS, Held, LONG, capture, ending, next, open_dmabufs},
    shares::Shares,
    support::role,
};

/// Comes with a frame's statistics, and with its buffer.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Published {
    frame: u64,
    stride: u64,
    rows: u64,
    /// The identity of the dmabuf.
    inode: u64,
}

/// The request of a subscriber that has a frame. It holds it until the reply.
const HAVE: &[u8] = b"I have it";

/// A device and a publisher.
struct Pipeline {
    capture: Capture,
    format: Format,
    sent: Vec<DmaBuf>,
    own: Vec<Mapping>,
    publisher: Publisher,
    shares: Shares<SubscriberId, BUFFERS>,
    /// Number of the next frame.
    next: u64,
}

impl Pipeline {
    fn new() -> Self {
        let (capture, format) = capture();
        let own = capture.export().unwrap().into_iter().map(|buffer| buffer.map().unwrap()).collect();
        let sent = capture.export().unwrap();
        let publisher = settings().publisher().unwrap();
        Self { capture, format, sent, own, publisher, shares: Shares::new(), next: 0 }
    }

    fn spawn(&mut self) -> (SubscriberId, Child) {
        self.publisher.spawn(role(role_subscriber)).unwrap()
    }

    /// Publishes the device's next frame, which all subscribers then hold.
    fn publish(&mut self) -> Frame {
        let frame = next(&mut self.capture);
        let buffer = usize::try_from(frame.buffer).unwrap();
        let Format { stride, height, .. } = self.format;
        let mut pixels = vec![0; stride * height];
        self.own[buffer].read_at(0, &mut pixels).unwrap();
        let statistics = statistics(&pixels, height);
        let inode = self.sent[buffer].inode().unwrap();
        let published = Published { frame: self.next, stride: stride as u64, rows: height as u64, inode };
        let mut loan = self.publisher.loan_slice::<u64>(statistics.len()).unwrap();
        loan.copy_from_slice(&statistics);
        loan.send_with(Control::of(&published).fd(&self.sent[buffer])).unwrap();
        let holders = self.publisher.subscribers().iter().map(SubscriberInfo::id).collect();
        self.shares.lend(buffer, self.next, holders);
        self.next += 1;
        frame
    }

    fn event(&mut self) -> Event {
        self.publisher.wait_event(LONG).unwrap().expect("a subscriber does something")
    }

    /// Waits until a subscriber has a frame.
    fn have(&mut self) -> (SubscriberId, ReplyToken) {
        match self.event() {
            Event::Message(id, message) => {
                assert_eq!(message.control(), HAVE);
                (id, message.reply_token().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Has a subscriber give its frame back. Returns the buffers that are free by that.
    fn ask_back(&mut self, id: SubscriberId, token: ReplyToken) -> Vec<u32> {
        self.publisher.reply(id, token, b"give it back").unwrap();
        match self.event() {
            Event::Message(from, message) => {
                assert_eq!(from, id);
                let frame = *message.control_as::<u64>().unwrap();
                assert_eq!(self.shares.give_back(id, frame), 1);
            }
            other => panic!("{other:?}"),
        }
        self.requeue()
    }

    /// Kills a subscriber. Returns the buffers that are free by that.
    fn kill(&mut self, id: SubscriberId, mut child: Child) -> Vec<u32> {
        child.kill().unwrap();
        child.wait().unwrap();
        match self.event() {
            Event::Left(left, _) => assert_eq!(left, id),
            other => panic!("{other:?}"),
        }
        self.shares.give_back(id, u64::MAX);
        self.requeue()
    }

    /// Gives the device what nobody holds any more.
    fn requeue(&mut self) -> Vec<u32> {
        let free: Vec<_> = std::iter::from_fn(|| self.shares.next_free())
            .map(|buffer| u32::try_from(buffer).unwrap())
            .collect();
        for buffer in &free {
            self.capture.requeue(*buffer).unwrap();
        }
        free
    }

    /// Has the device fill buffers for a while. Returns which.
    fn watch_device(&mut self) -> Vec<u32> {
        let mut filled = Vec::new();
        for _ in 0..3 * BUFFERS {
            let frame = next(&mut self.capture);
            filled.push(frame.buffer);
            self.capture.requeue(frame.buffer).unwrap();
        }
        filled.sort_unstable();
        filled.dedup();
        filled
    }

    fn end(self) {
        drop((self.own, self.sent, self.capture.stop().unwrap(), self.publisher));
    }
}

fn settings() -> Builder {
    Builder::default().max_fds(1).slow(Slow::Wait(Duration::MAX))
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn a_buffer_goes_back_to_the_device_when_the_last_of_three_has_said_so() {
    let before = Held::now();
    let mut pipeline = Pipeline::new();
    let [first, second, third] = [(); 3].map(|()| pipeline.spawn());

    // All say so.
    let frame = pipeline.publish();
    let mut tokens: Vec<_> = (0..3).map(|_| pipeline.have()).collect();
    assert!(!pipeline.watch_device().contains(&frame.buffer), "the device filled a buffer that is held");
    let (last, token) = tokens.pop().unwrap();
    for (id, token) in tokens {
        assert!(pipeline.ask_back(id, token).is_empty());
    }
    assert!(!pipeline.watch_device().contains(&frame.buffer), "one of three still holds it");
    assert_eq!(pipeline.ask_back(last, token), [frame.buffer]);
    assert!(pipeline.watch_device().contains(&frame.buffer), "the device has it again");

    // Two say so, and the third is killed.
    let frame = pipeline.publish();
    let (killed, child) = third;
    for (id, token) in (0..3).map(|_| pipeline.have()).collect::<Vec<_>>() {
        if id != killed {
            assert!(pipeline.ask_back(id, token).is_empty());
        }
    }
    assert!(!pipeline.watch_device().contains(&frame.buffer), "the one that will be killed holds it");
    assert_eq!(pipeline.kill(killed, child), [frame.buffer]);
    assert!(pipeline.watch_device().contains(&frame.buffer), "the device has it again");

    pipeline.end();
    for (_, child) in [first, second] {
        assert!(ending(child).success());
    }
    before.again();
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn all_buffers_of_a_killed_subscriber_come_back() {
    let before = Held::now();
    let mut pipeline = Pipeline::new();
    let (stopped, child) = pipeline.spawn();
    let (other, others_child) = pipeline.spawn();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    assert!(waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap().1.stopped());

    let mut held = Vec::new();
    for _ in 0..BUFFERS - 1 {
        held.push(pipeline.publish().buffer);
        let (id, token) = pipeline.have();
        assert_eq!(id, other);
        assert!(pipeline.ask_back(id, token).is_empty());
    }
    // The device has one buffer left, and goes on with it.
    assert_eq!(pipeline.watch_device().len(), 1);
    held.sort_unstable();
    assert_eq!(pipeline.kill(stopped, child), held);
    assert_eq!(pipeline.watch_device().len(), BUFFERS);

    pipeline.end();
    assert!(ending(others_child).success());
    before.again();
}

/// Holds each frame until the reply, and then sees whether it is still the same.
#[test]
#[ignore = "a process of the tests above"]
fn role_subscriber() {
    let mut subscriber = settings().subscribe_inherited().unwrap();
    while let Ok(mut message) = subscriber.recv() {
        let dmabuf = DmaBuf::try_from(message.take_fd().expect("the frame's buffer")).unwrap();
        let &Published { frame, stride, rows, inode } = message.control_as().unwrap();
        assert_eq!(dmabuf.inode().unwrap(), inode);
        let buffer = dmabuf.map().unwrap();
        let told = message.payload().unwrap().shared::<u64>().unwrap().to_vec();
        let [stride, rows] = [stride, rows].map(|count| usize::try_from(count).unwrap());
        let is_the_frame = || {
            let mut pixels = vec![0; stride * rows];
            buffer.read_at(0, &mut pixels).unwrap();
            statistics(&pixels, rows) == told
        };
        assert!(is_the_frame(), "frame {frame}: the statistics of another");
        subscriber.call(HAVE, LONG).unwrap();
        assert!(is_the_frame(), "frame {frame}: the device wrote to a buffer that is held");
        drop((buffer, message));
        assert_eq!(open_dmabufs(), 0);
        subscriber.send(Control::of(&frame)).unwrap();
    }
}
