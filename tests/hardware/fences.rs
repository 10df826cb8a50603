//! A buffer that is handed on before it is filled, as a GPU's are: the receiver can wait for its fence.

use std::time::Duration;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use sealane::{Channel, Control};
use video::{DmaBuf, Vgem};

use crate::{
    machine::{Held, LONG, ending},
    support::role,
};

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn a_fence_crosses_with_its_buffer() {
    let before = Held::now();
    let (mut channel, child) = Channel::spawn(role(role_waiter)).unwrap();
    let buffer = Vgem::new().unwrap();
    loop {
        let work = buffer.begin().unwrap();
        channel.send(Control::of(&0_u8).fd(&buffer.export().unwrap())).unwrap();
        let was_ready = *channel.recv_timeout(LONG).unwrap().control_as::<u8>().unwrap() != 0;
        if buffer.end(work).unwrap() {
            assert!(!was_ready, "the peer does not see that the buffer is not filled yet");
            break;
        }
        // The machine is so slow that the driver has ended the work meanwhile. Once more.
        channel.recv_timeout(LONG).unwrap();
    }
    assert_eq!(*channel.recv_timeout(LONG).unwrap().control_as::<u8>().unwrap(), 1);
    drop((buffer, channel));
    assert!(ending(child).success());
    before.again();
}

/// Says of each buffer that comes whether it is filled, and, when it is, that it is.
#[test]
#[ignore = "a process of the test above"]
fn role_waiter() {
    let mut channel = Channel::inherited().unwrap();
    while let Ok(mut message) = channel.recv() {
        let buffer = DmaBuf::try_from(message.take_fds().remove(0)).unwrap();
        channel.send(Control::of(&u8::from(is_filled(&buffer, Duration::ZERO)))).unwrap();
        assert!(is_filled(&buffer, LONG));
        buffer.map().unwrap().read_at(0, &mut [0; 16]).unwrap();
        channel.send(Control::of(&1_u8)).unwrap();
    }
}

fn is_filled(buffer: &DmaBuf, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    let mut interest = [PollFd::new(buffer, PollFlags::IN)];
    retry_on_intr(|| poll(&mut interest, Some(&timeout))).unwrap() == 1
}
